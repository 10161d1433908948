"""What a person chose on the preferences page binds the planner, and the sender who holds a message already."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from dripwell.core.campaign import Lane
from dripwell.services import plan, preferences, send
from dripwell.storage import clock
from dripwell.storage.database import Database
from tests.integration.scripted import TOPIC, House

WEEK = timedelta(days=7)
GAP = timedelta(hours=20)


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def choose(house: House, person: int, *, pace: str = "planned", paused_until: datetime | None = None) -> None:
    """Press Save, all topics kept."""
    with house.database.transaction() as connection:
        assert preferences.save(
            connection,
            subscriber_id=person,
            site=house.site,
            topics=[TOPIC],
            pace=pace,
            paused_until=paused_until,
            times=clock.read(connection),
        )


def resume(house: House, person: int) -> bool:
    with house.database.transaction() as connection:
        return preferences.resume(connection, subscriber_id=person, times=clock.read(connection))


def work(house: House) -> None:
    """Everything that can be done now."""
    while house.plan() + house.send():
        pass


def live(house: House, until: datetime, most: int = 4000) -> None:
    """Let time pass from one due moment to the next, working at each."""
    for _ in range(most):
        work(house)
        ((due,),) = house.query(
            "SELECT least((SELECT min(next_due_at) FROM enrollment WHERE state = 'waiting'),"
            " (SELECT min(due_at) FROM message WHERE state = 'PLANNED'))"
        )
        if due is None or due >= until:  # type: ignore[operator]
            break
        house.until(max(due, house.wall) + timedelta(minutes=5))  # type: ignore[type-var, operator]
    else:
        pytest.fail("time stands still")
    house.until(until)


def mailed(house: House, person: int) -> list[datetime]:
    """When this person was mailed, oldest first."""
    found = house.query(
        "SELECT accepted_at FROM message WHERE subscriber_id = :id AND accepted_at IS NOT NULL ORDER BY 1", id=person
    )
    return [at for (at,) in found]  # type: ignore[misc]


def spans(times: list[datetime], over: int = 1) -> list[timedelta]:
    return [later - earlier for earlier, later in zip(times, times[over:], strict=False)]


def test_a_pause_of_months_in_five_campaigns_ends_with_one_email_at_a_time(house: House) -> None:
    campaigns = [house.publish(f"series-{number}") for number in range(5)]
    planned, weekly = house.person("planned@example.com"), house.person("weekly@example.com")
    for campaign in campaigns:
        house.enroll(campaign, planned, weekly)
    work(house)
    assert len(mailed(house, planned)) == len(mailed(house, weekly)) == 1
    end = house.wall + timedelta(days=120)
    choose(house, planned, paused_until=end)
    choose(house, weekly, pace="weekly", paused_until=end)
    live(house, end)
    assert len(mailed(house, planned)) == len(mailed(house, weekly)) == 1, "nothing comes during the pause"
    live(house, end + timedelta(days=100))
    for person in (planned, weekly):
        times = mailed(house, person)
        assert len(times) == 10, "nobody loses an email to a pause"
        assert min(spans(times)) >= GAP
        assert min(spans(times, 3)) >= WEEK, "three a week at most, over all campaigns"
    assert min(spans(mailed(house, weekly))) >= WEEK
    assert {row[0] for row in house.enrolled()} == {"finished"}


def test_resuming_by_the_button_sends_one_email_and_keeps_the_place(house: House) -> None:
    campaigns = [house.publish(f"series-{number}") for number in range(3)]
    person = house.person("maria@example.com")
    for campaign in campaigns:
        house.enroll(campaign, person)
    work(house)
    house.later(days=1)
    choose(house, person, paused_until=house.wall + timedelta(days=90))
    work(house)
    house.later(days=41)  # a Tuesday, in the window
    work(house)
    assert len(mailed(house, person)) == 1
    assert resume(house, person)
    assert not resume(house, person), "the second press finds no pause"
    work(house)
    assert len(mailed(house, person)) == 2, "six emails are due; one comes"
    live(house, house.wall + timedelta(days=40))
    keys = house.query(
        "SELECT campaign_id, array_agg(step_key ORDER BY accepted_at) FROM message GROUP BY campaign_id ORDER BY 1"
    )
    assert [steps for _, steps in keys] == [["1-first", "2-second"]] * 3
    assert min(spans(mailed(house, person))) >= GAP


@pytest.mark.parametrize("seed", range(3))
def test_whatever_people_choose_and_whenever_gap_limit_pause_and_weekly_hold(house: House, seed: int) -> None:
    chance = random.Random(seed)
    campaigns = [house.publish(f"series-{number}", wait=f"{chance.randint(1, 9)} days") for number in range(4)]
    people = house.people(4)
    for campaign in campaigns:
        house.enroll(campaign, *people)
    wishes: dict[int, list[tuple[datetime, str, datetime | None]]] = {person: [] for person in people}
    end = house.wall + timedelta(days=240)
    while house.wall < end - timedelta(days=150):
        live(house, house.wall + timedelta(hours=chance.randint(1, 200)))
        person = chance.choice(people)
        if chance.random() < 0.2 and resume(house, person):
            pace = wishes[person][-1][1]
            wishes[person].append((house.wall, pace, None))
            continue
        pace = chance.choice(["planned", "weekly"])
        pause = house.wall + timedelta(days=chance.randint(1, 80)) if chance.random() < 0.5 else None
        choose(house, person, pace=pace, paused_until=pause)
        wishes[person].append((house.wall, pace, pause))
    live(house, end)
    for person in people:
        times = mailed(house, person)
        assert len(times) == 8, "every email comes in the end"
        assert min(spans(times)) >= GAP
        assert min(spans(times, 3)) >= WEEK
        for (since, pace, pause), (then, _, _) in pairwise([*wishes[person], (end, "", None)]):
            during = [at for at in times if since < at <= then]
            assert pause is None or all(at >= pause for at in during)
            if pace == "weekly":
                before = [at for at in times if at <= since][-1:]
                assert all(span >= WEEK for span in spans([*before, *during]))


@pytest.mark.parametrize("wish", ["pause", "weekly"])
def test_a_wish_holds_for_a_message_that_a_sender_has_taken_but_not_called_for(house: House, wish: str) -> None:
    first, second = house.publish("first"), house.publish("second")
    person = house.person("maria@example.com")
    house.enroll(first, person)
    work(house)
    house.later(hours=24)
    house.enroll(second, person)
    house.plan()
    batch = send.claim(house.sender(), Lane.DRIP)
    assert batch is not None
    if wish == "pause":
        choose(house, person, paused_until=house.wall + timedelta(days=30))
    else:
        choose(house, person, pace="weekly")
    send.carry_out(house.sender(), batch)
    work(house)
    assert len(mailed(house, person)) == 1, "the final check leaves them out"
    live(house, house.wall + timedelta(days=60))
    times = mailed(house, person)
    assert len(times) == 4
    assert times[1] - times[0] >= (timedelta(days=30) if wish == "pause" else WEEK)


def test_a_wish_holds_for_a_message_that_comes_back_from_a_batch(house: House) -> None:
    campaign, person = house.publish(), house.person("maria@example.com")
    house.enroll(campaign, person)
    house.plan()
    sender = house.sender()
    batch = send.claim(sender, Lane.DRIP)
    assert batch is not None
    choose(house, person, paused_until=house.wall + timedelta(days=3))
    house.settle()  # its owner is gone: the message is planned again
    house.later(minutes=2)
    house.settle()
    assert house.states() == ["PLANNED"]
    house.send()
    assert mailed(house, person) == []
    work(house)
    assert mailed(house, person) == []
    live(house, house.wall + timedelta(days=20))
    assert len(mailed(house, person)) == 2


def test_a_wish_waits_for_a_planner_that_has_read_the_old_one(house: House) -> None:
    campaign, person = house.publish(), house.person("maria@example.com")
    house.enroll(campaign, person)
    saved = threading.Thread(target=lambda: choose(house, person, paused_until=house.wall + timedelta(days=9)))
    with house.database.transaction() as connection:
        assert plan.plan_slice(connection, house.versions, 100) == 1
        saved.start()
        saved.join(0.3)
        assert saved.is_alive(), "it waits for the planner's word"
    saved.join(30)
    assert not saved.is_alive()
    work(house)
    assert house.states() == ["PLANNED"]
    assert mailed(house, person) == []


def test_nothing_is_kept_for_a_person_who_was_erased_meanwhile(house: House) -> None:
    person = house.person("maria@example.com")
    house.query(
        "UPDATE subscriber SET state = 'erased', address = NULL, addr_hash = NULL, fields = '{}'"
        " WHERE id = :id RETURNING id",
        id=person,
    )
    with house.database.transaction() as connection:
        kept = preferences.save(
            connection,
            subscriber_id=person,
            site=house.site,
            topics=["monthly-notes"],
            pace="weekly",
            paused_until=None,
            times=clock.read(connection),
        )
    assert not kept
    assert house.query("SELECT topic FROM consent WHERE source = 'preferences'") == []
