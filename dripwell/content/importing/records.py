"""The bytes of a file as records, one at a time: CSV with any usual separator and encoding, or JSON lines.

Nothing here keeps more than one record, so a million rows need no more memory than ten. What the file may ask of us is
bounded: the length of a line, the number of columns.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dripwell.content.importing.values import MAX_COLUMNS
from dripwell.core.errors import ContentError

MAX_LINE = 1 << 20
MAX_QUOTED = 1 << 17
"""Characters of one cell, wherever its line breaks are: a quote that nobody closed must not swallow the file."""
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
Record = tuple[int, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Layout:
    """What the beginning of a file says about the rest. `columns` is empty for JSON lines."""

    encoding: str
    separator: str | None  # None: JSON lines
    columns: tuple[str, ...]


def digest(path: Path) -> bytes:
    """The SHA-256 of the file. Raises ContentError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError as error:
        raise ContentError(f"{path} does not exist") from error
    except OSError as error:
        raise ContentError(f"{path} cannot be read: {error.strerror or error}") from error


def layout(path: Path, separator: str | None = None, email: Sequence[str] = ("email",)) -> Layout:
    """Look at the beginning of the file.

    Without `separator` it is the one that makes a column of one of the names `email` (small letters) of the first
    line. Raises ContentError when the file cannot be read or is empty.
    """
    encoding = _encoding(path)
    head = ""
    for line in _lines(path, encoding):
        head = line
        break
    if not head.strip():
        raise ContentError(f"{path} is empty: its first line must name a column `email`")
    if separator is None and head.lstrip().startswith("{"):
        return Layout(encoding, None, ())
    choices = [separator] if separator else list(SEPARATORS)
    parted = {one: _header(path, encoding, one) for one in choices}
    best = max(choices, key=lambda one: (_names(parted[one], email), len(parted[one])))
    columns = parted[best]
    if len(columns) > MAX_COLUMNS:
        raise ContentError(f"{path}:1:1 the first line names {len(columns)} columns; {MAX_COLUMNS} at most")
    return Layout(encoding, best, tuple(columns))


def _names(columns: Sequence[str], email: Sequence[str]) -> bool:
    return any(name.strip().lower() in email for name in columns)


def _header(path: Path, encoding: str, separator: str) -> list[str]:
    try:
        row = next(csv.reader(_lines(path, encoding), delimiter=separator), [])
    except csv.Error:
        return []
    return [name.strip() for name in row]


def records(path: Path, laid: Layout) -> Iterator[Record]:
    """Every row of a CSV file after its first, with the number of its first line; empty lines are passed over.

    Raises ContentError, with the line, when the file cannot be read on.
    """
    assert laid.separator is not None
    csv.field_size_limit(MAX_QUOTED)
    reader = csv.reader(_lines(path, laid.encoding), delimiter=laid.separator, strict=True)
    try:
        next(reader, None)
        first = reader.line_num + 1
        for row in reader:
            if row:
                yield first, row
            first = reader.line_num + 1
    except csv.Error as error:
        said = "a cell is longer than any name: is a quote never closed?" if "field larger" in str(error) else error
        raise ContentError(f"{path}:{reader.line_num}:1 is not CSV: {said}") from error


def objects(path: Path, laid: Layout) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Every object of a file of JSON lines with its line, or in its place what is wrong with that line."""
    for number, line in enumerate(_lines(path, laid.encoding), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "the line is not JSON"
            continue
        if not isinstance(value, dict):
            yield number, "the line is not one JSON object"
        elif len(value) > MAX_COLUMNS:
            yield number, f"more than {MAX_COLUMNS} names in one object"
        else:
            yield number, value


def count(path: Path, laid: Layout) -> int:
    """How many rows the file has. It is read to its end: raises ContentError before any row is used."""
    rows = objects(path, laid) if laid.separator is None else records(path, laid)
    return sum(1 for _ in rows)


def _encoding(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError as error:
        raise ContentError(f"{path} does not exist") from error
    except OSError as error:
        raise ContentError(f"{path} cannot be read: {error.strerror or error}") from error
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), "utf-8")


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines with their ends as they are. Raises ContentError for bytes of another encoding or an endless line."""
    number = 0
    try:
        with path.open(encoding=encoding, newline="", buffering=1 << 18) as file:
            while line := file.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE and line[-1] not in "\r\n":
                    raise ContentError(f"{path}:{number}:1 the line is longer than {MAX_LINE:,} characters")
                yield line
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise ContentError(f"{path} cannot be read as UTF-16 text, as its first bytes say it is") from error
        raise ContentError(f"{path} cannot be read as UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise ContentError(f"{path} cannot be read: {error.strerror or error}") from error
