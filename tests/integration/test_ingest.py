"""What the provider tells us: late, doubled, shuffled, hostile or about strangers; the record ends alike every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from random import Random

import pytest

from dripwell.core.campaign import Lane
from dripwell.core.states import DELIVERY_PRECEDENCE
from dripwell.delivery.provider import ProviderEvent
from dripwell.services import ingest, send
from dripwell.storage import events
from dripwell.storage.database import Database
from tests.integration.scripted import House, Lost

MARIA, JOE = "maria@example.com", "joe@example.com"


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    """A house whose every test ends with the judge."""
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def mailed(house: House, *addresses: str) -> None:
    """These people have had their first email, in one batch."""
    house.enroll(house.publish(), *(house.person(address) for address in addresses or (MARIA,)))
    house.plan()
    house.send()


def delivery(house: House) -> dict[object, object]:
    return dict(house.query("SELECT s.address, m.delivery FROM message m JOIN subscriber s ON s.id = m.subscriber_id"))  # type: ignore[arg-type]


def ledger(house: House) -> list[tuple[object, ...]]:
    return house.query("SELECT scope, action, reason, source FROM suppression ORDER BY seq")


def about(house: House, address: str, kind: str, **changes: object) -> ProviderEvent:
    """One event about one person's first email."""
    (found,) = (
        event for event in house.events(kind, house.provider.mailings[0], **changes) if event.address == address
    )
    return found


@pytest.mark.parametrize("seed", range(4))
def test_events_shuffled_doubled_and_cut_into_webhooks_end_alike(house: House, seed: int) -> None:
    chance = Random(seed)
    mailed(house, MARIA, JOE)
    arrived = [about(house, MARIA, kind) for kind in ("processed", "deferred", "delivered")]
    arrived += [about(house, JOE, kind) for kind in ("processed", "deferred", "delivered", "bounced")]
    arrived = arrived * 3
    chance.shuffle(arrived)
    while arrived:
        size = chance.randint(1, 5)
        house.hear(*arrived[:size])
        del arrived[:size]
    assert delivery(house) == {MARIA: "delivered", JOE: "bounced"}
    assert house.query("SELECT count(*) FROM provider_event") == [(7,)]


def test_delivery_ends_alike_in_every_order(house: House) -> None:
    kinds = ("processed", "delivered", "bounced")
    orders = list(permutations(kinds))
    addresses = [f"p{number}@example.com" for number in range(len(orders))]
    mailed(house, *addresses)
    for address, order in zip(addresses, orders, strict=True):
        for kind in order:
            house.hear(about(house, address, kind))
    assert set(delivery(house).values()) == {max(kinds, key=DELIVERY_PRECEDENCE.index)}


def test_a_hard_bounce_suppresses_the_address_everywhere_and_ends_the_series(house: House) -> None:
    mailed(house, MARIA, JOE)
    house.hear(about(house, MARIA, "bounced", hard=True, event_id="sg-1"))
    assert ledger(house) == [("all", "suppress", "undeliverable", "provider")]
    assert house.query("SELECT state FROM subscriber ORDER BY id") == [("undeliverable",), ("active",)]
    assert [(state, reason) for state, reason, *_ in house.enrolled()] == [
        ("exited", "undeliverable"),
        ("waiting", None),
    ]
    house.later(days=3)
    house.plan()
    house.send()
    assert house.provider.addresses().count(MARIA) == 1


def test_a_soft_bounce_suppresses_nobody(house: House) -> None:
    mailed(house)
    house.hear(about(house, MARIA, "bounced", hard=False))
    assert ledger(house) == []
    assert delivery(house) == {MARIA: "bounced"}
    assert house.enrolled()[0][0] == "waiting"


@pytest.mark.parametrize(
    ("kind", "scope", "reason"), [("complained", "all", "complained"), ("unsubscribed", "marketing", "unsubscribed")]
)
def test_a_complaint_and_an_unsubscribe_at_the_provider_hold_here(
    house: House, kind: str, scope: str, reason: str
) -> None:
    mailed(house)
    house.hear(about(house, MARIA, kind))
    assert ledger(house) == [(scope, "suppress", reason, "provider")]
    assert house.query("SELECT state FROM subscriber") == [("unsubscribed",)]
    assert house.enrolled() == [("exited", reason, "1-first", None)]


def test_forty_six_copies_of_a_complaint_are_one_row(house: House) -> None:
    mailed(house)
    for number in range(46):
        house.hear(about(house, MARIA, "complained", event_id=f"copy-{number}"))
    assert len(ledger(house)) == 1
    assert house.query("SELECT count(*) FROM provider_event") == [(1,)]


@pytest.mark.parametrize("kind", ["unknown", "processed", "delivered"])
def test_nothing_that_is_heard_lifts_a_suppression(house: House, kind: str) -> None:
    mailed(house)
    house.hear(about(house, MARIA, "unsubscribed"))
    house.hear(replace(about(house, MARIA, kind), dedupe="later", reason="group_resubscribe"))
    assert [action for _, action, *_ in ledger(house)] == ["suppress"]
    assert house.query("SELECT state FROM subscriber") == [("unsubscribed",)]


def test_a_complaint_that_arrives_while_the_batch_is_unknown_proves_it_and_ends_the_series(house: House) -> None:
    house.enroll(house.publish(), house.person(MARIA))
    house.plan()
    house.provider.answers = [Lost()]
    house.send()
    house.hear(about(house, MARIA, "complained"))
    assert house.messages() == {(MARIA, "1-first"): ("ACCEPTED", None)}
    assert house.enrolled() == [("exited", "complained", "1-first", None)]
    assert delivery(house) == {MARIA: "complained"}


