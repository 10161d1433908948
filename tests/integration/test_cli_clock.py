"""`clock forward` beside a `dripwell run`: days pass, and everybody gets what was due in them, once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dripwell.embedded.lock import running
from tests.integration.command import CAMPAIGN, copy_of_the_project
from tests.processes import eventually


def test_moving_time_mails_what_becomes_due_and_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = copy_of_the_project(tmp_path, {})
    state = tmp_path / "state"
    with (tmp_path / "run.log").open("w", encoding="utf-8") as log:
        run = project.process("run")
        try:
            assert eventually(lambda: (info := running(state)) is not None and "web" in info.addresses, within=60)
            project.started()
            for address in ("maria@example.com", "sam@example.com"):
                project.added(address)
            assert project.read("enroll", CAMPAIGN, "--all")["joined"] == 2
            moved = project.read("clock", "forward", "60 days")
            assert moved["moves"] > 6
            status = project.read("status")
            assert status["running"] is True
            assert status["ahead_seconds"] >= 59 * 86400
            report = project.read("report", CAMPAIGN)
            assert report["people"]["finished"] == 2
            assert report["messages"]["accepted"] == 14
            assert report["adds_up"] is True
            shown = project.read("subscribers", "show", "maria@example.com")
            mailed = [row["step_key"] for row in shown["timeline"] if row["what"] == "email"]
            assert len(mailed) == len(set(mailed)) == 7
        finally:
            run.send_signal(signal.SIGINT)
            out, err = run.communicate(timeout=60)
            log.write(out + err)
    assert running(state) is None
