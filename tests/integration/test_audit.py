"""The auditor's other witnesses: silence, the fast set and a second count. Each is shown to speak when it must."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from sqlalchemy import text

from dripwell.services import audit, ingest, leave
from dripwell.storage import clock, events, suppressions
from dripwell.storage.audit import Differences
from dripwell.storage.audit import fast_set as compare
from dripwell.storage.database import Database
from tests.integration.scripted import House

MARIA, JOE = "maria@example.com", "joe@example.com"


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def mailed(house: House, *addresses: str) -> list[int]:
    """These people have had their first email, in one batch."""
    people = [house.person(address) for address in addresses or (MARIA,)]
    house.enroll(house.publish(), *people)
    house.plan()
    house.send()
    return people


def change(house: House, statement: str, **values: object) -> None:
    with house.database.transaction() as connection:
        connection.execute(text(statement), values)


# Silence (V12)


def silent(house: House, provider: str = "scripted") -> list[str]:
    with house.database.snapshot() as connection:
        return ingest.silent(connection, provider=provider)


def webhook(house: House) -> int:
    """One arrives, at the house's time."""
    with house.database.transaction() as connection:
        return events.put_inbox(connection, b"[]")


def test_nothing_mailed_and_nothing_heard_is_no_alarm(house: House) -> None:
    house.later(days=3)
    assert silent(house) == []


def test_fifteen_minutes_after_a_call_without_any_webhook_there_is_an_alarm(house: House) -> None:
    mailed(house)
    house.later(minutes=14)
    assert silent(house) == []
    house.later(minutes=2)
    (said,) = silent(house)
    assert "no event for 16 minutes although scripted accepted messages" in said
    assert silent(house, "smtp") == []


def test_a_webhook_after_the_call_breaks_the_silence_and_one_before_it_does_not(house: House) -> None:
    change(house, "INSERT INTO webhook_inbox (raw, state) VALUES ('[]', 'done')")
    house.later(minutes=1)
    mailed(house)
    house.later(minutes=20)
    assert len(silent(house)) == 1
    change(house, "INSERT INTO webhook_inbox (raw, state) VALUES ('[]', 'done')")
    assert silent(house) == []


def test_a_webhook_that_nobody_reads_for_ten_minutes_is_an_alarm(house: House) -> None:
    webhook(house)
    house.later(minutes=9)
    assert silent(house) == []
    house.later(minutes=2)
    (said,) = silent(house)
    assert "the oldest waits for 11 minutes" in said


def test_a_day_after_acceptance_the_messages_without_any_event_are_named(house: House) -> None:
    mailed(house, MARIA, JOE)
    change(house, "INSERT INTO webhook_inbox (raw, state) VALUES ('[]', 'done')")
    house.later(hours=23)
    assert silent(house) == []
    house.later(hours=1, minutes=30)
    ids = [str(id) for (id,) in house.query("SELECT id FROM message ORDER BY id")]
    (said,) = silent(house)
    assert said.endswith(f"about messages {', '.join(ids)}")
    maria = next(event for event in house.events("unknown") if event.address == MARIA)
    house.hear(maria)  # whatever it says, it was heard
    (said,) = silent(house)
    assert said.endswith(f"about messages {ids[1]}")
    house.hear(*house.events("delivered"))
    assert silent(house) == []
    house.plan()


def test_a_webhook_that_was_set_aside_is_shown(house: House) -> None:
    change(house, "INSERT INTO webhook_inbox (raw, state, tries) VALUES ('x', 'quarantined', 3)")
    assert silent(house) == ["1 webhooks are set aside unread: dripwell events list --quarantined"]


# The fast set (V7)


def leaves(house: House, subscriber: int) -> None:
    """The ledger has it, nobody has told Redis yet."""
    with house.database.transaction() as connection:
        leave.suppress(
            connection,
            subscriber_id=subscriber,
            scope="marketing",
            reason="unsubscribed",
            source="page",
            evidence="a test",
            times=clock.read(connection),
        )


def differences(house: House, redis_url: str) -> Differences | None:
    with house.database.transaction() as connection:
        return compare(connection, redis_url)


def sentences(house: House, redis_url: str) -> list[str]:
    with house.database.transaction() as connection:
        return audit.fast_set(connection, redis_url)


def member(house: House, address: str) -> bytes:
    ((addr_hash,),) = house.query("SELECT addr_hash FROM subscriber WHERE address = :address", address=address)
    return bytes(addr_hash)[:16] + b"marketing"  # type: ignore[call-overload, no-any-return]


