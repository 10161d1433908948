"""Mail that comes back, from a file to the person's record; and who a provider without an agreement must not mail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from dripwell.bootstrap import Installation
from dripwell.cli.bounces import keep
from dripwell.content.importing.judge import judged, laid_out
from dripwell.content.importing.values import Reading, Rules, Statement
from dripwell.core.errors import RefusedError, UnavailableError
from dripwell.delivery.dsn import LARGEST
from dripwell.delivery.smtp import Smtp
from dripwell.services import enroll, importing, ingest, publish
from dripwell.storage import clock, subscribers
from dripwell.storage.database import Connection, Database
from tests.integration import rows
from tests.integration.command import CAMPAIGN, TOPIC, Project, copy_of_the_project
from tests.integration.conftest import Mailed

FOLDER = Path(__file__).parents[1] / "data" / "bounces"
NOW = datetime(2026, 11, 2, 17, tzinfo=UTC)


@pytest.fixture
def by_smtp(installation: Installation) -> Iterator[Installation]:
    provider = Smtp("127.0.0.1", 25, now=lambda: NOW, security="none")
    yield replace(installation, provider=provider, door=provider)  # type: ignore[arg-type]
    provider.close()


def one(connection: Connection, statement: str) -> tuple[object, ...]:
    return tuple(connection.execute(text(statement)).one())


def about(sample: str, mailed: Mailed) -> bytes:
    """A sample, as if it spoke of this person's email."""
    with mailed.installation.database.snapshot() as connection:
        batch, message = one(connection, f"SELECT batch_id, public_id FROM message WHERE id = {mailed.message}")
    raw = (FOLDER / f"{sample}.eml").read_bytes()
    marked = raw.replace(b"0123456789abcdef0123456789abcdef", str(message).replace("-", "").encode())
    return marked.replace(b"4711", str(batch).encode())


def take_in(installation: Installation, *mails: bytes) -> None:
    kept: list[str] = []
    keep(installation, [(str(number), mail) for number, mail in enumerate(mails)], kept, [])
    assert len(kept) == len(mails)
    assert installation.door is not None
    ingest.ingest(installation.database, installation.door, out_of_time=lambda: False)


