"""How every command answers: text for a person or one JSON object for a program, and errors the same way."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.text import Text

from dripwell.content.problems import printable
from dripwell.core.errors import (
    ConfigurationError,
    ContentError,
    DripwellError,
    InvalidTokenError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)

FORMAT = 1
"""The version of every JSON object. A name that changes its meaning, or goes, raises it."""
Line = str | Text


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found or did: `value` for programs, `lines` for people, and the exit code."""

    value: Mapping[str, Any]
    lines: Sequence[Line] = ()
    code: int = 0
    for_programs: bool = False  # JSON was asked for in another way than --json


def answers(command: Callable[..., Answer]) -> Callable[..., None]:
    """Give a command `--json`, and print the Answer it returns in the form that was asked for."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @functools.wraps(command)
    def run(*, as_json: bool, **given: Any) -> None:
        answer = command(**given)
        if as_json or answer.for_programs:
            print_json(answer.value)
        else:
            console = to_stdout()
            for line in answer.lines:
                console.print(line)
        click.get_current_context().exit(answer.code)

    return run


def to_stdout() -> Console:
    """Where results go. No color unless it is a terminal; NO_COLOR is honored."""
    return _console(stderr=False)


def to_stderr() -> Console:
    """Where progress, notes and errors go."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)


def note(text: str) -> None:
    """Tell a person something that is not the result."""
    to_stderr().print(clean(text))


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object with the format's version. ASCII only, so that no terminal or locale can break it."""
    click.echo(json.dumps({"version": FORMAT, **value}, default=_plain, indent=2))


def print_error(text: str, kind: str, *, as_json: bool) -> None:
    """Say what went wrong: in words on stderr, and on stdout for a program that asked for JSON."""
    to_stderr().print(Text.assemble(("error:", "bold red"), " ", clean(text)))
    if as_json:
        print_json({"error": text, "kind": kind})


_KINDS: tuple[tuple[type[DripwellError], str], ...] = (
    (RefusedError, "refused"),
    (ConfigurationError, "configuration"),
    (ContentError, "content"),
    (NotFoundError, "not_found"),
    (UnavailableError, "unavailable"),
    (InvalidTokenError, "token"),
)


def kind_of(error: DripwellError) -> str:
    """The word for programs that says whom an error concerns."""
    return next((kind for known, kind in _KINDS if isinstance(error, known)), "failed")


def clean(text: str) -> str:
    """The text without anything that could drive a terminal; line breaks stay."""
    return "\n".join(printable(line) for line in text.split("\n"))


def number(value: int) -> str:
    """`2,578`."""
    return f"{value:,}"


def counted(value: int, one: str, many: str = "") -> str:
    """`1 person`, `2,578 people`."""
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def moment(at: datetime, zone: ZoneInfo) -> str:
    """`Thu Dec 3 2026, 9:30 AM PST`: the same in every locale."""
    local = at.astimezone(zone)
    hour = local.hour % 12 or 12
    return (
        f"{_DAYS[local.weekday()]} {_MONTHS[local.month - 1]} {local.day} {local.year}, "
        f"{hour}:{local.minute:02} {'AM' if local.hour < 12 else 'PM'} {local.tzname()}"
    )


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, indent: int = 2) -> list[Line]:
    """Columns as wide as their content; a column of nothing but numbers stands to the right."""
    cells = [[clean(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(head))]
    lines: list[Line] = []
    for place, row in enumerate(cells):
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        lines.append(Text(" " * indent + "   ".join(parts).rstrip(), style="" if place else "dim"))
    return lines


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").isdigit()


def _plain(value: object) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def is_terminal() -> bool:
    """Whether a person watches stderr, where progress is shown."""
    return sys.stderr.isatty()
