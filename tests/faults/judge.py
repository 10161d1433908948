"""The judge: what people got, from the sandbox's ledger file; then whether our record says the same.

Nothing our own tables say can acquit: twice is twice in the ledger, lost is missing there, late is an acceptance in a
call that began after the person's unsubscribe had been answered. The record is read for the names of things (who has
which message, when a call began) and to be compared.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from dripwell.storage import invariants
from dripwell.storage.database import Connection

UNDER_WAY = 40.0
"""Seconds that a call which was under way at an unsubscribe may last (G4)."""
HOPELESS = ("+badrow", "+badcall")
"""Tags of addresses that the sandbox refuses for ever: these people get nothing, and that is right."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One person's mail that the sandbox accepted. `t` is wall time in seconds, `address` a SHA-256 in hex."""

    t: float
    batch: str | None
    message: str | None
    address: str


@dataclass(frozen=True, slots=True)
class Leaving:
    """One unsubscribe. `answered` is when the 2xx had come, None if none did: then both ends are right."""

    address: str
    answered: float | None


@dataclass(frozen=True, slots=True)
class Message:
    """A row of ours. `step` is None for a service email."""

    address: str
    campaign: str
    step: str
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Record:
    """What our tables say, at the end."""

    messages: Mapping[str, Message]  # by dw_m
    called: Mapping[str, float]  # dw_b -> wall seconds at which it was marked CALLING
    unsettled: int  # batches that are not DONE
    broken: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Verdict:
    """The judge's numbers, and every fault in a sentence. No address is in it."""

    messages: int = 0
    accepted: int = 0
    duplicates: int = 0
    lost: int = 0
    late: int = 0
    unsettled: int = 0
    held: int = 0
    poison: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong

    def lines(self) -> list[str]:
        """As a person reads it."""
        return [
            f"messages {self.messages}  accepted {self.accepted}  duplicates {self.duplicates}  lost {self.lost}  "
            f"after unsubscribe {self.late}  UNKNOWN unsettled {self.unsettled}  held {self.held}  "
            f"given up as poison {self.poison}",
            *(f"wrong: {each}" for each in self.wrong[:40]),
        ]


def read_ledger(path: Path) -> list[Mail]:
    """Every mail of every whole call. A call of which lines are missing was never answered."""
    mails: list[Mail] = []
    part: list[dict[str, Any]] = []
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                break
            part.append(json.loads(raw))
            if len(part) == part[0]["of"]:
                mails += [Mail(line["t"], line["dw_b"], line["dw_m"], line["address"]) for line in part]
                part = []
    return mails


def read_leavings(path: Path) -> list[Leaving]:
    """The notes that the invented people kept of their unsubscribes."""
    if not path.exists():
        return []
    noted: dict[str, float | None] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        note = json.loads(line)
        before = noted.get(note["address"])
        answered = note["answered"]
        noted[note["address"]] = answered if before is None else before
    return [Leaving(address, answered) for address, answered in noted.items()]


_MESSAGES = text("""
SELECT message.public_id, subscriber.address, campaign.name, message.step_key, message.state, message.reason
  FROM message JOIN subscriber ON subscriber.id = message.subscriber_id
  JOIN campaign ON campaign.id = message.campaign_id
""")
_CALLED = text("SELECT id, extract(epoch FROM called_at)::float8 AS began FROM batch WHERE called_at IS NOT NULL")
_UNSETTLED = text("SELECT count(*) FROM batch WHERE state <> 'DONE'")


def read_record(connection: Connection) -> Record:
    """What our tables say, with every invariant that does not hold."""
    return Record(
        messages={
            row.public_id.hex: Message(row.address or "", row.name, row.step_key, row.state, row.reason)
            for row in connection.execute(_MESSAGES)
        },
        called={str(row.id): row.began for row in connection.execute(_CALLED)},
        unsettled=connection.execute(_UNSETTLED).scalar_one(),
        broken=invariants.broken(connection),
    )


