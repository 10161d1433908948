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


@dataclass(frozen=True, slots=True)
class _ToErase:
    """Whom a slice found: silent people, and strangers who never confirmed."""

    people: list[int] = field(default_factory=list)
    strangers: list[int] = field(default_factory=list)


def run(
    database: Database,
    *,
    keep_events: Duration,
    keep_quiet: Duration | None,
    pepper: bytes,
    out_of_time: Callable[[], bool],
) -> int:
    """One pass: today's work, or the rest of it. Returns how many slices it took; 0: today is done.

    `keep_quiet` None: nobody is asked or erased for being silent. Whoever never confirmed is erased all the same.
    """
    slices = 0
    while not out_of_time():
        more = database.retrying(lambda connection: _slice(connection, keep_events, keep_quiet))
        if more is None:
            break
        slices += 1
        for subscriber_id in more.people:
            erase.erase(database, subscriber_id, pepper=pepper, actor=ACTOR)
        for subscriber_id in more.strangers:
            _erase_stranger(database, subscriber_id, pepper)
    return slices


def _erase_stranger(database: Database, subscriber_id: int, pepper: bytes) -> None:
    """Erase them unless they have confirmed in this very moment."""

    def still(connection: Connection) -> bool:
        before = clock.read(connection).now - UNCONFIRMED_FOR
        return retention.is_stranger(connection, subscriber_id, before)

    try:
        erase.erase(database, subscriber_id, pepper=pepper, actor=ACTOR, still=still)
    except NotFoundError:
        log.info("somebody who was to be erased has just confirmed, or asked once more")


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


def _slice(connection: Connection, keep_events: Duration, keep_quiet: Duration | None) -> _ToErase | None:
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
        return _ToErase()
    reached = retention.drop_clicks(connection, after=state.clicks, before=before, limit=_SLICE)
    if reached is not None:
        retention.moved(connection, clicks=reached)
        return _ToErase()
    if retention.drop_webhooks(connection, before=before, limit=_SLICE):
        return _ToErase()
    strangers = retention.strangers(connection, before=times.now - UNCONFIRMED_FOR, limit=_PEOPLE)
    if strangers:
        log.info("%d people who never confirmed a sign-up are erased", len(strangers))
        return _ToErase(strangers=strangers)
    if keep_quiet is None:
        retention.ended(connection)
        return _ToErase()
    return _ToErase(_quiet(connection, state, keep_quiet.at_most(), times))


def _quiet(connection: Connection, state: retention.State, silent: timedelta, times: Times) -> list[int]:
    found = retention.quiet(connection, after=state.people, since=times.now - silent, limit=_PEOPLE)
    asked = 0
    erased: list[int] = []
    reached = state.people
    for person in found:
        if person.quiet and person.state == "active":
            if asked == ASKED_A_DAY:
                break
            _ask(connection, person.id, times)
            asked += 1
        elif person.quiet:  # who never confirmed cannot be asked either: nobody may mail them
            erased.append(person.id)
        reached = person.id
    if not found or asked == ASKED_A_DAY:
        erased += retention.unanswered(connection, asked_before=times.now - ANSWER_WITHIN, limit=_PEOPLE)
        retention.ended(connection)
    else:
        retention.moved(connection, people=reached)
    if asked or erased:
        log.info("%d silent people are asked whether they want to stay, %d are erased", asked, len(erased))
    return erased


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
