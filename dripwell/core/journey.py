"""What should happen to one enrollment now. Decides, does nothing; the planner, `simulate` and `plan` all ask here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dripwell.core.campaign import Campaign, Email, Exit, Limits, Site, Wait, Window
from dripwell.core.conditions import Condition, Facts, holds
from dripwell.core.duration import Duration
from dripwell.core.states import Reason
from dripwell.core.window import place, span, zone_of

FRESH = timedelta(minutes=15)
"""A planned email that did not leave within this time is decided again (T16)."""
_SOON = timedelta(minutes=15)
WAITS_FOR_GOAL = "goal"
"""Why somebody waits who has every email: the goal's time is not over."""


@dataclass(frozen=True, slots=True)
class Person:
    """What a decision may know about a subscriber. `accepted` holds the acceptance times of marketing messages over
    all campaigns, newest last, at least as far back as the longest limit; times are campaign time."""

    timezone: str | None = None
    facts: Facts = field(default_factory=Facts)
    may_receive: bool = True  # active, and nothing in the ledger against this topic or campaign
    suppressed_for: Reason | None = None
    paused_until: datetime | None = None
    weekly: bool = False
    accepted: tuple[datetime, ...] = ()
    open_message: bool = False  # another campaign has a message in work for this person
    events: Mapping[str, datetime] = field(default_factory=dict)  # newest occurrence since joining
    active_in: frozenset[str] = frozenset()  # names of other campaigns this person is in
    deferred_until: datetime | None = None  # the last message is still being tried by the receiving server


@dataclass(frozen=True, slots=True)
class Passage:
    """One enrollment as values. `cursor_key`: the last email step passed; `anchor_at`: when it was accepted."""

    id: int
    joined_at: datetime
    anchor_at: datetime
    cursor_key: str | None = None


@dataclass(frozen=True, slots=True)
class PlanMessage:
    """Plan this step's email now; decide again when it has not left by `fresh_until`."""

    key: str
    fresh_until: datetime


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Look again at this time. `waits_for` says why, for a person who asks."""

    at: datetime
    waits_for: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Every step is behind this person."""


@dataclass(frozen=True, slots=True)
class Leave:
    """This person leaves without finishing."""

    reason: Reason


Decision = PlanMessage | WaitUntil | Finish | Leave


def decide(
    campaign: Campaign, settings: Campaign, site: Site, passage: Passage, person: Person, now: datetime
) -> Decision:
    """Say what should happen to this enrollment at `now` (campaign time, aware UTC).

    `campaign` is the version the person is on: its steps count. `settings` is the newest applied version: its window,
    limits, suppress, goal and exits hold for everyone from the next decision.
    """
    leaving = _reason_to_leave(settings, site, passage, person, now)
    if leaving is not None:
        return Leave(leaving)
    ahead = _next_email(campaign, passage)
    if ahead is None:
        return _after_the_last(settings, passage, now)
    email, waits = ahead
    if person.paused_until is not None and person.paused_until > now:
        return WaitUntil(person.paused_until, "paused")
    window = settings.window or site.window
    zone = zone_of(window, person.timezone, site.clinic.timezone)
    due = _due(passage, waits, window, zone, email.key, site.clinic.timezone, person)
    if due > now:
        return WaitUntil(due, "wait" if waits else "window")
    blocked = _not_before(settings, site, person, now)
    if blocked is not None and blocked[0] > now:
        seed = f"{passage.id}/{email.key}"
        return WaitUntil(max(place(window, blocked[0], zone, seed), blocked[0]), blocked[1])
    opens, closes = span(window, now, zone)
    if opens > now:
        return WaitUntil(place(window, now, zone, f"{passage.id}/{email.key}"), "window")
    return PlanMessage(email.key, min(closes, now + FRESH))


def _after_the_last(settings: Campaign, passage: Passage, now: datetime) -> Decision:
    """Who has every email stays until the goal's time is over: a call booked after the last one counts too."""
    goal = settings.goal
    if goal is not None and goal.exits and goal.within is not None:
        until = passage.joined_at + goal.within.at_most()
        if now < until:
            return WaitUntil(until, WAITS_FOR_GOAL)
    return Finish()


