"""Replay: what a database that came back from a backup has forgotten is told to it again, out of the journals.

Only in quarantine, while nobody is called. Lines are read in the order they were written, so history happens again: a
call makes a batch UNKNOWN that holds its messages, an answer resolves it, and what has no answer is left to evidence
(`settle`). Everything is a compare-and-set on what is there, so replaying twice, or after a crash, changes nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from dripwell.core.campaign import MARKETING_LANES
from dripwell.core.errors import RefusedError
from dripwell.core.keys import message_id
from dripwell.core.states import Reason
from dripwell.services import ingest, leave, resolve
from dripwell.storage import (
    batches,
    campaigns,
    clock,
    enrollments,
    journal,
    leaves,
    messages,
    outcomes,
    restoring,
    witness,
)
from dripwell.storage.database import Connection, Database
from dripwell.storage.journal import Answer, Broken, Call, Left, Person
from dripwell.storage.restoring import LostCampaign, Place

log = logging.getLogger("dripwell.restore")
T = TypeVar("T")

ACTOR = "journal"
_PIECE = 200
_LEDGER_PIECE = 20_000
_LEAVES_PIECE = 5_000


@dataclass(frozen=True, slots=True)
class Numbers:
    """How far journals had come: their latest epoch, and the greatest number of each table that stands in them."""

    epoch: int
    highest: dict[str, int]


@dataclass
class Replayed:
    """What a replay found and did. People are counted per email."""

    calls: int = 0
    """Calls in the journals."""
    lost_calls: int = 0
    """Those that the database did not know."""
    emails: int = 0
    """Their emails that are in the record again."""
    accepted: int = 0
    """Of these, the ones whose acceptance the journal knows."""
    strangers: int = 0
    """Emails to people who joined after the backup: they are gone from the record."""
    lost_campaigns: Counter[str] = field(default_factory=Counter)
    """Emails of campaigns that were stored after the backup, by their name."""
    leaves: int = 0
    """Rows of the suppression ledger that were lost and are back."""
    spooled: int = 0
    broken: list[Broken] = field(default_factory=list)


def replay(database: Database, folders: Sequence[Path], spool_path: Path, *, actor: str) -> Replayed:
    """Put back what the journals in these folders know and the database does not.

    Raises RefusedError out of quarantine. Ends with `installation.replayed_at` set: then a quarantine may be lifted.
    """
    with database.transaction() as connection:
        if not witness.is_quarantined(connection):
            raise RefusedError("the record is not in quarantine, so there is nothing to replay")
    renew(database)
    done = Replayed()
    _make_room(database, folders, done)
    new_numbers: dict[tuple[int, UUID], int] = {}
    for folder in folders:
        lines = journal.read_calls(folder, lambda broken: None)  # `_make_room` has reported what cannot be read
        for piece in _pieces(lines, _PIECE):
            _replay_piece(database, piece, new_numbers, done)
    for folder in folders:
        for left in journal.read_leaves(folder, done.broken.append):
            done.leaves += database.retrying(lambda connection, left=left: _replay_left(connection, left))  # type: ignore[misc]
    done.spooled = leave.replay(database, spool_path, in_quarantine=True)
    with database.transaction() as connection:
        witness.replayed(connection)
        detail = {"lost_calls": done.lost_calls, "emails": done.emails, "leaves": done.leaves}
        campaigns.add_activity(connection, actor=actor, action="replayed", about="installation", detail=detail)
        campaigns.ring(connection, "settle")
    for broken in done.broken:
        log.error("%s, line %d cannot be read (%s); it is passed over", broken.path, broken.line, broken.why)
    return done


def lost_calls(database: Database, folders: Sequence[Path]) -> Replayed:
    """Count the journaled calls the database does not know, and their emails. Changes nothing."""
    done = Replayed()
    for folder in folders:
        calls = (line for line in journal.read_calls(folder, done.broken.append) if isinstance(line, Call))
        for piece in _pieces(calls, _PIECE):
            with database.transaction() as connection:
                known = restoring.known(connection, [call.batch for call in piece])
            for call in piece:
                done.calls += 1
                row = known.get(call.batch)
                if row is None or row.nonce != call.nonce or row.lapsed or row.state == "OPEN":
                    done.lost_calls += 1
                    done.emails += len(call.people)
    return done


def renew(database: Database) -> None:
    """Make transaction ids this cluster's own again, if the record was loaded from another one's dump.

    Every stored xid would else lie in the future, or in a past that never was. In pieces, so that no transaction is
    long; a crash in between is repaired by the next run.
    """
    with database.transaction() as connection:
        record = witness.read(connection)
    if record.system is not None and record.system == record.known_system:
        return
    after: int | None = 0
    while after is not None:
        after = database.retrying(partial(restoring.renew_ledger, after=after, limit=_LEDGER_PIECE))
    with database.transaction() as connection:
        restoring.clear_snapshots(connection)
        witness.know_system(connection, record.system)


def _make_room(database: Database, folders: Sequence[Path], done: Replayed) -> None:
    """No new row may get a number that an email, a link or the provider knows as somebody else's."""
    found = [count(folder, done.broken.append) for folder in folders]
    epoch = max((one.epoch for one in found), default=0)
    beyond = {table: max((one.highest[table] for one in found), default=0) for table in witness.TABLES}
    with database.transaction() as connection:
        witness.lock(connection)
        witness.advance(connection, {table: number for table, number in beyond.items() if number})
        if epoch >= witness.read(connection).epoch:
            witness.begin_epoch(connection, epoch + 1)


