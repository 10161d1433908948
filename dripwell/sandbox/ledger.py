"""What the sandbox accepted, on disk before anybody is told.

Three append-only files in the state folder. A call is written to `mails.jsonl` (two lines: a head, then the request as
it came, so a call of 1,000 people costs one copy of its skeleton) and then to `ledger.jsonl` (one line a person); both
are on the disk before `add` returns. A call counts when all its ledger lines are there: what a kill left unfinished was
never answered and is cut off at the next start. `memory.jsonl` remembers which "first time" has been used up.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from base64 import urlsafe_b64encode
from bisect import bisect_right
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from dripwell.sandbox.filling import Cut, cut, fill, words_pattern
from dripwell.sandbox.forgetting import NOBODY, overwrite_lines, overwrite_mails

KEPT_BODIES = 8  # parsed requests kept in memory; the inbox and the webhook mostly want the newest


NOBODY_DROPPED: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Call:
    """One accepted call. `first` is the position of its first mail, counted from 1 over all calls."""

    number: int
    at: float
    provider_id: str
    first: int
    addresses: tuple[str, ...]
    rows: tuple[int, ...]  # index of each person's personalization
    subjects: tuple[str, ...]
    messages: tuple[str | None, ...]  # dw_m
    batches: tuple[str | None, ...]  # dw_b
    nths: tuple[int, ...]  # 1: the first mail ever to that address
    offset: int  # of the request in mails.jsonl
    length: int
    dropped: Mapping[int, str]  # why, by the place of the person: the provider's lists had them


@dataclass(frozen=True, slots=True)
class Mail:
    """One person's mail, filled in."""

    id: int
    call: Call
    index: int  # within the call
    sender: str
    reply_to: str
    subject: str
    html: str | None
    text: str | None
    headers: Mapping[str, str]
    args: Mapping[str, str]
    categories: tuple[str, ...]

    @property
    def address(self) -> str:
        """Whom it went to."""
        return self.call.addresses[self.index]

    @property
    def message_id(self) -> str:
        """The provider's `sg_message_id`."""
        return message_id(self.call.provider_id, self.index)


class DamagedStateError(Exception):
    """The state folder contradicts itself, or another sandbox is using it."""


