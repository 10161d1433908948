"""`clock forward` beside a `dripwell run`: days pass, and everybody gets what was due in them, once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dripwell.embedded.lock import running
from dripwell.storage import clock
from dripwell.storage.database import Database
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


def test_a_person_says_that_the_clock_is_right_and_it_is_written_down(
    database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project = copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})
    refused = project.run("clock", "accept", "--reason", "just so")
    assert refused.exit_code == 3
    assert "nobody doubts the clock" in refused.stderr
    with database.transaction() as connection:
        clock.raise_alarm(connection, "the database's clock jumped ahead by 2:00:00")
    assert project.run("clock", "accept").exit_code == 2, "a reason is needed"
    done = project.read("clock", "accept", "--reason", "it is right", "--by", "ana")
    assert done["accepted"] == "the database's clock jumped ahead by 2:00:00"
    with database.transaction() as connection:
        assert clock.read(connection).alarm is None
        written = connection.exec_driver_sql("SELECT actor, action, detail ->> 'reason' FROM activity").all()
    assert [tuple(row) for row in written] == [("ana", "clock accepted", "it is right")]
