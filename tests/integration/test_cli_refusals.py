"""A wrong setting, a live provider, Ctrl-C: each gets a sentence and its exit code, never a traceback."""

from __future__ import annotations

import base64
import json
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives import serialization

from dripwell.storage.database import Database
from tests.integration.command import CAMPAIGN, REVIEWER, Project, copy_of_the_project
from tests.integration.conftest import PROVIDER_KEY

WEBHOOK_KEY = base64.b64encode(
    PROVIDER_KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
LIVE = {
    "SENDGRID_API_KEY": "SG.x",
    "DRIPWELL_PROVIDER_URL": "http://127.0.0.1:9",
    "DRIPWELL_SECRET_KEY": "one",
    "DRIPWELL_UNSUBSCRIBE_KEY": "two",
    "DRIPWELL_PEPPER": "three",
    "DRIPWELL_WEBHOOK_KEY": WEBHOOK_KEY,
}


@pytest.fixture
def project(database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})


def test_a_wrong_database_url_is_named_in_a_sentence(project: Project, database: Database) -> None:
    parts = urlsplit(database.dsn)
    place = f"{parts.hostname}:{parts.port}"
    for url, says in (
        ("mysql://127.0.0.1/x", "DATABASE_URL must start with postgresql://"),
        ("postgresql://127.0.0.1:port/x", "DATABASE_URL cannot be read"),
        ("postgresql://127.0.0.1:1/x", "PostgreSQL does not answer: is DATABASE_URL right"),
        (f"postgresql://{parts.username}:wrong@{place}{parts.path}", "DATABASE_URL is refused: wrong user or password"),
        (f"{database.dsn}_not", "DATABASE_URL names a database that does not exist"),
    ):
        result = project.run("status", "--json", DATABASE_URL=url)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"error: {says}"), url
        assert "Traceback" not in result.output
        assert json.loads(result.stdout)["kind"] in ("configuration", "unavailable")


def test_a_redis_url_that_is_none_is_named_before_anything_starts(project: Project) -> None:
    for url, says in (
        ("http://someone:word@127.0.0.1/0", "REDIS_URL must start with redis://"),
        ("redis://someone:word@127.0.0.1:port/0", "REDIS_URL cannot be read"),
    ):
        for command in ("status", "run"):
            result = project.run(command, REDIS_URL=url)
            assert result.exit_code == 1
            assert result.stderr.startswith(f"error: {says}"), url
            assert "word" not in result.output


def test_a_setting_that_does_not_exist_lists_those_that_do(project: Project) -> None:
    result = project.run("status", DRIPWELL_SECRET="x")
    assert result.exit_code == 1
    assert "DRIPWELL_SECRET is not a setting" in result.stderr
    assert "DRIPWELL_SECRET_KEY" in result.stderr


def test_the_password_of_the_database_is_never_printed(project: Project, database: Database) -> None:
    parts = urlsplit(database.dsn)
    url = f"postgresql://{parts.username}:hunter2-secret@{parts.hostname}:{parts.port}{parts.path}"
    for arguments in (("status",), ("status", "--json"), ("plan",)):
        assert "hunter2-secret" not in project.run(*arguments, DATABASE_URL=url).output


def test_a_live_start_is_refused_while_approval_is_missing_or_a_fact_is_a_placeholder(project: Project) -> None:
    project.read("apply", CAMPAIGN)
    unapproved = project.run("start", CAMPAIGN, **LIVE)
    assert unapproved.exit_code == 3
    assert unapproved.stderr.endswith(f"dripwell approve {CAMPAIGN} --by {REVIEWER}\n")
    project.read("approve", CAMPAIGN, "--by", REVIEWER)
    placeholders = project.run("start", CAMPAIGN, **LIVE)
    assert placeholders.exit_code == 3
    assert "`hello@mail.kcla.example` is a placeholder" in placeholders.stderr
    assert placeholders.stderr.endswith(f"dripwell lint {CAMPAIGN} --live\n")
    assert project.read("status")["campaigns"][0]["state"] == "draft"


def test_a_live_provider_needs_every_secret(project: Project) -> None:
    for name in ("DRIPWELL_PEPPER", "DRIPWELL_UNSUBSCRIBE_KEY", "DRIPWELL_SECRET_KEY", "DRIPWELL_WEBHOOK_KEY"):
        result = project.run("status", **{**LIVE, name: ""})
        assert result.exit_code == 1
        assert name in result.stderr


def test_time_is_not_moved_with_a_live_provider_or_without_anybody_who_works(project: Project) -> None:
    live = project.run("clock", "forward", "2", "days", **LIVE)
    assert live.exit_code == 3
    assert "SENDGRID_API_KEY" in live.stderr
    alone = project.run("clock", "forward", "2 days", "--json")
    assert alone.exit_code == 3
    assert json.loads(alone.stdout)["kind"] == "refused"
    assert alone.stderr.endswith("then again: dripwell clock forward 2 days\n")
    for wrong in ("2 dyas", "0 days", "-1 days", "soon"):
        assert project.run("clock", "forward", "--", *wrong.split()).exit_code == 2
    assert project.read("status")["ahead_seconds"] == 0


def test_ctrl_c_ends_with_130_and_no_traceback(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x"
        process = project.process("status", DATABASE_URL=url)
        accepted, _ = silent.accept()  # it now waits for a server that says nothing
        with accepted:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert err.strip() == "stopped"


def test_the_module_is_the_same_program_and_keeps_results_and_notes_apart(project: Project) -> None:
    process = project.process("plan", CAMPAIGN, "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["changes"] == 7
    assert err == ""
    process = project.process("plan", "seven-benefit")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert err.startswith("error: there is no campaign `seven-benefit`")


def test_a_closed_pipe_is_no_traceback(project: Project) -> None:
    process = project.process("plan", CAMPAIGN)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        err = process.stderr.read()
    assert process.wait(timeout=60) in (0, 1)
    assert "Traceback" not in err
