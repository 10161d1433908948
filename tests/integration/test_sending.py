"""One email, once, accounted for: whatever the provider answers, whoever dies where, and whatever people do meanwhile.

Every test ends with `house.check()`: all invariants hold, and the record says what the provider's own ledger says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import text

from dripwell.core.campaign import Lane
from dripwell.delivery.provider import Accepted, NotSent, Refused, Unknown
from dripwell.services import leave, plan, publish, resolve, send, serve
from dripwell.services.settle import Patience
from dripwell.storage import batches, clock, suppressions
from dripwell.storage.database import Database
from dripwell.storage.fast import Fast
from tests.integration.scripted import House, Lost

MARIA, JOE = "maria@example.com", "joe@example.com"


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    """A house whose every test ends with the judge."""
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def planned(house: House, *addresses: str) -> list[int]:
    """These people, enrolled, their first email planned."""
    campaign = house.publish()
    people = [house.person(address) for address in addresses or (MARIA,)]
    house.enroll(campaign, *people)
    assert house.plan() == len(people)
    return people


def unsubscribe(house: House, person: int, scope: str = "marketing") -> None:
    with house.database.transaction() as connection:
        leave.suppress(
            connection,
            subscriber_id=person,
            scope=scope,
            reason="unsubscribed",
            source=leave.PAGE,
            evidence="test",
            times=clock.read(connection),
        )


def first(house: House, address: str = MARIA) -> tuple[str, str | None]:
    """State and reason of somebody's first email."""
    return house.messages()[address, "1-first"]


# The ordinary course


def test_a_series_runs_from_its_first_email_to_its_end(house: House) -> None:
    planned(house)
    assert house.send() == 1
    assert house.enrolled() == [("waiting", None, "1-first", None)]
    house.plan()
    (state, _, _, waits_for), due = house.enrolled()[0], house.query("SELECT next_due_at FROM enrollment")[0][0]
    assert (state, waits_for) == ("waiting", "wait")
    assert abs(due - (house.wall + timedelta(days=2))) <= timedelta(minutes=20)  # type: ignore[operator]
    house.until(due)  # type: ignore[arg-type]
    house.plan()
    house.send()
    house.plan()
    assert house.enrolled() == [("finished", None, "2-second", None)]
    assert [mailing.subject for mailing in house.provider.mailings] == ["The first part", "The second part"]
    (envelope,) = house.provider.mailings[0].envelopes
    assert envelope.to == MARIA
    assert envelope.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert "Maria" in envelope.substitutions.values()


def test_doorbells_that_ring_three_times_and_in_any_order_change_nothing(house: House) -> None:
    planned(house, MARIA, JOE)
    for _ in range(3):
        for ring in (house.settle, house.send, house.plan, house.send, house.settle, house.plan):
            ring()
    events = house.events("processed") + house.events("delivered")
    for _ in range(3):
        house.hear(*events)
    assert house.states() == ["ACCEPTED", "ACCEPTED"]
    assert sorted(house.provider.addresses()) == [JOE, MARIA]


def test_without_any_pass_nothing_is_lost_and_one_late_pass_catches_up_a_single_email(house: House) -> None:
    planned(house)
    house.later(days=9)
    house.plan()
    house.send()
    assert house.provider.addresses() == [MARIA]
    house.plan()
    house.send()
    assert house.provider.addresses() == [MARIA], "three overdue steps are days, not three emails"


def test_a_row_delayed_by_an_outage_is_decided_again_and_never_mailed_at_night(house: House) -> None:
    planned(house)
    house.later(hours=12)
    assert house.send() == 0
    house.plan()
    house.send()
    assert house.provider.mailings == []
    house.later(hours=13)
    house.plan()
    house.send()
    assert house.provider.addresses() == [MARIA]


def test_wording_reaches_everybody_from_their_next_email(house: House) -> None:
    planned(house)
    house.publish(first="# Newer\n\nThe newer words.\n")
    house.send()
    assert "The newer words." in house.provider.mailings[0].text


def test_groups_take_turns_and_a_batch_holds_one_step_of_one_campaign(house: House) -> None:
    one, other = house.publish("one"), house.publish("two")
    house.enroll(one, *(house.person(f"a{n}@example.com") for n in range(3)))
    house.enroll(other, *(house.person(f"b{n}@example.com") for n in range(3)))
    house.plan()
    house.provider.capabilities = type(house.provider.capabilities)(max_batch=1, events=True, logs=True)
    house.send()
    assert [address[0] for address in house.provider.addresses()] == ["a", "b", "a", "b", "a", "b"]


# What the provider answers: the table of SENDING section 6


def test_202_is_accepted_and_its_id_kept(house: House) -> None:
    planned(house)
    house.provider.answers = [Accepted("x-message-id")]
    house.send()
    assert first(house) == ("ACCEPTED", None)
    assert house.query("SELECT state, outcome, http_status, x_message_id FROM batch") == [
        ("DONE", "accepted", 202, "x-message-id")
    ]


@pytest.mark.parametrize(
    ("answer", "pause", "shut"),
    [
        (NotSent("connect"), 5.0, []),
        (NotSent("429", 429, timedelta(seconds=42), rate_limited=True), 42.0, []),
        (NotSent("429", 429, rate_limited=True), 5.0, []),
        (NotSent("401", 401, account=True), 5.0, ["booking", "confirm", "drip", "newsletter"]),
        (NotSent("403", 403, account=True), 5.0, ["booking", "confirm", "drip", "newsletter"]),
    ],
    ids=lambda value: getattr(value, "reason", None),
)
def test_what_was_certainly_not_accepted_is_planned_again_after_a_pause(
    house: House, answer: NotSent, pause: float, shut: list[str]
) -> None:
    planned(house)
    house.provider.answers = [answer]
    house.send()
    assert first(house) == ("PLANNED", None)
    assert house.batches() == [("DONE", "not_sent")]
    assert house.query("SELECT retry_at - wall() FROM message") == [(timedelta(seconds=pause),)]
    assert [lane for (lane,) in house.query("SELECT lane FROM lane_state WHERE breaker = 'open' ORDER BY 1")] == shut
    assert house.log() == [("T7", answer.reason)]
    house.send()
    assert len(house.provider.mailings) == 1
    house.later(seconds=45)
    house.send()
    assert first(house) == ("ACCEPTED", None)
    assert house.query("SELECT breaker FROM lane_state WHERE lane = 'drip'") == [("closed",)]


