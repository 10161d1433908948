"""Double opt-in: the button on the confirmation page is what makes somebody a subscriber."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dripwell.core.agreement import Asked, asked_by
from dripwell.core.campaign import Site, Topic
from dripwell.services import happen
from dripwell.services.versions import Versions
from dripwell.storage import campaigns, clock, consents, erasing, signups, subscribers, suppressions
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.storage.signups import Signup
from dripwell.storage.subscribers import Subscriber


class State(Enum):
    """What a confirmation link can do."""

    OPEN = "open"  # its button makes it true
    OVERTAKEN = "overtaken"  # its person has unsubscribed since they asked: only a new request counts
    DONE = "done"  # its button was pressed


@dataclass(frozen=True, slots=True)
class Request:
    """What a confirmation link asks, in the words its person was shown. `holds`: what of it is mailed now."""

    enrollment_id: int
    signup: Signup
    address: str
    asked: tuple[Asked, ...]
    topics: tuple[Topic, ...]  # of each that is asked, the form's own first
    state: State
    holds: tuple[Topic, ...]


def read(connection: Connection, *, enrollment_id: int, site: Site) -> Request | None:
    """The request this link names; None when its person is erased, or is being erased, or its topic is gone."""
    signup = signups.of_mails(connection, [enrollment_id]).get(enrollment_id)
    if signup is None or signup.address is None:
        return None
    erasure = erasing.latest_of(connection, signup.subscriber_id)
    if erasure is not None and erasure[1] == "begun":
        return None
    asked = asked_for(signup, site)
    topics = tuple(topic for one in asked if (topic := site.topic(one.topic)) is not None)
    if not topics or topics[0].name != asked[0].topic:
        return None
    there = {topic.name for topic in topics}
    kept = tuple(one for one in asked if one.topic in there)
    state = State.DONE if signup.confirmed_at else State.OVERTAKEN if signup.overtaken else State.OPEN
    holds = _hold(connection, signup.subscriber_id, topics)
    return Request(enrollment_id, signup, signup.address, kept, topics, state, holds)


def _hold(connection: Connection, subscriber_id: int, topics: tuple[Topic, ...]) -> tuple[Topic, ...]:
    """Of these topics those that are mailed: agreed to, and not suppressed."""
    known = suppressions.address_of(connection, subscriber_id)
    if known is None or known[0] is None:
        return ()
    stopped = {scope for _, scope in suppressions.reasons(connection, [known[0]])}
    if stopped & {suppressions.ALL, suppressions.MARKETING}:
        return ()
    given = consents.given(connection, subscriber_id)
    return tuple(topic for topic in topics if topic.name in given and f"topic:{topic.name}" not in stopped)


def asked_for(signup: Signup, site: Site) -> tuple[Asked, ...]:
    """What this request asks: as it was shown, or else as its form puts it now."""
    form = next((form for form in site.forms if form.name == signup.form), None)
    return signup.asked or (asked_by(form, site) if form is not None else ())


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What pressing the button did. `lifted`: what no longer holds back mail, for the fast set."""

    request: Request
    lifted: tuple[tuple[bytes, str], ...] = ()


def confirm(
    connection: Connection,
    *,
    enrollment_id: int,
    site: Site,
    versions: Versions,
    page: str = "",
    network: str = "",
) -> Confirmed | None:
    """Press the button: active, consent in the words that were shown, its series begins. Pressing twice is once.

    A fresh confirmed opt-in lifts an earlier unsubscribe, as SENDING section 9 allows, and fresh is a request that was
    made after it: a link that was mailed before the unsubscribe changes nothing (OVERTAKEN). A dead address or a
    complaint stays as it is until an operator lifts it. None: there is no such request (any more). Raises
    UnavailableError when somebody writes the suppression ledger for long: the button can be pressed again.
    `page` and `network` are where the button was pressed: kept for a request that did not come over the web.
    """
    request = read(connection, enrollment_id=enrollment_id, site=site)
    if request is None or request.state is not State.OPEN:
        return None if request is None else Confirmed(request)
    signup = request.signup
    known = suppressions.address_of(connection, signup.subscriber_id)
    if known is not None and known[0] is not None and suppressions.reasons(connection, [known[0]]):
        suppressions.hold_ledger(connection)  # there is something to lift
    person = subscribers.lock(connection, signup.subscriber_id)
    times = clock.read(connection)
    request = read(connection, enrollment_id=enrollment_id, site=site)  # whatever was said until now counts
    if request is None or person is None or person.addr_hash is None:
        return None
    if request.state is not State.OPEN or not signups.confirm(connection, signup.id, times.now):
        return Confirmed(request)
    if suppressions.since_last_lift(connection, person.addr_hash, suppressions.MARKETING):
        _give_up_the_rest(connection, request, times)
    lifted = _lift(connection, person.addr_hash, request, _started_by(connection, versions, signup.form))
    if not suppressions.since_last_lift(connection, person.addr_hash, suppressions.ALL):
        suppressions.mark_subscriber(connection, person.id, "active")
    _keep_answers(connection, person, signup)
    _agree(connection, request, times, page=page, network=network)
    happen.trigger(connection, versions, person.id, "form", signup.form, times)
    pressed = read(connection, enrollment_id=enrollment_id, site=site)
    return Confirmed(pressed or request, tuple((person.addr_hash, scope) for scope in lifted))


def _started_by(connection: Connection, versions: Versions, form: str) -> list[str]:
    found = []
    for row in campaigns.all_of_kind(connection, ["drip"]):
        if row.state == "running" and row.version_id is not None:
            campaign = versions.published(connection, row.version_id).campaign
            if any(one.kind == "form" and one.name == form for one in campaign.triggers):
                found.append(row.name)
    return found


def _give_up_the_rest(connection: Connection, request: Request, times: Times) -> None:
    """Whoever left everything left every topic: what they do not ask for now must not come back with what they do."""
    asked = {one.topic for one in request.asked}
    for topic in consents.given(connection, request.signup.subscriber_id):
        if topic not in asked:
            consents.add(
                connection,
                request.signup.subscriber_id,
                topic,
                give=False,
                source=consents.UNSUBSCRIBE,
                wording="",
                at=times.now,
            )


def _lift(connection: Connection, addr_hash: bytes, request: Request, series: list[str]) -> list[str]:
    """Whoever asks afresh takes back their word against the topics they ask for and the series that this starts."""
    asked = [f"topic:{one.topic}" for one in request.asked] + [f"campaign:{name}" for name in series]
    lifted = []
    for scope in (suppressions.MARKETING, *asked):
        if suppressions.since_last_lift(connection, addr_hash, scope):
            suppressions.append(
                connection,
                addr_hash=addr_hash,
                scope=scope,
                action="lift",
                reason="confirmed",
                source="confirm",
                evidence=f"enrollment {request.enrollment_id}",
            )
            lifted.append(scope)
    return lifted


def _keep_answers(connection: Connection, person: Subscriber, signup: Signup) -> None:
    if signup.fields or signup.timezone:
        subscribers.amend(connection, person.id, timezone=signup.timezone, fields=signup.fields, tags=())


def _agree(connection: Connection, request: Request, times: Times, *, page: str, network: str) -> None:
    signup = request.signup
    for one in request.asked:
        consents.add(
            connection,
            signup.subscriber_id,
            one.topic,
            give=True,
            source=signup.source,
            wording=one.words,
            at=times.now,
            asked_at=signup.asked_at,
            confirmed_at=times.now,
            page=signup.page or page,
            network=signup.network or network,
        )
