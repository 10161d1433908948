"""What stands in a journal: a line is a checksum and one JSON object, of ids and address hashes."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Person:
    """One message of a call. After a restore `public_id` proves that `subscriber_id` is still the same person."""

    message_id: int
    public_id: UUID
    subscriber_id: int
    round: int


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was about to be made. `at` is wall time, `nonce` tells two batches of the same number apart."""

    epoch: int
    batch: int
    nonce: UUID
    host: str
    provider: str
    lane: str
    campaign: UUID
    campaign_name: str
    step_key: str
    version_id: int
    people: tuple[Person, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a call: `accepted`, `refused`, `not_sent`, `unknown`, or `void` when it was never made.

    `left_out`: ids of those in the call's line whom its payload did not name after all.
    """

    epoch: int
    batch: int
    nonce: UUID
    outcome: str
    at: datetime
    left_out: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Left:
    """One row of the suppression ledger. `seq` and `at` are the row's own."""

    addr_hash: bytes
    scope: str
    action: str
    reason: str
    source: str
    seq: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that cannot be read: a crash cut it off, or the disk has changed it."""

    path: Path
    line: int
    why: str


Line = Call | Answer | Left


def written(value: dict[str, Any]) -> bytes:
    """The line of this value, with its end."""
    content = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(content), content)


def checked(content: bytes) -> dict[str, Any] | None:
    """The value of a line without its end; None when its checksum is wrong."""
    checksum, _, body = content.partition(b" ")
    try:
        return dict(json.loads(body)) if int(checksum, 16) == zlib.crc32(body) else None
    except ValueError:
        return None


def parsed(content: bytes) -> Line | None:
    """What a line without its end says; None when it is damaged, or in words this Dripwell does not know."""
    value = checked(content)
    if value is None:
        return None
    try:
        return _KINDS[value["k"]](value)
    except (ValueError, KeyError, TypeError):
        return None  # whole, and not in words this Dripwell knows


def _call(value: dict[str, Any]) -> Call:
    ids = base64.b64decode(value["p"])
    rounds = value["r"] if isinstance(value["r"], list) else [value["r"]] * len(value["m"])
    people = zip(value["m"], range(0, len(ids), 16), value["s"], rounds, strict=True)
    return Call(
        epoch=value["epoch"],
        batch=value["batch"],
        nonce=UUID(value["nonce"]),
        host=value["host"],
        provider=value["provider"],
        lane=value["lane"],
        campaign=UUID(value["campaign"]),
        campaign_name=value["name"],
        step_key=value["step"],
        version_id=value["version"],
        people=tuple(Person(m, UUID(bytes=ids[at : at + 16]), s, r) for m, at, s, r in people),
        at=datetime.fromisoformat(value["t"]),
    )


def _answer(value: dict[str, Any]) -> Answer:
    left_out = base64.b64decode(value.get("x", ""))
    return Answer(
        epoch=value["epoch"],
        batch=value["batch"],
        nonce=UUID(value["nonce"]),
        outcome=value["o"],
        at=datetime.fromisoformat(value["t"]),
        left_out=tuple(UUID(bytes=left_out[at : at + 16]) for at in range(0, len(left_out), 16)),
    )


def _left(value: dict[str, Any]) -> Left:
    return Left(
        addr_hash=bytes.fromhex(value["a"]),
        scope=value["scope"],
        action=value["action"],
        reason=value["reason"],
        source=value["source"],
        seq=value["seq"],
        at=datetime.fromisoformat(value["t"]),
    )


_KINDS: dict[str, Callable[[dict[str, Any]], Line]] = {"call": _call, "answer": _answer, "left": _left}
