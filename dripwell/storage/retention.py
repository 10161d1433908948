"""What is kept no longer: old events, clicks and webhooks, in slices; and who has not been heard of for long.

Reports count from bare rows: of an old message one event stays, the one that says what became of it, and one click.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from dripwell.core.clicks import BURST_LINKS, Click, by_a_person
from dripwell.storage import arrays
from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class State:
    """How far the daily pass is, by ids, and how many it has asked. `is_due`: the last one ended a day ago."""

    events: int
    clicks: int
    people: int
    asked: int
    is_due: bool


# lock: one at a time; whoever comes second has nothing to do.
_LOCK = text("""
SELECT events, clicks, people, asked, ended_at <= wall() - interval '1 day' AS is_due
  FROM retention_state
   FOR UPDATE SKIP LOCKED
""")
_MOVED = text("""
UPDATE retention_state
   SET events = coalesce(:events, events), clicks = coalesce(:clicks, clicks)
""")
# passed: compare-and-set, since whom a slice found is erased between the two transactions, perhaps by two passes.
_PASSED = text("""
UPDATE retention_state
   SET people = CASE WHEN :ended THEN 0 ELSE :upto END,
       asked = CASE WHEN :ended THEN 0 ELSE asked END,
       ended_at = CASE WHEN :ended THEN wall() ELSE ended_at END
 WHERE people = :after AND ended_at <= wall() - interval '1 day'
""")
_ASKED = text("UPDATE retention_state SET asked = asked + :asked")


def lock(connection: Connection) -> State | None:
    """Where the daily pass is, held until the transaction ends; None: somebody else is at it."""
    row = connection.execute(_LOCK).one_or_none()
    return None if row is None else State(**row._mapping)


def moved(connection: Connection, *, events: int | None = None, clicks: int | None = None) -> None:
    """Remember that everything up to these ids was looked at."""
    connection.execute(_MOVED, {"events": events, "clicks": clicks})


def passed(connection: Connection, *, after: int, upto: int | None) -> None:
    """Everybody after `after` and up to this id was dealt with; None: today's pass is at its end.

    Nothing happens when another pass has moved on meanwhile.
    """
    connection.execute(_PASSED, {"after": after, "upto": upto, "ended": upto is None})


def asked(connection: Connection, number: int) -> None:
    """So many people more were asked today."""
    connection.execute(_ASKED, {"asked": number})


# events: the next ones, in the order they came; only what lies before the first young one is old for sure.
_EVENTS = text("""
SELECT id, received_at < :before AS is_old
  FROM provider_event
 WHERE id > :after
 ORDER BY id
 LIMIT :limit
""")
# drop_events: all but the one of each message that says what became of it; of two alike the older stays.
_DROP_EVENTS = text("""
DELETE FROM provider_event
 WHERE id = ANY(CAST(:ids AS bigint[]))
   AND (message_id IS NULL
        OR EXISTS (SELECT FROM provider_event AS other
                    WHERE other.message_id = provider_event.message_id
                      AND (coalesce(array_position(CAST(:precedence AS text[]), other.type), 0), -other.id)
                          > (coalesce(array_position(CAST(:precedence AS text[]), provider_event.type), 0),
                             -provider_event.id)))
""")
_BARE_EVENTS = text("""
UPDATE provider_event SET detail = event_without_person(trouble), sg_event_id = NULL
 WHERE id = ANY(CAST(:ids AS bigint[])) AND (detail <> event_without_person(trouble) OR sg_event_id IS NOT NULL)
""")


def drop_events(
    connection: Connection, *, after: int, before: datetime, precedence: Sequence[str], limit: int
) -> int | None:
    """Remove a slice of events that came before `before` (wall time). Returns the last id looked at; None: no more."""
    found = connection.execute(_EVENTS, {"after": after, "before": before, "limit": limit}).all()
    ids = _old(found)
    if not ids:
        return None
    written = arrays.numbers(ids)
    connection.execute(_DROP_EVENTS, {"ids": written, "precedence": list(precedence)})
    connection.execute(_BARE_EVENTS, {"ids": written})
    return ids[-1]


# clicks: as events; the clicks of one message are judged together.
_CLICKS = text("""
SELECT id, message_id, wall_at < :before AS is_old
  FROM click
 WHERE id > :after
 ORDER BY id
 LIMIT :limit
""")
_OF_MESSAGES = text("""
SELECT id, message_id, number, at, wall_at
  FROM click
 WHERE message_id IN (SELECT unnest(CAST(:messages AS bigint[])))
   AND NOT EXISTS (SELECT FROM click AS young
                    WHERE young.message_id = click.message_id AND young.wall_at >= :before)
 ORDER BY message_id, wall_at, number, id
