"""Where somebody stands in the tree of a campaign's steps, what comes next, and when its waits end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal, assert_never
from zoneinfo import ZoneInfo

from dripwell.core.campaign import (
    Branch,
    Campaign,
    Email,
    Step,
    Wait,
    WaitClock,
    WaitDate,
    WaitField,
    WaitFor,
    walk,
)
from dripwell.core.duration import resolve

Arm = Literal["then", "else"]
FARTHEST = timedelta(days=1000)
"""A date of a person farther ahead than this is taken for a mistake: a series must end."""
NO_DATE: Final = datetime.min.replace(tzinfo=UTC)
"""`ends_at` of a wait for a date that nobody knows."""


@dataclass(frozen=True, slots=True)
class Passed:
    """One step passed without an email, and when. `arm`: the one a branch sent the person to; empty: left out."""

    key: str
    at: datetime
    arm: Literal["", "then", "else"] = ""
    tag: str = ""
    untag: str = ""

    @property
    def cursor(self) -> str:
        """The position behind it: the step's key, or in the arm of a branch, `branch-x/then`."""
        return f"{self.key}/{self.arm}" if self.arm else self.key


Place = tuple[tuple[Step, ...], int]
"""A list of steps and how many of them are passed."""


class Course:
    """The steps ahead of a position, one by one; behind an arm the steps after its branch go on."""

    def __init__(self, steps: tuple[Step, ...], cursor: str | None) -> None:
        """`cursor` None: before the first step. A position that these steps do not have is behind all of them."""
        self._lists = [(steps, 0)] if cursor is None else _find(steps, cursor) or []

    def next(self) -> Step | None:
        """The next step, which is passed by this; None behind the last."""
        while self._lists:
            steps, index = self._lists[-1]
            if index < len(steps):
                self._lists[-1] = (steps, index + 1)
                return steps[index]
            self._lists.pop()
        return None

    def enter(self, branch: Branch, arm: Arm) -> None:
        """Go into this arm of the branch that came last."""
        self._lists.append((branch.then if arm == "then" else branch.otherwise, 0))

    def skip_to_wait(self, last: Step) -> str:
        """Leave out what stands before the next wait of this list; returns the key of the last step left out, or
        `last`'s own."""
        steps, index = self._lists[-1]
        key = last.key
        while index < len(steps) and not isinstance(steps[index], Wait | WaitFor | WaitClock | WaitDate | WaitField):
            key = steps[index].key
            index += 1
        self._lists[-1] = (steps, index)
        return key


def _find(steps: tuple[Step, ...], cursor: str) -> list[Place] | None:
    """The lists that lead to this position, outermost first."""
    for index, step in enumerate(steps, 1):
        if step.key == cursor:
            return [(steps, index)]
        if isinstance(step, Branch):
            for arm, inner in (("then", step.then), ("else", step.otherwise)):
                found = [(inner, 0)] if cursor == f"{step.key}/{arm}" else _find(inner, cursor)
                if found is not None:
                    return [(steps, index), *found]
    return None


def next_keys(campaign: Campaign, cursor_key: str | None) -> list[str]:
    """The keys of the emails that may still come behind this position, in file order: of a branch that is not reached,
    those of both arms. All of them when the campaign has no such position."""
    lists = _find(campaign.steps, cursor_key) if cursor_key is not None else None
    if lists is None:
        return [email.key for email in campaign.emails]
    ahead = (step for steps, index in reversed(lists) for step in walk(steps[index:]))
    return [step.key for step in ahead if isinstance(step, Email)]


def ends_at(
    step: Wait | WaitClock | WaitDate | WaitField,
    at: datetime,
    zone: ZoneInfo,
    fields: Mapping[str, object],
    now: datetime,
) -> datetime:
    """When a wait that begins at `at` ends, in UTC. It may lie before `at`: no wait.

    NO_DATE when nobody knows the date, when it is FARTHEST away, or when a wait `before` it comes after it.

    `zone` is the person's. A local time that a clock change skips moves forward by the gap.
    """
    match step:
        case Wait(length=length):
            return length.after(at, zone)
        case WaitClock(day=day, at=clock):
            today = at.astimezone(zone).date()
            ahead = today + timedelta(days=(day - today.weekday()) % 7)
            moment = resolve(datetime.combine(ahead, clock), zone)
            return moment if moment > at else resolve(datetime.combine(ahead + timedelta(days=7), clock), zone)
        case WaitDate(at=local):
            return resolve(local, zone)
        case WaitField(field=field, by=by, before=before):
            theirs = date_in(fields.get(field), zone)
            if theirs is None or abs(theirs - at) > FARTHEST or (before and theirs <= now):
                return NO_DATE
            return by.ago(theirs, zone) if before else by.after(theirs, zone)
        case _:  # pragma: no cover
            assert_never(step)


def date_in(value: object, zone: ZoneInfo) -> datetime | None:
    """A moment from a field as people give it: `2026-12-03`, which begins at midnight in `zone`, `2026-12-03 09:30`,
    or with an offset as other programs write it. None: it is no date."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        if len(value) == len("2026-12-03"):
            return resolve(datetime.combine(date.fromisoformat(value), time()), zone)
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo is not None else resolve(moment, zone)
    except (ValueError, OverflowError):
        return None
