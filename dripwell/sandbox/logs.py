"""The Email Logs API over the ledger: `POST /v3/logs` and `GET /v3/logs/{sg_message_id}`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dripwell.sandbox.behavior import Happening
from dripwell.sandbox.events import Addressee, log_event
from dripwell.sandbox.ledger import Call, Ledger, message_id
from dripwell.sandbox.listing import course_of

_CONDITION = re.compile(
    r"\s*(?P<field>[a-z_]+)\s*(?:(?P<operator>>=|<=|=|>|<)\s*(?:TIMESTAMP\s*)?(?P<value>'[^']*'|\"[^\"]*\")"
    r"|(?P<in>IN)\s*\((?P<list>[^)]*)\))\s*",
    re.IGNORECASE,
)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: bool(left == right),
    ">": lambda left, right: bool(left > right),
    "<": lambda left, right: bool(left < right),
    ">=": lambda left, right: bool(left >= right),
    "<=": lambda left, right: bool(left <= right),
}
_EQUAL = frozenset(("sg_message_id", "subject", "to_email", "reason"))
_LISTED = frozenset(("status", "categories"))
_STATUSES = {
    "processed": "processed",
    "deferred": "deferred",
    "dropped": "dropped",
    "invalid": "dropped",
    "bounce": "bounced",
    "asyncbounce": "bounced",
    "blocked": "blocked",
    "delivered": "delivered",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a query; `values` has one entry unless the operator is IN."""

    field: str
    operator: str
    values: tuple[str, ...]


def parse(query: str) -> list[Condition]:
    """Conditions joined by AND. Raises ValueError naming what the query language does not have."""
    conditions: list[Condition] = []
    position = 0
    while query[position:].strip():
        if conditions:
            joint = re.compile(r"\s*AND\b", re.IGNORECASE).match(query, position)
            if joint is None:
                raise ValueError(f"expected AND at {query[position : position + 20]!r}")
            position = joint.end()
        match = _CONDITION.match(query, position)
        if match is None:
            raise ValueError(f"expected a condition at {query[position : position + 20]!r}")
        conditions.append(_condition(match))
        position = match.end()
    return conditions


def _condition(match: re.Match[str]) -> Condition:
    field = match["field"].lower()
    if match["in"]:
        values = tuple(first or second for first, second in re.findall(r"'([^']*)'|\"([^\"]*)\"", match["list"]))
        if field not in _LISTED or not values:
            raise ValueError(f"{field} cannot be searched with IN")
        return Condition(field, "IN", values)
    operator, value = match["operator"], match["value"][1:-1]
    if field == "sg_message_id_created_at" and operator != "=":
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(f"{value} has no time zone")
    elif field not in _EQUAL or operator != "=":
        raise ValueError(f"{field} cannot be searched with {operator}")
    return Condition(field, operator, (value,))


def search(ledger: Ledger, query: str, limit: int, now: float, late: float) -> list[dict[str, Any]]:
    """The newest mails that meet every condition. Raises ValueError for a query it cannot read."""
    conditions = parse(query)
    found: list[dict[str, Any]] = []
    for mail_id in _candidates(ledger, conditions):
        place = ledger.find(mail_id)
        if place is not None and _meets(ledger, place, conditions, now, late):
            found.append(_summary(ledger, place, now, late))
            if len(found) == limit:
                break
    return found


