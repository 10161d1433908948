"""Erasing a person: at once no more mail, then the record, then the provider. Each step is a row, so that a crash loses
none of them and a pass does the rest.

begun   the suppression is in the ledger, every series has ended. While a batch still holds a message of theirs, its
        evidence is asked for by the address, so the address waits for that: a day at most.
asking  the record is clean. The address is left in one place, sealed, until the provider has taken the request.
asked   what ran beside it has ended by now and is swept up: then it is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from dripwell.core import seal
from dripwell.core.errors import NotFoundError
from dripwell.core.states import Reason
from dripwell.delivery.provider import Eraser, Erasing
from dripwell.storage import campaigns, clock, erasing, leaves, leaving, outcomes, subscribers, suppressions, wiping
from dripwell.storage.database import Connection, Database
from dripwell.storage.journal import Journal, Left

log = logging.getLogger("dripwell.erase")

SOURCE = "erase"
"""`source` of the ledger row that keeps an erased person from being mailed again."""
POINTS = ("erase_begun", "erase_wiped", "erase_asked", "erase_told", "erase_done")
"""The failpoints, in order: each right after a commit, but `erase_asked`, where the provider has answered unheard."""
AT_ONCE = 100
"""How many a pass takes up of each kind."""
BODIES = 1_000
"""Of what was read or pushed so many rows in one transaction."""
LONGEST_WAIT = 86_400.0
_FIRST_WAIT = 300.0
_FIRST_LOOK, _LONGEST_LOOK = 30.0, 3_600.0
"""Seconds between two looks at a record that cannot be cleaned yet: a call that names the person is under way."""
_ACTOR = "restore"


@dataclass(frozen=True, slots=True)
class Erasure:
    """What `erase` has begun. `complete`: the record is clean; else a call that names the person is under way."""

    id: int
    complete: bool


def _none(name: str) -> None:
    """No failpoint."""


def erase(
    database: Database,
    subscriber_id: int,
    *,
    pepper: bytes,
    actor: str,
    failpoint: Callable[[str], None] = _none,
    kept: Journal | None = None,
    still: Callable[[Connection], bool] | None = None,
) -> Erasure:
    """Erase this person: nobody mails them from here on, and the record is clean as soon as no call is under way.

    In transactions of its own. What is left is done by `carry_on`. Twice is harmless. Raises NotFoundError when there
    is no such subscriber, or when `still`, asked with the person locked, says no. `actor` is noted, the person is not.
    With `kept`, the ledger's row is in this host's journal before anybody is told "done", so that it outlives a
    restore; else the settling pass puts it there in seconds. Raises UnavailableError when the journal cannot be
    written; what was begun goes on all the same.
    """
    erasure_id, row = database.retrying(lambda connection: _begin(connection, subscriber_id, actor, still))
    failpoint("erase_begun")
    if kept is not None and row is not None:
        kept.left([row])
    complete = database.retrying(lambda connection: _wipe(connection, erasure_id, subscriber_id, pepper))
    if complete:
        failpoint("erase_wiped")
    return Erasure(erasure_id, complete)


def carry_on(
    database: Database,
    *,
    eraser: Eraser | None,
    provider: str,
    pepper: bytes,
    out_of_time: Callable[[], bool],
    failpoint: Callable[[str], None] = _none,
) -> int:
    """One pass: whatever an erasure still waits for, as far as it goes now. Returns how many steps were made.

    `eraser` is the provider, if it can be asked to erase; `provider` is its name.
    """
    moved = _again(database, pepper, failpoint)
    for row in _due(database, "begun"):
        if out_of_time():
            return moved
        done = database.retrying(
            lambda connection, row=row: _wipe_or_wait(connection, row, pepper)  # type: ignore[misc]
        )
        if done:
            failpoint("erase_wiped")
            moved += 1
    moved += _ask(database, eraser, provider, pepper, failpoint, out_of_time)
    for row in _due(database, "asked", since=erasing.SWEEP_AFTER):
        if out_of_time():
            return moved
        database.retrying(lambda connection, row=row: _sweep(connection, row))  # type: ignore[misc]
        failpoint("erase_done")
        moved += 1
    while not out_of_time():
        with database.transaction() as connection:
            emptied = erasing.forget_read(connection, BODIES) + erasing.forget_pushed(connection, BODIES)
        moved += emptied
        if emptied < BODIES:
            break
    return moved


def drop(connection: Connection, erasure_id: int, *, actor: str, reason: str) -> None:
    """Stop asking the provider about one person: somebody has done it there by hand, or nothing is there.

    Raises NotFoundError when that erasure asks nobody.
    """
    if not erasing.told(connection, erasure_id, provider="", job_id="", answer="settled by hand"):
        raise NotFoundError(f"erasure {erasure_id} does not wait for a provider: dripwell subscribers erasures")
    detail = {"erasure": erasure_id, "reason": reason}
    campaigns.add_activity(connection, actor=actor, action="erasure settled by hand", about="subscriber", detail=detail)


def _begin(
    connection: Connection, subscriber_id: int, actor: str, still: Callable[[Connection], bool] | None
) -> tuple[int, Left | None]:
    """The number of the erasure, and the ledger's row; none when the record is clean already."""
    if still is not None:
        subscribers.lock(connection, subscriber_id)
        if not still(connection):
            raise NotFoundError(f"why subscriber {subscriber_id} was to be erased does not hold any more")
    known = suppressions.address_of(connection, subscriber_id)
    if known is None:
        raise NotFoundError(f"there is no subscriber {subscriber_id}")
    addr_hash = known[0]
    latest = erasing.latest_of(connection, subscriber_id)
    if addr_hash is None and latest is not None:
        return latest[0], None
    erasure_id = erasing.begin(connection, subscriber_id, actor)
    if erasure_id is None:  # somebody else has begun it
        latest = erasing.latest_of(connection, subscriber_id)
        assert latest is not None
        return latest[0], None if addr_hash is None else leaves.newest_row(
            connection, addr_hash, suppressions.MARKETING
        )
    times = clock.read(connection)
    told = leaving.Leaving(subscriber_id, suppressions.MARKETING, Reason.ERASED, SOURCE, "", "unsubscribed")
    leaving.suppress(connection, [told], now=times.now)
    _end_all(connection, subscriber_id)
    campaigns.add_activity(connection, actor=actor, action="erased", about="subscriber", detail={"erasure": erasure_id})
    row = None if addr_hash is None else leaves.newest_row(connection, addr_hash, suppressions.MARKETING)
    return erasure_id, row