""")
_DROP_CLICKS = text("DELETE FROM click WHERE id = ANY(CAST(:ids AS bigint[]))")
_BARE_CLICKS = text("""
UPDATE click SET at = date_trunc('day', at), wall_at = date_trunc('day', wall_at)
 WHERE id = ANY(CAST(:ids AS bigint[]))
""")
_OF_A_MACHINE = text("UPDATE click SET number = :number WHERE id = :id")


def drop_clicks(connection: Connection, *, after: int, before: datetime, limit: int) -> int | None:
    """Remove a slice of clicks from before `before` (wall time). Returns the last id looked at; None: no more.

    A message that a person clicked in keeps one click, one that only a machine did keeps a machine's: three links in
    one moment (`core.clicks`). Messages with a younger click wait for that one.
    """
    found = connection.execute(_CLICKS, {"after": after, "before": before, "limit": limit}).all()
    ids = _old(found)
    if not ids:
        return None
    messages = sorted({row.message_id for row in found if row.id <= ids[-1]})
    rows = connection.execute(_OF_MESSAGES, {"messages": arrays.numbers(messages), "before": before}).all()
    by_message: dict[int, list[Any]] = {}
    for row in rows:
        by_message.setdefault(row.message_id, []).append(row)
    kept = {row.id for of_one in by_message.values() for row in _bare(connection, of_one)}
    connection.execute(_DROP_CLICKS, {"ids": arrays.numbers(row.id for row in rows if row.id not in kept)})
    connection.execute(_BARE_CLICKS, {"ids": arrays.numbers(sorted(kept))})
    return ids[-1]


def _bare(connection: Connection, rows: Sequence[Any]) -> list[Any]:
    """The rows of one message's clicks that say the same as all of them."""
    human = by_a_person([Click(row.number, row.wall_at, row.at) for row in rows])
    if human:
        first = human[0]
        return [next(row for row in rows if (row.number, row.wall_at) == (first.number, first.wall_at))]
    kept = list(rows[:BURST_LINKS])
    for place, row in enumerate(kept):
        connection.execute(_OF_A_MACHINE, {"number": place, "id": row.id})
    return kept


def _old(rows: Iterable[Any]) -> list[int]:
    ids: list[int] = []
    for row in rows:
        if not row.is_old:
            break
        ids.append(row.id)
    return ids


# drop_webhooks: from the oldest on. What nobody has read yet stays, and so does the newest, by which silence is told.
_DROP_WEBHOOKS = text("""
DELETE FROM webhook_inbox
 WHERE id IN (SELECT id
                FROM (SELECT id, state, received_at FROM webhook_inbox ORDER BY id LIMIT :limit) AS oldest
               WHERE state <> 'new' AND received_at < :before)
   AND id < (SELECT max(id) FROM webhook_inbox)
""")


def drop_webhooks(connection: Connection, *, before: datetime, limit: int) -> int:
    """Remove the oldest webhooks that were read, or set aside, and came before `before`; returns how many."""
    return connection.execute(_DROP_WEBHOOKS, {"before": before, "limit": limit}).rowcount


# unused_words: words that nobody agreed to, and nobody was asked in, any more.
_UNUSED_WORDS = """
       NOT EXISTS (SELECT FROM consent WHERE consent.wording_version = wording.version)
   AND NOT EXISTS (SELECT FROM signup_topic WHERE signup_topic.wording_version = wording.version)
"""
_FIND_UNUSED_WORDS = text(f"SELECT wording.version FROM wording WHERE {_UNUSED_WORDS} LIMIT :limit")
# hold_words: whoever looked for words to write a consent with has written it by then; nobody waits for long.
_HOLD_WORDS = (
    text("SET LOCAL lock_timeout = '200ms'"),
    text("LOCK TABLE wording IN ACCESS EXCLUSIVE MODE"),
    text("SET LOCAL dripwell.erasing = 'on'"),
)
_DROP_UNUSED_WORDS = text(f"DELETE FROM wording WHERE version = ANY(CAST(:versions AS text[])) AND {_UNUSED_WORDS}")


def unused_words(connection: Connection, limit: int) -> list[str]:
    """Versions of words that no row names: of people who are erased, perhaps in words of their own."""
    return list(connection.execute(_FIND_UNUSED_WORDS, {"limit": limit}).scalars())


def drop_words(connection: Connection, versions: Sequence[str]) -> bool:
    """Remove those of these words that still nobody uses. False: somebody is writing consents, so nothing was done.

    Call it alone in its transaction, and end that when it says False.
    """
    try:
        for statement in _HOLD_WORDS:
            connection.execute(statement)
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":
            raise
        connection.rollback()
        return False
    connection.execute(_DROP_UNUSED_WORDS, {"versions": list(versions)})
    return True


