"""Every point of a batch's way, times every way to break its sender there: a real process, a real server, one judge.

SENDING section 8 says what must remain after each; FAULTS F01, F02, F03, F10, F11 are its rows here.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping

import pytest

from tests.faults.world import Worker, World, until, working

BEFORE_THE_CALL = ("before_claim", "after_claim", "after_journal", "after_mark", "after_final_check")
AFTER_THE_CALL = ("after_first_byte", "after_response", "before_record_commit", "after_record_commit")
POINTS = BEFORE_THE_CALL + AFTER_THE_CALL
FAULTS = ("kill", "stop", "database", "cut")
AT_EVERY_COMMIT = {
    ("after_claim", "kill"), ("after_final_check", "kill"), ("after_response", "kill"), ("after_first_byte", "cut"),
    ("after_mark", "database"), ("before_record_commit", "cut"),
}  # fmt: skip
WITHIN = 30.0
"""Seconds until everything must be resolved; the sandbox's grace time is 5."""
LEFT_BY_A_KILL: Mapping[str, list[str]] = {
    "before_claim": ["accepted"],
    "after_claim": ["lease", "accepted"],  # OPEN: T4
    "after_journal": ["lease", "accepted"],
    "after_mark": ["absent", "accepted"],  # CALLING: T9, negative proof, T11
    "after_final_check": ["absent", "accepted"],
    "after_first_byte": ["accepted"],  # T9, then evidence: T10
    "after_response": ["accepted"],
    "before_record_commit": ["accepted"],
    "after_record_commit": ["accepted"],
}


def _outcomes(world: World, people: list[str]) -> list[str]:
    """How the batches with these people ended, oldest first, each word once: how many there were hangs on the lane."""
    found = world.query(
        "SELECT DISTINCT batch.id, batch.outcome FROM batch JOIN message ON message.id = ANY(batch.message_ids)"
        " WHERE message.subscriber_id = ANY(:people) ORDER BY batch.id",
        people=[world.ids[each] for each in people],
    )
    return list(dict.fromkeys(str(outcome) for _, outcome in found))


def _reach(world: World, point: str, fault: str) -> Worker:
    """A sender that has just reached this point: killed there, or standing still, or waiting for its answer."""
    if point == "after_first_byte":
        before = world.control("counts")["body_bytes"]
        world.control("next", {"answers": [{"delay": 1.5}]})
        sender = world.worker(queues="plan,drip")
        until(lambda: world.control("counts")["body_bytes"] > before, 15, "nobody called")
        if fault == "kill":
            sender.kill()
        return sender
    if fault == "kill":
        sender = world.worker(queues="plan,drip", DRIPWELL_CRASH_AT=point)
        until(sender.was_killed, 15, f"{point} was never reached")
    else:
        sender = world.worker(queues="plan,drip", DRIPWELL_STALL_AT=point)
        until(sender.is_stopped, 15, f"{point} was never reached")
    return sender


def _stand_still(world: World, sender: Worker) -> None:
    os.kill(sender.pid, signal.SIGSTOP)
    end = time.monotonic() + 5
    until(lambda: time.monotonic() > end, 6, "time stands still")


def _crash_database(world: World, sender: Worker) -> None:
    world.crash_database()


def _cut(world: World, sender: Worker) -> None:
    world.lines["provider"].cut()
    assert world.lines["database"].cut()


BREAK: Mapping[str, Callable[[World, Worker], None]] = {
    "kill": lambda world, sender: None,
    "stop": _stand_still,
    "database": _crash_database,
    "cut": _cut,
}


@pytest.mark.parametrize(
    ("point", "fault"),
    [
        pytest.param(
            point, fault, marks=[] if (point, fault) in AT_EVERY_COMMIT else [pytest.mark.matrix], id=f"{point}-{fault}"
        )
        for point in POINTS
        for fault in FAULTS
    ],
)
def test_whatever_breaks_wherever_everybody_gets_it_once(world: World, other: Worker, point: str, fault: str) -> None:
    people = world.join(4)
    sender = _reach(world, point, fault)
    with working(other):
        BREAK[fault](world, sender)
        if fault != "kill":
            os.kill(sender.pid, signal.SIGCONT)
        world.await_database()
        assert world.quiet(WITHIN), (point, fault, world.left())
    sender.stop()
    verdict = world.verdict(1)
    assert verdict.clean, verdict.wrong
    outcomes = _outcomes(world, people)
    if fault == "kill":
        assert outcomes == LEFT_BY_A_KILL[point]
    elif fault == "stop" or point in AFTER_THE_CALL:
        assert outcomes == ["accepted"]
    else:
        assert outcomes[-1] == "accepted"
        assert set(outcomes[:-1]) <= {"not_sent", "stalled"}, "only the owner knows that nobody was called"
    lapses = world.query("SELECT max(lapses) FROM message WHERE subscriber_id = ANY(:people)",
                         people=[world.ids[each] for each in people])  # fmt: skip
    assert lapses == [(1 if outcomes[0] == "lease" else 0,)]