def test_each_failure_makes_the_pause_longer(house: House) -> None:
    planned(house)
    house.provider.answers = [NotSent("429", 429, rate_limited=True)] * 4
    pauses = []
    for _ in range(4):
        house.send()
        ((pause,),) = house.query("SELECT retry_at - wall() FROM message")
        pauses.append(pause)
        house.until(house.wall + pause)  # type: ignore[operator]
        house.plan()
    assert pauses == [timedelta(seconds=seconds) for seconds in (5, 15, 60, 300)]
    house.send()
    assert first(house) == ("ACCEPTED", None)


@pytest.mark.parametrize(
    "answer",
    [
        Unknown("timeout"),
        Refused("413", 413, too_large=True),
    ],
)
def test_a_batch_that_ends_badly_halves_the_next_and_each_success_adds_to_it(
    house: House, answer: Unknown | Refused
) -> None:
    campaign = house.publish()
    house.enroll(campaign, *house.people(8))
    house.plan()
    house.provider.answers = [answer]
    house.send(batches=1)
    assert house.query("SELECT batch_limit FROM lane_state WHERE lane = 'drip'") == [(4,)]
    later = [house.person(f"q{number}@example.com") for number in range(4)]
    house.enroll(campaign, *later)
    house.plan()
    house.send(batches=1)
    assert [len(mailing.envelopes) for mailing in house.provider.mailings] == [8, 4]
    assert house.query("SELECT batch_limit FROM lane_state WHERE lane = 'drip'") == [(4 + batches.BATCH_STEP,)]


def test_a_lane_that_never_ended_badly_doubles_its_batches_up_to_a_thousand(house: House) -> None:
    limits = []
    for _ in range(5):
        with house.database.transaction() as connection:
            batches.went_well(connection, Lane.DRIP)
            limits.append(batches.lane(connection, Lane.DRIP).batch_limit)
    assert limits == [200, 400, 800, 1000, 1000]


def test_an_account_that_is_refused_in_several_lanes_at_once_is_shut_for_the_first_half_minute(house: House) -> None:
    with house.database.transaction() as connection:
        for lane in Lane:
            batches.went_badly(connection, lane, "401", at_once=True)
    found = house.query("SELECT DISTINCT breaker_opened, breaker_until - wall() FROM lane_state")
    assert found == [(1, timedelta(seconds=30))]


def test_a_mailbox_that_says_not_now_shuts_no_lane_and_is_rejected_in_the_end(house: House) -> None:
    planned(house, *(f"p{n}@example.com" for n in range(6)))
    house.provider.capabilities = type(house.provider.capabilities)(max_batch=1, events=False, logs=False)
    house.provider.answers = [NotSent("450 mailbox full", 450, person=True) for _ in range(6)]
    house.send()
    assert house.query("SELECT breaker, failures FROM lane_state WHERE lane = 'drip'") == [("closed", 0)]
    house.later(seconds=10)
    house.send()
    assert house.states() == ["ACCEPTED"] * 6
    house.enroll(house.query("SELECT id FROM campaign")[0][0], house.person("full@example.com"))  # type: ignore[arg-type]
    house.plan()
    with house.database.transaction() as connection:
        connection.execute(text("UPDATE message SET attempts = 50 WHERE state = 'PLANNED'"))
    house.provider.answers = [NotSent("450 mailbox full", 450, person=True)]
    house.send()
    assert house.messages()["full@example.com", "1-first"] == ("REJECTED", "refused")


def test_five_failures_in_half_a_minute_open_the_breaker_and_one_real_message_tries(house: House) -> None:
    planned(house, *(f"p{n}@example.com" for n in range(6)))
    house.provider.capabilities = type(house.provider.capabilities)(max_batch=1, events=True, logs=True)
    house.provider.answers = [NotSent("connect")] * 5
    house.send()
    assert len(house.provider.mailings) == 5, "the sixth batch finds the lane shut"
    house.later(seconds=20)
    assert house.send() == 0
    house.later(seconds=11)
    house.provider.capabilities = type(house.provider.capabilities)(max_batch=1000, events=True, logs=True)
    house.send()
    assert next(len(mailing.envelopes) for mailing in house.provider.mailings[5:]) == 1
    assert house.states() == ["ACCEPTED"] * 6


def test_a_trial_that_fails_shuts_the_lane_again_for_twice_as_long(house: House) -> None:
    planned(house, *(f"p{n}@example.com" for n in range(6)))
    house.provider.capabilities = type(house.provider.capabilities)(max_batch=1, events=True, logs=True)
    house.provider.answers = [NotSent("connect") for _ in range(6)]
    house.send()
    assert len(house.provider.mailings) == 5
    house.later(seconds=31)
    house.send()
    assert len(house.provider.mailings) == 6, "one real message tries"
    ((breaker, longer),) = house.query(
        "SELECT breaker, breaker_until - :now FROM lane_state WHERE lane = 'drip'", now=house.wall
    )
    assert (breaker, longer) == ("open", timedelta(seconds=60))


def test_a_named_row_is_rejected_and_the_others_go_at_once(house: House) -> None:
    planned(house, "p0@example.com", "p1@example.com", "p2@example.com")
    house.provider.answers = [Refused("400 invalid address", 400, row=1)]
    house.send()
    assert house.messages() == {
        ("p0@example.com", "1-first"): ("ACCEPTED", None),
        ("p1@example.com", "1-first"): ("REJECTED", "refused"),
        ("p2@example.com", "1-first"): ("ACCEPTED", None),
    }
    assert house.batches() == [("DONE", "refused"), ("DONE", "accepted")]


