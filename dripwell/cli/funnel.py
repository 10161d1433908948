"""The campaign as a table with both of its sums, for `dripwell report`, `dripwell demo` and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dripwell.services.report import Report, StepRow

_HEADS = ("accepted", "clicked", "booked after", "unsubscribed")
_GAP = "   "


def draw(report: Report, *, color: bool) -> str:
    """The table and both sums as text. `color` marks the sums green or red; the symbols say it too."""
    width = max(len("email"), *(len(step.key) for step in report.steps)) if report.steps else len("email")
    lines = ["  " + _GAP.join(["email".ljust(width), *_HEADS])]
    lines += ["  " + _row(step, width) for step in report.steps]
    sums = (
        _sum("people", report.joined, "joined", report.people),
        _sum("emails", report.planned, "planned", report.messages),
    )
    edge = max(len(words) for words, _ in sums)
    lines += [f"  {words.ljust(edge)}{_GAP}{_mark(holds, color)}" for words, holds in sums]
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, Any]:
    """The same as one object."""
    return {
        "version": 1,
        "campaign": report.campaign,
        "title": report.title,
        "state": report.state,
        "number": report.version,
        "joined": report.joined,
        "people": dict(report.people),
        "planned": report.planned,
        "messages": dict(report.messages),
        "by_step": [step_json(step) for step in report.steps],
        "clicked": report.clicked,
        "adds_up": report.adds_up,
    }


COLUMNS = ("key", "planned", "accepted", "delivered", "bounced", "clicked", "booked", "unsubscribed")


def step_json(step: StepRow) -> dict[str, Any]:
    """One email of the series as an object."""
    return {name: getattr(step, name) for name in COLUMNS}


def as_rows(report: Report) -> list[list[Any]]:
    """The same as rows for a CSV file, the names first."""
    return [list(COLUMNS), *([getattr(step, name) for name in COLUMNS] for step in report.steps)]


def _row(step: StepRow, width: int) -> str:
    numbers: Sequence[int] = (step.accepted, step.clicked, step.booked, step.unsubscribed)
    cells = [f"{value:,}".rjust(len(head)) for value, head in zip(numbers, _HEADS, strict=True)]
    tail = [f"{step.bounced:,} bounced"] if step.bounced else []
    return _GAP.join([step.key.ljust(width), *cells, *tail])


def _sum(name: str, total: int, what: str, parts: Mapping[str, int]) -> tuple[str, bool]:
    words = " + ".join(f"{count:,} {place.replace('_', ' ')}" for place, count in parts.items())
    found = sum(parts.values())
    holds = found == total
    return f"{name}  {total:,} {what} {'=' if holds else '≠'} {words}{'' if holds else f' = {found:,}'}", holds


def _mark(holds: bool, color: bool) -> str:
    mark = "✓" if holds else "✗ does not add up"
    return f"\x1b[{'32' if holds else '1;31'}m{mark}\x1b[0m" if color else mark
