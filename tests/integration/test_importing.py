"""Imports in sets do what adding one by one does; killed and gone on with they end the same; exports come back in."""

from __future__ import annotations

import csv
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from dripwell.bootstrap import Connection, Installation
from dripwell.content.importing.values import Rules, Statement
from dripwell.core.address import address_hash
from dripwell.services import enroll, importing
from dripwell.services.enroll import Consent
from dripwell.storage import clock, suppressions
from dripwell.storage.database import Database
from tests.integration import rows
from tests.integration.command import CAMPAIGN, TOPIC, Project, copy_of_the_project

OTHER = "monthly-notes"
AT = datetime(2026, 1, 5, tzinfo=UTC)
STATED = ("--topic", TOPIC, "--source", "paper forms", "--given-at", "2026-01-05", "--wording", "Email me.")


@pytest.fixture
def project(database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})


def ask(database: Database, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(statement), values)]


def empty(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(
            text("TRUNCATE subscriber, consent, import_run, suppression, outbox RESTART IDENTITY CASCADE")
        )


def everybody(connection: Connection) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    people = connection.execute(
        text(
            "SELECT address, addr_hash, state, timezone, fields, tags, relationship FROM subscriber"
            ' ORDER BY address COLLATE "C"'
        )
    )
    said = connection.execute(
        text(
            "SELECT address, topic, action, source, wording_version, given_at"
            " FROM consent JOIN subscriber ON subscriber.id = consent.subscriber_id"
            ' ORDER BY address COLLATE "C", consent.id'
        )
    )
    return [tuple(row) for row in people], [tuple(row) for row in said]


# The same as one by one

_who = st.integers(0, 7)
_row = st.fixed_dictionaries(
    {
        "who": _who,
        "timezone": st.sampled_from([None, "America/Denver", "Europe/Berlin"]),
        "tags": st.lists(st.sampled_from(["a", "b", 'c "d"', "e\\f"]), max_size=3),
        "fields": st.dictionaries(st.sampled_from(["first_name", "city"]), st.sampled_from(["X", "Ü", 'q"\\'])),
        "relationship": st.sampled_from(["prospect", "patient", "unknown"]),
        "topic": st.sampled_from([None, TOPIC, OTHER]),
    }
)
_before = st.fixed_dictionaries(
    {
        "row": _row,
        "agreed": st.sampled_from([None, TOPIC, OTHER]),
        "state": st.sampled_from(["active", "unconfirmed", "unsubscribed", "undeliverable"]),
    }
)


@given(known=st.lists(_before, max_size=5), lines=st.lists(_row, max_size=12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_in_sets_does_what_adding_its_rows_one_by_one_does(
    installation: Installation, tmp_path: Path, known: list[dict[str, Any]], lines: list[dict[str, Any]]
) -> None:
    database = installation.database
    empty(database)
    with database.transaction() as connection:
        for one in known:
            agreed = Consent(one["agreed"], "before", "", AT) if one["agreed"] else None
            identity = _added(installation, connection, one["row"], agreed)
            connection.execute(
                text("UPDATE subscriber SET state = :state WHERE id = :id"), {"state": one["state"], "id": identity}
            )

    with database.engine.connect() as connection, connection.begin() as attempt:
        seen = set()
        for line in lines:
            if line["who"] not in seen:
                topic = line["topic"] or TOPIC
                _added(installation, connection, line, Consent(topic, "import:1", "Email me.", AT))
            seen.add(line["who"])
        one_by_one = everybody(connection)
        attempt.rollback()

    path = tmp_path / "people.jsonl"
    path.write_text("".join(json.dumps(_line(line)) + "\n" for line in lines), encoding="utf-8")
    rules = Rules(Statement((TOPIC,), "paper", "Email me.", AT), frozenset({TOPIC, OTHER}), AT, UTC)
    if not lines:
        return
    found = importing.bring_in(
        database, path, rules, pepper=installation.pepper, versions=installation.versions,
        new_id=installation.new_id, actor="a test", size=3,
    )  # fmt: skip
    with database.snapshot() as connection:
        assert everybody(connection) == one_by_one
    assert found.rows == len(lines)
    assert found.counts.duplicates == len(lines) - len({line["who"] for line in lines})
    assert found.known == len({line["who"] for line in lines} & {one["row"]["who"] for one in known})


def _line(row: dict[str, Any]) -> dict[str, Any]:
    found = {**row, "email": f"p{row['who']}@example.com", "topics": [row["topic"]] if row["topic"] else []}
    return {name: value for name, value in found.items() if name not in ("who", "topic")}


def _added(installation: Installation, connection: Connection, row: dict[str, Any], agreed: Consent | None) -> int:
    identity, _ = enroll.add(
        connection, address=f"p{row['who']}@example.com", consent=agreed, pepper=installation.pepper,
        new_id=installation.new_id, times=clock.read(connection), timezone=row["timezone"], fields=row["fields"],
        tags=row["tags"], relationship=row["relationship"],
    )  # fmt: skip
    return identity


# What an import never does


def test_nobody_is_brought_back_who_left_withdrew_or_was_erased(project: Project, database: Database) -> None:
    for name in ("left", "withdrew", "dead"):
        project.added(f"{name}@example.com")
    pepper = _pepper(project, database)
    with database.transaction() as connection:
        for name, scope, reason in (("left", "marketing", "unsubscribed"), ("gone", "marketing", "erased")):
            suppressions.append(
                connection, addr_hash=address_hash(pepper, f"{name}@example.com"), scope=scope, action="suppress",
                reason=reason, source="page", evidence="",
            )  # fmt: skip
        connection.execute(text("UPDATE subscriber SET state = 'unsubscribed' WHERE address LIKE 'left%'"))
        connection.execute(text("UPDATE subscriber SET state = 'undeliverable' WHERE address LIKE 'dead%'"))
        connection.execute(
            text(
                "INSERT INTO consent (subscriber_id, topic, action, source, given_at)"
                " SELECT id, :topic, 'withdraw', 'preferences', joined_at"
                " FROM subscriber WHERE address LIKE 'withdrew%'"
            ),
            {"topic": TOPIC},
        )
    names = ("left", "withdrew", "dead", "gone", "new")
    (project.root / "people.csv").write_text("email\n" + "".join(f"{name}@example.com\n" for name in names))
    for more in (("--dry-run",), ()):
        found = project.run("subscribers", "import", "people.csv", *STATED, *more, "--json")
        assert found.exit_code == 1
        value = json.loads(found.stdout)
        assert (value["added"], value["known"], value["refused"], value["suppressed"]) == (1, 3, 1, 1)
        assert value["bad"] == [
            {"line": 5, "reason": "this person was erased: only they can come back, by confirming a form"}
        ]
    assert ask(database, "SELECT address, state FROM subscriber ORDER BY address") == [
        ("dead@example.com", "undeliverable"),
        ("left@example.com", "unsubscribed"),
        ("new@example.com", "active"),
        ("withdrew@example.com", "active"),
    ]
    assert ask(database, "SELECT count(*) FROM suppression WHERE action = 'lift'") == [(0,)]
    newest = project.read("subscribers", "show", "withdrew@example.com")["consents"][-1]
    assert newest["action"] == "withdraw"


def _pepper(project: Project, database: Database) -> bytes:
    """The pepper of the project, seen by what it made of an address."""
    from dripwell import bootstrap
    from dripwell.settings import Settings

    opened = bootstrap.connect(
        Settings(state_dir=Path(project.environment["DRIPWELL_STATE_DIR"])), project.root, database.dsn,
        project.environment["REDIS_URL"],
    )  # fmt: skip
    try:
        return opened.pepper
    finally:
        opened.close()


def test_without_source_and_time_of_consent_nothing_is_read_at_all(project: Project, database: Database) -> None:
    (project.root / "people.csv").write_text("email\nann@example.com\n")
    for given_words, says in (
        ((), "it says no topic"),
        (("--topic", TOPIC), "it does not say where they agreed"),
        (("--topic", TOPIC, "--source", "paper"), "it does not say when they agreed"),
        (("--topic", TOPIC, "--source", "paper", "--given-at", "2999-01-01"), "--given-at is in the future"),
    ):
        found = project.run("subscribers", "import", "people.csv", *given_words)
        assert found.exit_code == 2
        assert says in found.stderr
    assert ask(database, "SELECT count(*) FROM import_run") == [(0,)]


def test_the_statement_for_the_whole_file_is_kept_and_shown(project: Project, database: Database) -> None:
    folder = project.root / "private folder"
    folder.mkdir()
    (folder / "fair.csv").write_text(
        "email,topics,consent_source,consent_at,consent_wording\n"
        "ann@example.com,,,,\n"
        f"bob@example.com,{OTHER},front desk,2026-02-01,Notes please.\n"
    )
    project.read("subscribers", "import", str(folder / "fair.csv"), *STATED, "--by", "maria")
    kept = "SELECT id, file, actor, source, wording, topics, given_at, rows_read, added FROM import_run"
    zone = timedelta(hours=8)
    assert ask(database, kept) == [
        (1, "fair.csv", "maria", "paper forms", "Email me.", [TOPIC], datetime(2026, 1, 5, tzinfo=UTC) + zone, 2, 2)
    ]
    (ann,) = project.read("subscribers", "show", "ann@example.com")["consents"]
    assert (ann["source"], ann["wording"]) == ("import:1", "Email me.")
    assert "file fair.csv, imported" in ann["import"]
    assert (
        "by maria, stated for the whole file: paper forms"
        in project.run("subscribers", "show", "ann@example.com").stdout
    )
    (bob,) = project.read("subscribers", "show", "bob@example.com")["consents"]
    assert (bob["topic"], bob["source"], bob["wording"]) == (OTHER, "import:1: front desk", "Notes please.")
    told = ask(database, "SELECT action, detail ->> 'added' FROM activity WHERE action LIKE '%import%' ORDER BY id")
    assert told == [("began import", None), ("imported", "2")]


# Killed and gone on with


def test_killed_three_times_and_gone_on_with_it_ends_the_same(project: Project, database: Database) -> None:
    lines = ["email,first_name,tags,relationship\n"]
    for number in range(25_000):
        lines.append(
            f"p{number}@example.com,Maria {number % 7},t{number % 3},{'patient' if number % 11 == 0 else ''}\n"
        )
        if number % 1_000 == 0:
            lines.append(f"P{number // 2}@example.com,Twice,,\nnobody {number},,,\n")
    (project.root / "people.csv").write_text("".join(lines), encoding="utf-8")
    command = ("subscribers", "import", "people.csv", *STATED, "--json")
    whole = json.loads(project.run(*command).stdout)
    with database.snapshot() as connection:
        wanted = everybody(connection)
    refused = "SELECT line, reason FROM import_refusal ORDER BY line"
    wanted_refused = ask(database, refused)
    assert (whole["rows"], whole["added"], whole["duplicates"], whole["refused"]) == (25_050, 25_000, 25, 50)

    empty(database)
    places = []
    for address in ("p300@example.com", "p11000@example.com", "p21000@example.com"):
        with standing_in_the_way(database, address, wanted[0]) as is_waited_for:
            running = project.process(*command)
            _until(is_waited_for)
            assert running.poll() is None, running.communicate()
            running.send_signal(signal.SIGKILL)
            running.communicate()
        places += ask(database, "SELECT rows_read, added + known + refused FROM import_run")
    assert places == [(0, 0), (10_000, 10_000), (20_000, 20_000)]
    last = json.loads(project.run(*command).stdout)
    with database.snapshot() as connection:
        assert everybody(connection) == wanted
    assert ask(database, refused) == wanted_refused
    assert last["resumed_at"] == 20_000
    assert {**last, "resumed_at": 0} == whole
    done = json.loads(project.run(*command).stdout)
    assert (done["imported_before"], done["added"]) == (True, 25_000)


@contextmanager
def standing_in_the_way(
    database: Database, address: str, people: list[tuple[Any, ...]]
) -> Iterator[Callable[[], bool]]:
    """Another transaction that is adding this person: whoever adds them too waits, in the middle of a slice."""
    addr_hash = next(bytes(row[1]) for row in people if row[0] == address)
    with database.engine.connect() as connection, connection.begin() as attempt:
        connection.execute(
            text(
                "INSERT INTO subscriber (public_id, address, addr_hash, state, joined_at)"
                " VALUES (gen_random_uuid(), :address, :addr_hash, 'active', now())"
            ),
            {"address": address, "addr_hash": addr_hash},
        )
        me = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()

        def is_waited_for() -> bool:
            return ask(
                database, "SELECT count(*) FROM pg_stat_activity WHERE :me = ANY(pg_blocking_pids(pid))", me=me
            ) != [(0,)]

        yield is_waited_for
        attempt.rollback()


def _until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# Other systems


def test_what_another_system_suppressed_is_suppressed_here_whoever_knows_them(
    project: Project, database: Database
) -> None:
    project.added("known@example.com")
    file = project.root / "suppression_spam_reports.csv"
    file.write_text(
        "ip,email,created\n192.0.2.1,known@example.com,1714557600\n,new@example.com,1714557600\n,NEW@example.com,1\n"
    )
    dry = json.loads(
        project.run("subscribers", "import", str(file), "--from", "sendgrid", "--dry-run", "--json").stdout
    )
    assert (dry["leaving"], dry["duplicates"]) == (2, 1)
    assert ask(database, "SELECT count(*) FROM suppression") == [(0,)]
    found = json.loads(project.run("subscribers", "import", str(file), "--from", "sendgrid", "--json").stdout)
    assert (found["rows"], found["leaving"], found["duplicates"], found["added"]) == (3, 2, 1, 0)
    kept = ask(database, "SELECT scope, reason, source, evidence FROM suppression ORDER BY seq")
    assert kept == [("all", "complained", "import:1", "sendgrid: spam, 2024-05-01")] * 2
    assert ask(database, "SELECT count(*) FROM outbox WHERE kind = 'suppression'") == [(2,)]
    assert ask(database, "SELECT address, state FROM subscriber") == [("known@example.com", "unsubscribed")]
    (project.root / "people.csv").write_text("email\nnew@example.com\n")
    assert project.read("subscribers", "import", "people.csv", *STATED)["suppressed"] == 1


# Out and in again


def test_an_export_is_safe_in_a_spreadsheet_and_comes_back_exactly(project: Project, database: Database) -> None:
    given_notes = {"topic": OTHER, "source": "=web", "wording": "Notes.", "at": "2026-02-01T10:00:00+00:00"}
    given_series = {"topic": TOPIC, "source": "fair", "wording": "", "at": "2026-02-02T10:00:00+00:00"}
    people = [
        {"email": "=cmd@example.com", "fields": {"first_name": "=1+1", "City": "'=x", "tags": "-5", "city": 'a;b,"c"'}},
        {"email": "b@example.com", "tags": ["+a", "=b"], "consents": [given_notes, given_series]},
        {"email": "c@example.com", "timezone": "America/Denver", "relationship": "patient", "consents": [given_notes]},
    ]
    (project.root / "people.jsonl").write_text("".join(json.dumps(one) + "\n" for one in people))
    project.read("subscribers", "import", "people.jsonl", *STATED)
    for name, form in (("out.csv", "csv"), ("out.jsonl", "jsonl")):
        assert project.read("subscribers", "export", "--output", name, "--format", form)["exported"] == 3
    assert (project.root / "out.csv").stat().st_mode & 0o777 == 0o600
    with (project.root / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")] == []
    assert "'=cmd@example.com" in cells
    before = ask(database, _WITHOUT_RUN)
    printed = project.run("subscribers", "export")
    assert printed.stdout.count("\n") == 4
    assert ask(database, "SELECT detail ->> 'format' FROM activity WHERE action = 'exported' ORDER BY id") == [
        ("csv",), ("jsonl",), ("csv",)
    ]  # fmt: skip
    for name in ("out.csv", "out.jsonl"):
        empty(database)
        assert project.read("subscribers", "import", name)["added"] == 3
        assert ask(database, _WITHOUT_RUN) == before


_WITHOUT_RUN = """
SELECT address, timezone, tags, relationship, fields, topic, given_at, wording_version,
       CASE consent.source WHEN 'import:1' THEN 'paper forms' ELSE substr(consent.source, length('import:1: ') + 1) END
  FROM subscriber LEFT JOIN consent ON consent.subscriber_id = subscriber.id
 ORDER BY address COLLATE "C", topic
"""


def test_an_export_leaves_out_whom_nobody_may_mail(project: Project, database: Database) -> None:
    with database.transaction() as connection:
        for name, state, topics in (
            ("ann", "active", (TOPIC, OTHER)), ("left", "unsubscribed", (TOPIC,)), ("quiet", "active", ()),
            ("asked", "unconfirmed", ()), ("hidden", "active", (TOPIC,)),
        ):  # fmt: skip
            rows.subscriber(connection, f"{name}@example.com", state=state, topics=topics)
        for name, scope in (("hidden", "marketing"), ("ann", f"topic:{OTHER}")):
            suppressions.append(
                connection, addr_hash=address_hash(rows.PEPPER, f"{name}@example.com"), scope=scope,
                action="suppress", reason="unsubscribed", source="page", evidence="",
            )  # fmt: skip
    out = project.run("subscribers", "export", "--format", "jsonl").stdout
    (line,) = [json.loads(line) for line in out.splitlines()]
    assert (line["email"], [one["topic"] for one in line["consents"]]) == ("ann@example.com", [TOPIC])
    assert project.read("subscribers", "export", "--suppressions", "--output", "s.csv")["exported"] == 2
    hashes = (project.root / "s.csv").read_text(encoding="utf-8-sig")
    assert address_hash(rows.PEPPER, "hidden@example.com").hex() in hashes
    assert "@" not in hashes
    assert project.run("subscribers", "export", "--segment", "no-such").exit_code == 1
    assert project.run("subscribers", "export", "--json").exit_code == 2


def test_refused_rows_are_written_to_a_file_that_can_be_corrected(project: Project) -> None:
    (project.root / "people.csv").write_text("email;first_name\nann@example.com;Ann\nnobody;=1\n")
    found = project.run("subscribers", "import", "people.csv", *STATED, "--bad", "bad.csv")
    assert found.exit_code == 1
    bad = (project.root / "bad.csv").read_text(encoding="utf-8-sig")
    assert bad == "line,reason,email,first_name\n3,an email address must have an @-sign,nobody,'=1\n"
    assert project.run("subscribers", "import", "people.csv", *STATED, "--bad", "people.csv").exit_code == 2


def test_a_corrected_file_of_refused_rows_comes_in_and_its_first_two_columns_are_nobodys_fields(
    project: Project, database: Database
) -> None:
    rows_of = "email,first_name,reason\nann@example.com,Ann,liked it\nnobody,Bea,\nneither,Cem,asked\n"
    (project.root / "people.csv").write_text(rows_of)
    first = project.run("subscribers", "import", "people.csv", *STATED, "--ignore", "reason", "--bad", "bad.csv")
    assert "The bad rows are in bad.csv." in first.stdout
    corrected = (project.root / "bad.csv").read_text(encoding="utf-8-sig").replace(",nobody,", ",bea@example.com,")
    corrected = corrected.replace("reason\n", "liked\n").replace("line,liked", "line,reason")
    (project.root / "bad.csv").write_text(corrected)
    second = project.run("subscribers", "import", "bad.csv", *STATED, "--bad", "worse.csv")
    assert "2 rows = 1 added + 0 known + 1 bad" in second.stdout
    # What is still bad is written once more, with its line in the file that was imported last.
    worse = (project.root / "worse.csv").read_text(encoding="utf-8-sig").splitlines()
    assert worse[0] == "line,reason,email,first_name,liked"
    assert worse[1] == "3,an email address must have an @-sign,neither,Cem,asked"
    assert ask(database, "SELECT address, fields FROM subscriber ORDER BY address") == [
        ("ann@example.com", {"first_name": "Ann"}),
        ("bea@example.com", {"first_name": "Bea"}),
    ]


def test_a_finished_file_says_again_how_it_ended_and_where_its_bad_rows_are(project: Project) -> None:
    (project.root / "good.csv").write_text("email\nann@example.com\n")
    (project.root / "mixed.csv").write_text("email\nbea@example.com\nnobody\n")
    assert project.run("subscribers", "import", "good.csv", *STATED).exit_code == 0
    assert project.run("subscribers", "import", "mixed.csv", *STATED).exit_code == 1
    good = project.run("subscribers", "import", "good.csv", *STATED)
    assert good.exit_code == 0
    assert "1 row = 1 added + 0 known + 0 bad" in good.stdout
    assert "bad then" not in good.stdout
    mixed = project.run("subscribers", "import", "mixed.csv", *STATED)
    assert mixed.exit_code == 1
    assert "1 row was bad then. The same command with --bad FILE writes them" in mixed.stdout
    again = project.run("subscribers", "import", "mixed.csv", *STATED, "--bad", "bad.csv")
    assert "1 row was bad then. The bad rows are in bad.csv." in again.stdout
    assert "3,an email address" in (project.root / "bad.csv").read_text(encoding="utf-8-sig")


def test_what_to_do_next_names_a_campaign_that_runs_and_only_when_somebody_came_in(project: Project) -> None:
    (project.root / "people.csv").write_text("email\nann@example.com\n")
    (project.root / "nobody.csv").write_text("email,consent_at\nnobody,\n")
    assert (
        f"No campaign for {TOPIC} is running yet." in project.run("subscribers", "import", "people.csv", *STATED).stdout
    )
    project.started()
    again = project.run("subscribers", "import", "people.csv", *STATED, "--again").stdout
    assert f"Into a campaign: dripwell enroll {CAMPAIGN} --all" in again
    assert "ampaign" not in project.run("subscribers", "import", "nobody.csv", *STATED).stdout


def test_rows_that_are_not_taken_in_are_not_asked_for_a_relationship(project: Project) -> None:
    (project.root / "people.csv").write_text("email\nann@example.com\nANN@example.com\nbea@example.com\n")
    for more in (("--dry-run",), ()):
        found = project.run("subscribers", "import", "people.csv", *STATED, *more)
        assert "2 rows do not say whether the person is a patient" in found.stdout
