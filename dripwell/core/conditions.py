"""Questions about one subscriber, as a tree of values. Two-valued: what is unknown is not so, and `not` of that is.

`holds` reads the tree for one person, `storage.segments` compiles the same tree to SQL for many. All times are campaign
time. `within` reaches back from now: what happened at or after `now - within` counts, a month is 30 days.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import assert_never

from dripwell.core.duration import Duration

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class All:
    """Every one of these."""

    of: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """At least one of these."""

    of: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    of: Condition


@dataclass(frozen=True, slots=True)
class FieldIs:
    """The field has this value, or one of these. Text equals text, letter for letter; a number equals a number (1 is
    1.0); true equals true. Nothing equals a value of another kind: "1" is not 1, and 1 is not true."""

    name: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class HasTag:
    """The subscriber has this tag."""

    tag: str


@dataclass(frozen=True, slots=True)
class HasTopic:
    """The subscriber's newest word on this topic is yes. Whether they can be mailed at all is not asked."""

    topic: str


@dataclass(frozen=True, slots=True)
class InSegment:
    """The subscriber is in this segment. Segments nest; the loader refuses a circle."""

    segment: str


@dataclass(frozen=True, slots=True)
class Clicked:
    """A person, not a machine (`core.clicks`), followed a link of this campaign's email, or of any (step None), in
    whatever round. With `within`: at or after `now - within`."""

    campaign: str
    step: str | None = None
    within: Duration | None = None


@dataclass(frozen=True, slots=True)
class Happened:
    """This event has happened to the subscriber, at any time. With `within`: at or after `now - within`."""

    event: str
    within: Duration | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """The subscriber became one at or after `now - within`, confirmed or not."""

    within: Duration


Condition = All | Any | Not | FieldIs | HasTag | HasTopic | InSegment | Clicked | Happened | Joined


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions may ask about one subscriber. What no condition in question asks for may be left out; `now` must
    be there for every question about time."""

    fields: Mapping[str, object] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    events: Mapping[str, datetime] = field(default_factory=dict)  # the newest of each, over all time
    clicks: Mapping[tuple[str, str], datetime] = field(default_factory=dict)  # (campaign, step) -> newest by a person
    joined_at: datetime | None = None
    now: datetime | None = None


def holds(condition: Condition, facts: Facts, segments: Mapping[str, Condition]) -> bool:
    """Say whether `condition` is true of this subscriber. A segment that does not exist is true of nobody.

    Raises ValueError when it asks about time and `facts` has no `now`.
    """
    match condition:
        case All(of=parts):
            return all(holds(part, facts, segments) for part in parts)
        case Any(of=parts):
            return any(holds(part, facts, segments) for part in parts)
        case Not(of=part):
            return not holds(part, facts, segments)
        case FieldIs(name=name, values=values):
            return name in facts.fields and any(equal(facts.fields[name], value) for value in values)
        case HasTag(tag=tag):
            return tag in facts.tags
        case HasTopic(topic=topic):
            return topic in facts.topics
        case InSegment(segment=name):
            return name in segments and holds(segments[name], facts, segments)
        case Clicked(campaign=campaign, step=step, within=within):
            return any(
                _since(at, within, facts)
                for (theirs, key), at in facts.clicks.items()
                if theirs == campaign and step in (None, key)
            )
        case Happened(event=event, within=within):
            return event in facts.events and _since(facts.events[event], within, facts)
        case Joined(within=within):
            return facts.joined_at is not None and _since(facts.joined_at, within, facts)
        case _:  # pragma: no cover
            assert_never(condition)


def _since(at: datetime, within: Duration | None, facts: Facts) -> bool:
    if within is None:
        return True
    if facts.now is None:
        raise ValueError("a question about time needs `now` among the facts")
    return at >= facts.now - within.at_most()


def equal(held: object, value: Scalar) -> bool:
    """Whether a stored JSON value is this one, as PostgreSQL's jsonb compares them: by kind, then by value."""
    if isinstance(held, bool) or isinstance(value, bool):
        return held is value
    if isinstance(held, str) or isinstance(value, str):
        return held == value
    if isinstance(held, int | float):
        # As decimals: what was written 1e300 comes back from the record as an integer of 301 digits.
        return _decimal(held) == _decimal(value)
    return False


def _decimal(number: float) -> Decimal:
    return Decimal(repr(number))


def in_words(condition: Condition) -> str:
    """The question on one line, for a person: `state is CA or NV, and not tag staff`."""
    match condition:
        case All(of=parts):
            return _listed(parts, ", and ") or "everybody"
        case Any(of=parts):
            return _listed(parts, ", or ") or "nobody"
        case Not(of=All() | Any() as part):
            return f"not ({in_words(part)})"
        case Not(of=part):
            return f"not {in_words(part)}"
        case FieldIs(name=name, values=values):
            return f"{name} is {' or '.join(str(value) for value in values)}"
        case HasTag(tag=tag):
            return f"tag {tag}"
        case HasTopic(topic=topic):
            return f"agreed to {topic}"
        case InSegment(segment=name):
            return f"in {name}"
        case Clicked(campaign=campaign, step=step, within=within):
            return f"clicked in {campaign}/{step or '*'}{_ago(within)}"
        case Happened(event=event, within=within):
            return f"{event} happened{_ago(within)}"
        case Joined(within=within):
            return f"joined{_ago(within)}"
        case _:  # pragma: no cover
            assert_never(condition)


def _listed(parts: tuple[Condition, ...], word: str) -> str:
    several = len(parts) > 1
    return word.join(f"({in_words(one)})" if several and isinstance(one, All | Any) else in_words(one) for one in parts)


def _ago(within: Duration | None) -> str:
    return "" if within is None else f" within {within}"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which facts a set of conditions reads, segments in segments included."""

    clicks: bool = False
    events: bool = False
    joined: bool = False


def asked(conditions: Iterable[Condition], segments: Mapping[str, Condition]) -> Asked:
    """What has to be read about people before these conditions can be asked about them."""
    seen = {type(leaf) for condition in conditions for leaf in leaves(condition, segments)}
    return Asked(clicks=Clicked in seen, events=Happened in seen, joined=Joined in seen)


def leaves(condition: Condition, segments: Mapping[str, Condition] | None = None) -> Iterator[Condition]:
    """Every question in the tree that is no combination of others. With `segments` also those of segments it names,
    each segment once; without, a segment is a question of its own."""
    seen: set[str] = set()
    waiting = [condition]
    while waiting:
        match waiting.pop():
            case All(of=parts) | Any(of=parts):
                waiting += reversed(parts)
            case Not(of=part):
                waiting.append(part)
            case InSegment(segment=name) if segments is not None:
                if name in segments and name not in seen:
                    seen.add(name)
                    waiting.append(segments[name])
            case leaf:
                yield leaf
