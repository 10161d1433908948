"""What should happen to one enrollment now. Decides, does nothing; the planner, `simulate` and `plan` all ask here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from dripwell.core.campaign import Branch, Campaign, Email, Exit, Limits, Site, Tag, Wait, WaitFor, Window
from dripwell.core.conditions import Condition, Facts, holds
from dripwell.core.duration import Duration
from dripwell.core.passage import NO_DATE, Arm, Course, Passed, ends_at, next_keys
from dripwell.core.states import Reason
from dripwell.core.window import SPREAD, place, span, zone_of

__all__ = ["next_keys"]

FRESH = timedelta(minutes=15)
"""A planned email that did not leave within this time is decided again (T16)."""
_SOON = timedelta(minutes=15)
LOOK_AGAIN = timedelta(hours=1)
"""How often somebody is looked at who waits for a condition."""
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
    """One enrollment as values. `cursor_key`: the last step passed, of any kind, with the arm of a branch
    (`Passed.cursor`); `anchor_at`: when that was, of an email when it was accepted. Waits count from there."""

    id: int
    joined_at: datetime
    anchor_at: datetime
    cursor_key: str | None = None


@dataclass(frozen=True, slots=True)
class PlanMessage:
    """Plan this step's email now; decide again when it has not left by `fresh_until`.

    `passed`, here and below: the steps passed on the way, in order. Their tags and the new position are written with
    the decision, in one transaction.
    """

    key: str
    fresh_until: datetime
    passed: tuple[Passed, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Look again at this time. `waits_for` says why, for a person who asks."""

    at: datetime
    waits_for: str
    passed: tuple[Passed, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """Every step is behind this person."""

    passed: tuple[Passed, ...] = ()


@dataclass(frozen=True, slots=True)
class Leave:
    """This person leaves without finishing."""

    reason: Reason
    passed: tuple[Passed, ...] = ()


Decision = PlanMessage | WaitUntil | Finish | Leave


def moved(passage: Passage, decision: Decision) -> Passage:
    """Where somebody stands once `decision` is written down."""
    if not decision.passed:
        return passage
    last = decision.passed[-1]
    return replace(passage, cursor_key=last.cursor, anchor_at=last.at)


def tagged(person: Person, passed: Passed) -> Person:
    """The person once this step is passed: with its tag, or without."""
    if not passed.tag and not passed.untag:
        return person
    tags = (person.facts.tags | {passed.tag} if passed.tag else person.facts.tags) - {passed.untag}
    return replace(person, facts=replace(person.facts, tags=tags))


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
    course = Course(campaign.steps, passage.cursor_key)
    at, waited, exact = passage.anchor_at, False, False
    passed: list[Passed] = []
    segments: dict[str, Condition] | None = None
    while (step := course.next()) is not None:
        match step:
            case Email():
                return _email(campaign, settings, site, passage, person, now, _Wish(step, at, waited, exact), passed)
            case WaitFor() | Branch():
                if at > now:
                    return WaitUntil(at, "wait", tuple(passed))
                segments = segments or {segment.name: segment.when for segment in site.segments}
                if isinstance(step, Branch):
                    arm: Arm = "then" if holds(step.when, person.facts, segments) else "else"
                    passed.append(Passed(step.key, at, arm=arm))
                    course.enter(step, arm)
                else:
                    ends = step.at_most.after(at, zone_of(_ANY_TIME, person.timezone, site.clinic.timezone))
                    if ends > now and not holds(step.until, person.facts, segments):
                        return WaitUntil(min(ends, now + LOOK_AGAIN), "until", tuple(passed))
                    at = min(ends, now)
                    passed.append(Passed(step.key, at))
                waited, exact = False, False
            case Tag(key=key, tag=tag, add=add):
                if at > now:
                    return WaitUntil(at, "wait", tuple(passed))
                passed.append(Passed(key, at, tag=tag) if add else Passed(key, at, untag=tag))
                person = tagged(person, passed[-1])
                waited, exact = False, False
                leaving = _reason_to_leave(settings, site, passage, person, now)
                if leaving is not None:
                    return Leave(leaving, tuple(passed))
            case _:
                zone = zone_of(_ANY_TIME, person.timezone, site.clinic.timezone)
                end = ends_at(step, at, zone, person.facts.fields, now)
                if end is NO_DATE:
                    if at > now:
                        return WaitUntil(at, "wait", tuple(passed))
                    passed.append(Passed(course.skip_to_wait(step), at))
                    waited, exact = False, False
                elif end > at:
                    at, waited, exact = end, True, not isinstance(step, Wait)
    return _after_the_last(settings, passage, now, tuple(passed))


_ANY_TIME = Window()


@dataclass(frozen=True, slots=True)
class _Wish:
    """An email and when the steps before it let it go. `exact`: never before that, however emails are spread."""

    email: Email
    at: datetime
    waited: bool
    exact: bool


def _email(
    campaign: Campaign,
    settings: Campaign,
    site: Site,
    passage: Passage,
    person: Person,
    now: datetime,
    wish: _Wish,
    passed: list[Passed],
) -> Decision:
    """An email is next: when, between its wait, the pauses, the limits and the window."""
    if person.paused_until is not None and person.paused_until > now:
        return WaitUntil(person.paused_until, "paused", tuple(passed))
    email = wish.email
    window = _window_of(email, campaign, settings) or settings.window or site.window
    zone = zone_of(window, person.timezone, site.clinic.timezone)
    seed = f"{passage.id}/{email.key}"
    due = wish.at
    if wish.exact:
        opens, closes = span(window, wish.at, zone)
        spread = min(wish.at + SPREAD, closes - timedelta(seconds=1)) if opens <= wish.at else wish.at
        due = max(place(window, spread, zone, seed), wish.at)
    elif wish.waited:
        due = place(window, wish.at, zone, seed)
    if due > now:
        return WaitUntil(due, "wait" if wish.waited else "window", tuple(passed))
    blocked = _not_before(settings, site, person, now)
    if blocked is not None and blocked[0] > now:
        return WaitUntil(max(place(window, blocked[0], zone, seed), blocked[0]), blocked[1], tuple(passed))
    opens, closes = span(window, now, zone)
    if opens > now:
        return WaitUntil(place(window, now, zone, seed), "window", tuple(passed))
    return PlanMessage(email.key, min(closes, now + FRESH), tuple(passed))


def _window_of(email: Email, campaign: Campaign, settings: Campaign) -> Window | None:
    """The email's own window: as the newest version has it, which may have no such email any more."""
    if settings is campaign:
        return email.window
    return next((one.window for one in settings.emails if one.key == email.key), email.window)


def _after_the_last(settings: Campaign, passage: Passage, now: datetime, passed: tuple[Passed, ...]) -> Decision:
    """Who has every email stays until the goal's time is over: a call booked after the last one counts too."""
    goal = settings.goal
    if goal is not None and goal.exits and goal.within is not None:
        until = passage.joined_at + goal.within.at_most()
        if now < until:
            return WaitUntil(until, WAITS_FOR_GOAL, passed)
    return Finish(passed)


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
