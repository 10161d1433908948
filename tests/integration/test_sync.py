"""The provider's lists and ours: pushed, pulled, compared; nothing that the provider says ever lifts anything."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from dripwell.core.address import address_hash
from dripwell.core.errors import RefusedError
from dripwell.delivery.lists import PAGE, Done, Later, Listed, ListName, NotTaken, Page
from dripwell.services import leave, sync
from dripwell.storage import clock, provider_lists, provider_looks, suppressions
from dripwell.storage.database import Database
from dripwell.storage.fast import Fast
from tests.integration import rows


class KilledError(Exception):
    """The process ends here, with nothing that it could still do."""


@dataclass
class ScriptedLists:
    """The provider's lists in memory; `answer`, when set, is what every request gets."""

    found: dict[str, list[Listed]] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    removed: list[tuple[str, str]] = field(default_factory=list)
    answer: Later | None = None
    asked: int = 0
    offsets: list[tuple[str, int]] = field(default_factory=list)
    dies_at: int | None = None  # the offset at whose reading the process is killed

    def page(self, name: ListName, *, since: datetime | None, offset: int) -> Page | Later:
        self.asked += 1
        self.offsets.append((name, offset))
        if self.dies_at is not None and offset >= self.dies_at:
            raise KilledError
        found = [one for one in self.found.get(name, []) if since is None or one.at is None or one.at >= since]
        piece = found[offset : offset + PAGE]
        return self.answer or Page(piece, len(piece), 0, f"{name}{offset}".encode())

    def add(self, addresses: Sequence[str]) -> Done | Later | NotTaken:
        self.asked += 1
        if self.answer is None:
            self.added += addresses
            self.found.setdefault("unsubscribes", []).extend(Listed(one, None) for one in addresses)
        return self.answer or Done()

    def remove(self, name: ListName, address: str) -> Done | Later | NotTaken:
        self.asked += 1
        self.removed += [] if self.answer else [(name, address)]
        return self.answer or Done()

    def close(self) -> None:
        """Nothing to drop."""


def of(address: str) -> bytes:
    return address_hash(rows.PEPPER, address)


def run(database: Database, redis_url: str, lists: ScriptedLists) -> sync.Moved:
    fast = Fast(redis_url)
    try:
        return sync.sync(database, lists, fast, hash_of=of, out_of_time=lambda: False)
    finally:
        fast.close()


def suppress(database: Database, address: str, scope: str) -> None:
    with database.transaction() as connection:
        row = leave.Unwanted(of(address), scope, "unsubscribed", "test")
        leave.suppress_addresses(connection, [row], source=leave.STAFF, times=clock.read(connection))


def lift(database: Database, address: str, scope: str) -> None:
    """As the button of a confirmation writes it."""
    with database.transaction() as connection:
        suppressions.append(
            connection,
            addr_hash=of(address),
            scope=scope,
            action="lift",
            reason="confirmed",
            source="confirm",
            evidence="",
        )


def many(count: int) -> list[Listed]:
    return [Listed(f"p{number}@example.com", rows.START) for number in range(count)]


def free(database: Database) -> None:
    """The lease of whoever died is over."""
    with database.transaction() as connection:
        connection.execute(text("UPDATE provider_list SET held_until = '-infinity'"))


def stands(database: Database, address: str) -> set[str]:
    with database.transaction() as connection:
        return {scope for _, scope in suppressions.reasons(connection, [of(address)])}


def test_an_address_suppressed_for_all_mail_is_pushed_once_and_marketing_is_not(
    database: Database, redis_url: str
) -> None:
    with database.transaction() as connection:
        rows.subscriber(connection, "a@example.com")
        rows.subscriber(connection, "b@example.com")
    suppress(database, "a@example.com", "all")
    suppress(database, "b@example.com", "marketing")
    lists = ScriptedLists()
    run(database, redis_url, lists)
    run(database, redis_url, lists)
    assert lists.added == ["a@example.com"]


