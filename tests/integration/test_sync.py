"""The provider's lists and ours: pushed, pulled, compared; nothing that the provider says ever lifts anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from dripwell.core.address import address_hash
from dripwell.delivery.lists import Done, Later, Listed, ListName, NotTaken, Page
from dripwell.services import leave, sync
from dripwell.storage import clock, provider_lists, suppressions
from dripwell.storage.database import Database
from dripwell.storage.fast import Fast
from tests.integration import rows


@dataclass
class ScriptedLists:
    """The provider's lists in memory; `answer`, when set, is what every request gets."""

    found: dict[str, list[Listed]] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    removed: list[tuple[str, str]] = field(default_factory=list)
    answer: Later | None = None
    asked: int = 0

    def page(self, name: ListName, *, since: datetime | None, offset: int) -> Page | Later:
        self.asked += 1
        found = self.found.get(name, [])
        return self.answer or Page(found, len(found), 0, name.encode())

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
    with database.transaction() as connection:
        leave.lift_by_opt_in(
            connection, addr_hash=of("back@example.com"), topic="seven-part-series", campaigns=(), evidence="test"
        )
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
