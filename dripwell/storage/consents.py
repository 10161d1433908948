"""What a person agreed to, in which words: append-only rows, of each topic the newest counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import text

from dripwell.core.agreement import version_of
from dripwell.storage import arrays
from dripwell.storage.database import Connection

UNSUBSCRIBE = "unsubscribe"
"""`source` of what was withdrawn by leaving everything. It is written when that is lifted, so its time says nothing of
when the person spoke: the suppression ledger does."""

# keep_words: the same words are one row, for as long as a row names them. Two writers of new words at once are both
# content with one row.
_KEEP_WORDS = text("""
INSERT INTO wording (version, words)
SELECT :version, :words
 WHERE NOT EXISTS (SELECT FROM wording WHERE version = :version)
    ON CONFLICT (version) DO NOTHING
""")


def keep_words(connection: Connection, words: str) -> str | None:
    """Keep these words and return their version; None for no words. Whoever writes consents in bulk calls it once."""
    if not words:
        return None
    version = version_of(words)
    connection.execute(_KEEP_WORDS, {"version": version, "words": words})
    return version


# add: one more row; what a person said before stays.
_ADD = text("""
INSERT INTO consent (subscriber_id, topic, action, source, wording_version, given_at, asked_at, confirmed_at, page,
                     network)
VALUES (:subscriber_id, :topic, :action, :source, :version, :at, :asked_at, :confirmed_at, :page, :network)
""")


def add(
    connection: Connection,
    subscriber_id: int,
    topic: str,
    *,
    give: bool,
    source: str,
    wording: str,
    at: datetime,
    asked_at: datetime | None = None,
    confirmed_at: datetime | None = None,
    page: str = "",
    network: str = "",
) -> None:
    """Record that the person gave or withdrew consent to `topic`, at campaign time `at`, in these words.

    `asked_at` and `confirmed_at` are those of a double opt-in, in campaign time; `page` is the address of the page
    they said it on, `network` the truncated address they said it from. Empty: it was not said over the web.
    """
    connection.execute(
        _ADD,
        {
            "subscriber_id": subscriber_id,
            "topic": topic,
            "action": "give" if give else "withdraw",
            "source": source,
            "version": keep_words(connection, wording),
            "at": at,
            "asked_at": asked_at,
            "confirmed_at": confirmed_at,
            "page": page,
            "network": network,
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


@dataclass(frozen=True, slots=True)
class ConsentRow:
    """One row of the consent ledger: who is known by whose ledger it is.

    `at`, `asked_at` and `confirmed_at` are campaign time, `recorded_at` is wall time. `version` is that of `wording`,
    None when nobody kept the words. `page` and `network` are empty for what was not said over the web.
    """

    topic: str
    action: str  # give or withdraw
    source: str
    wording: str
    version: str | None
    at: datetime
    asked_at: datetime | None
    confirmed_at: datetime | None
    page: str
    network: str
    recorded_at: datetime


# ledger: everything one person ever said, in order, with the words.
_LEDGER = text("""
SELECT consent.topic, consent.action, consent.source, coalesce(wording.words, consent.wording) AS wording,
       consent.wording_version AS version, consent.given_at AS at, consent.asked_at, consent.confirmed_at,
       consent.page, consent.network, consent.recorded_at
  FROM consent LEFT JOIN wording ON wording.version = consent.wording_version
 WHERE consent.subscriber_id = :subscriber_id
 ORDER BY consent.id
""")


def ledger(connection: Connection, subscriber_id: int) -> list[ConsentRow]:
    """Every consent row of one person, oldest first."""
    rows = [ConsentRow(**row._mapping) for row in connection.execute(_LEDGER, {"subscriber_id": subscriber_id})]
    # Rows older than the table of wordings carry the words themselves; a version is a hash, so they have one too.
    return [replace(row, version=version_of(row.wording)) if row.wording and not row.version else row for row in rows]