def test_whom_the_provider_lists_is_suppressed_here_known_or_not(database: Database, redis_url: str) -> None:
    with database.transaction() as connection:
        rows.subscriber(connection, "known@example.com")
    lists = ScriptedLists(
        {
            "bounces": [Listed("known@example.com", rows.START)],
            "unsubscribes": [Listed("nobody@example.com", rows.START)],
        }
    )
    assert run(database, redis_url, lists).added == 2
    assert run(database, redis_url, lists).added == 0
    assert stands(database, "known@example.com") == {"all"}
    assert stands(database, "nobody@example.com") == {"marketing"}


def test_an_entry_older_than_a_fresh_opt_in_is_taken_off_there_and_lifts_or_adds_nothing_here(
    database: Database, redis_url: str
) -> None:
    with database.transaction() as connection:
        rows.subscriber(connection, "back@example.com")
    suppress(database, "back@example.com", "marketing")
    lift(database, "back@example.com", "marketing")
    lists = ScriptedLists({"unsubscribes": [Listed("back@example.com", datetime.fromisoformat("2020-01-01T00:00Z"))]})
    run(database, redis_url, lists)
    assert ("unsubscribes", "back@example.com") in lists.removed
    assert stands(database, "back@example.com") == set()


@pytest.mark.parametrize("account", [True, False])
def test_a_refusal_is_a_row_with_a_reason_and_nobody_asks_again_before_its_time(
    database: Database, redis_url: str, account: bool
) -> None:
    with database.transaction() as connection:
        rows.subscriber(connection, "a@example.com")
    suppress(database, "a@example.com", "all")
    lists = ScriptedLists(answer=Later("403: access forbidden", account=account))
    run(database, redis_url, lists)
    run(database, redis_url, lists)
    assert lists.asked == 1
    with database.transaction() as connection:
        quiet = provider_lists.quiet(connection)
    assert (quiet.is_on, quiet.reason, quiet.failures) == (True, "403: access forbidden", 1)


def test_an_empty_list_at_the_provider_and_an_import_leave_a_suppression_standing(
    database: Database, redis_url: str
) -> None:
    with database.transaction() as connection:
        rows.subscriber(connection, "left@example.com")
    suppress(database, "left@example.com", "marketing")
    run(database, redis_url, ScriptedLists())
    with database.transaction() as connection:
        leave.suppress_addresses(
            connection,
            [leave.Unwanted(of("left@example.com"), "marketing", "unsubscribed")],
            source=leave.IMPORT,
            times=clock.read(connection),
        )
    assert stands(database, "left@example.com") == {"marketing"}


def test_a_list_of_several_pages_is_read_to_its_end_and_again_only_for_what_is_new(
    database: Database, redis_url: str
) -> None:
    lists = ScriptedLists({"bounces": many(2 * PAGE + 7)})
    moved = run(database, redis_url, lists)
    assert moved.added == 2 * PAGE + 7
    assert [offset for name, offset in lists.offsets if name == "bounces"] == [0, PAGE, 2 * PAGE]
    assert run(database, redis_url, lists).pages == 0
    lists.found["bounces"] = [Listed("late@example.com", datetime.fromisoformat("2100-01-01T00:00Z"))]
    with database.transaction() as connection:
        sync.begin(connection, unless_within=timedelta(0))
    assert run(database, redis_url, lists).added == 1
    assert stands(database, "p3@example.com") == {"all"}


def test_a_pass_reads_so_many_pages_and_the_next_one_goes_on(database: Database, redis_url: str) -> None:
    lists = ScriptedLists({"bounces": many(3 * PAGE)})
    fast = Fast(redis_url)
    for pages in (2, 2):
        moved = sync.sync(database, lists, fast, hash_of=of, out_of_time=lambda: False, pages=pages)
        assert moved.pages == pages
    fast.close()
    assert [offset for name, offset in lists.offsets if name == "bounces"] == [0, PAGE, 2 * PAGE, 3 * PAGE]
    assert stands(database, f"p{3 * PAGE - 1}@example.com") == {"all"}


