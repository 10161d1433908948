"""Commands on a real record: what they store, what they refuse, and what programs get to read."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from dripwell.bootstrap import Connection
from dripwell.storage import bookings, clock
from dripwell.storage.database import Database
from tests.integration.command import CAMPAIGN, REVIEWER, TOPIC, Project, copy_of_the_project

CSV = """\
email,first_name,timezone,tags
maria@example.com,Maria,America/Denver,a;b
MARIA@Example.com,Again,,
not-an-address,X,,
sam@example.com,Sam,Mars/Base,
lee@example.com,Lee,,,extra
zoe@example.com,Zoe,,
"""


@pytest.fixture
def project(database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})


def rows(connection: Connection, statement: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in connection.execute(text(statement))]


def test_from_files_to_a_running_campaign(project: Project, database: Database) -> None:
    (plan,) = project.read("plan", CAMPAIGN)["plans"]
    assert (plan["version_now"], plan["version_next"], len(plan["changes"])) == (None, 1, 7)
    assert project.run("plan", CAMPAIGN, "--exit-code").exit_code == 4

    wrong = project.run("apply", CAMPAIGN, "--plan", "00000000")
    assert wrong.exit_code == 3
    assert wrong.stderr.endswith(f"Look again: dripwell plan {CAMPAIGN}\n")
    applied = project.read("apply", CAMPAIGN, "--plan", plan["id"], "--by", "maria")
    assert (applied["number"], applied["changed"], applied["approved"]) == (1, True, False)
    assert project.read("apply", CAMPAIGN)["changed"] is False

    early = project.run("start", CAMPAIGN, "--json")
    assert early.exit_code == 3
    assert json.loads(early.stdout)["kind"] == "refused"
    assert f"dripwell approve {CAMPAIGN} --by {REVIEWER}" in early.stderr
    assert project.run("approve", CAMPAIGN, "--by", "somebody@else.example").exit_code == 3
    assert project.read("approve", CAMPAIGN, "--by", REVIEWER)["next"] == f"dripwell start {CAMPAIGN}"
    assert project.read("start", CAMPAIGN) == {
        "version": 1,
        "campaign": CAMPAIGN,
        "number": 1,
        "state": "running",
        "changed": True,
    }
    assert project.read("start", CAMPAIGN)["changed"] is False
    with database.snapshot() as connection:
        done = rows(connection, "SELECT actor, action FROM activity ORDER BY id")
    assert [action for _, action in done] == ["applied", "approved", "started"]
    assert done[:2] == [("maria", "applied"), (REVIEWER, "approved")]
    assert project.run("plan", "--exit-code").exit_code == 0


def test_a_running_campaign_gets_no_words_that_nobody_approved(project: Project) -> None:
    project.started()
    project.edit("subject: How a mind makes room for change", "subject: How a mind makes more room")
    refused = project.run("apply", CAMPAIGN)
    assert refused.exit_code == 3
    assert refused.stderr.endswith(f"dripwell pause {CAMPAIGN}\n")
    project.read("pause", CAMPAIGN)
    assert project.read("apply", CAMPAIGN)["number"] == 2
    assert project.run("resume", CAMPAIGN).exit_code == 3
    project.read("approve", CAMPAIGN, "--by", REVIEWER)
    assert project.read("resume", CAMPAIGN)["state"] == "running"


def test_a_plan_says_whom_a_change_touches(project: Project) -> None:
    project.started()
    project.added("maria@example.com")
    project.read("enroll", CAMPAIGN, "maria@example.com")
    project.edit("subject: How a mind makes room for change", "subject: How a mind makes more room")
    shown = project.run("plan", CAMPAIGN)
    assert shown.exit_code == 0
    assert "version 1 → 2" in shown.stdout
    assert "1 person is in this campaign now" in shown.stdout
    assert "1 have not reached 1-adaptability and get the new words" in shown.stdout
    assert "0 to add, 1 to change, 0 to remove. Nothing has left, nothing has changed." in shown.stdout
    assert f"{REVIEWER} has to approve this version" in shown.stdout


def test_broken_files_are_listed_and_nothing_is_stored(project: Project, database: Database) -> None:
    project.edit("wait: 2 days", "wait: 2 dyas")
    for command in ("plan", "apply"):
        result = project.run(command, CAMPAIGN, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["kind"] == "content"
        assert "D101 `2 dyas` is not a length of time" in result.stderr
        assert result.stderr.endswith(f"See them in full: dripwell lint {CAMPAIGN}\n")
    with database.snapshot() as connection:
        assert rows(connection, "SELECT name FROM campaign WHERE kind = 'drip'") == []


def test_names_that_do_not_exist_say_which_do(project: Project) -> None:
    assert "did you mean `seven-benefits`?" in project.run("plan", "seven-benefit").stderr
    never = project.run("pause", "no-such")
    assert never.exit_code == 1
    assert never.stderr.endswith("dripwell apply no-such\n")
    topic = project.run("subscribers", "add", "a@example.com", "--topic", "seven-part", "--source", "x")
    assert topic.exit_code == 1
    assert TOPIC in topic.stderr
    form = project.run("subscribers", "add", "a@example.com", "--confirm-by-email", "--form", "series-reques")
    assert "did you mean `series-request`?" in form.stderr


def test_pause_resume_and_stop_name_the_people_they_touch(project: Project, database: Database) -> None:
    project.started()
    for address in ("maria@example.com", "sam@example.com"):
        project.added(address)
    assert project.read("enroll", CAMPAIGN, "--all")["joined"] == 2
    assert project.read("pause", CAMPAIGN)["in_progress"] == 2
    assert project.read("resume", CAMPAIGN)["overdue"] == 2
    asked = project.run("stop", CAMPAIGN)
    assert asked.exit_code == 3
    assert f"2 people are in it and would leave. To do that: dripwell stop {CAMPAIGN} --confirm 2" in asked.stderr
    wrong = project.run("stop", CAMPAIGN, "--confirm", "3")
    assert wrong.exit_code == 3
    with database.snapshot() as connection:
        assert rows(connection, f"SELECT state FROM campaign WHERE name = '{CAMPAIGN}'") == [("running",)]
        assert rows(connection, "SELECT count(*) FROM enrollment WHERE ended_at IS NOT NULL") == [(0,)]
    assert project.read("stop", CAMPAIGN, "--confirm", "2")["left"] == 2
    assert project.read("stop", CAMPAIGN)["changed"] is False
    assert project.run("pause", CAMPAIGN).exit_code == 3


def test_import_takes_good_rows_and_lists_bad_ones_with_their_line(project: Project, database: Database) -> None:
    (project.root / "people.csv").write_text(CSV, encoding="utf-8")
    arguments = ("subscribers", "import", "people.csv", "--topic", TOPIC, "--source", "paper", "--wording", "Email me.")
    arguments += ("--given-at", "now")
    dry = project.run(*arguments, "--dry-run", "--json")
    assert dry.exit_code == 1
    assert json.loads(dry.stdout)["added"] == 2
    with database.snapshot() as connection:
        assert rows(connection, "SELECT count(*) FROM subscriber") == [(0,)]

    first = project.run(*arguments, "--json")
    assert first.exit_code == 1
    value = json.loads(first.stdout)
    assert (value["rows"], value["added"], value["known"]) == (6, 2, 0)
    assert [bad["line"] for bad in value["bad"]] == [3, 4, 5, 6]
    assert "Mars/Base" in value["bad"][2]["reason"]
    assert "was imported with the same words before" in project.run(*arguments).stdout
    again = project.run(*arguments, "--again")
    assert "  people.csv:3  the same address stands in an earlier row" in again.stdout
    assert "6 rows = 0 added + 2 known + 4 bad" in again.stdout
    with database.snapshot() as connection:
        found = rows(connection, "SELECT address, timezone, tags FROM subscriber ORDER BY address")
        assert found == [("maria@example.com", "America/Denver", ["a", "b"]), ("zoe@example.com", None, [])]
        agreed = "SELECT count(*) FROM consent JOIN wording ON version = wording_version WHERE words = 'Email me.'"
        assert rows(connection, agreed) == [(2,)]


def test_an_address_in_other_letters_is_the_same_person(project: Project) -> None:
    project.added("maria@example.com")
    again = project.read("subscribers", "add", "MARIA@EXAMPLE.COM", "--topic", "monthly-notes", "--source", "desk")
    assert again["added"] is False
    assert len(project.read("subscribers", "show", "Maria@example.com")["consents"]) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name\nMaria\n", "must name a column `email`"),
        (b"email,email\na@example.com,b\n", "two columns have the same name"),
        (b"email\nmaria@example.com\n\xff\xfe\n", "cannot be read as UTF-8 text"),
        (b'email\nmaria@example.com\n"zoe@example.com\n', "is not CSV"),
        (b"", "must name a column `email`"),
    ],
)
def test_a_file_that_breaks_off_is_refused_as_a_whole(
    project: Project, database: Database, content: bytes, says: str
) -> None:
    (project.root / "people.csv").write_bytes(content)
    result = project.run("subscribers", "import", "people.csv", "--topic", TOPIC, "--source", "x", "--given-at", "now")
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stdout == ""
    with database.snapshot() as connection:
        assert rows(connection, "SELECT count(*) FROM subscriber") == [(0,)]


def test_nobody_is_added_without_consent_or_with_consent_from_the_future(project: Project) -> None:
    for arguments in (
        (),
        ("--topic", TOPIC),
        ("--source", "x"),
        ("--confirm-by-email",),
        ("--confirm-by-email", "--form", "series-request", "--topic", TOPIC),
        ("--form", "series-request"),
        ("--topic", TOPIC, "--source", " "),
        ("--topic", TOPIC, "--source", "x", "--given-at", "2999-01-01"),
        ("--topic", TOPIC, "--source", "x", "--given-at", "yesterday"),
        ("--topic", TOPIC, "--source", "x", "--timezone", "Mars/Base"),
    ):
        assert project.run("subscribers", "add", "maria@example.com", *arguments).exit_code == 2, arguments
    assert project.run("subscribers", "add", "no-address", "--topic", TOPIC, "--source", "x").exit_code == 2
    assert project.run("subscribers", "show", "maria@example.com").exit_code == 1


def test_whoever_must_confirm_first_cannot_be_enrolled(project: Project) -> None:
    project.started()
    asked = project.read("subscribers", "add", "kim@example.com", "--confirm-by-email", "--form", "series-request")
    assert asked["confirmation"] == "planned"
    refused = project.run("enroll", CAMPAIGN, "kim@example.com")
    assert refused.exit_code == 3
    assert f"kim@example.com has not agreed to {TOPIC}" in refused.stderr
    shown = project.read("subscribers", "show", "kim@example.com")
    assert shown["state"] == "unconfirmed"
    assert [(row["campaign"], row["state"]) for row in shown["timeline"] if row["what"] == "email"] == [
        ("confirm", "PLANNED")
    ]


def test_enroll_takes_all_named_people_or_none(project: Project, database: Database) -> None:
    project.started()
    project.added("maria@example.com")
    missing = project.run("enroll", CAMPAIGN, "maria@example.com", "nobody@example.com")
    assert missing.exit_code == 1
    assert "dripwell subscribers add nobody@example.com" in missing.stderr
    with database.snapshot() as connection:
        assert rows(connection, "SELECT count(*) FROM enrollment") == [(0,)]
    assert project.run("enroll", CAMPAIGN).exit_code == 2
    assert project.run("enroll", CAMPAIGN, "maria@example.com", "--all").exit_code == 2
    first = project.read("enroll", CAMPAIGN, "maria@example.com", "MARIA@example.com")
    assert (first["asked"], first["joined"]) == (1, 1)
    assert project.read("enroll", CAMPAIGN, "--all")["in_it_before"] == 1


def test_exit_takes_one_person_out_once(project: Project) -> None:
    project.started()
    project.added("maria@example.com")
    project.read("enroll", CAMPAIGN, "maria@example.com")
    assert project.read("exit", CAMPAIGN, "maria@example.com")["left"] == 1
    assert project.run("exit", CAMPAIGN, "maria@example.com").exit_code == 1
    shown = project.run("subscribers", "show", "maria@example.com")
    assert f"{CAMPAIGN}   joined, left: taken out" in shown.stdout
    assert f"{TOPIC}   given" in shown.stdout
    assert shown.stdout.rstrip().endswith("nothing")


def test_show_prints_what_people_typed_without_letting_it_drive_the_terminal(
    project: Project, database: Database
) -> None:
    arguments = ("--topic", TOPIC, "--source", "desk\x1b[2J", "--first-name", "\x1b]0;x\x07Eve")
    project.run("subscribers", "add", "eve@example.com", *arguments)
    shown = project.run("subscribers", "show", "eve@example.com")
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert "\x07" not in shown.stdout


def test_calls_are_listed_next_first_and_over_ones_are_not(project: Project, database: Database) -> None:
    assert project.run("calls", "list").stdout == "No call is booked.\n"
    project.added("maria@example.com")
    with database.transaction() as connection:
        now = clock.read(connection).now
        minute = int(now.timestamp()) // 60
        (subscriber,) = (row[0] for row in rows(connection, "SELECT id FROM subscriber"))
        for start, ask_for in ((minute + 3000, "Later"), (minute + 60, "Maria"), (minute - 600, "Over")):
            assert bookings.add(
                connection,
                subscriber_id=int(str(subscriber)),
                message_id=None,
                start_minute=start,
                minutes=15,
                ask_for=ask_for,
                phone="(555) 010-0199",
                voicemail=ask_for == "Later",
                timezone="America/Denver",
                wording="Call me.",
                now=now,
            )
    value = project.read("calls", "list")
    assert [(call["ask_for"], call["voicemail"]) for call in value["calls"]] == [("Maria", False), ("Later", True)]
    shown = project.run("calls", "list").stdout.splitlines()
    assert shown[0].split() == ["when", "phone", "ask", "for", "voicemail"]
    assert "(555) 010-0199   Maria     no" in shown[1]


def test_who_found_no_time_stands_under_the_calls_until_one_is_booked(project: Project, database: Database) -> None:
    project.added("maria@example.com")
    with database.transaction() as connection:
        now = clock.read(connection).now
        (subscriber,) = (int(str(row[0])) for row in rows(connection, "SELECT id FROM subscriber"))
        bookings.wish(
            connection,
            subscriber_id=subscriber,
            phone="(555) 010-0199",
            words="Evenings\x1b[2J, please",
            now=now,
            since=now - timedelta(days=1),
            most=3,
        )
    shown = project.run("calls", "list").stdout
    assert "No time suited these people" in shown
    assert "Evenings" in shown
    assert "\x1b" not in shown
    (wish,) = project.read("calls", "list")["wishes"]
    assert wish["phone"] == "(555) 010-0199"
    with database.transaction() as connection:
        bookings.add(
            connection,
            subscriber_id=subscriber,
            message_id=None,
            start_minute=int(now.timestamp()) // 60 + 600,
            minutes=15,
            ask_for="Maria",
            phone="(555) 010-0199",
            voicemail=False,
            timezone="America/Denver",
            wording="Call me.",
            now=now + timedelta(minutes=5),
        )
    assert project.read("calls", "list")["wishes"] == []


def test_status_and_report_add_up_and_csv_is_csv(project: Project) -> None:
    before = project.read("status")
    assert before["not_applied"] == [CAMPAIGN]
    assert before["queues"]["drip"] is None
    project.started()
    project.added("maria@example.com")
    project.read("enroll", CAMPAIGN, "--all")
    status = project.read("status")
    assert status["campaigns"] == [
        {"campaign": CAMPAIGN, "state": "running", "number": 1, "approved": True, "in_progress": 1, "overdue": 1}
    ]
    assert (status["provider"], status["running"], status["ahead_seconds"]) == ("sandbox", False, 0)
    assert "nobody serves" in project.run("status").stdout
    report = project.read("report", CAMPAIGN)
    assert report["adds_up"] is True
    assert report["joined"] == sum(report["people"].values()) == 1
    table = project.run("report", CAMPAIGN).stdout
    assert "1 joined = 1 in progress" in table
    assert table.count("✓") == 2
    lines = project.run("report", CAMPAIGN, "--csv").stdout.splitlines()
    assert lines[0] == "key,planned,accepted,delivered,bounced,clicked,booked,unsubscribed"
    assert len(lines) == 8
    assert project.run("report", "no-such").exit_code == 1


def test_a_tag_in_an_import_starts_the_campaign_it_triggers_and_only_once(project: Project, tmp_path: Path) -> None:
    project.edit("  form: series-request", "  tag: asked-at-the-fair")
    project.started()
    people = tmp_path / "people.csv"
    people.write_text("email,tags\nmaria@example.com,asked-at-the-fair\nnoah@example.com,other\n", encoding="utf-8")
    stated = ("--topic", TOPIC, "--source", "a test", "--given-at", "now")
    for _ in range(2):
        project.read("subscribers", "import", str(people), *stated, "--again")
        assert project.read("report", CAMPAIGN)["joined"] == 1
