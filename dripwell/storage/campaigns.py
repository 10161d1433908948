"""Campaigns, their immutable versions, links and approvals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign's state in the record; what it does is in its version."""

    id: int
    public_id: UUID
    name: str
    kind: str
    state: str
    topic: str
    version_id: int | None


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One immutable version: the exact files it was applied from."""

    id: int
    campaign_id: int
    number: int
    sources: Mapping[str, str]
    structure_hash: str
    content_hash: str
    applied_by: str
    applied_at: datetime


_CAMPAIGN = "id, public_id, name, kind, state, topic, version_id"


def by_name(connection: Connection, name: str, *, lock: bool = False) -> CampaignRow | None:
    """Find a campaign by its folder's name; `lock` keeps others from changing it until this transaction ends."""
    tail = " FOR UPDATE" if lock else ""
    row = connection.execute(text(f"SELECT {_CAMPAIGN} FROM campaign WHERE name = :name{tail}"), {"name": name}).first()
    return CampaignRow(**row._mapping) if row else None


def by_id(connection: Connection, campaign_id: int) -> CampaignRow:
    """Find a campaign by id."""
    row = connection.execute(text(f"SELECT {_CAMPAIGN} FROM campaign WHERE id = :id"), {"id": campaign_id}).one()
    return CampaignRow(**row._mapping)


def all_of_kind(connection: Connection, kinds: Sequence[str]) -> list[CampaignRow]:
    """Every campaign of these kinds, by name."""
    rows = connection.execute(
        text(f"SELECT {_CAMPAIGN} FROM campaign WHERE kind = ANY (:kinds) ORDER BY name"), {"kinds": list(kinds)}
    )
    return [CampaignRow(**row._mapping) for row in rows]


def add(connection: Connection, *, public_id: UUID, name: str, kind: str, state: str, topic: str) -> CampaignRow:
    """Add a campaign, or return the one of that name."""
    connection.execute(
        text(
            "INSERT INTO campaign (public_id, name, kind, state, topic) VALUES (:public_id, :name, :kind, :state, :topic)"
            " ON CONFLICT (name) DO NOTHING"
        ),
        {"public_id": public_id, "name": name, "kind": kind, "state": state, "topic": topic},
    )
    row = by_name(connection, name, lock=True)
    assert row is not None
    return row


def set_state(connection: Connection, campaign_id: int, before: Sequence[str], after: str) -> bool:
    """Move the campaign's state; False when it was none of `before`."""
    changed = connection.execute(
        text("UPDATE campaign SET state = :after WHERE id = :id AND state = ANY (:before)"),
        {"id": campaign_id, "before": list(before), "after": after},
    )
    return changed.rowcount == 1


def add_version(
    connection: Connection,
    *,
    campaign_id: int,
    number: int,
    sources: Mapping[str, str],
    structure_hash: str,
    content_hash: str,
    applied_by: str,
    links: Mapping[str, Sequence[str]],
    topic: str,
) -> int:
    """Store an immutable version with its click links and make it the campaign's newest."""
    version_id: int = connection.execute(
        text(
            "INSERT INTO campaign_version (campaign_id, number, definition, structure_hash, content_hash, applied_by)"
            " VALUES (:campaign, :number, CAST(:definition AS jsonb), :structure, :content, :by) RETURNING id"
        ),
        {
            "campaign": campaign_id,
            "number": number,
            "definition": json.dumps(dict(sources)),
            "structure": structure_hash,
            "content": content_hash,
            "by": applied_by,
        },
    ).scalar_one()
    rows = [
        {"version": version_id, "key": key, "number": number, "target": target}
        for key, targets in links.items()
        for number, target in enumerate(targets)
    ]
    if rows:
        connection.execute(
            text("INSERT INTO link (version_id, step_key, number, target) VALUES (:version, :key, :number, :target)"),
            rows,
        )
    connection.execute(
        text("UPDATE campaign SET version_id = :version, topic = :topic WHERE id = :campaign"),
        {"version": version_id, "campaign": campaign_id, "topic": topic},
    )
    return version_id


_VERSION = "id, campaign_id, number, definition AS sources, structure_hash, content_hash, applied_by, applied_at"


def version(connection: Connection, version_id: int) -> VersionRow:
    """Find a version by id."""
    row = connection.execute(text(f"SELECT {_VERSION} FROM campaign_version WHERE id = :id"), {"id": version_id}).one()
    return VersionRow(**row._mapping)


def version_ids(connection: Connection, campaign_id: int) -> list[int]:
    """The ids of a campaign's versions, newest first."""
    rows = connection.execute(
        text("SELECT id FROM campaign_version WHERE campaign_id = :id ORDER BY number DESC"), {"id": campaign_id}
    )
    return [row.id for row in rows]


def approve(connection: Connection, *, campaign_id: int, version_id: int, content_hash: str, approved_by: str) -> None:
    """Record that a person approved this version's exact content."""
    connection.execute(
        text(
            "INSERT INTO approval (campaign_id, version_id, content_hash, approved_by)"
            " VALUES (:campaign, :version, :content, :by)"
        ),
        {"campaign": campaign_id, "version": version_id, "content": content_hash, "by": approved_by},
    )


def approved_by(connection: Connection, campaign_id: int, content_hash: str) -> list[str]:
    """Who approved exactly this content."""
    rows = connection.execute(
        text("SELECT DISTINCT approved_by FROM approval WHERE campaign_id = :id AND content_hash = :hash ORDER BY 1"),
        {"id": campaign_id, "hash": content_hash},
    )
    return [row.approved_by for row in rows]


def add_activity(connection: Connection, *, actor: str, action: str, about: str, detail: Mapping[str, Any]) -> None:
    """Write one line of who did what; the table cannot be edited."""
    connection.execute(
        text(
            "INSERT INTO activity (actor, action, about, detail) VALUES (:actor, :action, :about, CAST(:detail AS jsonb))"
        ),
        {"actor": actor, "action": action, "about": about, "detail": json.dumps(dict(detail), default=str)},
    )


def ring(connection: Connection, queue: str) -> None:
    """Ring this queue's bell when, and only when, this transaction commits."""
    connection.execute(text("SELECT pg_notify('dripwell', :queue)"), {"queue": queue})