def count(folder: Path, broken: Callable[[Broken], None] | None = None) -> Numbers:
    """The epoch and the numbers that stand in a journal, of which it reads all.

    Calls that cannot be read go to `broken`, or else into the log.
    """
    epoch, highest = 0, dict.fromkeys(witness.TABLES, 0)
    for line in journal.read_calls(folder, broken):
        if isinstance(line, Call):
            epoch = max(epoch, line.epoch)
            highest["batch"] = max(highest["batch"], line.batch)
            highest["message"] = max(highest["message"], *(person.message_id for person in line.people), 0)
            highest["subscriber"] = max(highest["subscriber"], *(person.subscriber_id for person in line.people), 0)
    for left in journal.read_leaves(folder, lambda line: None):
        highest["suppression"] = max(highest["suppression"], left.seq)
    return Numbers(epoch, highest)


def put_back_leaves(connection: Connection, folder: Path) -> int:
    """Append the journal's rows to the ledger of a record without people; returns how many.

    An address hash depends on the pepper alone, so whoever left stays away when they join again. Call it after
    `witness.advance`, and in the transaction that begins an epoch: the fast set is built anew from the ledger then.
    """
    rows = journal.read_leaves(folder)
    return sum(leaves.append_all(connection, piece) for piece in _pieces(rows, _LEAVES_PIECE))


def _replay_piece(
    database: Database, piece: Sequence[Call | Answer], new_numbers: dict[tuple[int, UUID], int], done: Replayed
) -> None:
    with database.transaction() as connection:
        known = restoring.known(connection, sorted({line.batch for line in piece}))
    mine = {(row.id, row.nonce): row for row in known.values()}
    revived: set[tuple[int, UUID]] = set()
    for line in piece:
        key = (line.batch, line.nonce)
        row = mine.get(key)
        if isinstance(line, Call):
            done.calls += 1
            if row is not None and row.state == "DONE" and not row.lapsed:
                continue  # the database knows how it ended
            was_there = key in new_numbers or (row is not None and row.state in ("CALLING", "UNKNOWN"))
            number, part = database.retrying(
                lambda connection, line=line, key=key: _replay_call(connection, line, new_numbers.get(key))  # type: ignore[misc]
            )
            done.emails += part.emails
            done.strangers += part.strangers
            done.lost_campaigns += part.lost_campaigns
            if number is not None:
                revived.add(key)
                new_numbers[key] = number
                done.lost_calls += not was_there
        elif key in revived or key in new_numbers or row is not None:
            number = new_numbers.get(key, line.batch)
            done.accepted += database.retrying(
                lambda connection, line=line, number=number: _replay_answer(connection, line, number)  # type: ignore[misc]
            )


