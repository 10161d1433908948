"""Leaving: an unsubscribe, a complaint or a dead address takes effect in the transaction that records it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from dripwell.core.address import without_addresses
from dripwell.core.errors import NotFoundError, RefusedError, UnavailableError
from dripwell.storage import clicks, clock, consents, leaves, leaving, spool, subscribers, suppressions, witness
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection, Database
from dripwell.storage.fast import Fast
from dripwell.storage.journal import Journal, Left
from dripwell.storage.leaving import Unwanted

__all__ = ["Unwanted", "suppress", "suppress_addresses"]

UNDO_WITHIN = timedelta(hours=24)
PAGE = "page"
"""`source` of what a person did with a link of ours, on the page or by the mail program's button."""
PROVIDER = "provider"
"""`source` of what the provider's events say: complaints, hard bounces, its own unsubscribes."""
REPLY, STAFF, IMPORT, SYNC, SOFT_BOUNCES = "reply", "staff", "import", "provider-sync", "soft-bounces"
"""The other sources: a mailed "unsubscribe", an operator, a file, the provider's lists, a mailbox that stays shut."""
_LOOK_BACK = 7
"""Days of the ledger that are journaled when nobody knows which rows are: at the first start, and after a restore."""
_STATES = {"unsubscribed": "unsubscribed", "complained": "unsubscribed", "undeliverable": "undeliverable"}


def suppress(
    connection: Connection,
    *,
    subscriber_id: int,
    scope: str,
    reason: str,
    source: str,
    evidence: str,
    times: Times,
) -> int:
    """Stop everything in `scope` for this person, now, in the caller's transaction (SENDING section 9).

    `reason` is unsubscribed, undeliverable or complained; `evidence` says what proves it, without an address. Returns
    the ledger row's number: the standing row's when the same source said the same before, 0 for an erased person (whose
    hash, if it was suppressed, still is). The caller tells `Fast.add` after the commit; the outbox does if it cannot.
    """
    row = leaving.Leaving(subscriber_id, scope, reason, source, evidence, _STATES[reason])
    (seq,) = leaving.suppress(connection, [row], now=times.now)
    if seq is None:
        raise NotFoundError(f"there is no subscriber {subscriber_id}")
    return seq


def suppress_addresses(
    connection: Connection, rows: Sequence[Unwanted], *, source: str, times: Times
) -> list[tuple[bytes, str]]:
    """Stop everything in these scopes for these addresses, whether or not anybody here has them; a few thousand a call.

    What the same source said for the same reason, and still stands, is not written again. People who are known leave
    their series in this transaction, with the same rules as by `suppress`. Call it last in a transaction that locks:
    it takes the enrollments of all these people, by id, then their messages. Returns the members that are new, to tell
    `Fast.add` after the commit. A suppression may be repeated by anybody; it is never a reason to lift another one.
    """
    wanted = list({(row.addr_hash, row.scope, row.reason): row for row in rows}.values())
    people = leaving.people_of(connection, [row.addr_hash for row in wanted])
    leaving.lock_open(connection, list(people.values()))
    fresh = leaving.unsaid(connection, wanted, source)
    known = [row for row in fresh if row.addr_hash in people]
    leaving.suppress(
        connection,
        [
            leaving.Leaving(people[row.addr_hash], row.scope, row.reason, source, row.evidence, _STATES[row.reason])
            for row in known
        ],
        now=times.now,
    )
    leaving.write(connection, [row for row in fresh if row.addr_hash not in people], source)
    return sorted({(row.addr_hash, row.scope) for row in fresh})


def lift_all(
    connection: Connection, *, addr_hash: bytes, reason: str, actor: str, times: Times
) -> list[tuple[bytes, str]]:
    """An operator's word that nothing forbids this address every email any more; marketing stays forbidden.

    Whoever was suppressed for all mail is suppressed for marketing afterwards, and comes back to it only by a fresh
    confirmed opt-in (SENDING section 9). `reason` says why. Returns what was lifted, to tell `Fast.remove` after
    the commit; nothing: nothing stood. Raises RefusedError while a complaint stands.
    """
    if not _may_be_lifted(connection, addr_hash):
        return []
    if not suppressions.since_last_lift(connection, addr_hash, suppressions.MARKETING):
        marketing = Unwanted(addr_hash, suppressions.MARKETING, "unsubscribed", "all was lifted, marketing was not")
        suppress_addresses(connection, [marketing], source=STAFF, times=times)
    suppressions.hold_ledger(connection)
    if not _may_be_lifted(connection, addr_hash):  # again: a complaint may have been written until now
        return []
    suppressions.append(
        connection,
        addr_hash=addr_hash,
        scope=suppressions.ALL,
        action="lift",
        reason="staff",
        source=STAFF,
        evidence=without_addresses(f"{actor}: {reason}")[:500],
    )
    who = leaving.people_of(connection, [addr_hash]).get(addr_hash)
    if who is not None:
        suppressions.mark_subscriber(connection, who, "active")  # a dead mailbox is none any more
        suppressions.mark_subscriber(connection, who, "unsubscribed")
    return [(addr_hash, suppressions.ALL)]


