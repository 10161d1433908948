"""Retention: old rows go and no sum changes; silent people are asked, and erased only without an answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation, run_pass
from dripwell.core.campaign import Lane
from dripwell.core.clicks import Click, by_a_person
from dripwell.core.duration import Duration
from dripwell.core.errors import NotFoundError
from dripwell.core.states import DELIVERY_PRECEDENCE, Reason
from dripwell.core.tokens import Purpose, sign
from dripwell.services import erase, leave, preferences, retention
from dripwell.storage import audit, clock, consents, reports
from dripwell.storage import retention as stored
from dripwell.storage.database import Connection, Database
from dripwell.web.app import create_app
from tests.integration import rows
from tests.integration.scripted import TOPIC, House

MARIA, JOE = "maria@example.com", "joe@example.com"
EVENTS, QUIET = Duration(400, "day"), Duration(12, "month")


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    made = House(database, redis_url)
    yield made
    made.close()


def run(house: House, quiet: Duration | None = None) -> int:
    return retention.run(
        house.database, keep_events=EVENTS, keep_quiet=quiet, pepper=rows.PEPPER, out_of_time=lambda: False
    )


def put(house: House, statement: str, **values: object) -> None:
    with house.database.transaction() as connection:
        connection.execute(text(statement), values)


def sums(house: House, campaign_id: int) -> object:
    """What a report says, and what the auditor counts another way."""
    with house.database.transaction() as connection:
        counted = reports.by_step(connection, campaign_id)
        return (
            reports.totals(connection, campaign_id),
            reports.people(connection, campaign_id),
            reports.messages(connection, campaign_id),
            reports.clicked(connection, campaign_id),
            {key: dict(sorted(step.items())) for key, step in counted.items()},
            audit.recount(connection, campaign_id, DELIVERY_PRECEDENCE),
        )


def test_old_events_and_clicks_go_and_every_sum_stays(house: House) -> None:
    campaign_id = house.publish()
    house.publish_service()
    people = house.people(4)
    house.enroll(campaign_id, *people)
    house.plan()
    house.send()
    for kind in ("processed", "deferred", "delivered"):
        house.hear(*house.events(kind, detail={"email": "p0@example.com"}))
    house.hear(house.events("bounced", detail={"reason": "550 5.7.515 no"})[3])
    ids = [row[0] for row in house.query("SELECT id FROM message ORDER BY id")]
    for number in (0, 1, 1, 0):
        put(house, "INSERT INTO click (message_id, number, at) VALUES (:m, :n, wall())", m=ids[0], n=number)
        house.later(minutes=1)
    for number in range(5):  # a scanner: every link in one moment
        put(house, "INSERT INTO click (message_id, number, at) VALUES (:m, :n, wall())", m=ids[1], n=number)
    put(house, "INSERT INTO click (message_id, number, at) SELECT :m, 0, wall() FROM generate_series(1, 205)", m=ids[2])
    put(house, "INSERT INTO webhook_inbox (raw, state) VALUES ('a', 'done'), ('b', 'quarantined'), ('c', 'new')")
    house.later(days=380)
    put(house, "INSERT INTO click (message_id, number, at) VALUES (:m, 1, wall())", m=ids[3])
    put(house, "INSERT INTO webhook_inbox (raw, state) VALUES ('d', 'done')")
    before = sums(house, campaign_id)
    assert run(house) > 0
    assert house.query("SELECT count(*) FROM click") == [(4 + 5 + 205 + 1,)], "nothing is old yet"
    house.later(days=21)
    assert run(house) > 0
    assert sums(house, campaign_id) == before
    assert house.query("SELECT message_id, count(*) FROM click GROUP BY 1 ORDER BY 1") == [
        (ids[0], 1), (ids[1], 3), (ids[2], 3), (ids[3], 1),
    ]  # fmt: skip
    assert house.query("SELECT type, trouble FROM provider_event ORDER BY id") == [("delivered", None)] * 3 + [
        ("bounced", "identity")
    ]
    assert house.query("SELECT count(*) FROM provider_event WHERE CAST(detail AS text) LIKE '%@%'") == [(0,)]
    assert house.query("SELECT raw FROM webhook_inbox ORDER BY id") == [(b"c",), (b"d",)]
    assert run(house) == 0, "once a day"


def test_a_machines_clicks_stay_a_machines(house: House) -> None:
    campaign_id = house.publish()
    house.enroll(campaign_id, *house.people(2))
    house.plan()
    house.send()
    ids = [row[0] for row in house.query("SELECT id FROM message ORDER BY id")]
    put(house, "INSERT INTO click (message_id, number, at) SELECT :m, n, wall() FROM generate_series(1, 4) n", m=ids[0])
    put(house, "INSERT INTO click (message_id, number, at) SELECT :m, 0, wall() FROM generate_series(1, 205)", m=ids[1])
    house.later(days=401)
    run(house)
    for found in ids:
        rows_left = house.query("SELECT number, wall_at, at FROM click WHERE message_id = :m", m=found)
        assert by_a_person([Click(*row) for row in rows_left]) == []  # type: ignore[arg-type]


def mailed_and_silent(house: House) -> tuple[int, int]:
    """Two people who joined and were not heard of for a year; Joe did something lately."""
    house.publish_service()
    maria, joe = house.person(MARIA), house.person(JOE)
    house.later(days=370)
    put(house, "INSERT INTO happening (subscriber_id, event, at) VALUES (:p, 'watched', wall())", p=joe)
    return maria, joe


def asked(house: House) -> list[tuple[object, ...]]:
    return house.query("SELECT subscriber_id, kept_at IS NOT NULL FROM quiet_question ORDER BY 1")


def test_nobody_is_asked_where_nothing_says_so(house: House) -> None:
    mailed_and_silent(house)
    run(house)
    assert asked(house) == []


def test_who_does_not_answer_is_erased_thirty_days_after_the_email(house: House) -> None:
    maria, _ = mailed_and_silent(house)
    run(house, QUIET)
    assert asked(house) == [(maria, False)]
    house.send(Lane.CONFIRM)
    (envelope,) = house.provider.mailings[-1].envelopes
    assert envelope.to == MARIA
    assert "/q/" in "".join(envelope.substitutions.values()) + house.provider.mailings[-1].text
    house.later(days=29)
    run(house, QUIET)
    assert house.query("SELECT count(*) FROM erasure") == [(0,)]
    house.later(days=2)
    run(house, QUIET)
    assert house.query("SELECT subscriber_id, actor FROM erasure") == [(maria, "retention")]
    assert house.query("SELECT state FROM subscriber ORDER BY id") == [("erased",), ("active",)]
    assert len(house.provider.mailings) == 1, "asked once"


def test_who_cannot_be_asked_is_not_erased_for_not_answering(house: House) -> None:
    maria, _ = mailed_and_silent(house)
    run(house, QUIET)
    house.later(days=40)
    run(house, QUIET)
    assert asked(house) == [(maria, False)]
    assert house.query("SELECT count(*) FROM erasure") == [(0,)], "the email never went out"


def test_who_leaves_is_not_asked_any_more_whether_they_want_to_stay(house: House) -> None:
    maria, _ = mailed_and_silent(house)
    run(house, QUIET)
    with house.database.transaction() as connection:
        leave.suppress(
            connection,
            subscriber_id=maria,
            scope="marketing",
            reason=Reason.UNSUBSCRIBED,
            source="page",
            evidence="",
            times=clock.read(connection),
        )
    house.send(Lane.CONFIRM)
    assert house.provider.mailings == [] or MARIA not in [e.to for m in house.provider.mailings for e in m.envelopes]
    assert house.query("SELECT state FROM message WHERE lane = 'confirm'") == [("SUPPRESSED",)]


def test_who_answers_by_choosing_is_not_erased(house: House) -> None:
    maria, _ = mailed_and_silent(house)
    run(house, QUIET)
    house.send(Lane.CONFIRM)
    house.later(days=10)
    with house.database.transaction() as connection:
        assert preferences.save(
            connection, subscriber_id=maria, site=house.site, topics=[TOPIC], pace="weekly", paused_until=None,
            times=clock.read(connection),
        )  # fmt: skip
    house.later(days=25)
    run(house, QUIET)
    assert house.query("SELECT count(*) FROM erasure") == [(0,)]


def test_who_gave_up_every_topic_is_not_asked_to_stay(house: House) -> None:
    maria, _ = mailed_and_silent(house)
    with house.database.transaction() as connection:
        consents.add(
            connection, maria, TOPIC, give=False, source="preferences", wording="",
            at=clock.read(connection).now - timedelta(days=400),
        )  # fmt: skip
    run(house, QUIET)
    assert asked(house) == []


def test_any_sign_of_life_counts_as_an_answer(house: House) -> None:
    maria, _ = mailed_and_silent(house)
    run(house, QUIET)
    house.send(Lane.CONFIRM)
    house.later(days=10)
    put(house, "INSERT INTO happening (subscriber_id, event, at) VALUES (:p, 'watched', wall())", p=maria)
    house.later(days=30)
    run(house, QUIET)
    assert house.query("SELECT count(*) FROM erasure") == [(0,)]


def test_patients_are_never_asked_and_who_never_confirmed_is_erased_unasked(house: House) -> None:
    house.publish_service()
    patient = house.person(MARIA)
    put(house, "UPDATE subscriber SET relationship = 'patient' WHERE id = :p", p=patient)
    never = house.person(JOE, state="unconfirmed", topics=())
    house.later(days=370)
    run(house, QUIET)
    assert asked(house) == []
    assert house.query("SELECT subscriber_id FROM erasure") == [(never,)]


def stranger(house: House, address: str) -> int:
    """Somebody typed this address into a form; nobody pressed the button."""
    person = house.person(address, state="unconfirmed", topics=())
    asks(house, person)
    return person


def asks(house: House, person: int) -> None:
    put(
        house,
        "INSERT INTO signup (subscriber_id, form, source, asked_at) VALUES (:p, 'series-request', 'form', wall())",
        p=person,
    )


def test_an_address_that_never_confirmed_is_erased_thirty_days_after_its_last_request(house: House) -> None:
    house.publish_service()
    maria, joe = stranger(house, MARIA), stranger(house, JOE)
    house.later(days=20)
    asks(house, joe)
    house.later(days=9)
    run(house)
    assert house.query("SELECT count(*) FROM erasure") == [(0,)], "29 days are not 30"
    house.later(days=2)
    run(house)
    assert house.query("SELECT subscriber_id, actor FROM erasure") == [(maria, "retention")]
    assert house.query("SELECT id, state, address FROM subscriber ORDER BY id") == [
        (maria, "erased", None),
        (joe, "unconfirmed", JOE),
    ]
    house.later(days=30)
    run(house)
    assert house.query("SELECT subscriber_id FROM erasure ORDER BY 1") == [(maria,), (joe,)]


def test_the_time_is_looked_at_between_people_and_the_next_pass_goes_on(house: House) -> None:
    house.publish_service()
    for number in range(3):
        stranger(house, f"p{number}@example.com")
    house.later(days=31)
    looks = iter([False, False, True])  # the slice, the first of them, the second
    retention.run(
        house.database, keep_events=EVENTS, keep_quiet=None, pepper=rows.PEPPER, out_of_time=lambda: next(looks)
    )
    assert house.query("SELECT count(*) FROM erasure") == [(1,)]
    run(house)
    assert house.query("SELECT state FROM subscriber") == [("erased",)] * 3


def test_who_is_left_of_a_slice_when_time_is_up_is_not_passed_over(house: House) -> None:
    house.publish_service()
    for number in range(3):
        house.person(f"p{number}@example.com", state="unsubscribed")
    house.later(days=370)
    looks = iter([False, False, True])
    retention.run(
        house.database, keep_events=EVENTS, keep_quiet=QUIET, pepper=rows.PEPPER, out_of_time=lambda: next(looks)
    )
    assert house.query("SELECT count(*) FROM erasure") == [(1,)]
    run(house, QUIET)
    assert house.query("SELECT state FROM subscriber") == [("erased",)] * 3
    assert run(house, QUIET) == 0, "the day is done"


def test_so_many_are_asked_in_a_day_however_many_slices_it_has(house: House) -> None:
    house.publish_service()
    people = [house.person(f"p{number}@example.com") for number in range(3)]
    left = house.person("left@example.com", state="unsubscribed")
    house.later(days=370)
    put(house, "UPDATE retention_state SET asked = :n", n=retention.ASKED_A_DAY - 2)
    run(house, QUIET)
    assert asked(house) == [(people[0], False), (people[1], False)]
    assert house.query("SELECT subscriber_id FROM erasure") == [(left,)], "who is not asked does not wait for that"
    house.later(days=1, minutes=1)
    run(house, QUIET)
    assert asked(house) == [(person, False) for person in people]


def test_who_left_or_cannot_be_reached_is_erased_unasked_after_the_same_time(house: House) -> None:
    house.publish_service()
    left, dead, patient, lately = (house.person(f"p{number}@example.com") for number in range(4))
    put(house, "UPDATE subscriber SET relationship = 'patient' WHERE id = :p", p=patient)

    def leaves(person: int, reason: str) -> None:
        with house.database.transaction() as connection:
            leave.suppress(
                connection, subscriber_id=person, scope="all", reason=reason, source="page", evidence="",
                times=clock.read(connection),
            )  # fmt: skip

    leaves(left, Reason.UNSUBSCRIBED)
    leaves(dead, Reason.UNDELIVERABLE)
    leaves(patient, Reason.UNSUBSCRIBED)
    house.later(days=30)
    leaves(lately, Reason.UNSUBSCRIBED)
    house.later(days=340)
    run(house)
    assert house.query("SELECT count(*) FROM erasure") == [(0,)], "no period is set"
    house.later(days=1, minutes=1)
    run(house, QUIET)
    assert asked(house) == []
    assert house.query("SELECT subscriber_id, actor FROM erasure ORDER BY 1") == [
        (left, "retention"), (dead, "retention"),
    ]  # fmt: skip
    assert house.query("SELECT id, state, address IS NULL FROM subscriber ORDER BY id") == [
        (left, "erased", True), (dead, "erased", True),
        (patient, "unsubscribed", False), (lately, "unsubscribed", False),
    ]  # fmt: skip
    assert house.query("SELECT scope, reason FROM suppression WHERE reason <> 'erased' ORDER BY seq") == [
        ("all", "unsubscribed"), ("all", "undeliverable"), ("all", "unsubscribed"), ("all", "unsubscribed"),
    ]  # fmt: skip


def test_words_that_nobody_uses_any_more_go_within_a_day_and_others_stay(house: House) -> None:
    joe, maria = house.person(JOE), house.person(MARIA)
    with house.database.transaction() as connection:
        at = clock.read(connection).now
        for person, wording in ((joe, "Write to me."), (maria, "Maria agreed on the phone."), (maria, "Write to me.")):
            consents.add(connection, person, TOPIC, give=True, source="x", wording=wording, at=at)
    before = {row[0] for row in house.query("SELECT words FROM wording")}
    assert {"Write to me.", "Maria agreed on the phone."} <= before
    erase.erase(house.database, maria, pepper=rows.PEPPER, actor="subscriber")
    with house.database.transaction() as writing:
        consents.add(writing, joe, TOPIC, give=True, source="x", wording="Write to me.", at=at)
        run(house)
        assert {row[0] for row in house.query("SELECT words FROM wording")} == before, "a consent is being written"
    house.later(days=1, minutes=1)
    run(house)
    assert {row[0] for row in house.query("SELECT words FROM wording")} == before - {"Maria agreed on the phone."}


def test_who_confirms_while_the_pass_runs_is_not_erased(house: House) -> None:
    house.publish_service()
    maria = stranger(house, MARIA)
    house.later(days=31)
    with house.database.transaction() as connection:
        assert stored.strangers(connection, before=rows.START + timedelta(days=31), limit=9) == [maria]
    put(house, "UPDATE signup SET confirmed_at = wall() WHERE subscriber_id = :p", p=maria)

    def still(connection: Connection) -> bool:
        return stored.is_stranger(connection, maria, clock.read(connection).now - retention.UNCONFIRMED_FOR)

    with pytest.raises(NotFoundError):
        erase.erase(house.database, maria, pepper=rows.PEPPER, actor="retention", still=still)
    assert house.query("SELECT count(*) FROM erasure") == [(0,)]
    assert house.query("SELECT count(*) FROM suppression") == [(0,)]
    assert house.query("SELECT state, address FROM subscriber") == [("unconfirmed", MARIA)]


def test_of_the_unconfirmed_only_strangers_are_erased_after_thirty_days(house: House) -> None:
    house.publish_service()
    campaign_id = house.publish()
    patient, agreed, confirmed, in_series, told, happened = (stranger(house, f"p{n}@example.com") for n in range(6))
    house.person("by-staff@example.com", state="unconfirmed", topics=())
    put(house, "UPDATE subscriber SET relationship = 'patient' WHERE id = :p", p=patient)
    put(
        house,
        "INSERT INTO consent (subscriber_id, topic, action, source, given_at)"
        " VALUES (:p, 'notes', 'give', 'x', wall())",
        p=agreed,
    )
    put(house, "UPDATE signup SET confirmed_at = wall() WHERE subscriber_id = :p", p=confirmed)
    house.enroll(campaign_id, in_series)
    put(house, "INSERT INTO call_wish (subscriber_id, phone, words, at) VALUES (:p, '555-0100', 'x', wall())", p=told)
    put(house, "INSERT INTO happening (subscriber_id, event, at) VALUES (:p, 'watched', wall())", p=happened)
    house.later(days=60)
    run(house)
    assert house.query("SELECT count(*) FROM erasure") == [(0,)]


def test_the_page_asks_on_get_and_keeps_on_post(installation: Installation) -> None:
    with installation.database.transaction() as connection:
        person = rows.subscriber(connection, MARIA, pepper=installation.pepper)
        connection.execute(text("UPDATE retention_state SET ended_at = '-infinity'"))
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f"ALTER DATABASE {name} SET dripwell.wall = '2028-01-03 17:00+00'"))
    installation.database.engine.dispose()
    retention.run(
        installation.database,
        keep_events=EVENTS,
        keep_quiet=QUIET,
        pepper=installation.pepper,
        out_of_time=lambda: False,
    )
    with installation.database.transaction() as connection:
        (message,) = connection.execute(
            text("SELECT id FROM message WHERE subscriber_id = :p"), {"p": person}
        ).scalars()
        wall = connection.execute(text("SELECT wall()")).scalar_one()
    path = f"/q/{sign(installation.keys, Purpose.KEEP, message, wall)}"

    def kept() -> bool:
        with installation.database.transaction() as connection:
            return bool(connection.execute(text("SELECT kept_at IS NOT NULL FROM quiet_question")).scalar_one())

    with TestClient(create_app(installation), base_url="https://mail.kcla.example") as client:
        seen = client.get(path)
        assert seen.status_code == 200
        assert "m•••a@example.com" in seen.text
        assert client.head(path).status_code == 200
        assert not kept()
        assert "You stay" in client.post(path).text
        assert kept()
        assert client.post(path).status_code == 200
        assert "Nothing waits" in client.get(path).text
        assert client.get(path[:-2]).status_code == 404
        erase.erase(installation.database, person, pepper=installation.pepper, actor="subscriber")
        assert "Nothing waits" in client.get(path).text


def test_the_pass_of_the_workers_does_it_once_a_day(installation: Installation) -> None:
    run_pass(installation, "retain")
    with installation.database.transaction() as connection:
        ended = "SELECT ended_at FROM retention_state"
        first = connection.execute(text(ended)).scalar_one()
    run_pass(installation, "retain")
    with installation.database.transaction() as connection:
        assert connection.execute(text(ended)).scalar_one() == first