def _replay_call(connection: Connection, call: Call, number: int | None) -> tuple[int | None, Replayed]:
    """One call is UNKNOWN again, and holds its messages. None: nothing of it can be put back."""
    part = Replayed()
    campaign = restoring.campaign(connection, call.campaign, call.version_id)
    if campaign is None:
        part.lost_campaigns[call.campaign_name] += len(call.people)
        return None, part
    row = restoring.known(connection, [call.batch]).get(call.batch)
    if row is not None and row.nonce == call.nonce:
        number = call.batch
        batches.lock(connection, number, ("OPEN", "CALLING", "UNKNOWN", "DONE"))
        restoring.revive_batch(connection, number, call.at)
    elif number is None:
        number = restoring.add_batch(
            connection,
            batch_id=call.batch if row is None else None,  # another timeline gave the number away
            provider=call.provider,
            lane=call.lane,
            campaign_id=campaign.id,
            step_key=call.step_key,
            version_id=campaign.version_id,
            nonce=call.nonce,
            host=call.host,
            at=call.at,
        )
    _gather(connection, call, number, campaign, part)
    return number, part


def _gather(connection: Connection, call: Call, number: int, campaign: LostCampaign, done: Replayed) -> None:
    """Put the messages of a call into its batch: as they are, or made anew from what the line says (T1, T2)."""
    at = call.at + clock.offset(connection)
    here, strangers = _those_who_are_here(connection, call, campaign.id)
    done.strangers += strangers
    enrollments.lock(connection, [place.enrollment_id for _, place in here if place.enrollment_id is not None])
    here, _ = _those_who_are_here(connection, call, campaign.id)  # again, now that nobody can move them
    coming = [(person, place) for person, place in here if place.state not in ("PLANNED", "IN_BATCH")]
    _give_way(connection, call, campaign.id, [place for _, place in coming if place.state in (None, "HELD")], at)
    ids: list[int] = []
    mailing: list[int] = []
    for person, place in here:
        if place.state == "ACCEPTED":
            continue
        enrollment_id = place.enrollment_id
        if enrollment_id is None:
            enrollment_id = restoring.add_enrollment(
                connection,
                subscriber_id=place.subscriber_id,
                campaign_id=campaign.id,
                round=person.round,
                version_id=campaign.version_id,
                at=at,
            )
        if place.message_id is None:
            ids.append(
                restoring.add_message(
                    connection,
                    message_id=person.message_id,
                    public_id=person.public_id,
                    enrollment_id=enrollment_id,
                    subscriber_id=place.subscriber_id,
                    campaign_id=campaign.id,
                    step_key=call.step_key,
                    lane=call.lane,
                    batch_id=number,
                    addr_hash=place.addr_hash,
                    at=at,
                )
            )
            done.emails += 1
        else:
            ids.append(place.message_id)
            done.emails += place.batch_id != number
        if place.state in (None, "PLANNED", "IN_BATCH", "HELD"):
            mailing.append(enrollment_id)
    _take_over(connection, number, here)
    restoring.take(connection, number, ids)
    restoring.fill(connection, number, ids)
    enrollments.to_mailing(connection, mailing)


def _take_over(connection: Connection, number: int, here: Sequence[tuple[Person, Place]]) -> None:
    """Whoever was called for again had been given back by the call before, or released from it by an operator."""
    earlier: dict[int, list[Place]] = {}
    for _, place in here:
        other = place.batch_id
        if place.state in ("IN_BATCH", "HELD") and other is not None and other != number:
            earlier.setdefault(other, []).append(place)
    for other, places in sorted(earlier.items()):
        held = [(place.message_id, "called again") for place in places if place.state == "HELD" and place.message_id]
        outcomes.log(connection, held, "T14", other, ACTOR)
        moved = [place.message_id for place in places if place.state == "IN_BATCH" and place.message_id]
        if moved:
            restoring.narrow(connection, other, moved)


def _give_way(connection: Connection, call: Call, campaign_id: int, places: Sequence[Place], at: datetime) -> None:
    """An email that was called for shows that every earlier one of the person had ended, although nobody knows how."""
    if not places:
        return
    rows = restoring.in_the_way(
        connection,
        subscriber_ids=[place.subscriber_id for place in places],
        enrollment_ids=[place.enrollment_id for place in places if place.enrollment_id is not None],
        campaign_id=campaign_id,
        step_key=call.step_key,
        marketing=call.lane in MARKETING_LANES,
    )
    if not rows:
        return
    restoring.skip(connection, [row.id for row in rows], Reason.RESTORED)
    outcomes.log(connection, [(row.id, Reason.RESTORED) for row in rows], "T15", None, ACTOR)
    enrollments.move_on(connection, [(row.enrollment_id, row.step_key) for row in rows], at)


