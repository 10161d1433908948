"""Read subscribers from a CSV file, row by row: good rows become values, bad rows a reason and a line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category
from zoneinfo import available_timezones

from dripwell.core.address import check
from dripwell.core.errors import ContentError

MAX_CELL = 1000
RELATIONSHIPS = ("prospect", "patient", "unknown")
_OWN = {"email", "timezone", "tags", "relationship"}
_BREAKING = {"Cc", "Zl", "Zp"}
"""Controls and line breaks, by Unicode category. No email can be made with them, so nobody is taken in with one."""


@dataclass(frozen=True, slots=True)
class GoodRow:
    """One person as the file has it. `line` is where the row ends."""

    line: int
    address: str
    timezone: str | None
    tags: tuple[str, ...]
    fields: Mapping[str, str]
    relationship: str = "unknown"  # what a file does not say is not known (rules 5.5)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be taken, and why. `reason` holds no address."""

    line: int
    reason: str


def read(path: Path) -> Iterator[GoodRow | BadRow]:
    """Yield every row of a UTF-8 CSV file with a header that has `email`.

    `timezone`, `tags` (separated by ;) and `relationship` are known, every other column becomes a field.

    Raises ContentError when the file as a whole cannot be read: missing, not UTF-8, no header, no `email` column.
    """
    zones = available_timezones()
    seen: set[str] = set()
    for line, row in _records(path):
        yield _judged(line, row, zones, seen)


def count(path: Path) -> int:
    """How many rows the file has. It is read to its end: raises ContentError like `read`, before any row is used."""
    return sum(1 for _ in _records(path))


def _records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="\0more", strict=True)
            columns = [name.strip().lower() for name in reader.fieldnames or []]
            if not columns:
                raise ContentError(f"{path} is empty: its first line must name a column `email`")
            if "email" not in columns:
                shown = ", ".join(columns[:10])
                raise ContentError(
                    f"{path}:1:1 the first line must name a column `email`; it names: {shown}{_separated(columns)}"
                )
            if len(set(columns)) != len(columns):
                raise ContentError(f"{path}:1:1 two columns have the same name")
            reader.fieldnames = columns
            for row in reader:
                yield reader.line_num, row
    except FileNotFoundError as error:
        raise ContentError(f"{path} does not exist") from error
    except UnicodeDecodeError as error:
        raise ContentError(f"{path} cannot be read as UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise ContentError(f"{path} cannot be read: {error.strerror or error}") from error
    except csv.Error as error:
        raise ContentError(f"{path} is not CSV: {error}") from error


def _separated(columns: list[str]) -> str:
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(columns) == 1 and "email" in [part.strip().strip('"') for part in columns[0].split(separator)]:
            return f". It is separated by {name}: save it with commas"
    return ""


def _judged(line: int, row: dict[str, str], zones: set[str], seen: set[str]) -> GoodRow | BadRow:
    if "\0more" in row:
        return BadRow(line, "more cells than the first line has columns")
    cells = {name: (value or "").strip() for name, value in row.items()}
    for name, value in cells.items():
        if len(value) > MAX_CELL:
            return BadRow(line, f"`{name}` is longer than {MAX_CELL} characters")
        if any(category(character) in _BREAKING for character in value):
            return BadRow(line, f"`{name}` holds a line break or another control character")
    try:
        address = check(cells["email"])
    except ValueError as error:
        return BadRow(line, str(error))
    zone = cells.get("timezone") or None
    if zone is not None and zone not in zones:
        return BadRow(line, f"`{zone}` is not a time zone such as America/Los_Angeles")
    relationship = cells.get("relationship", "").lower() or "unknown"
    if relationship not in RELATIONSHIPS:
        return BadRow(line, f"`{cells['relationship']}` is not a relationship: write {', '.join(RELATIONSHIPS)}")
    if address.lower() in seen:
        return BadRow(line, "the same address stands in an earlier row")
    seen.add(address.lower())
    tags = tuple(tag.strip() for tag in cells.get("tags", "").split(";") if tag.strip())
    fields = {name: value for name, value in cells.items() if name not in _OWN and value}
    return GoodRow(line, address, zone, tags, fields, relationship)
