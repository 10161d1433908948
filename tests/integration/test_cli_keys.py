"""`dripwell keys`: a key is shown once, listed by its beginning, and out of force when revoked."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from dripwell.storage.database import Database
from tests.integration.command import Project, copy_of_the_project


@pytest.fixture
def project(tmp_path: Path, database: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})
    monkeypatch.chdir(made.root)
    return made


def test_a_key_is_shown_once_listed_by_its_beginning_and_revoked_by_name(project: Project, database: Database) -> None:
    added = project.read("keys", "add", "desk", "--scope", "enroll", "--scope", "events:write", "--by", "maria")
    assert added["key"].startswith("dw_")
    assert len(added["key"]) == 46
    assert added["scopes"] == ["enroll", "events:write"]

    listed = project.run("keys", "list")
    (one,) = project.read("keys", "list")["keys"]
    assert (one["name"], one["state"], one["last_used"], one["made_by"]) == ("desk", "in force", None, "maria")
    assert one["begins"] == added["key"][:9]
    assert added["key"][9:] not in listed.output

    assert project.run("keys", "add", "desk", "--scope", "enroll").exit_code == 3
    assert project.read("keys", "revoke", "desk", "--by", "maria")["state"] == "revoked"
    assert project.run("keys", "revoke", "desk").exit_code == 1
    assert project.read("keys", "list")["keys"][0]["state"] == "revoked"
    with database.transaction() as connection:
        done = list(connection.execute(text("SELECT action FROM activity WHERE about = 'desk' ORDER BY id")).scalars())
        kept = str(list(connection.execute(text("SELECT * FROM activity"))))
    assert done == ["key added", "key revoked"]
    assert added["key"] not in kept


@pytest.mark.parametrize(
    "arguments", [("desk",), ("desk", "--scope", "everything"), ("Front Desk", "--scope", "enroll")]
)
def test_a_key_needs_a_plain_name_and_a_scope_there_is(project: Project, arguments: tuple[str, ...]) -> None:
    assert project.run("keys", "add", *arguments).exit_code == 2