def test_an_address_that_the_relay_says_nobody_has_is_mailed_nothing_more_in_any_lane(house: House) -> None:
    planned(house, "p0@example.com", "p1@example.com")
    house.provider.answers = [Refused("550 to rcpt: 5.1.1 no such mailbox", 550, row=1, hard=True)]
    house.send()
    assert house.query("SELECT address, state FROM subscriber ORDER BY address") == [
        ("p0@example.com", "active"),
        ("p1@example.com", "undeliverable"),
    ]
    assert house.query("SELECT scope, action, reason, source FROM suppression") == [
        ("all", "suppress", "undeliverable", "relay")
    ]
    assert house.query("SELECT state, count(*) FROM enrollment GROUP BY state ORDER BY state") == [
        ("exited", 1),
        ("waiting", 1),
    ]


def test_the_named_row_is_the_one_in_the_payload_even_when_somebody_was_erased_meanwhile(house: House) -> None:
    people = planned(house, "p0@example.com", "p1@example.com", "p2@example.com")
    house.provider.answers = [Refused("400 invalid address", 400, row=1)]
    house.provider.during = lambda mailing: erase(house, people[0])
    send.send(house.sender(), Lane.DRIP, out_of_time=iter([False, True]).__next__)
    house.provider.during = lambda mailing: None
    assert house.query("SELECT step_key FROM message WHERE subscriber_id = :id AND state = 'REJECTED'", id=people[1])
    house.send()
    assert house.states() == ["ACCEPTED", "REJECTED", "SUPPRESSED"]


def erase(house: House, person: int) -> None:
    """What an erasure does to the rows that sending sees."""
    with house.database.transaction() as connection:
        connection.execute(text("SELECT id FROM enrollment WHERE subscriber_id = :id FOR UPDATE"), {"id": person})
        suppressions.end_enrollments(
            connection,
            list(
                connection.execute(
                    text("SELECT id FROM enrollment WHERE subscriber_id = :id"), {"id": person}
                ).scalars()
            ),
            state="SUPPRESSED",
            reason="erased",
            now=house.wall,
            actor="test",
        )
        connection.execute(text("UPDATE message SET addr_hash = NULL WHERE subscriber_id = :id"), {"id": person})
        connection.execute(
            text(
                "UPDATE subscriber SET state = 'erased', address = NULL, addr_hash = NULL, fields = '{}' WHERE id = :id"
            ),
            {"id": person},
        )


def picky(house: House, *bad: str, words: str = "400") -> None:
    """Let the provider refuse every call that names one of these, without saying whom."""

    class Picky(type(house.provider)):  # type: ignore[misc]
        def call(self, mailing):  # type: ignore[no-untyped-def]
            if any(envelope.to in bad for envelope in mailing.envelopes):
                self.answers.insert(0, Refused(words, 400))
            return super().call(mailing)

    house.provider = Picky()


def refused_calls(house: House, bad: str) -> int:
    return house.provider.addresses().count(bad)


@pytest.mark.parametrize("place", [0, 4, 7])
def test_a_refusal_that_names_nobody_is_looked_through_half_by_half(house: House, place: int) -> None:
    planned(house, *(f"p{n}@example.com" for n in range(8)))
    bad = f"p{place}@example.com"
    picky(house, bad)
    house.send()
    assert house.messages()[bad, "1-first"] == ("REJECTED", "refused")
    assert house.states() == ["ACCEPTED"] * 7 + ["REJECTED"]
    assert house.query("SELECT count(*) FROM message WHERE suspect_of IS NOT NULL AND state = 'PLANNED'") == [(0,)]
    assert len(house.provider.mailings) <= 6
    assert house.query("SELECT batch_limit FROM lane_state WHERE lane = 'drip'")[0][0] >= 100, (
        "the others are no slower"
    )


@pytest.mark.parametrize("place", [0, 333, 999])
def test_one_bad_row_among_a_thousand_takes_twelve_calls_at_most(house: House, place: int) -> None:
    campaign = house.publish()
    house.enroll(campaign, *house.people(1000))
    house.plan()
    with house.database.transaction() as connection:
        connection.execute(text("UPDATE lane_state SET batch_limit = 1000"))
    bad = f"p{place}@example.com"
    picky(house, bad)
    house.send()
    assert house.states() == ["ACCEPTED"] * 999 + ["REJECTED"]
    assert len(house.provider.mailings) <= 12
    assert house.query("SELECT state FROM campaign") == [("running",)]


def test_two_bad_rows_in_one_call_are_both_found(house: House) -> None:
    planned(house, *(f"p{n}@example.com" for n in range(40)))
    picky(house, "p3@example.com", "p30@example.com")
    house.send()
    assert house.states() == ["ACCEPTED"] * 38 + ["REJECTED"] * 2
    assert house.query("SELECT state FROM campaign") == [("running",)]


def test_two_bad_rows_beside_each_other_do_not_pause_the_campaign(house: House) -> None:
    planned(house, *(f"p{n:03}@example.com" for n in range(400)))
    with house.database.transaction() as connection:
        connection.execute(text("UPDATE lane_state SET batch_limit = 1000"))
    picky(house, "p000@example.com", "p001@example.com")
    house.send()
    assert house.states() == ["ACCEPTED"] * 398 + ["REJECTED"] * 2
    assert house.query("SELECT state FROM campaign") == [("running",)]


def test_several_calls_that_are_looked_through_at_once_do_not_pause_the_campaign(house: House) -> None:
    planned(house, *(f"p{n:03}@example.com" for n in range(60)))
    with house.database.transaction() as connection:
        connection.execute(text("UPDATE lane_state SET batch_limit = 10"))
    picky(house, *(f"p{n:03}@example.com" for n in range(0, 60, 10)))
    sender = house.sender()
    opened = [send.claim(sender, Lane.DRIP) for _ in range(6)]
    for batch in opened:
        assert batch is not None
        send.carry_out(sender, batch)
    house.send()
    assert house.states() == ["ACCEPTED"] * 54 + ["REJECTED"] * 6
    assert house.query("SELECT state FROM campaign") == [("running",)]


