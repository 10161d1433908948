"""SendGrid's event webhook: is it theirs, and what does it say in our words.

Everything in an event may be written by a stranger (rules 2.9) and takes several shapes (rules 2.5), so every function
here is total: a value that cannot be used counts as absent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from dripwell.core.errors import ConfigurationError
from dripwell.delivery.provider import ProviderEvent

SIGNATURE_HEADER = "x-twilio-email-event-webhook-signature"
TIMESTAMP_HEADER = "x-twilio-email-event-webhook-timestamp"

NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)  # an event without a usable time still counts: a complaint is a complaint

# Theirs -> ours. `open` and `click` are off in every request and polluted (rules 7.1, 7.2); a resubscribe lifts nothing
# (rules 2.1). They stay `unknown`, which still proves that the provider took the message.
KINDS: Mapping[str, str] = {
    "processed": "processed",
    "delivered": "delivered",
    "deferred": "deferred",
    "bounce": "bounced",
    "blocked": "bounced",
    "dropped": "dropped",
    "cancel_drop": "dropped",
    "spamreport": "complained",
    "unsubscribe": "unsubscribed",
    "group_unsubscribe": "unsubscribed",
    "account_status_change": "account",
}

MOST_EVENTS = 50_000
"""A body of 5 MB has room for fewer: the smallest real event is over 100 bytes."""
_LONGEST_TEXT = 1_000
_MOST_ITEMS = 60
_DEEPEST = 2
_LARGEST_ID = 2**63 - 1
_UNSTORABLE = re.compile(r"[\0\ud800-\udfff]")  # PostgreSQL takes neither NUL nor half a surrogate pair
_MARKS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)  # strings as a whole, and what nests
# 5.1.7 and 5.1.8 (RFC 3463) blame the sender's address, so they are no reason to drop the person.
_BAD_ADDRESS = re.compile(r"5\.1\.(?![78]\b)\d{1,3}\b")
_BAD_ADDRESS_REPLY = re.compile(r"\s*550[ -]#?5\.1\.(?![78]\b)\d{1,3}\b")


def public_key(text: str) -> ec.EllipticCurvePublicKey:
    """Read the key the provider shows: base64 of a DER P-256 public key. Raises ConfigurationError."""
    try:
        key = load_der_public_key(base64.b64decode("".join(text.split()), validate=True))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError("DRIPWELL_WEBHOOK_KEY is not the base64 of a public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigurationError("DRIPWELL_WEBHOOK_KEY is a public key, but not one of ECDSA P-256")
    return key


def is_genuine(key: ec.EllipticCurvePublicKey, headers: Mapping[str, str], body: bytes) -> bool:
    """Check ECDSA P-256 with SHA-256 over timestamp + raw body. No age limit: retries go on for 24 h (rules 2.10)."""
    given = {name.lower(): value for name, value in headers.items()}
    signature, timestamp = given.get(SIGNATURE_HEADER), given.get(TIMESTAMP_HEADER)
    if not signature or not timestamp or not timestamp.isascii():
        return False
    try:
        key.verify(base64.b64decode(signature, validate=True), timestamp.encode() + body, ec.ECDSA(SHA256()))
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True


def parse(body: bytes) -> list[ProviderEvent]:
    """Translate to our words, one event for each element.

    Raises ValueError when the body is not a JSON array, or has more elements than the provider could put into one.
    """
    try:
        elements = _loads(body)
    except RecursionError:
        elements = _one_by_one(body)
    if not isinstance(elements, list):
        raise ValueError("the body is not a JSON array")
    if len(elements) > MOST_EVENTS:
        raise ValueError(f"the body is an array of more than {MOST_EVENTS:,} elements")
    return [_event(element) for element in elements]


def _loads(text: str | bytes) -> Any:
    return json.loads(text, parse_int=_integer, parse_constant=str)


def _one_by_one(body: bytes) -> list[Any]:
    """The elements of an array of which one is nested too deeply to be read: that one becomes words about it."""
    text = body.decode(json.detect_encoding(body))
    found: list[Any] = []
    depth, began = 0, 0
    for mark in _MARKS.finditer(text):
        if mark[0] in "[{":
            depth += 1
            began = mark.end() if depth == 1 else began
        elif mark[0] in "]}":
            depth -= 1
        if depth == 0 or (depth == 1 and mark[0] == ","):
            found.append(_alone(text[began : mark.start()]))
            began = mark.end()
        if depth == 0:
            break
    if depth > 0 or not text.lstrip().startswith("[") or text[began:].strip():
        raise ValueError("the body is nested too deeply, and no JSON array")
    return found


def _alone(text: str) -> Any:
    try:
        return _loads(text)
    except RecursionError:
        digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
        return f"nested too deeply to be read; SHA-256 {digest}"


def _event(element: Any) -> ProviderEvent:
    if not isinstance(element, dict):
        detail = {"raw": _capped(element)}
        return ProviderEvent(kind="unknown", at=NO_TIME, dedupe=_hash(detail), detail=detail)
    name = _text(element.get("event"))
    kind = KINDS.get(name, "unknown")
    reason = _text(element.get("reason")) or _text(element.get("response"))
    message = _message(_argument(element, "dw_m"))
    address = _text(element.get("email"), 320).strip() or None
    at = _time(element.get("timestamp"))
    detail = {_text(key, 100): _capped(value) for key, value in list(element.items())[:_MOST_ITEMS]}
    about = message.hex if message else _text(element.get("sg_message_id")).partition(".")[0] or (address or "").lower()
    if kind == "unknown" and not about:
        about = _hash(detail)  # nothing tells it from others but what it says
    happened = _whole_text(element.get("timestamp")) if at == NO_TIME else int(at.timestamp())
    link_or_reason = _whole_text(element.get("url")) or _whole_text(element.get("reason") or element.get("response"))
    if kind == "account" and not reason:
        reason = _text(element.get("type"))
    return ProviderEvent(
        kind=kind,
        at=at,
        dedupe=_hash([about, name, _text(element.get("type")), happened, link_or_reason]),
        message=message,
        batch=_batch(_argument(element, "dw_b")),
        address=address,
        hard=kind == "bounced" and _is_bad_address(element),
        reason=_one_line(reason),
        event_id=_text(element.get("sg_event_id")),
        detail=detail,
    )


def _is_bad_address(element: Mapping[str, Any]) -> bool:
    # `blocked` means this message was not taken, not that the address is bad (rules 2.6).
    if element.get("event") == "blocked" or element.get("type") == "blocked":
        return False
    classification = _text(element.get("bounce_classification")).strip()
    if classification:
        return classification == "Invalid Address"
    status, reason = _text(element.get("status")), _text(element.get("reason"))
    return bool(_BAD_ADDRESS.match(status.strip()) or _BAD_ADDRESS_REPLY.match(reason))


def _argument(element: Mapping[str, Any], name: str) -> Any:
    """Custom args stand beside the provider's own keys; its older forms and its logs nest them."""
    if name in element:
        return element[name]
    for nest in ("custom_args", "unique_args"):
        inner = element.get(nest)
        if isinstance(inner, dict) and name in inner:
            return inner[name]
    return None


def _message(value: Any) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _batch(value: Any) -> int | None:
    text = _text(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else 0
    return number if 0 < number <= _LARGEST_ID else None


def _time(value: Any) -> datetime:
    """Read Unix seconds, as a number or as text."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0) if seconds > 0 else NO_TIME
    except (ValueError, OverflowError, OSError):
        return NO_TIME


def _integer(digits: str) -> int | str:
    """A number too long for any column stays text: `int()` itself refuses thousands of digits, with the whole body."""
    return int(digits) if len(digits) <= 19 else digits


def _whole_text(value: Any) -> str:
    """Return text as it is and a number as text; anything else counts as absent."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _text(value: Any, limit: int = _LONGEST_TEXT) -> str:
    return _whole_text(value)[:limit]


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _capped(value: Any, depth: int = 0) -> Any:
    """Return the JSON value with every text, list, object and depth bounded, and fit to be stored as jsonb."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return _text(value)
    if depth >= _DEEPEST:
        return "…"
    if isinstance(value, list):
        return [_capped(item, depth + 1) for item in value[:_MOST_ITEMS]]
    return {_text(key, 100): _capped(item, depth + 1) for key, item in list(value.items())[:_MOST_ITEMS]}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
