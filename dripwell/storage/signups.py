"""Requests to be mailed: one row each, the confirmation emails they got, and how often anybody may ask."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from dripwell.core.agreement import Asked
from dripwell.storage import arrays, consents
from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Signup:
    """One request. `address` is None once the person is erased; times are campaign time.

    `overtaken`: since it was made, its person has left what it asks for. A confirmation then proves nothing any more.
    """

    id: int
    subscriber_id: int
    address: str | None
    form: str
    source: str
    asked_at: datetime
    page: str
    network: str
    timezone: str | None
    fields: Mapping[str, Any]
    confirmed_at: datetime | None
    overtaken: bool
    asked: tuple[Asked, ...]  # empty: whatever the form says when the button is pressed


# person: found or made in one statement that does the same for everybody, and holds the row until the transaction
# ends, so that two requests for one address come one after the other. Nothing of a known person changes.
_PERSON = text("""
INSERT INTO subscriber (public_id, address, addr_hash, state, joined_at)
VALUES (:public_id, :address, :addr_hash, 'unconfirmed', :now)
    ON CONFLICT (addr_hash) DO UPDATE SET addr_hash = excluded.addr_hash
RETURNING id
""")


def person(connection: Connection, *, public_id: UUID, address: str, addr_hash: bytes, now: datetime) -> int:
    """The id of the person with this address, whom nobody may have known before. Holds their row."""
    values = {"public_id": public_id, "address": address, "addr_hash": addr_hash, "now": now}
    found: int = connection.execute(_PERSON, values).scalar_one()
    return found


# add: a new request, with what it asks in the words that were shown.
_ADD = text("""
INSERT INTO signup (subscriber_id, form, source, asked_at, page, network, timezone, fields)
VALUES (:subscriber_id, :form, :source, :now, :page, :network, :timezone, CAST(:fields AS jsonb))
RETURNING id
""")
_ADD_TOPICS = text("""
INSERT INTO signup_topic (signup_id, number, topic, wording_version)
SELECT :signup_id, number, topic, version
  FROM unnest(CAST(:topics AS text[]), CAST(:versions AS text[])) WITH ORDINALITY AS asked (topic, version, number)
""")


def add(
    connection: Connection,
    subscriber_id: int,
    *,
    form: str,
    source: str,
    asked: Sequence[Asked],
    now: datetime,
    page: str = "",
    network: str = "",
    timezone: str | None = None,
    fields: Mapping[str, str] | None = None,
) -> int:
    """Record a request made at campaign time `now`, and return its id."""
    values = {
        "subscriber_id": subscriber_id,
        "form": form,
        "source": source,
        "now": now,
        "page": page,
        "network": network,
        "timezone": timezone,
        "fields": json.dumps(dict(fields or {})),
    }
    signup_id: int = connection.execute(_ADD, values).scalar_one()
    if asked:
        for one in asked:
            consents.keep_words(connection, one.words)
        topics = {"topics": [one.topic for one in asked], "versions": [one.version for one in asked]}
        connection.execute(_ADD_TOPICS, {"signup_id": signup_id, **topics})
    return signup_id


# ask_again: one row for as long as nobody confirmed it, with the time of the last asking.
_ASK_AGAIN = text("""
UPDATE signup SET asked_at = :now, asked_wall = wall() WHERE id = :id AND confirmed_at IS NULL
""")


def ask_again(connection: Connection, signup_id: int, now: datetime) -> bool:
    """The same request was made once more, at campaign time `now`; False when it is confirmed.

    Only for a request that is not overtaken: moving its time would make an old link fresh.
    """
    return connection.execute(_ASK_AGAIN, {"id": signup_id, "now": now}).rowcount == 1


# Whether a topic of the ledgers is one of the request's. Words that nobody was shown may name any topic.
_IS_ASKED = """
(NOT EXISTS (SELECT FROM signup_topic WHERE signup_id = signup.id)
 OR EXISTS (SELECT FROM signup_topic WHERE signup_id = signup.id AND signup_topic.topic = {topic}))
