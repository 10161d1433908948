"""A short soak by seed, and the same course with a mutant: the judge must see it, or the judge is blind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults import soak
from tests.faults.mutants import MUTANTS
from tests.faults.world import World, until

SEED = 7
pytestmark = pytest.mark.matrix


def test_a_short_soak_ends_with_nobody_twice_nobody_lost_nobody_late(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    verdict = soak.run(tmp_path, seconds=25, seed=SEED, people=300, emails=3)
    assert verdict.clean, (f"python -m tests.faults.soak --minutes 0.42 --seed {SEED} --people 300", verdict.wrong)
    assert verdict.accepted > 300


def test_the_same_course_with_a_blind_retry_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    # More answers go wrong than in a soak: few calls fit into so little time.
    verdict = soak.run(tmp_path, seconds=25, seed=SEED, people=150, emails=2, mutant="blind_retry", hostile=0.6)
    assert verdict.duplicates > 0


def test_without_a_final_check_who_leaves_in_time_is_mailed_and_the_judge_sees_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert _one_leaves_in_time(tmp_path / "honest", ()).late == 0
    verdict = _one_leaves_in_time(tmp_path / "mutant", ("--mutant", "no_final_check"))
    assert verdict.late == 1
    assert not verdict.clean


def _one_leaves_in_time(folder: Path, options: tuple[str, ...]) -> soak.Verdict:
    folder.mkdir()
    folder.chmod(0o755)
    with World(folder) as world:
        leaver, _ = world.join(2)
        sender = world.worker(*options, DRIPWELL_STALL_AT="after_claim")
        until(sender.is_stopped, 20, "nobody claimed")
        assert world.leave(leaver) == 200
        os.kill(sender.pid, signal.SIGCONT)
        assert world.quiet(30), world.left()
        return world.verdict(1)


def test_every_mutant_is_caught_by_a_test_here() -> None:
    assert set(MUTANTS) == {"blind_retry", "no_final_check"}
