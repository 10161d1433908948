"""kill -9 of any one process in the middle of the demo changes none of its numbers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.demos import Demo, descendants

PEOPLE = 30
COURSE = ("--seed", "11", "--people", str(PEOPLE))
Processes = dict[int, tuple[int, str]]


def _that_says(*words: str) -> Callable[[Processes], int]:
    """The topmost process whose command line has all these words."""

    def find(processes: Processes) -> int:
        matching = {pid for pid, (_, command) in processes.items() if all(word in command for word in words)}
        return next(pid for pid in sorted(matching) if processes[pid][0] not in matching)

    return find


def _worker_child(processes: Processes) -> int:
    parent = _that_says("celery", "worker", "-Q drip")(processes)
    return next(pid for pid, (above, _) in sorted(processes.items()) if above == parent)


VICTIMS: dict[str, Callable[[Processes], int]] = {
    "worker child": _worker_child,
    "worker parent": _that_says("celery", "worker", "-Q drip"),
    "bell": _that_says("dripwell.workers.bell", "drip"),
    "beat": _that_says("celery", "beat"),
    "web": _that_says("dripwell.web"),
    "Valkey": _that_says("valkey-server"),
    "PostgreSQL": _that_says("bin/postgres", "-D"),
}


@pytest.fixture(scope="module")
def undisturbed() -> Demo:
    demo = Demo(*COURSE)
    assert demo.code == 0, demo.lines
    return demo


ALWAYS = ("worker child", "PostgreSQL")
"""The two that hold most: whoever calls the provider, and the record. The others are killed by `make faults`."""


@pytest.mark.parametrize(
    "victim", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.matrix) for name in VICTIMS]
)
def test_a_killed_process_changes_no_number(victim: str, undisturbed: Demo) -> None:
    killed: list[int] = []

    def kill(demo: int, line: str) -> None:
        # The third wave is on its way: people are due, messages planned, batches open.
        if "emails accepted so far" in line and not killed and _accepted(line) > 1.8 * PEOPLE:
            pid = VICTIMS[victim](descendants(demo))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    demo = Demo(*COURSE, on_line=kill)
    assert killed, demo.lines
    assert demo.code == 0, demo.lines
    assert demo.numbers == undisturbed.numbers
    assert demo.result["provider"]["accepted"] == undisturbed.result["provider"]["accepted"]
    assert demo.result["provider"]["duplicates"] == 0
    assert demo.result["wrong"] == demo.result["broken"] == []


def _accepted(line: str) -> int:
    return int(line.partition(": ")[2].split()[0].replace(",", ""))