def test_who_is_killed_between_two_pages_loses_nothing_and_the_next_begins_there(
    database: Database, redis_url: str
) -> None:
    lists = ScriptedLists({"bounces": many(3 * PAGE)}, dies_at=PAGE)
    with pytest.raises(KilledError):
        run(database, redis_url, lists)
    assert stands(database, "p0@example.com") == {"all"}
    assert stands(database, f"p{PAGE}@example.com") == set()
    lists.dies_at = None
    lists.offsets.clear()
    run(database, redis_url, lists)
    assert ("bounces", PAGE) not in lists.offsets, "a page that somebody may be reading belongs to them for a while"
    free(database)
    run(database, redis_url, lists)
    assert [offset for name, offset in lists.offsets if name == "bounces"] == [PAGE, 2 * PAGE, 3 * PAGE]
    with database.transaction() as connection:
        (bounces,) = (one for one in provider_looks.standing(connection) if one.name == "bounces")
        count = connection.execute(text("SELECT count(*) FROM suppression")).scalar_one()
    assert (bounces.entries, bounces.added, bounces.is_under_way, count) == (3 * PAGE, 3 * PAGE, False, 3 * PAGE)


class Endless(ScriptedLists):
    """Every page is full; with `same` it is always the first one."""

    same = False

    def page(self, name: ListName, *, since: datetime | None, offset: int) -> Page | Later:
        self.asked += 1
        start = 0 if self.same else offset
        found = [Listed(f"{name}{start + number}@example.com", rows.START) for number in range(PAGE)]
        return Page(found, PAGE, 0, f"{name}{start}".encode())


@pytest.mark.parametrize("same", [True, False])
def test_a_list_without_an_end_is_not_read_for_ever(database: Database, redis_url: str, same: bool) -> None:
    with database.transaction() as connection:  # as if most of it had been read
        connection.execute(
            text("UPDATE provider_list SET began_at = wall(), next_offset = :offset"),
            {"offset": 0 if same else sync.MOST_ROWS - PAGE},
        )
    lists = Endless()
    lists.same = same
    run(database, redis_url, lists)
    assert lists.asked == 8  # two of each list: the second one leads nowhere
    asked = lists.asked
    run(database, redis_url, lists)
    assert lists.asked == asked
    with database.transaction() as connection:
        assert not any(one.is_under_way or one.looked_at for one in provider_looks.standing(connection))


def test_a_dry_run_says_what_differs_and_changes_nothing(database: Database) -> None:
    with database.transaction() as connection:
        for name in ("known", "unlisted", "listed", "back"):
            rows.subscriber(connection, f"{name}@example.com")
    for name in ("unlisted", "listed"):
        suppress(database, f"{name}@example.com", "all")
    suppress(database, "back@example.com", "marketing")
    lift(database, "back@example.com", "marketing")
    old = datetime.fromisoformat("2020-01-01T00:00Z")
    lists = ScriptedLists(
        {
            "bounces": [
                Listed("known@example.com", None),
                Listed("listed@example.com", None),
                Listed(f"a@{'x' * 70}.example", None),
            ],
            "unsubscribes": [Listed("back@example.com", old)],
        }
    )
    with database.transaction() as connection:
        before = connection.execute(text("SELECT count(*) FROM suppression")).scalar_one()
    found, unlisted, said = sync.dry_run(database, lists, hash_of=of, out_of_time=lambda: False)
    told = {one.name: (one.entries, one.unreadable, one.new, one.lifted) for one in found}
    assert (told["bounces"], told["unsubscribes"], unlisted, said) == ((3, 1, 1, 0), (1, 0, 0, 1), 1, "")
    assert (lists.added, lists.removed) == ([], [])
    with database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM suppression")).scalar_one() == before
        assert not any(one.is_under_way for one in provider_looks.standing(connection))


def test_whoever_asks_for_a_confirmation_leaves_the_providers_unsubscribes_and_stays_suppressed_here(
    database: Database, redis_url: str
) -> None:
    with database.transaction() as connection:
        rows.subscriber(connection, "again@example.com", state="unsubscribed")
    suppress(database, "again@example.com", "marketing")
    with database.transaction() as connection:
        provider_lists.ask_again(connection, of("again@example.com"))
    lists = ScriptedLists()
    run(database, redis_url, lists)
    assert lists.removed == [("unsubscribes", "again@example.com")]
    assert stands(database, "again@example.com") == {"marketing"}


