"""Whatever stands in a webhook: it is read or set aside, the good beside it counts, and the record holds."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dripwell.core.address import address_hash
from dripwell.delivery.sendgrid import SendGrid
from dripwell.delivery.sendgrid_events import MOST_EVENTS
from dripwell.services import ingest
from dripwell.storage import events
from dripwell.storage.database import Database
from tests.integration.rows import PEPPER
from tests.integration.scripted import House

MARIA, JOE = "maria@example.com", "joe@example.com"
DOOR = SendGrid("SG.key")
SAMPLES = [
    element
    for path in sorted((Path(__file__).parents[1] / "data" / "sendgrid" / "events").glob("*.json"))
    for element in json.loads(path.read_text())["body"]
    if isinstance(element, dict)
]
DEEP = "[" * 100_000 + "]" * 100_000


class Mailbox:
    """A house in which Maria and Joe have had their first email, and what SendGrid would say about Joe's."""

    def __init__(self, database: Database, redis_url: str) -> None:
        self.house = House(database, redis_url)
        self.house.enroll(self.house.publish(), self.house.person(MARIA), self.house.person(JOE))
        self.house.plan()
        self.house.send()
        (mailing,) = self.house.provider.mailings
        self.args = {
            envelope.to: {"dw_m": envelope.message.hex, "dw_b": str(mailing.batch)} for envelope in mailing.envelopes
        }
        self._numbers = itertools.count(1)

    def good(self) -> dict[str, Any]:
        """An event about Joe that nobody has heard yet."""
        number = next(self._numbers)
        return {
            "email": JOE,
            "event": "deferred",
            "timestamp": 1_793_000_000 + number,
            "response": f"451 try {number}",
            "sg_event_id": f"good-{number}",
            **self.args[JOE],
        }

    def post(self, *bodies: bytes) -> list[str]:
        """These arrive, and the reader passes by three times; returns what became of each."""
        with self.house.database.transaction() as connection:
            ids = [events.put_inbox(connection, body) for body in bodies]
        for _ in range(3):
            ingest.ingest(self.house.database, DOOR, hash_of=partial(address_hash, PEPPER), out_of_time=lambda: False)
        found = dict(self.house.query("SELECT id, state FROM webhook_inbox WHERE id = ANY(:ids)", ids=ids))  # type: ignore[arg-type]
        return [str(found[id]) for id in ids]

    def counted(self, good: dict[str, Any]) -> bool:
        """Whether this event is a row about Joe's message."""
        return self.house.query(
            "SELECT s.address FROM provider_event e JOIN message m ON m.id = e.message_id"
            " JOIN subscriber s ON s.id = m.subscriber_id WHERE e.sg_event_id = :id",
            id=good["sg_event_id"],
        ) == [(JOE,)]

    def events(self) -> int:
        """How many rows there are."""
        ((found,),) = self.house.query("SELECT count(*) FROM provider_event")
        return int(str(found))


@pytest.fixture
def mailbox(database: Database, redis_url: str) -> Iterator[Mailbox]:
    """Mailed; every test ends with the judge."""
    made = Mailbox(database, redis_url)
    yield made
    made.house.check()
    made.house.close()


ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**18, 10**40)
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=30)
    | st.sampled_from(
        ["\0", "\ud800", "\\u0000", "x" * 70_000, "-1", "1e300", "NaN", -1, 1e300, float("nan"), 2**63, "0", 0, "٣"]
    )
)
JSON = st.recursive(
    ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = sorted({key for sample in SAMPLES for key in sample})


@st.composite
def mutated(draw: st.DrawFn) -> list[Any]:
    """A real array in which some values, keys or whole elements were exchanged for anything."""
    array = [copy.deepcopy(draw(st.sampled_from(SAMPLES))) for _ in range(draw(st.integers(1, 4)))]
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(array) - 1))
        element = array[place]
        match draw(st.sampled_from(["value", "value", "key", "drop", "element", "ours"])):
            case "element":
                array[place] = draw(JSON)
            case "value" if isinstance(element, dict):
                element[draw(st.sampled_from(KEYS))] = draw(JSON)
            case "key" if isinstance(element, dict):
                element[draw(st.text(st.characters(exclude_categories=()), max_size=20))] = draw(JSON)
            case "drop" if isinstance(element, dict) and element:
                del element[draw(st.sampled_from(sorted(element)))]
            case "ours" if isinstance(element, dict):
                element["ours"] = True  # Maria's ids take its place
            case _:
                pass
    return array


def with_ids(array: list[Any], mailbox: Mailbox) -> list[Any]:
    return [
        {**element, **mailbox.args[MARIA], "email": MARIA}
        if isinstance(element, dict) and "ours" in element
        else element
        for element in array
    ]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(array=mutated(), place=st.integers(0, 4), copies=st.integers(1, 3))
def test_any_array_is_read_and_the_good_event_in_it_counts_once(
    mailbox: Mailbox, array: list[Any], place: int, copies: int
) -> None:
    good = mailbox.good()
    array = with_ids(array, mailbox)
    array[place:place] = [good]
    body = json.dumps(array).encode()
    assert mailbox.post(*[body] * copies) == ["done"] * copies
    assert mailbox.counted(good)
    once = mailbox.events()
    assert mailbox.post(json.dumps(array[::-1]).encode()) == ["done"]
    assert mailbox.events() == once
    mailbox.house.check()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(array=mutated(), cut=st.integers(0, 3_000), junk=st.binary(max_size=4))
