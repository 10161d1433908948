"""The webhook: golden samples for each variant, signatures, and bodies nobody would send on purpose."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.errors import ConfigurationError
from dripwell.delivery.provider import ProviderEvent
from dripwell.delivery.sendgrid import SendGrid
from dripwell.delivery.sendgrid_events import KINDS, NO_TIME, parse

EVENTS = sorted((Path(__file__).parents[1] / "data" / "sendgrid" / "events").glob("*.json"))
PRIVATE = ec.generate_private_key(ec.SECP256R1())
SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"
BODY = b'[{"email":"mara@example.com","event":"delivered","timestamp":1755187955}]\r\n'


def shown(key: Any) -> str:
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def signed(body: bytes, timestamp: str = "1755187999", key: ec.EllipticCurvePrivateKey = PRIVATE) -> dict[str, str]:
    signature = key.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
    return {SIGNATURE: base64.b64encode(signature).decode(), TIMESTAMP: timestamp}


DOOR = SendGrid("SG.key", webhook_public_key=shown(PRIVATE))


def is_as(event: ProviderEvent, wanted: Mapping[str, Any]) -> bool:
    found = {name: getattr(event, name) for name in wanted}
    found = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in found.items()}
    return {name: value.hex if isinstance(value, UUID) else value for name, value in found.items()} == dict(wanted)


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_each_variant_reads_as_its_golden_sample_says(path: Path) -> None:
    sample = json.loads(path.read_text())
    found = DOOR.events(json.dumps(sample["body"]).encode())
    assert len(found) == len(sample["reads"])
    for event, wanted in zip(found, sample["reads"], strict=True):
        assert is_as(event, wanted), (event, wanted)


def test_every_type_we_have_a_word_for_has_a_golden_sample() -> None:
    bodies = [element for path in EVENTS for element in json.loads(path.read_text())["body"]]
    types = {element["event"] for element in bodies if isinstance(element, dict)}
    assert KINDS.keys() - {"cancel_drop"} <= types


def test_hostile_text_is_capped_and_on_one_line() -> None:
    sample = json.loads(next(path for path in EVENTS if path.stem == "hostile-text").read_text())
    (event,) = parse(json.dumps(sample["body"]).encode())
    assert len(event.reason) <= 1_000
    assert event.reason.isprintable()
    assert "\0" not in json.dumps(event.detail)
    assert all(len(str(value)) <= 1_000 for value in event.detail.values())


def one(**changes: Any) -> ProviderEvent:
    element = {
        "email": "mara@example.com",
        "timestamp": 1755187955,
        "event": "deferred",
        "reason": "try later",
        "sg_event_id": "first",
        "dw_m": UUID(int=7).hex,
        "dw_b": "1",
    }
    (event,) = parse(json.dumps([element | changes]).encode())
    return event


def test_a_copy_under_a_new_event_id_or_with_another_form_of_time_is_the_same_event() -> None:
    assert one().dedupe == one(sg_event_id="second").dedupe == one(timestamp="1755187955").dedupe == one(tls=1).dedupe
    assert len(one().dedupe) == 64


def test_another_person_type_time_link_or_reason_is_another_event() -> None:
    others = [
        one(),
        one(dw_m=UUID(int=8).hex),
        one(event="bounce"),
        one(event="bounce", type="blocked"),
        one(timestamp=1755187956),
        one(reason="try much later"),
        one(url="https://example.com/1"),
        one(reason="a" * 5_000 + "b"),
        one(reason="a" * 5_000 + "c"),
    ]
    assert len({event.dedupe for event in others}) == len(others)


def test_without_custom_args_the_message_id_up_to_its_first_dot_tells_events_apart_then_the_address() -> None:
    def bare(**changes: Any) -> str:
        return one(dw_m=None, **changes).dedupe

    assert (
        bare(sg_message_id="abc.filter1.1") == bare(sg_message_id="abc.filter2.2") != bare(sg_message_id="abd.filter1")
    )
    assert bare(email="Mara@Example.com") == bare() != bare(email="noah@example.com")


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"17", b"[", b"\xff\xfe\xfd", b'"x"', b"[" * 200_000])
def test_a_body_that_is_no_array_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the class is the promise, the text is for the log)
        parse(body)


def test_numbers_without_end_cost_only_their_own_event() -> None:
    body = b'[{"event":"delivered","timestamp":%b,"x":%b,"y":NaN,"z":1e999},{"event":"delivered"}]'
    events = parse(body % (b"9" * 5_000, b"-" + b"9" * 5_000))
    assert [event.kind for event in events] == ["delivered", "delivered"]
    assert events[0].at == NO_TIME
    json.dumps(events[0].detail, allow_nan=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
FIELDS = ["event", "type", "timestamp", "email", "reason", "response", "status", "url", "dw_m", "dw_b", "custom_args"]
FIELDS += ["sg_event_id", "sg_message_id", "bounce_classification", "unique_args"]
VALUES = JSON | st.sampled_from([*KINDS, "1755187955", UUID(int=1).hex, "5.1.1", "Invalid Address", "42", "٣"])


@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES) | JSON, max_size=5))
def test_any_array_gives_one_storable_event_for_each_element(elements: list[Any]) -> None:
    body = json.dumps(elements).encode()
    events = DOOR.events(body)
    assert len(events) == len(elements)
    assert events == DOOR.events(body)
    for event in events:
        assert event.at.tzinfo is UTC
        assert event.kind in {*KINDS.values(), "unknown"}
        stored = json.dumps(event.detail, ensure_ascii=False, allow_nan=False)
        for text in (stored, event.reason, event.event_id, event.address or ""):
            assert "\0" not in text
            text.encode()
        assert len(stored) < 5_000_000
        assert event.batch is None or 0 < event.batch < 2**63
        assert not event.hard or event.kind == "bounced"


@given(JSON)
def test_any_other_json_is_a_value_error_at_most(value: Any) -> None:
    if isinstance(value, list):
        return
    with pytest.raises(ValueError, match="not a JSON array"):
        parse(json.dumps(value).encode())


@given(st.binary())
def test_any_bytes_are_a_value_error_at_most(body: bytes) -> None:
    try:
        events = parse(body)
    except ValueError:
        return
    assert isinstance(events, list)


def test_a_signed_body_is_genuine_whatever_the_case_of_the_header_names() -> None:
    headers = signed(BODY)
    assert DOOR.is_genuine(headers, BODY)
    assert DOOR.is_genuine({name.lower(): value for name, value in headers.items()}, BODY)
    assert DOOR.is_genuine(signed(BODY, timestamp="1000000000"), BODY)  # a retry a day later is genuine too


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {SIGNATURE: signed(BODY)[SIGNATURE]},
        {TIMESTAMP: "1755187999"},
        {**signed(BODY), TIMESTAMP: ""},
        {**signed(BODY), TIMESTAMP: "1755188000"},
        {**signed(BODY), TIMESTAMP: "١٧"},
        {**signed(BODY), SIGNATURE: ""},
        {**signed(BODY), SIGNATURE: "%%%"},
        {**signed(BODY), SIGNATURE: "AAA"},
        {**signed(BODY), SIGNATURE: "Zoë"},
        {**signed(BODY), SIGNATURE: base64.b64encode(b"no DER").decode()},
        signed(BODY, key=ec.generate_private_key(ec.SECP256R1())),
    ],
)
def test_a_bad_or_missing_signature_is_false_and_never_an_exception(headers: dict[str, str]) -> None:
    assert DOOR.is_genuine(headers, BODY) is False


@pytest.mark.parametrize("changed", [BODY.strip(), BODY + b" ", BODY.replace(b"mara", b"noah"), b"", b"\xff" + BODY])
def test_a_body_changed_in_one_byte_is_not_genuine(changed: bytes) -> None:
    assert DOOR.is_genuine(signed(BODY), changed) is False


@given(st.text(), st.text(), st.binary())
def test_no_header_and_no_body_can_raise(signature: str, timestamp: str, body: bytes) -> None:
    assert DOOR.is_genuine({SIGNATURE: signature, TIMESTAMP: timestamp}, body) is False


def test_without_a_key_nothing_is_genuine() -> None:
    closed = SendGrid("SG.key")
    assert closed.is_genuine(signed(BODY), BODY) is False
    assert closed.capabilities.events is False
    assert DOOR.capabilities.events is True


@pytest.mark.parametrize(
    "key",
    [
        "",
        "%%",
        "AAAA",
        shown(ec.generate_private_key(ec.SECP384R1())),
        shown(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    ],
)
def test_a_key_of_another_kind_stops_the_start(key: str) -> None:
    with pytest.raises(ConfigurationError, match="DRIPWELL_WEBHOOK_KEY"):
        SendGrid("SG.key", webhook_public_key=key)
