"""D203: waits that the limits stretch. Nothing is lost, but the series takes longer than its file says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from dripwell.core.campaign import Branch, Campaign, Email, Limits, Step, Tag, Wait

Place = tuple[int | str, ...]


@dataclass(frozen=True)
class TightStep:
    """The step at `place` of the file's steps comes sooner than a limit allows."""

    place: Place
    text: str
    help: str


def tight_steps(campaign: Campaign, limits: tuple[Limits, ...]) -> list[TightStep]:
    """Return each wait (or email without one before it) that is too short for one of `limits`, once.

    Waits are counted as plain spans from one email to the next; send windows can only make them longer.
    Behind a branch, and behind a wait for something, nobody can tell how long ago the last email was: it counts anew.
    """
    return list(_tight(campaign.steps, (), limits))


def _tight(steps: tuple[Step, ...], above: Place, limits: tuple[Limits, ...]) -> Iterator[TightStep]:
    due: list[timedelta] = []
    now = timedelta()
    for index, step in enumerate(steps):
        if isinstance(step, Wait):
            now += step.length.at_most()
        elif isinstance(step, Email):
            at = index - 1 if index and isinstance(steps[index - 1], Wait) else index
            reason = _reason(due, now, limits)
            if reason is not None:
                yield TightStep((*above, at), *_words(step, reason))
            due.append(now)
        elif isinstance(step, Branch):
            due.clear()
            yield from _tight(step.then, (*above, index, "branch", "then"), limits)
            yield from _tight(step.otherwise, (*above, index, "branch", "else"), limits)
        elif not isinstance(step, Tag):
            due.clear()


def _reason(due: list[timedelta], now: timedelta, limits: tuple[Limits, ...]) -> str | None:
    for limit in limits:
        if due and limit.gap is not None and now - due[-1] < limit.gap.at_most():
            return f"limits keep {limit.gap} between two emails"
        if limit.emails is None or limit.per is None or len(due) < limit.emails:
            continue
        if now - due[-limit.emails] < limit.per.at_most():
            return f"limits allow {limit.emails} emails per {limit.per.unit}"
    return None


def _words(email: Email, reason: str) -> tuple[str, str]:
    return (
        f"`{email.key}` comes sooner than the limits allow",
        f"{reason}, so it will be later than written; lengthen a wait",
    )