def next_keys(campaign: Campaign, cursor_key: str | None) -> list[str]:
    """The keys of the emails still ahead of somebody at `cursor_key`, in order."""
    keys = [email.key for email in campaign.emails]
    return keys[keys.index(cursor_key) + 1 :] if cursor_key in keys else keys


def _next_email(campaign: Campaign, passage: Passage) -> tuple[Email, list[Duration]] | None:
    waits: list[Duration] = []
    passed = passage.cursor_key is None
    for step in campaign.steps:
        match step:
            case Email(key=key) if not passed:
                passed = key == passage.cursor_key
            case Email() if passed:
                return step, waits
            case Wait(length=length) if passed:
                waits.append(length)
    return None


def _due(
    passage: Passage, waits: list[Duration], window: Window, zone: object, key: str, clinic_zone: str, person: Person
) -> datetime:
    if not waits:
        return passage.anchor_at
    local = zone_of(Window(), person.timezone, clinic_zone)
    wish = passage.anchor_at
    for length in waits:
        wish = length.after(wish, local)
    return place(window, wish, zone_of(window, person.timezone, clinic_zone), f"{passage.id}/{key}")


def _reason_to_leave(settings: Campaign, site: Site, passage: Passage, person: Person, now: datetime) -> Reason | None:
    if person.suppressed_for is not None:
        return person.suppressed_for
    if not person.may_receive or settings.topic not in person.facts.topics:
        return Reason.NO_CONSENT
    goal = settings.goal
    if (
        goal is not None
        and goal.exits
        and goal.event in person.events
        and reached(goal.within, passage, person.events[goal.event])
    ):
        return Reason.GOAL
    segments: dict[str, Condition] = {segment.name: segment.when for segment in site.segments}
    if any(_exits(rule, passage, person, segments, now) for rule in settings.exits):
        return Reason.EXIT
    for rule in (*site.suppress, *settings.suppress):
        if (
            rule.kind == "segment"
            and rule.value in segments
            and holds(segments[str(rule.value)], person.facts, segments)
        ):
            return Reason.SEGMENT
        if rule.kind == "tag" and rule.value in person.facts.tags:
            return Reason.TAG
    return None


def reached(within: Duration | None, passage: Passage, at: datetime) -> bool:
    """Say whether something that happened at `at` counts: after joining, and within the goal's time."""
    return at >= passage.joined_at and (within is None or at <= passage.joined_at + within.at_most())


def _exits(rule: Exit, passage: Passage, person: Person, segments: Mapping[str, Condition], now: datetime) -> bool:
    match rule.kind, rule.value:
        case "after", Duration() as length:
            return now >= passage.joined_at + length.at_most()
        case "tag", value:
            return value in person.facts.tags
        case "event", value:
            return value in person.events
        case "segment", value:
            return str(value) in segments and holds(segments[str(value)], person.facts, segments)
        case "left_segment", value:
            return str(value) in segments and not holds(segments[str(value)], person.facts, segments)
    return False


def _not_before(settings: Campaign, site: Site, person: Person, now: datetime) -> tuple[datetime, str] | None:
    """The latest of everything that postpones this email, with the reason that binds."""
    earliest: list[tuple[datetime, str]] = []
    if person.open_message:
        earliest.append((now + _SOON, "another_email"))
    if person.deferred_until is not None:
        earliest.append((person.deferred_until, "still_being_delivered"))
    for limits in (site.limits, settings.limits, Limits(1, Duration(1, "week")) if person.weekly else None):
        if limits is None:
            continue
        if limits.gap is not None and person.accepted:
            earliest.append((person.accepted[-1] + limits.gap.at_most(), "gap"))
        if limits.emails is not None and limits.per is not None and len(person.accepted) >= limits.emails:
            oldest_that_counts = person.accepted[-limits.emails]
            earliest.append((oldest_that_counts + limits.per.at_most(), "limit"))
    for rule in (*site.suppress, *settings.suppress):
        if rule.kind == "active_in" and rule.value in person.active_in:
            earliest.append((now + timedelta(hours=6), "active_in"))
        if rule.kind == "emailed_within" and isinstance(rule.value, Duration) and person.accepted:
            earliest.append((person.accepted[-1] + rule.value.at_most(), "emailed_within"))
    return max(earliest, default=None)