def test_an_event_that_overtakes_the_answer_counts_and_the_answer_changes_nothing(house: House) -> None:
    house.enroll(house.publish(), house.person(MARIA))
    house.plan()
    house.provider.during = lambda mailing: house.hear(*house.events("delivered", mailing))
    house.send()
    assert house.messages() == {(MARIA, "1-first"): ("ACCEPTED", None)}
    assert house.batches() == [("DONE", "accepted")]
    assert delivery(house) == {MARIA: "delivered"}
    assert house.log() == [("T10", "event delivered")]


def test_events_of_an_unknown_batch_are_kept_and_touch_nobody(house: House) -> None:
    mailed(house)
    stranger = about(house, MARIA, "bounced", hard=True, batch=999_999)
    house.hear(stranger, replace(stranger, batch=None, dedupe="no batch"))
    assert house.query("SELECT message_id, batch_id FROM provider_event") == [(None, None)] * 2
    assert ledger(house) == []
    assert delivery(house) == {MARIA: None}


def test_an_event_whose_message_is_not_in_its_batch_touches_nobody(house: House) -> None:
    mailed(house)
    house.later(days=3)
    house.plan()
    house.send()
    first, second = house.provider.mailings
    house.hear(*house.events("bounced", first, batch=second.batch, hard=True))
    assert ledger(house) == []
    assert delivery(house) == {MARIA: None}


def test_an_event_for_a_batch_that_was_never_called_accepts_nobody(house: House) -> None:
    house.enroll(house.publish(), house.person(MARIA))
    house.plan()
    batch = send.claim(house.sender(), Lane.DRIP)
    assert batch is not None
    ((message, _identity),) = house.query("SELECT public_id, id FROM message")
    house.hear(
        ProviderEvent(kind="delivered", at=house.wall, dedupe="d", message=message, batch=batch.id)  # type: ignore[arg-type]
    )
    assert house.messages() == {(MARIA, "1-first"): ("IN_BATCH", None)}
    assert house.batches() == [("OPEN", None)]


def test_while_the_last_email_is_deferred_the_next_one_waits(house: House) -> None:
    mailed(house)
    house.hear(about(house, MARIA, "deferred"))
    house.later(hours=49)
    house.plan()
    house.send()
    assert len(house.provider.mailings) == 1
    assert house.enrolled()[0][3] == "still_being_delivered"
    house.hear(about(house, MARIA, "delivered"))
    house.later(hours=24)
    house.plan()
    house.send()
    assert len(house.provider.mailings) == 2


@pytest.mark.parametrize(("reason", "shut"), [("compliance_suspend", 4), ("compliance_ban", 4), ("reactivate", 0)])
def test_a_suspended_account_closes_every_lane_at_once(house: House, reason: str, shut: int) -> None:
    house.hear(ProviderEvent(kind="account", at=house.wall, dedupe=reason, reason=reason))
    assert house.query("SELECT count(*) FROM lane_state WHERE breaker = 'open'") == [(shut,)]


# The inbox


class Door:
    """Reads a body that names its own fate."""

    def __init__(self, said: dict[bytes, list[ProviderEvent]]) -> None:
        self._said = said

    def is_genuine(self, headers: object, body: bytes) -> bool:
        return True

    def events(self, body: bytes) -> list[ProviderEvent]:
        if body == b"broken":
            raise ValueError("the body is not a JSON array")
        if body == b"surprising":
            raise KeyError("what nobody thought of")
        return self._said[body]


def put(house: House, *bodies: bytes) -> None:
    with house.database.transaction() as connection:
        for body in bodies:
            events.put_inbox(connection, body)


def test_a_broken_webhook_is_set_aside_after_three_tries_and_stops_nobody(house: House) -> None:
    mailed(house)
    put(house, b"broken", b"surprising", b"good")
    door = Door({b"good": [about(house, MARIA, "delivered")]})
    for _ in range(2):
        ingest.ingest(house.database, door, out_of_time=lambda: False)
    assert house.query("SELECT raw, state, tries FROM webhook_inbox ORDER BY id") == [
        (b"broken", "quarantined", 3),
        (b"surprising", "quarantined", 3),
        (b"good", "done", 0),
    ]
    assert delivery(house) == {MARIA: "delivered"}


def test_a_webhook_that_comes_again_changes_nothing(house: House) -> None:
    mailed(house)
    door = Door({b"one": [about(house, MARIA, "delivered")]})
    put(house, b"one", b"one", b"one")
    assert ingest.ingest(house.database, door, out_of_time=lambda: False) == 3
    assert house.query("SELECT count(*) FROM provider_event") == [(1,)]


def test_a_webhook_that_fails_halfway_leaves_no_half(house: House) -> None:
    mailed(house)
    unstorable = replace(about(house, MARIA, "delivered"), event_id="\0")
    put(house, b"half")
    door = Door({b"half": [about(house, MARIA, "complained"), unstorable]})
    ingest.ingest(house.database, door, out_of_time=lambda: False)
    assert house.query("SELECT state FROM webhook_inbox") == [("quarantined",)]
    assert ledger(house) == []
    assert house.query("SELECT count(*) FROM provider_event") == [(0,)]


def test_an_event_without_a_usable_time_still_counts(house: House) -> None:
    mailed(house)
    house.hear(replace(about(house, MARIA, "complained"), at=datetime(1970, 1, 1, tzinfo=UTC)))
    assert len(ledger(house)) == 1
