"""The provider's suppression lists and ours: what we decided is pushed, what it lists is pulled and compared.

Our ledger is the authority (rules 1.19). A pull only ever adds to it; an entry that is older than a fresh opt-in is
taken off the provider's list and not into the ledger. SendGrid's global unsubscribe stops every email, as our scope
`all` does, so that is what is pushed: `marketing` there would swallow a booked call's reminder and the confirmation of
whoever comes back, and we have the last word before each call anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dripwell.delivery.lists import LISTS, Later, Listed, ListName, NotTaken, Page, ProviderLists
from dripwell.services import leave
from dripwell.services.leave import Unwanted
from dripwell.storage import clock, provider_lists, provider_looks, suppressions
from dripwell.storage.database import Connection, Database
from dripwell.storage.fast import Fast
from dripwell.storage.provider_lists import Note
from dripwell.storage.provider_looks import Compared, Look

log = logging.getLogger("dripwell.sync")

HashOf = Callable[[str], bytes]
"""From an address to what the ledger knows it by. Raises ValueError for what is no address."""

SLICE = 5_000
"""Notes that are marked or dropped in one transaction."""
NOTES = 200
"""Notes that are taken at once."""
PAGES = 40
"""Pages that one pass reads: 20,000 entries. The next pass goes on where this one stopped."""
MOST_ROWS = 5_000_000
"""No list is read further than this: a provider whose list has no end would be read for ever."""
_FIRST_WAIT, _LONGEST_WAIT = 30.0, 3600.0
_ACCOUNT_WAIT = 3600.0
"""A key that is refused is tried once an hour: asking in a loop earns a block of the account (rules 1.11)."""
_SAME_PAGE_WAIT = 3600.0
_ALL, _MARKETING = suppressions.ALL, suppressions.MARKETING

MEANS: Mapping[ListName, tuple[str, str]] = {
    "bounces": (_ALL, "undeliverable"),
    "invalid_emails": (_ALL, "undeliverable"),
    "spam_reports": (_ALL, "complained"),
    "unsubscribes": (_MARKETING, "unsubscribed"),
}
"""What an entry of each list means here: scope and reason. As in `ingest`, an unsubscribe is about marketing."""


@dataclass(slots=True)
class Moved:
    """What a pass did. `pushed` and `removed` at the provider, `added` to the ledger; `pages` read."""

    pushed: int = 0
    removed: int = 0
    added: int = 0
    pages: int = 0
    said: str = ""

    @property
    def anything(self) -> int:
        """How much that was, for whoever wants to know whether the pass moved something."""
        return self.pushed + self.removed + self.added + self.pages


def sync(
    database: Database,
    lists: ProviderLists | None,
    fast: Fast,
    *,
    hash_of: HashOf,
    out_of_time: Callable[[], bool],
    pages: int = PAGES,
) -> Moved:
    """Tell the provider what it must know, then read `pages` of its lists, until nothing is due or time is up.

    `lists` None: the provider has none (SMTP), so what waits for it is done. Nothing here repeats a request: what did
    not go through waits in its row, and the provider is left alone for a while.
    """
    moved = Moved()
    if lists is None:
        _by_slices(
            database, lambda connection: provider_lists.done_some(connection, "the provider has no lists", SLICE),
            out_of_time,
        )  # fmt: skip
        return moved
    _by_slices(database, lambda connection: provider_lists.forget_done(connection, SLICE), out_of_time)
    with database.transaction() as connection:
        quiet = provider_lists.quiet(connection)
    moved.said = quiet.reason
    if quiet.is_on:
        return moved
    while not out_of_time() and _push(database, lists, moved, out_of_time):
        continue
    while not out_of_time() and not moved.said and moved.pages < pages and _pull(database, lists, fast, hash_of, moved):
        continue
    return moved


def _by_slices(database: Database, work: Callable[[Connection], int], out_of_time: Callable[[], bool]) -> None:
    """Do this in transactions of `SLICE` rows, until there is none or time is up: an import may leave a million."""
    while not out_of_time() and database.retrying(work) == SLICE:
        continue


# ---- pushing


def _push(database: Database, lists: ProviderLists, moved: Moved, out_of_time: Callable[[], bool]) -> bool:
    """Act on some notes. False: none is due, time is up, or the provider wants to be left alone."""
    with database.transaction() as connection:
        notes = provider_lists.claim(connection, NOTES)
    if not notes:
        return False
    tell: list[Note] = []
    for position, note in enumerate(notes):
        if note.address is None:
            _finish(database, note, "nobody here has this address")
        elif note.all_stands:
            if note.listed:
                _finish(database, note, "listed there")
            else:
                tell.append(note)
        elif out_of_time() or not _take_back(database, lists, note, moved):
            _put_off(database, [*tell, *notes[position:]])
            return False
    left = _tell(database, lists, tell, moved)
    _put_off(database, left)
    return not left


def _tell(database: Database, lists: ProviderLists, notes: Sequence[Note], moved: Moved) -> Sequence[Note]:
    """One POST for these; when one of them is refused, each half alone. Returns those that must wait."""
    if not notes:
        return []
    answer = lists.add([note.address for note in notes if note.address is not None])
    if isinstance(answer, Later):
        _hush(database, answer, moved)
        return notes
    if isinstance(answer, NotTaken):
        if len(notes) == 1:
            log.error("the provider does not take an address onto its list: %s", answer.reason)
            _finish(database, notes[0], answer.reason)
            return []
        half = len(notes) // 2
        left = _tell(database, lists, notes[:half], moved)
        return [*left, *notes[half:]] if left else _tell(database, lists, notes[half:], moved)
    with database.transaction() as connection:
        provider_lists.heard(connection)
        provider_lists.mark_pushed(connection, [note.addr_hash for note in notes])
        provider_lists.done(connection, [one for note in notes for one in note.ids], "put on the list")
        # Who was lifted while the request was under way is looked at again: the lift's own note may be done already.
        provider_lists.note(connection, _no_more(connection, notes))
    moved.pushed += len(notes)
    return []


def _no_more(connection: Connection, notes: Sequence[Note]) -> list[bytes]:
    hashes = [note.addr_hash for note in notes]
    standing = {addr_hash for addr_hash, _ in suppressions.standing(connection, hashes, [_ALL])}
    return [one for one in hashes if one not in standing]


def taken_back(note: Note) -> list[ListName]:
    """The lists this address must leave, now that it may be mailed again; none while it may not.

    A lift of `all` is an operator's word about a mailbox that works again; a lift of marketing, or a person who asks
    for a confirmation, is about the unsubscribe alone. Nobody lifts a complaint, so no spam report is ever taken back.
    """
    if note.all_stands or note.address is None:
        return []
    if note.all_lifted:
        return ["unsubscribes", "bounces", "invalid_emails"]
    if note.asked or note.marketing_lifted:
        return ["unsubscribes"]
    return []


def _take_back(database: Database, lists: ProviderLists, note: Note, moved: Moved) -> bool:
    """Take one address off the lists it must leave. False: the provider would not hear us now."""
    assert note.address is not None
    leaves = taken_back(note)
    for name in leaves:
        answer = lists.remove(name, note.address)
        if isinstance(answer, Later):
            _hush(database, answer, moved)
            return False
        if isinstance(answer, NotTaken):
            log.error("the provider does not take an address off its list %s: %s", name, answer.reason)
            _finish(database, note, answer.reason)
            return True
        with database.transaction() as connection:
            provider_lists.heard(connection)
            provider_lists.mark_removed(connection, name, note.addr_hash)
            # Who was suppressed again while the request was under way belongs back on the list.
            if suppressions.standing(connection, [note.addr_hash], [_ALL]):
                provider_lists.note(connection, [note.addr_hash])
        moved.removed += 1
    _finish(database, note, "taken off the lists" if leaves else "nothing to do")
    return True


def _finish(database: Database, note: Note, result: str) -> None:
    with database.transaction() as connection:
        provider_lists.done(connection, note.ids, result[:300])


def _put_off(database: Database, notes: Sequence[Note]) -> None:
    if notes:
        with database.transaction() as connection:
            provider_lists.again(connection, [one for note in notes for one in note.ids], 0.0)


def _hush(database: Database, answer: Later, moved: Moved) -> None:
    """Leave the provider alone, longer each time; the reason and the time are a row."""
    with database.transaction() as connection:
        failures = provider_lists.quiet(connection).failures
        usual = _ACCOUNT_WAIT if answer.account else min(_FIRST_WAIT * 2.0 ** min(failures, 10), _LONGEST_WAIT)
        wait = usual if answer.after is None else min(max(answer.after.total_seconds(), 1.0), _LONGEST_WAIT)
        provider_lists.hush(connection, answer.reason, wait)
    moved.said = answer.reason
    said = log.error if answer.account else log.warning
    said("the provider's lists cannot be reached, asking again in %.0f s: %s", wait, answer.reason)


# ---- pulling


def _pull(database: Database, lists: ProviderLists, fast: Fast, hash_of: HashOf, moved: Moved) -> bool:
    """Read one page. False: no list is due, or the provider wants to be left alone."""
    with database.transaction() as connection:
        look = provider_looks.claim(connection)
    if look is None:
        return False
    name: ListName = look.name  # type: ignore[assignment]  # a CHECK of the table
    page = lists.page(name, since=look.since, offset=look.offset)
    if isinstance(page, Later):
        with database.transaction() as connection:
            provider_looks.let_go(connection, look)
        _hush(database, page, moved)
        return False
    if page.rows and page.digest == look.page_sha256:
        # An offset that is ignored would be followed for ever.
        return _give_up(database, look, moved, f"the provider shows the same page of its list {name} again")
    if look.offset + page.rows > MOST_ROWS:
        return _give_up(database, look, moved, f"the provider's list {name} has no end")
    added = database.retrying(lambda connection: _take_in(connection, look, name, page, hash_of))
    fast.add(added)
    moved.added += len(added)
    moved.pages += 1
    return True


def _give_up(database: Database, look: Look, moved: Moved, why: str) -> bool:
    """This look leads nowhere. What was read of it so far holds; another one begins in an hour."""
    log.error("%s: reading it is given up for an hour", why)
    with database.transaction() as connection:
        provider_looks.give_up(connection, look, _SAME_PAGE_WAIT)
    moved.pages += 1
    return True


def _take_in(
    connection: Connection, look: Look, name: ListName, page: Page, hash_of: HashOf
) -> list[tuple[bytes, str]]:
    """Everything that follows from one page, in one transaction; once, however many read it."""
    provider_lists.heard(connection)
    found, unreadable = hashed(page.entries, hash_of)
    turned = provider_looks.turn(
        connection,
        look,
        rows=page.rows,
        entries=len(page.entries),
        unreadable=page.unreadable + unreadable,
        page_sha256=page.digest,
    )
    if not turned:
        return []
    compared = compare(connection, name, found)
    provider_looks.keep(connection, look, {addr_hash: one.at for addr_hash, one in found.items()})
    scope, reason = MEANS[name]
    rows = [Unwanted(one, scope, reason, _evidence(name, found[one])) for one in compared.new]
    added = leave.suppress_addresses(connection, rows, source=leave.SYNC, times=clock.read(connection))
    lifted = provider_lists.note(connection, compared.lifted)
    provider_looks.counted(connection, look, added=len(added), lifted=lifted)
    if page.is_last and provider_looks.finish(connection, look):
        provider_lists.note(connection, provider_looks.missing(connection))
    return added


def hashed(entries: Sequence[Listed], hash_of: HashOf) -> tuple[dict[bytes, Listed], int]:
    """The entries by the hash of their address, the newest of each, and how many have none."""
    found: dict[bytes, Listed] = {}
    unreadable = 0
    for entry in entries:
        try:
            addr_hash = hash_of(entry.address)
        except ValueError:  # UnicodeError among them; the list of invalid addresses is full of such
            unreadable += 1
            continue
        known = found.get(addr_hash)
        if known is None or _age(known.at) < _age(entry.at):
            found[addr_hash] = entry
    return found, unreadable


def _age(at: datetime | None) -> float:
    return float("inf") if at is None else at.timestamp()  # without a time it counts as new


def compare(connection: Connection, name: ListName, found: Mapping[bytes, Listed]) -> Compared:
    """What of these entries differs from the ledger."""
    scopes = {_ALL, MEANS[name][0]}
    return provider_looks.compare(
        connection, name, {addr_hash: one.at for addr_hash, one in found.items()}, sorted(scopes)
    )


def _evidence(name: ListName, entry: Listed) -> str:
    since = "" if entry.at is None else f" since {entry.at:%Y-%m-%d %H:%M} UTC"
    status = f", status {entry.status}" if entry.status else ""
    return f"on the provider's list {name}{since}{status}"


# ---- looking


@dataclass(slots=True)
class Differences:
    """One list compared with the ledger, without changing either. `entries` is what the provider has."""

    name: ListName
    entries: int = 0
    unreadable: int = 0
    new: int = 0  # listed there, not suppressed here
    lifted: int = 0  # listed there, lifted here
    seen: set[bytes] = field(default_factory=set, repr=False)


def dry_run(
    database: Database, lists: ProviderLists, *, hash_of: HashOf, out_of_time: Callable[[], bool]
) -> tuple[list[Differences], int | None, str]:
    """Read every list to its end and say what a sync would do. Writes nothing.

    Returns also how many people we suppress for all mail are on none of the lists, or else why it stopped early.
    """
    result: list[Differences] = []
    for name in LISTS:
        one = Differences(name)
        result.append(one)
        offset, digest = 0, b""
        while True:
            if out_of_time():
                return result, None, "time is up before every page was read"
            page = lists.page(name, since=None, offset=offset)
            if isinstance(page, Later):
                return result, None, page.reason
            if page.rows and page.digest == digest:
                return result, None, f"the provider shows the same page of {name} again"
            found, unreadable = hashed(page.entries, hash_of)
            with database.snapshot() as connection:
                compared = compare(connection, name, found)
            one.entries += len(page.entries)
            one.unreadable += page.unreadable + unreadable
            one.new += len(set(compared.new) - one.seen)
            one.lifted += len(set(compared.lifted) - one.seen)
            one.seen |= found.keys()
            if page.is_last:
                break
            offset, digest = offset + page.rows, page.digest
    listed: set[bytes] = set().union(*(one.seen for one in result))
    with database.snapshot() as connection:
        unlisted = sum(addr_hash not in listed for addr_hash in provider_looks.for_all(connection))
    return result, unlisted, ""


def begin(connection: Connection, *, unless_within: timedelta = timedelta(minutes=5)) -> None:
    """Let every list be looked at at once: at the start, after a silence of the webhook, or when somebody asks."""
    provider_looks.due_now(connection, unless_within=unless_within)
