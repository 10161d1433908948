"""`dripwell quarantine …`: what an operator reads, does and is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from dripwell.storage import witness
from dripwell.storage.database import Database
from dripwell.storage.journal import Journal
from tests.integration.command import Project, copy_of_the_project
from tests.integration.test_journal import write


@pytest.fixture
def project(database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})


def test_without_a_quarantine_there_is_nothing_to_do(project: Project) -> None:
    assert "Calls are made" in project.run("quarantine", "show").stdout
    assert project.read("quarantine", "show")["quarantined_at"] is None
    assert project.run("quarantine", "replay").exit_code == 3
    lift = project.run("quarantine", "lift", "--reason", "x")
    assert lift.exit_code == 3
    assert "there is no quarantine to lift" in lift.stderr


def test_from_the_finding_to_the_lifting(project: Project, database: Database, tmp_path: Path) -> None:
    project.added("maria@example.com")
    with database.transaction() as connection:
        witness.quarantine(connection, "The database ends with batch 3; batch 9 is remembered.")
    elsewhere = tmp_path / "host-2"
    write(Journal(elsewhere, host="host-2"), 9, people=2)

    shown = project.run("quarantine", "show", "--journal", str(elsewhere)).stdout
    assert "Nobody is called" in shown
    assert "does not know 1 of them, with 2 emails" in shown
    assert "dripwell quarantine replay" in shown

    early = project.run("quarantine", "lift", "--reason", "in a hurry")
    assert early.exit_code == 3
    assert "would be mailed again" in early.stderr

    replayed = project.read("quarantine", "replay", "--journal", str(elsewhere), "--hold-since", "3")
    assert replayed["lost_campaigns"] == {"seven-benefits": 2}
    assert "Do not start it again for the same people" in project.run(
        "quarantine", "replay", "--journal", str(elsewhere)
    ).stdout.replace("\n", " ")

    assert "are replayed" in project.run("quarantine", "show").stdout
    lifted = project.read("quarantine", "lift", "--reason", "all is well", "--by", "maria")
    assert lifted == {"version": 1, "lifted": True, "unsettled_batches": 0, "unsettled_emails": 0}
    with database.transaction() as connection:
        assert connection.execute(
            text("SELECT actor, detail ->> 'reason' FROM activity WHERE action = 'quarantine lifted'")
        ).one() == ("maria", "all is well")