@pytest.mark.parametrize(
    ("samples", "delivery", "ledger"),
    [
        (["postfix-delayed"], "deferred", None),
        (["postfix-delayed", "postfix-relayed"], "delivered", None),
        (["full-mailbox"], "bounced", None),
        (["postfix-unknown-user"], "bounced", ("all", "undeliverable")),
        (["postfix-unknown-user", "postfix-delayed"], "bounced", ("all", "undeliverable")),
        (["exim-words"], "bounced", ("all", "undeliverable")),
        (["complaint"], "complained", ("all", "complained")),
        (["not-spam"], None, None),
        (["vacation", "reply", "no-mark"], None, None),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_a_mail_that_came_back_moves_the_record_of_the_person_it_is_about(
    by_smtp: Installation, mailed: Mailed, samples: list[str], delivery: str | None, ledger: tuple[str, str] | None
) -> None:
    mails = [about(sample, mailed) for sample in samples]
    take_in(by_smtp, *mails, *mails)
    with by_smtp.database.snapshot() as connection:
        assert one(connection, f"SELECT delivery FROM message WHERE id = {mailed.message}") == (delivery,)
        found = connection.execute(text("SELECT scope, reason FROM suppression ORDER BY seq")).all()
        assert [tuple(row) for row in found] == ([ledger] if ledger else [])
        assert one(connection, "SELECT count(*), count(*) FILTER (WHERE state = 'done') FROM webhook_inbox") == (
            2 * len(mails),
            2 * len(mails),
        )
        assert one(connection, "SELECT count(*) FROM provider_event") == (len(mails),)
        kept = one(connection, "SELECT coalesce(string_agg(CAST(detail AS text), ''), '') FROM provider_event")
        assert "@" not in str(kept[0])


def test_a_stranger_who_names_an_address_changes_nothing(by_smtp: Installation, mailed: Mailed) -> None:
    forged = (FOLDER / "postfix-unknown-user.eml").read_bytes()  # the right address, a message id that is none of ours
    take_in(by_smtp, forged)
    with by_smtp.database.snapshot() as connection:
        assert one(connection, "SELECT count(*) FROM suppression") == (0,)
        assert one(connection, f"SELECT delivery FROM message WHERE id = {mailed.message}") == (None,)


def test_a_mail_that_is_none_is_set_aside_and_the_others_are_read(by_smtp: Installation, mailed: Mailed) -> None:
    take_in(by_smtp, b"\0\xff no mail", about("postfix-unknown-user", mailed))
    with by_smtp.database.snapshot() as connection:
        states = connection.execute(text("SELECT state FROM webhook_inbox ORDER BY id")).scalars().all()
        assert states[1] == "done"
        assert states[0] in ("new", "quarantined")
        assert one(connection, f"SELECT delivery FROM message WHERE id = {mailed.message}") == ("bounced",)


def test_what_cannot_be_taken_is_listed_and_the_rest_is_kept(by_smtp: Installation) -> None:
    kept: list[str] = []
    bad: list[dict[str, str]] = []
    keep(by_smtp, [("a", "is empty"), ("b", b"From: x\r\n\r\n")], kept, bad)
    assert (kept, bad) == (["b"], [{"file": "a", "reason": "is empty"}])
    with by_smtp.database.snapshot() as connection:
        assert one(connection, "SELECT raw FROM webhook_inbox") == (b"From: x\r\n\r\n",)


def test_an_installation_that_mails_through_sendgrid_takes_none(installation: Installation) -> None:
    with pytest.raises(RefusedError, match="webhook"):
        keep(installation, [("a", b"From: x\r\n\r\n")], [], [])


def test_a_record_that_is_away_is_said_so_that_the_mail_comes_again(by_smtp: Installation) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none", pool=1)
    kept: list[str] = []
    with pytest.raises(UnavailableError):
        keep(replace(by_smtp, database=away), [("a", b"From: x\r\n\r\n")], kept, [])
    away.close()
    assert kept == []


@pytest.fixture
def project(database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})


def test_the_command_says_why_it_refuses(project: Project) -> None:
    found = project.run("bounces", "read", "nowhere.eml")
    assert found.exit_code == 75
    assert "DRIPWELL_SMTP_URL" in found.stderr
    assert "docs/how-to/smtp.md" in found.stderr


def test_files_are_kept_by_the_command_and_what_cannot_be_is_listed(project: Project, database: Database) -> None:
    live = {
        "DRIPWELL_SMTP_URL": "smtp://127.0.0.1:25",
        "DRIPWELL_SECRET_KEY": "a",
        "DRIPWELL_UNSUBSCRIBE_KEY": "b",
        "DRIPWELL_PEPPER": "c",
    }
    (project.root / "empty.eml").write_bytes(b"\r\n")
    (project.root / "large.eml").write_bytes(b"Subject: x\r\n\r\n" + b"x" * LARGEST)
    good = str(FOLDER / "reply.eml")
    found = project.run("bounces", "read", good, "empty.eml", "large.eml", "missing.eml", "--json", **live)
    assert found.exit_code == 1
    value = json.loads(found.stdout)
    assert value["kept"] == [good]
    assert [(row["file"], row["reason"]) for row in value["bad"]] == [
        ("empty.eml", "is empty"),
        ("large.eml", "is larger than 5 MB"),
        ("missing.eml", "cannot be read: No such file or directory"),
    ]
    assert project.run("bounces", "read", good, **live).exit_code == 0
    with database.snapshot() as connection:
        assert one(connection, "SELECT count(*) FROM webhook_inbox WHERE raw LIKE 'From: Maria%'") == (2,)
    away = project.run("bounces", "read", good, **live, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert away.exit_code == 75


def test_five_megabytes_are_the_limit_of_reader_and_inbox_alike() -> None:
    assert LARGEST == 5 * 1024 * 1024


# Patients


def relationship(connection: Connection, address: str, pepper: bytes) -> str:
    found = enroll.find(connection, address, pepper)
    return found.relationship


def imported(installation: Installation, folder: Path, content: str) -> importing.Imported:
    path = folder / "people.csv"
    path.write_text(content, encoding="utf-8")
    with installation.database.transaction() as connection:
        now = clock.read(connection).now
    return importing.bring_in(
        installation.database,
        path,
        Rules(Statement((TOPIC,), "a test", "", now), frozenset({TOPIC}), now, UTC),
        pepper=installation.pepper,
        versions=installation.versions,
        new_id=installation.new_id,
        actor="a test",
    )


def test_an_import_says_who_is_a_patient_and_never_takes_it_back(installation: Installation, tmp_path: Path) -> None:
    first = imported(
        installation, tmp_path, "email,Relationship\na@example.com,Patient\nb@example.com,\nc@example.com,prospect\n"
    )
    assert (first.added, first.unsaid) == (3, 1)
    imported(
        installation,
        tmp_path,
        "email,relationship\na@example.com,prospect\nb@example.com,patient\nc@example.com,unknown\n",
    )
    imported(installation, tmp_path, "email\na@example.com\nc@example.com\nd@example.com\n")
    with installation.database.snapshot() as connection:
        found = {who: relationship(connection, f"{who}@example.com", installation.pepper) for who in "abcd"}
    assert found == {"a": "patient", "b": "patient", "c": "prospect", "d": "unknown"}


def test_a_relationship_nobody_knows_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("email,relationship\na@example.com,customer\n", encoding="utf-8")
    now = datetime(2026, 11, 23, tzinfo=UTC)
    rules = Rules(Statement((TOPIC,), "a test", "", now), frozenset({TOPIC}), now, UTC)
    (row,) = judged(path, laid_out(path, Reading()), Reading(), rules)
    assert getattr(row, "reason", "") == "`customer` is not a relationship: write prospect, patient, unknown"


def test_one_person_is_corrected_by_name(project: Project) -> None:
    def shown() -> str:
        return str(project.read("subscribers", "show", "maria@example.com")["relationship"])

    given = ("subscribers", "add", "maria@example.com", "--topic", TOPIC, "--source", "front desk")
    project.read(*given)
    assert shown() == "prospect"
    project.read(*given, "--relationship", "patient")
    assert shown() == "patient"
    assert "relationship patient" in project.run("subscribers", "show", "maria@example.com").stdout
    project.read(*given)
    assert shown() == "patient"
    project.read(*given, "--relationship", "unknown")
    assert shown() == "unknown"
    assert project.run(*given, "--relationship", "friend").exit_code == 2


def test_an_import_says_how_many_rows_leave_it_open(project: Project) -> None:
    (project.root / "people.csv").write_text("email\na@example.com\nb@example.com\n", encoding="utf-8")
    given = ("subscribers", "import", "people.csv", "--topic", TOPIC, "--source", "paper", "--given-at", "now")
    assert "2 rows do not say whether the person is a patient" in project.run(*given, "--dry-run").stdout
    assert project.read(*given)["relationship_unknown"] == 2


def started(installation: Installation, *, live: bool, baa: bool) -> None:
    with installation.database.transaction() as connection:
        publish.start(connection, CAMPAIGN, actor="test", live=live, baa=baa, versions=installation.versions)


@pytest.fixture
def approved(installation: Installation) -> Installation:
    """The campaign, applied and approved, with every fact of the clinic settled as far as `start` can see."""
    sources = installation.sources(CAMPAIGN)
    with installation.database.transaction() as connection:
        publish.apply(
            connection, sources, CAMPAIGN, actor="test", live=False,
            versions=installation.versions, new_id=installation.new_id,
        )  # fmt: skip
        publish.approve(connection, CAMPAIGN, actor="clinical-review@kcla.example", versions=installation.versions)
    return installation


def patient(installation: Installation, address: str, *, topics: tuple[str, ...] = (TOPIC,)) -> int:
    with installation.database.transaction() as connection:
        identity = rows.subscriber(connection, address, topics=topics, pepper=installation.pepper)
        connection.execute(text(f"UPDATE subscriber SET relationship = 'patient' WHERE id = {identity}"))
    return identity


def test_whom_a_campaign_would_mail_is_counted_with_those_it_mails_already(approved: Installation) -> None:
    patient(approved, "agreed@example.com")
    patient(approved, "elsewhere@example.com", topics=("monthly-notes",))
    inside = patient(approved, "inside@example.com", topics=())
    gone = patient(approved, "gone@example.com")
    with approved.database.transaction() as connection:
        rows.subscriber(connection, "prospect@example.com", pepper=approved.pepper)
        connection.execute(text(f"UPDATE subscriber SET state = 'unsubscribed' WHERE id = {gone}"))
        row = publish.existing(connection, CAMPAIGN)
        assert subscribers.patients(connection, row.id, TOPIC) == 1
        assert row.version_id is not None
        rows.enrollment(connection, inside, row.id, row.version_id)
        assert subscribers.patients(connection, row.id, TOPIC) == 2


def test_patients_keep_a_campaign_from_starting_live_without_an_agreement(approved: Installation) -> None:
    patient(approved, "maria@example.com")
    patient(approved, "sam@example.com")
    with pytest.raises(RefusedError) as caught:
        started(approved, live=True, baa=False)
    assert str(caught.value).startswith(f"D510 2 patients are in {CAMPAIGN} or may join it")
    assert "DRIPWELL_SMTP_BAA=yes" in str(caught.value)
    with pytest.raises(RefusedError, match="D513") as caught:
        started(approved, live=True, baa=True)  # with one it is only the clinic's placeholders that stand in the way
    assert "D510" not in str(caught.value)
    started(approved, live=False, baa=False)  # nobody is mailed by the sandbox
    with approved.database.snapshot() as connection:
        assert publish.existing(connection, CAMPAIGN).state == "running"


def test_prospects_keep_nothing_from_starting(approved: Installation) -> None:
    with approved.database.transaction() as connection:
        rows.subscriber(connection, "maria@example.com", pepper=approved.pepper)
    with pytest.raises(RefusedError) as caught:
        started(approved, live=True, baa=False)
    assert "D510" not in str(caught.value)


def test_json_and_exit_code_of_a_refusal(project: Project) -> None:
    found = project.run("bounces", "read", "--json")
    assert found.exit_code == 75
    assert json.loads(found.stdout)["kind"] == "refused"