def test_rows_that_the_provider_names_cost_themselves_alone_while_they_are_few(house: House) -> None:
    planned(house, *(f"p{n}@example.com" for n in range(400)))
    with house.database.transaction() as connection:
        connection.execute(text("UPDATE lane_state SET batch_limit = 1000"))
    house.provider.answers = [Refused(f"400: personalizations.0 {n}", 400, row=0) for n in range(15)]
    house.send()
    assert house.states() == ["ACCEPTED"] * 385 + ["REJECTED"] * 15
    assert house.query("SELECT state FROM campaign") == [("running",)]


def test_a_second_sender_leaves_the_other_half_of_the_suspects_alone(house: House) -> None:
    planned(house, *(f"p{n}@example.com" for n in range(8)))
    picky(house, "p7@example.com")
    house.send(batches=1)
    half = send.claim(house.sender(), Lane.DRIP)
    assert half is not None
    assert [len(half.addressees), send.claim(house.sender(), Lane.DRIP)] == [4, None]
    send.carry_out(house.sender(), half)
    house.send()
    assert house.states() == ["ACCEPTED"] * 7 + ["REJECTED"]


def test_suspects_that_leave_meanwhile_do_not_keep_the_others_waiting(house: House) -> None:
    people = planned(house, *(f"p{n}@example.com" for n in range(8)))
    picky(house, "p7@example.com")
    house.send(batches=1)
    for person in people[4:]:
        unsubscribe(house, person)
    house.send()
    assert house.states() == ["ACCEPTED"] * 4 + ["SUPPRESSED"] * 4


def test_one_message_that_is_too_large_alone_is_rejected_for_that(house: House) -> None:
    planned(house)
    house.provider.answers = [Refused("413", 413, too_large=True)]
    house.send()
    assert first(house) == ("REJECTED", "too_large")
    assert house.query("SELECT state FROM campaign") == [("paused",)], "the words are too long for everybody"
    assert house.enrolled() == [("waiting", None, "1-first", None)], "the series goes on"


def test_words_that_are_refused_pause_the_campaign_and_do_not_use_up_its_people(house: House) -> None:
    planned(house, *(f"p{n}@example.com" for n in range(100)))
    house.provider.answers = [Refused("400: the content is not allowed", 400) for _ in range(200)]
    house.send()
    assert house.query("SELECT state FROM campaign") == [("paused",)]
    assert len(house.provider.mailings) <= 12
    assert house.states().count("PLANNED") == 98, "two, alone, were told the same"
    assert house.query("SELECT actor, action, about FROM activity") == [("sender", "paused", "pair")]


def test_rows_that_are_refused_one_by_one_pause_the_campaign_after_twelve_calls(house: House) -> None:
    planned(house, *(f"p{n}@example.com" for n in range(40)))
    house.provider.answers = [Refused(f"400: personalizations.0 {n}", 400, row=0) for n in range(200)]
    house.send()
    assert len(house.provider.mailings) == 12
    assert house.query("SELECT state FROM campaign") == [("paused",)]


@pytest.mark.parametrize("status", [500, 200, None])
def test_an_answer_that_says_nothing_is_unknown_and_is_never_repeated_blindly(house: House, status: int | None) -> None:
    planned(house)
    house.provider.answers = [Unknown("no clear answer", status)]
    house.send()
    for _ in range(3):
        house.send()
        house.plan()
    assert len(house.provider.mailings) == 1
    assert house.batches() == [("UNKNOWN", None)]
    assert first(house) == ("IN_BATCH", None)
    assert house.query("SELECT http_status FROM batch") == [(status,)]


# Settling what nobody knows


def test_an_event_settles_an_unknown_batch_for_everybody_in_it(house: House) -> None:
    planned(house, MARIA, JOE)
    house.provider.answers = [Lost()]
    house.send()
    house.hear(house.events("processed")[0])
    assert house.states() == ["ACCEPTED", "ACCEPTED"]
    assert {transition for transition, _ in house.log()} == {"T10"}


def test_the_log_settles_an_unknown_batch_when_no_event_comes(house: House) -> None:
    planned(house)
    house.provider.answers = [Lost()]
    house.send()
    assert house.settle(alive=True) == 0
    assert house.provider.asked == 0, "the log may lag: it is not asked before the grace period is over"
    house.later(seconds=61)
    assert house.settle(alive=True) == 1
    assert first(house) == ("ACCEPTED", None)


def test_only_two_answered_and_empty_rounds_prove_that_nothing_was_accepted(house: House) -> None:
    planned(house)
    house.provider.answers = [Unknown("timeout")]
    house.send()
    house.later(seconds=61)
    house.settle(alive=True)
    house.settle(alive=True)
    assert house.provider.asked == 1, "the second round comes later"
    assert first(house) == ("IN_BATCH", None)
    house.later(seconds=31)
    house.settle(alive=True)
    assert first(house) == ("PLANNED", None)
    assert house.batches() == [("DONE", "absent")]
    house.send()
    assert first(house) == ("ACCEPTED", None)
    assert len(house.provider.mailings) == 2


def test_a_log_that_does_not_answer_proves_nothing_and_the_message_is_held(house: House) -> None:
    planned(house)
    house.provider.answers = [Unknown("timeout")]
    house.provider.logs_answer = False
    house.send()
    for _ in range(5):
        house.later(minutes=10)
        house.settle(alive=True)
    assert first(house) == ("IN_BATCH", None)
    house.later(minutes=11)
    house.settle(alive=True)
    assert first(house) == ("HELD", "no_evidence")
    assert house.enrolled()[0][0] == "mailing"
    house.later(days=3)
    house.plan()
    house.send()
    assert len(house.provider.mailings) == 1, "nobody is mailed around a held message of their series"


