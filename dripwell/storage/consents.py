"""What a person agreed to, in which words: append-only rows, of each topic the newest counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text

from dripwell.storage import arrays
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


# topics: of these people, each (person, topic) whose newest row gives consent.
_TOPICS = text("""
SELECT subscriber_id, topic
  FROM (SELECT DISTINCT ON (subscriber_id, topic) subscriber_id, topic, action
          FROM consent
         WHERE subscriber_id = ANY(CAST(:subscriber_ids AS bigint[]))
         ORDER BY subscriber_id, topic, id DESC) AS newest
 WHERE action = 'give'
 ORDER BY subscriber_id, topic
""")


def topics(connection: Connection, subscriber_ids: Sequence[int]) -> dict[int, frozenset[str]]:
    """The topics each of these people agrees to now. Who agrees to none is missing."""
    found: dict[int, frozenset[str]] = {}
    for subscriber_id, topic in connection.execute(_TOPICS, {"subscriber_ids": arrays.numbers(subscriber_ids)}).all():
        found[subscriber_id] = found.get(subscriber_id, frozenset()) | {topic}
    return found


# with_topic: everybody who can be mailed and whose newest row on this topic gives consent.
_WITH_TOPIC = text("""
SELECT subscriber.id
  FROM subscriber
 WHERE subscriber.state = 'active'
   AND 'give' = (SELECT consent.action
                   FROM consent
                  WHERE consent.subscriber_id = subscriber.id AND consent.topic = :topic
                  ORDER BY consent.id DESC
                  LIMIT 1)
 ORDER BY subscriber.id
""")


def with_topic(connection: Connection, topic: str) -> list[int]:
    """The ids of everybody active whose newest word on this topic is yes."""
    return list(connection.execute(_WITH_TOPIC, {"topic": topic}).scalars())


# consents: everything one person ever said, in order.
_CONSENTS = text("""
SELECT topic, action, source, wording, given_at
  FROM consent
 WHERE subscriber_id = :subscriber_id
 ORDER BY id
""")


def consents(connection: Connection, subscriber_id: int) -> list[Any]:
    """Every consent row of one person, oldest first: topic, action, source, wording, given_at."""
    return list(connection.execute(_CONSENTS, {"subscriber_id": subscriber_id}))
