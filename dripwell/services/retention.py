"""Retention: what is old goes, once a day. So does the address of whoever never confirmed a sign-up; and who has been
silent for long is asked, and erased without an answer.

The periods are `privacy.keep_events` and `privacy.keep_quiet_subscribers` of config/site.yaml. The day is a row's, so
that no restart and no second worker makes two of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from dripwell.core.duration import Duration
from dripwell.core.errors import NotFoundError
from dripwell.core.states import DELIVERY_PRECEDENCE
from dripwell.services import erase, serve
from dripwell.services.sender import STAYING
from dripwell.storage import clicks, clock, retention
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection, Database

log = logging.getLogger("dripwell.retention")

ANSWER_WITHIN = timedelta(days=30)
"""So long after the email was accepted nobody is erased for not answering it."""
ASKED_A_DAY = 500
"""The lane of these emails is that of confirmations, which must not wait behind them."""
UNCONFIRMED_FOR = timedelta(days=30)
"""So long after their last request the address of somebody who never confirmed is kept: anybody may have typed it."""
CAMPAIGN = STAYING
ACTOR = "retention"
_SLICE = 2_000
_PEOPLE = 1_000


Still = Callable[[Connection, int], bool]
"""Whether the reason to erase this person holds in this moment."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """Whom a slice found, and why they go; then the pass stands where `then` puts it."""

    people: list[int] = field(default_factory=list)
    still: Still | None = None
    then: Callable[[Connection], None] | None = None
    is_last: bool = False


def run(
    database: Database,
    *,
    keep_events: Duration,
    keep_quiet: Duration | None,
    pepper: bytes,
    out_of_time: Callable[[], bool],
) -> int:
    """One pass: today's work, or the rest of it. Returns how many slices it took; 0: today is done.

    `keep_quiet` None: nobody is asked or erased for being silent. Whoever never confirmed is erased all the same. The
    time is looked at before each slice and each person; whoever is left then is found again by the next pass.
    """
    slices = 0
    while not out_of_time():
        found = database.retrying(lambda connection: _slice(connection, keep_events, keep_quiet))
        if found is None:
            break
        slices += 1
        for subscriber_id in found.people:
            if out_of_time():
                return slices
            _erase(database, subscriber_id, found.still, pepper)
        if found.then is not None:
            database.retrying(found.then)
        if found.is_last:
            _forget_words(database)
    return slices


def _forget_words(database: Database) -> None:
    """Words that only erased people agreed to go with them, within a day: a file may have had some of their own."""
    with database.transaction() as connection:
        versions = retention.unused_words(connection, _SLICE)
    if versions and not database.retrying(lambda connection: retention.drop_words(connection, versions)):
        log.info("consents are being written: words that nobody uses wait for tomorrow")


def _erase(database: Database, subscriber_id: int, still: Still | None, pepper: bytes) -> None:
    """Erase them, unless they have confirmed, or were heard of, in this very moment."""
    asks = None if still is None else lambda connection: still(connection, subscriber_id)
    try:
        erase.erase(database, subscriber_id, pepper=pepper, actor=ACTOR, still=asks)
    except NotFoundError:
        log.info("somebody who was to be erased has just confirmed, or asked once more")


def _is_stranger(connection: Connection, subscriber_id: int) -> bool:
    return retention.is_stranger(connection, subscriber_id, clock.read(connection).now - UNCONFIRMED_FOR)


def is_asked(connection: Connection, message_id: int) -> str | None:
    """The address of the person that this message asked, if their answer is still waited for; else None."""
    origin = clicks.origin(connection, message_id)
    if origin is None or origin.address is None or not retention.is_asked(connection, origin.subscriber_id):
        return None
    return origin.address


def stay(connection: Connection, message_id: int, times: Times) -> bool:
    """The person this message asked wants to stay. False: nobody waits for their answer, or they are erased."""
    origin = clicks.origin(connection, message_id)
    return (
        origin is not None
        and origin.address is not None
        and origin.campaign_name == CAMPAIGN
        and retention.keep(connection, origin.subscriber_id, times.now)
    )


def _slice(connection: Connection, keep_events: Duration, keep_quiet: Duration | None) -> _Slice | None:
    """The next slice of today's work: whom to erase; None: there is none now."""
    state = retention.lock(connection)
    if state is None or not state.is_due:
        return None
    times = clock.read(connection)
    before = times.wall_now - keep_events.at_most()
    reached = retention.drop_events(
        connection, after=state.events, before=before, precedence=DELIVERY_PRECEDENCE, limit=_SLICE
    )
    if reached is not None:
        retention.moved(connection, events=reached)
        return _Slice()
    reached = retention.drop_clicks(connection, after=state.clicks, before=before, limit=_SLICE)
    if reached is not None:
        retention.moved(connection, clicks=reached)
        return _Slice()
    if retention.drop_webhooks(connection, before=before, limit=_SLICE):
        return _Slice()
    strangers = retention.strangers(connection, before=times.now - UNCONFIRMED_FOR, limit=_PEOPLE)
    if strangers:
        log.info("%d people who never confirmed a sign-up are erased", len(strangers))
        return _Slice(strangers, _is_stranger)
    if keep_quiet is None:
        retention.passed(connection, after=state.people, upto=None)
        return _Slice(is_last=True)
    return _quiet(connection, state, keep_quiet.at_most(), times)


def _quiet(connection: Connection, state: retention.State, silent: timedelta, times: Times) -> _Slice:
    """Ask who can be asked, as many as today has room for; the others go on being silent until another day."""
    since, wall_since = times.now - silent, times.wall_now - silent
    found = retention.quiet(connection, after=state.people, since=since, wall_since=wall_since, limit=_PEOPLE)
    if not found:
        people = retention.unanswered(connection, asked_before=times.now - ANSWER_WITHIN, limit=_PEOPLE)
        if not people:
            retention.passed(connection, after=state.people, upto=None)
            return _Slice(is_last=True)
        log.info("%d silent people have not answered and are erased", len(people))
        return _Slice(people)
    silent_ones = [person for person in found if person.quiet]
    asked = [person.id for person in silent_ones if person.state == "active"][: max(0, ASKED_A_DAY - state.asked)]
    for subscriber_id in asked:
        _ask(connection, subscriber_id, times)
    retention.asked(connection, len(asked))
    gone = [person.id for person in silent_ones if person.state != "active"]  # nobody may mail them, even to ask
    if asked or gone:
        log.info("%d silent people are asked whether they want to stay, %d are erased", len(asked), len(gone))

    def still(connection: Connection, subscriber_id: int) -> bool:
        return retention.is_unaskable(connection, subscriber_id, since=since, wall_since=wall_since)

    def then(connection: Connection) -> None:
        retention.passed(connection, after=state.people, upto=found[-1].id)

    return _Slice(gone, still, then)


def _ask(connection: Connection, subscriber_id: int, times: Times) -> None:
    round = retention.ask(connection, subscriber_id, times.now)
    serve.plan_service(
        connection,
        campaign=CAMPAIGN,
        step_key=CAMPAIGN,
        subscriber_id=subscriber_id,
        round=round,
        now=times.now,
        valid_until=times.now + ANSWER_WITHIN,
    )
