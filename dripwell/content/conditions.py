"""Conditions of a file -> values of `core`, and what no condition can know of itself: circles, depth, who scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from dripwell.content.models import Condition
from dripwell.content.problems import Problem
from dripwell.content.reading import Reading
from dripwell.content.yaml_source import Items, Keys, Node, Scalar, find
from dripwell.core import conditions

MAX_NESTED = 10
"""So many segments may lead from one to the next: each is read inside the one that names it."""
MAX_QUESTIONS = 500
"""So many questions a segment may ask with all that it names: each stands in one SQL statement."""


def condition(entry: Condition) -> conditions.Condition:
    """Return the tree `core` evaluates and `storage` compiles."""
    if entry.all is not None:
        return conditions.All(tuple(condition(part) for part in entry.all))
    if entry.any is not None:
        return conditions.Any(tuple(condition(part) for part in entry.any))
    if entry.not_ is not None:
        return conditions.Not(condition(entry.not_))
    if entry.field is not None and entry.is_ is not None:
        return conditions.FieldIs(entry.field, tuple(entry.is_) if isinstance(entry.is_, list) else (entry.is_,))
    if entry.tag is not None:
        return conditions.HasTag(entry.tag)
    if entry.topic is not None:
        return conditions.HasTopic(entry.topic)
    if entry.segment is not None:
        return conditions.InSegment(entry.segment)
    if entry.clicked is not None:
        campaign, step = entry.clicked
        return conditions.Clicked(campaign, step, entry.within)
    if entry.event is not None:
        return conditions.Happened(entry.event, entry.within)
    if entry.joined is not None and entry.within is not None:
        return conditions.Joined(entry.within)
    raise AssertionError("a condition without a deciding key was refused by `judge_keys`")


def judge_segments(root: Node, reading: Reading) -> None:
    """Refuse segments that are defined by themselves, once for each circle, and those that grow without measure."""
    uses = {name: list(_segments_in(find(entry, "when"))) for name, entry in _entries(root)}
    if not _refuse_circles(uses, reading):
        _refuse_growth(root, uses, reading)


def _refuse_circles(uses: Mapping[str, list[Scalar]], reading: Reading) -> bool:
    finished: list[str] = []  # whom a segment names stands before it
    done: set[str] = set()
    found = False
    for start in uses:
        if start in done:
            continue
        path = {start: None}  # in order
        ahead = [iter(uses[start])]
        while ahead:
            reference = next(ahead[-1], None)
            if reference is None:
                ahead.pop()
                name, _ = path.popitem()
                done.add(name)
                finished.append(name)
            elif reference.raw in path:
                found = True
                circle = list(path)[list(path).index(reference.raw) :]
                reading.refuse(
                    "D201",
                    reference,
                    f"the segment `{reference.raw}` is defined by itself",
                    label="this closes a circle",
                    help=" → ".join((*_shortened(circle), reference.raw)),
                )
            elif reference.raw in uses and reference.raw not in done:
                path[reference.raw] = None
                ahead.append(iter(uses[reference.raw]))
    return found


def _shortened(circle: list[str]) -> list[str]:
    return circle if len(circle) <= MAX_NESTED else [*circle[:3], "…", circle[-1]]


def _refuse_growth(root: Node, uses: Mapping[str, list[Scalar]], reading: Reading) -> None:
    depth: dict[str, int] = {}
    size: dict[str, int] = {}
    for name in _named_first(uses):
        named = [reference for reference in uses[name] if reference.raw in uses]
        deepest = max(named, key=lambda reference: depth[reference.raw], default=None)
        depth[name] = 1 if deepest is None else depth[deepest.raw] + 1
        size[name] = _questions(find(root, name, "when")) + sum(size[reference.raw] for reference in named)
        if deepest is not None and depth[name] > MAX_NESTED:
            depth[name] = 0  # told once, not again for whoever names it
            reading.refuse(
                "D105",
                deepest,
                f"more than {MAX_NESTED} segments are nested here",
                label="one too many",
                help="write the conditions of the innermost ones out",
            )
        if size[name] > MAX_QUESTIONS and isinstance(root, Keys):
            reading.refuse(
                "D105",
                root.spots[name],
                f"the segment `{name}` asks {size[name]:,} questions with the segments it names",
                help=f"{MAX_QUESTIONS} is the most: a list after `is` is one question, however long",
            )
            size[name] = 0


def _named_first(uses: Mapping[str, list[Scalar]]) -> Iterator[str]:
    """The segments, each behind those it names. There must be no circle."""
    done: set[str] = set()
    for start in uses:
        waiting = [(start, False)]
        while waiting:
            name, ready = waiting.pop()
            if name in done or name not in uses:
                continue
            if ready:
                done.add(name)
                yield name
            else:
                waiting.append((name, True))
                waiting += [(reference.raw, False) for reference in uses[name]]


def _questions(node: Node | None) -> int:
    parts = [find(node, key) for key in ("all", "any")]
    several = [part.items for part in parts if isinstance(part, Items)]
    if several:
        return sum(_questions(one) for items in several for one in items)
    inner = find(node, "not")
    if inner is not None:
        return _questions(inner)
    return 0 if find(node, "segment") is not None else 1  # its own questions are counted where it is named


def judge_audience(
    audience: conditions.Condition, segments: Mapping[str, conditions.Condition], node: Node, reading: Reading
) -> None:
    """Refuse an audience that asks too many questions, those of the segments it names included."""
    sizes: dict[str, int] = {}

    def size(one: conditions.Condition) -> int:
        match one:
            case conditions.All(of=parts) | conditions.Any(of=parts):
                return sum(size(part) for part in parts)
            case conditions.Not(of=part):
                return size(part)
            case conditions.InSegment(segment=name):
                if name not in sizes:
                    sizes[name] = size(segments[name]) if name in segments else 0
                return sizes[name]
        return 1

    asked = size(audience)
    if asked > MAX_QUESTIONS:
        reading.refuse(
            "D105",
            node,
            f"this audience asks {asked:,} questions with the segments it names",
            help=f"{MAX_QUESTIONS} is the most: a list after `is` is one question, however long",
        )


def scanners(node: Node | None, reading: Reading) -> Iterator[Problem]:
    """D317, a warning: each `clicked` below this node. Mail scanners click, and not all of them are told apart."""
    for spot in _keys_in(node, "clicked"):
        problem = reading.source.problem(
            "D317",
            spot.start,
            spot.end,
            "who clicked is not certain: mail scanners follow links too",
            label="bursts of clicks are taken out, single ones cannot be",
            help="fine for a rough split; where it matters ask for an `event`",
        )
        yield replace(problem, level="warning")


def _entries(root: Node | None) -> Iterator[tuple[str, Node]]:
    if isinstance(root, Keys):
        yield from root.values.items()


def _segments_in(node: Node | None) -> Iterator[Scalar]:
    for spot in _keys_in(node, "segment", values=True):
        if isinstance(spot, Scalar):
            yield spot


def _keys_in(node: Node | None, wanted: str, *, values: bool = False) -> Iterator[Node]:
    """Where this key stands below the node, or its value."""
    if isinstance(node, Keys):
        for key, value in node.values.items():
            if key == wanted:
                yield value if values else node.spots[key]
            else:
                yield from _keys_in(value, wanted, values=values)
    elif isinstance(node, Items):
        for item in node.items:
            yield from _keys_in(item, wanted, values=values)
