"""The grace time (A3): nothing is taken for absent while the provider may still accept it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.faults.world import Worker, World, until, working

pytestmark = pytest.mark.matrix


def test_F17_the_grace_time_counts_from_the_call_and_not_from_its_mark(world: World, other: Worker) -> None:
    """A sender stands still within its start budget, calls, and dies; the provider accepts within its grace time."""
    world.join(3)
    sender = world.worker(queues="plan,drip", DRIPWELL_STALL_AT="after_final_check")
    until(sender.is_stopped, 15, "nobody came to the call")
    stopped = time.monotonic()
    until(lambda: time.monotonic() - stopped > 7, 9, "time stands still")
    before = world.control("counts")["body_bytes"]
    world.control("next", {"answers": [{"delay": 3.0}]})
    os.kill(sender.pid, signal.SIGCONT)
    until(lambda: world.control("counts")["body_bytes"] > before, 5, "nobody called")
    called = time.monotonic()
    sender.kill()
    with working(other):
        until(lambda: time.monotonic() - called > 4, 6, "time stands still")
        until(lambda: len(world.mails()) >= 3, 5, "the call was never accepted")
        assert world.quiet(60), world.left()
    verdict = world.verdict(1)
    assert verdict.clean, verdict.wrong
