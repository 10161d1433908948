"""What we keep about you: everything, in plain keys, for the person's page and for `dripwell subscribers data`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from dripwell.core.errors import NotFoundError
from dripwell.services.versions import Published, Versions
from dripwell.storage import belongings, campaigns
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


def titles(connection: Connection, versions: Versions, found: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """What the campaigns and emails in `found` are called: (campaign, "") gives a title, (campaign, email) a subject.

    Whatever has no such words stays out and goes by its name: no version can be read, or the subject has a slot in it.
    """
    rows = [row for kind in ("series", "emails", "provider_events", "clicks") for row in found[kind]]
    emails: dict[str, set[str]] = {}
    for row in rows:
        emails.setdefault(row["campaign"], set()).update([row["email"]] if "email" in row else [])
    called: dict[tuple[str, str], str] = {}
    for name, keys in emails.items():
        campaign = campaigns.by_name(connection, name)
        if campaign is None:
            continue
        published = _readable(connection, versions, campaign.version_id)
        if published is not None:
            called[name, ""] = published.campaign.title
        for key in keys:
            subject = _subject(connection, versions, campaign.id, key)
            if subject is not None:
                called[name, key] = subject
    return called


def _readable(connection: Connection, versions: Versions, version_id: int | None) -> Published | None:
    try:
        return None if version_id is None else versions.published(connection, version_id)
    except NotFoundError:  # older than this program can read
        return None


def _subject(connection: Connection, versions: Versions, campaign_id: int, key: str) -> str | None:
    try:
        subject = versions.wording(connection, campaign_id, key).email(key).subject
    except NotFoundError:  # no version has it, or none can be read
        return None
    return None if "{{" in subject or "{%" in subject else subject


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
