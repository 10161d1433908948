"""The planner: decides for each due enrollment, in one transaction a thousand, and writes what was decided."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from dripwell.core.errors import ContentError, NotFoundError
from dripwell.core.journey import Decision, Finish, Leave, PlanMessage, WaitUntil, decide
from dripwell.core.keys import message_id
from dripwell.core.passage import Passed
from dripwell.core.states import SUPPRESSING, Reason
from dripwell.services import people, tagging
from dripwell.services.versions import Published, Versions
from dripwell.storage import campaigns, clock, enrollments, messages
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection, Database, is_usable
from dripwell.storage.enrollments import Advance, Due, Reached
from dripwell.storage.messages import NewMessage
from dripwell.storage.surroundings import Someone

log = logging.getLogger("dripwell.plan")

SLICE = 1000
ASIDE = timedelta(minutes=15)
"""How long somebody waits about whom nothing can be decided: the others go on meanwhile."""
UNREADABLE = "unreadable_version"
UNDECIDED = "undecided"
_LANE = "drip"


def plan(database: Database, versions: Versions, *, out_of_time: Callable[[], bool]) -> int:
    """Decide for everybody who is due until nobody is, or time is up. Returns how many decisions were made."""
    made = 0
    reached: Reached = {}
    while not out_of_time():
        moved = database.retrying(lambda connection: plan_slice(connection, versions, SLICE, reached))
        made += moved
        if moved < SLICE:
            break
    return made


def plan_slice(connection: Connection, versions: Versions, limit: int, reached: Reached | None = None) -> int:
    """Decide once for at most `limit` due enrollments and as many stale messages, in the caller's transaction.

    `reached` is where the slices of one pass go on from; it is moved forward here. While nobody trusts the clock
    (`services.clockwatch`), nobody is due.
    """
    times = clock.read(connection)
    if times.alarm is not None:
        return 0
    now = times.now
    reached = {} if reached is None else reached
    return _plan_due(connection, versions, times, limit, reached) + _decide_again(connection, versions, now, limit)


def _plan_due(connection: Connection, versions: Versions, times: Times, limit: int, reached: Reached) -> int:
    now = times.now
    dues = enrollments.claim_due(connection, now, limit, reached)
    if not dues:
        return 0
    decided = _decide_all(connection, versions, dues, now)
    advanced = enrollments.advance(connection, [_advance(due, passed) for due, passed in _passing(dues, decided)])
    new = [
        _message(due, someone, decision, now)
        for due in dues
        for decision, someone in (decided[due.id],)
        if isinstance(decision, PlanMessage) and someone is not None
    ]
    planned = messages.add_planned(connection, new)
    enrollments.to_mailing(connection, sorted(planned))
    _give_way(connection, [message for message in new if message.enrollment_id not in planned], now)
    waits = [(due.id, d.at, d.waits_for) for due in dues if isinstance(d := decided[due.id][0], WaitUntil)]
    enrollments.wait(connection, waits)
    enrollments.finish(connection, [due.id for due in dues if isinstance(decided[due.id][0], Finish)], now)
    _leave(connection, dues, decided, now)
    passing = [(due.subscriber_id, passed) for due, passed in _passing(dues, decided) if due.id in advanced]
    tagging.tag(connection, versions, passing, times)
    if planned:
        campaigns.ring(connection, _LANE)
    # Should this transaction fail now, the next pass, which starts anew, finds these people.
    reached.update((due.campaign.id, (due.next_due_at, due.id)) for due in dues)
    return len(dues)


def _decide_again(connection: Connection, versions: Versions, now: datetime, limit: int) -> int:
    """T16: planned messages that did not leave in time are decided again; nobody is mailed at night for an outage."""
    stale = enrollments.claim_stale(connection, now, limit)
    if not stale:
        return 0
    decided = _decide_all(connection, versions, stale, now)
    again: list[tuple[int, datetime, datetime]] = []
    for due in stale:
        decision = decided[due.id][0]
        assert due.message_id is not None
        if decision.passed and not isinstance(decision, Leave):
            _leave_out(connection, due, decision.passed[0], now)
        elif isinstance(decision, PlanMessage):
            again.append((due.message_id, now, decision.fresh_until))
        elif isinstance(decision, WaitUntil):
            again.append((due.message_id, decision.at, decision.at))  # stale at that moment: decided then
    messages.replan(connection, again)
    _leave(connection, stale, decided, now)
    campaigns.ring(connection, _LANE)
    return len(stale)


def _leave_out(connection: Connection, due: Due, passed: Passed, now: datetime) -> None:
    # Every step but a wait for a date is behind whoever has an email planned. The date is over, or was taken back.
    if messages.end_planned(connection, [due.id], "SKIPPED", Reason.EXPIRED, "planner"):
        enrollments.move_on(connection, [(due.id, passed.cursor)], now)


Decided = dict[int, tuple[Decision, Someone | None]]
"""By enrollment id; without anybody when nothing could be read about them, and then the decision is to wait."""


def _decide_all(connection: Connection, versions: Versions, dues: Sequence[Due], now: datetime) -> Decided:
    published = _published(connection, versions, dues)
    readable = [due for due in dues if due.version_id in published and due.campaign.newest_version_id in published]
    decided: Decided = {due.id: (WaitUntil(now + ASIDE, UNREADABLE), None) for due in dues}
    return decided | _decide_or_put_aside(connection, published, readable, now)


def _published(connection: Connection, versions: Versions, dues: Sequence[Due]) -> dict[int, Published]:
    # A stored version that this Dripwell cannot read (it is older, or newer) waits; everybody else goes on.
    found = {}
    for version_id in {due.version_id for due in dues} | {due.campaign.newest_version_id for due in dues}:
        try:
            found[version_id] = versions.published(connection, version_id)
        except (ContentError, NotFoundError) as error:
            log.critical("nobody on version %d can be planned for, they wait: %s", version_id, error)
    return found


def _decide_or_put_aside(
    connection: Connection, published: Mapping[int, Published], dues: Sequence[Due], now: datetime
) -> Decided:
    """Decide for all of them; if that fails, for each half, down to the one it fails for, who waits."""
    try:
        return _decide(connection, published, dues, now)
    except Exception as error:
        if not is_usable(connection):
            raise
        if len(dues) == 1:
            # Only the name of the error: its words may hold what a person told us.
            log.error("enrollment %d cannot be decided about, it waits: %s", dues[0].id, type(error).__name__)
            return {dues[0].id: (WaitUntil(now + ASIDE, UNDECIDED), None)}
    half = len(dues) // 2
    return _decide_or_put_aside(connection, published, dues[:half], now) | _decide_or_put_aside(
        connection, published, dues[half:], now
    )


def _decide(connection: Connection, published: Mapping[int, Published], dues: Sequence[Due], now: datetime) -> Decided:
    newest = {due.campaign.id: published[due.campaign.newest_version_id] for due in dues}
    around = people.read(connection, dues, newest, now, steps=[one.campaign for one in published.values()])
    decided: Decided = {}
    for due in dues:
        passage, person, someone = around[due.id]
        settings = newest[due.campaign.id]
        campaign = published[due.version_id].campaign
        decided[due.id] = (decide(campaign, settings.campaign, settings.site, passage, person, now), someone)
    return decided


def _passing(dues: Sequence[Due], decided: Decided) -> list[tuple[Due, tuple[Passed, ...]]]:
    return [(due, passed) for due in dues if (passed := decided[due.id][0].passed)]


def _advance(due: Due, passed: tuple[Passed, ...]) -> Advance:
    arms = [one.cursor for one in passed if one.arm]
    return Advance(due.id, due.cursor_key, passed[-1].cursor, passed[-1].at, arms)


def _message(due: Due, someone: Someone, decision: PlanMessage, now: datetime) -> NewMessage:
    return NewMessage(
        public_id=message_id(due.campaign.public_id, someone.public_id, decision.key, due.round),
        enrollment_id=due.id,
        subscriber_id=due.subscriber_id,
        campaign_id=due.campaign.id,
        step_key=decision.key,
        lane=_LANE,
        due_at=now,
        fresh_until=decision.fresh_until,
        addr_hash=someone.addr_hash,
    )


def _give_way(connection: Connection, beaten: Sequence[NewMessage], now: datetime) -> None:
    """A key was taken: the step is used up (go on behind it), or another campaign mails this person first (wait)."""
    if not beaten:
        return
    used = messages.used_keys(connection, [message.enrollment_id for message in beaten])
    for message in beaten:
        if (message.enrollment_id, message.step_key) in used:
            enrollments.skip_to(connection, message.enrollment_id, message.step_key, now)
        else:
            enrollments.wait(connection, [(message.enrollment_id, now + people.GIVE_WAY, "another_email")])


def _leave(connection: Connection, dues: Sequence[Due], decided: Decided, now: datetime) -> None:
    leaving: dict[Reason, list[int]] = {}
    for due in dues:
        decision = decided[due.id][0]
        if isinstance(decision, Leave):
            leaving.setdefault(decision.reason, []).append(due.id)
    for reason, ids in leaving.items():
        state = "SUPPRESSED" if reason in SUPPRESSING else "SKIPPED"
        messages.end_planned(connection, sorted(ids), state, reason, "planner")
        enrollments.leave(connection, sorted(ids), reason, now)
