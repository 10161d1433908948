"""Somebody asks to be mailed through a form. Nothing is, but one confirmation, until they press its button.

A form is a mail cannon in the hands of a stranger: whoever asks, for whomever, gets the same answer, and what is mailed
is bounded by address and by network. The counts are rows, so the bounds hold while Redis is away.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from dripwell.core.address import address_hash, check
from dripwell.core.agreement import Asked, asked_by
from dripwell.core.campaign import Form, Site
from dripwell.core.errors import InvalidTokenError
from dripwell.core.tokens import LIFETIME, Keys, Purpose, sign, verify
from dripwell.services import serve
from dripwell.storage import erasing, provider_lists, signups, subscribers, suppressions
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.storage.signups import Signup

MOST_MAILS = 3
"""Confirmations to one address in 24 hours: the first of each request, and those asked for again."""
MOST_UNANSWERED = 6
"""Confirmations to one address in UNANSWERED_DAYS while nobody presses one: three a day for ever are a cannon, too.
Whoever wants our mail finds one of six."""
UNANSWERED_DAYS = 30
PER_NETWORK = 10
"""Requests from one network (/24, /48) within any 60 minutes. A household or an office stays far below."""
CEILING = 2_000
"""Confirmations within any 60 minutes that the pages may cause, everybody together. No clinic's busiest hour comes
near; many networks at once, each within its own bound, must not spend the sender's good name on strangers."""
FASTEST = timedelta(seconds=3)
"""Nobody reads what they agree to and types an address in less."""
SLOWEST = timedelta(hours=24)
"""A page that stood open for longer may show words that are not ours any more."""

LONGEST_ADDRESS = 254
LONGEST_FIELD = 100
_NO_CONTROLS = "This holds characters that nobody can see. Type it instead of pasting it."
_LOOKALIKES = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC")


# What was typed


@dataclass(frozen=True, slots=True)
class Answers:
    """What somebody typed, as it is kept, and what is wrong with it by field; `address` and `fields` then as typed."""

    address: str
    fields: Mapping[str, str]
    errors: Mapping[str, str]


def read(form: Form, typed: Mapping[str, str]) -> Answers:
    """Check the fields this form asks for. What it does not ask for is not looked at."""
    errors: dict[str, str] = {}
    address = typed.get("email", "").strip(" \t")
    try:
        address = checked_address(address)
    except ValueError as error:
        errors["email"] = str(error)
    fields = {}
    for name, required in form.asks:
        if name == "email":
            continue
        value = typed.get(name, "").strip(" \t")
        wrong = _wrong_with(value, required=required)
        if wrong:
            errors[name] = wrong
        if value:
            fields[name] = value
    return Answers(address, fields, errors)


def checked_address(text: str) -> str:
    """The address as it is kept. Raises ValueError with a sentence for whoever typed it."""
    if not text:
        raise ValueError("Write your email address.")
    if len(text) > LONGEST_ADDRESS:
        raise ValueError(f"An email address has {LONGEST_ADDRESS} characters at most.")
    if not text.isprintable():
        raise ValueError(_NO_CONTROLS)
    domain = unicodedata.normalize("NFKC", text.rpartition("@")[2])
    if any(_mixes_alphabets(label) for label in domain.split(".")):
        raise ValueError("This mixes letters of two alphabets that look alike. Type the address by hand.")
    try:
        return check(text)
    except ValueError:
        raise ValueError("This is not an email address we can write to. It looks like name@example.com.") from None


def _mixes_alphabets(label: str) -> bool:
    scripts = {unicodedata.name(letter, "?").partition(" ")[0] for letter in label if letter.isalpha()}
    return "LATIN" in scripts and not scripts.isdisjoint(_LOOKALIKES)


def _wrong_with(value: str, *, required: bool) -> str:
    if not value:
        return "Please fill this in." if required else ""
    if len(value) > LONGEST_FIELD:
        return f"{LONGEST_FIELD} characters at most, please."
    if not value.isprintable():
        return _NO_CONTROLS
    # Nothing a stranger types may become a link or markup anywhere.
    if re.search(r"[<>{}]|://|\bwww\.|@", value):
        return "Only plain words here, please: no links, addresses or brackets."
    return ""


# How fast, and how often


def shown_at(keys: Keys, wall_now: datetime) -> str:
    """The signed word that says when a form was shown, to the second of wall time."""
    return sign(keys, Purpose.FORM, int(wall_now.timestamp()), wall_now)


def age(keys: Keys, word: str, wall_now: datetime) -> timedelta | None:
    """How long ago the form with this word was shown; None: we showed no such form, or too long ago."""
    try:
        shown = datetime.fromtimestamp(verify(keys, Purpose.FORM, word, wall_now), UTC)
    except (InvalidTokenError, OverflowError, ValueError, OSError):
        return None
    found = wall_now - shown
    return found if found < SLOWEST else None


def is_within_limit(connection: Connection, network: str) -> bool:
    """Whether one more request from this network is answered; if so it is counted. Commit it by itself."""
    return signups.count(connection, f"network {network}", PER_NETWORK)


@dataclass(frozen=True, slots=True)
class Room:
    """Whether pages may cause one more confirmation. `is_news`: they may not, and nobody was told for an hour."""

    is_left: bool
    is_news: bool