def follow(house: House) -> None:
    with house.database.transaction() as connection:
        house.fast.expect(connection)
        assert house.fast.follow(connection)


def the_set(house: House) -> bytes:
    with house.database.transaction() as connection:
        return b"dw:supp:%d:%d" % suppressions.marks(connection)


def test_a_set_that_has_followed_equals_the_ledger(house: House, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as server:
        server.flushdb()
    assert differences(house, redis_url) is None  # there is none
    maria, joe = mailed(house, MARIA, JOE)
    leaves(house, maria)
    follow(house)
    assert differences(house, redis_url) == Differences(0, 0, 0)
    leaves(house, joe)
    assert differences(house, redis_url) == Differences(0, 0, 0)  # the follower has not looked since
    follow(house)
    assert sentences(house, redis_url) == []


def test_whoever_is_missing_lifted_or_unknown_is_counted(house: House, redis_url: str) -> None:
    maria, joe = mailed(house, MARIA, JOE)
    leaves(house, maria)
    leaves(house, joe)
    follow(house)
    with redis.Redis.from_url(redis_url) as server:
        server.srem(the_set(house), member(house, MARIA))
        server.sadd(the_set(house), b"0123456789abcdefmarketing", b"0123456789abcdefall")
        with house.database.transaction() as connection:
            suppressions.append(
                connection,
                addr_hash=house.query("SELECT addr_hash FROM subscriber WHERE id = :id", id=joe)[0][0],  # type: ignore[arg-type]
                scope="marketing",
                action="lift",
                reason="undone",
                source="page",
                evidence="",
            )
            follow_mark = suppressions.horizon(connection)
        server.hset("dw:supp:mark", "xmin", follow_mark + 1)
    assert differences(house, redis_url) == Differences(missing=1, lifted=1, strangers=2)
    assert [sentence.split()[2] for sentence in sentences(house, redis_url)] == ["set", "set", "set"]


def test_a_set_of_another_generation_or_a_silent_redis_is_no_alarm(house: House, redis_url: str) -> None:
    leaves(house, mailed(house)[0])
    follow(house)
    change(house, "UPDATE installation SET suppression_generation = suppression_generation + 1")
    assert differences(house, redis_url) is None
    assert differences(house, "redis://127.0.0.1:1/0") is None
    assert sentences(house, redis_url) == []


# The second count (V13)


def recounted(house: House) -> list[str]:
    with house.database.snapshot() as connection:
        return audit.recounted(connection, house.versions)


def lived(house: House) -> None:
    """Five people: delivered, bounced, complained, in work, left."""
    people = mailed(house, *(f"p{number}@example.com" for number in range(4)))
    first, second, third, _ = house.events("delivered")
    house.hear(first, *house.events("processed"))
    house.hear(*(event for event in house.events("bounced", hard=True) if event.address == second.address))
    house.hear(third, *(event for event in house.events("complained") if event.address == third.address))
    leaves(house, people[3])
    change(house, "INSERT INTO click (message_id, number, at) SELECT min(id), 0, wall() FROM message")
    ((campaign,),) = house.query("SELECT id FROM campaign WHERE kind = 'drip'")
    house.enroll(campaign, house.person("p4@example.com"))  # type: ignore[arg-type]
    house.plan()


def test_a_report_equals_a_count_of_calls_and_events(house: House) -> None:
    house.publish()
    assert recounted(house) == []
    lived(house)
    assert recounted(house) == []
    house.later(days=3)
    house.plan()
    house.send()
    assert recounted(house) == []


@pytest.mark.parametrize(
    ("damage", "repair", "said"),
    [
        (
            "UPDATE message SET delivery = 'bounced' WHERE delivery = 'delivered'",
            "UPDATE message SET delivery = 'delivered' WHERE id = (SELECT min(id) FROM message)",
            "bounced of 1-first is shown as 2, counted 1",
        ),
        (
            "UPDATE batch SET outcome = 'absent' WHERE outcome = 'accepted'",
            "UPDATE batch SET outcome = 'accepted' WHERE outcome = 'absent'",
            "accepted is shown as 4, counted 0",
        ),
    ],
)
def test_a_report_that_is_wrong_is_named(house: House, damage: str, repair: str, said: str) -> None:
    lived(house)
    change(house, damage)
    assert any(sentence.endswith(said) for sentence in recounted(house)), recounted(house)
    change(house, repair)
    assert recounted(house) == []


def test_the_clock_of_silence_is_the_wall(house: House) -> None:
    mailed(house)
    change(house, "UPDATE installation SET campaign_offset = :far", far=timedelta(days=30))
    assert silent(house) == []
    house.plan()