def _may_be_lifted(connection: Connection, addr_hash: bytes) -> bool:
    standing = suppressions.since_last_lift(connection, addr_hash, suppressions.ALL)
    if any(entry.reason == "complained" for entry in standing):
        raise RefusedError(
            "this person reported our mail as spam, and nobody lifts that. Write to them from your own mailbox"
        )
    return bool(standing)


def end(connection: Connection, *, enrollment_ids: Sequence[int], reason: str, times: Times, actor: str) -> int:
    """End these enrollments without suppressing anybody: planned messages are SKIPPED with `reason` (T15).

    Messages a batch already holds are left to that batch. Returns how many enrollments were open and have now ended.
    """
    ended = suppressions.end_enrollments(
        connection, enrollment_ids, state="SKIPPED", reason=reason, now=times.now, actor=actor
    )
    return len(ended.enrollment_ids)


def can_undo(connection: Connection, *, subscriber_id: int, times: Times) -> bool:
    """Whether everything that keeps marketing away from this person is their own press of a button, under 24 hours old.

    A complaint, a dead address, an operator's or a provider's row cannot be undone from a page.
    """
    found = suppressions.address_of(connection, subscriber_id)
    if found is None or found[0] is None or suppressions.since_last_lift(connection, found[0], suppressions.ALL):
        return False
    standing = suppressions.since_last_lift(connection, found[0], suppressions.MARKETING)
    return bool(standing) and all(
        entry.source == PAGE and times.wall_now - entry.at <= UNDO_WITHIN for entry in standing
    )


def undo(connection: Connection, *, subscriber_id: int, wording: str, times: Times) -> bool:
    """Take back an unsubscribe made on the page less than 24 hours ago; False when that is not possible any more.

    It counts as a fresh confirmed opt-in to the topics the person had, in the words of the button. It brings no series
    back. Raises UnavailableError when somebody writes the suppression ledger for long: it can be pressed again.
    """
    if not can_undo(connection, subscriber_id=subscriber_id, times=times):
        return False
    suppressions.hold_ledger(connection)  # no newer word may slip behind what is lifted here
    person = subscribers.lock(connection, subscriber_id)  # whoever presses twice at once takes it back once
    if person is None or person.addr_hash is None:
        return False
    if not can_undo(connection, subscriber_id=subscriber_id, times=times):  # whatever was said until now counts
        return False
    suppressions.append(
        connection,
        addr_hash=person.addr_hash,
        scope=suppressions.MARKETING,
        action="lift",
        reason="undone",
        source=PAGE,
        evidence="",
    )
    topics = consents.given(connection, subscriber_id)
    for topic in topics:
        consents.add(connection, subscriber_id, topic, give=True, source="undo", wording=wording, at=times.now)
    suppressions.mark_subscriber(connection, subscriber_id, "active" if topics else "unconfirmed")
    return True


def replay(database: Database, path: Path, *, in_quarantine: bool = False) -> int:
    """Carry out the unsubscribes that were spooled while PostgreSQL was away, and empty the spool.

    Call it before the first mail after an outage. Returns how many ids it read; doing one twice changes nothing.
    Raises UnavailableError, with the spool untouched, while PostgreSQL is still away. In quarantine the spool waits for
    the journals, which know the messages it names: their replay calls this with `in_quarantine`.
    """
    if not spool.holds_any(path):
        return 0
    if not in_quarantine:
        with database.transaction() as connection:
            if witness.is_quarantined(connection):
                return 0
    with spool.draining(path) as message_ids:
        for message_id in message_ids:
            database.retrying(lambda connection, id=message_id: leave_by_link(connection, id, "spool"))  # type: ignore[misc]
        return len(message_ids)


