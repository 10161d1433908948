"""What an operator is told: why mail stands still, what a live start lacks, who a person is to the clinic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from dripwell.cli.main import Program
from dripwell.cli.output import Answer, answers
from dripwell.storage import clock, witness
from dripwell.storage.database import Database
from tests.integration.command import CAMPAIGN, TOPIC, Project, copy_of_the_project
from tests.integration.test_cli_refusals import LIVE

SMTP = {
    **{name: value for name, value in LIVE.items() if name.endswith(("_KEY", "_PEPPER")) and "WEBHOOK" not in name},
    "SENDGRID_API_KEY": "",
    "DRIPWELL_SMTP_URL": "smtp+starttls://user:hunter2@127.0.0.1:9",
}
MARIA = "maria@example.com"


@pytest.fixture
def project(database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})


def change(database: Database, statement: str, **values: Any) -> None:
    with database.transaction() as connection:
        connection.execute(text(statement), values)


def activity(database: Database) -> list[tuple[object, ...]]:
    with database.snapshot() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT actor, action, detail FROM activity"))]


# What stands still


def test_status_says_first_that_nobody_is_called(project: Project, database: Database) -> None:
    calm = project.read("status")
    assert (calm["quarantine"], calm["clock_alarm"]) == (None, None)
    assert "QUARANTINE" not in project.run("status").stdout
    with database.transaction() as connection:
        witness.quarantine(connection, "The database ends with batch 3; batch 9 is remembered.")
        clock.raise_alarm(connection, "the database's clock jumped ahead by 2:00:00")
    value = project.read("status")
    assert value["quarantine"]["reason"] == "The database ends with batch 3; batch 9 is remembered."
    assert value["quarantine"]["since"].startswith("20")
    assert value["clock_alarm"] == "the database's clock jumped ahead by 2:00:00"
    lines = project.run("status").stdout.splitlines()
    assert lines[2].startswith("! QUARANTINE since ")
    assert lines[2].endswith(": nobody is called.")
    assert lines[4].strip() == "Go on: dripwell quarantine show"
    lanes = [line for line in lines if line.split()[:1] in (["confirm"], ["booking"], ["drip"], ["newsletter"])]
    assert len(lanes) == 4
    assert all(line.endswith("stopped: quarantine") for line in lanes)


def test_an_alarm_of_the_clock_stops_campaigns_and_nothing_else(project: Project, database: Database) -> None:
    with database.transaction() as connection:
        clock.raise_alarm(connection, "the database's clock jumped ahead by 2:00:00")
    shown = project.run("status").stdout
    assert "! the database's clock jumped ahead by 2:00:00: planning and campaign emails stand still." in shown
    assert "dripwell clock accept --reason" in shown
    ends = {line.split()[0]: line for line in shown.splitlines() if line.startswith("  ") and line.split()}
    assert ends["drip"].endswith("stopped: the clock is in doubt")
    assert ends["confirm"].endswith("go out")


def test_a_call_of_unknown_outcome_is_told_apart_from_other_work(project: Project, database: Database) -> None:
    assert project.read("status")["being_checked"] == 0
    change(
        database,
        "INSERT INTO batch (provider, lane, campaign_id, step_key, version_id, state, owner_nonce, host, boot_id, pid,"
        " lease_until, called_at, message_ids)"
        " SELECT 'sendgrid', 'confirm', id, 'confirm', version_id, 'UNKNOWN', gen_random_uuid(), 'host', 'boot', 1,"
        " now(), now(), '{}' FROM campaign WHERE name = 'confirm'",
    )
    assert project.read("status")["being_checked"] == 1
    assert "in work: 1 call being checked" in project.run("status").stdout


def test_status_says_which_way_mail_goes(project: Project) -> None:
    assert "sandbox: nothing leaves this machine" in project.run("status").stdout
    assert project.run("status", **LIVE).stdout.startswith("live: SendGrid ")
    by_smtp = project.run("status", **SMTP).stdout
    assert by_smtp.startswith("live: SMTP through 127.0.0.1:9, no agreement for health data ")
    assert "hunter2" not in by_smtp
    value = project.read("status", **SMTP, DRIPWELL_SMTP_BAA="yes")
    assert (value["provider"], value["relay"], value["agreement"]) == ("smtp", "127.0.0.1:9", True)


# Going live


def test_what_mails_or_serves_refuses_a_live_provider_with_invented_facts(project: Project) -> None:
    for live, variable in ((LIVE, "SENDGRID_API_KEY"), (SMTP, "DRIPWELL_SMTP_URL")):
        for command in ("run", "web", "worker"):
            found = project.run(command, **live)
            assert found.exit_code == 1, command
            assert "1 Placeholder Street, Suite 0, Los Angeles, CA 00000, (555) 010-0142" in found.stderr
            assert f"unset {variable}" in found.stderr
    assert not (project.root / "state" / "run.lock").exists()


def test_run_names_what_a_live_start_lacks_once_and_starts_nothing(project: Project) -> None:
    found = project.run("run", **{**LIVE, "DRIPWELL_PEPPER": "", "DRIPWELL_SECRET_KEY": ""})
    assert found.exit_code == 1
    assert found.stderr.count("DRIPWELL_SECRET_KEY, DRIPWELL_PEPPER must be set") == 1
    assert "DRIPWELL_WEBHOOK_KEY is missing" in project.run("run", **{**LIVE, "DRIPWELL_WEBHOOK_KEY": ""}).stderr
    assert not list((project.root / "state").glob("*")), "nothing was started"


def test_the_setting_that_makes_it_live_is_the_one_that_is_named(project: Project) -> None:
    for command in (("clock", "forward", "2", "days"), ("demo", "--once")):
        found = project.run(*command, **SMTP)
        assert found.exit_code == 3
        assert "unset DRIPWELL_SMTP_URL" in found.stderr
        assert "SENDGRID_API_KEY" not in found.stderr


@pytest.mark.parametrize("url", ["relay.example:587", "smtps+starttls://relay.example", "http://relay.example"])
def test_an_smtp_url_that_is_none_names_the_ways_the_safest_first(project: Project, url: str) -> None:
    found = project.run("status", **{**SMTP, "DRIPWELL_SMTP_URL": url})
    assert found.exit_code == 1
    assert "DRIPWELL_SMTP_URL must start with smtp+starttls://, smtps:// or smtp://" in found.stderr


def test_a_yes_that_is_none_says_what_to_write(project: Project) -> None:
    found = project.run("status", **SMTP, DRIPWELL_SMTP_BAA="maybe")
    assert found.exit_code == 1
    assert found.stderr == "error: DRIPWELL_SMTP_BAA: write yes or no\n"


# Who somebody is to the clinic


def test_a_patient_is_not_told_to_wait_for_an_email_that_never_comes(project: Project, database: Database) -> None:
    asked = ("subscribers", "add", MARIA, "--confirm-by-email", "--form", "series-request")
    found = project.run(*asked, "--relationship", "patient", "--json")
    assert found.exit_code == 3
    assert json.loads(found.stdout)["kind"] == "refused"
    assert "DRIPWELL_SMTP_BAA=yes" in found.stderr
    assert "docs/how-to/smtp.md" in found.stderr
    with database.snapshot() as connection:
        assert connection.execute(text("SELECT count(*) FROM subscriber")).scalar_one() == 0
    signed = project.read(*asked, "--relationship", "Patient", **SMTP, DRIPWELL_SMTP_BAA="yes")
    assert (signed["confirmation"], signed["relationship"]) == ("planned", "patient")


def test_why_a_patient_is_not_mailed_stands_in_plain_words(project: Project, database: Database) -> None:
    project.read("subscribers", "add", MARIA, "--confirm-by-email", "--form", "series-request")
    change(database, "UPDATE message SET state = 'SKIPPED', reason = 'no_baa'")
    shown = project.run("subscribers", "show", MARIA).stdout
    assert "not mailed: a patient, and the provider has signed no agreement for health data" in shown
    assert "no baa" not in shown


def test_a_correction_of_the_relationship_is_said_and_written_down(project: Project, database: Database) -> None:
    given = ("subscribers", "add", MARIA, "--topic", TOPIC, "--source", "front desk")
    assert project.read(*given, "--relationship", "PATIENT")["relationship"] == "patient"
    assert "relationship: patient → prospect" in project.run(*given, "--relationship", "prospect", "--by", "ana").stdout
    assert "relationship prospect" in project.run("subscribers", "show", MARIA).stdout
    back = project.read("subscribers", "add", MARIA, "--relationship", "patient", "--by", "ben")
    assert (back["was"], back["relationship"]) == ("prospect", "patient")
    assert len(project.read("subscribers", "show", MARIA)["consents"]) == 1
    same = project.run("subscribers", "add", MARIA, "--relationship", "patient")
    assert "is kept as patient already" in same.stdout
    with database.snapshot() as connection:
        person = connection.execute(text("SELECT id FROM subscriber")).scalar_one()
    assert activity(database) == [
        ("ana", "relationship corrected", {"subscriber": person, "from": "patient", "to": "prospect"}),
        ("ben", "relationship corrected", {"subscriber": person, "from": "prospect", "to": "patient"}),
    ]


def test_nobody_is_added_by_a_relationship_alone(project: Project) -> None:
    found = project.run("subscribers", "add", MARIA, "--relationship", "patient")
    assert found.exit_code == 1
    assert "--topic TOPIC --source WORDS" in found.stderr


# Wrong words and numbers


def test_a_reason_is_words_wherever_one_is_asked_for(project: Project) -> None:
    for command in (
        ("held", "release", "1"),
        ("held", "skip", "1"),
        ("brake", "release", "marketing"),
        ("quarantine", "begin"),
        ("quarantine", "lift"),
        ("clock", "accept"),
        ("events", "retry", "--all"),
    ):
        for blank in ("", "  ", " - "):
            found = project.run(*command, "--reason", blank)
            assert found.exit_code == 2, command
            assert "write words" in found.stderr


@pytest.mark.parametrize("number", ["0", str(2**63), "99999999999999999999"])
def test_a_number_no_row_can_have_is_wrong_usage(project: Project, number: str) -> None:
    for command in (
        ("held", "release", number, "--reason", "said so"),
        ("held", "skip", number, "--reason", "said so"),
        ("held", "skip", "--batch", number, "--reason", "said so"),
        ("events", "retry", number, "--reason", "said so"),
    ):
        assert project.run(*command).exit_code == 2, command
    assert project.run("quarantine", "replay", "--hold-since", "99999999999").exit_code == 2


def test_a_message_that_is_not_held_is_not_counted(project: Project) -> None:
    found = project.run("held", "release", "4711", "--reason", "support says no")
    assert found.exit_code == 1
    assert "message 4711 is not held" in found.stderr
    assert "would be mailed" not in found.stderr


def test_a_brake_there_is_none_of_names_those_there_are(project: Project) -> None:
    found = project.run("brake", "release", "foo", "--reason", "just so")
    assert found.exit_code == 2
    assert "there is no scope `foo`; there are: marketing, lane:drip, lane:newsletter, group:gmail" in found.stderr
    assert project.run("brake", "release", "group:gmail", "--reason", "just so").exit_code == 1
    assert "dripwell resume" in project.run("brake", "release", f"campaign:{CAMPAIGN}", "--reason", "so").stderr


def test_a_folder_without_a_journal_is_not_read_as_an_empty_one(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for command in ("show", "replay"):
        found = project.run("quarantine", command, "--journal", str(folder))
        assert found.exit_code == 1
        assert f"no journal in {folder}: name the folder that holds calls-….journal" in found.stderr


def test_bounces_wait_while_the_installation_is_wrong(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "a.eml").write_bytes(b"Subject: x\r\n\r\nx")
    read = ("bounces", "read", "a.eml", "--json")
    for changes, kind in (
        ({**SMTP, "DRIPWELL_PEPPER": ""}, "configuration"),
        ({**SMTP, "DRIPWELL_SMTP_URL": "relay"}, "configuration"),
        ({**SMTP, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, "unavailable"),
        ({}, "refused"),
    ):
        found = project.run(*read, **changes)
        assert (found.exit_code, json.loads(found.stdout)["kind"]) == (75, kind)
    (project.root / "empty.eml").write_bytes(b"")
    none = project.run("bounces", "read", "empty.eml", **SMTP)
    assert none.exit_code == 1
    assert none.stdout.endswith("0 mails kept, 1 refused.\n")
    monkeypatch.chdir("/")
    assert project.run(*read, **SMTP).exit_code == 75


def test_a_fault_of_ours_is_a_sentence_that_repeats_no_address() -> None:
    @click.command()
    @answers
    def broken() -> Answer:
        raise ValueError(f"bad value for {MARIA}")

    class WithAFault(Program):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return broken

    group = WithAFault("dripwell")
    found = CliRunner().invoke(group, ["broken", "--json"])
    assert found.exit_code == 1
    value = json.loads(found.stdout)
    assert value["kind"] == "failed"
    assert "ValueError at " in value["error"]
    assert MARIA not in found.output
    assert "Traceback" not in found.output


# Files


def test_plan_warns_of_a_warm_up_that_begins_next_year(project: Project) -> None:
    site = project.root / "config" / "site.yaml"
    words = site.read_text(encoding="utf-8")
    site.write_text(f"{words}\nwarm_up:\n  first_day: 2199-01-05\n", encoding="utf-8")
    (plan,) = project.read("plan", CAMPAIGN)["plans"]
    assert [problem["code"] for problem in plan["problems"] if problem["code"] == "D205"] == ["D205"]
    assert "until then no campaign email goes out" in json.dumps(plan["problems"])
    with_a_near_day = words + "\nwarm_up:\n  first_day: 2020-01-06\n"
    site.write_text(with_a_near_day, encoding="utf-8")
    (plan,) = project.read("plan", CAMPAIGN)["plans"]
    assert "D205" not in json.dumps(plan["problems"])
