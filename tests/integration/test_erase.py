"""Erasing: nothing that says who somebody was is left anywhere, and the sums are what they were before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import TextClause, text

from dripwell.core.address import address_hash
from dripwell.core.campaign import Lane
from dripwell.core.errors import NotFoundError
from dripwell.delivery.provider import Erasing, Unknown
from dripwell.services import erase, ingest, mine, send
from dripwell.storage import clicks, erasing, events, journal, leaving, reports, retention, wiping
from dripwell.storage.database import Connection, Database
from tests.integration import rows
from tests.integration.scripted import House, Lost

MARIA, JOE = "maria.garcia@example.com", "joe@example.com"
NAME, PHONE, WORDS = "Mariposa", "+1 310 555 0142", "after the school run"
SECRETS = (MARIA, MARIA.upper(), NAME, PHONE, WORDS, "203.0.113.0")
HASH = address_hash(rows.PEPPER, MARIA)
LEDGER = "suppression"


@dataclass
class FakeEraser:
    """A provider that can erase: answers in order, then takes everything. `asked` is what it was asked."""

    answers: list[Erasing] = field(default_factory=list)
    most_erasures: int = 2
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def erase(self, addresses: Sequence[str]) -> Erasing:
        """One request."""
        self.asked.append(tuple(addresses))
        return self.answers.pop(0) if self.answers else Erasing(accepted=True, job_id="job-1", reason="taken")


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    made = House(database, redis_url)
    yield made
    made.close()


@pytest.fixture
def maria(house: House) -> int:
    return somebody(house, MARIA)


def somebody(house: House, address: str) -> int:
    """A person who has left a trace in every table we have."""
    first = not house.query("SELECT 1 FROM campaign WHERE name = 'pair'")
    if first:
        house.publish_service()
    campaign_id = house.publish() if first else campaign_of(house)
    person = house.person(address, fields={"first_name": NAME}, tags=["vip"])
    house.enroll(campaign_id, person)
    house.plan()
    house.send()
    house.hear(
        *house.events("delivered", detail={"email": address, "ip": "203.0.113.0", "reason": f"250 <{address}> ok"})
    )
    with house.database.transaction() as connection:
        trace(connection, person, address)
    return person


def campaign_of(house: House) -> int:
    ((found,),) = house.query("SELECT id FROM campaign WHERE name = 'pair'")
    assert isinstance(found, int)
    return found


def trace(connection: Connection, person: int, address: str) -> None:
    """Rows as the pages, the operators and the provider leave them."""
    hashed = address_hash(rows.PEPPER, address)
    message_id = connection.execute(
        text("SELECT id FROM message WHERE subscriber_id = :person ORDER BY id LIMIT 1"), {"person": person}
    ).scalar_one()
    values = {
        "person": person,
        "message": message_id,
        "address": address,
        "phone": PHONE,
        "words": WORDS,
        "hash": hashed,
        "raw": f'[{{"email": "{address}"'.encode(),
        "minute": person * 100 + 40_000_000,
    }
    for statement in (
        "INSERT INTO click (message_id, number, at) VALUES (:message, 1, wall())",
        "INSERT INTO happening (subscriber_id, event, at) VALUES (:person, 'watched', wall())",
        "INSERT INTO booking (subscriber_id, message_id, start_minute, minutes, ask_for, phone, timezone, wording,"
        " booked_at) VALUES (:person, :message, :minute, 15, 'Mariposa', :phone, 'America/Denver', 'Call me.', wall())",
        "INSERT INTO call_wish (subscriber_id, phone, words, at) VALUES (:person, :phone, :words, wall())",
        "INSERT INTO activity (actor, action, about, detail) VALUES ('subscriber', 'unsubscribe.reason', 'pair',"
        " jsonb_build_object('why', CAST(:words AS text), 'message', CAST(:message AS bigint)))",
        "INSERT INTO activity (actor, action, about, detail) VALUES ('desk', 'noted', 'installation',"
        " jsonb_build_object('reason', 'wrote from ' || upper(CAST(:address AS text))))",
        "INSERT INTO activity (actor, action, about, detail) VALUES ('desk', 'relationship corrected', 'subscriber',"
        " jsonb_build_object('subscriber', CAST(:person AS bigint), 'from', 'prospect', 'to', 'patient'))",
        "INSERT INTO message_log (message_id, transition, actor, reason) VALUES (:message, 'T14', 'desk', :words)",
        "INSERT INTO webhook_inbox (raw, state, tries) VALUES (:raw, 'done', 0), (:raw, 'quarantined', 3)",
        "INSERT INTO provider_event (dedupe, type, at, campaign_at, detail) VALUES ('stray' || :person, 'bounced',"
        " wall(), wall(), jsonb_build_object('email', CAST(:address AS text)))",
        "INSERT INTO signup (subscriber_id, form, source, asked_at, network, fields) VALUES (:person, 'series-request',"
        " 'form', wall(), '203.0.113.0', '{\"first_name\": \"Mariposa\"}')",
        "INSERT INTO provider_entry (list, addr_hash) VALUES ('unsubscribes', :hash)",
        "INSERT INTO form_count (at, key) VALUES (wall(), 'address:' || encode(:hash, 'hex'))",
    ):
        clause = text(statement)
        connection.execute(clause, {name: values[name] for name in clause._bindparams})
    when = connection.execute(text("SELECT wall()")).scalar_one()
    row = leaving.Leaving(person, "topic:other", "unsubscribed", "page", f"link, message {message_id}", "unsubscribed")
    leaving.suppress(connection, [row], now=when)


def carry_on(
    house: House, eraser: FakeEraser | None = None, failpoint: Callable[[str], None] = lambda name: None
) -> int:
    return erase.carry_on(
        house.database,
        eraser=eraser,
        provider="scripted",
        pepper=rows.PEPPER,
        out_of_time=lambda: False,
        failpoint=failpoint,
    )


def begin(house: House, person: int) -> erase.Erasure:
    return erase.erase(house.database, person, pepper=rows.PEPPER, actor="subscriber")


def finish(house: House, eraser: FakeEraser | None = None) -> None:
    house.settle()
    carry_on(house, eraser or FakeEraser())
    house.later(minutes=5)
    carry_on(house, eraser or FakeEraser())


def found_in(house: House, redis_url: str, wanted: Sequence[str | bytes]) -> list[str]:
    """Every place of the installation that holds one of these: table.column, a Redis key, a file."""
    places = []
    needles = [each.lower() if isinstance(each, str) else each for each in wanted]

    def holds(value: bytes) -> bool:
        lowered = value.lower()
        return any(
            each.encode() in lowered
            if isinstance(each, str)
            else each in value or each.hex().encode() in lowered or each[:16] in value
            for each in needles
        )

    with house.database.transaction() as connection:
        columns = connection.execute(
            text("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'")
        ).all()
        assert len(columns) > 200, "the record has more columns than that: something is not looked at"
        for table, column in columns:
            statement = f'SELECT CAST("{column}" AS text) FROM "{table}" WHERE "{column}" IS NOT NULL'
            for value in connection.exec_driver_sql(statement).scalars():
                raw = bytes.fromhex(value[2:]) if value.startswith("\\x") else value.encode()
                if holds(raw) or holds(value.encode()):
                    places.append(f"{table}.{column}")
                    break
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter():
            kind = client.type(key)
            readers: dict[bytes, Callable[[bytes], Any]] = {
                b"string": client.get, b"hash": client.hgetall, b"set": client.smembers,
                b"list": lambda key: client.lrange(key, 0, -1), b"zset": lambda key: client.zrange(key, 0, -1),
            }  # fmt: skip
            value = readers[kind](key)
            parts = value.items() if isinstance(value, dict) else [value] if isinstance(value, bytes) else value
            flat = [part for each in parts for part in (each if isinstance(each, tuple) else (each,))]
            if holds(key) or any(holds(part) for part in flat):
                places.append(f"redis {key.decode()}")
    for file in Path(house.journal._folder).rglob("*"):
        if file.is_file() and holds(file.read_bytes()):
            places.append(f"file {file.name}")
    return places


def state(house: House) -> list[tuple[object, ...]]:
    return house.query("SELECT state, sealed IS NULL, provider, job_id, answer FROM erasure ORDER BY id")


def test_the_scan_finds_what_there_is_before_anybody_is_erased(house: House, redis_url: str, maria: int) -> None:
    house.settle()
    places = found_in(house, redis_url, SECRETS)
    assert {
        "subscriber.address", "subscriber.fields", "booking.phone", "booking.ask_for", "call_wish.words",
        "activity.detail", "message_log.reason", "webhook_inbox.raw", "provider_event.detail", "signup.network",
        "signup.fields",
    } <= set(places)  # fmt: skip
    hashed = found_in(house, redis_url, [HASH])
    assert {"subscriber.addr_hash", "message.addr_hash", "outbox.detail", "provider_entry.addr_hash"} <= set(hashed)
    assert any(place.startswith("redis dw:supp") for place in hashed)


def test_nothing_is_left_of_an_erased_person_but_the_hash_in_the_ledger(
    house: House, redis_url: str, maria: int
) -> None:
    joe = house.person(JOE, fields={"first_name": "Joe"})
    eraser = FakeEraser()
    assert begin(house, maria).complete
    finish(house, eraser)
    assert eraser.asked == [(MARIA,)]
    assert state(house) == [("done", True, "scripted", "job-1", "taken")]
    assert found_in(house, redis_url, SECRETS) == []
    places = found_in(house, redis_url, [HASH])
    assert {place for place in places if not place.startswith(("redis dw:supp", "file leaves"))} == {
        "suppression.addr_hash"
    }
    assert house.query(
        "SELECT scope, reason, source, evidence FROM suppression WHERE addr_hash = :h ORDER BY seq", h=HASH
    ) == [
        ("topic:other", "unsubscribed", "page", ""),
        ("marketing", "erased", "erase", ""),
    ]
    assert house.query("SELECT state, address FROM subscriber ORDER BY id") == [("erased", None), ("active", JOE)]
    house.check()
    with house.database.transaction() as connection:
        assert mine.everything(connection, joe)["subscriber"]["address"] == JOE
        with pytest.raises(NotFoundError):
            mine.everything(connection, maria)


def test_reports_count_the_same_before_and_after(house: House, maria: int) -> None:
    campaign_id = campaign_of(house)

    def counted() -> object:
        with house.database.transaction() as connection:
            by_step = reports.by_step(connection, campaign_id)
            return (
                reports.totals(connection, campaign_id),
                sum(reports.people(connection, campaign_id).values()),
                sum(reports.messages(connection, campaign_id).values()),
                reports.clicked(connection, campaign_id),
                {key: (step["accepted"], step["delivered"], step["clicked"]) for key, step in by_step.items()},
            )

    before = counted()
    begin(house, maria)
    finish(house)
    assert counted() == before
    assert before[0] == (1, 1)  # type: ignore[index]


def test_a_call_under_way_is_settled_first_and_everything_goes_then(house: House, redis_url: str) -> None:
    house.publish_service()
    campaign_id = house.publish()
    person = house.person(MARIA, fields={"first_name": NAME})
    house.enroll(campaign_id, person)
    house.plan()
    house.provider.answers = [Lost()]
    house.send()
    assert house.batches() == [("UNKNOWN", None)]
    assert not begin(house, person).complete
    assert house.enrolled()[0][:2] == ("exited", "erased")
    assert house.query("SELECT scope, reason FROM suppression") == [("marketing", "erased")]
    assert carry_on(house, FakeEraser()) == 0, "the evidence is asked for by the address"
    with house.database.transaction() as connection:
        assert erasing.due(connection, "begun", limit=1) == [], "nobody else waits behind it"
    house.later(minutes=2)
    house.settle()
    assert house.states() == ["ACCEPTED"]
    finish(house)
    assert state(house)[0][0] == "done"
    assert found_in(house, redis_url, SECRETS) == []
    house.check()


def test_nobody_is_mailed_after_the_first_commit(house: House) -> None:
    house.publish_service()
    person = house.person(MARIA)
    house.enroll(house.publish(), person)
    house.plan()
    during: list[bool] = []

    def halfway(name: str) -> None:
        if name == "after_claim":
            during.append(begin(house, person).complete)

    send.send(house.sender(halfway), Lane.DRIP, out_of_time=lambda: bool(during))
    assert during == [False]
    assert house.provider.mailings == []
    assert house.states() == ["SUPPRESSED"]
    finish(house)
    assert state(house)[0][0] == "done"


def test_a_held_message_waits_for_nobody_any_more(house: House) -> None:
    house.publish_service()
    person = house.person(MARIA)
    house.enroll(house.publish(), person)
    house.plan()
    house.provider.answers = [Unknown("timeout")]
    house.send()
    house.provider.logs_answer = False
    house.later(hours=2)
    house.settle()
    assert house.states() == ["HELD"]
    assert begin(house, person).complete
    assert house.query("SELECT state, reason FROM message") == [("SKIPPED", "erased")]


def test_a_webhook_that_comes_late_brings_nothing_back(house: House, redis_url: str, maria: int) -> None:
    mailing = house.provider.mailings[0]
    begin(house, maria)
    finish(house)
    told = {"email": MARIA, "reason": f"550 5.1.1 <{MARIA}> unknown"}
    house.hear(
        *house.events("bounced", mailing, detail=told, hard=True),
        replace(house.events("bounced", mailing)[0], message=None, batch=None, dedupe="no ids", detail=told),
    )
    with house.database.transaction() as connection:
        events.put_inbox(connection, f'[{{"email": "{MARIA}"}}]'.encode())

    class Door:
        def is_genuine(self, headers: object, body: bytes) -> bool:
            return True

        def events(self, body: bytes) -> list[Any]:
            return house.events("complained", mailing, detail=told)

    ingest.ingest(
        house.database, Door(), hash_of=lambda address: address_hash(rows.PEPPER, address), out_of_time=lambda: False
    )
    carry_on(house)
    assert house.query("SELECT count(*) FROM provider_event WHERE type = 'complained'") == [(1,)]
    assert found_in(house, redis_url, SECRETS) == []
    assert house.query("SELECT state, address, addr_hash FROM subscriber") == [("erased", None, None)]


def test_what_a_bounce_says_about_us_stays_when_its_person_goes(house: House, maria: int) -> None:
    mailing = house.provider.mailings[0]
    house.hear(*house.events("bounced", mailing, detail={"email": MARIA, "reason": "550 5.7.515 not signed"}))
    house.hear(
        *house.events("bounced", mailing, dedupe="b2", detail={"email": MARIA, "bounce_classification": "Reputation"})
    )
    wanted = [("identity",), ("reputation",)]
    assert house.query("SELECT trouble FROM provider_event WHERE trouble IS NOT NULL ORDER BY 1") == wanted
    begin(house, maria)
    assert house.query("SELECT trouble FROM provider_event WHERE trouble IS NOT NULL ORDER BY 1") == wanted


def test_a_booked_call_that_is_to_come_is_canceled_and_its_time_is_free(house: House, maria: int) -> None:
    begin(house, maria)
    assert house.query("SELECT state, phone, ask_for, revision FROM booking") == [("canceled", "", "", 2)]


@pytest.mark.parametrize(
    "answer",
    [
        Erasing(accepted=False, reason="403: the key may not erase"),
        Erasing(accepted=False, reason="404: no such request"),
        Erasing(accepted=False, reason="429: later", retry_after=timedelta(minutes=30)),
        Erasing(accepted=False, reason="500: no answer that can be read"),
    ],
    ids=lambda answer: answer.reason[:3],
)
def test_a_provider_that_says_no_is_asked_again_later_and_the_address_stays_sealed(
    house: House, redis_url: str, maria: int, answer: Erasing
) -> None:
    eraser = FakeEraser([answer])
    begin(house, maria)
    house.settle()
    carry_on(house, eraser)
    carry_on(house, eraser)
    assert len(eraser.asked) == 1, "not at once again"
    assert state(house) == [("asking", False, "scripted", "", answer.reason)]
    assert found_in(house, redis_url, SECRETS) == [], "sealed"
    house.later(minutes=31)
    carry_on(house, eraser)
    assert eraser.asked == [(MARIA,), (MARIA,)]
    assert state(house)[0][:2] == ("done", True)


def test_one_address_that_is_refused_does_not_cost_the_others(house: House) -> None:
    people = [somebody(house, address) for address in (MARIA, JOE)]
    for person in people:
        begin(house, person)
    no = Erasing(accepted=False, reason="400: not valid", at_fault=True)
    eraser = FakeEraser([no, no])
    carry_on(house, eraser)
    assert eraser.asked == [(MARIA, JOE), (MARIA,), (JOE,)]
    assert [row[0] for row in state(house)] == ["asking", "asked"]


def test_a_relay_is_asked_nothing_and_that_is_said(house: House, maria: int) -> None:
    begin(house, maria)
    carry_on(house)
    assert state(house) == [
        ("asked", True, "scripted", "", "scripted has no such request: ask whoever runs it to remove their logs")
    ]


def test_erasing_twice_is_one_erasure(house: House, maria: int) -> None:
    first, second = begin(house, maria), begin(house, maria)
    assert first == second
    finish(house)
    assert begin(house, maria) == first
    assert len(state(house)) == 1
    assert house.query("SELECT count(*) FROM suppression WHERE reason = 'erased'") == [(1,)]


def test_the_ledgers_row_is_in_the_journal_before_anybody_is_told(house: House, maria: int) -> None:
    erase.erase(house.database, maria, pepper=rows.PEPPER, actor="subscriber", kept=house.journal)
    left = list(journal.read_leaves(house.journal._folder))
    assert [(row.addr_hash, row.scope, row.reason) for row in left if isinstance(row, journal.Left)] == [
        (HASH, "marketing", "erased")
    ]


def test_what_refused_rows_of_a_file_said_goes_and_what_was_wrong_with_them_stays(house: House, maria: int) -> None:
    with house.database.transaction() as connection:
        connection.execute(
            text(
                "WITH run AS (INSERT INTO import_run (file, sha256, settings_sha256, settings, topics, source, wording,"
                " actor) VALUES ('a.csv', '', '', '{}', '{}', '', '', 'desk') RETURNING id)"
                " INSERT INTO import_refusal SELECT id, line, reason FROM run CROSS JOIN (VALUES"
                " (2, '`Mari`posa` is not a time zone such as America/Los_Angeles'), (3, 'not an address'))"
                " AS told (line, reason)"
            )
        )
    begin(house, maria)
    assert house.query("SELECT line, reason FROM import_refusal ORDER BY 1") == [
        (2, "what it says is not a time zone such as America/Los_Angeles"),
        (3, "not an address"),
    ]


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (wiping._PUSHED, "outbox_pushed"),
        (wiping._ACTIVITY, "activity_with_words"),
        (erasing._FORGET_QUOTED, "import_refusal_quoting"),
        (retention._STRANGERS, "subscriber_unconfirmed"),
        (clicks._NOTE_REASON, "activity_of_message"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_looked_up_for_every_person_needs_no_whole_table(
    database: Database, statement: TextClause, index: str
) -> None:
    values = {"subscriber_id": 1, "addr_hash": HASH, "before": rows.START, "limit": 1, "message_id": 1, "why": "x"}
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        explained = text(f"EXPLAIN {statement.text}")
        plan = connection.execute(explained, {name: values.get(name, "x") for name in explained._bindparams}).scalars()
        assert index in "\n".join(plan)


def test_nobody_is_erased_by_a_wrong_number(house: House) -> None:
    with pytest.raises(NotFoundError):
        erase.erase(house.database, 4711, pepper=rows.PEPPER, actor="desk")


def test_an_import_is_told_who_was_erased_and_a_confirmed_opt_in_forgets_it(house: House, maria: int) -> None:
    begin(house, maria)
    with house.database.transaction() as connection:
        assert erasing.erased(connection, [HASH, address_hash(rows.PEPPER, JOE)]) == {HASH}
        connection.execute(
            text(
                "INSERT INTO suppression (addr_hash, scope, action, reason, source)"
                " VALUES (:h, 'marketing', 'lift', 'confirmed', 'confirm')"
            ),
            {"h": HASH},
        )
        assert erasing.erased(connection, [HASH]) == set()


def test_somebody_a_backup_brought_back_is_erased_again(house: House, redis_url: str, maria: int) -> None:
    with house.database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO suppression (addr_hash, scope, action, reason, source, at)"
                " VALUES (:h, 'marketing', 'suppress', 'erased', 'erase', wall() + interval '1 hour')"
            ),
            {"h": HASH},
        )
    house.later(hours=2)
    carry_on(house, FakeEraser())
    finish(house)
    assert found_in(house, redis_url, SECRETS) == []
    assert house.query("SELECT actor, state FROM erasure") == [("restore", "done")]


def test_somebody_who_had_agreed_to_nothing_is_erased_again_too(house: House) -> None:
    person = house.person(MARIA, state="unconfirmed", topics=())
    asked = "INSERT INTO signup (subscriber_id, form, source, asked_at) VALUES (:p, 'guide', 'form', wall())"
    with house.database.transaction() as connection:
        connection.execute(text(asked), {"p": person})
        connection.execute(
            text(
                "INSERT INTO suppression (addr_hash, scope, action, reason, source, at)"
                " VALUES (:h, 'marketing', 'suppress', 'erased', 'erase', wall() + interval '1 hour')"
            ),
            {"h": HASH},
        )
    house.later(hours=2)
    carry_on(house, FakeEraser())
    finish(house)
    assert house.query("SELECT state, addr_hash FROM subscriber") == [("erased", None)]


def test_somebody_who_signs_up_anew_is_a_new_person_and_stays(house: House, maria: int) -> None:
    begin(house, maria)
    finish(house)
    again = house.person(MARIA, state="unconfirmed", topics=())
    assert again != maria
    with house.database.transaction() as connection:
        connection.execute(
            text("INSERT INTO signup (subscriber_id, form, source, asked_at) VALUES (:p, 'guide', 'form', wall())"),
            {"p": again},
        )
    carry_on(house)
    assert house.query("SELECT state FROM subscriber ORDER BY id") == [("erased",), ("unconfirmed",)]


def test_append_only_rows_change_for_nobody_else(house: House, maria: int) -> None:
    for statement in (
        "UPDATE activity SET detail = '{}'",
        "DELETE FROM activity",
        "DELETE FROM consent",
        "UPDATE suppression SET evidence = ''",
        "SET LOCAL dripwell.erasing = 'on'; DELETE FROM suppression",
        "SET LOCAL dripwell.erasing = 'on'; UPDATE suppression SET reason = 'x', evidence = ''",
    ):
        with pytest.raises(Exception, match="append-only"), house.database.transaction() as connection:
            connection.exec_driver_sql(statement)


class KilledError(Exception):
    """Where a process would have ended."""


@pytest.mark.parametrize("point", erase.POINTS)
def test_a_crash_at_any_point_leaves_nothing_half(house: House, redis_url: str, maria: int, point: str) -> None:
    def die(name: str) -> None:
        if name == point:
            raise KilledError

    eraser = FakeEraser()
    reached = False
    try:
        erase.erase(house.database, maria, pepper=rows.PEPPER, actor="subscriber", failpoint=die)
        carry_on(house, eraser, die)
        house.later(minutes=5)
        carry_on(house, eraser, die)
    except KilledError:
        reached = True
    assert reached, f"{point} was never passed"
    assert house.query("SELECT reason FROM suppression WHERE scope = 'marketing'") == [("erased",)]
    house.later(minutes=5)
    finish(house, eraser)
    assert state(house)[0][:2] == ("done", True)
    assert 1 <= len(eraser.asked) <= 2
    assert found_in(house, redis_url, SECRETS) == []
    house.check()


def test_what_is_held_about_a_person_is_shown_to_them_whole(house: House, maria: int) -> None:
    with house.database.transaction() as connection:
        found = mine.everything(connection, maria)
    assert found["subscriber"]["address"] == MARIA
    assert found["consents"][0]["wording"] == "Email me."
    assert [each["state"] for each in found["emails"]] == ["ACCEPTED"]
    assert found["calls"][0]["phone"] == PHONE
    assert found["call_wishes"][0]["words"] == WORDS
    assert found["suppressions"][0]["address_hash"] == HASH.hex()
    assert [each["kind"] for each in found["provider_events"]] == ["delivered"]
    assert {each["action"] for each in found["notes"]} == {"unsubscribe.reason", "relationship corrected"}
    assert json.loads(json.dumps(found)) == found
