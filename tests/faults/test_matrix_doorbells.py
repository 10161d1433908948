"""Doorbells lost, doubled or rung by many (F08, F09, F26, F31): the same messages, sooner or later."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy.exc import DBAPIError

from dripwell.bootstrap import QUEUES
from dripwell.core.errors import UnavailableError
from tests.faults.world import World, until

pytestmark = pytest.mark.matrix
NAMES = [name for names in QUEUES.values() for name in names]


def checked(world: World) -> None:
    """Everything comes to rest and the judge finds nothing."""
    assert world.quiet(60), world.left()
    verdict = world.verdict(1)
    assert verdict.clean, verdict.wrong


@contextmanager
def meanwhile(work: object) -> Iterator[None]:
    """Do this again and again in a thread of its own."""
    over = threading.Event()

    def again() -> None:
        while not over.wait(0.05):
            work()  # type: ignore[operator]

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def test_F08_every_doorbell_three_times_and_out_of_order(world: World) -> None:
    with world.running("beat"):
        until(lambda: all(world.redis.llen(name) for name in NAMES if name != "keep"), 20, "beat does not ring")
    rung = {name: world.redis.lrange(name, 0, -1) for name in NAMES}
    rng = random.Random(world.seed)

    def ring_again() -> None:
        for name, bells in rung.items():
            copies = bells * 3
            rng.shuffle(copies)
            if copies and world.redis.llen(name) < 50:
                world.redis.rpush(name, *copies)

    with world.running("worker", "service"), meanwhile(ring_again):
        people = world.join(40)
        until(lambda: world.mailed(people), 40, "nobody was mailed")
        checked(world)


def test_F09_without_one_doorbell_without_beat_and_without_listen(world: World) -> None:
    over = threading.Event()
    heard = []

    def take_away() -> None:
        with world.redis.client() as client:
            while not over.is_set():
                taken = client.blpop(NAMES, timeout=1)  # whoever waits longest is served first
                if taken:
                    heard.append(taken[0])

    def deafen() -> None:
        try:
            world.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        except (UnavailableError, DBAPIError):
            return  # the next time

    thieves = [threading.Thread(target=take_away) for _ in range(8)]
    for thief in thieves:
        thief.start()
    try:
        with world.running("worker"), meanwhile(deafen):
            people = world.join(20)
            until(lambda: world.mailed(people), 75, "nobody ran a fallback pass")
    finally:
        over.set()
        for thief in thieves:
            thief.join(10)
    checked_later(world)


def checked_later(world: World) -> None:
    """Like `checked`, with a worker that hears."""
    worker = world.worker()
    checked(world)
    worker.stop()


@pytest.mark.parametrize("senders", [2, 5])
def test_F26_many_senders_planners_and_janitors_at_once(world: World, senders: int) -> None:
    workers = [world.worker() for _ in range(senders)]
    people = world.join(60)
    until(lambda: world.mailed(people), 60, "nobody was mailed")
    checked(world)
    for worker in workers:
        worker.stop()


@pytest.mark.parametrize("beats", [1, 2, 5])
def test_F31_more_beats_give_the_same_messages(world: World, beats: int) -> None:
    with world.running("worker", *["beat"] * beats):
        people = world.join(20)
        until(lambda: world.mailed(people), 60, "nobody was mailed")
        checked(world)
    found = world.query(
        "SELECT count(*) FROM message WHERE subscriber_id = ANY(:ids)", ids=[world.ids[p] for p in people]
    )
    assert found == [(20,)]
