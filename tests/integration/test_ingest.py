"""What the provider tells us: late, doubled, shuffled, hostile or about strangers; the record ends alike every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import permutations
from random import Random
from threading import Barrier, Thread

import pytest

from dripwell.core.address import address_hash
from dripwell.core.campaign import Lane
from dripwell.core.errors import RefusedError
from dripwell.core.states import DELIVERY_PRECEDENCE
from dripwell.delivery.provider import ProviderEvent
from dripwell.services import ingest, send
from dripwell.storage import events
from dripwell.storage.database import Database
from tests.integration.rows import PEPPER
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


def hear_by_address(house: House, *arrived: ProviderEvent) -> None:
    """These come in, in one webhook, and whoever they name by address is known."""
    with house.database.transaction() as connection:
        ingest.take_in(connection, list(arrived), partial(address_hash, PEPPER))


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


# Without our ids


def bare(house: House, address: str, kind: str, **changes: object) -> ProviderEvent:
    """An event as asynchronous bounces come: with an address and nothing else that names a message."""
    event = ProviderEvent(kind=kind, at=house.wall, dedupe=f"bare/{kind}/{address}", address=address)
    return replace(event, **changes)  # type: ignore[arg-type]


def test_an_asynchronous_bounce_finds_its_person_and_their_last_email_by_address(house: House) -> None:
    mailed(house, MARIA, JOE)
    hear_by_address(house, about(house, MARIA, "delivered"), bare(house, " Maria@EXAMPLE.com ", "bounced", hard=True))
    assert ledger(house) == [("all", "suppress", "undeliverable", "provider")]
    assert delivery(house) == {MARIA: "bounced", JOE: None}
    assert house.query(
        "SELECT m.id = e.message_id, m.batch_id = e.batch_id FROM provider_event e, message m JOIN subscriber s"
        " ON s.id = m.subscriber_id WHERE e.type = 'bounced' AND s.address = :address",
        address=MARIA,
    ) == [(True, True)]


def test_a_bounce_by_address_is_about_the_last_email_before_it(house: House) -> None:
    mailed(house)
    first = house.wall
    house.later(days=3)
    house.plan()
    house.send()
    assert len(house.provider.mailings) == 2
    hear_by_address(house, bare(house, MARIA, "bounced", at=first))
    assert house.query("SELECT step_key, delivery FROM message ORDER BY id") == [
        ("1-first", "bounced"),
        ("2-second", None),
    ]
    hear_by_address(house, bare(house, MARIA, "dropped", at=datetime(1970, 1, 1, tzinfo=UTC)))
    assert house.query("SELECT delivery FROM message ORDER BY id") == [("bounced",), ("dropped",)]


@pytest.mark.parametrize(
    "address",
    [
        "stranger@example.com",
        "",
        "@",
        "no address",
        "a@" + "x" * 300,
        "a@\u3002.example",
        "ä" * 310,
        "a@b@c",
        "\ufffd@x",
    ],
)
def test_what_names_nobody_is_kept_and_touches_nobody(house: House, address: str) -> None:
    mailed(house)
    hear_by_address(house, bare(house, address, "complained"))
    assert house.query("SELECT type, message_id FROM provider_event") == [("complained", None)]
    assert ledger(house) == []


@pytest.mark.parametrize("kind", ["processed", "delivered", "deferred", "unknown"])
def test_an_address_alone_says_nothing_about_delivery(house: House, kind: str) -> None:
    mailed(house)
    hear_by_address(house, bare(house, MARIA, kind))
    assert delivery(house) == {MARIA: None}
    assert house.query("SELECT message_id FROM provider_event") == [(None,)]


@pytest.mark.parametrize(("kind", "scope"), [("complained", "all"), ("unsubscribed", "marketing")])
def test_who_complains_about_an_email_we_do_not_know_is_left_alone_all_the_same(
    house: House, kind: str, scope: str
) -> None:
    mailed(house)
    hear_by_address(house, about(house, MARIA, kind, batch=999_999))
    assert [row[0] for row in ledger(house)] == [scope]
    assert delivery(house) == {MARIA: None}
    assert house.query("SELECT message_id, batch_id FROM provider_event") == [(None, None)]


def test_a_bounce_by_address_proves_nothing_about_a_call(house: House) -> None:
    house.enroll(house.publish(), house.person(MARIA))
    house.plan()
    house.provider.answers = [Lost()]
    house.send()
    hear_by_address(house, bare(house, MARIA, "bounced", hard=True))
    assert house.batches() == [("UNKNOWN", None)]
    house.hear(about(house, MARIA, "processed"))
    assert house.batches() == [("DONE", "accepted")]


def test_of_two_alike_in_one_webhook_the_one_that_names_its_message_counts(house: House) -> None:
    mailed(house)
    good = about(house, MARIA, "complained")
    for arrived in ([replace(good, batch=None), good], [good, replace(good, batch=None)]):
        house.hear(*(replace(event, dedupe=f"{arrived[0].batch}") for event in arrived))
    assert house.query("SELECT count(*), count(message_id) FROM provider_event") == [(2, 2)]


# The inbox


class Door:
    """Reads a body that names its own fate."""

    def __init__(self, said: dict[bytes, list[ProviderEvent]]) -> None:
        self._said = said
        self.mended = False

    def is_genuine(self, headers: object, body: bytes) -> bool:
        return True

    def events(self, body: bytes) -> list[ProviderEvent]:
        if body == b"broken" and not self.mended:
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


def test_one_that_postgresql_refuses_costs_nobody_beside_it(house: House) -> None:
    mailed(house, MARIA, JOE)
    put(house, b"before", b"poison", b"after")
    poison = replace(about(house, MARIA, "complained"), event_id="\0")
    door = Door(
        {
            b"before": [about(house, MARIA, "delivered")],
            b"poison": [poison],
            b"after": [about(house, JOE, "delivered")],
        }
    )
    ingest.ingest(house.database, door, out_of_time=lambda: False)
    assert house.query("SELECT raw, state, tries FROM webhook_inbox ORDER BY id") == [
        (b"before", "done", 0),
        (b"poison", "quarantined", 3),
        (b"after", "done", 0),
    ]
    assert delivery(house) == {MARIA: "delivered", JOE: "delivered"}
    assert ledger(house) == []


def test_the_reason_a_webhook_was_set_aside_for_repeats_nothing_of_it(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    mailed(house)
    put(house, b"poison", b"broken", b"surprising")
    poison = replace(about(house, MARIA, "delivered"), event_id="\0", detail={"email": MARIA})
    ingest.ingest(house.database, Door({b"poison": [poison]}), out_of_time=lambda: False)
    errors = [str(error) for (error,) in house.query("SELECT error FROM webhook_inbox ORDER BY id")]
    assert errors[1:] == ["the body is not a JSON array", "KeyError"]
    assert errors[0]
    for told in (*errors, caplog.text):
        assert "maria" not in told.lower()
        assert "nobody thought of" not in told


def test_an_operator_lets_a_webhook_be_read_again_and_it_is_written_down(house: House) -> None:
    mailed(house)
    put(house, b"broken", b"broken", b"good")
    ingest.ingest(house.database, Door({b"good": []}), out_of_time=lambda: False)
    ((first,), (second,), (third,)) = house.query("SELECT id FROM webhook_inbox ORDER BY id")
    with house.database.transaction() as connection:
        assert events.waiting(connection) == {"new": 0, "quarantined": 2}
        assert ingest.retry(connection, first, actor="maria", reason="the parser was mended") == [first]  # type: ignore[arg-type]
        assert [(hook.id, hook.state) for hook in events.inbox(connection, ["new", "quarantined"], 10)] == [
            (first, "new"),
            (second, "quarantined"),
        ]
    with pytest.raises(RefusedError, match="no webhook"), house.database.transaction() as connection:
        ingest.retry(connection, third, actor="maria", reason="again")  # type: ignore[arg-type]
    with house.database.transaction() as connection:
        assert ingest.retry(connection, None, actor="maria", reason="all of them") == [second]
    assert house.query("SELECT actor, action, about, detail ->> 'reason' FROM activity ORDER BY id")[-2:] == [
        ("maria", "read again", f"webhook {first}", "the parser was mended"),
        ("maria", "read again", "all webhooks", "all of them"),
    ]
    door = Door({b"good": [], b"broken": [about(house, MARIA, "delivered")]})
    door.mended = True
    assert ingest.ingest(house.database, door, out_of_time=lambda: False) == 2
    assert delivery(house) == {MARIA: "delivered"}
    assert house.query("SELECT DISTINCT state, error FROM webhook_inbox") == [("done", None)]


def test_a_reader_takes_as_much_as_it_may_and_always_something(house: House) -> None:
    put(house, b"x" * 100, b"y" * 100, b"z" * 100)
    with house.database.transaction() as connection:
        assert [raw[:1] for _, raw in events.claim_inbox(connection, limit=10, size=250)] == [b"x", b"y"]
    with house.database.transaction() as connection:
        assert [raw[:1] for _, raw in events.claim_inbox(connection, limit=10, size=1)] == [b"x"]
    with house.database.transaction() as connection:
        assert [raw[:1] for _, raw in events.claim_inbox(connection, limit=1, size=1000)] == [b"x"]


def test_two_readers_at_once_read_everything_once_and_never_block_each_other_for_good(house: House) -> None:
    people = [f"p{number}@example.com" for number in range(12)]
    mailed(house, *people)
    chance = Random(7)
    arrived = [about(house, address, kind) for address in people for kind in ("processed", "delivered", "complained")]
    said = {}
    for number in range(60):
        chance.shuffle(arrived)
        said[b"%d" % number] = arrived[:12]
    said[b"all"] = list(arrived)
    put(house, *said)
    together = Barrier(2)
    read: list[int] = []

    def work() -> None:
        together.wait()
        for _ in range(3):
            read.append(ingest.ingest(house.database, Door(said), out_of_time=lambda: False))

    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(read) == len(said)
    assert house.query("SELECT DISTINCT state, tries FROM webhook_inbox") == [("done", 0)]
    assert house.query("SELECT count(*) FROM provider_event") == [(36,)]
    assert set(delivery(house).values()) == {"complained"}
    assert len(ledger(house)) == 12


def test_an_event_without_a_usable_time_still_counts(house: House) -> None:
    mailed(house)
    house.hear(replace(about(house, MARIA, "complained"), at=datetime(1970, 1, 1, tzinfo=UTC)))
    assert len(ledger(house)) == 1
