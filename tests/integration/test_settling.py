"""What an unclear call becomes when the log lags, when it is a service email, and when no evidence can come at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import pytest
from sqlalchemy import text

from dripwell.bootstrap import _patience
from dripwell.core.campaign import Delivery, Lane
from dripwell.delivery.provider import Accepted, LogAnswer, Unknown
from dripwell.services import held, send, serve, settle
from dripwell.services.settle import Patience
from dripwell.storage import batches
from dripwell.storage.database import Database
from tests.integration.scripted import PATIENCE, House, Lost


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    """A house whose every test ends with the judge."""
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def unclear(house: House, answer: Unknown | Lost) -> None:
    """One call that was accepted, and half an hour later one that nobody knows the end of."""
    campaign = house.publish()
    house.enroll(campaign, house.person("known@example.com"))
    house.plan()
    house.send()
    house.later(minutes=30)
    house.enroll(campaign, house.person("unclear@example.com"))
    house.plan()
    house.provider.answers = [answer]
    house.send()


def rounds(house: House, patience: Patience = PATIENCE) -> None:
    """Two rounds of asking, and a little more."""
    for _ in range(3):
        house.later(seconds=61)
        house.settle(patience, alive=True)


def lag(house: House) -> None:
    """Let the provider's log show nothing, although it answers."""

    class Lagging(type(house.provider)):  # type: ignore[misc]
        def find(self, address: str, message: UUID, since: datetime) -> LogAnswer:
            return LogAnswer(answered=True, found=False)

    house.provider.__class__ = Lagging


def test_a_log_that_lags_proves_nothing(house: House) -> None:
    unclear(house, Lost())
    lag(house)
    rounds(house)
    assert house.batches()[-1] == ("UNKNOWN", None), "the log does not show what was certainly accepted, either"
    house.hear(*house.events("delivered"))
    assert house.states() == ["ACCEPTED", "ACCEPTED"]


def test_a_log_that_shows_what_was_accepted_may_prove_that_something_was_not(house: House) -> None:
    unclear(house, Unknown("timeout"))
    rounds(house)
    assert house.batches()[-1] == ("DONE", "absent")
    house.plan()
    house.send()
    assert house.states() == ["ACCEPTED", "ACCEPTED"]


def confirmation(house: House) -> None:
    house.publish_service()
    with house.database.transaction() as connection:
        serve.plan_service(
            connection, campaign="confirm", step_key="confirm", subscriber_id=house.person(), round=1, now=house.wall
        )


HOLD = replace(PATIENCE, resend=False)


def test_a_service_email_goes_again_once_whatever_the_policy_and_is_held_the_second_time(house: House) -> None:
    confirmation(house)
    house.provider.answers = [Unknown("timeout"), Unknown("timeout")]
    house.send(Lane.CONFIRM)
    rounds(house, HOLD)
    assert house.batches() == [("DONE", "absent")]
    house.send(Lane.CONFIRM)
    rounds(house, HOLD)
    assert house.batches()[-1] == ("UNKNOWN", None)
    house.later(hours=2)
    house.settle(HOLD, alive=True)
    assert house.states() == ["HELD"]


@pytest.mark.parametrize(("alive", "outcome"), [(True, "absent"), (False, None)])
def test_without_logs_a_service_email_goes_again_when_a_living_channel_is_silent_about_it(
    house: House, alive: bool, outcome: str | None
) -> None:
    house.provider.capabilities = replace(house.provider.capabilities, logs=False)
    confirmation(house)
    house.provider.answers = [Unknown("timeout"), Accepted("x")]
    house.send(Lane.CONFIRM)
    campaign = house.publish()
    house.enroll(campaign, house.person("other@example.com"))
    house.plan()
    house.send()
    if alive:
        house.hear(*house.events("processed"))
    rounds(house, HOLD)
    assert house.query("SELECT outcome FROM batch ORDER BY id LIMIT 1") == [(outcome,)]


def test_where_no_evidence_can_come_a_person_decides_after_the_grace_period(house: House) -> None:
    house.provider.capabilities = replace(house.provider.capabilities, logs=False, events=False)
    campaign = house.publish()
    house.enroll(campaign, house.person())
    house.plan()
    house.provider.answers = [Unknown("the connection broke after the final dot")]
    house.send()
    house.settle(alive=True)
    assert house.states() == ["IN_BATCH"]
    house.later(seconds=61)
    house.settle(alive=True)
    assert house.states() == ["HELD"]


