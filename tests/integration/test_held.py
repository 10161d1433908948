"""Messages that are held wait for a person, who decides with a name and a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from dripwell.core.errors import NotFoundError, RefusedError
from dripwell.delivery.provider import Unknown
from dripwell.services import held, leave
from dripwell.storage import clock, outcomes
from dripwell.storage.database import Database
from tests.integration.scripted import House, Lost


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    """A house whose every test ends with the judge."""
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def hold(house: House, *addresses: str, answer: Unknown | Lost | None = None) -> list[int]:
    """These people's first emails, held because nobody knows; returns the message ids."""
    campaign = house.publish()
    house.enroll(campaign, *(house.person(address) for address in addresses or ("maria@example.com",)))
    house.plan()
    house.provider.answers = [answer or Unknown("timeout", 504)]
    house.provider.logs_answer = False
    house.send()
    house.settle()
    house.later(hours=2)
    house.settle()
    assert set(house.states()) == {"HELD"}
    return [int(row) for (row,) in house.query("SELECT id FROM message ORDER BY id")]  # type: ignore[call-overload]


def release(house: House, ids: list[int]) -> int:
    with house.database.transaction() as connection:
        return held.release(connection, ids, actor="maria", reason="support says no")


def skip(house: House, ids: list[int]) -> int:
    with house.database.transaction() as connection:
        return held.skip(connection, ids, actor="maria", reason="too old")


def test_a_held_message_is_listed_with_what_is_known_about_its_call(house: House) -> None:
    (message,) = hold(house)
    with house.database.transaction() as connection:
        (row,) = outcomes.held(connection)
    assert (row.id, row.reason, row.http_status, row.detail) == (message, "no_evidence", 504, "timeout")
    assert not row.channel_alive


def test_a_released_message_is_decided_again_and_mailed_once(house: House) -> None:
    ids = hold(house)
    assert release(house, ids) == 1
    house.until(house.wall.replace(hour=18) if house.wall.hour < 18 else house.wall)
    house.plan()
    house.send()
    assert house.states() == ["ACCEPTED"]
    assert ("T14", "support says no") in house.log()
    ((actor, action, detail),) = house.query("SELECT actor, action, detail FROM activity")
    assert (actor, action, detail["count"]) == ("maria", "held messages released", 1)  # type: ignore[index]


def test_a_released_message_still_obeys_its_window(house: House) -> None:
    ids = hold(house)
    house.until(house.wall.replace(hour=9))  # one in the morning in Los Angeles
    release(house, ids)
    house.plan()
    house.send()
    assert house.states() == ["PLANNED"]
    assert len(house.provider.mailings) == 1


def test_whoever_left_while_the_message_was_held_is_not_mailed_by_its_release(house: House) -> None:
    ids = hold(house)
    ((person,),) = house.query("SELECT id FROM subscriber")
    with house.database.transaction() as connection:
        leave.suppress(
            connection, subscriber_id=int(person), scope="marketing", reason="unsubscribed",  # type: ignore[call-overload]
            source=leave.PAGE, evidence="test", times=clock.read(connection),
        )  # fmt: skip
    release(house, ids)
    house.plan()
    house.send()
    assert house.states() == ["SUPPRESSED"]


def test_a_skipped_message_is_never_mailed_and_its_series_goes_on(house: House) -> None:
    ids = hold(house)
    assert skip(house, ids) == 1
    assert house.messages()["maria@example.com", "1-first"] == ("SKIPPED", "skipped")
    assert house.enrolled() == [("waiting", None, "1-first", None)]
    house.later(days=3)
    house.until(house.wall.replace(hour=18))
    house.plan()
    house.send()
    assert house.messages()["maria@example.com", "2-second"] == ("ACCEPTED", None)


def test_nobody_is_decided_about_when_one_of_them_is_not_held(house: House) -> None:
    ids = hold(house)
    with pytest.raises(NotFoundError):
        release(house, [*ids, 999])
    assert house.states() == ["HELD"]


def test_a_release_waits_for_the_persons_other_email(house: House) -> None:
    ids = hold(house)
    other = house.publish("other")
    ((person,),) = house.query("SELECT id FROM subscriber")
    house.enroll(other, int(person))  # type: ignore[call-overload]
    house.later(hours=23)
    house.plan()
    assert house.states() == ["HELD", "PLANNED"]
    with pytest.raises(RefusedError, match="another email"):
        release(house, ids)
    house.send()
    assert house.states() == ["ACCEPTED", "HELD"]
    assert release(house, ids) == 1


def test_evidence_that_comes_after_the_hold_wins_over_the_operators_skip(house: House) -> None:
    ids = hold(house, answer=Lost())
    skip(house, ids)
    house.hear(*house.events("delivered"))
    assert house.states() == ["ACCEPTED"]


def test_a_doubtful_hit_waits_once_and_is_held_the_second_time(house: House) -> None:
    campaign = house.publish()
    house.enroll(campaign, house.person())
    house.plan()
    for expected in ("PLANNED", "HELD"):
        ((hashed,),) = house.query("SELECT addr_hash FROM subscriber")
        assert house.fast.add([(bytes(hashed), "all")])  # type: ignore[arg-type]
        house.send()
        assert house.states() == [expected]
        house.later(seconds=61)
    assert house.messages()["maria@example.com", "1-first"] == ("HELD", "doubtful")
    assert house.provider.mailings == []
    assert json.dumps(house.enrolled()[0][0]) == '"mailing"'


def test_a_patient_is_not_mailed_through_a_provider_without_an_agreement(house: House) -> None:
    campaign = house.publish()
    house.enroll(campaign, house.person("p@example.com"), house.person("q@example.com"))
    house.plan()
    with house.database.transaction() as connection:
        connection.execute(text("UPDATE subscriber SET relationship = 'patient' WHERE address = 'p@example.com'"))
    house.send()
    assert house.messages()["p@example.com", "1-first"] == ("SKIPPED", "no_baa")
    assert house.messages()["q@example.com", "1-first"] == ("ACCEPTED", None)
    assert house.provider.addresses() == ["q@example.com"]
    assert house.enrolled()[0][:2] == ("exited", "no_baa")
