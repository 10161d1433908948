"""Questions about one subscriber, as a tree of values. Two-valued: a missing field is never equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

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
    """The field has this value, or one of these."""

    name: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class HasTag:
    """The subscriber has this tag."""

    tag: str


@dataclass(frozen=True, slots=True)
class HasTopic:
    """The subscriber agreed to this topic."""

    topic: str


@dataclass(frozen=True, slots=True)
class InSegment:
    """The subscriber is in this segment. Segments nest; the loader refuses a circle."""

    segment: str


Condition = All | Any | Not | FieldIs | HasTag | HasTopic | InSegment


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions may ask about one subscriber."""

    fields: Mapping[str, Scalar] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()


def holds(condition: Condition, facts: Facts, segments: Mapping[str, Condition]) -> bool:
    """Say whether `condition` is true of this subscriber. A segment that does not exist is true of nobody."""
    match condition:
        case All(of=parts):
            return all(holds(part, facts, segments) for part in parts)
        case Any(of=parts):
            return any(holds(part, facts, segments) for part in parts)
        case Not(of=part):
            return not holds(part, facts, segments)
        case FieldIs(name=name, values=values):
            return facts.fields.get(name) in values if name in facts.fields else False
        case HasTag(tag=tag):
            return tag in facts.tags
        case HasTopic(topic=topic):
            return topic in facts.topics
        case InSegment(segment=name):
            return name in segments and holds(segments[name], facts, segments)
        case _:  # pragma: no cover
            assert_never(condition)
