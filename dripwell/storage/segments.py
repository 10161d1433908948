"""Conditions as SQL: the tree that `core.conditions.holds` reads for one person, compiled for many.

The text of a statement is made from the fixed pieces below and from names of parameters that are counted, never from a
value: every field, tag, topic, event, campaign and time is bound. Each piece is two-valued: what could be NULL is
wrapped to be false, so that `NOT` makes it true.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import assert_never

from sqlalchemy import text

from dripwell.core.clicks import BURST, BURST_LINKS, MOST
from dripwell.core.conditions import (
    All,
    Any,
    Clicked,
    Condition,
    FieldIs,
    Happened,
    HasTag,
    HasTopic,
    InSegment,
    Joined,
    Not,
    Scalar,
)
from dripwell.core.duration import Duration
from dripwell.storage import arrays
from dripwell.storage.database import Connection

PIECE = 5_000
"""So many ids are fetched at a time from the server's cursor."""

# Each piece asks about the row `subscriber`; `{…}` take the names of parameters.
_FIELD = "coalesce(subscriber.fields -> {name} = ANY (CAST({values} AS jsonb[])), false)"
_TAG = "coalesce({tag} = ANY (subscriber.tags), false)"
_JOINED = "coalesce(subscriber.joined_at >= {since}, false)"

# The others ask about rows elsewhere. Of few people each is asked about one by one (EXISTS is never NULL) …
# A person's newest word on the topic is yes: there is a yes, and no word after it.
_TOPIC_OF_ONE = """EXISTS (SELECT FROM consent
                            WHERE consent.subscriber_id = subscriber.id AND consent.topic = {topic}
                              AND consent.action = 'give'
                              AND NOT EXISTS (SELECT FROM consent AS newer
                                               WHERE newer.subscriber_id = consent.subscriber_id
                                                 AND newer.topic = consent.topic AND newer.id > consent.id))"""
_HAPPENED_TO_ONE = """EXISTS (SELECT FROM happening
                               WHERE happening.subscriber_id = subscriber.id AND happening.event = {event}{since})"""
_CLICKED_BY_ONE = """EXISTS (SELECT FROM enrollment
                               JOIN campaign ON campaign.id = enrollment.campaign_id
                               JOIN message ON message.enrollment_id = enrollment.id
                               JOIN click ON click.message_id = message.id
                              CROSS JOIN LATERAL (SELECT count(*) AS clicks, max(number) - min(number) AS apart
                                                    FROM (SELECT number FROM click AS one
                                                           WHERE one.message_id = message.id
                                                           LIMIT {most} + 1) AS counted) AS read
                              WHERE enrollment.subscriber_id = subscriber.id AND campaign.name = {campaign}{step}{since}
                                AND {person})"""

# … and of everybody the answer is a set that is made once and joined: a hash join writes to disk what memory does not
# hold, and takes as long under NOT and OR as anywhere.
_TOPIC_OF_ALL = """SELECT subscriber_id FROM consent WHERE topic = {topic} GROUP BY subscriber_id
                   HAVING max(id) FILTER (WHERE action = 'give') = max(id)"""
_HAPPENED_TO_ALL = "SELECT DISTINCT subscriber_id FROM happening WHERE event = {event}{since}"
_CLICKED_BY_ALL = """SELECT DISTINCT message.subscriber_id
                       FROM (SELECT message_id, count(*) AS clicks, max(number) - min(number) AS apart
                               FROM click GROUP BY message_id) AS read
                       JOIN message ON message.id = read.message_id
                       JOIN campaign ON campaign.id = message.campaign_id
                       JOIN click ON click.message_id = message.id
                      WHERE campaign.name = {campaign}{step}{since} AND {person}"""

_HAPPENED_SINCE = " AND happening.at >= {since}"
_CLICKED_STEP = " AND message.step_key = {step}"
_CLICKED_SINCE = " AND click.at >= {since}"
# A person's click (`core.clicks.by_a_person`). CASE, and not AND: what is cheap to know is looked at first, and clicks
# are compared with each other only where there are not too many, and where three links can have been followed at all.
_PERSON = """CASE WHEN read.clicks > {most} THEN false
                  WHEN read.apart < {links} - 1 THEN true
                  ELSE NOT EXISTS (SELECT FROM click AS first
                                    WHERE first.message_id = click.message_id
                                      AND first.wall_at BETWEEN click.wall_at - {burst} AND click.wall_at
                                      AND {links} <= (SELECT count(DISTINCT near.number)
                                                        FROM click AS near
                                                       WHERE near.message_id = click.message_id
                                                         AND near.wall_at BETWEEN first.wall_at
                                                                              AND first.wall_at + {burst}))
             END"""
