"""Arrays for statements that take a thousand rows at once, written as PostgreSQL reads them: `{1,2,3}`.

psycopg writes a list value by value, up to 3 µs each; a slice of the planner hands over some 15,000 values. Only for
types whose text holds no quote, comma, brace or backslash of its own; the statement says the type: `CAST(:ids AS
bigint[])`. Free text goes to psycopg as a list.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID


def numbers(values: Iterable[int]) -> str:
    """For bigint[]."""
    return "{" + ",".join(map(str, values)) + "}"


def ids(values: Iterable[UUID]) -> str:
    """For uuid[]."""
    return "{" + ",".join(map(str, values)) + "}"


def times(values: Iterable[datetime | None]) -> str:
    """For timestamptz[], of aware times; a slice holds few different ones."""
    listed = list(values)
    written = {value: "NULL" if value is None else f'"{value.isoformat()}"' for value in set(listed)}
    return "{" + ",".join([written[value] for value in listed]) + "}"


def hashes(values: Iterable[bytes | None]) -> str:
    """For bytea[]."""
    return "{" + ",".join("NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values) + "}"