def _end_all(connection: Connection, subscriber_id: int) -> None:
    """Every enrollment ends, of service emails too; who is held waits for nobody's decision any more (T14)."""
    times = clock.read(connection)
    suppressions.end_enrollments(
        connection,
        erasing.open_enrollments(connection, subscriber_id),
        state="SUPPRESSED",
        reason=Reason.ERASED,
        now=times.now,
        actor=SOURCE,
    )
    for message in erasing.held(connection, subscriber_id):
        outcomes.decide_held(connection, message.id, "SKIPPED", Reason.ERASED, times.now)
        outcomes.log(connection, [(message.id, "")], "T14", message.batch_id, SOURCE)


def _wipe(connection: Connection, erasure_id: int, subscriber_id: int, pepper: bytes) -> bool:
    """Take the person out of every table, all at once. False: a call that names them is under way, or it was done."""
    # Enrollments first, as everybody locks; then the person, so that nobody plans another message meanwhile.
    _end_all(connection, subscriber_id)
    person = subscribers.lock_out(connection, subscriber_id)
    latest = erasing.latest_of(connection, subscriber_id)
    if person is None or latest is None or latest[1] != "begun":
        return latest is not None and latest[1] != "begun"
    if erasing.is_under_way(connection, subscriber_id):
        return False
    _end_all(connection, subscriber_id)
    minute = erasing.minute_of(clock.read(connection).now)
    box = seal.sealed(pepper, person.public_id, person.address or "")
    wiping.wipe(connection, subscriber_id, minute=minute, address=person.address, addr_hash=person.addr_hash)
    erasing.forget_quoted(connection)
    erasing.wiped(connection, erasure_id, box)
    return True


