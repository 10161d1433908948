"""Taking a person out of the ledger's files, in their places: what stands after them must not move."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path

NOBODY = "x@x"
"""Stands where an address was: no longer than any address, so that it fits into its place."""


def overwrite_mails(path: Path, number: int, offset: int, length: int, rows: Collection[int]) -> None:
    """Take these personalizations' people out of one call in `mails.jsonl`, without moving what comes after it.

    Raises ValueError when the request would need more room without them than with them.
    """
    with path.open("r+b") as file:
        file.seek(offset)
        body = json.loads(file.read(length))
        for row in rows:
            personal = body["personalizations"][row]
            personal["to"] = [{"email": NOBODY}]
            if personal.get("substitutions"):
                personal["substitutions"] = dict.fromkeys(personal["substitutions"], "")
        _put(file.fileno(), offset, length, json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
        start = _start_of_line(path, offset)
        file.seek(start)
        head = json.loads(file.read(offset - start))
        if head["call"] != number:
            raise ValueError(f"the head before call {number} is another one's")
        head["people"] = [[row, NOBODY if row in rows else address] for row, address in head["people"]]
        _put(file.fileno(), start, offset - start - 1, json.dumps(head, separators=(",", ":")).encode())
        os.fdatasync(file.fileno())


def overwrite_lines(path: Path, gone: Mapping[int, Collection[int]], nobody: str) -> None:
    """Take people out of `ledger.jsonl`: `gone` has, by call, the places of its lines. `nobody` is put for the hash."""
    seen: dict[int, int] = {}
    with path.open("r+b") as file:
        offset = 0
        for raw in file.read().splitlines(keepends=True):
            line = json.loads(raw)
            place = seen.get(line["call"], 0)
            seen[line["call"]] = place + 1
            if place in gone.get(line["call"], ()):
                line["address"] = nobody
                if "subject" in line:
                    line["subject"] = ""
                _put(file.fileno(), offset, len(raw) - 1, json.dumps(line, separators=(",", ":")).encode())
            offset += len(raw)
        os.fdatasync(file.fileno())


def _put(handle: int, offset: int, length: int, text: bytes) -> None:
    if len(text) > length:
        raise ValueError("what is left of a call does not fit into its place")
    os.pwrite(handle, text.ljust(length), offset)


def _start_of_line(path: Path, end: int) -> int:
    """Where the line begins whose line break is right before `end`."""
    with path.open("rb") as file:
        size = 4096
        while True:
            start = max(0, end - 1 - size)
            file.seek(start)
            place = file.read(end - 1 - start).rfind(b"\n")
            if place >= 0:
                return start + place + 1
            if start == 0:
                return 0
            size *= 4
