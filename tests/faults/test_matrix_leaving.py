"""Leaving at every point and in every outage (F27, F28), and other changes under a sender's hands (F30)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dripwell.core.address import address_hash
from dripwell.services import publish
from tests.faults.world import CAMPAIGN, Worker, World, until, working

BEFORE = ("before_claim", "after_claim", "after_journal", "after_mark")
AFTER = ("after_final_check", "after_response", "before_record_commit", "after_record_commit")
WITHIN = 40.0


@contextmanager
def standing_at(world: World, point: str) -> Iterator[Worker]:
    """A sender stands still at this point; afterwards it goes on."""
    sender = world.worker(queues="plan,drip", DRIPWELL_STALL_AT=point)
    until(sender.is_stopped, 15, f"{point} was never reached")
    yield sender
    os.kill(sender.pid, signal.SIGCONT)


def come_to_rest(world: World, other: Worker) -> None:
    """Everything is worked off and judged."""
    with working(other):
        assert world.quiet(WITHIN), world.left()
    verdict = world.verdict(1)
    assert verdict.clean, verdict.wrong


@pytest.mark.parametrize(
    "point",
    [pytest.param(each, marks=[] if each in ("after_mark", "after_final_check") else [pytest.mark.matrix])
     for each in BEFORE + AFTER],
)  # fmt: skip
def test_F27_an_unsubscribe_binds_every_call_whose_final_check_comes_later(
    world: World, other: Worker, point: str
) -> None:
    leaver, stayer = world.join(2)
    with standing_at(world, point) as sender:
        assert world.leave(leaver) == 200
    with working(other):
        assert world.quiet(WITHIN), world.left()
    sender.stop()
    verdict = world.verdict(1)
    assert verdict.clean, verdict.wrong
    assert len(world.got(stayer)) == 1
    assert len(world.got(leaver)) == (1 if point in AFTER else 0), "under way, or out of the payload"
    ended = world.query("SELECT state, ended_reason FROM enrollment WHERE subscriber_id = :id", id=world.ids[leaver])
    assert ended == [("exited", "unsubscribed")]


@pytest.mark.parametrize(
    "away",
    [
        pytest.param(("web database",), id="PostgreSQL, for the pages"),
        pytest.param(("web database", "database"), id="PostgreSQL", marks=pytest.mark.matrix),
        pytest.param(("redis",), id="Redis", marks=pytest.mark.matrix),
        pytest.param(("web database", "database", "redis"), id="both", marks=pytest.mark.matrix),
    ],
)
def test_F28_an_unsubscribe_during_an_outage_binds_the_first_call_after_it(
    world: World, other: Worker, away: tuple[str, ...]
) -> None:
    leaver, stayer = world.join(2)
    planner = world.worker(queues="plan")
    until(lambda: _has_message(world, leaver), 10, "nobody planned")
    planner.stop()
    link = world.unsubscribe_link(leaver)
    for name in away:
        world.lines[name].shut()
    try:
        began = time.monotonic()
        assert world.post_leave(leaver, link) == 200
        assert time.monotonic() - began < 6
        if "database" not in away:
            with working(other):
                until(lambda: world.mailed([stayer]), 20, "the sender waits for what is away")
    finally:
        for name in away:
            world.lines[name].reopen()
    with working(other):
        assert world.quiet(WITHIN), world.left()
    verdict = world.verdict(1)
    assert verdict.clean, verdict.wrong
    assert (len(world.got(leaver)), len(world.got(stayer))) == (0, 1)
    until(lambda: _has_left(world, leaver), 5, "the spool was not carried out")


@pytest.mark.matrix
@pytest.mark.parametrize("point", ["before_claim", "after_claim", "after_mark", "after_final_check", "after_response"])
def test_F30_a_paused_campaign_makes_no_call_but_the_one_under_way(world: World, other: Worker, point: str) -> None:
    people = world.join(3)
    with standing_at(world, point) as sender, world.installation.database.transaction() as connection:
        publish.pause(connection, CAMPAIGN, actor="test")
    with working(other):
        until(lambda: _nothing_open(world), 15, "a batch of a paused campaign stays open")
    sender.stop()
    assert world.mailed(people) == (point in AFTER)
    with world.installation.database.transaction() as connection:
        publish.resume(connection, CAMPAIGN, actor="test", versions=world.installation.versions)
    come_to_rest(world, other)
    assert world.mailed(people)


@pytest.mark.matrix
@pytest.mark.parametrize("point", ["before_claim", "after_claim", "after_mark", "after_final_check", "after_response"])
def test_F30_a_changed_address_gets_it_once_at_one_of_the_two(world: World, other: Worker, point: str) -> None:
    person, _ = world.join(2)
    new = f"new.{person}"
    with standing_at(world, point) as sender:
        world.change(
            "UPDATE subscriber SET address = :new, addr_hash = :hash WHERE id = :id",
            new=new, hash=address_hash(world.installation.pepper, new), id=world.ids[person],
        )  # fmt: skip
    world.ids[new] = world.ids[person]
    with working(other):
        assert world.quiet(WITHIN), world.left()
    sender.stop()
    assert (len(world.got(person)), len(world.got(new))) == ((1, 0) if point in AFTER else (0, 1))
    # What was under way went to the old address; the series goes on at the new one.
    world.people.remove(person)
    verdict = world.verdict(1)
    assert verdict.clean, verdict.wrong


@pytest.mark.matrix
@pytest.mark.parametrize("point", ["before_claim", "after_claim", "after_mark", "after_final_check", "after_response"])
def test_F30_an_erased_person_gets_no_call_but_the_one_under_way(world: World, other: Worker, point: str) -> None:
    person, stayer = world.join(2)
    with standing_at(world, point) as sender, world.installation.database.transaction() as connection:
        connection.exec_driver_sql(
            "UPDATE subscriber SET state = 'erased', address = NULL, addr_hash = NULL, fields = '{}' WHERE id = %s",
            (world.ids[person],),
        )
        connection.exec_driver_sql("UPDATE message SET addr_hash = NULL WHERE subscriber_id = %s", (world.ids[person],))
    world.people.remove(person)
    with working(other):
        assert world.quiet(WITHIN), world.left()
    sender.stop()
    assert (len(world.got(person)), len(world.got(stayer))) == (1 if point in AFTER else 0, 1)
    verdict = world.verdict(1)
    assert verdict.clean, verdict.wrong


def _has_message(world: World, address: str) -> bool:
    return bool(world.query("SELECT 1 FROM message WHERE subscriber_id = :id", id=world.ids[address]))


def _has_left(world: World, address: str) -> bool:
    found = world.query("SELECT state FROM subscriber WHERE id = :id", id=world.ids[address])
    return found == [("unsubscribed",)]


def _nothing_open(world: World) -> bool:
    return world.query("SELECT count(*) FROM batch WHERE state <> 'DONE'") == [(0,)]
