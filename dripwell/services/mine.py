"""What we hold about you: everything, in plain keys, for the person's page and for `dripwell subscribers data`."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from dripwell.core.errors import NotFoundError
from dripwell.storage import belongings
from dripwell.storage.database import Connection

FORMAT = 1
"""The version of the object. A name that changes its meaning, or goes, raises it."""


def everything(connection: Connection, subscriber_id: int) -> dict[str, Any]:
    """All that the record holds about this person, ready for JSON; times are ISO 8601 in UTC.

    `format`, `subscriber` and one list each: consents (with their words), requests (of forms), series (with why they
    ended), emails (with every change and its reason), provider_events (kind and time), clicks, happenings, calls,
    call_wishes, questions (whether we may go on), suppressions (under the keyed hash that outlives an erasure),
    provider_lists, notes. An empty list says that there is nothing of the kind. Raises NotFoundError for nobody, and
    for somebody who was erased.
    """
    found = belongings.of(connection, subscriber_id)
    if found is None:
        raise NotFoundError("there is nobody here any more: nothing is held about this person")
    plain: dict[str, Any] = _plain({"format": FORMAT, **found})
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
