"""Rows as lines of text: CSV that a spreadsheet opens without running anything in it, and JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from dripwell.content.importing.columns import FIELD, OF_BAD, OWN, is_of_bad
from dripwell.content.importing.records import Layout, objects, records
from dripwell.content.importing.safety import safe
from dripwell.content.importing.values import MAX_COLUMNS
from dripwell.core.errors import RefusedError

EXPORTED = (
    "email", "timezone", "tags", "relationship", "topics", "consent_source", "consent_at", "consent_wording", "consents"
)  # fmt: skip


def csv_line(cells: Sequence[str]) -> str:
    """One line of RFC 4180. No cell in it begins like a formula."""
    out = StringIO()
    csv.writer(out).writerow([safe(cell) for cell in cells])
    return out.getvalue()


def json_line(value: Mapping[str, Any]) -> str:
    """One object on one line, in ASCII."""
    return json.dumps(value) + "\n"


def header_names(fields: Iterable[str]) -> list[tuple[str, str | None]]:
    """The columns of an export, each with the field that it holds (None: a column of our own).

    Raises RefusedError when there are more than a file may have.
    """
    named = [(_column(name), name) for name in sorted(fields)]
    if len(named) + len(EXPORTED) > MAX_COLUMNS:
        raise RefusedError(
            f"people here have {len(named)} different fields, more than a table may have columns. "
            "As JSON lines: the same command with --format jsonl"
        )
    return [*((name, None) for name in EXPORTED), *named]


def _column(name: str) -> str:
    plain = name not in OWN and name == name.strip().lower() and not name.startswith((FIELD, "'"))
    return name if plain else FIELD + name


def refused_lines(path: Path, laid: Layout, refusals: Iterator[tuple[int, str]]) -> Iterator[str]:
    """The refused rows of a file as CSV with line and reason before them; `refusals` are by line."""
    told = next(refusals, None)
    rows: Iterator[tuple[int, Any]]  # a list of cells each, or an object, or what is wrong with its line
    before = len(OF_BAD) if is_of_bad(laid.columns) else 0  # a file of refused rows, refused again
    if laid.separator is None:
        yield csv_line(["line", "reason", "row"])
        rows = objects(path, laid)
    else:
        yield csv_line([*OF_BAD, *laid.columns[before:]])
        rows = records(path, laid)
    for line, row in rows:
        if told is None:
            return
        if line == told[0]:
            cells = [row if isinstance(row, str) else json.dumps(row)] if laid.separator is None else list(row)[before:]
            yield csv_line([str(line), told[1], *cells])
            told = next(refusals, None)