def leave_by_link(connection: Connection, message_id: int, evidence: str) -> tuple[bytes, str] | None:
    """Unsubscribe the person this message was for. Returns what to tell `Fast.add` after the commit, None if nobody."""
    origin = clicks.origin(connection, message_id)
    if origin is None:
        return None
    suppress(
        connection,
        subscriber_id=origin.subscriber_id,
        scope=suppressions.MARKETING,
        reason="unsubscribed",
        source=PAGE,
        evidence=f"{evidence}, message {message_id}",
        times=clock.read(connection),
    )
    return None if origin.addr_hash is None else (origin.addr_hash, suppressions.MARKETING)


def leave_for_good(
    database: Database, kept: Journal, spool_path: Path, message_id: int, evidence: str
) -> tuple[bytes, str] | None:
    """What a page does before it says "done": the unsubscribe is in the record and in the journal, or in the spool.

    Returns what to tell `Fast.add`; None when it is spooled, or names nobody. Raises OSError or UnavailableError when
    it is not safe against everything a 2xx promises: then the page must not say it is. In quarantine a message that the
    record does not know may be one it has forgotten, so it is spooled until the journals are replayed.
    """

    def work(connection: Connection) -> tuple[tuple[bytes, str] | None, Left | None, bool]:
        member = leave_by_link(connection, message_id, evidence)
        if member is None:
            return None, None, witness.is_quarantined(connection)
        return member, leaves.newest_row(connection, *member), False

    try:
        member, row, forgotten = database.retrying(work)
    except UnavailableError:
        spool.append(spool_path, message_id)
        return None
    if row is not None:
        kept.left([row])
    if forgotten:
        spool.append(spool_path, message_id)
    return member


def again(connection: Connection, left: Left, *, times: Times) -> bool:
    """Put a row of the ledger back that a restored database has lost, with what follows from it.

    False: the ledger knows it, or something newer. Whoever joined after the backup stays suppressed by the address.
    """
    who = leaves.subscriber_of(connection, left.addr_hash)
    ending = suppressions.lock_in_scope(connection, who, left.scope) if who and left.action == "suppress" else []
    if not leaves.append_lost(
        connection,
        addr_hash=left.addr_hash,
        scope=left.scope,
        action=left.action,
        reason=left.reason,
        source=left.source,
        seq=left.seq,
        at=left.at,
    ):
        return False
    if left.action == "suppress":
        suppressions.note_push(connection, left.addr_hash, left.scope)
        state = _STATES.get(left.reason, "unsubscribed")
        suppressions.end_enrollments(
            connection, ending, state="SUPPRESSED", reason=left.reason, now=times.now, actor=left.source
        )
    else:
        state = "active" if who and consents.given(connection, who) else "unconfirmed"
    if who and left.scope in (suppressions.ALL, suppressions.MARKETING):
        suppressions.mark_subscriber(connection, who, state)
    return True


def keep(database: Database, kept: Journal, state_dir: Path) -> int:
    """Journal what the ledger has got since the last time, whoever wrote it: events, imports, operators, pages.

    Run it every few seconds. Returns how many rows were journaled; one twice does no harm. Raises UnavailableError when
    the journal cannot be written; then the next time begins where this one did.
    """
    place = state_dir / "leaves.place"
    known = spool.read_place(place)
    # One moment: the rows that are remembered as journaled must be the rows that were read.
    with database.snapshot() as connection:
        epoch, _ = suppressions.marks(connection)
        horizon = suppressions.horizon(connection)
        if known is not None and known.epoch == epoch:
            rows = leaves.rows_from(connection, known.horizon, known.beyond)
            # A long transaction elsewhere holds the horizon back; what commits meanwhile is not journaled every time.
            reached = spool.LedgerPlace(epoch, horizon, leaves.beyond(connection, horizon))
        else:
            rows = leaves.rows_since(connection, _LOOK_BACK)
            reached = spool.LedgerPlace(epoch, horizon)
    for at in range(0, len(rows), 1000):
        kept.left(rows[at : at + 1000])
    if known != reached:
        try:
            spool.write_place(place, reached)
        except OSError as error:
            raise UnavailableError(f"{place} cannot be written ({error.strerror or error}): make room there") from error
    return len(rows)


def push(connection: Connection, fast: Fast, limit: int = 500) -> int:
    """Tell the fast set what the outbox still holds for it. Returns how many notes are done; 0 while Redis is away."""
    claimed = suppressions.claim_pushes(connection, limit)
    if not claimed:
        return 0
    hashes, scopes = [row[1] for row in claimed], [row[2] for row in claimed]
    still = suppressions.standing(connection, hashes, scopes)  # an undone one must not come back as a hit
    if not fast.add([member for member in zip(hashes, scopes, strict=True) if member in still]):
        return 0
    suppressions.done_pushes(connection, [identity for identity, _, _ in claimed])
    return len(claimed)