# strangers: somebody typed an address into a form and nobody confirmed it. Whatever else is known of a person says that
# the clinic knows them; a series of theirs, even an ended one, does too. Who is being erased already waits for that.
_OF_STRANGERS = """
       subscriber.state = 'unconfirmed' AND subscriber.relationship = 'prospect' AND subscriber.joined_at < :before
   AND EXISTS (SELECT FROM signup WHERE signup.subscriber_id = subscriber.id)
   AND NOT EXISTS (SELECT FROM signup
                    WHERE signup.subscriber_id = subscriber.id
                      AND (signup.asked_at >= :before OR signup.confirmed_at IS NOT NULL))
   AND NOT EXISTS (SELECT FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
                    WHERE enrollment.subscriber_id = subscriber.id
                      AND (campaign.name <> 'confirm' OR enrollment.joined_at >= :before))
   AND NOT EXISTS (SELECT FROM consent WHERE consent.subscriber_id = subscriber.id)
   AND NOT EXISTS (SELECT FROM booking WHERE booking.subscriber_id = subscriber.id)
   AND NOT EXISTS (SELECT FROM call_wish WHERE call_wish.subscriber_id = subscriber.id)
   AND NOT EXISTS (SELECT FROM happening WHERE happening.subscriber_id = subscriber.id)
   AND NOT EXISTS (SELECT FROM erasure WHERE erasure.subscriber_id = subscriber.id AND erasure.state <> 'done')
"""
_STRANGERS = text(f"SELECT subscriber.id FROM subscriber WHERE {_OF_STRANGERS} ORDER BY subscriber.id LIMIT :limit")
_IS_STRANGER = text(f"SELECT EXISTS (SELECT FROM subscriber WHERE subscriber.id = :id AND {_OF_STRANGERS})")


def strangers(connection: Connection, *, before: datetime, limit: int) -> list[int]:
    """Who asked by a form and never confirmed, and of whom nothing was heard since `before` (campaign time)."""
    return list(connection.execute(_STRANGERS, {"before": before, "limit": limit}).scalars())


def is_stranger(connection: Connection, subscriber_id: int, before: datetime) -> bool:
    """Whether `strangers` would name this person."""
    found: bool = connection.execute(_IS_STRANGER, {"id": subscriber_id, "before": before}).scalar_one()
    return found


# Nothing that a person did since `:since`, campaign time. Being mailed is nothing a person did.
_SILENT = """
       subscriber.joined_at < :since
   AND coalesce(subscriber.paused_until, '-infinity') < :since
   AND NOT EXISTS (SELECT FROM consent
                    WHERE consent.subscriber_id = subscriber.id
                      AND greatest(consent.given_at, consent.confirmed_at) >= :since)
   AND NOT EXISTS (SELECT FROM happening WHERE happening.subscriber_id = subscriber.id AND happening.at >= :since)
   AND NOT EXISTS (SELECT FROM booking WHERE booking.subscriber_id = subscriber.id AND booking.booked_at >= :since)
   AND NOT EXISTS (SELECT FROM call_wish WHERE call_wish.subscriber_id = subscriber.id AND call_wish.at >= :since)
   AND NOT EXISTS (SELECT FROM signup WHERE signup.subscriber_id = subscriber.id AND signup.asked_at >= :since)
   AND NOT EXISTS (SELECT FROM enrollment
                     JOIN message ON message.enrollment_id = enrollment.id
                     JOIN click ON click.message_id = message.id
                    WHERE enrollment.subscriber_id = subscriber.id AND click.at >= :since)
"""
_AGREES = """
       EXISTS (SELECT FROM consent AS word
                WHERE word.subscriber_id = subscriber.id AND word.action = 'give'
                  AND NOT EXISTS (SELECT FROM consent AS later
                                   WHERE later.subscriber_id = word.subscriber_id AND later.topic = word.topic
                                     AND later.id > word.id))
"""
# Nobody may mail them, so nobody can ask: who never confirmed, who has left, whose mailbox is dead. Leaving was their
# last word, so the time counts from there. What the ledger says is wall time. Who is being erased waits for that.
_UNASKABLE = """
       subscriber.state IN ('unconfirmed', 'unsubscribed', 'undeliverable')
   AND NOT EXISTS (SELECT FROM quiet_question
                    WHERE quiet_question.subscriber_id = subscriber.id AND quiet_question.kept_at >= :since)
   AND NOT EXISTS (SELECT FROM suppression
                    WHERE suppression.addr_hash = subscriber.addr_hash AND suppression.at >= :wall_since)
"""
_NOT_BEING_ERASED = """
       NOT EXISTS (SELECT FROM erasure WHERE erasure.subscriber_id = subscriber.id AND erasure.state <> 'done')
"""
# quiet: of the next so many people those who can be asked, and those whom nobody may mail.
_QUIET = text(f"""
SELECT slice.id, slice.state, slice.quiet
  FROM (SELECT subscriber.id, subscriber.state,
               subscriber.relationship = 'prospect'
               AND ({_UNASKABLE}
                    OR subscriber.state = 'active' AND {_AGREES}  -- whoever gave up every topic is mailed nothing
                       AND NOT EXISTS (SELECT FROM quiet_question
                                        WHERE quiet_question.subscriber_id = subscriber.id
                                          AND (quiet_question.kept_at IS NULL OR quiet_question.kept_at >= :since)))
               AND {_NOT_BEING_ERASED}
               AND {_SILENT} AS quiet
          FROM subscriber
         WHERE subscriber.id > :after
         ORDER BY subscriber.id
         LIMIT :limit) AS slice
 ORDER BY slice.id
""")
_IS_UNASKABLE = text(f"""
SELECT EXISTS (SELECT FROM subscriber
                WHERE subscriber.id = :id AND subscriber.relationship = 'prospect' AND {_UNASKABLE} AND {_SILENT})
""")


