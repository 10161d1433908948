"""A fleet of Celery workers, and what may happen to it and to Redis (F01, F04 to F07, F29)."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.faults.world import World, until

CREW = ("beat", "worker")
pytestmark = pytest.mark.matrix
BACK = 30.0
"""Seconds until work has to go on as before after every worker was killed."""


def checked(world: World) -> None:
    """Everything comes to rest and the judge finds nothing."""
    assert world.quiet(60), world.left()
    verdict = world.verdict(1)
    assert verdict.clean, verdict.wrong


@pytest.mark.parametrize(
    "words", [("celery", "worker", "-Q"), ("dripwell.workers.bell",)], ids=["Celery with its children", "bell"]
)
def test_F01_a_killed_worker_under_load_loses_nothing(world: World, words: tuple[str, ...]) -> None:
    people = world.join(60)
    until(lambda: bool(world.query("SELECT 1 FROM batch WHERE state <> 'DONE'")) or world.mailed(people), 20, "idle")
    for pid in world.pids(*words):
        world.kill(pid)
    more = world.join(20)
    until(lambda: world.mailed(people + more), BACK, "work did not go on")
    checked(world)


def test_F04_every_worker_killed_again_and_again(world: World) -> None:
    people = world.join(40)
    for _ in range(4):
        for pid in (
            *world.pids("dripwell.workers.bell"),
            *world.pids("celery", "worker"),
            *world.pids("celery", "beat"),
        ):
            world.kill(pid)
        people += world.join(10)
        time_passes(1.0)
    killed = time.monotonic()
    until(lambda: world.mailed(people), BACK, "throughput is not back")
    assert time.monotonic() - killed < BACK
    checked(world)


def test_F05_an_emptied_redis_costs_seconds_and_clears_nobody(world: World) -> None:
    leaver, *_ = first = world.join(5)
    until(lambda: world.mailed(first), 30, "nobody was mailed")
    assert world.leave(leaver) == 200
    people = world.join(30)
    world.redis.flushall()
    until(lambda: world.mailed(people), 15 + 5, "work did not go on")
    until(lambda: world.redis.hlen("dw:supp:mark") > 0, 30, "the set was not built again")
    checked(world)


def test_F06_work_goes_on_while_redis_is_dead_and_after_it_came_back_empty(world: World) -> None:
    bells = world.pids("dripwell.workers.bell")
    world.lines["redis"].shut()
    try:
        world.kill(world.supervisor.pids()["redis"])
        people = world.join(10)
        until(lambda: world.mailed(people), 60, "nobody ran a fallback pass")
    finally:
        until(lambda: world.supervisor.is_ready("redis"), 20, "Redis did not start again")
        world.redis.flushall()
        world.lines["redis"].reopen()
    more = world.join(10)
    until(lambda: world.mailed(more), 60, "the workers did not resume")
    assert set(bells) & set(world.pids("dripwell.workers.bell")), "they were to resume without a restart"
    checked(world)


BROKEN = {
    "wrong password": (("CONFIG", "SET", "requirepass", "secret"), ("CONFIG", "SET", "requirepass", "")),
    "full": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "read-only": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
}


@pytest.fixture
def broken_redis(world: World, request: pytest.FixtureRequest) -> Iterator[None]:
    breaks, mends = BROKEN[request.param]
    with world.redis.client() as admin:
        try:
            admin.execute_command(*breaks)
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # they all come in anew
            yield
        finally:
            admin.execute_command(*mends)


@pytest.mark.parametrize("broken_redis", BROKEN, indirect=True)
def test_F07_a_redis_that_refuses_blocks_no_page_and_no_mail(world: World, broken_redis: None) -> None:
    people = world.join(10)
    until(lambda: world.mailed(people), 60, "nobody ran a fallback pass")
    began = time.monotonic()
    assert world.leave(people[0]) == 200
    assert time.monotonic() - began < 1.0
    began = time.monotonic()
    assert world.http.get(world.unsubscribe_link(people[1])).status_code == 200
    assert time.monotonic() - began < 1.0
    checked(world)


@pytest.mark.parametrize("harm", ["emptied", "half", "stale generation", "another epoch"])
def test_F29_whatever_became_of_the_set_the_ledger_decides(world: World, harm: str) -> None:
    leaver, half, *_ = people = world.join(6)
    until(lambda: world.mailed(people), 40, "nobody was mailed")
    assert (world.leave(leaver), world.leave(half)) == (200, 200)
    assert world.quiet(30), world.left()
    sets = list(world.redis.scan_iter("dw:supp:*:*"))
    assert sets, "there is no set"
    match harm:
        case "emptied":
            world.redis.delete(*sets)
        case "half":
            for key in sets:
                members = sorted(world.redis.smembers(key))
                world.redis.srem(key, *members[: len(members) // 2 + 1])
        case "stale generation":
            world.redis.hincrby("dw:supp:mark", "generation", -1)
        case "another epoch":
            world.redis.hincrby("dw:supp:mark", "epoch", 7)
    world.finish(90)
    assert (len(world.got(leaver)), len(world.got(half))) == (1, 1)
    verdict = world.verdict()
    assert verdict.clean, verdict.wrong


def time_passes(seconds: float) -> None:
    """Let this much of a timeline go by."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end, seconds + 5, "time stands still")


def test_F03_a_child_that_stands_still_keeps_nobody_waiting(world: World) -> None:
    parent = world.pids("celery", "worker", "-Q")
    until(lambda: len(world.pids("celery", "worker", "-Q")) >= 3, 20, "there are no children")
    victim = world.pids("celery", "worker", "-Q")[-1]
    world.kill(victim, signal.SIGSTOP)
    try:
        people = world.join(10)
        until(lambda: world.mailed(people), 60, "the others did not go on")
    finally:
        world.kill(victim, signal.SIGCONT)
    assert parent
    checked(world)
