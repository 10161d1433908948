"""One row after the other: its cells become a person, somebody who left, or a reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from unicodedata import category

from dripwell.content.importing import vendors
from dripwell.content.importing.addresses import checked
from dripwell.content.importing.columns import FIELD, Plan, meaning, plan
from dripwell.content.importing.records import Layout, layout, objects, records
from dripwell.content.importing.safety import bare
from dripwell.content.importing.values import (
    MAX_CELL,
    RELATIONSHIPS,
    BadRow,
    Given,
    GoodRow,
    LeftRow,
    Reading,
    Row,
    Rules,
)
from dripwell.content.importing.vendors import LISTMONK_STATUSES, VENDORS, Leaving, Vendor
from dripwell.core.agreement import bought
from dripwell.core.errors import ContentError

MAX_CONSENTS = 50
_BREAKING = {"Cc", "Cs", "Zl", "Zp"}
"""Controls, halves of characters and line breaks: no email can be made with them, so nobody is taken in with one."""
_OF_CONSENT = ("consents", "topics", "consent_source", "consent_at", "consent_wording")
_EPOCH = re.compile(r"\d{9,11}\Z")
Cells = dict[str, Any]  # our own words and the fields, under FIELD + name; lists only where JSON lines have them


def laid_out(path: Path, reading: Reading) -> Layout:
    """How the file is written. Raises ContentError for one that cannot be read or understood."""
    vendor = VENDORS[reading.vendor] if reading.vendor else None
    names = [name for name, ours in reading.columns.items() if ours == "email"]
    names += [name for name, ours in vendor.columns.items() if ours == "email"] if vendor else ["email"]
    laid = layout(path, reading.delimiter, names)
    if laid.separator is None and vendor is not None:
        raise ContentError(f"{path} is JSON lines, and {vendor.name} exports CSV: leave --from away")
    if laid.separator is not None:
        plan(path, laid.columns, reading, vendor)
        if vendor is not None:
            vendors.kind_of(path, laid.columns, vendor, reading.kind)
    return laid


def lacking(path: Path, laid: Layout, reading: Reading, rules: Rules) -> str | None:
    """What must be stated for the whole file since no row of it can say it; None: nothing, as far as one can tell."""
    if laid.separator is None:
        return None
    vendor = VENDORS[reading.vendor] if reading.vendor else None
    meant = {meaning(name, reading, vendor) for name in laid.columns}
    if vendor is not None and vendor.kinds[vendors.kind_of(path, laid.columns, vendor, reading.kind)] is not None:
        return None
    dated = bool(vendor and vendor.agreed and meant & {"optin_at", "confirm_at"})
    have: Cells = {"consents": ""}
    have["topics"] = next(iter(rules.topics), "") if "topics" in meant else ""
    have["consent_source"] = "x" if dated or "consent_source" in meant else ""
    have["consent_at"] = rules.now.isoformat() if dated or "consent_at" in meant else ""
    found = None if "consents" in meant else _consents(have, rules)
    return found if isinstance(found, str) else None


def judged(path: Path, laid: Layout, reading: Reading, rules: Rules, skip: int = 0) -> Iterator[Row]:
    """Yield every row of the file as what it is, without the first `skip`, which were judged before."""
    if laid.separator is None:
        yield from _json_rows(path, laid, reading, rules, skip)
        return
    vendor = VENDORS[reading.vendor] if reading.vendor else None
    planned = plan(path, laid.columns, reading, vendor)
    kind = vendors.kind_of(path, laid.columns, vendor, reading.kind) if vendor else ""
    leaving = vendor.kinds[kind] if vendor else None
    one = _plain(planned, rules) if vendor is None else _exported(planned, rules, vendor, kind, leaving)
    for place, (line, row) in enumerate(records(path, laid)):
        if place >= skip:
            yield one(line, row)


def _plain(planned: Plan, rules: Rules) -> Callable[[int, Sequence[str]], Row]:
    width, own, fields = planned.width, planned.own, planned.fields
    stated = _agreed({}, rules)
    own_consent = any(name in own for name in _OF_CONSENT)
    email, zone_at, tags_at, related_at = (own.get(name) for name in ("email", "timezone", "tags", "relationship"))
    kept = {*own.values(), *(place for place, _ in fields)}
    assert email is not None

    def one(line: int, row: Sequence[str]) -> Row:
        if len(row) != width:
            if len(row) > width:
                return BadRow(line, "more cells than the first line has columns")
            row = [*row, *[""] * (width - len(row))]
        joined = "".join(row)
        if len(joined) > MAX_CELL or not joined.isprintable():
            wrong = _unusable(planned, kept, row)
            if wrong is not None:
                return BadRow(line, wrong)
        try:
            address = checked(bare(row[email].strip()))
        except ValueError as error:
            return BadRow(line, _of_address(error))
        zone = None if zone_at is None else row[zone_at].strip() or None
        if zone is not None and zone not in rules.timezones:
            return BadRow(line, f"{_said(zone)} is not a time zone such as America/Los_Angeles")
        related = "unknown" if related_at is None else row[related_at].strip().lower() or "unknown"
        if related not in RELATIONSHIPS:
            return BadRow(line, f"{_said(related)} is not a relationship: write {', '.join(RELATIONSHIPS)}")
        if own_consent:
            consents = _agreed({name: bare(row[place].strip()) for name, place in own.items()}, rules)
        else:
            consents = stated
        if isinstance(consents, str):
            return BadRow(line, consents)
        tags = () if tags_at is None else split(row[tags_at])
        return GoodRow(
            line,
            address,
            zone,
            tags,
            {name: bare(value) for place, name in fields if (value := row[place].strip())},
            related,
            consents,
        )

    return one


def split(cell: str) -> tuple[str, ...]:
    """The parts of a cell that are separated by semicolons, each with what a spreadsheet needed taken off."""
    return tuple(bare(part.strip()) for part in cell.split(";") if part.strip()) if cell else ()


def _unusable(planned: Plan, kept: set[int], row: Sequence[str]) -> str | None:
    for place in sorted(kept):
        value = row[place].strip()
        if len(value) > (MAX_CELL * 20 if planned.own.get("consents") == place else MAX_CELL):
            return f"`{planned.names[place].lower()}` is longer than {MAX_CELL} characters"
        if not value.isprintable() and any(category(character) in _BREAKING for character in value):
            return f"`{planned.names[place].lower()}` holds a line break or another control character"
    return None


def _agreed(cells: Mapping[str, Any], rules: Rules) -> tuple[Given, ...] | str | None:
    """What the row agrees to; None: what is stated for the whole file; or what is missing."""
    found = _consents(cells, rules)
    own = isinstance(found, str) or any(cells.get(name) for name in _OF_CONSENT)
    return found if own else None


def _consents(cells: Mapping[str, Any], rules: Rules) -> tuple[Given, ...] | str:
    """What the row agrees to, or why it cannot be taken: nobody is taken in without source and time of consent."""
    if cells.get("consents"):
        return _listed(cells["consents"], rules)
    said = cells.get("topics") or ()
    topics = split(said) if isinstance(said, str) else tuple(said)
    topics = tuple(dict.fromkeys(topics)) or rules.statement.topics
    if not topics:
        return "it says no topic: fill the column `topics`, or state one for the whole file with --topic"
    at: datetime | None = rules.statement.given_at
    if cells.get("consent_at"):
        at = moment(cells["consent_at"], rules.zone)
        if at is None:
            return "`consent_at` is not a time such as 2026-05-31 or 2026-05-31T18:30"
    source = cells.get("consent_source") or ""
    wording = cells.get("consent_wording") or rules.statement.wording
    return _allowed([Given(topic, source, wording, at) for topic in topics] if at else None, source, rules)


def _listed(listed: Any, rules: Rules) -> tuple[Given, ...] | str:
    try:
        given = json.loads(listed) if isinstance(listed, str) else listed
        found = [(str(one["topic"]), str(one["source"]), str(one.get("wording", "")), str(one["at"])) for one in given]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "`consents` is not a JSON list of objects with topic, source and at"
    if len(found) > MAX_CONSENTS:
        return f"`consents` lists more than {MAX_CONSENTS}"
    consents = []
    for topic, source, wording, written in found:
        at = moment(written, rules.zone)
        if at is None or not source:
            return "`consents` holds one without a source or without a time"
        if len(topic + source + wording) > 3 * MAX_CELL or not _usable(topic + source + wording):
            return "`consents` holds words that are too long, or a control character"
        consents.append(Given(topic, source, wording, at))
    return _allowed(consents, "each its own", rules)


def _allowed(consents: list[Given] | None, source: str, rules: Rules) -> tuple[Given, ...] | str:
    if not source and not rules.statement.source:
        return "it does not say where they agreed: fill `consent_source`, or state it for the file with --source"
    if consents is None:
        return "it does not say when they agreed: fill `consent_at`, or state it for the file with --given-at"
    for one in consents:
        if one.topic not in rules.topics:
            return f"config/site.yaml names no topic {_said(one.topic)}"
        if word := bought(one.source or rules.statement.source):
            return f"its source says “{word}”: who was bought, rented or collected elsewhere has not asked to be mailed"
        if one.at > rules.now:
            return "the time of consent is in the future: nobody can have agreed yet"
    first = {one.topic: one for one in reversed(consents)}  # said twice in one row, the first counts
    return tuple(consents) if len(first) == len(consents) else tuple(one for one in consents if first[one.topic] is one)


def moment(text: str, zone: tzinfo) -> datetime | None:
    """A written time as an aware one, in `zone` when it says none; seconds since 1970 also count. None: it is none."""
    try:
        if _EPOCH.match(text):
            return datetime.fromtimestamp(int(text), UTC)
        found = datetime.fromisoformat(text)
        aware = found.replace(tzinfo=zone) if found.tzinfo is None else found
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _exported(
    planned: Plan, rules: Rules, vendor: Vendor, kind: str, leaving: Leaving | None
) -> Callable[[int, Sequence[str]], Row]:
    """Judge by the vendor's columns: they become ours, and the rest is as in every file."""
    own = planned.own
    zones = rules.timezones
    names = ("email", "timezone", "relationship", *_OF_CONSENT)

    def one(line: int, row: Sequence[str]) -> Row:
        if len(row) > planned.width:
            return BadRow(line, "more cells than the first line has columns")
        padded = [cell.strip() for cell in (*row, *[""] * (planned.width - len(row)))]
        theirs = {word: padded[place] for word, place in own.items()}
        left: Leaving | str | None = leaving
        if "their_status" in theirs:
            left = LISTMONK_STATUSES.get(theirs["their_status"].lower(), "its status is none that listmonk has")
        if isinstance(left, str):
            return BadRow(line, left)
        if left is not None:
            try:
                address = checked(theirs["email"])
            except ValueError as error:
                return BadRow(line, _of_address(error))
            at = moment(theirs.get("left_at", ""), UTC)
            on = f", {at:%Y-%m-%d}" if at else ""
            return LeftRow(line, address, left[0], left[1], f"{vendor.name}: {kind}{on}")
        cells: Cells = {name: theirs[name] for name in names if name in theirs}
        cells.update((FIELD + name, padded[place]) for place, name in planned.fields if padded[place])
        if theirs.get("their_timezone") in zones:
            cells["timezone"] = theirs["their_timezone"]
        cells["tags"] = vendors.mailchimp_tags(theirs["their_tags"]) if theirs.get("their_tags") else ()
        try:
            extra = vendors.listmonk_fields(theirs.get("their_fields", ""))
        except (ValueError, RecursionError):
            return BadRow(line, "`attributes` is not a JSON object")
        cells.update((FIELD + "_".join(name.lower().split()), value) for name, value in extra.items() if value)
        agreed_at = theirs.get("confirm_at") or theirs.get("optin_at")
        if agreed_at:
            written = moment(agreed_at, UTC)
            cells["consent_at"] = written.isoformat() if written else agreed_at
            how = ", confirmed by email" if theirs.get("confirm_at") else ""
            cells["consent_source"] = vendor.agreed + how
        return _person(line, cells, rules)

    return one


