"""Messages that nobody but a person can decide about: listed with their evidence, released or skipped by name (T14)."""

from __future__ import annotations

from collections.abc import Sequence

from dripwell.core.errors import NotFoundError, RefusedError
from dripwell.core.states import Reason
from dripwell.services import resolve
from dripwell.storage import campaigns, clock, enrollments, outcomes
from dripwell.storage.database import Connection

MOST = 1000
"""How many are shown or decided about at once."""


def look_up(connection: Connection, message_ids: Sequence[int]) -> list[int]:
    """These ids, sorted, each once. Changes nothing; raises NotFoundError when one of them is not held."""
    wanted = sorted(set(message_ids))
    _refuse_missing(wanted, outcomes.held(connection, ids=wanted, limit=len(wanted)))
    return wanted


def release(connection: Connection, message_ids: Sequence[int], *, actor: str, reason: str) -> int:
    """T14: these go again, as if nobody had called for them; returns how many.

    What was accepted after all arrives twice: that is the operator's word (G1's one exception). Marketing messages are
    decided again before they go, so windows, limits and suppressions hold; whoever left meanwhile is not mailed. Raises
    NotFoundError when one of them is not held, RefusedError when another email for the person is in work.
    """
    now = clock.read(connection).now
    rows = _locked(connection, message_ids)
    for row in rows:
        if not outcomes.decide_held(connection, row.id, "PLANNED", "", now):
            raise RefusedError(
                f"message {row.id} cannot be released now: another email for the same person is in work. "
                "Try again when that one is accepted, or skip this one: dripwell held skip"
            )
        outcomes.log(connection, [(row.id, reason)], "T14", row.batch_id, actor)
    resolve.end_those_who_left(connection, [row.id for row in rows], actor)
    _note(connection, rows, "released", actor, reason)
    for lane in sorted({row.lane for row in rows}):
        campaigns.ring(connection, lane)
    campaigns.ring(connection, "plan")
    return len(rows)


def skip(connection: Connection, message_ids: Sequence[int], *, actor: str, reason: str) -> int:
    """T14: these are never mailed and their series go on behind them; returns how many.

    Raises NotFoundError when one of them is not held.
    """
    now = clock.read(connection).now
    rows = _locked(connection, message_ids)
    for row in rows:
        outcomes.decide_held(connection, row.id, "SKIPPED", Reason.SKIPPED, now)
        outcomes.log(connection, [(row.id, reason)], "T14", row.batch_id, actor)
    enrollments.move_on(connection, [(row.enrollment_id, row.step_key) for row in rows], now)
    _note(connection, rows, "skipped", actor, reason)
    campaigns.ring(connection, "plan")
    return len(rows)


def _locked(connection: Connection, message_ids: Sequence[int]) -> list[outcomes.HeldRow]:
    wanted = sorted(set(message_ids))
    rows = outcomes.held(connection, ids=wanted, limit=len(wanted))
    enrollments.lock(connection, [row.enrollment_id for row in rows])
    rows = outcomes.held(connection, ids=wanted, limit=len(wanted))  # again, now that nobody can move them
    _refuse_missing(wanted, rows)
    return rows


def _refuse_missing(wanted: Sequence[int], rows: Sequence[outcomes.HeldRow]) -> None:
    missing = sorted(set(wanted) - {row.id for row in rows})
    if missing:
        others = "" if len(wanted) == 1 else " Nothing was changed for the others."
        raise NotFoundError(f"message {missing[0]} is not held: see `dripwell held list`.{others}")


def _note(connection: Connection, rows: Sequence[outcomes.HeldRow], action: str, actor: str, reason: str) -> None:
    for campaign in sorted({row.campaign for row in rows}):
        ids = [row.id for row in rows if row.campaign == campaign]
        detail = {"messages": ids[:100], "count": len(ids), "reason": reason}
        campaigns.add_activity(connection, actor=actor, action=f"held messages {action}", about=campaign, detail=detail)