def test_where_policy_is_hold_even_negative_proof_repeats_nothing(house: House) -> None:
    patience = Patience(grace=60.0, round_gap=30.0, window=600.0, resend=False, channel=False)
    planned(house)
    house.provider.answers = [Unknown("timeout")]
    house.send()
    for _ in range(8):
        house.later(seconds=90)
        house.settle(patience, alive=True)
    assert first(house) == ("HELD", "no_evidence")
    assert len(house.provider.mailings) == 1


def test_negative_proof_needs_a_sign_of_life_from_the_event_channel(house: House) -> None:
    patience = Patience(grace=60.0, round_gap=30.0, window=3600.0, resend=True, channel=True)
    planned(house, MARIA, JOE)
    house.provider.capabilities = type(house.provider.capabilities)(max_batch=1, events=True, logs=True)
    house.provider.answers = [Unknown("timeout")]
    house.send()
    for _ in range(4):
        house.later(seconds=45)
        house.settle(patience, alive=True)
    assert first(house) == ("IN_BATCH", None)
    house.hear(*house.events("processed"))  # of the later batch
    house.settle(patience, alive=True)
    assert first(house) == ("PLANNED", None)
    house.plan()
    house.send()
    assert house.states() == ["ACCEPTED", "ACCEPTED"]


# Crash points: the sender is dropped between two steps, and the janitor finds what it left


STEPS = ("claim", "pre_filter", "render", "take_tokens", "mark", "final_check", "call", "record")
BEFORE_MARK, CALLING, CALLED = STEPS[:4], STEPS[4:6], STEPS[6]


def walk(house: House, until: str, between: Callable[[str], None] = lambda step: None) -> None:
    """Take one batch through its steps, and drop the sender right after `until`. `between` happens after each step."""
    sender = house.sender()

    def over(step: str) -> bool:
        between(step)
        return step == until

    batch = send.claim(sender, Lane.DRIP)
    assert batch is not None
    if over("claim"):
        return
    batch = send.pre_filter(sender, batch)
    if over("pre_filter"):
        return
    letters = send.render(sender, batch)
    assert letters is not None
    if over("render"):
        return
    assert send.take_tokens(sender, batch, len(letters.envelopes))
    if over("take_tokens"):
        return
    marked = send.mark(sender, batch)
    if marked is None or over("mark"):
        return
    mailing = send.final_check(sender, marked, letters)
    if mailing is None or over("final_check"):
        return
    outcome = send.call(sender, marked, mailing)
    assert outcome is not None
    if over("call"):
        return
    send.record(sender, marked, mailing, outcome)
    between("record")


@pytest.mark.parametrize("until", BEFORE_MARK)
def test_a_sender_that_dies_before_the_mark_never_called_and_its_batch_goes_again(house: House, until: str) -> None:
    planned(house, MARIA, JOE)
    walk(house, until)
    assert house.batches() == [("OPEN", None)]
    assert house.settle(alive=True) == 0, "a living owner keeps its lease"
    assert house.settle(alive=False) == 1
    assert house.batches() == [("DONE", "lease")]
    assert house.states() == ["PLANNED", "PLANNED"]
    house.send()
    assert house.states() == ["ACCEPTED", "ACCEPTED"]
    assert sorted(house.provider.addresses()) == [JOE, MARIA]


@pytest.mark.parametrize("until", BEFORE_MARK)
def test_a_lease_that_is_over_is_taken_back_even_from_a_living_owner_who_then_cannot_call(
    house: House, until: str
) -> None:
    planned(house)

    def settle_late(step: str) -> None:
        if step == until:
            house.later(seconds=61)
            assert house.settle(alive=True) == 1

    walk(house, "record", settle_late)
    assert house.provider.mailings == [], "the fence in the mark stops whoever lost the lease"
    house.send()
    assert first(house) == ("ACCEPTED", None)


def test_a_lease_that_ran_out_forbids_the_call_even_before_the_janitor_came(house: House) -> None:
    planned(house)
    walk(house, "record", lambda step: house.later(seconds=61) if step == "take_tokens" else None)
    assert house.provider.mailings == []
    assert house.batches() == [("DONE", "not_sent")]
    house.later(seconds=2)
    house.send()
    assert first(house) == ("ACCEPTED", None)


@pytest.mark.parametrize("until", CALLING)
def test_a_sender_that_dies_marked_but_uncalled_is_settled_by_negative_proof(house: House, until: str) -> None:
    planned(house)
    walk(house, until)
    assert house.batches() == [("CALLING", None)]
    house.settle()
    assert house.batches() == [("UNKNOWN", None)]
    for _ in range(3):
        house.later(seconds=61)
        house.settle()
    assert house.batches() == [("DONE", "absent")]
    house.plan()
    house.send()
    assert first(house) == ("ACCEPTED", None)
    assert len(house.provider.mailings) == 1


@pytest.mark.parametrize("evidence", ["event before the janitor", "event after the janitor", "log"])
def test_a_sender_that_dies_with_the_answer_in_its_hands_is_settled_by_evidence(house: House, evidence: str) -> None:
    planned(house)
    walk(house, CALLED)
    if evidence == "event before the janitor":
        house.hear(*house.events("delivered"))
    house.settle()
    if evidence == "event after the janitor":
        house.hear(*house.events("delivered"))
    house.later(seconds=61)
    house.settle()
    assert first(house) == ("ACCEPTED", None)
    assert house.batches() == [("DONE", "accepted")]
    house.plan()
    house.send()
    assert len(house.provider.mailings) == 1


def test_a_sender_that_dies_after_the_record_leaves_nothing_to_do(house: House) -> None:
    planned(house)
    walk(house, "record")
    assert house.settle() == 0
    house.send()
    assert len(house.provider.mailings) == 1


def test_a_sender_that_is_slow_to_record_is_believed_after_the_janitor_gave_up(house: House) -> None:
    for answer, state in (
        (Accepted("x"), "ACCEPTED"),
        (NotSent("connect"), "PLANNED"),
        (Refused("400", 400), "REJECTED"),
    ):
        address = f"{state.lower()}@example.com"
        house.enroll(house.publish(state.lower()), house.person(address))
        house.plan()
        house.provider.answers = [answer]

        def late(step: str) -> None:
            if step == "call":
                house.later(seconds=91)
                assert house.settle(alive=True) == 1

        walk(house, "record", late)
        assert house.messages()[address, "1-first"][0] == state


