"""`dripwell events`: what could not be read is seen, and read again on somebody's word."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from dripwell.storage.database import Database
from tests.integration.command import Project, copy_of_the_project


@pytest.fixture
def project(database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})


def rows(database: Database, statement: str) -> list[tuple[object, ...]]:
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def test_what_was_set_aside_is_listed_and_read_again_on_somebodys_word(project: Project, database: Database) -> None:
    assert project.read("events", "list") == {"version": 1, "unread": 0, "quarantined": 0, "webhooks": []}
    assert "none is set aside" in project.run("events", "list").stdout
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO webhook_inbox (raw, state, tries, error) VALUES ('[', 'quarantined', 3, 'no\x1barray'),"
                " ('{}', 'quarantined', 3, 'no array'), ('[]', 'new', 0, NULL), ('[]', 'done', 0, NULL)"
            )
        )
    seen = project.read("events", "list")
    assert (seen["unread"], seen["quarantined"]) == (1, 2)
    assert [one["state"] for one in seen["webhooks"]] == ["quarantined", "quarantined", "new"]
    aside = project.read("events", "list", "--quarantined")["webhooks"]
    assert [(one["bytes"], one["tries"], one["error"]) for one in aside] == [(1, 3, "no\x1barray"), (2, 3, "no array")]
    shown = project.run("events", "list").stdout
    assert "1 webhook is unread, 2 set aside." in shown
    assert "\x1b" not in shown

    first = str(aside[0]["id"])
    assert project.run("events", "retry", "--reason", "why").exit_code == 2
    assert project.run("events", "retry", first, "--all", "--reason", "why").exit_code == 2
    assert project.run("events", "retry", first).exit_code == 2
    assert project.run("events", "retry", first, "--reason", " ").exit_code == 2
    assert project.run("events", "retry", "999", "--reason", "why").exit_code == 3
    assert project.read("events", "retry", first, "--reason", "mended", "--by", "maria")["retried"] == [int(first)]
    assert project.run("events", "retry", first, "--reason", "mended").exit_code == 3
    assert len(project.read("events", "retry", "--all", "--reason", "the rest")["retried"]) == 1
    assert project.read("events", "retry", "--all", "--reason", "the rest")["retried"] == []
    assert rows(database, "SELECT state, count(*) FROM webhook_inbox GROUP BY state ORDER BY state") == [
        ("done", 1),
        ("new", 3),
    ]
    assert rows(database, "SELECT actor, detail ->> 'reason' FROM activity WHERE action = 'read again' ORDER BY id")[
        0
    ] == ("maria", "mended")