@dataclass(frozen=True, slots=True)
class Request:
    """A valid request, ready to be accepted for these people; `raw` is the body as it came."""

    raw: bytes
    body: Mapping[str, Any]
    shape: Skeleton
    people: Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The parts of a request that are the same for everybody, cut at the substitution words."""

    subjects: tuple[Cut, ...]  # one a personalization, shared where it is the same text
    html: Cut | None
    text: Cut | None


def skeleton(body: Mapping[str, Any]) -> Skeleton:
    """Cut subject and contents of a valid body at every word that any personalization has a value for."""
    personalizations = body["personalizations"]
    pattern = words_pattern(word for each in personalizations for word in each.get("substitutions") or ())
    known: dict[str, Cut] = {}
    subjects: list[Cut] = []
    for each in personalizations:
        subject = each.get("subject") or body["subject"]
        if subject not in known:
            known[subject] = cut(subject, pattern)
        subjects.append(known[subject])
    parts = {part["type"].lower(): cut(part["value"], pattern) for part in body["content"]}
    return Skeleton(tuple(subjects), parts.get("text/html"), parts.get("text/plain"))


def message_id(provider_id: str, index: int) -> str:
    """The `sg_message_id` of a call's person: the call's X-Message-Id, a dot, the rest."""
    mark = hashlib.sha256(f"{provider_id}.{index}".encode()).hexdigest()
    return f"{provider_id}.filterdrecv-{mark[:10]}-{mark[10:15]}-1-{mark[15:23].upper()}-{mark[23:25].upper()}.{index}"


def address_hash(address: str) -> str:
    """The hex SHA-256 under which the ledger knows an address."""
    return hashlib.sha256(address.encode()).hexdigest()


@dataclass(slots=True)
class _Appender:
    path: Path
    file: BinaryIO

    def append(self, data: bytes) -> None:
        self.file.write(data)
        self.file.flush()
        os.fdatasync(self.file.fileno())


@dataclass(slots=True)
class _Index:
    calls: list[Call] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    by_provider_id: dict[str, Call] = field(default_factory=dict)
    by_address: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    by_message: Counter[str] = field(default_factory=Counter)
    accepted: int = 0


class Ledger:
    """Opened once per state folder; safe to use from several threads."""

    def __init__(self, state: Path, seed: int) -> None:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds addresses
        self._lock = threading.RLock()
        self._guard = (state / "lock").open("wb")
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DamagedStateError(f"Another sandbox is using {state}. Stop it, or choose another --state.") from error
        self._state = state
        self._seed = seed
        self._index = _Index()
        self._bodies: OrderedDict[int, tuple[Mapping[str, Any], Skeleton]] = OrderedDict()
        self._load()
        self._lines = _open(state / "ledger.jsonl")
        self._mails = _open(state / "mails.jsonl")
        self._memory_file = _open(state / "memory.jsonl")
        self._memory = {(each["tag"], each["address"]) for each in _records(state / "memory.jsonl")}

    # ---- writing

    def add(self, request: Request, now: float, dropped: Mapping[int, str] = NOBODY_DROPPED) -> Call:
        """Accept these people's mails. Returns when the ledger lines are on the disk. `dropped` are taken all the same.

        They are named by their place among the people, with the reason.
        """
        shape = request.shape
        filled = [_digests(shape, request.body, row) for row, _ in request.people]
        with self._lock:
            number = len(self._index.calls) + 1
            provider_id = id_of_call(self._seed, number)
            head = {"call": number, "t": now, "id": provider_id, "people": request.people, "length": len(request.raw)}
            if dropped:
                head["dropped"] = dropped
            head_line = json.dumps(head, separators=(",", ":")).encode() + b"\n"
            # JSON strings hold no raw line break, so breaks between tokens can become spaces.
            raw = request.raw.replace(b"\r", b" ").replace(b"\n", b" ")
            offset = self._mails.path.stat().st_size + len(head_line)
            self._mails.append(head_line + raw + b"\n")
            args = [args_of(request.body, row) for row, _ in request.people]
            lines = [
                _line(now, number, len(request.people), provider_id, address, arg, hashes)
                for (_, address), arg, hashes in zip(request.people, args, filled, strict=True)
            ]
            self._lines.append("".join(lines).encode())
            call = self._count(
                number,
                now,
                provider_id,
                request.people,
                [hashes[0] for hashes in filled],
                args,
                offset,
                len(raw),
                dropped,
            )
            self._keep(number, request.body, shape)
            return call

    def is_first(self, tag: str, address: str) -> bool:
        """Whether this tag has not yet answered for this address."""
        with self._lock:
            return (tag, address_hash(address.lower())) not in self._memory

    def remember(self, tag: str, address: str) -> bool:
        """Use up the first time of this tag for this address, on the disk. False: somebody else just did."""
        with self._lock:
            if not self.is_first(tag, address):
                return False
            entry = {"tag": tag, "address": address_hash(address.lower())}
            self._memory_file.append(json.dumps(entry).encode() + b"\n")
            self._memory.add((entry["tag"], entry["address"]))
            return True

    def forget(self, address: str) -> int:
        """Take a person out of every mail, on the disk too. What was accepted still counts. Returns how many mails."""
        with self._lock:
            ids = self._index.by_address.pop(address.lower(), [])
            gone: dict[int, set[int]] = defaultdict(set)
            for mail_id in ids:
                found = self.find(mail_id)
                if found is not None:
                    gone[found[0].number].add(found[1])
            for number, places in gone.items():
                call = self.call(number)
                if call.length:
                    rows = {call.rows[place] for place in places}
                    overwrite_mails(self._state / "mails.jsonl", number, call.offset, call.length, rows)
                fresh = replace(
                    call,
                    addresses=tuple(NOBODY if at in places else one for at, one in enumerate(call.addresses)),
                    subjects=tuple("" if at in places else one for at, one in enumerate(call.subjects)),
                )
                self._index.calls[number - 1] = self._index.by_provider_id[call.provider_id] = fresh
                self._bodies.pop(number, None)
            if gone:
                overwrite_lines(self._state / "ledger.jsonl", gone, address_hash(NOBODY))
            return len(ids)

    def close(self) -> None:
        """Give the state folder back."""
        for each in (self._lines.file, self._mails.file, self._memory_file.file, self._guard):
            each.close()

    # ---- reading

    @property
    def accepted(self) -> int:
        """How many mails, which is also the highest mail id."""
        return self._index.accepted

    @property
    def calls(self) -> int:
        """How many accepted calls, which is also the highest call number."""
        return len(self._index.calls)

    def call(self, number: int) -> Call:
        """One call by its number, from 1."""
        return self._index.calls[number - 1]

    def totals(self) -> dict[str, Any]:
        """Accepted mails, calls, second acceptances of a message, and the count of each message."""
        with self._lock:
            by_message = dict(self._index.by_message)
            return {
                "accepted": self._index.accepted,
                "calls": len(self._index.calls),
                "duplicates": sum(by_message.values()) - len(by_message),
                "by_message": by_message,
            }

    def lines(self) -> list[dict[str, Any]]:
        """Every ledger line, as written."""
        with self._lock:
            return list(_records(self._state / "ledger.jsonl"))

    def find(self, mail_id: int) -> tuple[Call, int] | None:
        """The call that mail belongs to, and its index within the call."""
        if not 1 <= mail_id <= self._index.accepted:
            return None
        call = self._index.calls[bisect_right(self._index.firsts, mail_id) - 1]
        return call, mail_id - call.first

    def find_by_provider_id(self, provider_id: str) -> Call | None:
        """The call that answered with this X-Message-Id."""
        return self._index.by_provider_id.get(provider_id)

    def ids_to(self, address: str) -> list[int]:
        """Ids of all mails to exactly this address, in any case, oldest first."""
        with self._lock:
            return list(self._index.by_address.get(address.lower(), ()))

    def ids_matching(self, part: str) -> list[int]:
        """Ids of all mails whose address holds this text, oldest first."""
        with self._lock:
            found = [ids for address, ids in self._index.by_address.items() if part.lower() in address]
        return sorted(mail_id for ids in found for mail_id in ids)

    def body(self, call: Call) -> Mapping[str, Any]:
        """The request of an accepted call."""
        return self._body(call)[0]

    def mail(self, mail_id: int) -> Mail | None:
        """One mail, filled in; None when there is no such id."""
        found = self.find(mail_id)
        if found is None:
            return None
        call, index = found
        body, shape = self._body(call)
        row = call.rows[index]
        personal = body["personalizations"][row]
        values = personal.get("substitutions") or {}
        reply_to = body.get("reply_to") or next(iter(body.get("reply_to_list") or ()), None)
        return Mail(
            id=mail_id,
            call=call,
            index=index,
            sender=_mailbox(personal.get("from") or body["from"]),
            reply_to=_mailbox(reply_to) if reply_to else "",
            subject=call.subjects[index],
            html=fill(shape.html, values).decode() if shape.html else None,
            text=fill(shape.text, values).decode() if shape.text else None,
            headers={**(body.get("headers") or {}), **(personal.get("headers") or {})},
            args=args_of(body, row),
            categories=tuple(body.get("categories") or ()),
        )

    # ---- inside

    def _body(self, call: Call) -> tuple[Mapping[str, Any], Skeleton]:
        with self._lock:
            if call.number in self._bodies:
                self._bodies.move_to_end(call.number)
                return self._bodies[call.number]
        with self._mails.path.open("rb") as file:
            file.seek(call.offset)
            body = json.loads(file.read(call.length))
        shape = skeleton(body)
        self._keep(call.number, body, shape)
        return body, shape

    def _keep(self, number: int, body: Mapping[str, Any], shape: Skeleton) -> None:
        with self._lock:
            self._bodies[number] = body, shape
            while len(self._bodies) > KEPT_BODIES:
                self._bodies.popitem(last=False)

    def _count(
        self,
        number: int,
        at: float,
        provider_id: str,
        people: Sequence[Sequence[Any]],
        subjects: Sequence[str],
        args: Sequence[Mapping[str, str]],
        offset: int,
        length: int,
        dropped: Mapping[int, str] = NOBODY_DROPPED,
    ) -> Call:
        index = self._index
        first = index.accepted + 1
        nths: list[int] = []
        for position, (_, address) in enumerate(people):
            ids = index.by_address[address.lower()]
            ids.append(first + position)
            nths.append(len(ids))
        messages = tuple(arg.get("dw_m") for arg in args)
        index.by_message.update(message for message in messages if message is not None)
        call = Call(
            number=number,
            at=at,
            provider_id=provider_id,
            first=first,
            addresses=tuple(address for _, address in people),
            rows=tuple(row for row, _ in people),
            subjects=tuple(subjects),
            messages=messages,
            batches=tuple(arg.get("dw_b") for arg in args),
            nths=tuple(nths),
            offset=offset,
            length=length,
            dropped=dropped,
        )
        index.calls.append(call)
        index.firsts.append(first)
        index.by_provider_id[provider_id] = call
        index.accepted += len(people)
        return call

    def _load(self) -> None:
        heads = _heads(self._state / "mails.jsonl")
        ledger = self._state / "ledger.jsonl"
        end_of_lines = end_of_mails = 0
        for lines, end in _whole_calls(ledger):
            number = lines[0]["call"]
            head, offset = next(heads, ({}, 0))
            if number != len(self._index.calls) + 1 or head.get("call") != number or len(head["people"]) != len(lines):
                raise DamagedStateError(f"{ledger} and mails.jsonl do not fit at call {number}. Use a fresh --state.")
            self._count(
                number,
                head["t"],
                head["id"],
                head["people"],
                [line["subject"] for line in lines],
                [{key: line[key] for key in ("dw_b", "dw_m") if line[key] is not None} for line in lines],
                offset,
                head["length"],
                {int(place): why for place, why in head.get("dropped", {}).items()},
            )
            end_of_lines, end_of_mails = end, offset + head["length"] + 1
        heads.close()
        _cut_off(ledger, end_of_lines)
        _cut_off(self._state / "mails.jsonl", end_of_mails)
        memory = self._state / "memory.jsonl"
        if memory.exists():
            _cut_off(memory, memory.read_bytes().rfind(b"\n") + 1)


def unfilled(body: Mapping[str, Any], shape: Skeleton) -> tuple[int, str] | None:
    """The first personalization, with the word, that lacks a value other personalizations have and the mail needs."""
    shared = (shape.html.needed if shape.html else frozenset()) | (shape.text.needed if shape.text else frozenset())
    for row, personal in enumerate(body["personalizations"]):
        values = personal.get("substitutions") or {}
        needed = shape.subjects[row].needed
        if not (shared <= values.keys() and needed <= values.keys()):
            return row, min((shared | needed) - values.keys())
    return None


def broken_subject(body: Mapping[str, Any], shape: Skeleton) -> int | None:
    """The first personalization whose values put a line break into the subject, or leave nothing of it."""
    alike = set()  # subjects without a word are the same for everybody
    for row, personal in enumerate(body["personalizations"]):
        cut_at = shape.subjects[row]
        if not cut_at.needed:
            if cut_at in alike:
                continue
            alike.add(cut_at)
        subject = fill(cut_at, personal.get("substitutions") or {})
        if not subject or b"\n" in subject or b"\r" in subject or b"\0" in subject:
            return row
    return None


def _digests(shape: Skeleton, body: Mapping[str, Any], row: int) -> tuple[str, str, str]:
    """One person's subject and the hashes of the HTML and the text part."""
    values = body["personalizations"][row].get("substitutions") or {}
    return (
        fill(shape.subjects[row], values).decode(),
        hashlib.sha256(fill(shape.html, values)).hexdigest() if shape.html else "",
        hashlib.sha256(fill(shape.text, values)).hexdigest() if shape.text else "",
    )


