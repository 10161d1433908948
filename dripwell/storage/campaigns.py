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


# by_name, lock_by_name: the campaign of that folder, and the same held until the transaction ends. A planner that adds
# messages must not wait for it (their foreign key takes KEY SHARE): it holds enrollments that `stop` waits for.
_BY_NAME = text("""
SELECT id, public_id, name, kind, state, topic, version_id
  FROM campaign
 WHERE name = :name
""")
_LOCK_BY_NAME = text("""
SELECT id, public_id, name, kind, state, topic, version_id
  FROM campaign
 WHERE name = :name
   FOR NO KEY UPDATE
""")


def by_name(connection: Connection, name: str, *, lock: bool = False) -> CampaignRow | None:
    """Find a campaign by its folder's name; `lock` keeps others from changing it until this transaction ends."""
    row = connection.execute(_LOCK_BY_NAME if lock else _BY_NAME, {"name": name}).first()
    return None if row is None else CampaignRow(**row._mapping)


# by_id: one that is known to exist.
_BY_ID = text("""
SELECT id, public_id, name, kind, state, topic, version_id
  FROM campaign
 WHERE id = :id
""")


def by_id(connection: Connection, campaign_id: int) -> CampaignRow:
    """Find a campaign by id."""
    return CampaignRow(**connection.execute(_BY_ID, {"id": campaign_id}).one()._mapping)


# all_of_kind: in whatever state.
_ALL_OF_KIND = text("""
SELECT id, public_id, name, kind, state, topic, version_id
  FROM campaign
 WHERE kind = ANY(:kinds)
 ORDER BY name
""")


def all_of_kind(connection: Connection, kinds: Sequence[str]) -> list[CampaignRow]:
    """Every campaign of these kinds, by name."""
    return [CampaignRow(**row._mapping) for row in connection.execute(_ALL_OF_KIND, {"kinds": list(kinds)})]


# add: a name is taken once.
_ADD = text("""
INSERT INTO campaign (public_id, name, kind, state, topic)
VALUES (:public_id, :name, :kind, :state, :topic)
    ON CONFLICT (name) DO NOTHING
""")


def add(connection: Connection, *, public_id: UUID, name: str, kind: str, state: str, topic: str) -> CampaignRow:
    """Add a campaign, or return the one of that name; locked either way."""
    values = {"public_id": public_id, "name": name, "kind": kind, "state": state, "topic": topic}
    connection.execute(_ADD, values)
    row = by_name(connection, name, lock=True)
    assert row is not None
    return row


# set_state: only from one of the states the caller has in mind.
_SET_STATE = text("""
UPDATE campaign SET state = :after
 WHERE id = :id AND state = ANY(:before)
""")


def set_state(connection: Connection, campaign_id: int, before: Sequence[str], after: str) -> bool:
    """Move the campaign's state; False when it was none of `before`."""
    values = {"id": campaign_id, "before": list(before), "after": after}
    return connection.execute(_SET_STATE, values).rowcount == 1


# add_version: the files as they are now.
_ADD_VERSION = text("""
INSERT INTO campaign_version (campaign_id, number, definition, structure_hash, content_hash, applied_by)
VALUES (:campaign_id, :number, CAST(:definition AS jsonb), :structure_hash, :content_hash, :applied_by)
RETURNING id
""")

# add_link: where a click on link `number` of this email leads.
_ADD_LINK = text("""
INSERT INTO link (version_id, step_key, number, target)
VALUES (:version_id, :step_key, :number, :target)
""")

# make_newest: who joins from now on gets this version.
_MAKE_NEWEST = text("UPDATE campaign SET version_id = :version_id, topic = :topic WHERE id = :campaign_id")


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
    values = {
        "campaign_id": campaign_id,
        "number": number,
        "definition": json.dumps(dict(sources)),
        "structure_hash": structure_hash,
        "content_hash": content_hash,
        "applied_by": applied_by,
    }
    version_id: int = connection.execute(_ADD_VERSION, values).scalar_one()
    rows = [
        {"version_id": version_id, "step_key": step_key, "number": place, "target": target}
        for step_key, targets in links.items()
        for place, target in enumerate(targets)
    ]
    if rows:
        connection.execute(_ADD_LINK, rows)
    connection.execute(_MAKE_NEWEST, {"version_id": version_id, "topic": topic, "campaign_id": campaign_id})
    return version_id


# version: its definition is the files.
_VERSION = text("""
SELECT id, campaign_id, number, definition AS sources, structure_hash, content_hash, applied_by, applied_at
  FROM campaign_version
 WHERE id = :id
""")


def version(connection: Connection, version_id: int) -> VersionRow:
    """Find a version by id."""
    return VersionRow(**connection.execute(_VERSION, {"id": version_id}).one()._mapping)


# version_ids: newest first.
_VERSION_IDS = text("""
SELECT id
  FROM campaign_version
 WHERE campaign_id = :campaign_id
 ORDER BY number DESC
""")


def version_ids(connection: Connection, campaign_id: int) -> list[int]:
    """The ids of a campaign's versions, newest first."""
    return list(connection.execute(_VERSION_IDS, {"campaign_id": campaign_id}).scalars())


# approve: one more row; the table cannot be edited.
_APPROVE = text("""
INSERT INTO approval (campaign_id, version_id, content_hash, approved_by)
VALUES (:campaign_id, :version_id, :content_hash, :approved_by)
""")


def approve(connection: Connection, *, campaign_id: int, version_id: int, content_hash: str, approved_by: str) -> None:
    """Record that a person approved this version's exact content."""
    values = {
        "campaign_id": campaign_id,
        "version_id": version_id,
        "content_hash": content_hash,
        "approved_by": approved_by,
    }
    connection.execute(_APPROVE, values)


# approved_by: by content and not by version, for the same words need no second approval.
_APPROVED_BY = text("""
SELECT DISTINCT approved_by
  FROM approval
 WHERE campaign_id = :campaign_id AND content_hash = :content_hash
 ORDER BY approved_by
""")


def approved_by(connection: Connection, campaign_id: int, content_hash: str) -> list[str]:
    """Who approved exactly this content."""
    values = {"campaign_id": campaign_id, "content_hash": content_hash}
    return list(connection.execute(_APPROVED_BY, values).scalars())


# add_activity: one more line.
_ADD_ACTIVITY = text("""
INSERT INTO activity (actor, action, about, detail)
VALUES (:actor, :action, :about, CAST(:detail AS jsonb))
""")


def add_activity(connection: Connection, *, actor: str, action: str, about: str, detail: Mapping[str, Any]) -> None:
    """Write one line of who did what; the table cannot be edited."""
    values = {"actor": actor, "action": action, "about": about, "detail": json.dumps(dict(detail), default=str)}
    connection.execute(_ADD_ACTIVITY, values)


# ring: PostgreSQL delivers a notification at commit, and drops it with a rollback.
_RING = text("SELECT pg_notify('dripwell', :queue)")


def ring(connection: Connection, queue: str) -> None:
    """Ring this queue's bell when, and only when, this transaction commits."""
    connection.execute(_RING, {"queue": queue})