MOST_SETS = 12
"""So many sets are joined in one statement; what a condition asks beyond them is asked one by one."""


@dataclass(slots=True)
class _Compiler:
    """Makes the SQL of one statement: `sql` the expression, `values` its parameters, `joins` the sets it reads.

    Segments are written out where they stand: that they form no circle, and how large they grow, the loader has seen.
    A segment that is not in `segments` is true of nobody. `now` is campaign time.
    """

    segments: Mapping[str, Condition]
    now: datetime
    of_everybody: bool
    values: dict[str, object] = field(default_factory=dict)
    sets: dict[Condition, str] = field(default_factory=dict)

    def sql(self, condition: Condition) -> str:
        match condition:
            case All(of=parts):
                return self._joined_by(" AND ", parts, "true")
            case Any(of=parts):
                return self._joined_by(" OR ", parts, "false")
            case Not(of=part):
                return f"(NOT {self.sql(part)})"
            case FieldIs(name=name, values=values):
                return _FIELD.format(name=self.text(name), values=self._bound(_json(values)))
            case HasTag(tag=tag):
                return _TAG.format(tag=self.text(tag))
            case InSegment(segment=name):
                return self.sql(self.segments[name]) if name in self.segments else "false"
            case Joined(within=within):
                return self._since(_JOINED, within)
            case HasTopic() | Happened() | Clicked():
                return self._elsewhere(condition)
            case _:  # pragma: no cover
                assert_never(condition)

    def joins(self) -> str:
        """The sets, each joined to the row `subscriber`; one that is missing there says no."""
        return "".join(
            f"\n  LEFT JOIN ({made}) AS set_{number} ON set_{number}.subscriber_id = subscriber.id"
            for number, made in enumerate(self.sets.values())
        )

    def text(self, value: str) -> str:
        return self.cast(value, "text")

    def cast(self, value: object, kind: str) -> str:
        return f"CAST({self._bound(value)} AS {kind})"

    def _joined_by(self, word: str, parts: Sequence[Condition], nothing: str) -> str:
        return f"({word.join(self.sql(part) for part in parts)})" if parts else nothing

    def _elsewhere(self, leaf: HasTopic | Happened | Clicked) -> str:
        if not self.of_everybody or (leaf not in self.sets and len(self.sets) == MOST_SETS):
            return self._rows(leaf, _TOPIC_OF_ONE, _HAPPENED_TO_ONE, _CLICKED_BY_ONE)
        if leaf not in self.sets:
            self.sets[leaf] = self._rows(leaf, _TOPIC_OF_ALL, _HAPPENED_TO_ALL, _CLICKED_BY_ALL)
        return f"(set_{list(self.sets).index(leaf)}.subscriber_id IS NOT NULL)"

    def _rows(self, leaf: HasTopic | Happened | Clicked, topic: str, happened: str, clicked: str) -> str:
        match leaf:
            case HasTopic():
                return topic.format(topic=self.text(leaf.topic))
            case Happened():
                return happened.format(event=self.text(leaf.event), since=self._since(_HAPPENED_SINCE, leaf.within))
            case Clicked():
                most = self.cast(MOST, "bigint")
                burst, links = self.cast(BURST, "interval"), self.cast(BURST_LINKS, "bigint")
                return clicked.format(
                    campaign=self.text(leaf.campaign),
                    step="" if leaf.step is None else _CLICKED_STEP.format(step=self.text(leaf.step)),
                    since=self._since(_CLICKED_SINCE, leaf.within),
                    most=most,
                    person=_PERSON.format(most=most, links=links, burst=burst),
                )

    def _since(self, piece: str, within: Duration | None) -> str:
        if within is None:
            return ""
        return piece.format(since=self.cast(self.now - within.at_most(), "timestamptz"))

    def _bound(self, value: object) -> str:
        name = f"asked_{len(self.values)}"
        self.values[name] = value
        return f":{name}"


def _json(values: Sequence[Scalar]) -> list[str]:
    return [json.dumps(value) for value in values if _storable(value)]


