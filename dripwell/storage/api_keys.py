"""Keys of the API: what is known of each, how much of its minute it has used, and what was answered under it before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dripwell.core.errors import UnavailableError
from dripwell.storage.database import Connection

ANSWERS_KEPT = "24 hours"
"""How long the same Idempotency-Key gives the same answer."""
_LOCK_NOT_AVAILABLE = "55P03"


class KeyRow(NamedTuple):
    """A key as it is kept: never the secret. `last_used` is a UTC day; the other times are wall time."""

    id: int
    name: str
    prefix: str
    secret_hash: bytes
    scopes: tuple[str, ...]
    per_minute: int
    made_by: str
    made_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used: Any


# add: of the keys in force, names are unique.
_ADD = text("""
INSERT INTO api_key (name, prefix, secret_hash, scopes, per_minute, made_by, expires_at)
VALUES (:name, :prefix, :secret_hash, :scopes, :per_minute, :made_by, :expires_at)
    ON CONFLICT DO NOTHING
RETURNING id
""")


def add(
    connection: Connection,
    *,
    name: str,
    prefix: str,
    secret_hash: bytes,
    scopes: Sequence[str],
    per_minute: int,
    made_by: str,
    expires_at: datetime | None,
) -> int | None:
    """Keep a key; None: there is one of that name already."""
    values = {
        "name": name,
        "prefix": prefix,
        "secret_hash": secret_hash,
        "scopes": list(scopes),
        "per_minute": per_minute,
        "made_by": made_by,
        "expires_at": expires_at,
    }
    found: int | None = connection.execute(_ADD, values).scalar()
    return found


# by_hash: whichever key has this secret, in force or not.
_BY_HASH = text("""
SELECT id, name, prefix, secret_hash, scopes, per_minute, made_by, made_at, expires_at, revoked_at, last_used
  FROM api_key
 WHERE secret_hash = :secret_hash
""")


def by_hash(connection: Connection, secret_hash: bytes) -> KeyRow | None:
    """The key with this hash, whether or not it is still in force."""
    row = connection.execute(_BY_HASH, {"secret_hash": secret_hash}).first()
    return None if row is None else _key(row)


# every: those in force first.
_EVERY = text("""
SELECT id, name, prefix, secret_hash, scopes, per_minute, made_by, made_at, expires_at, revoked_at, last_used
  FROM api_key
 ORDER BY revoked_at IS NOT NULL, name, id
""")


def every(connection: Connection) -> list[KeyRow]:
    """All keys that ever were."""
    return [_key(row) for row in connection.execute(_EVERY)]


def _key(row: Any) -> KeyRow:
    return KeyRow(**{**row._mapping, "secret_hash": bytes(row.secret_hash), "scopes": tuple(row.scopes)})


# revoke: at once, since each request reads the row.
_REVOKE = text("UPDATE api_key SET revoked_at = wall() WHERE name = :name AND revoked_at IS NULL")


def revoke(connection: Connection, name: str) -> bool:
    """Put a key out of force; False: no key of that name is in force."""
    return connection.execute(_REVOKE, {"name": name}).rowcount == 1


# used_today: once a day.
_USED_TODAY = text("""
UPDATE api_key SET last_used = CAST(wall() AT TIME ZONE 'UTC' AS date)
 WHERE id = :id AND last_used IS DISTINCT FROM CAST(wall() AT TIME ZONE 'UTC' AS date)
""")


def used_today(connection: Connection, key_id: int) -> None:
    """Remember that this key was used today."""
    connection.execute(_USED_TODAY, {"id": key_id})


class Use(NamedTuple):
    """How much of the current minute a key has used, this request counted, and the seconds until the next minute."""

    used: int
    seconds_left: int


# count_use: one more in this minute; a new minute starts at one. Counts no further than one over the limit.
_COUNT_USE = text("""
INSERT INTO api_use AS known (api_key_id, minute, used)
VALUES (:id, date_trunc('minute', wall()), 1)
    ON CONFLICT (api_key_id) DO UPDATE
   SET minute = excluded.minute,
       used = CASE WHEN known.minute = excluded.minute THEN least(known.used, :per_minute) + 1 ELSE 1 END