def room(connection: Connection, ceiling: int = CEILING) -> Room:
    """Look whether the ceiling is reached. Requests at the same moment may pass it by as many as there are."""
    if signups.mails_of_an_hour(connection, ceiling) < ceiling:
        return Room(is_left=True, is_news=False)
    return Room(is_left=False, is_news=signups.count(connection, "ceiling told", 1))


# Asking


def ask(
    connection: Connection,
    *,
    form: Form,
    site: Site,
    answers: Answers,
    also: frozenset[str],
    page: str,
    network: str,
    again: bool,
    pepper: bytes,
    new_id: Callable[[], UUID],
    times: Times,
) -> None:
    """Record that somebody asked through `form`, and mail the address its confirmation.

    It does the same work whether we know the address or not, and whatever became of it: that an address is suppressed
    for good is found by whoever sends. Nothing of a known person changes before the button is pressed. `again`: the
    confirmation is mailed once more, within the bounds.
    """
    subscriber_id = signups.person(
        connection,
        public_id=new_id(),
        address=answers.address,
        addr_hash=address_hash(pepper, answers.address),
        now=times.now,
    )
    request(
        connection,
        subscriber_id,
        form=form.name,
        source=f"form {form.name}",
        asked=asked_by(form, site, also),
        times=times,
        page=page,
        network=network,
        fields=answers.fields,
        again=again,
    )


def request(
    connection: Connection,
    subscriber_id: int,
    *,
    form: str,
    source: str,
    times: Times,
    asked: Sequence[Asked] = (),
    page: str = "",
    network: str = "",
    fields: Mapping[str, str] | None = None,
    again: bool = False,
) -> int:
    """Record a request of somebody whose row the caller holds, and mail its confirmation. Returns the request's id.

    The same request once more is the same row, made now, unless they unsubscribed in between: only a new one counts
    after that.
    Without `asked` the words are those the form has when the button is pressed: nobody has shown any yet.
    """
    found = signups.newest_open(connection, subscriber_id, form)
    wanted = (tuple(asked), dict(fields or {}), page)
    is_same = found is not None and not found.overtaken and (found.asked, found.fields, found.page) == wanted
    if found is not None and is_same and signups.ask_again(connection, found.id, times.now):
        signup_id = found.id
    else:
        signup_id = signups.add(
            connection,
            subscriber_id,
            form=form,
            source=source,
            asked=asked,
            now=times.now,
            page=page,
            network=network,
            fields=fields,
        )
    _mail(connection, subscriber_id, signup_id, again=again, times=times)
    return signup_id


def mail_again(connection: Connection, *, addr_hash: bytes, times: Times, page: str = "", network: str = "") -> bool:
    """Mail the newest request of this address that waits for its button once more. False: there is none, or too often.

    How long this takes tells what we know: call it when the answer has gone out. `page` and `network` are where this
    was asked.
    """
    known = subscribers.by_hash(connection, addr_hash)
    person = subscribers.lock(connection, known.id) if known is not None else None
    found = signups.newest_open(connection, person.id) if person is not None and person.addr_hash is not None else None
    return found is not None and _again(connection, found, times=times, page=page, network=network)


def mail_this_again(
    connection: Connection, *, enrollment_id: int, times: Times, page: str = "", network: str = ""
) -> bool:
    """Mail the request of this confirmation once more, whose link cannot be used any more. False: done, or too often.

    `page` and `network` are where this was asked.
    """
    found = signups.of_mails(connection, [enrollment_id]).get(enrollment_id)
    person = subscribers.lock(connection, found.subscriber_id) if found is not None else None
    if found is None or found.confirmed_at is not None or person is None or person.addr_hash is None:
        return False
    return _again(connection, found, times=times, page=page, network=network)


def _again(connection: Connection, found: Signup, *, times: Times, page: str, network: str) -> bool:
    """The same request by another email; as a new request, made now, if its person has unsubscribed since."""
    if not found.overtaken:
        signups.ask_again(connection, found.id, times.now)
        return _mail(connection, found.subscriber_id, found.id, again=True, times=times)
    before = signups.mails_today(connection, found.subscriber_id, found.id)[0]
    request(
        connection,
        found.subscriber_id,
        form=found.form,
        source=found.source,
        asked=found.asked,
        times=times,
        page=page,
        network=network,
        fields=found.fields,
        again=True,
    )
    return signups.mails_today(connection, found.subscriber_id, found.id)[0] > before


def _mail(connection: Connection, subscriber_id: int, signup_id: int, *, again: bool, times: Times) -> bool:
    to_them, of_this = signups.mails_today(connection, subscriber_id, signup_id)
    erasure = erasing.latest_of(connection, subscriber_id)
    is_leaving = erasure is not None and erasure[1] == "begun"  # their row, and whatever is mailed to it, is going
    if is_leaving or to_them >= MOST_MAILS or (of_this and not again):
        return False
    if signups.mails_unanswered(connection, subscriber_id, UNANSWERED_DAYS) >= MOST_UNANSWERED:
        return False
    enrollment_id = serve.plan_service(
        connection,
        campaign="confirm",
        step_key="confirm",
        subscriber_id=subscriber_id,
        round=signups.next_round(connection),
        now=times.now,
        valid_until=times.now + LIFETIME[Purpose.CONFIRM],
    )
    signups.add_mail(connection, enrollment_id, signup_id)
    found = suppressions.address_of(connection, subscriber_id)
    if found is not None and found[0] is not None:
        provider_lists.ask_again(connection, found[0])  # an old unsubscribe there must not swallow the confirmation
    return True
