"""People go out as a file: those who agreed to something and are not suppressed, safe to open in a spreadsheet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dripwell.content.importing.writing import csv_line, header_names, json_line
from dripwell.core.campaign import Site
from dripwell.services import segments
from dripwell.storage import campaigns, clock, exporting
from dripwell.storage.database import Connection, Database
from dripwell.storage.exporting import Person

CSV, JSONL = "csv", "jsonl"
FORMATS = (CSV, JSONL)
_HASHES = ("addr_hash", "scope", "reason", "source", "at")


def people(
    database: Database, site: Site, write: Callable[[str], object], *, form: str, segment: str | None, actor: str
) -> int:
    """Write everybody whom some email may reach, or those of them in `segment`, line by line. Returns how many.

    Whoever is suppressed for all marketing, unconfirmed or erased is not in it, nor is a topic that is suppressed. The
    activity says it was done even when it breaks off. Raises NotFoundError for a segment there is not.
    """
    if segment is not None:
        segments.find(site, segment)  # before anything is logged or written
    _log(database, actor, {"what": "subscribers", "segment": segment, "format": form})
    count = 0
    with database.snapshot() as connection:
        exporting.take_time(connection)
        names = header_names(exporting.field_names(connection)) if form == CSV else []
        if form == CSV:
            write(csv_line([name for name, _ in names]))
        for person in _chosen(connection, site, segment):
            write(_row(person, [field for _, field in names]) if form == CSV else _object(person))
            count += 1
    return count


def suppressions(database: Database, write: Callable[[str], object], *, form: str, actor: str) -> int:
    """Write every standing suppression: the keyed hash of an address, never the address. Returns how many."""
    _log(database, actor, {"what": "suppressions", "format": form})
    count = 0
    with database.snapshot() as connection:
        exporting.take_time(connection)
        if form == CSV:
            write(csv_line(_HASHES))
        for row in exporting.suppressions(connection):
            cells = [row.addr_hash.hex(), row.scope, row.reason, row.source, row.at.isoformat()]
            write(csv_line(cells) if form == CSV else json_line(dict(zip(_HASHES, cells, strict=True))))
            count += 1
    return count


def _log(database: Database, actor: str, detail: dict[str, Any]) -> None:
    with database.transaction() as connection:
        campaigns.add_activity(connection, actor=actor, action="exported", about="subscriber", detail=detail)


def _chosen(connection: Connection, site: Site, segment: str | None) -> Iterator[Person]:
    if segment is None:
        ids = exporting.everybody(connection)
    else:
        ids = segments.members(connection, site, segment, clock.read(connection).now)
    part: list[int] = []
    for one in ids:
        part.append(one)
        if len(part) == exporting.PIECE:
            yield from exporting.people(connection, part)
            part = []
    if part:
        yield from exporting.people(connection, part)


def _row(person: Person, names: Sequence[str | None]) -> str:
    together = {(one["source"], one["wording"], one["at"]) for one in person.consents}
    same = len(together) == 1 and not any(";" in one["topic"] for one in person.consents)
    first = person.consents[0]
    own = [
        person.address,
        person.timezone or "",
        ";".join(person.tags),
        person.relationship,
        ";".join(one["topic"] for one in person.consents) if same else "",
        first["source"] if same else "",
        first["at"] if same else "",
        first["wording"] if same else "",
        "" if same else json.dumps(person.consents, ensure_ascii=False),
    ]
    return csv_line([*own, *(_cell(person.fields.get(name)) for name in names if name is not None)])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _object(person: Person) -> str:
    return json_line(
        {
            "email": person.address,
            "timezone": person.timezone,
            "tags": list(person.tags),
            "relationship": person.relationship,
            "consents": list(person.consents),
            "fields": dict(person.fields),
        }
    )
