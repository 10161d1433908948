"""Slices of a file, read, judged and written down ahead of PostgreSQL: everything that needs no record."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from queue import Full, Queue
from threading import Event, Thread
from uuid import UUID

from dripwell.content.importing.values import BadRow, LeftRow, Row
from dripwell.core.address import address_hash
from dripwell.core.agreement import version_of
from dripwell.storage import importing
from dripwell.storage.importing import Staged
from dripwell.storage.leaving import Unwanted

_AHEAD = 2
"""Slices that wait, written down, for PostgreSQL: they bound the memory."""


def parts(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """The rows in lists of `size`; the last may be shorter."""
    while part := list(islice(rows, size)):
        yield part


def staged(part: Sequence[Row], *, pepper: bytes, new_id: Callable[[], UUID]) -> Staged:
    """Write a slice down as PostgreSQL will copy it: everything that can be done without the record."""
    people: list[str] = []
    own: list[str] = []
    left: list[tuple[int, Unwanted]] = []
    versions: dict[str, str] = {}
    refused: list[tuple[int, str]] = []
    tags: set[str] = set()
    for row in part:
        if isinstance(row, BadRow):
            refused.append((row.line, row.reason))
            continue
        hashed = hash_of(pepper, row.address)
        if isinstance(row, LeftRow):
            left.append((row.line, Unwanted(hashed, row.scope, row.reason, row.evidence)))
            continue
        stated = row.consents is None
        if row.tags:
            tags.update(row.tags)
        people.append(
            importing.person_line(
                row.line, hashed, row.address, new_id(), row.timezone, row.fields, row.tags, row.relationship, stated
            )
        )
        if row.consents is not None:
            for one in row.consents:
                if one.wording and one.wording not in versions:
                    versions[one.wording] = version_of(one.wording)
                version = versions.get(one.wording)
                own.append(importing.consent_line(row.line, one.topic, one.source, version, one.at))
    return Staged(
        len(part), "".join(people).encode(), "".join(own).encode(), frozenset(versions), left, refused,
        frozenset(tags),
    )  # fmt: skip


def hash_of(pepper: bytes, address: str) -> bytes:
    """`address_hash` of an address that `check` returned, without doing its work again."""
    if address.isascii():
        return hmac.digest(pepper, address.lower().encode(), "sha256")
    return address_hash(pepper, address)


def ahead(slices: Iterator[Staged]) -> Iterator[Staged]:
    """Make slices in a thread of their own, a few ahead. What goes wrong there is raised here."""
    waiting: Queue[Staged | BaseException | None] = Queue(_AHEAD)
    over = Event()

    def put(one: Staged | BaseException | None) -> bool:
        while not over.is_set():
            try:
                waiting.put(one, timeout=0.2)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for slice_ in slices:
                if not put(slice_):
                    return
        except BaseException as error:
            put(error)
        else:
            put(None)

    thread = Thread(target=work, name="import-reader", daemon=True)
    thread.start()
    try:
        while (one := waiting.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            yield one
    finally:
        over.set()
        thread.join()
