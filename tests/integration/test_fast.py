"""Redis may answer, lie, forget or be silent: nothing waits for it and nothing rests on it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from sqlalchemy import text

from dripwell.services import leave
from dripwell.storage import clock, suppressions
from dripwell.storage.database import Database
from dripwell.storage.fast import MARK, Fast
from tests.integration import rows

ONE, TWO = b"1" * 32, b"2" * 32
SCOPES = ("all", "marketing")
HOUR = timedelta(hours=1)


@pytest.fixture
def fast(redis_url: str) -> Iterator[Fast]:
    opened = Fast(redis_url)
    yield opened
    opened.close()


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    opened = redis.Redis.from_url(redis_url)
    opened.flushall()
    yield opened
    opened.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.fixture
def closed() -> str:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def _write(database: Database, addr_hash: bytes, action: str = "suppress", scope: str = "marketing") -> None:
    with database.transaction() as connection:
        suppressions.append(
            connection, addr_hash=addr_hash, scope=scope, action=action, reason="r", source="s", evidence=""
        )


def test_a_set_without_its_mark_is_invalid_and_a_rebuilt_one_answers(
    database: Database, fast: Fast, raw: redis.Redis
) -> None:
    _write(database, ONE)
    assert fast.hits([ONE], SCOPES) is None
    with database.transaction() as connection:
        assert not fast.expect(connection)
        assert fast.hits([ONE], SCOPES) is None
        assert fast.rebuild(connection)
    assert fast.hits([ONE, TWO], SCOPES) == {ONE}
    assert fast.hits([ONE, TWO], ("all",)) == set()
    raw.delete(MARK)
    assert fast.hits([ONE], SCOPES) is None


def test_an_empty_ledger_is_a_valid_set(database: Database, fast: Fast, raw: redis.Redis) -> None:
    with database.transaction() as connection:
        assert fast.rebuild(connection)
    assert fast.hits([ONE], SCOPES) == set()


def test_a_set_that_lost_its_members_but_not_its_mark_is_invalid(
    database: Database, fast: Fast, raw: redis.Redis
) -> None:
    _write(database, ONE)
    with database.transaction() as connection:
        fast.rebuild(connection)
        raw.delete("dw:supp:1:1")
        assert fast.add([(TWO, "all")])
        assert fast.hits([ONE, TWO], SCOPES) is None
        raw.delete("dw:supp:1:1")
        assert fast.follow(connection)
    assert fast.hits([ONE, TWO], SCOPES) == {ONE}


def test_a_new_generation_makes_the_old_set_invalid(database: Database, fast: Fast, raw: redis.Redis) -> None:
    _write(database, ONE)
    with database.transaction() as connection:
        fast.rebuild(connection)
        connection.execute(text("UPDATE installation SET suppression_generation = 2"))
        assert not fast.expect(connection)
        assert fast.hits([ONE], SCOPES) is None
        assert not fast.add([(TWO, "all")])
        assert fast.follow(connection)
    assert fast.hits([ONE], SCOPES) == {ONE}
    assert raw.exists("dw:supp:1:1") == 0


def test_following_brings_in_what_was_written_since_but_not_what_was_lifted(
    database: Database, fast: Fast, raw: redis.Redis
) -> None:
    with database.transaction() as connection:
        fast.rebuild(connection)
    _write(database, ONE)
    _write(database, TWO)
    _write(database, TWO, "lift")
    with database.transaction() as connection:
        assert fast.follow(connection)
    assert fast.hits([ONE, TWO], SCOPES) == {ONE}


def test_following_takes_out_whoever_was_lifted_and_only_there(
    database: Database, fast: Fast, raw: redis.Redis
) -> None:
    for addr_hash in (ONE, TWO):
        _write(database, addr_hash)
        _write(database, addr_hash, scope="topic:news")
    with database.transaction() as connection:
        fast.rebuild(connection)
    assert fast.hits([ONE, TWO], SCOPES) == {ONE, TWO}
    _write(database, ONE, "lift")
    _write(database, TWO, "lift")
    _write(database, TWO)
    with database.transaction() as connection:
        assert fast.follow(connection)
    assert fast.hits([ONE, TWO], SCOPES) == {TWO}
    assert fast.hits([ONE, TWO], ("topic:news",)) == {ONE, TWO}


def test_following_does_not_lose_a_row_that_commits_after_a_younger_one(
    database: Database, fast: Fast, raw: redis.Redis
) -> None:
    with database.transaction() as connection:
        fast.rebuild(connection)
    with database.transaction() as slow:
        suppressions.append(slow, addr_hash=ONE, scope="all", action="suppress", reason="r", source="s", evidence="")
        _write(database, TWO)
        with database.transaction() as connection:
            assert fast.follow(connection)
        assert fast.hits([ONE, TWO], SCOPES) == {TWO}
    with database.transaction() as connection:
        assert fast.follow(connection)
    assert fast.hits([ONE, TWO], SCOPES) == {ONE, TWO}


def test_a_lifted_member_can_be_removed(database: Database, fast: Fast, raw: redis.Redis) -> None:
    _write(database, ONE)
    with database.transaction() as connection:
        fast.rebuild(connection)
    assert fast.remove([(ONE, "marketing")])
    assert fast.hits([ONE], SCOPES) == set()


def test_the_outbox_is_pushed_once_redis_is_there(database: Database, fast: Fast, raw: redis.Redis) -> None:
    with database.transaction() as connection:
        person = rows.subscriber(connection)
        leave.suppress(
            connection,
            subscriber_id=person,
            scope="marketing",
            reason="unsubscribed",
            source=leave.PAGE,
            evidence="",
            times=clock.read(connection),
        )
        assert leave.push(connection, fast) == 0  # no valid set yet
        fast.rebuild(connection)
        assert leave.push(connection, fast) == 1
        assert leave.push(connection, fast) == 0
        addr_hash, _ = suppressions.address_of(connection, person) or (b"", "")
    assert addr_hash is not None
    assert fast.hits([addr_hash], SCOPES) == {addr_hash}


def test_a_slot_is_held_for_one_person_at_a_time(fast: Fast, raw: redis.Redis) -> None:
    assert fast.hold("1:100", "a", HOUR) is True
    assert fast.hold("1:100", "a", HOUR) is True
    assert fast.hold("1:100", "b", HOUR) is False
    assert fast.held(["1:100", "1:115"], "b") == {"1:100"}
    assert fast.held(["1:100"], "a") == set()
    fast.release("1:100", "b")
    assert fast.hold("1:100", "b", HOUR) is False
    fast.release("1:100", "a")
    assert fast.hold("1:100", "b", HOUR) is True
    assert 0 < raw.pttl("dw:hold:1:100") <= 3_600_000


@pytest.mark.parametrize("server", ["silent", "closed"])
def test_without_redis_every_question_is_unknown_within_a_quarter_second(
    database: Database, server: str, request: pytest.FixtureRequest
) -> None:
    ticks = [0.0]
    gone = Fast(request.getfixturevalue(server), ticks=lambda: ticks[0])
    with database.transaction() as connection:
        questions = [
            (lambda: gone.expect(connection), False),
            (lambda: gone.hits([ONE], SCOPES), None),
            (lambda: gone.add([(ONE, "all")]), False),
            (lambda: gone.remove([(ONE, "all")]), False),
            (lambda: gone.rebuild(connection), False),
            (lambda: gone.follow(connection), False),
            (lambda: gone.hold("1:1", "a", HOUR), None),
            (lambda: gone.held(["1:1"], "a"), set()),
            (lambda: gone.release("1:1", "a"), None),
            (lambda: gone.is_there(), False),
        ]
        for question, unknown in questions:
            ticks[0] += 2  # past the second in which nobody asks
            began = time.monotonic()
            assert question() == unknown
            assert time.monotonic() - began < 0.25 + 0.1  # and a little for a busy machine
        began = time.monotonic()
        assert [gone.hits([ONE], SCOPES) for _ in range(50)] == [None] * 50
        assert time.monotonic() - began < 0.25  # asked at most once
    gone.close()


def test_a_server_that_refuses_writes_is_unknown_not_an_error(database: Database, fast: Fast, raw: redis.Redis) -> None:
    raw.set(MARK, "not a hash")
    with database.transaction() as connection:
        assert not fast.expect(connection)
        assert fast.hits([ONE], SCOPES) is None