def _storable(value: Scalar) -> bool:
    """Whether jsonb can hold this: if not, it equals nothing that is stored there."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    return not isinstance(value, float) or math.isfinite(value)


# members: everybody it is true of, but who was erased.
_MEMBERS = """
SELECT subscriber.id
  FROM subscriber{joins}
 WHERE subscriber.state <> 'erased' AND {condition}
 ORDER BY subscriber.id
"""


def members(
    connection: Connection, condition: Condition, segments: Mapping[str, Condition], now: datetime
) -> Iterator[int]:
    """The ids of everybody this is true of, in order, from a cursor on the server: a million fit in little memory.

    Read it inside the transaction. Somebody whom it is true of only later is not seen.
    """
    asked = _Compiler(segments, now, of_everybody=True)
    made = asked.sql(condition)
    statement = text(_MEMBERS.format(condition=made, joins=asked.joins()))
    with closing(
        connection.execute(statement.execution_options(stream_results=True, yield_per=PIECE), asked.values)
    ) as rows:
        for row in rows:
            yield row[0]


# counted: everybody in it, those who are active, and those of them with consent to a topic and no suppression that
# binds its emails.
_COUNTED = """
SELECT count(*), count(*) FILTER (WHERE subscriber.state = 'active'),
       count(*) FILTER (WHERE subscriber.state = 'active' AND {mailable})
  FROM subscriber{joins}
 WHERE subscriber.state <> 'erased' AND {condition}
"""
_BARRED = """
  LEFT JOIN (SELECT DISTINCT addr_hash
               FROM (SELECT DISTINCT ON (addr_hash, scope) addr_hash, action
                       FROM suppression
                      WHERE scope = ANY ({scopes})
                      ORDER BY addr_hash, scope, seq DESC) AS newest
              WHERE action = 'suppress') AS barred ON barred.addr_hash = subscriber.addr_hash"""


@dataclass(frozen=True, slots=True)
class Count:
    """How many people a condition is true of. `mailable` of them are active and agreed to the topic that was asked
    about, and nothing in the ledger forbids its emails; None when no topic was named."""

    people: int
    active: int
    mailable: int | None


def count(
    connection: Connection,
    condition: Condition,
    segments: Mapping[str, Condition],
    now: datetime,
    *,
    topic: str | None = None,
    scopes: Sequence[str] = (),
) -> Count:
    """Count the people this is true of. `scopes` are those of the ledger that bind emails about `topic`."""
    asked = _Compiler(segments, now, of_everybody=True)
    made = asked.sql(condition)
    mailable, barred = "false", ""
    if topic is not None:
        mailable = f"{asked.sql(HasTopic(topic))} AND barred.addr_hash IS NULL"
        barred = _BARRED.format(scopes=asked.cast(list(scopes), "text[]"))
    statement = text(_COUNTED.format(condition=made, mailable=mailable, joins=asked.joins() + barred))
    row = connection.execute(statement, asked.values).one()
    return Count(row[0], row[1], None if topic is None else row[2])


# examples: the newest people in it.
_EXAMPLES = """
SELECT subscriber.id, subscriber.address, subscriber.state, subscriber.joined_at
  FROM subscriber{joins}
 WHERE subscriber.state <> 'erased' AND {condition}
 ORDER BY subscriber.id DESC
 LIMIT CAST(:most AS bigint)
"""


@dataclass(frozen=True, slots=True)
class Example:
    """One person of a segment."""

    id: int
    address: str
    state: str
    joined_at: datetime


def examples(
    connection: Connection, condition: Condition, segments: Mapping[str, Condition], now: datetime, limit: int
) -> list[Example]:
    """At most `limit` people this is true of, newest first."""
    asked = _Compiler(segments, now, of_everybody=True)
    made = asked.sql(condition)
    statement = text(_EXAMPLES.format(condition=made, joins=asked.joins()))
    return [Example(*row) for row in connection.execute(statement, {**asked.values, "most": limit})]


# among: those of these people whom it is true of.
_AMONG = """
SELECT subscriber.id
  FROM subscriber
 WHERE subscriber.id = ANY (CAST(:ids AS bigint[])) AND {condition}
"""


def among(
    connection: Connection,
    subscriber_ids: Sequence[int],
    condition: Condition,
    segments: Mapping[str, Condition],
    now: datetime,
) -> set[int]:
    """Those of these people whom the condition is true of."""
    asked = _Compiler(segments, now, of_everybody=False)
    made = asked.sql(condition)
    values = {**asked.values, "ids": arrays.numbers(subscriber_ids)}
    return set(connection.execute(text(_AMONG.format(condition=made)), values).scalars())