def judge(
    mails: Sequence[Mail],
    record: Record,
    leavings: Iterable[Leaving],
    *,
    campaign: str,
    steps: Sequence[str],
    people: Iterable[str],
    may_hold: bool = False,
) -> Verdict:
    """Hold the ledger against everything promised. `people` were all to get `steps`, in this order, by now.

    `may_hold`: messages without evidence either way may be HELD at the end, and are then neither lost nor unsettled.
    """
    verdict = Verdict(messages=len(record.messages), accepted=len(mails), unsettled=record.unsettled)
    copies = Counter(mail.message for mail in mails)
    for message, count in copies.items():
        if count > 1:
            verdict.duplicates += count - 1
            verdict.wrong.append(f"message {message} was accepted {count} times")
    strangers = {mail.message for mail in mails} - set(record.messages)
    verdict.wrong += [f"the sandbox accepted {name}, which is no message of ours" for name in strangers]
    ours = {name for name, message in record.messages.items() if message.state == "ACCEPTED"}
    for name in sorted(ours - set(copies)):
        verdict.wrong.append(f"message {name} is ACCEPTED, and the sandbox never accepted it")
    for name in sorted((set(record.messages) & set(copies)) - ours):
        verdict.wrong.append(f"message {name} was accepted, and is {record.messages[name].state} in the record")
    left = {leaving.address: leaving.answered for leaving in leavings}
    _judge_late(verdict, mails, record, left)
    _judge_series(verdict, mails, record, left, campaign, steps, people, may_hold)
    if verdict.unsettled:
        verdict.wrong.append(f"{verdict.unsettled} batches are not settled")
    verdict.wrong += [f"invariant {name}: {list(rows)[:5]}" for name, rows in record.broken.items()]
    return verdict


def _judge_late(verdict: Verdict, mails: Sequence[Mail], record: Record, left: Mapping[str, float | None]) -> None:
    gone = {address_hash(address): answered for address, answered in left.items() if answered is not None}
    for mail in mails:
        answered = gone.get(mail.address)
        message = record.messages.get(mail.message or "")
        if answered is None or (message is not None and message.campaign in ("confirm", "booking", "notice")):
            continue
        # The mark is committed before the final check begins, so a call marked later was checked later.
        called = record.called.get(mail.batch or "")
        if (called is not None and called > answered) or mail.t > answered + UNDER_WAY:
            verdict.late += 1
            verdict.wrong.append(f"message {mail.message} left in batch {mail.batch}, after its unsubscribe")


def _judge_series(
    verdict: Verdict,
    mails: Sequence[Mail],
    record: Record,
    left: Mapping[str, float | None],
    campaign: str,
    steps: Sequence[str],
    people: Iterable[str],
    may_hold: bool,
) -> None:
    got: dict[str, list[str]] = defaultdict(list)
    for mail in sorted(mails, key=lambda each: each.t):
        message = record.messages.get(mail.message or "")
        if message is not None and message.campaign == campaign and message.step not in got[mail.address]:
            got[mail.address].append(message.step)
    fates: dict[str, dict[str, Message]] = defaultdict(dict)
    for message in record.messages.values():
        if message.campaign == campaign:
            fates[message.address][message.step] = message
    for address in people:
        received, fate = got.get(address_hash(address), []), fates[address]
        if received != [step for step in steps if step in received]:
            verdict.wrong.append(f"somebody got the steps out of order: {received}")
        if address in left:
            continue
        if any(tag in address for tag in HOPELESS):
            if received:
                verdict.wrong.append(f"an address that is always refused got {received}")
            continue
        for step in (step for step in steps if step not in received):
            message = fate.get(step)
            if message is not None and (message.state, message.reason) == ("REJECTED", "poison"):
                verdict.poison += 1
            elif message is not None and message.state == "HELD" and may_hold:
                verdict.held += 1
                break  # whoever is held waits for an operator
            else:
                verdict.lost += 1
                how = f"{message.state} ({message.reason})" if message is not None else "never planned"
                verdict.wrong.append(f"somebody never got {step}: {how}")


def address_hash(address: str) -> str:
    """How the ledger knows an address."""
    return hashlib.sha256(address.encode()).hexdigest()
