"""The rights of a person from the command line and at the provider, with processes that are killed on the way."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from dripwell import bootstrap
from dripwell.core.campaign import Mailbox
from dripwell.delivery.provider import Accepted, Envelope, Mailing
from dripwell.delivery.sendgrid import SendGrid
from dripwell.sandbox.app import _check
from dripwell.sandbox.ledger import Ledger
from dripwell.services import erase
from dripwell.settings import Settings
from dripwell.storage.database import Database
from tests.conftest import ROOT
from tests.integration.command import TOPIC, Project, copy_of_the_project
from tests.integration.rows import everything
from tests.integration.test_cli_operator import SMTP

MARIA, JOE = "maria.garcia@example.com", "joe@example.com"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Sandbox:
    url: str
    state: Path

    def control(self, body: object = None) -> dict[str, Any]:
        """GET or POST /control/erasing."""
        raw = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}/control/erasing", raw, timeout=10) as answer:
            value: dict[str, Any] = json.load(answer)
            return value

    def files(self) -> bytes:
        """All that it keeps."""
        return b"".join(path.read_bytes() for path in self.state.rglob("*") if path.is_file()).lower()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    state = tmp_path / "state" / "sandbox"
    command = [sys.executable, "-m", "dripwell.sandbox", "--port", "0", "--key", bootstrap.SANDBOX_KEY]
    command += ["--state", str(state), "--seed", "7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        try:
            yield Sandbox(found[0], state)
        finally:
            process.terminate()


@pytest.fixture
def provider(sandbox: Sandbox) -> Iterator[SendGrid]:
    with closing(SendGrid(bootstrap.SANDBOX_KEY, sandbox.url)) as made:
        yield made


@pytest.fixture
def project(
    database: Database, redis_url: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Project:
    monkeypatch.chdir(tmp_path)
    at = {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url, "DRIPWELL_PROVIDER_URL": sandbox.url}
    return copy_of_the_project(tmp_path, at)


def mail(*people: tuple[str, str]) -> Mailing:
    """A call for these: address and name."""
    return Mailing(
        batch=1,
        sender=Mailbox("KCLA", "hello@mail.kcla.example"),
        reply_to="care@kcla.example",
        subject="For %n%",
        text="Hello %n%",
        html="<p>Hello %n%</p>",
        headers={},
        categories=("c1",),
        envelopes=[
            Envelope(address, UUID(int=number), {}, {"%n%": name}) for number, (address, name) in enumerate(people, 1)
        ],
    )


def rows(database: Database, statement: str) -> list[tuple[object, ...]]:
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def test_the_provider_forgets_a_person_and_keeps_what_others_got(sandbox: Sandbox, provider: SendGrid) -> None:
    call = mail((MARIA, "Mariposa"), (JOE, "Joseph"))
    assert isinstance(provider.call(call), Accepted)
    assert isinstance(provider.call(mail((JOE, "Joseph"))), Accepted)
    assert provider.find(MARIA, UUID(int=1), LONG_AGO).found
    assert b"mariposa" in sandbox.files()
    answer = provider.erase([MARIA])
    assert answer.accepted
    assert len(answer.job_id) == 32
    assert not provider.find(MARIA, UUID(int=1), LONG_AGO).found
    assert provider.find(JOE, UUID(int=2), LONG_AGO).found
    kept = sandbox.files()
    assert MARIA.encode() not in kept
    assert b"mariposa" not in kept
    assert b"joseph" in kept
    assert [each["people"] for each in sandbox.control()["requests"]] == [1]
    with urllib.request.urlopen(f"{sandbox.url}/", timeout=10) as page:
        assert MARIA.encode() not in page.read()


def test_what_is_left_of_a_sandbox_can_be_opened_again(tmp_path: Path) -> None:
    body = {
        "personalizations": [
            {"to": [{"email": address}], "substitutions": {"%n%": name}, "custom_args": {"dw_m": "0" * 32, "dw_b": "1"}}
            for address, name in ((MARIA, "Mariposa"), (JOE, "Joseph"))
        ],
        "from": {"email": "hello@mail.kcla.example"},
        "subject": "For %n%",
        "content": [{"type": "text/plain", "value": "Hello %n%"}],
    }
    read = _check(json.dumps(body).encode(), 1.0)
    book = Ledger(tmp_path, 7)
    for _ in range(3):
        book.add(read, 1.0)  # type: ignore[arg-type]
    assert book.forget(MARIA) == 3
    seen = [(book.mail(number).address, book.mail(number).subject) for number in range(1, 7)]  # type: ignore[union-attr]
    book.close()
    again = Ledger(tmp_path, 7)
    assert [(again.mail(n).address, again.mail(n).subject) for n in range(1, 7)] == seen  # type: ignore[union-attr]
    assert seen == [("x@x", ""), (JOE, "For Joseph")] * 3
    assert again.totals()["accepted"] == 6
    again.close()


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_every_refusal_of_the_provider_says_who_must_act(sandbox: Sandbox, provider: SendGrid, status: int) -> None:
    sandbox.control({"status": status})
    answer = provider.erase([MARIA])
    assert (answer.accepted, answer.at_fault) == (False, False)
    assert answer.reason.startswith(f"{status}: ")
    assert MARIA not in answer.reason
    sandbox.control({"status": None})
    assert provider.erase([MARIA]).accepted


def test_a_bad_address_is_at_fault_and_a_silent_provider_is_not(provider: SendGrid, sandbox: Sandbox) -> None:
    assert provider.erase(["no address"]).at_fault
    with closing(SendGrid(bootstrap.SANDBOX_KEY, "http://127.0.0.1:9", connect=0.5)) as nobody:
        answer = nobody.erase([MARIA])
    assert (answer.accepted, answer.at_fault) == (False, False)


def test_what_is_held_is_shown_and_erased_on_somebodys_word(
    project: Project, database: Database, sandbox: Sandbox
) -> None:
    project.added(MARIA)
    shown = project.read("subscribers", "data", MARIA)
    assert shown["subscriber"]["address"] == MARIA
    assert MARIA in project.run("subscribers", "data", MARIA).stdout
    unasked = project.run("subscribers", "erase", MARIA)
    assert unasked.exit_code == 3
    assert "--confirm" in unasked.stderr
    assert project.run("subscribers", "erase", MARIA, "--confirm", JOE).exit_code == 3
    assert rows(database, "SELECT state FROM subscriber") == [("active",)]
    sandbox.control({"status": 403})
    done = project.read("subscribers", "erase", MARIA, "--confirm", MARIA.upper(), "--by", "desk")
    assert (done["state"], done["record_is_clean"]) == ("asking", True)
    (waiting,) = project.read("subscribers", "erasures")["erasures"]
    assert (waiting["address"], waiting["answer"][:4], waiting["by"]) == (MARIA, "403:", "desk")
    listed = project.run("subscribers", "erasures").stdout
    assert "m•••a@example.com" in listed
    assert MARIA not in listed
    number = str(waiting["id"])
    assert project.run("subscribers", "erasures", "--settled", number).exit_code == 2
    project.read("subscribers", "erasures", "--settled", number, "--reason", "by hand in their console")
    assert rows(database, "SELECT state, sealed, answer FROM erasure") == [("asked", None, "settled by hand")]
    assert project.run("subscribers", "erasures", "--settled", number, "--reason", "again").exit_code == 1
    assert project.run("subscribers", "data", MARIA).exit_code == 1
    told = rows(database, "SELECT actor, action, about, detail FROM activity ORDER BY id")
    assert ("desk", "erased", "subscriber", {"erasure": waiting["id"]}) in told
    assert MARIA not in str(told)


def test_an_erasure_that_was_answered_at_the_first_try_is_listed(project: Project, database: Database) -> None:
    project.added(MARIA)
    done = project.read("subscribers", "erase", MARIA, "--confirm", MARIA)
    assert done["state"] == "asked"
    (row,) = project.read("subscribers", "erasures")["erasures"]
    assert (row["id"], row["tries"], row["asked_again_at"]) == (done["erasure"], 1, None)
    assert "1 erasure" in project.run("subscribers", "erasures", "--all").stdout
    assert rows(database, "SELECT retry_at = '-infinity' FROM erasure") == [(True,)], "nothing ever waited"


def test_staff_cannot_bring_an_erased_person_back_but_the_person_can(project: Project, database: Database) -> None:
    project.added(MARIA)
    project.read("subscribers", "erase", MARIA, "--confirm", MARIA)
    before = rows(database, "SELECT count(*) FROM subscriber")
    refused = project.run("subscribers", "add", MARIA, "--topic", "seven-part-series", "--source", "front desk")
    assert refused.exit_code == 3, refused.output
    assert "--confirm-by-email --form NAME" in refused.stderr
    assert rows(database, "SELECT count(*) FROM subscriber") == before
    assert rows(database, "SELECT count(*) FROM consent") == [(0,)]
    asked = project.run("subscribers", "add", MARIA, "--confirm-by-email", "--form", "series-request")
    assert asked.exit_code == 0, asked.output
    still = project.run("subscribers", "add", MARIA, "--topic", "seven-part-series", "--source", "front desk")
    assert still.exit_code == 3, "asked is not agreed"
    assert rows(database, "SELECT count(*) FROM consent") == [(0,)]


def test_of_an_erased_person_the_commands_say_so_and_propose_no_adding(project: Project) -> None:
    project.added(MARIA)
    project.read("subscribers", "erase", MARIA, "--confirm", MARIA)
    commands = (
        ("subscribers", "show", MARIA),
        ("subscribers", "data", MARIA),
        ("subscribers", "erase", MARIA, "--confirm", MARIA),
        ("exit", "seven-benefits", MARIA),
        ("subscribers", "add", MARIA, "--relationship", "patient"),
    )
    for command in commands:
        said = project.run(*command)
        assert said.exit_code == 1, command
        assert "was erased" in said.stderr, command
        assert f"dripwell suppressions show {MARIA}" in " ".join(said.stderr.split()), command
        assert "subscribers add" not in said.stderr, command
    for command in (("show", JOE), ("data", JOE), ("erase", JOE, "--confirm", JOE)):
        said = project.run("subscribers", *command)
        assert said.exit_code == 1, command
        assert "no subscriber has the address" in said.stderr, command
        assert "subscribers add" not in said.stderr, command


def test_what_is_held_is_told_in_the_words_of_the_persons_own_page(project: Project, database: Database) -> None:
    project.started()
    project.added(MARIA)
    project.read("enroll", "seven-benefits", MARIA)
    said = " ".join(project.run("subscribers", "data", MARIA).stdout.split())
    for words in (MARIA, "Status: you get our emails", "Seven benefits: goes on", "Yes to “Seven-part series”"):
        assert words in said
    assert "Times are Pacific time." in said
    for inner in ("{'", "None", "seven-benefits", "prospect", "+00:00", "given_at"):
        assert inner not in said, inner
    whole = project.read("subscribers", "data", MARIA)
    assert whole["subscriber"]["relationship"] == "prospect"
    assert [one["campaign"] for one in whole["series"]] == ["seven-benefits"]


def test_where_the_provider_cannot_be_asked_nobody_is_told_that_it_was(project: Project) -> None:
    relay = {**SMTP, "DRIPWELL_PROVIDER_URL": ""}
    project.read("subscribers", "add", MARIA, "--topic", TOPIC, "--source", "a test", **relay)
    said = project.run("subscribers", "erase", MARIA, "--confirm", MARIA, **relay)
    assert said.exit_code == 0, said.output
    assert "ask whoever runs it to remove their logs" in " ".join(said.stdout.split())
    assert "has taken" not in said.stdout


def test_erasing_says_what_went_what_stays_and_what_waits(project: Project, sandbox: Sandbox) -> None:
    project.added(MARIA)
    said = " ".join(project.run("subscribers", "erase", MARIA, "--confirm", MARIA).stdout.split())
    assert "Gone: the address" in said
    assert "Stays: a keyed hash" in said
    assert "The provider has taken the request" in said
    project.added(JOE)
    sandbox.control({"status": 403})
    said = " ".join(project.run("subscribers", "erase", JOE, "--confirm", JOE).stdout.split())
    assert "Waits: the provider has not taken the request yet" in said
    assert "dripwell subscribers erasures" in said
    shown = " ".join(project.run("subscribers", "erase", "--help").stdout.split())
    assert "never mailed again unless they sign up themselves" in shown


@pytest.mark.parametrize("point", erase.POINTS)
def test_a_process_that_is_killed_at_any_point_leaves_nothing_half(
    project: Project, database: Database, sandbox: Sandbox, point: str, tmp_path: Path, redis_url: str
) -> None:
    project.added(MARIA)
    project.added(JOE)
    if point == "erase_done":  # the last sweep comes two minutes later: a pass makes it
        project.read("subscribers", "erase", MARIA, "--confirm", MARIA)
        later(database)
        code = (
            "from pathlib import Path; from dripwell import bootstrap; from dripwell.settings import Settings;"
            f"i = bootstrap.connect(Settings.read(), Path('.'), {database.dsn!r}, {redis_url!r});"
            "bootstrap.run_pass(i, 'erase')"
        )
        environment = {**project.environment, "PYTHONPATH": str(ROOT), "DRIPWELL_CRASH_AT": point}
        killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    else:
        process = project.process("subscribers", "erase", MARIA, "--confirm", MARIA, DRIPWELL_CRASH_AT=point)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, errors
        assert rows(database, "SELECT scope, reason FROM suppression") == [("marketing", "erased")]
    settings = Settings(state_dir=tmp_path / "state", provider_url=sandbox.url)
    with closing(bootstrap.connect(settings, tmp_path, database.dsn, redis_url)) as installation:
        bootstrap.run_pass(installation, "erase")
        later(database)
        installation.database.engine.dispose()
        bootstrap.run_pass(installation, "erase")
    assert rows(database, "SELECT state, sealed FROM erasure") == [("done", None)]
    assert rows(database, "SELECT state, address FROM subscriber ORDER BY id") == [("erased", None), ("active", JOE)]
    assert 1 <= len(sandbox.control()["requests"]) <= 2
    with database.transaction() as connection:
        dump = everything(connection)
    assert MARIA not in str(dump)
    assert JOE in str(dump)


def later(database: Database) -> None:
    """Five minutes pass, for every connection that is opened from now on."""
    with database.transaction() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        wall = connection.execute(text("SELECT CAST(wall() + interval '5 minutes' AS text)")).scalar_one()
        connection.execute(text(f"ALTER DATABASE {name} SET dripwell.wall = '{wall}'"))
    database.engine.dispose()
