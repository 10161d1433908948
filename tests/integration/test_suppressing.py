"""A suppression holds at once and for ever, whoever says what afterwards; an operator lifts `all` and nothing else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.content.importing.values import Rules, Statement
from dripwell.core.address import address_hash, without_addresses
from dripwell.core.errors import RefusedError
from dripwell.delivery.lists import Listed
from dripwell.delivery.provider import ProviderEvent
from dripwell.services import enroll, erase, importing, ingest, leave, sync
from dripwell.storage import clock, provider_looks, suppressions
from dripwell.storage.database import Connection, Database
from dripwell.storage.fast import Fast
from tests.integration import rows
from tests.integration.callers import bearing, key_for
from tests.integration.command import TOPIC, Project, copy_of_the_project
from tests.integration.scripted import House
from tests.integration.test_sync import ScriptedLists

MARIA, JOE = "maria@example.com", "joe@example.com"
HASH = partial(address_hash, rows.PEPPER)


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    """A house whose every test ends with the judge."""
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def hear(house: House, *arrived: ProviderEvent) -> None:
    with house.database.transaction() as connection:
        ingest.take_in(connection, list(arrived), HASH)


def named(house: House, address: str, kind: str, **changes: object) -> ProviderEvent:
    """An event with an address and nothing of ours."""
    event = ProviderEvent(kind=kind, at=house.wall, dedupe=f"{kind}/{address}/{house.wall}", address=address)
    return replace(event, **changes)  # type: ignore[arg-type]


def stands(connection: Connection, address: str, pepper: bytes = rows.PEPPER) -> set[str]:
    return {scope for _, scope in suppressions.reasons(connection, [address_hash(pepper, address)])}


def scopes(house: House, address: str = MARIA) -> set[str]:
    with house.database.transaction() as connection:
        return stands(connection, address)


def mailed(house: House, *addresses: str) -> dict[str, int]:
    """These people have had their first email, in one batch."""
    people = {address: house.person(address) for address in addresses}
    house.enroll(house.publish(), *people.values())
    house.plan()
    house.send()
    return people


# Events


def test_three_emails_that_find_the_mailbox_shut_suppress_and_a_delivery_between_starts_anew(
    database: Database,
) -> None:
    with database.transaction() as connection:
        emails = {}
        for address in (MARIA, JOE):
            person = rows.subscriber(connection, address)
            for number in range(3):
                campaign = rows.campaign(connection, f"series-{number}-{person}")
                version = rows.version(connection, campaign)
                entry = rows.enrollment(connection, person, campaign, version, state="finished")
                message = rows.message(connection, entry)
                found = connection.execute(text(f"SELECT batch_id, public_id FROM message WHERE id = {message}")).one()
                emails[address, number] = found
    shut = {"bounce_classification": "Mailbox Unavailable", "status": "4.2.2"}

    def turned(address: str, number: int, kind: str = "bounced", **changes: object) -> ProviderEvent:
        batch, message = emails[address, number]
        event = ProviderEvent(
            kind=kind, at=rows.START, dedupe=f"{kind}{message}", address=address, batch=batch, message=message,
            detail=shut,
        )  # fmt: skip
        return replace(event, **changes)  # type: ignore[arg-type]

    def hears(*arrived: ProviderEvent) -> tuple[set[str], set[str]]:
        with database.transaction() as connection:
            ingest.take_in(connection, list(arrived), HASH)
        with database.transaction() as connection:
            return stands(connection, MARIA), stands(connection, JOE)

    again = turned(MARIA, 1, dedupe="the same email once more")
    nobody: tuple[set[str], set[str]] = (set(), set())
    assert hears(turned(MARIA, 0), turned(MARIA, 1), turned(JOE, 0), turned(JOE, 1), again) == nobody
    assert hears(turned(MARIA, 2, detail={"bounce_classification": "Reputation"}, dedupe="about us")) == nobody
    assert hears(turned(JOE, 0, "delivered")) == nobody
    assert hears(turned(MARIA, 2), turned(JOE, 2)) == ({"all"}, set())
    with database.transaction() as connection:
        found = connection.execute(text("SELECT reason, source FROM suppression")).all()
        states = dict(connection.execute(text("SELECT address, state FROM subscriber")).all())  # type: ignore[arg-type]
    assert [tuple(row) for row in found] == [("undeliverable", "soft-bounces")]
    assert states == {MARIA: "undeliverable", JOE: "active"}


def test_a_mailed_unsubscribe_is_the_persons_own_word_about_marketing(house: House) -> None:
    mailed(house, MARIA)
    (event,) = house.events("unsubscribed", house.provider.mailings[0])
    hear(house, replace(event, detail={"form": "reply"}))
    assert house.query("SELECT scope, reason, source FROM suppression") == [("marketing", "unsubscribed", "reply")]
    house.later(days=3)
    house.plan()
    house.send()
    assert len(house.provider.mailings) == 1


@pytest.mark.parametrize(
    ("kind", "changes", "scope"),
    [
        ("complained", {}, "all"),
        ("bounced", {"hard": True}, "all"),
        ("unsubscribed", {}, "marketing"),
        ("bounced", {"hard": False}, None),
        ("delivered", {}, None),
    ],
)
@pytest.mark.parametrize("with_ids", [True, False])
def test_what_comes_after_an_erasure_suppresses_the_hash_and_keeps_nothing_else(
    house: House, kind: str, changes: dict[str, object], scope: str | None, with_ids: bool
) -> None:
    maria = mailed(house, MARIA)[MARIA]
    (event,) = house.events(kind, house.provider.mailings[0], detail={"email": MARIA, "reason": f"550 <{MARIA}>"})
    event = replace(event, **changes) if with_ids else named(house, MARIA, kind, **changes)  # type: ignore[arg-type]
    erase.erase(house.database, maria, pepper=rows.PEPPER, actor="subscriber")
    assert house.query("SELECT address FROM subscriber") == [(None,)]
    hear(house, event)
    hear(house, event)
    new = house.query("SELECT scope, source, evidence FROM suppression WHERE reason <> 'erased'")
    assert [row[0] for row in new] == ([scope] if scope else [])
    assert all(source == "provider" and "@" not in str(evidence) for _, source, evidence in new)
    kept = house.query("SELECT coalesce(string_agg(detail::text, ''), '') FROM provider_event")
    assert MARIA not in str(kept)
    with house.database.transaction() as connection:  # somebody comes back with the address
        person = rows.subscriber(connection, MARIA)
    assert (scope in scopes(house)) if scope else scopes(house) == {"marketing"}
    assert person != maria


def test_a_complaint_about_an_email_from_before_the_erasure_stops_the_new_series_of_whoever_came_back(
    house: House,
) -> None:
    maria = mailed(house, MARIA)[MARIA]
    (event,) = house.events("complained", house.provider.mailings[0])
    erase.erase(house.database, maria, pepper=rows.PEPPER, actor="subscriber")
    with house.database.transaction() as connection:
        again = rows.subscriber(connection, MARIA)
        suppressions.append(
            connection, addr_hash=HASH(MARIA), scope="marketing", action="lift", reason="confirmed", source="confirm",
            evidence="",
        )  # fmt: skip
        campaign = connection.execute(text("SELECT id FROM campaign WHERE name = 'pair'")).scalar_one()
        version = connection.execute(text("SELECT version_id FROM enrollment LIMIT 1")).scalar_one()
        rows.enrollment(connection, again, campaign, version)
    hear(house, event)
    assert scopes(house) == {"all"}
    assert house.query(f"SELECT state FROM enrollment WHERE subscriber_id = {again}") == [("exited",)]


def test_a_list_that_names_somebody_erased_suppresses_the_hash_and_it_is_kept_in_the_ledger_alone(
    house: House, redis_url: str
) -> None:
    maria = mailed(house, MARIA)[MARIA]
    erase.erase(house.database, maria, pepper=rows.PEPPER, actor="subscriber")
    fast = Fast(redis_url)
    lists = ScriptedLists({"spam_reports": [Listed(MARIA, rows.START), Listed(JOE, rows.START)]})
    assert sync.sync(house.database, lists, fast, hash_of=HASH, out_of_time=lambda: False).added == 2
    fast.close()
    assert scopes(house) == {"all", "marketing"}
    assert house.query("SELECT addr_hash FROM provider_entry") == [(HASH(JOE),)]
    assert HASH(MARIA) not in [one for (one,) in house.query("SELECT addr_hash FROM provider_note")]


def test_a_stranger_that_nobody_here_ever_mailed_is_no_matter_of_ours(house: House) -> None:
    mailed(house, MARIA)
    hear(house, named(house, "nobody@example.com", "complained"))
    assert house.query("SELECT count(*) FROM suppression") == [(0,)]


# What holds


@pytest.fixture
def project(database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})


def imported(installation: Installation, folder: Path, content: str) -> None:
    path = folder / "people.csv"
    path.write_text(content, encoding="utf-8")
    with installation.database.transaction() as connection:
        now = clock.read(connection).now
    importing.bring_in(
        installation.database,
        path,
        Rules(Statement((TOPIC,), "a test", "", now), frozenset({TOPIC}), now, UTC),
        pepper=installation.pepper,
        versions=installation.versions,
        new_id=installation.new_id,
        actor="a test",
    )


@pytest.mark.parametrize("scope", ["all", "marketing", f"topic:{TOPIC}"])
def test_nothing_that_anybody_says_brings_a_suppressed_address_back(
    installation: Installation, client: TestClient, tmp_path: Path, scope: str
) -> None:
    database, pepper = installation.database, installation.pepper
    addr_hash = address_hash(pepper, MARIA)
    with database.transaction() as connection:
        rows.subscriber(connection, MARIA, pepper=pepper)
        leave.suppress_addresses(
            connection,
            [leave.Unwanted(addr_hash, scope, "unsubscribed")],
            source=leave.STAFF,
            times=clock.read(connection),
        )
    lists = ScriptedLists()
    for found in ({"unsubscribes": [Listed(MARIA, rows.START)]}, {}):  # a list restored without the address
        lists.found = found
        with database.transaction() as connection:
            sync.begin(connection, unless_within=timedelta(0))
        sync.sync(
            database,
            lists,
            installation.fast,
            hash_of=partial(address_hash, pepper),
            out_of_time=lambda: False,
        )
    imported(installation, tmp_path, f"email\n{MARIA}\n")
    consent = {"topic": TOPIC, "source": "desk", "wording": "Yes.", "given_at": "2026-11-01T09:30:00-08:00"}
    body = {"address": MARIA, "consent": consent}
    answer = client.post("/api/v1/subscribers", json=body, headers=bearing(key_for(installation)))
    assert scope in answer.json()["suppressed"]
    with database.transaction() as connection:
        ingest.take_in(
            connection,
            [
                ProviderEvent(kind=kind, at=rows.START, dedupe=kind, address=MARIA)
                for kind in ("unknown", "delivered", "opened")
            ],
            partial(address_hash, pepper),
        )
        person = enroll.find(connection, MARIA, pepper)
        assert person is not None
        assert scope in stands(connection, MARIA, pepper)
        lifts = connection.execute(text("SELECT count(*) FROM suppression WHERE action = 'lift'")).scalar_one()
    assert lifts == 0


def test_adding_by_the_command_line_says_what_stands_and_mails_nobody(project: Project, database: Database) -> None:
    project.started()
    project.read("suppressions", "add", MARIA, "--scope", "marketing", "--reason", "by letter")
    project.added(MARIA)
    project.run("enroll", "seven-benefits", MARIA)
    with database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM message")).scalar_one() == 0
        assert (
            connection.execute(
                text("SELECT count(*) FROM enrollment JOIN campaign ON campaign.id = campaign_id WHERE kind = 'drip'")
            ).scalar_one()
            == 0
        )
    shown = project.read("suppressions", "show", MARIA)["suppressions"]
    assert [(one["scope"], one["reason"], one["source"]) for one in shown] == [("marketing", "unsubscribed", "staff")]


# Lifting


def suppress(database: Database, address: str, scope: str, reason: str = "unsubscribed", source: str = "staff") -> None:
    with database.transaction() as connection:
        leave.suppress_addresses(
            connection, [leave.Unwanted(HASH(address), scope, reason)], source=source, times=clock.read(connection)
        )


def lift(database: Database, address: str = MARIA) -> list[tuple[bytes, str]]:
    return database.retrying(
        lambda connection: leave.lift_all(
            connection, addr_hash=HASH(address), reason="it works", actor="ana", times=clock.read(connection)
        )
    )


@pytest.mark.parametrize("others", [[], ["marketing"], [f"topic:{TOPIC}"]])
def test_an_operator_lifts_all_and_marketing_stays_forbidden(database: Database, others: list[str]) -> None:
    with database.transaction() as connection:
        person = rows.subscriber(connection, MARIA)
    suppress(database, MARIA, "all", "undeliverable", "provider")
    for scope in others:
        suppress(database, MARIA, scope)
    assert lift(database) == [(HASH(MARIA), "all")]
    with database.transaction() as connection:
        assert stands(connection, MARIA) == {"marketing", *others}
        assert suppressions.address_of(connection, person) == (HASH(MARIA), "unsubscribed")
    assert lift(database) == []


def test_nobody_lifts_a_complaint_whatever_else_stands_beside_it(database: Database) -> None:
    suppress(database, MARIA, "all", "undeliverable", "provider")
    suppress(database, MARIA, "all", "complained", "provider")
    suppress(database, MARIA, "all")
    with pytest.raises(RefusedError, match="spam"):
        lift(database)
    with database.transaction() as connection:
        assert stands(connection, MARIA) == {"all"}


def test_a_complaint_that_is_being_written_meanwhile_is_not_lifted_with_the_rest(database: Database) -> None:
    suppress(database, MARIA, "all", "undeliverable", "provider")
    found: list[object] = []

    def lifting() -> None:
        try:
            found.append(lift(database))
        except RefusedError as error:
            found.append(error)

    thread = threading.Thread(target=lifting)
    with database.transaction() as slow:
        suppressions.append(
            slow, addr_hash=HASH(MARIA), scope="all", action="suppress", reason="complained", source="provider",
            evidence="",
        )  # fmt: skip
        thread.start()
        deadline = time.monotonic() + 10
        while thread.is_alive():
            with database.transaction() as connection:
                if connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one():
                    break
            assert time.monotonic() < deadline
    thread.join(10)
    assert [type(one) for one in found] == [RefusedError]
    with database.transaction() as connection:
        assert stands(connection, MARIA) == {"all"}


def test_lifting_what_does_not_stand_writes_nothing(database: Database) -> None:
    suppress(database, MARIA, "marketing")
    assert lift(database) == []
    with database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM suppression")).scalar_one() == 1


def test_a_scope_that_names_nothing_is_refused_with_the_nearest_name(project: Project) -> None:
    for scope, says in (("topic:monthly-note", "did you mean `monthly-notes`?"), ("campaign:nope", "no campaign nope")):
        said = project.run("suppressions", "add", MARIA, "--scope", scope, "--reason", "she called")
        assert said.exit_code == 1, scope
        assert says in " ".join(said.stderr.split())
    assert project.read("suppressions", "list")["counts"] == []
    assert project.read("suppressions", "add", MARIA, "--scope", "topic:monthly-notes", "--reason", "x")["suppressed"]


def test_a_bought_address_is_taken_in_by_nobody(project: Project) -> None:
    given = ("--topic", "seven-part-series", "--source", "purchased in June")
    said = project.run("subscribers", "add", "joe@example.com", *given)
    assert said.exit_code == 3
    assert "“purchased”" in said.stderr
    file = project.root / "people.csv"
    file.write_text("email\njoe@example.com\n", encoding="utf-8")
    said = project.run("subscribers", "import", str(file), *given, "--given-at", "2026-05-31")
    assert said.exit_code == 3
    assert "“purchased”" in said.stderr


def test_the_lift_command_takes_all_alone_and_leaves_its_reason_without_addresses(
    project: Project, database: Database
) -> None:
    project.read("suppressions", "add", MARIA, "--reason", f"wrote from {MARIA} today")
    refused = project.run("suppressions", "lift", MARIA, "--scope", "marketing", "--reason", "please")
    assert refused.exit_code == 3
    assert MARIA not in refused.stderr
    found = project.read("suppressions", "lift", MARIA, "--scope", "all", "--reason", f"<{MARIA}> works", "--by", "ana")
    assert found == {"version": 1, "lifted": True, "scope": "all"}
    again = project.read("suppressions", "lift", MARIA, "--scope", "all", "--reason", "works")
    assert again["lifted"] is False
    shown = project.read("suppressions", "show", MARIA)["suppressions"]
    assert [one["scope"] for one in shown] == ["marketing"]
    with database.transaction() as connection:
        evidence = connection.execute(text("SELECT evidence FROM suppression ORDER BY seq")).scalars().all()
        told = connection.execute(text("SELECT actor, action, detail::text FROM activity ORDER BY id")).all()
    assert "wrote from [address] today" in evidence[0]
    assert evidence[-1] == "ana: <[address]> works"
    assert [(row.actor, row.action) for row in told][-1] == ("ana", "lifted")
    assert MARIA not in str(told)
    assert project.run("suppressions", "lift", MARIA, "--scope", "everything", "--reason", "x").exit_code == 2


def test_the_list_counts_by_scope_and_source_and_shows_addresses_only_when_asked(project: Project) -> None:
    assert "Nobody is suppressed." in project.run("suppressions", "list").stdout
    project.added(MARIA)
    project.read("suppressions", "add", MARIA, "--reason", "she called")
    project.read("suppressions", "add", "nobody@example.com", "--scope", "marketing", "--reason", "by letter")
    found = project.read("suppressions", "list")
    assert found["counts"] == [
        {"scope": "all", "source": "staff", "addresses": 1},
        {"scope": "marketing", "source": "staff", "addresses": 1},
    ]
    newest = found["newest"]
    assert [(one["address"], one["scope"]) for one in newest] == [(None, "marketing"), ("m•••a@example.com", "all")]
    assert len(newest[0]["hash"]) == 12
    assert newest[1]["hash"] is None
    whole = project.read("suppressions", "list", "--addresses", "--scope", "all")["newest"]
    assert [one["address"] for one in whole] == [MARIA]
    assert project.read("suppressions", "list", "--source", "page")["counts"] == []
    assert project.read("suppressions", "list", "--limit", "1")["newest"] == newest[:1]
    told = project.run("suppressions", "list").stdout
    assert "m•••a@example.com" in told
    assert "nobody@example.com" not in told


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("she called", "she called"),
        ("wrote from maria@example.com, twice", "wrote from [address], twice"),
        ("<MARIA@EXAMPLE.COM>", "<[address]>"),
        ('"Maria" <maria+x@example.com>;joe@example.com', '"Maria" <[address]>;[address]'),
        ("maria\uff20example.com", "[address]"),
        ("meet @ noon", "meet @ noon"),
    ],
)
def test_what_looks_like_an_address_is_not_kept(words: str, kept: str) -> None:
    assert without_addresses(words) == kept


# At the start


def test_a_start_lets_every_list_be_read_at_once_and_a_second_one_does_not(database: Database, redis_url: str) -> None:
    fast = Fast(redis_url)
    lists = ScriptedLists()
    for _ in range(2):
        bootstrap.begin_syncing(database.dsn)
        sync.sync(database, lists, fast, hash_of=HASH, out_of_time=lambda: False)
    assert lists.asked == 4
    with database.transaction() as connection:
        connection.execute(text("UPDATE provider_list SET looked_at = looked_at - interval '6 min'"))
    bootstrap.begin_syncing(database.dsn)
    with database.transaction() as connection:
        assert all(
            one.due_at and one.due_at <= clock.read(connection).wall_now for one in provider_looks.standing(connection)
        )
    sync.sync(database, lists, fast, hash_of=HASH, out_of_time=lambda: False)
    assert lists.asked == 8
    fast.close()


def test_sync_by_smtp_says_that_there_are_no_lists(project: Project) -> None:
    live = {
        "DRIPWELL_SMTP_URL": "smtp://127.0.0.1:25",
        "DRIPWELL_SECRET_KEY": "a",
        "DRIPWELL_UNSUBSCRIBE_KEY": "b",
        "DRIPWELL_PEPPER": "c",
    }
    found = project.run("suppressions", "sync", "--json", **live)
    assert (found.exit_code, json.loads(found.stdout)["lists"]) == (0, None)
