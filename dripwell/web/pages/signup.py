"""The page of a sign-up form: GET shows it, POST asks, and only the button in the email that follows subscribes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.responses import Response

from dripwell.core.agreement import offer
from dripwell.core.campaign import Form, Topic
from dripwell.core.network import truncated
from dripwell.services import signup
from dripwell.services.signup import Answers
from dripwell.storage import campaigns, clock
from dripwell.storage.database import Connection
from dripwell.web.visit import Visit

log = logging.getLogger("dripwell.web")

# Fields of our own hold a hyphen, which no field that a form asks for can.
AGREE, ALSO, SHOWN, TRAP, DO = "dw-agree", "dw-also", "dw-shown", "web-site", "dw-do"

LABELS = {"email": "Your email address", "first_name": "First name", "last_name": "Last name", "state": "State"}
_COMPLETES = {"first_name": "given-name", "last_name": "family-name", "state": "address-level1"}

ONCE_MORE = "Almost there. Please read the words below, tick the box and press the button once more."
TOO_FAST = "That went very fast. Please take a moment to look it over, then press the button once more."
TRAPPED = (
    "A hidden field that must stay empty was filled in, most likely by a program. Please press the button once more."
)
NO_FORM = (
    "Its address was mistyped or cut off, or the form has been taken down. Nothing was sent. Look for it on the page "
    "that led you here."
)
NOT_AGREED = "Tick this box if you want these emails."


@dataclass(frozen=True, slots=True)
class Field:
    """One field a form asks for, as the page shows it."""

    name: str
    label: str
    required: bool
    value: str
    completes: str


def page(visit: Visit) -> Response:
    """GET shows the form, nothing ticked. POST asks, once the page was ours, was read and is complete.

    The same answer for every address: what we know about one is nobody's business but its owner's.
    """
    found = _form(visit)
    if found is None:
        return visit.look.problem(404, "There is no such form", NO_FORM)
    form, topic = found
    if visit.too_large:
        return too_large(visit)
    with visit.transaction() as (_, times):
        wall_now = times.wall_now
    if not visit.acts:
        return _show(visit, form, topic, shown=signup.shown_at(visit.installation.keys, wall_now))
    answers = signup.read(form, {name: visit.form.get(name, "") for name, _ in form.asks})
    age = signup.age(visit.installation.keys, visit.field(SHOWN), wall_now)
    if age is None:
        # Embedded elsewhere, or open since yesterday: what was ticked there, was ticked beside words we do not know.
        shown = signup.shown_at(visit.installation.keys, wall_now)
        return _show(visit, form, topic, shown=shown, errors=answers.errors, note=ONCE_MORE)
    errors = dict(answers.errors)
    if visit.field(AGREE) != "yes":
        errors[AGREE] = NOT_AGREED
    note = TRAPPED if visit.form.get(TRAP) else TOO_FAST if age < signup.FASTEST else ""
    if errors or note:
        return _show(
            visit, form, topic, shown=visit.field(SHOWN), errors=errors, note="" if errors else note, ticked=True
        )
    if not within_limit(visit):
        return too_often(visit)
    again = visit.field(DO) == "again"
    if has_room(visit):
        _ask(visit, form, answers, again=again)
    return visit.look.page(
        "signup_asked.html",
        "Check your email",
        here=visit.here,
        address=answers.address,
        topic=topic,
        again=again,
        most=signup.MOST_MAILS,
        subject=subject(visit),
        hidden=[
            *((name, visit.form.get(name, "")) for name, _ in form.asks),
            *((ALSO, name) for name in visit.form.getlist(ALSO) if name in form.also),
            (AGREE, "yes"),
            (SHOWN, visit.field(SHOWN)),
            (DO, "again"),
        ],
    )


def within_limit(visit: Visit) -> bool:
    """Count this request, whatever becomes of it, and say whether so many are answered."""
    network = truncated(visit.client)
    return visit.installation.database.retrying(lambda connection: signup.is_within_limit(connection, network))


def has_room(visit: Visit) -> bool:
    """Whether one more confirmation may be mailed. If not, the answer is the same, and the operator's log says so."""
    room = visit.installation.database.retrying(signup.room)
    if room.is_news:
        log.error(
            "%d confirmations were asked for within an hour: until there are fewer, the forms keep and mail nothing. "
            "If these are not visitors of yours, take the forms off the web: forms: in config/site.yaml",
            signup.CEILING,
        )
    return room.is_left


def too_often(visit: Visit) -> Response:
    """The page for a network that asked too often."""
    response = visit.look.problem(
        429, "Please try again in an hour", "Too many requests came from your network. Nothing was changed."
    )
    response.headers["retry-after"] = "3600"
    return response


def too_large(visit: Visit) -> Response:
    """The page for a body that is longer than any form of ours."""
    return visit.look.problem(413, "That is too long", "What was sent is longer than this form. Nothing was kept.")


def subject(visit: Visit) -> str:
    """The confirmation's subject, for whoever looks for it; empty when it holds words that only the email knows."""
    with visit.transaction() as (connection, _):
        row = campaigns.by_name(connection, "confirm")
        if row is None or row.version_id is None:
            return ""
        campaign = visit.installation.versions.published(connection, row.version_id).campaign
    found = next((step.subject for step in campaign.emails), "")
    return "" if "{{" in found else found


def _form(visit: Visit) -> tuple[Form, Topic] | None:
    site = visit.installation.site
    form = next((form for form in site.forms if form.name == visit.path["form"]), None)
    topic = site.topic(form.topic) if form is not None else None
    return None if form is None or topic is None else (form, topic)


def _ask(visit: Visit, form: Form, answers: Answers, *, again: bool) -> None:
    installation = visit.installation

    def work(connection: Connection) -> None:
        signup.ask(
            connection,
            form=form,
            site=installation.site,
            answers=answers,
            also=frozenset(visit.form.getlist(ALSO)),
            page=installation.site.base_url + visit.here,
            network=truncated(visit.client),
            again=again,
            pepper=installation.pepper,
            new_id=installation.new_id,
            times=clock.read(connection),
        )

    installation.database.retrying(work)


def _show(
    visit: Visit,
    form: Form,
    topic: Topic,
    *,
    shown: str,
    errors: Mapping[str, str] | None = None,
    note: str = "",
    ticked: bool = False,
) -> Response:
    """The form with what was typed. Boxes are as they were only when they were `ticked` on this very page."""
    site = visit.installation.site
    further = [found for name in form.also if (found := site.topic(name)) is not None]
    return visit.look.page(
        "signup.html",
        topic.title,
        status=422 if errors else 200,
        here=visit.here,
        topic=topic,
        fields=[
            Field(
                name,
                LABELS.get(name, name.replace("_", " ").capitalize()),
                required,
                visit.field(name, signup.LONGEST_ADDRESS),
                _COMPLETES.get(name, "off"),
            )
            for name, required in form.asks
        ],
        consent=form.consent,
        agreed=ticked and visit.field(AGREE) == "yes",
        further=[(found.name, offer(found), ticked and found.name in visit.form.getlist(ALSO)) for found in further],
        names={"agree": AGREE, "also": ALSO, "shown": SHOWN, "trap": TRAP},
        shown=shown,
        errors=errors or {},
        note=note,
    )
