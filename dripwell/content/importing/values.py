"""What a file of subscribers holds, as values: good rows, rows of people who left, bad rows with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import NamedTuple
from zoneinfo import available_timezones

MAX_CELL = 1000
MAX_COLUMNS = 200
RELATIONSHIPS = ("prospect", "patient", "unknown")


class Given(NamedTuple):
    """One thing a person agreed to. `source` is empty where only the statement for the whole file says where."""

    topic: str
    source: str
    wording: str
    at: datetime  # aware


class GoodRow(NamedTuple):
    """One person as the file has it. `line` is where the row begins, `address` as `core.address.check` returns it."""

    line: int
    address: str
    timezone: str | None
    tags: tuple[str, ...]
    fields: Mapping[str, str]
    relationship: str = "unknown"  # what a file does not say is not known (rules 5.5)
    consents: tuple[Given, ...] | None = None  # None: what is stated for the whole file


class LeftRow(NamedTuple):
    """Somebody another system must not mail any more; neither may we. `reason` is one of the ledger's."""

    line: int
    address: str
    scope: str
    reason: str
    evidence: str


class BadRow(NamedTuple):
    """A row that cannot be taken, and why. `reason` holds no address."""

    line: int
    reason: str


Row = GoodRow | LeftRow | BadRow


@dataclass(frozen=True, slots=True)
class Statement:
    """What the operator states for the whole file; a row's own cells go before it.

    `given_at` is aware; None: not stated, so every row needs `consent_at`. Likewise an empty `source`.
    """

    topics: tuple[str, ...] = ()
    source: str = ""
    wording: str = ""
    given_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How the operator says a file is to be read."""

    columns: Mapping[str, str] = field(default_factory=dict)  # `--map "E-Mail=email"`: name in the file -> ours
    ignored: frozenset[str] = frozenset()
    delimiter: str | None = None
    vendor: str | None = None
    kind: str | None = None  # which of the vendor's files this is


@dataclass(frozen=True, slots=True)
class Rules:
    """What rows are judged by. `now` is campaign time; `zone` is that of times without one."""

    statement: Statement
    topics: frozenset[str]
    now: datetime
    zone: tzinfo
    timezones: frozenset[str] = field(default_factory=lambda: frozenset(available_timezones()))