@pytest.mark.parametrize(
    ("policy", "logs", "resend"),
    [(None, True, True), (None, False, False), ("hold", True, False), ("resend", False, True)],
)
def test_the_policy_of_the_installation_decides_and_left_out_what_can_be_proved(
    house: House, policy: str | None, logs: bool, resend: bool
) -> None:
    site = replace(house.site, delivery=Delivery(on_unknown=policy))  # type: ignore[arg-type]
    assert _patience(site, live=True, logs=logs).resend is resend


def test_a_log_entry_of_an_earlier_call_proves_that_call_and_nothing_about_the_present_one(house: House) -> None:
    """Held, released, and called for again together with somebody else; then the log shows the first call."""
    campaign = house.publish()
    house.enroll(campaign, house.person("first@example.com"))
    house.plan()
    house.provider.answers = [Lost()]
    house.send()
    house.provider.logs_answer = False
    house.later(hours=2)
    for _ in range(2):
        house.settle(alive=True)
    assert house.states() == ["HELD"]
    ((message,),) = house.query("SELECT id FROM message")
    house.enroll(campaign, house.person("second@example.com"))
    with house.database.transaction() as connection:
        held.release(connection, [int(message)], actor="anna", reason="support says no")  # type: ignore[call-overload]
        connection.execute(text("UPDATE lane_state SET batch_limit = 100"))
    house.plan()
    house.provider.answers = [Unknown("timeout")]
    house.send()
    assert len(house.provider.mailings[-1].envelopes) == 2
    house.provider.logs_answer = True
    rounds(house)
    assert house.messages()["first@example.com", "1-first"] == ("ACCEPTED", None)
    assert house.messages()["second@example.com", "1-first"] == ("PLANNED", None)
    house.plan()
    house.send()
    assert house.provider.addresses()[-1] == "second@example.com"


def test_late_evidence_before_the_payload_is_stored_stops_the_call(house: House) -> None:
    campaign = house.publish()
    house.enroll(campaign, house.person())
    house.plan()
    house.provider.answers = [Lost()]
    house.send()
    house.provider.logs_answer = False
    house.later(hours=2)
    for _ in range(2):
        house.settle(alive=True)
    ((message,),) = house.query("SELECT id FROM message")
    with house.database.transaction() as connection:
        held.release(connection, [int(message)], actor="anna", reason="support says no")  # type: ignore[call-overload]
    house.plan()
    sender = house.sender()
    batch = send.claim(sender, Lane.DRIP)
    assert batch is not None
    letters = send.render(sender, batch)
    assert letters is not None
    marked = send.mark(sender, batch)
    assert marked is not None
    evidence = house.events("delivered")
    with house.database.snapshot() as checking:
        assert batches.may_still_call(checking, batch.id)
        house.hear(*evidence)
        with pytest.raises(Exception, match="could not serialize"):
            batches.store_payload(checking, batch.id, [int(message)], b"x")  # type: ignore[call-overload]
    assert send.final_check(sender, marked, letters) is None
    assert len(house.provider.mailings) == 1
    assert house.states() == ["ACCEPTED"]


def test_a_log_that_hangs_does_not_keep_the_janitor_from_a_dead_senders_batch(house: House) -> None:
    campaign = house.publish()
    house.enroll(campaign, house.person("unclear@example.com"))
    house.plan()
    house.provider.answers = [Unknown("timeout")]
    house.send()
    house.later(minutes=2)
    house.enroll(campaign, house.person("late@example.com"))
    house.plan()
    assert send.claim(house.sender(), Lane.DRIP) is not None
    looks = iter([False, True])  # time for one batch
    settle.settle(
        house.database, house.provider, house.fast, PATIENCE, owner=house.owner, is_alive=lambda pid: False,
        out_of_time=lambda: next(looks),
    )  # fmt: skip
    assert house.messages()["late@example.com", "1-first"] == ("PLANNED", None)
    assert house.provider.asked == 0