def _json_rows(path: Path, laid: Layout, reading: Reading, rules: Rules, skip: int) -> Iterator[Row]:
    meanings: dict[str, str | None] = {}
    for place, (line, value) in enumerate(objects(path, laid)):
        if place < skip:
            continue
        if isinstance(value, str):
            yield BadRow(line, value)
            continue
        cells: Cells = {}
        wrong = None
        for name, content in value.items():
            if name not in meanings:
                if len(meanings) > 10 * MAX_CELL:
                    meanings.clear()
                meanings[name] = None if name == "fields" else meaning(name, reading, None)
            what = meanings[name]
            if name == "fields" and isinstance(content, dict) and "fields" not in reading.ignored:
                cells.update((FIELD + inner, found) for inner, found in content.items() if found is not None)
            elif name == "fields" and content is not None and "fields" not in reading.ignored:
                wrong = "`fields` is not an object"
            elif what is not None and content is not None:
                cells[what] = content
        yield BadRow(line, wrong) if wrong else _person(line, cells, rules)


def _person(line: int, cells: Cells, rules: Rules) -> Row:
    """The row of a person from cells by name. Lists are welcome where a cell of CSV has semicolons."""
    texts: dict[str, Any] = {}
    for name, content in cells.items():
        if name in ("tags", "topics") and isinstance(content, list | tuple):
            if not all(isinstance(part, str) for part in content):
                return BadRow(line, f"`{name}` is not a list of words")
            value: Any = tuple(part.strip() for part in content if part.strip())
            looked = "".join(value)
        elif name == "consents" and isinstance(content, list):
            value, looked = content, ""
        elif isinstance(content, str):
            value = looked = content.strip()
        elif isinstance(content, int | float | bool):
            value = looked = json.dumps(content)
        else:
            return BadRow(line, f"`{name.removeprefix(FIELD)}` is neither words nor a number")
        if len(looked) > (MAX_CELL * 20 if name == "consents" else MAX_CELL):
            return BadRow(line, f"`{name.removeprefix(FIELD)[:50]}` is longer than {MAX_CELL} characters")
        shown = name.removeprefix(FIELD)
        if len(shown) > MAX_CELL or not shown or not _usable(shown):
            return BadRow(line, "the name of a field is empty, too long or holds a control character")
        if not _usable(looked):
            return BadRow(line, f"`{shown}` holds a line break or another control character")
        texts[name] = value
    try:
        address = checked(texts.get("email") or "")
    except ValueError as error:
        return BadRow(line, _of_address(error))
    zone = texts.get("timezone") or None
    if zone is not None and zone not in rules.timezones:
        return BadRow(line, f"{_said(zone)} is not a time zone such as America/Los_Angeles")
    related = (texts.get("relationship") or "unknown").lower()
    if related not in RELATIONSHIPS:
        return BadRow(line, f"{_said(related)} is not a relationship: write {', '.join(RELATIONSHIPS)}")
    consents = _agreed(texts, rules)
    if isinstance(consents, str):
        return BadRow(line, consents)
    tags = texts.get("tags") or ()
    fields = {name[len(FIELD) :]: value for name, value in texts.items() if name.startswith(FIELD) and value}
    return GoodRow(line, address, zone, split(tags) if isinstance(tags, str) else tags, fields, related, consents)


def _of_address(error: ValueError) -> str:
    """What is wrong with an address, in the voice of the other reasons: no sentence, no full stop."""
    words = str(error).rstrip(".")
    return words[:1].lower() + words[1:]


def _said(cell: str) -> str:
    """The cell, for a reason. One that may hold an address, in a row whose cells are shifted, is not repeated."""
    return "what it says" if "@" in cell else f"`{cell[:50]}`"


def _usable(text: str) -> bool:
    return text.isprintable() or not any(category(character) in _BREAKING for character in text)