def args_of(body: Mapping[str, Any], row: int) -> Mapping[str, str]:
    """One person's custom args: the call's, under their own."""
    own: Mapping[str, str] = body["personalizations"][row].get("custom_args") or {}
    shared = body.get("custom_args")
    return {**shared, **own} if shared else own


def _line(
    at: float,
    call: int,
    people: int,
    provider_id: str,
    address: str,
    args: Mapping[str, str],
    hashes: tuple[str, str, str],
) -> str:
    line = {
        "t": at,
        "call": call,
        "of": people,  # how many lines this call has: an unfinished one is recognized by it
        "id": provider_id,
        "dw_b": args.get("dw_b"),
        "dw_m": args.get("dw_m"),
        "address": address_hash(address),
        "subject": hashes[0],
        "html": hashes[1],
        "text": hashes[2],
    }
    return json.dumps(line, separators=(",", ":")) + "\n"


def id_of_call(seed: int, call: int) -> str:
    """The X-Message-Id of a call."""
    return urlsafe_b64encode(hashlib.sha256(f"{seed}:{call}".encode()).digest()[:16]).decode().rstrip("=")


def _mailbox(person: Mapping[str, Any]) -> str:
    return f"{person['name']} <{person['email']}>" if person.get("name") else str(person["email"])


def _open(path: Path) -> _Appender:
    return _Appender(path, path.open("ab"))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def _whole_calls(path: Path) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Each call whose lines are all there, and where it ends in the file."""
    if not path.exists():
        return
    lines: list[dict[str, Any]] = []
    end = 0
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            end += len(raw)
            lines.append(json.loads(raw))
            if len(lines) == lines[0]["of"]:
                yield lines, end
                lines = []


def _heads(path: Path) -> Generator[tuple[dict[str, Any], int], None, None]:
    """Each head in mails.jsonl, and where the request after it starts."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while (raw := file.readline()).endswith(b"\n"):
            head = json.loads(raw)
            offset = file.tell()
            yield head, offset
            file.seek(offset + head["length"] + 1)


def _cut_off(path: Path, end: int) -> None:
    if path.exists() and path.stat().st_size > end:
        os.truncate(path, end)
