"""The provider's webhook events, in the shapes of rules 2.1-2.5."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dripwell.sandbox.behavior import Course, Happening, Kind
from dripwell.sandbox.ledger import message_id

NAMES: Mapping[Kind, str] = {
    "blocked": "bounce",
    "asyncbounce": "bounce",
    "invalid": "dropped",
}  # the rest is called as its kind

_DETAILS: Mapping[Kind, Mapping[str, Any]] = {
    "processed": {},
    "delivered": {"response": "250 2.0.0 OK", "ip": "192.0.2.25", "tls": 1},
    "deferred": {"response": "451 4.7.1 Try again later", "attempt": "1", "ip": "192.0.2.25", "tls": 1},
    "bounce": {
        "type": "bounce",
        "bounce_classification": "Invalid Address",
        "status": "5.1.1",
        "reason": "550 5.1.1 The email account that you tried to reach does not exist.",
        "ip": "192.0.2.25",
        "tls": 1,
    },
    "blocked": {
        "type": "blocked",
        "bounce_classification": "Mailbox Unavailable",
        "status": "4.2.2",
        "reason": "452 4.2.2 The email account that you tried to reach is over quota.",
        "ip": "192.0.2.25",
        "tls": 1,
    },
    "dropped": {"reason": "Bounced Address", "status": "5.0.0"},
    "invalid": {"reason": "Invalid", "status": "5.0.0"},
    "asyncbounce": {
        "type": "bounce",
        "bounce_classification": "Invalid Address",
        "status": "5.1.1",
        "reason": "550 5.1.1 User unknown (reported after delivery)",
    },
    "spamreport": {},
    "unsubscribe": {},
}


@dataclass(frozen=True, slots=True)
class Addressee:
    """What the events of one mail have in common."""

    address: str
    at: float  # when it was accepted
    provider_id: str
    index: int
    args: Mapping[str, str]
    categories: tuple[str, ...]


def event(to: Addressee, happening: Happening, number: int, *, copy: int = 0, odd: bool = False) -> dict[str, Any]:
    """The `number`-th event of one mail. `copy` > 0 is a repetition under a new id; `odd` takes the rarer variant of
    every field that has two: category as text, attempt as a number, timestamp as text."""
    at = int(to.at + happening.after)
    made: dict[str, Any] = {
        "email": to.address,
        "timestamp": str(at) if odd else at,
        "event": NAMES.get(happening.kind, happening.kind),
        "sg_event_id": event_id(to.provider_id, to.index, number, copy),
        **_DETAILS[happening.kind],
    }
    if happening.why:
        made["reason"] = happening.why
    if odd and "attempt" in made:
        made["attempt"] = int(made["attempt"])
    if happening.kind == "asyncbounce":
        return made
    made["sg_message_id"] = message_id(to.provider_id, to.index)
    made["smtp-id"] = f"<{to.provider_id}@geopod-ismtpd-1>"
    if to.categories:
        made["category"] = to.categories[0] if odd else list(to.categories)
    return {**made, **to.args}  # equal names overwrite the event's own, as with the provider (rules 1.3)


def log_event(to: Addressee, happening: Happening, number: int) -> dict[str, Any]:
    """The same event as the Email Logs API shows it: custom args apart."""
    made = event(Addressee(to.address, to.at, to.provider_id, to.index, {}, to.categories), happening, number)
    if happening.kind == "asyncbounce":
        made["sg_message_id"] = message_id(to.provider_id, to.index)
    if happening.kind == "unsubscribe":
        made["date"] = datetime.fromtimestamp(made["timestamp"], UTC).date().isoformat()
    return {**made, "custom_args": dict(to.args)}


def event_id(provider_id: str, index: int, number: int, copy: int) -> str:
    """The same event has the same id whenever it is posted; a copy has its own."""
    mark = hashlib.sha256(f"{provider_id}.{index}.{number}.{copy}".encode()).digest()[:16]
    return urlsafe_b64encode(mark).decode().rstrip("=")


def webhook_events(
    to: Addressee, course: Course, add: Callable[[float, dict[str, Any]], None], *, copies: int, odd: bool
) -> None:
    """Hand every event the webhook hears about one mail to `add`, with the seconds it waits after acceptance."""
    for number, happening in enumerate(course.happenings):
        for copy in range(course.copies * copies):
            wait = course.waits[number] if course.waits else 0.0
            add(happening.after + wait, event(to, happening, number, copy=copy, odd=odd))