def test_a_form_that_anybody_can_fill_in_removes_no_unsubscribe_that_only_the_provider_knows(
    database: Database, redis_url: str
) -> None:
    with database.transaction() as connection:
        rows.subscriber(connection, "left.there@example.com", state="active")
        provider_lists.ask_again(connection, of("left.there@example.com"))
    lists = ScriptedLists()
    run(database, redis_url, lists)
    assert lists.removed == []


def test_an_operators_lift_takes_the_address_off_there_but_never_off_the_spam_reports(
    database: Database, redis_url: str
) -> None:
    with database.transaction() as connection:
        rows.subscriber(connection, "works@example.com", state="undeliverable")
    suppress(database, "works@example.com", "all")
    lists = ScriptedLists()
    run(database, redis_url, lists)
    with database.transaction() as connection:
        leave.lift_all(
            connection,
            addr_hash=of("works@example.com"),
            reason="it works",
            actor="ana",
            times=clock.read(connection),
        )
    run(database, redis_url, lists)
    assert sorted(name for name, _ in lists.removed) == ["bounces", "invalid_emails", "unsubscribes"]


def test_an_installation_without_lists_at_its_provider_keeps_no_notes(database: Database, redis_url: str) -> None:
    suppress(database, "a@example.com", "all")
    fast = Fast(redis_url)
    sync.sync(database, None, fast, hash_of=of, out_of_time=lambda: False)
    fast.close()
    with database.transaction() as connection:
        assert provider_looks.waiting(connection) == 0


def test_a_million_notes_are_marked_and_dropped_in_slices_while_there_is_time(
    database: Database, redis_url: str
) -> None:
    def counted() -> tuple[int, int]:
        with database.transaction() as connection:
            row = connection.execute(text("SELECT count(*), count(done_at) FROM provider_note")).one()
            return row[0], row[1]

    with database.transaction() as connection:
        connection.execute(
            text("INSERT INTO provider_note (addr_hash) SELECT decode('aa', 'hex') FROM generate_series(1, :n)"),
            {"n": sync.SLICE + 1},
        )
    fast = Fast(redis_url)
    for lists, after in (
        (None, [(sync.SLICE + 1, sync.SLICE), (sync.SLICE + 1, sync.SLICE + 1)]),
        (ScriptedLists(), [(1, 1), (0, 0)]),
    ):
        for expected in after:
            looks = itertools.chain([False], itertools.repeat(True))
            sync.sync(database, lists, fast, hash_of=of, out_of_time=lambda looks=looks: next(looks))  # type: ignore[misc]
            assert counted() == expected
        with database.transaction() as connection:
            connection.execute(text("UPDATE provider_note SET done_at = done_at - interval '91 days'"))
    fast.close()


def test_one_address_that_the_provider_does_not_take_holds_nobody_else_up(database: Database, redis_url: str) -> None:
    class Picky(ScriptedLists):
        def add(self, addresses: Sequence[str]) -> Done | Later | NotTaken:
            return NotTaken("400: no") if "odd@example.com" in addresses else super().add(addresses)

    names = [f"p{number}@example.com" for number in range(9)] + ["odd@example.com"]
    with database.transaction() as connection:
        for name in names:
            rows.subscriber(connection, name)
    for name in names:
        suppress(database, name, "all")
    lists = Picky()
    run(database, redis_url, lists)
    assert sorted(lists.added) == names[:9]
    with database.transaction() as connection:
        refused = connection.execute(text("SELECT addr_hash FROM provider_note WHERE result = '400: no'")).scalars()
        assert [bytes(one) for one in refused] == [of("odd@example.com")]


def test_a_spam_report_is_known_as_one_even_where_a_bounce_stands_already(database: Database, redis_url: str) -> None:
    old = datetime.fromisoformat("2020-01-01T00:00Z")
    lists = ScriptedLists({name: [Listed("angry@example.com", old)] for name in ("bounces", "spam_reports")})
    assert run(database, redis_url, lists).added == 2
    with database.transaction() as connection:
        sync.begin(connection, unless_within=timedelta(0))
    assert run(database, redis_url, lists).added == 0
    with database.transaction() as connection, pytest.raises(RefusedError, match="spam"):
        leave.lift_all(
            connection, addr_hash=of("angry@example.com"), reason="x", actor="ana", times=clock.read(connection)
        )