RETURNING used, CAST(ceil(60 - extract(epoch FROM wall() - minute)) AS integer) AS seconds_left
""")


def count_use(connection: Connection, key_id: int, per_minute: int) -> Use:
    """Count a request. More used than `per_minute`: refuse it."""
    row = connection.execute(_COUNT_USE, {"id": key_id, "per_minute": per_minute}).one()
    return Use(row.used, max(1, row.seconds_left))


class Answer(NamedTuple):
    """What was answered before, to a request with this keyed hash."""

    request_hash: bytes
    status: int
    body: Mapping[str, Any]


# wait_at_most: for whoever holds the same key now.
_WAIT_AT_MOST = text("SELECT set_config('lock_timeout', :milliseconds, true)")
# forget_one: what is older than a day is not known any more, whether or not it was cleared away.
_FORGET_ONE = text(f"""
DELETE FROM api_answer
 WHERE api_key_id = :api_key_id AND repeat_key = :repeat_key AND at < wall() - interval '{ANSWERS_KEPT}'
""")
# claim: waits for another transaction that has just claimed the same.
_CLAIM = text("""
INSERT INTO api_answer (api_key_id, repeat_key, request_hash)
VALUES (:api_key_id, :repeat_key, :request_hash)
    ON CONFLICT DO NOTHING
""")
_ANSWER = text("""
SELECT request_hash, status, body
  FROM api_answer
 WHERE api_key_id = :api_key_id AND repeat_key = :repeat_key
""")


class StillAnswering(UnavailableError):
    """Another request under the same Idempotency-Key is being carried out, and takes long."""


def claim(
    connection: Connection, key_id: int, repeat_key: str, request_hash: bytes, *, patience: float = 5.0
) -> Answer | None:
    """Take an Idempotency-Key for this transaction's effect, or return what was answered under it before.

    Waits at most `patience` seconds for a transaction that holds it; raises StillAnswering then, and the transaction is
    of no further use. What the transaction does and the answer it keeps commit together, or neither.
    """
    values = {"api_key_id": key_id, "repeat_key": repeat_key}
    connection.execute(_WAIT_AT_MOST, {"milliseconds": f"{patience * 1000:.0f}"})
    try:
        connection.execute(_FORGET_ONE, values)
        claimed = connection.execute(_CLAIM, {**values, "request_hash": request_hash}).rowcount == 1
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise StillAnswering("the same request is being carried out") from error
        raise
    connection.execute(_WAIT_AT_MOST, {"milliseconds": "0"})
    if claimed:
        return None
    row = connection.execute(_ANSWER, values).first()
    if row is None or row.status is None:  # its transaction has just been cleared away
        raise StillAnswering("the same request is being carried out")
    return Answer(bytes(row.request_hash), row.status, row.body)


# keep_answer: beside the effect.
_KEEP_ANSWER = text("""
UPDATE api_answer SET status = :status, body = CAST(:body AS json), subscriber_id = :subscriber_id
 WHERE api_key_id = :api_key_id AND repeat_key = :repeat_key
""")


def keep_answer(
    connection: Connection,
    key_id: int,
    repeat_key: str,
    *,
    status: int,
    body: Mapping[str, Any],
    subscriber_id: int | None,
) -> None:
    """Keep what is answered under a key that this transaction has claimed. `body` holds no address."""
    values = {
        "api_key_id": key_id,
        "repeat_key": repeat_key,
        "status": status,
        "body": json.dumps(dict(body)),
        "subscriber_id": subscriber_id,
    }
    connection.execute(_KEEP_ANSWER, values)


# forget_answers: a day is over.
_FORGET_ANSWERS = text(f"DELETE FROM api_answer WHERE at < wall() - interval '{ANSWERS_KEPT}'")


def forget_answers(connection: Connection) -> int:
    """Remove answers that are not given again. Returns how many."""
    return connection.execute(_FORGET_ANSWERS).rowcount
