"""Keys of the API: made, shown once, checked at every request, revoked at once."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from dripwell.core.errors import NotFoundError, RefusedError
from dripwell.storage import api_keys, campaigns
from dripwell.storage.api_keys import KeyRow, Use
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection

SCOPES = {
    "subscribers:read": "look up one subscriber by address",
    "subscribers:write": "add subscribers and amend them",
    "events:write": "tell what happened to a subscriber",
    "enroll": "let a subscriber into a campaign",
    "report:read": "read a campaign's numbers",
}
"""What a key may be allowed to do."""
PER_MINUTE = 600
"""Requests a key may make a minute when nothing else is said."""
_SHOWN = 9
"""Characters of a key that are kept and shown, `dw_` and six: enough to tell keys apart, of 43 random ones."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: the key in force, and how much of its minute is used."""

    key_id: int
    name: str
    scopes: frozenset[str]
    per_minute: int
    use: Use

    @property
    def actor(self) -> str:
        """How the activity names whoever did something with this key."""
        return f"key {self.name}"


def state(key: KeyRow, wall_now: datetime) -> str:
    """`in force`, `expired` or `revoked`."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= wall_now else "in force"


def add(
    connection: Connection,
    *,
    name: str,
    scopes: Sequence[str],
    secret: str,
    times: Times,
    actor: str,
    lasts: timedelta | None = None,
    per_minute: int = PER_MINUTE,
) -> datetime | None:
    """Put a new key in force: `secret` is all of it, 256 random bits after `dw_`. Returns when it expires.

    Only its SHA-256 is kept: nobody can guess 256 random bits, so a slow hash would add nothing. Raises RefusedError
    when a key of that name is in force.
    """
    expires_at = times.wall_now + lasts if lasts is not None else None
    new = api_keys.add(
        connection,
        name=name,
        prefix=secret[:_SHOWN],
        secret_hash=_hash(secret),
        scopes=sorted(set(scopes)),
        per_minute=per_minute,
        made_by=actor,
        expires_at=expires_at,
    )
    if new is None:
        raise RefusedError(f"there is a key named {name} already: choose another name, or dripwell keys revoke {name}")
    detail = {"key": secret[:_SHOWN], "scopes": sorted(set(scopes)), "expires_at": expires_at, "per_minute": per_minute}
    campaigns.add_activity(connection, actor=actor, action="key added", about=name, detail=detail)
    return expires_at


def revoke(connection: Connection, name: str, *, actor: str) -> None:
    """Put a key out of force, from the next request on. Raises NotFoundError when no such key is in force."""
    if not api_keys.revoke(connection, name):
        raise NotFoundError(f"no key named {name} is in force: dripwell keys list")
    campaigns.add_activity(connection, actor=actor, action="key revoked", about=name, detail={})


def admit(connection: Connection, given: str, times: Times) -> Caller | None:
    """Check a key and count this request against its minute; None: no such key is in force.

    The caller compares `use.used` with `per_minute`. Commit at once: requests of one key wait for each other here.
    """
    hashed = _hash(given)
    key = api_keys.by_hash(connection, hashed)
    if key is None or not hmac.compare_digest(key.secret_hash, hashed) or state(key, times.wall_now) != "in force":
        return None
    today: date = times.wall_now.date()
    if key.last_used != today:
        api_keys.used_today(connection, key.id)
    use = api_keys.count_use(connection, key.id, key.per_minute)
    return Caller(key.id, key.name, frozenset(key.scopes), key.per_minute, use)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
