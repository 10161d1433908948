"""The demo's judge: reads the sandbox's own ledger and the record, and names everybody who was treated wrongly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

from dripwell.core.campaign import Campaign, Email, Wait


@dataclass(frozen=True, slots=True)
class Received:
    """One email the sandbox's ledger says it accepted. `at` is campaign time, `wall` the sandbox's own clock."""

    subscriber: int
    step_key: str
    at: datetime
    wall: float


@dataclass(frozen=True, slots=True)
class Life:
    """What the record says of one person in the campaign. `left_at` is campaign time, `suppressed` wall seconds."""

    subscriber: int
    timezone: str | None
    state: str
    ended_reason: str | None
    left_at: datetime | None
    suppressed: float | None


def judge(campaign: Campaign, clinic_zone: str, lives: Sequence[Life], received: Iterable[Received]) -> list[str]:
    """Everything wrong, in sentences without addresses. Empty: nobody twice, in order, on time, none after leaving."""
    order = [email.key for email in campaign.emails]
    days = _days_before(campaign)
    by_person: dict[int, list[Received]] = {}
    for mail in received:
        by_person.setdefault(mail.subscriber, []).append(mail)
    wrong: list[str] = []
    for life in lives:
        mails = sorted(by_person.pop(life.subscriber, []), key=lambda mail: mail.wall)
        keys = [mail.step_key for mail in mails]
        who = f"subscriber {life.subscriber}"
        if len(set(keys)) != len(keys):
            wrong.append(f"{who} got a step twice: {keys}")
        if keys != (order[: len(keys)] if campaign.straight else [key for key in order if key in keys]):
            wrong.append(f"{who} got the steps out of order: {keys}")
        if campaign.straight and life.state == "finished" and keys != order:
            wrong.append(f"{who} finished with {len(keys)} of {len(order)} emails")
        if life.state not in ("finished", "exited"):
            wrong.append(f"{who} is still {life.state}")
        if life.left_at is not None and any(mail.at > life.left_at for mail in mails):
            wrong.append(f"{who} got an email after leaving ({life.ended_reason})")
        if life.suppressed is not None and any(mail.wall > life.suppressed for mail in mails):
            wrong.append(f"{who} got an email after the suppression was recorded ({life.ended_reason})")
        zone = ZoneInfo(life.timezone or clinic_zone)
        for before, after in pairwise(mails):
            passed = (after.at.astimezone(zone).date() - before.at.astimezone(zone).date()).days
            if passed < (least := days.get(after.step_key, 0)):
                wrong.append(f"{who} got {after.step_key} after {passed} days instead of {least}")
    wrong += [f"subscriber {stranger} got mail without having joined" for stranger in by_person]
    return wrong


def _days_before(campaign: Campaign) -> Mapping[str, int]:
    """How many local days the YAML lets pass before each email; nothing where that depends on the person."""
    if not campaign.straight:
        return {}
    found: dict[str, int] = {}
    days = 0
    for step in campaign.steps:
        match step:
            case Wait(length=length) if length.unit in ("day", "week"):
                days += length.amount * (7 if length.unit == "week" else 1)
            case Email(key=key):
                found[key], days = days, 0
    return found