"""

# Both ledgers and the request in wall time. At one and the same moment the word against it counts. An unsubscribe that
# its person took back by "that was a mistake" was none. What an unsubscribe withdrew counts by its suppression alone.
_OVERTAKEN = f"""
EXISTS (SELECT FROM suppression AS word
         WHERE word.addr_hash = subscriber.addr_hash AND word.action = 'suppress' AND word.at >= signup.asked_wall
           AND (word.scope NOT LIKE 'topic:%' OR {_IS_ASKED.format(topic="substr(word.scope, 7)")})
           AND 'undone' IS DISTINCT FROM (SELECT lift.reason FROM suppression AS lift
                                           WHERE lift.addr_hash = word.addr_hash AND lift.scope = word.scope
                                             AND lift.action = 'lift' AND lift.seq > word.seq
                                           ORDER BY lift.seq
                                           LIMIT 1))
OR EXISTS (SELECT FROM consent AS word
            WHERE word.subscriber_id = signup.subscriber_id AND word.action = 'withdraw'
              AND word.source <> '{consents.UNSUBSCRIBE}'
              AND word.recorded_at >= signup.asked_wall AND {_IS_ASKED.format(topic="word.topic")})
"""

_COLUMNS = f"""
SELECT signup.id, signup.subscriber_id, subscriber.address, signup.form, signup.source, signup.asked_at, signup.page,
       signup.network, signup.timezone, signup.fields, signup.confirmed_at, ({_OVERTAKEN}) AS overtaken,
       ARRAY(SELECT topic FROM signup_topic WHERE signup_id = signup.id ORDER BY number) AS topics,
       ARRAY(SELECT wording.words FROM signup_topic JOIN wording ON wording.version = signup_topic.wording_version
              WHERE signup_id = signup.id ORDER BY number) AS words
  FROM signup JOIN subscriber ON subscriber.id = signup.subscriber_id
"""

# of_mails: the requests whose confirmation emails these enrollments are.
_OF_MAILS = text(f"""
SELECT mail.enrollment_id, found.*
  FROM signup_mail AS mail JOIN ({_COLUMNS}) AS found ON found.id = mail.signup_id
 WHERE mail.enrollment_id = ANY(CAST(:enrollment_ids AS bigint[]))
""")


def of_mails(connection: Connection, enrollment_ids: Sequence[int]) -> dict[int, Signup]:
    """The request that each of these confirmation enrollments is about, by enrollment id."""
    known = [one for one in enrollment_ids if one < 2**63]
    rows = connection.execute(_OF_MAILS, {"enrollment_ids": arrays.numbers(known)})
    return {row.enrollment_id: _signup(row) for row in rows}


# newest_open: what somebody asked for last and has not confirmed; of one form, or of any.
_NEWEST_OPEN = text(f"""
{_COLUMNS}
 WHERE signup.subscriber_id = :subscriber_id AND signup.confirmed_at IS NULL
   AND (CAST(:form AS text) IS NULL OR signup.form = :form)
 ORDER BY signup.id DESC
 LIMIT 1