def test_any_bytes_end_read_or_set_aside_and_the_webhook_behind_them_is_read(
    mailbox: Mailbox, array: list[Any], cut: int, junk: bytes
) -> None:
    good = mailbox.good()
    body = json.dumps(array).encode()
    broken = body[:cut] + junk + body[cut + len(junk) :]
    (first, second) = mailbox.post(broken, json.dumps([good]).encode())
    assert first in ("done", "quarantined")
    assert second == "done"
    assert mailbox.counted(good)
    mailbox.house.check()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"null",
        b"[1,",
        b'[{"event":"delivered"}',
        b'["\\ud800',
        DEEP[:150_000].encode(),
        b"[" + b"0," * MOST_EVENTS + b"0]",
        b"x" * 5 * 1024 * 1024,
    ],
    ids=["empty", "bytes", "object", "null", "cut", "cut event", "cut text", "open nest", "too many", "5 MB"],
)
def test_what_is_no_array_is_set_aside_with_a_reason_and_the_others_go_on(mailbox: Mailbox, body: bytes) -> None:
    good, other = mailbox.good(), mailbox.good()
    states = mailbox.post(json.dumps([good]).encode(), body, json.dumps([other]).encode())
    assert states == ["done", "quarantined", "done"]
    assert mailbox.counted(good)
    assert mailbox.counted(other)
    ((tries, error),) = mailbox.house.query("SELECT tries, error FROM webhook_inbox WHERE state = 'quarantined'")
    assert tries == 3
    assert error


ELEMENTS = [
    "17",
    '"words"',
    "[]",
    "null",
    f'{{"event":"delivered","nest":{DEEP}}}',
    DEEP,
    '{"event":"delivered","event":"bounce","dw_b":"1","dw_b":"99999999999999999999999"}',
    '{"event":"delivered","dw_b":99999999999999999999999999,"dw_m":12}',
    '{"event":"delivered","dw_b":-1,"dw_m":"00000000000000000000000000000000"}',
    '{"event":"spamreport","email":"\\u0000@\\ud800","reason":"\\u0000","sg_event_id":"\\u0000"}',
    '{"event":"bounce","reason":"a literal \\\\u0000 and \\\\ud800"}',
    '{"event":"delivered","timestamp":-5}',
    '{"event":"delivered","timestamp":1e300}',
    '{"event":"delivered","timestamp":NaN}',
    '{"event":"delivered","timestamp":"253402300800"}',
    '{"event":"delivered","timestamp":253402300799}',
    '{"event":"delivered","timestamp":"Infinity"}',
    '{"event":{"a":1},"email":["x"],"timestamp":{"b":2}}',
    '{"event":"a type nobody knows","email":"maria@example.com"}',
    '{"event":"bounce","reason":"' + "x" * 4_000_000 + '"}',
    "{" + ",".join(f'"k{number}":1' for number in range(20_000)) + "}",
]


def test_a_hostile_element_costs_the_good_ones_beside_it_nothing(mailbox: Mailbox) -> None:
    for element in ELEMENTS:
        good, other = mailbox.good(), mailbox.good()
        before = mailbox.events()
        assert mailbox.post(f"[{json.dumps(good)},{element},{json.dumps(other)}]".encode()) == ["done"], element[:200]
        assert mailbox.counted(good), element[:200]
        assert mailbox.counted(other), element[:200]
        assert mailbox.events() == before + 3, element[:200]
    assert mailbox.house.query("SELECT count(*) FROM suppression") == [(0,)]


def test_a_batch_of_ours_with_a_message_that_is_not_in_it_is_kept_without_a_message(mailbox: Mailbox) -> None:
    mailbox.house.later(days=3)
    mailbox.house.plan()
    mailbox.house.send()
    last = mailbox.house.provider.mailings[-1]
    strange = {**mailbox.good(), "event": "delivered", "dw_b": str(last.batch)}
    good = mailbox.good()
    assert mailbox.post(json.dumps([strange, good]).encode()) == ["done"]
    assert not mailbox.counted(strange)
    assert mailbox.counted(good)
    assert mailbox.house.query("SELECT delivery FROM message ORDER BY id") == [(None,), ("deferred",), (None,), (None,)]


def test_nothing_of_an_event_is_logged_with_an_address(mailbox: Mailbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    suspended = {"event": "account_status_change", "type": "compliance_suspend", "timestamp": 1_793_000_000}
    bodies = [
        json.dumps([mailbox.good(), {"email": MARIA, "event": "spamreport", "sg_event_id": "\0"}]),
        json.dumps([{**mailbox.good(), "dw_b": "9", "email": MARIA}, suspended]),
        f'[{{"email":"{MARIA}"',
    ]
    assert mailbox.post(*(body.encode() for body in bodies)) == ["done", "done", "quarantined"]
    assert "could not be read" in caplog.text
    assert "compliance_suspend" in caplog.text
    for address in (MARIA, JOE):
        assert address not in caplog.text