def _those_who_are_here(connection: Connection, call: Call, campaign_id: int) -> tuple[list[tuple[Person, Place]], int]:
    """Everybody of this call who is in the record, in the payload's order, and how many are not."""
    found = restoring.places(
        connection,
        [person.subscriber_id for person in call.people],
        [person.round for person in call.people],
        campaign_id,
        call.step_key,
    )
    here = [
        (person, place)
        for number, person in enumerate(call.people)
        if (place := found.get(number)) is not None
        # A number says nothing: after a restore it may be somebody else's. Only this person's own id makes this key.
        and message_id(call.campaign, place.public_id, call.step_key, person.round) == person.public_id
    ]
    return here, len(call.people) - len(here)


def _replay_answer(connection: Connection, answer: Answer, number: int) -> int:
    """What the journal knows about the end of a call. Returns how many emails it shows as accepted."""
    if answer.left_out:
        _leave_out(connection, answer, number)
    if answer.outcome == "accepted":
        return _accept(connection, answer, number)
    if answer.outcome in ("not_sent", "refused", "void") and batches.lock(connection, number, ("UNKNOWN",)):
        enrollments.lock(connection, messages.enrollments_in(connection, number))
        ids = outcomes.back_to_planned(connection, number, retry_after_seconds=0.0, lapsed=False, attempted=False)
        outcomes.log(connection, [(identity, ACTOR) for identity in ids], "T7", number, ACTOR)
        resolve.end_those_who_left(connection, ids, ACTOR)
        batches.done(connection, number, "not_sent", detail=f"journal: {answer.outcome}")
    return 0


def _leave_out(connection: Connection, answer: Answer, number: int) -> None:
    """T7 for those whom the line before the call named, and the final check then took out of the payload."""
    if not batches.lock(connection, number, ("CALLING", "UNKNOWN")) and _closed_otherwise(connection, number) is None:
        return
    absent = restoring.left_out(connection, number, answer.left_out)
    enrollments.lock(connection, messages.enrollments_in(connection, number))
    ids = outcomes.back_to_planned(
        connection, number, retry_after_seconds=0.0, lapsed=False, attempted=False, only=absent
    )
    restoring.narrow(connection, number, absent)
    outcomes.log(connection, [(identity, ACTOR) for identity in ids], "T7", number, ACTOR)
    resolve.end_those_who_left(connection, ids, ACTOR)


def _accept(connection: Connection, answer: Answer, number: int) -> int:
    now = answer.at + clock.offset(connection)
    if batches.lock(connection, number, ("CALLING", "UNKNOWN")):
        enrollments.lock(connection, messages.enrollments_in(connection, number))
        rows = outcomes.accept(connection, number, now)
        enrollments.move_on(connection, [(row.enrollment_id, row.step_key) for row in rows], now)
        outcomes.log(connection, [(row.id, ACTOR) for row in rows], "T10", number, ACTOR)
        batches.done(connection, number, "accepted", detail=ACTOR, accepted_at=now)
        return len(rows)
    people = _closed_otherwise(connection, number)
    if people is None:
        return 0
    # Evidence was asked while the quarantine stood, and judged wrongly: the journal has the provider's own answer.
    ingest.late(connection, number, replace(clock.read(connection), now=now))
    return people


def _closed_otherwise(connection: Connection, number: int) -> int | None:
    """How many of a batch that was closed are not accepted; None: it is open, or was closed as accepted. Locks it."""
    return restoring.to_accept(connection, number) if batches.lock(connection, number, ("DONE",)) else None


def _replay_left(connection: Connection, left: Left) -> bool:
    """One row of the suppression ledger, with everything that followed from it."""
    return leave.again(connection, left, times=clock.read(connection))


def _pieces(lines: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(lines)
    while piece := list(islice(left, size)):
        yield piece