def _wipe_or_wait(connection: Connection, row: erasing.Row, pepper: bytes) -> bool:
    done = _wipe(connection, row.id, row.subscriber_id, pepper)
    if not done:
        erasing.put_off(connection, row.id, min(_LONGEST_LOOK, _FIRST_LOOK * 2.0 ** min(row.tries, 20)))
    return done


def _sweep(connection: Connection, row: erasing.Row) -> None:
    _end_all(connection, row.subscriber_id)
    minute = erasing.minute_of(clock.read(connection).now)
    wiping.wipe(connection, row.subscriber_id, minute=minute, address=None, addr_hash=None)
    erasing.forget_quoted(connection)
    erasing.done(connection, row.id)


def _again(database: Database, pepper: bytes, failpoint: Callable[[str], None]) -> int:
    """People whom a restored backup brought back: the ledger, which outlived it, says that they are erased."""
    with database.transaction() as connection:
        found = erasing.came_back(connection, AT_ONCE)
    for subscriber_id in found:
        erase(database, subscriber_id, pepper=pepper, actor=_ACTOR, failpoint=failpoint)
    return len(found)


def _due(database: Database, state: str, *, since: float = 0.0, limit: int = AT_ONCE) -> list[erasing.Row]:
    with database.transaction() as connection:
        return erasing.due(connection, state, limit=limit, since=since)


def _ask(
    database: Database,
    eraser: Eraser | None,
    provider: str,
    pepper: bytes,
    failpoint: Callable[[str], None],
    out_of_time: Callable[[], bool],
) -> int:
    """Tell the provider, many people in one call; the answer is recorded in one transaction."""
    rows = _due(database, "asking")
    if not rows:
        return 0
    if eraser is None:
        answer = f"{provider} has no such request: ask whoever runs it to remove their logs"
        return _record(database, rows, provider, Erasing(accepted=True, reason=answer), failpoint)
    readable: dict[int, str] = {}
    for row in rows:
        try:
            readable[row.id] = seal.opened(pepper, row.public_id, row.sealed or b"")
        except ValueError as error:
            _record(database, [row], provider, Erasing(accepted=False, reason=str(error)), failpoint)
    groups = _groups([row for row in rows if row.id in readable], eraser.most_erasures)
    moved = 0
    for group in groups:
        if out_of_time():
            break
        moved += _ask_about(database, eraser, provider, group, readable, failpoint)
    return moved


def _ask_about(
    database: Database,
    eraser: Eraser,
    provider: str,
    group: Sequence[erasing.Row],
    addresses: Mapping[int, str],
    failpoint: Callable[[str], None],
) -> int:
    answer = eraser.erase([addresses[row.id] for row in group])
    failpoint("erase_asked")
    if answer.at_fault and len(group) > 1:  # an address in it is refused, and with it the whole call: each for itself
        return sum(_ask_about(database, eraser, provider, [row], addresses, failpoint) for row in group)
    return _record(database, group, provider, answer, failpoint)


def _record(
    database: Database, rows: Sequence[erasing.Row], provider: str, answer: Erasing, failpoint: Callable[[str], None]
) -> int:
    def work(connection: Connection) -> int:
        if answer.accepted:
            return sum(
                erasing.told(connection, row.id, provider=provider, job_id=answer.job_id, answer=answer.reason)
                for row in rows
            )
        for row in rows:
            wait = min(LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(row.tries, 20))
            if answer.retry_after is not None:
                wait = max(wait, answer.retry_after.total_seconds())
            erasing.not_told(connection, row.id, provider=provider, answer=answer.reason, seconds=wait)
        return 0

    moved = database.retrying(work)
    if answer.accepted:
        failpoint("erase_told")
    else:
        log.error("the provider did not erase yet: %s. See: dripwell subscribers erasures", answer.reason)
    return moved


def _groups(rows: Sequence[erasing.Row], size: int) -> list[list[erasing.Row]]:
    rest = iter(rows)
    return list(iter(lambda: list(islice(rest, size)), []))