@pytest.mark.matrix
@pytest.mark.parametrize("point", ["after_mark", "after_final_check"])
def test_F03_a_sender_that_stood_still_beyond_its_budget_does_not_call(world: World, other: Worker, point: str) -> None:
    people = world.join(3)
    calls = world.control("counts")["requests"]
    sender = _reach(world, point, "stop")
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 11, 12, "time stands still")
    os.kill(sender.pid, signal.SIGCONT)
    until(lambda: _outcomes(world, people)[:1] == ["stalled"], 10, "it was not given back")
    sender.stop()
    assert world.control("counts")["requests"] <= calls + 1
    with working(other):
        assert world.quiet(WITHIN), world.left()
    assert world.verdict(1).clean, world.verdict(1).wrong


@pytest.mark.matrix
def test_F03_a_sender_that_wakes_after_its_batch_was_settled_changes_nothing(world: World, other: Worker) -> None:
    people = world.join(3)
    sender = _reach(world, "after_final_check", "stop")
    with working(other):
        assert world.quiet(120), "90 s until nobody waits for it, the grace time, two rounds of asking"
        assert _outcomes(world, people) == ["absent", "accepted"]
        os.kill(sender.pid, signal.SIGCONT)
        until(lambda: not sender.is_stopped(), 5, "it did not wake")
        fresh = world.join(2)
        assert world.quiet(WITHIN), world.left()
    sender.stop()
    assert _outcomes(world, people) == ["absent", "accepted"]
    assert _outcomes(world, fresh)[-1] == "accepted"
    assert world.verdict(1).clean, world.verdict(1).wrong


@pytest.mark.matrix
@pytest.mark.parametrize("answered", [True, False], ids=["its answer lost", "never heard"])
@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("TX1", b"INSERT INTO batch"),
        ("TX2", b"called_at = wall()"),
        ("TX3", b"resolved_at = wall()"),
    ],
)
def test_F11_a_connection_cut_during_a_commit(
    world: World, other: Worker, name: str, statement: bytes, answered: bool
) -> None:
    people = world.join(3)
    sprung = world.lines["database"].trap(statement, answered=answered)
    sender = world.worker(queues="plan,drip")
    until(sprung.is_set, 15, f"{name} was never committed")
    with working(other):
        assert world.quiet(90), world.left()
    sender.stop()
    verdict = world.verdict(1)
    assert verdict.clean, verdict.wrong
    assert _outcomes(world, people)[-1] == "accepted"


@pytest.mark.matrix
@pytest.mark.parametrize("answered", [True, False], ids=["its answer lost", "never heard"])
def test_F11_an_unsubscribe_whose_commit_is_cut_is_never_answered_in_vain(
    world: World, other: Worker, answered: bool
) -> None:
    person, *_ = world.join(2)
    with working(other):
        assert world.quiet(WITHIN), world.left()
    sprung = world.lines["web database"].trap(b"INSERT INTO suppression", answered=answered)
    assert world.leave(person) == 200
    assert sprung.is_set()
    with working(other):
        until(lambda: _is_suppressed(world, person), 10, "the unsubscribe was answered and is not recorded")


def _is_suppressed(world: World, address: str) -> bool:
    found = world.query(
        "SELECT count(*) FROM suppression JOIN subscriber USING (addr_hash) WHERE subscriber.id = :id",
        id=world.ids[address],
    )
    return found[0][0] > 0


@pytest.mark.matrix
def test_F02_a_message_that_outlived_three_owners_is_given_up_as_poison(world: World) -> None:
    (person,) = world.join(1)
    for _ in range(3):
        sender = world.worker(queues="plan,drip", DRIPWELL_CRASH_AT="after_claim")
        until(sender.was_killed, 15, "it was never claimed")
        janitor = world.worker(queues="settle")
        until(lambda: _outcomes(world, [person])[-1] == "lease", 15, "it was not released")
        janitor.stop()
    assert world.query("SELECT state, reason FROM message WHERE subscriber_id = :id", id=world.ids[person]) == [
        ("REJECTED", "poison")
    ]
    assert world.verdict(1).poison == 1
