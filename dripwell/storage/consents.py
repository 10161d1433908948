"""What a person agreed to, in which words: append-only rows, of each topic the newest counts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text

from dripwell.storage.database import Connection

# add: one more row; what a person said before stays.
_ADD = text("""
INSERT INTO consent (subscriber_id, topic, action, source, wording, given_at)
VALUES (:subscriber_id, :topic, :action, :source, :wording, :at)
""")


def add(
    connection: Connection, subscriber_id: int, topic: str, *, give: bool, source: str, wording: str, at: datetime
) -> None:
    """Record that the person gave or withdrew consent to `topic`, at campaign time `at`, in these words."""
    connection.execute(
        _ADD,
        {
            "subscriber_id": subscriber_id,
            "topic": topic,
            "action": "give" if give else "withdraw",
            "source": source,
            "wording": wording,
            "at": at,
        },
    )


# given: the topics whose newest row gives consent.
_GIVEN = text("""
SELECT topic
  FROM (SELECT DISTINCT ON (topic) topic, action
          FROM consent
         WHERE subscriber_id = :subscriber_id
         ORDER BY topic, id DESC) AS newest
 WHERE action = 'give'
 ORDER BY topic
""")


def given(connection: Connection, subscriber_id: int) -> list[str]:
    """The topics this person consents to now, by name."""
    return list(connection.execute(_GIVEN, {"subscriber_id": subscriber_id}).scalars())


# has: whether a source has spoken before.
_HAS = text("SELECT EXISTS (SELECT FROM consent WHERE subscriber_id = :subscriber_id AND source = :source)")


def has(connection: Connection, subscriber_id: int, source: str) -> bool:
    """Whether this person's ledger holds a row from `source`."""
    found: bool = connection.execute(_HAS, {"subscriber_id": subscriber_id, "source": source}).scalar_one()
    return found
