"""Evidence that is lost, copied, late or away (F24, F25): the record follows it, whenever it comes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.world import Worker, World, until, working

pytestmark = pytest.mark.matrix


@pytest.fixture(autouse=True)
def honest_again(world: World) -> Iterator[None]:
    """Afterwards webhook and logs are as they should be."""
    yield
    world.control("webhooks", {"paused": False, "lost": False, "copies": 1, "reversed": False, "odd": False})
    world.control("logs", {})


def test_F24_lost_events_are_made_up_for_by_the_logs(world: World, other: Worker) -> None:
    world.control("webhooks", {"lost": True})
    people = world.join(6)
    world.control("next", {"answers": [{"hangup": True}]})
    with working(other):
        assert world.quiet(40), world.left()
    assert world.mailed(people)
    assert (
        world.query("SELECT count(*) FROM message_log WHERE transition = 'T10' AND reason = 'provider log'")[0][0] > 0
    )
    assert world.verdict(1).clean, world.verdict(1).wrong


def test_F24_46_copies_reversed_and_odd_count_once(world: World, other: Worker) -> None:
    world.control("webhooks", {"copies": 46, "reversed": True, "odd": True})
    people = world.join(6)
    with working(other):
        assert world.quiet(60), world.left()
    ids = [world.ids[each] for each in people]
    delivery = "SELECT DISTINCT delivery FROM message WHERE subscriber_id = ANY(:ids) AND state = 'ACCEPTED'"
    assert world.query(delivery, ids=ids) == [("delivered",)]
    copies = (
        "SELECT max(n) FROM (SELECT count(*) AS n FROM provider_event JOIN message ON message.id = message_id"
        " WHERE subscriber_id = ANY(:ids) GROUP BY message_id, type) AS events"
    )
    assert world.query(copies, ids=ids) == [(1,)]
    assert world.verdict(1).clean, world.verdict(1).wrong


def test_F25_without_logs_an_unknown_batch_is_held_and_late_evidence_wins(world: World, other: Worker) -> None:
    world.control("webhooks", {"paused": True})
    world.control("logs", {"status": 503})
    people = world.join(4)
    ids = [world.ids[each] for each in people]
    world.control("next", {"answers": [{"hangup": True}]})
    states = "SELECT DISTINCT state FROM message WHERE subscriber_id = ANY(:ids) ORDER BY state"
    with working(other):
        until(lambda: world.query(states, ids=ids) == [("HELD",)], 100, "it was not held at the end of its window")
        assert len(world.got(people[0])) == 1, "nothing was sent again without proof"
        world.control("webhooks", {"paused": False})
        until(lambda: world.query(states, ids=ids) == [("ACCEPTED",)], 30, "late evidence did not win")
        world.control("logs", {})
        assert world.quiet(30), world.left()
    assert world.query("SELECT count(*) FROM message_log WHERE transition = 'T13'")[0][0] >= 4
    assert world.verdict(1).clean, world.verdict(1).wrong


def test_F25_rate_limited_logs_prove_nothing_until_they_answer(world: World, other: Worker) -> None:
    world.control("logs", {"status": 429})
    people = world.join(4)
    world.control("next", {"answers": [{"status": 500}]})
    with working(other):
        ids = [world.ids[each] for each in people]
        asked = "SELECT count(*) FROM batch WHERE state = 'UNKNOWN' AND asked_at IS NOT NULL AND empty_rounds = 0"
        until(lambda: world.query(asked)[0][0] == 1, 30, "nobody asked")
        states = world.query("SELECT DISTINCT state FROM message WHERE subscriber_id = ANY(:ids)", ids=ids)
        assert ("IN_BATCH",) in states
        assert set(states) <= {("IN_BATCH",), ("ACCEPTED",)}, "without an answer nothing is proved"
        world.control("logs", {})
        assert world.quiet(30), world.left()
    assert world.mailed(people)
    assert world.verdict(1).clean, world.verdict(1).wrong