""")


def newest_open(connection: Connection, subscriber_id: int, form: str | None = None) -> Signup | None:
    """The newest request of this person that is not confirmed, of this form if one is given."""
    row = connection.execute(_NEWEST_OPEN, {"subscriber_id": subscriber_id, "form": form}).first()
    return None if row is None else _signup(row)


def _signup(row: Any) -> Signup:
    values = {name: value for name, value in row._mapping.items() if name not in ("enrollment_id", "topics", "words")}
    asked = tuple(Asked(topic, words) for topic, words in zip(row.topics, row.words, strict=True))
    return Signup(**values, asked=asked)


# confirm: once; the second press changes nothing.
_CONFIRM = text("UPDATE signup SET confirmed_at = :now WHERE id = :id AND confirmed_at IS NULL")


def confirm(connection: Connection, signup_id: int, now: datetime) -> bool:
    """Mark a request as confirmed at campaign time `now`; False when it was before."""
    return connection.execute(_CONFIRM, {"id": signup_id, "now": now}).rowcount == 1


_NEXT_ROUND = text("SELECT nextval('signup_round')")


def next_round(connection: Connection) -> int:
    """A round that no confirmation had before."""
    found: int = connection.execute(_NEXT_ROUND).scalar_one()
    return found


_ADD_MAIL = text("INSERT INTO signup_mail (enrollment_id, signup_id) VALUES (:enrollment_id, :signup_id)")


def add_mail(connection: Connection, enrollment_id: int, signup_id: int) -> None:
    """This enrollment mails the confirmation of this request."""
    connection.execute(_ADD_MAIL, {"enrollment_id": enrollment_id, "signup_id": signup_id})


# mails: of the last 24 hours of wall time, to one person in all and for one request.
_MAILS = text("""
SELECT count(*) AS every, count(*) FILTER (WHERE mail.signup_id = :signup_id) AS this
  FROM signup_mail AS mail JOIN signup ON signup.id = mail.signup_id
 WHERE signup.subscriber_id = :subscriber_id AND mail.at > wall() - interval '24 hours'
""")


def mails_today(connection: Connection, subscriber_id: int, signup_id: int) -> tuple[int, int]:
    """How many confirmations went to this person within 24 hours: in all, and for this request."""
    row = connection.execute(_MAILS, {"subscriber_id": subscriber_id, "signup_id": signup_id}).one()
    return row.every, row.this


# unanswered: mails that came after the newest one of a request that was confirmed.
_UNANSWERED = text("""
SELECT count(*)
  FROM signup_mail AS mail JOIN signup ON signup.id = mail.signup_id
 WHERE signup.subscriber_id = :subscriber_id AND mail.at > wall() - make_interval(days => :days)
   AND mail.enrollment_id > coalesce((SELECT max(pressed.enrollment_id)
                                        FROM signup_mail AS pressed JOIN signup AS done ON done.id = pressed.signup_id
                                       WHERE done.subscriber_id = :subscriber_id AND done.confirmed_at IS NOT NULL), 0)
""")


def mails_unanswered(connection: Connection, subscriber_id: int, days: int) -> int:
    """How many confirmations went to this person within so many days of wall time since one they answered."""
    found: int = connection.execute(_UNANSWERED, {"subscriber_id": subscriber_id, "days": days}).scalar_one()
    return found


# mails_of_an_hour: what people asked for on pages, everybody together; no more rows are read than `:most`.
_MAILS_OF_AN_HOUR = text("""
SELECT count(*)
  FROM (SELECT
          FROM signup_mail AS mail JOIN signup ON signup.id = mail.signup_id
         WHERE mail.at > wall() - interval '60 minutes' AND signup.page <> ''
         LIMIT :most) AS newest
""")


def mails_of_an_hour(connection: Connection, most: int) -> int:
    """How many confirmations the pages caused within the last 60 minutes of wall time; counted up to `most`."""
    found: int = connection.execute(_MAILS_OF_AN_HOUR, {"most": most}).scalar_one()
    return found


# count: one after the other for each key, so that no two see the last place free. What is older than an hour goes
# meanwhile; whoever is at it at the same moment is passed by.
_ONE_BY_ONE = text("SELECT pg_advisory_xact_lock(6006, hashtext(:key))")
_FORGET = text("""
DELETE FROM form_count
 WHERE id IN (SELECT id FROM form_count WHERE at <= wall() - interval '60 minutes'
               ORDER BY at, id LIMIT 100 FOR UPDATE SKIP LOCKED)
""")
_COUNT = text("""
INSERT INTO form_count (key)
SELECT :key
 WHERE (SELECT count(*) FROM form_count WHERE key = :key AND at > wall() - interval '60 minutes') < :most
""")


def count(connection: Connection, key: str, most: int) -> bool:
    """Count one more for `key`. False, and not counted: there were `most` within the last 60 minutes of wall time."""
    connection.execute(_ONE_BY_ONE, {"key": key})
    connection.execute(_FORGET)
    return connection.execute(_COUNT, {"key": key, "most": most}).rowcount == 1