def test_a_sender_that_stood_still_after_its_mark_does_not_call(house: House) -> None:
    planned(house)
    sender = house.sender()
    batch = send.claim(sender, Lane.DRIP)
    assert batch is not None
    letters = send.render(sender, batch)
    assert letters is not None
    marked = send.mark(sender, batch)
    assert marked is not None
    mailing = send.final_check(sender, marked, letters)
    assert mailing is not None
    long_ago = replace(marked, calling_since=marked.calling_since - send.START_BUDGET - 1)
    assert send.call(sender, long_ago, mailing) is None
    assert house.provider.mailings == []
    assert house.batches() == [("DONE", "stalled")]
    house.send()
    assert first(house) == ("ACCEPTED", None)


def test_a_message_whose_senders_keep_dying_goes_alone_and_is_then_rejected(house: House) -> None:
    planned(house, MARIA, JOE)
    for _ in range(2):
        walk(house, "claim")
        house.settle()
    assert house.query("SELECT lapses FROM message") == [(2,), (2,)]
    walk(house, "claim")
    ((alone,),) = house.query("SELECT message_ids FROM batch ORDER BY id DESC LIMIT 1")
    assert len(alone) == 1  # type: ignore[arg-type]
    house.settle()
    assert house.states() == ["PLANNED", "REJECTED"]
    assert ("REJECTED", "poison") in house.messages().values()
    house.send()
    assert house.states() == ["ACCEPTED", "REJECTED"]
    assert [state for state, *_ in house.enrolled()] == ["waiting", "waiting"], "both series go on"


def test_a_message_that_cannot_be_rendered_is_rejected_and_the_others_go(house: House) -> None:
    campaign = house.publish()
    house.enroll(campaign, house.person(MARIA, fields={"first_name": "Ma\r\nBcc: x"}), house.person(JOE))
    house.plan()
    house.send()
    assert first(house) == ("REJECTED", "render")
    assert first(house, JOE) == ("ACCEPTED", None)


def test_whoever_left_before_they_are_put_back_is_not_planned_again(house: House) -> None:
    (person,) = planned(house)
    sender = house.sender()
    batch = send.claim(sender, Lane.DRIP)
    assert batch is not None
    unsubscribe(house, person, "topic:seven-part-series")
    with house.database.transaction() as connection:
        resolve.leave_for_later(connection, batch.id, [a.id for a in batch.addressees], seconds=60)
    assert first(house) == ("SUPPRESSED", "unsubscribed")


# People and operators act meanwhile


@pytest.mark.parametrize(
    ("moment", "scope"),
    [
        *((moment, "marketing") for moment in ("planned", *STEPS[:5])),
        *(("mark", scope) for scope in ("all", "topic:seven-part-series", "campaign:pair")),
    ],
)
def test_an_unsubscribe_before_the_final_check_is_not_in_the_payload(house: House, moment: str, scope: str) -> None:
    maria, _ = planned(house, MARIA, JOE)
    if moment == "planned":
        unsubscribe(house, maria, scope)
        house.send()
    else:
        walk(house, "record", lambda step: unsubscribe(house, maria, scope) if step == moment else None)
    assert house.provider.addresses() == [JOE]
    assert first(house) == ("SUPPRESSED", "unsubscribed")
    assert ("exited", "unsubscribed", None, None) in house.enrolled()


@pytest.mark.parametrize("moment", ["final_check", "call"])
def test_an_unsubscribe_after_the_final_check_is_recorded_as_under_way_and_nothing_follows(
    house: House, moment: str
) -> None:
    maria, _ = planned(house, MARIA, JOE)
    walk(house, "record", lambda step: unsubscribe(house, maria) if step == moment else None)
    assert sorted(house.provider.addresses()) == [JOE, MARIA]
    assert first(house) == ("ACCEPTED", None)
    assert ("exited", "unsubscribed", None, None) in house.enrolled()
    house.later(days=9)
    house.plan()
    house.send()
    assert house.provider.addresses().count(MARIA) == 1


def test_an_unsubscribe_during_a_call_that_fails_leaves_nothing_to_repeat(house: House) -> None:
    (maria,) = planned(house)
    house.provider.answers = [NotSent("connect")]
    house.provider.during = lambda mailing: unsubscribe(house, maria)
    house.send()
    assert first(house) == ("SUPPRESSED", "unsubscribed")
    house.later(minutes=1)
    house.send()
    assert len(house.provider.mailings) == 1


def test_a_batch_that_everybody_left_is_empty_and_never_called(house: House) -> None:
    (maria,) = planned(house)
    walk(house, "record", lambda step: unsubscribe(house, maria) if step == "mark" else None)
    assert house.provider.mailings == []
    assert house.batches() == [("DONE", "empty")]


def test_a_suppression_of_another_topic_does_not_bind(house: House) -> None:
    maria = house.person(MARIA, topics=("seven-part-series", "monthly-notes"))
    house.enroll(house.publish(), maria)
    unsubscribe(house, maria, "topic:monthly-notes")
    house.plan()
    house.send()
    assert first(house) == ("ACCEPTED", None)


def test_the_fast_set_takes_people_out_early_and_the_ledger_overrules_it(house: House) -> None:
    maria, joe = planned(house, MARIA, JOE)
    with house.database.transaction() as connection:
        hashes = [suppressions.address_of(connection, person) for person in (maria, joe)]
    assert house.fast.add([(found[0], "marketing") for found in hashes if found and found[0]])
    unsubscribe(house, maria)
    house.send()
    assert first(house) == ("SUPPRESSED", "unsubscribed")
    assert first(house, JOE) == ("PLANNED", None), "a hit that the ledger denies waits while the set is built anew"
    house.later(seconds=61)
    house.send()
    assert first(house, JOE) == ("ACCEPTED", None)


