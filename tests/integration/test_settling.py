"""What an unclear call becomes when the log lags, when it is a service email, and when no evidence can come at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import pytest

from dripwell.bootstrap import _patience
from dripwell.core.campaign import Delivery, Lane
from dripwell.delivery.provider import Accepted, LogAnswer, Unknown
from dripwell.services import serve
from dripwell.services.settle import Patience
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
