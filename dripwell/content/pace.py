"""D203: waits that the limits stretch. Nothing is lost, but the series takes longer than its file says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from dripwell.core.campaign import Campaign, Email, Limits, Wait


@dataclass(frozen=True)
class TightStep:
    """The step at `index` comes sooner than a limit allows."""

    index: int
    text: str
    help: str


def tight_steps(campaign: Campaign, limits: tuple[Limits, ...]) -> list[TightStep]:
    """Return each wait (or email without one before it) that is too short for one of `limits`, once.

    Waits are counted as plain spans from one email to the next; send windows can only make them longer.
    """
    due: list[timedelta] = []
    found: list[TightStep] = []
    now = timedelta()
    since_last = 0
    for index, step in enumerate(campaign.steps):
        if isinstance(step, Wait):
            now += step.length.at_most()
            since_last = index
            continue
        at = since_last if since_last == index - 1 and isinstance(campaign.steps[since_last], Wait) else index
        reason = _reason(due, now, limits)
        if reason is not None:
            found.append(TightStep(at, *_words(step, reason)))
        due.append(now)
    return found


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