def test_without_redis_everything_goes_on_and_nobody_who_left_is_mailed(house: House) -> None:
    maria, _ = planned(house, MARIA, JOE)
    unsubscribe(house, maria)
    nowhere = Fast("redis://127.0.0.1:1")
    send.send(house.sender(fast=nowhere), Lane.DRIP, out_of_time=lambda: False)
    nowhere.close()
    assert house.provider.addresses() == [JOE]


@pytest.mark.parametrize("moment", ["planned", *STEPS[:6]])
def test_a_pause_is_obeyed_until_the_final_check_and_nobody_loses_their_place(house: House, moment: str) -> None:
    planned(house)

    def pause(step: str) -> None:
        if step == moment:
            with house.database.transaction() as connection:
                publish.pause(connection, "pair", actor="test")

    if moment == "planned":
        pause("planned")
        house.send()
    else:
        walk(house, "record", pause)
    called = moment == "final_check"
    assert len(house.provider.mailings) == called
    assert first(house)[0] == ("ACCEPTED" if called else "PLANNED")
    with house.database.transaction() as connection:
        publish.resume(connection, "pair", actor="test", versions=house.versions)
    house.later(seconds=2)
    house.plan()
    house.send()
    assert first(house) == ("ACCEPTED", None)
    assert len(house.provider.mailings) == 1


@pytest.mark.parametrize("moment", ["planned", *STEPS[:5]])
def test_a_campaign_that_is_stopped_mails_nobody_any_more(house: House, moment: str) -> None:
    planned(house)

    def stop(step: str) -> None:
        if step == moment:
            with house.database.transaction() as connection:
                publish.stop(connection, "pair", actor="test")

    if moment == "planned":
        stop("planned")
        house.send()
    else:
        walk(house, "record", stop)
    assert house.provider.mailings == []
    assert first(house) == ("SKIPPED", "stopped")
    assert house.enrolled() == [("exited", "stopped", None, None)]


def test_an_address_that_changes_after_rendering_is_rendered_again(house: House) -> None:
    (maria,) = planned(house)

    def move(step: str) -> None:
        if step == "mark":
            with house.database.transaction() as connection:
                connection.execute(
                    text("UPDATE subscriber SET address = 'new@example.com' WHERE id = :id"), {"id": maria}
                )

    walk(house, "record", move)
    assert house.provider.mailings == []
    house.later(seconds=2)
    house.send()
    assert house.provider.addresses() == ["new@example.com"]


def test_one_person_in_two_campaigns_has_one_email_in_work_and_a_gap_between_them(house: House) -> None:
    maria = house.person(MARIA)
    for name in ("one", "two"):
        house.enroll(house.publish(name), maria)
    house.plan()
    assert house.states() == ["PLANNED"]
    assert {(state, waits_for) for state, _, _, waits_for in house.enrolled()} == {
        ("mailing", None),
        ("waiting", "another_email"),
    }
    house.send()
    house.later(minutes=16)
    house.plan()
    house.send()
    assert len(house.provider.mailings) == 1
    assert ("waiting", None, None, "gap") in house.enrolled()
    while (due := house.next_due()) is not None:
        house.until(max(due, house.wall))
        house.plan()
        house.send()
    assert house.states() == ["ACCEPTED"] * 4
    assert [state for state, *_ in house.enrolled()] == ["finished", "finished"]


# Late evidence (T13): the record follows it


def lost_for_good(house: House, *addresses: str) -> None:
    """A batch the provider took, whose answer and log entry are lost: negative proof, wrongly, says it never was."""
    planned(house, *addresses)
    house.provider.answers = [Lost()]
    taken = house.provider.taken
    house.send()
    house.provider.taken = []  # the log lags
    for _ in range(3):
        house.later(seconds=61)
        house.settle(alive=True)
    assert house.batches() == [("DONE", "absent")]
    house.provider.taken = taken


def test_late_evidence_for_a_planned_message_stops_its_repeat_for_everybody_in_the_batch(house: House) -> None:
    lost_for_good(house, MARIA, JOE)
    house.hear(house.events("delivered")[0])
    assert house.states() == ["ACCEPTED", "ACCEPTED"]
    assert house.batches() == [("DONE", "accepted")]
    assert house.log()[-2:] == [("T13", "late evidence")] * 2
    house.send()
    assert len(house.provider.mailings) == 1
    assert {state for state, *_ in house.enrolled()} == {"waiting"}


@pytest.mark.parametrize("step", STEPS[:4])
def test_late_evidence_takes_a_message_out_of_the_batch_that_would_repeat_it(house: House, step: str) -> None:
    lost_for_good(house)
    events = house.events("delivered")
    walk(house, "record", lambda now: house.hear(*events) if now == step else None)
    assert len(house.provider.mailings) == 1
    assert house.batches() == [("DONE", "accepted"), ("DONE", "empty")]
    assert first(house) == ("ACCEPTED", None)


def test_late_evidence_during_a_repeat_that_fails_leaves_one_acceptance(house: House) -> None:
    lost_for_good(house)
    events = house.events("delivered")
    house.provider.answers = [NotSent("connect")]
    house.provider.during = lambda mailing: house.hear(*events)
    house.send()
    assert first(house) == ("ACCEPTED", None)
    assert house.batches() == [("DONE", "accepted"), ("DONE", "not_sent")]
    house.later(minutes=1)
    house.send()
    assert len(house.provider.mailings) == 2


def test_late_evidence_for_a_held_message_lets_the_series_go_on(house: House) -> None:
    planned(house)
    house.provider.answers = [Lost()]
    house.provider.logs_answer = False
    house.send()
    house.later(minutes=61)
    house.settle(alive=True)
    assert first(house) == ("HELD", "no_evidence")
    house.hear(*house.events("delivered"))
    assert first(house) == ("ACCEPTED", None)
    assert house.enrolled() == [("waiting", None, "1-first", None)]