def detail(ledger: Ledger, wanted: str, now: float, late: float) -> dict[str, Any] | None:
    """Everything about one mail; None when there is no such `sg_message_id`."""
    place = find(ledger, wanted)
    if place is None:
        return None
    call, index = place
    body = ledger.body(call)
    row = call.rows[index]
    args = {**(body.get("custom_args") or {}), **(body["personalizations"][row].get("custom_args") or {})}
    to = Addressee(call.addresses[index], call.at, call.provider_id, index, args, tuple(body.get("categories") or ()))
    fate = course_of(call, index, late)
    events = [
        log_event(to, happening, number)
        for number, happening in enumerate(fate.happenings)
        if call.at + happening.after <= now
    ]
    summary = _summary(ledger, place, now, late)
    return {
        **{key: summary[key] for key in ("from_email", "sg_message_id", "subject", "to_email", "status")},
        "api_key_id": "sandbox",
        "client_ip": "127.0.0.1",
        "outbound_ip": "192.0.2.25",
        "outbound_ip_type": "shared",
        "category": list(to.categories),
        "custom_args": args,
        "unique_args": args,  # the older name of the same
        "events": events[::-1],
    }


def find(ledger: Ledger, wanted: str) -> tuple[Call, int] | None:
    """The mail with this `sg_message_id`."""
    call = ledger.find_by_provider_id(wanted.partition(".")[0])
    index = wanted.rpartition(".")[2]
    if call is None or not index.isdecimal() or int(index) >= len(call.addresses):
        return None
    return (call, int(index)) if message_id(call.provider_id, int(index)) == wanted else None


def so_far(call: Call, index: int, now: float, late: float) -> list[Happening]:
    """What has happened to a mail until now."""
    fate = course_of(call, index, late)
    return [happening for happening in fate.happenings if call.at + happening.after <= now]


def status(call: Call, index: int, now: float, late: float) -> str:
    """The log's word for where a mail is: processed, delivered, deferred, dropped, bounced or blocked."""
    words = [_STATUSES[each.kind] for each in so_far(call, index, now, late) if each.kind in _STATUSES]
    return words[-1] if words else "processed"


def stamp(at: float) -> str:
    """A time as the API writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _candidates(ledger: Ledger, conditions: list[Condition]) -> Iterator[int]:
    for condition in conditions:
        if condition.field == "to_email":
            return reversed(ledger.ids_to(condition.values[0]))
        if condition.field == "sg_message_id":
            place = find(ledger, condition.values[0])
            return iter([place[0].first + place[1]] if place else [])
    return iter(range(ledger.accepted, 0, -1))


def _meets(ledger: Ledger, place: tuple[Call, int], conditions: list[Condition], now: float, late: float) -> bool:
    call, index = place
    for condition in conditions:
        value = condition.values[0]
        if condition.field == "sg_message_id_created_at":
            is_met = _OPERATORS[condition.operator](call.at, datetime.fromisoformat(value).timestamp())
        elif condition.field == "to_email":
            is_met = call.addresses[index].lower() == value.lower()
        elif condition.field == "sg_message_id":
            is_met = message_id(call.provider_id, index) == value
        elif condition.field == "subject":
            is_met = call.subjects[index] == value
        elif condition.field == "status":
            is_met = status(call, index, now, late) in condition.values
        elif condition.field == "reason":
            is_met = _reason(call, index, now, late) == value
        else:
            is_met = not set(condition.values).isdisjoint(ledger.body(call).get("categories") or ())
        if not is_met:
            return False
    return True


def _summary(ledger: Ledger, place: tuple[Call, int], now: float, late: float) -> dict[str, Any]:
    call, index = place
    body = ledger.body(call)
    sender = body["personalizations"][call.rows[index]].get("from") or body["from"]
    summary = {
        "from_email": sender["email"],
        "sg_message_id": message_id(call.provider_id, index),
        "subject": call.subjects[index],
        "to_email": call.addresses[index],
        "status": status(call, index, now, late),
        "sg_message_id_created_at": stamp(call.at),
    }
    reason = _reason(call, index, now, late)
    return {**summary, "reason": reason} if reason else summary


def _reason(call: Call, index: int, now: float, late: float) -> str:
    happenings = so_far(call, index, now, late)
    to = Addressee(call.addresses[index], call.at, call.provider_id, index, {}, ())
    if not happenings:
        return ""
    made = log_event(to, happenings[-1], 0)
    return str(made.get("reason") or made.get("response") or "")
