"""What each column of a file is for: known by its name, told by `--map`, or a field of the person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dripwell.content.importing.safety import bare
from dripwell.content.importing.values import Reading
from dripwell.content.importing.vendors import Vendor
from dripwell.core.errors import ContentError

OWN = (
    "email", "timezone", "tags", "relationship", "topics", "consents", "consent_source", "consent_at", "consent_wording"
)  # fmt: skip
"""The columns that mean something to Dripwell. `consents` is a JSON list, as exports write it."""
FIELD = "field:"
"""Begins the name of a column whose field has a name that would be one of `OWN`, or would lose its capitals."""
OF_BAD = ("line", "reason")
"""The first two columns of a file of refused rows that we wrote: told to its reader, and never imported."""


class Plan(NamedTuple):
    """Which cell is what: the places of our own columns, and (place, name) of every field."""

    own: dict[str, int]
    fields: tuple[tuple[int, str], ...]
    width: int
    names: tuple[str, ...]


def is_of_bad(columns: Sequence[str]) -> bool:
    """Whether a file with these columns is one of refused rows that we wrote, corrected since or not."""
    return tuple(bare(name.strip()).lower() for name in columns[: len(OF_BAD)]) == OF_BAD


def meaning(name: str, reading: Reading, vendor: Vendor | None) -> str | None:
    """What a column of this name is for: one of OWN, a vendor's own word, `field:NAME`, or None to pass it over."""
    plain = bare(name.strip())
    small = plain.lower()
    told = reading.columns.get(small)
    if told is not None:
        return told if told in OWN or told.startswith(FIELD) else FIELD + told
    if small in reading.ignored:
        return None
    if small.startswith(FIELD):
        return FIELD + plain[len(FIELD) :]
    if vendor is not None:
        if small in vendor.columns:
            return vendor.columns[small]
        return FIELD + "_".join(small.split())
    return small if small in OWN else FIELD + small


def plan(path: Path, columns: Sequence[str], reading: Reading, vendor: Vendor | None) -> Plan:
    """Say what every column is for. Raises ContentError, at 1:1, for a first line that cannot be understood."""
    own: dict[str, int] = {}
    fields: list[tuple[int, str]] = []
    told: set[str] = set()
    theirs = is_of_bad(columns)
    for place, column in enumerate(columns):
        if theirs and place < len(OF_BAD) and OF_BAD[place] not in reading.columns:
            continue
        what = meaning(column, reading, vendor)
        if what is None:
            continue
        if what in told:
            raise ContentError(f"{path}:1:1 two columns have the same name: {_quoted(column)}")
        told.add(what)
        if what.startswith(FIELD):
            fields.append((place, what[len(FIELD) :]))
        else:
            own[what] = place
    present = {column.strip().lower() for column in columns}
    missing = [name for name in (*reading.columns, *reading.ignored) if name not in present]
    if missing:
        raise ContentError(f"{path}:1:1 --map and --ignore name columns that it has not: {_list(missing)}")
    if any("@" in column for column in columns):
        raise ContentError(f"{path}:1:1 the first line holds an address: let a line before it name the columns")
    if "email" not in own:
        advice = "" if vendor is not None else '. If it has another name: --map "THEIR NAME=email"'
        raise ContentError(
            f"{path}:1:1 the first line must name a column `email`; it names: {_list(columns[:10])}{advice}"
        )
    if any(not name for _, name in fields):
        raise ContentError(f"{path}:1:1 a column has no name: name it, or take it out")
    return Plan(own, tuple(fields), len(columns), tuple(columns))


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def _quoted(name: str) -> str:
    return f"`{name.strip().lower()}`"