@pytest.mark.parametrize("scope", ["marketing", "all"])
def test_late_evidence_for_somebody_who_left_changes_the_message_and_not_the_leaving(house: House, scope: str) -> None:
    lost_for_good(house)
    ((person,),) = house.query("SELECT id FROM subscriber")
    unsubscribe(house, int(str(person)), scope)
    assert first(house) == ("SUPPRESSED", "unsubscribed")
    house.hear(*house.events("delivered"))
    assert first(house) == ("ACCEPTED", None)
    assert house.enrolled() == [("exited", "unsubscribed", None, None)]


def test_late_evidence_for_a_step_that_was_passed_does_not_turn_the_series_back(house: House) -> None:
    lost_for_good(house)
    events = house.events("delivered")
    house.plan()
    house.provider.answers = [Refused("400", 400)]
    house.send()
    assert first(house) == ("REJECTED", "refused")
    house.later(days=3)
    house.plan()
    house.plan()
    assert house.messages()[MARIA, "2-second"][0] == "PLANNED"
    house.hear(*events)
    assert first(house) == ("ACCEPTED", None)
    assert house.enrolled()[0][0] == "mailing"
    house.later(hours=21)  # the gap now counts from the evidence
    for _ in range(8):
        house.plan()
        house.send()
        house.later(hours=6)
    assert house.states() == ["ACCEPTED", "ACCEPTED"]


# Service emails


def test_a_service_email_needs_no_window_and_ends_its_enrollment(house: House) -> None:
    house.publish_service()
    maria = house.person(MARIA, state="unconfirmed", topics=(), fields={"form": "series-request"})
    house.later(hours=12)  # at night
    with house.database.transaction() as connection:
        serve.plan_service(
            connection, campaign="confirm", step_key="confirm", subscriber_id=maria, round=1, now=house.wall
        )
    house.send(Lane.CONFIRM)
    assert house.provider.addresses() == [MARIA]
    assert "List-Unsubscribe" not in house.provider.mailings[0].envelopes[0].headers
    assert house.enrolled() == [("finished", None, "confirm", None)]


def test_the_same_request_twice_is_one_confirmation(house: House) -> None:
    house.publish_service()
    maria = house.person(MARIA, state="unconfirmed", topics=(), fields={"form": "series-request"})
    for _ in range(2):
        with house.database.transaction() as connection:
            serve.plan_service(
                connection, campaign="confirm", step_key="confirm", subscriber_id=maria, round=1, now=house.wall
            )
        house.send(Lane.CONFIRM)
    assert house.provider.addresses() == [MARIA]


def test_a_service_email_past_its_time_is_skipped(house: House) -> None:
    house.publish_service()
    maria = house.person(MARIA, fields={"form": "series-request"})
    with house.database.transaction() as connection:
        serve.plan_service(
            connection, campaign="confirm", step_key="confirm", subscriber_id=maria, round=1, now=house.wall,
            valid_until=house.wall + timedelta(hours=1),
        )  # fmt: skip
    house.later(hours=2)
    house.send(Lane.CONFIRM)
    assert house.provider.mailings == []
    assert house.messages() == {(MARIA, "confirm"): ("SKIPPED", "expired")}


@pytest.mark.parametrize(("scope", "mailed"), [("marketing", True), ("all", False)])
def test_only_the_widest_suppression_binds_a_service_email(house: House, scope: str, mailed: bool) -> None:
    house.publish_service()
    maria = house.person(MARIA, fields={"form": "series-request"})
    with house.database.transaction() as connection:
        serve.plan_service(
            connection, campaign="confirm", step_key="confirm", subscriber_id=maria, round=1, now=house.wall
        )
    unsubscribe(house, maria, scope)
    house.send(Lane.CONFIRM)
    assert len(house.provider.mailings) == mailed


# Many at once


def test_planners_senders_and_janitors_at_once_mail_everybody_exactly_once(house: House) -> None:
    people = house.people(40)
    for name in ("one", "two"):
        house.enroll(house.publish(name), *people)
    ready = threading.Barrier(6)
    house.provider.capabilities = type(house.provider.capabilities)(max_batch=7, events=True, logs=True)

    def together(work: Callable[[], object]) -> None:
        ready.wait(timeout=10)
        for _ in range(6):
            work()

    passes: list[Callable[[], object]] = [house.plan, house.plan, house.send, house.send, house.send]
    passes.append(partial(house.settle, alive=True))
    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(together, work) for work in passes]:
            future.result(timeout=60)
    house.plan()
    house.send()
    assert house.states() == ["ACCEPTED"] * 40
    assert sorted(house.provider.addresses()) == sorted(f"p{number}@example.com" for number in range(40))


def test_unsubscribes_that_race_with_senders_are_obeyed_or_recorded_as_under_way(house: House) -> None:
    people = house.people(40)
    house.enroll(house.publish(), *people)
    house.plan()
    house.provider.capabilities = type(house.provider.capabilities)(max_batch=4, events=True, logs=True)
    ready = threading.Barrier(3)

    def leave_all() -> None:
        ready.wait(timeout=10)
        for person in people[::2]:
            unsubscribe(house, person)

    def send_all() -> None:
        ready.wait(timeout=10)
        house.send()

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(leave_all), pool.submit(send_all), pool.submit(send_all)]:
            future.result(timeout=60)
    house.later(seconds=5)
    house.send()
    assert set(house.states()) <= {"ACCEPTED", "SUPPRESSED"}
    left = house.query("SELECT count(*) FROM enrollment WHERE state = 'exited'")
    assert left == [(20,)]


def test_a_planner_leaves_what_another_holds_and_both_together_plan_everybody_once(house: House) -> None:
    campaign = house.publish()
    house.enroll(campaign, *house.people(20))
    with house.database.transaction() as one:
        assert plan.plan_slice(one, house.versions, 12) == 12
        with house.database.transaction() as other:
            assert plan.plan_slice(other, house.versions, 1000) == 8
    assert house.plan() == 0
    assert house.states() == ["PLANNED"] * 20
    house.send()
