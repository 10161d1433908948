"""Who goes out together, and who waits: variants, warm-up, brakes, mailbox groups, the shared rate and quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from dripwell.core.campaign import Delivery, Lane, WarmUp
from dripwell.core.errors import UnavailableError
from dripwell.delivery.provider import NotSent
from dripwell.services import send
from dripwell.storage import brakes, limiter
from dripwell.storage.database import Database
from dripwell.storage.journal import Journal
from tests.integration.scripted import House

ASKING = """\
# First

{% if first_name %}Hello {{ first_name }}.{% else %}Hello.{% endif %}

{% if state == "CA" %}You are near us.{% endif %}

[Read more](https://kcla.example/read)
"""


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    """A house whose every test ends with the judge."""
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def sizes(house: House) -> list[int]:
    return [len(mailing.envelopes) for mailing in house.provider.mailings]


def planned(house: House, count: int = 4) -> None:
    campaign = house.publish()
    house.enroll(campaign, *house.people(count))
    assert house.plan() == count


def test_people_of_one_variant_share_a_call_wherever_they_stand_in_the_queue(house: House) -> None:
    campaign = house.publish(first=ASKING)
    fields = [{"first_name": "Maria"}, {}, {"first_name": "Joe", "state": "CA"}]
    people = [house.person(f"p{n}@example.com", fields=fields[n % 3]) for n in range(30)]
    house.enroll(campaign, *people)
    house.plan()
    house.send()
    assert sizes(house) == [10, 10, 10]
    assert house.states() == ["ACCEPTED"] * 30
    named = [mailing for mailing in house.provider.mailings if "You are near us" in mailing.text]
    assert [envelope.to for mailing in named for envelope in mailing.envelopes] == [
        f"p{n}@example.com" for n in range(30) if n % 3 == 2
    ]
    assert len({variant for (variant,) in house.query("SELECT variant FROM batch")}) == 3


def test_somebody_whose_condition_has_no_answer_is_rejected_alone(house: House) -> None:
    campaign = house.publish(first=ASKING)
    people = [house.person("long@example.com", fields={"first_name": "x" * 60_000}), *house.people(3)]
    house.enroll(campaign, *people)
    house.plan()
    house.send()
    assert house.messages()["long@example.com", "1-first"] == ("REJECTED", "render")
    assert house.states() == ["ACCEPTED"] * 3 + ["REJECTED"]


def test_a_text_with_a_broken_branch_mails_nobody_and_costs_nobody_their_place(house: House) -> None:
    broken = "# First\n\n{% if first_name %}\n::: call\n{% endif %}\n\n[Read more](https://kcla.example/read)\n"
    campaign = house.publish(first=broken)
    house.enroll(campaign, house.person("a@example.com", fields={"first_name": "Maria"}))
    house.plan()
    house.send()
    assert house.states() == ["PLANNED"]
    assert house.provider.mailings == []


def test_a_warm_up_lets_out_as_many_as_its_day_allows_and_the_rest_the_next_day(house: House) -> None:
    house.site = replace(house.site, warm_up=WarmUp("new-domain", date(2026, 11, 2)))
    planned(house, 60)
    house.send()
    assert house.states() == ["ACCEPTED"] * 50 + ["PLANNED"] * 10
    assert house.send() == 0
    house.later(days=1)
    house.plan()
    house.send()
    assert house.states() == ["ACCEPTED"] * 60


def test_a_warm_up_counts_calls_whose_end_nobody_knows(house: House) -> None:
    house.site = replace(house.site, warm_up=WarmUp("new-domain", date(2026, 11, 2)))
    planned(house, 60)
    batch = send.claim(house.sender(), Lane.DRIP)
    assert batch is not None
    assert len(batch.addressees) == 50
    assert send.claim(house.sender(), Lane.DRIP) is None
    send.carry_out(house.sender(), batch)


def test_a_closed_lane_claims_nothing_until_somebody_opens_it(house: House) -> None:
    planned(house)
    with house.database.transaction() as connection:
        brakes.pull(connection, "lane:drip", "too many complaints", {}, house.wall)
    assert house.send() == 0
    with house.database.transaction() as connection:
        assert brakes.release(connection, "lane:drip", "anna", "list cleaned", house.wall)
    house.send()
    assert house.states() == ["ACCEPTED"] * 4


def test_people_at_a_mailbox_provider_that_is_left_alone_wait_and_hold_nobody_up(house: House) -> None:
    campaign = house.publish()
    house.enroll(campaign, house.person("a@gmail.com"), house.person("b@example.com"), house.person("c@gmail.com"))
    house.plan()
    with house.database.transaction() as connection:
        brakes.pull(connection, "group:gmail", "refused for reputation", {}, house.wall)
    house.send()
    assert house.provider.addresses() == ["b@example.com"]
    with house.database.transaction() as connection:
        brakes.release(connection, "group:gmail", "anna", "mended", house.wall)
    house.later(minutes=16)
    house.plan()
    house.send()
    assert house.states() == ["ACCEPTED"] * 3


def test_a_mailbox_provider_with_a_pace_of_its_own_gets_no_more_and_the_others_go(house: House, redis_url: str) -> None:
    pace = {"gmail": 1 / 600}
    house.site = replace(house.site, delivery=Delivery(pace=pace))
    house.limiter = limiter.Limiter(redis_url, ceiling=1e9, pace=pace)
    campaign = house.publish()
    house.enroll(campaign, house.person("a@gmail.com"))
    house.plan()
    house.send()
    house.enroll(campaign, house.person("b@gmail.com"), house.person("c@example.com"))
    house.plan()
    house.send()
    assert house.provider.addresses() == ["a@gmail.com", "c@example.com"]
    assert house.states() == ["ACCEPTED"] * 2 + ["PLANNED"]
    house.later(minutes=11)
    house.plan()
    house.send()
    assert house.states() == ["ACCEPTED"] * 3


def test_a_long_queue_at_a_slow_mailbox_provider_is_put_back_once_and_comes_piece_by_piece(
    house: House, redis_url: str
) -> None:
    pace = {"gmail": 1 / 60}
    house.site = replace(house.site, delivery=Delivery(pace=pace))
    house.limiter = limiter.Limiter(redis_url, ceiling=1e9, pace=pace)
    house.provider.capabilities = replace(house.provider.capabilities, max_batch=1)
    campaign = house.publish()
    house.enroll(campaign, *(house.person(f"p{n}@gmail.com") for n in range(5)))
    house.plan()
    house.send()
    assert len(house.provider.mailings) == 1
    waits = house.query(
        "SELECT extract(epoch FROM retry_at - wall())::int FROM message WHERE state = 'PLANNED' ORDER BY 1"
    )
    assert [int(seconds) // 55 for (seconds,) in waits] == [1, 2, 3, 4]  # type: ignore[call-overload]


def test_people_behind_those_at_a_mailbox_provider_left_alone_go_in_the_same_pass(house: House) -> None:
    house.provider.capabilities = replace(house.provider.capabilities, max_batch=3)
    campaign = house.publish()
    house.enroll(campaign, *(house.person(f"p{n}@gmail.com") for n in range(10)), house.person("b@example.com"))
    house.plan()
    with house.database.transaction() as connection:
        brakes.pull(connection, "group:gmail", "refused for reputation", {}, house.wall)
    house.send()
    assert house.provider.addresses() == ["b@example.com"]


def test_a_trial_with_nobody_to_mail_keeps_no_other_waiting(house: House) -> None:
    with house.database.transaction() as connection:
        connection.execute(
            text(
                "UPDATE lane_state SET breaker = 'open', breaker_until = wall(), breaker_reason = 'x',"
                " breaker_opened = 1 WHERE lane = 'drip'"
            )
        )
    assert house.send() == 0
    planned(house)
    house.send()
    assert house.states() == ["ACCEPTED"] * 4


def test_a_429_slows_every_lane_and_makes_no_batch_smaller(house: House) -> None:
    planned(house)
    house.provider.answers = [NotSent("429", 429, retry_after=timedelta(seconds=30), rate_limited=True)]
    house.send()
    assert house.limiter.take("confirm", 1) > 20
    assert house.query("SELECT batch_limit FROM lane_state WHERE lane = 'drip'") == [(100,)]
    house.later(seconds=31)
    house.send()
    assert house.states() == ["ACCEPTED"] * 4


def test_while_a_breaker_is_half_open_one_sender_tries_and_the_others_wait(house: House) -> None:
    planned(house)
    with house.database.transaction() as connection:
        connection.execute(
            text(
                "UPDATE lane_state SET breaker = 'open', breaker_until = wall(), breaker_reason = 'x',"
                " breaker_opened = 1 WHERE lane = 'drip'"
            )
        )
    trial = send.claim(house.sender(), Lane.DRIP)
    assert trial is not None
    assert len(trial.addressees) == 1
    assert send.claim(house.sender(), Lane.DRIP) is None
    send.carry_out(house.sender(), trial)
    house.send()
    assert house.states() == ["ACCEPTED"] * 4


def test_in_quarantine_nobody_is_claimed_marked_or_called(house: House) -> None:
    planned(house)

    def quarantine(on: bool) -> None:
        values = "wall(), quarantine_reason = 'a test'" if on else "NULL, quarantine_reason = NULL"
        with house.database.transaction() as connection:
            connection.execute(text(f"UPDATE installation SET quarantined_at = {values}"))

    sender = house.sender()
    batch = send.claim(sender, Lane.DRIP)
    assert batch is not None
    letters = send.render(sender, batch)
    assert letters is not None
    quarantine(True)
    assert send.claim(sender, Lane.DRIP) is None
    assert send.mark(sender, batch) is None
    quarantine(False)
    house.later(seconds=2)
    batch = send.claim(sender, Lane.DRIP)
    assert batch is not None
    letters = send.render(sender, batch)
    assert letters is not None
    marked = send.mark(sender, batch)
    assert marked is not None
    quarantine(True)
    assert send.final_check(sender, marked, letters) is None
    quarantine(False)
    house.later(seconds=2)
    house.send()
    assert house.states() == ["ACCEPTED"] * 4
    assert sizes(house) == [4]


def test_a_journal_that_cannot_be_written_calls_nobody_and_loses_nobody(house: House, tmp_path: Path) -> None:
    planned(house)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    whole, house.journal = house.journal, Journal(in_the_way / "journal", host="host")
    with pytest.raises(UnavailableError, match="journal"):
        house.send()
    assert house.provider.mailings == []
    assert house.states() == ["PLANNED"] * 4
    house.journal = whole
    house.send()
    assert house.states() == ["ACCEPTED"] * 4