def quiet(connection: Connection, *, after: int, since: datetime, wall_since: datetime, limit: int) -> list[Any]:
    """The next `limit` people: id, state, and whether they are a prospect of whom nothing was heard since `since`.

    Whoever is active, is asked and has not answered yet counts as heard of, until `unanswered` has them. `since` is
    campaign time, `wall_since` the same in wall time, as the suppression ledger counts.
    """
    values = {"after": after, "since": since, "wall_since": wall_since, "limit": limit}
    return list(connection.execute(_QUIET, values))


def is_unaskable(connection: Connection, subscriber_id: int, *, since: datetime, wall_since: datetime) -> bool:
    """Whether `quiet` would name this person, and nobody may mail them to ask."""
    values = {"id": subscriber_id, "since": since, "wall_since": wall_since}
    found: bool = connection.execute(_IS_UNASKABLE, values).scalar_one()
    return found


# ask: a new question begins a new round, so that its email is a new one.
_ASK = text("""
INSERT INTO quiet_question (subscriber_id, asked_at)
VALUES (:subscriber_id, :now)
    ON CONFLICT (subscriber_id) DO UPDATE
   SET round = quiet_question.round + 1, asked_at = excluded.asked_at, kept_at = NULL
RETURNING round
""")
_KEEP = text("""
UPDATE quiet_question SET kept_at = :now
 WHERE subscriber_id = :subscriber_id AND kept_at IS NULL
""")
_IS_ASKED = text("SELECT EXISTS (SELECT FROM quiet_question WHERE subscriber_id = :subscriber_id AND kept_at IS NULL)")


def ask(connection: Connection, subscriber_id: int, now: datetime) -> int:
    """Write down that this person is asked at campaign time `now`; returns the round of their email."""
    found: int = connection.execute(_ASK, {"subscriber_id": subscriber_id, "now": now}).scalar_one()
    return found


def keep(connection: Connection, subscriber_id: int, now: datetime) -> bool:
    """They want to stay. False: nobody waits for their answer."""
    return connection.execute(_KEEP, {"subscriber_id": subscriber_id, "now": now}).rowcount == 1


def is_asked(connection: Connection, subscriber_id: int) -> bool:
    """Whether this person's answer is waited for."""
    found: bool = connection.execute(_IS_ASKED, {"subscriber_id": subscriber_id}).scalar_one()
    return found


# unanswered: the email was accepted so long ago, and since they were asked nothing was heard of them.
_UNANSWERED = text(f"""
SELECT subscriber.id
  FROM quiet_question
  JOIN subscriber ON subscriber.id = quiet_question.subscriber_id AND subscriber.state <> 'erased'
 CROSS JOIN LATERAL (SELECT quiet_question.asked_at AS since) AS asked
 WHERE quiet_question.kept_at IS NULL AND quiet_question.asked_at <= :asked_before
   AND EXISTS (SELECT FROM enrollment
                 JOIN campaign ON campaign.id = enrollment.campaign_id AND campaign.name = 'keep'
                 JOIN message ON message.enrollment_id = enrollment.id
                WHERE enrollment.subscriber_id = subscriber.id AND enrollment.round = quiet_question.round
                  AND message.accepted_at <= :asked_before)
   AND {_NOT_BEING_ERASED}
   AND {_SILENT.replace(":since", "asked.since")}
 ORDER BY subscriber.id
 LIMIT :limit
""")


def unanswered(connection: Connection, *, asked_before: datetime, limit: int) -> list[int]:
    """Who was asked by an email that was accepted before that (campaign time), and was not heard of since."""
    return list(connection.execute(_UNANSWERED, {"asked_before": asked_before, "limit": limit}).scalars())
