"""Everything the record holds about one person, table by table, for that person to read. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import TextClause, text

from dripwell.storage.database import Connection

# subscriber: without the numbers we count people by.
_SUBSCRIBER = text("""
SELECT address, state, relationship, timezone, fields, tags, pace, paused_until, joined_at
  FROM subscriber
 WHERE id = :subscriber_id AND address IS NOT NULL
""")

_MANY: Mapping[str, TextClause] = {
    # wording is the words themselves, as the person saw them.
    "consents": text("""
SELECT consent.topic, consent.action, consent.source, coalesce(wording.words, consent.wording) AS wording,
       consent.given_at, consent.asked_at, consent.confirmed_at, consent.recorded_at, consent.page, consent.network
  FROM consent LEFT JOIN wording ON wording.version = consent.wording_version
 WHERE consent.subscriber_id = :subscriber_id
 ORDER BY consent.id
"""),
    "requests": text("""
SELECT form, source, asked_at, confirmed_at, page, network, timezone, fields
  FROM signup
 WHERE subscriber_id = :subscriber_id
 ORDER BY id
"""),
    "series": text("""
SELECT campaign.name AS campaign, campaign.topic, enrollment.round, enrollment.state, enrollment.joined_at,
       enrollment.waits_for, enrollment.ended_reason, enrollment.ended_at
  FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
 WHERE enrollment.subscriber_id = :subscriber_id
 ORDER BY enrollment.id
"""),
    "emails": text("""
SELECT campaign.name AS campaign, message.step_key AS email, message.state, message.reason, message.due_at,
       message.accepted_at, message.delivery,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('change', log.transition, 'reason', log.reason, 'at', log.at)
                                  ORDER BY log.id), '[]')
          FROM message_log AS log
         WHERE log.message_id = message.id) AS log
  FROM enrollment
  JOIN message ON message.enrollment_id = enrollment.id
  JOIN campaign ON campaign.id = message.campaign_id
 WHERE enrollment.subscriber_id = :subscriber_id
 ORDER BY message.id
"""),
    # What the provider told besides kind and time is left out: it is its own account of the delivery.
    "provider_events": text("""
SELECT campaign.name AS campaign, message.step_key AS email, provider_event.type AS kind, provider_event.at
  FROM enrollment
  JOIN message ON message.enrollment_id = enrollment.id
  JOIN campaign ON campaign.id = message.campaign_id
  JOIN provider_event ON provider_event.message_id = message.id
 WHERE enrollment.subscriber_id = :subscriber_id
 ORDER BY provider_event.at, provider_event.id
"""),
    "clicks": text("""
SELECT campaign.name AS campaign, message.step_key AS email, click.number AS link, click.at
  FROM enrollment
  JOIN message ON message.enrollment_id = enrollment.id
  JOIN campaign ON campaign.id = message.campaign_id
  JOIN click ON click.message_id = message.id
 WHERE enrollment.subscriber_id = :subscriber_id
 ORDER BY click.at, click.id
"""),
    "happenings": text("""
SELECT event, at, sender_id
  FROM happening
 WHERE subscriber_id = :subscriber_id
 ORDER BY id
"""),
    "calls": text("""
SELECT to_timestamp(start_minute * 60) AS starts_at, minutes, state, phone, ask_for, voicemail, timezone, wording,
       booked_at
  FROM booking
 WHERE subscriber_id = :subscriber_id
 ORDER BY id
"""),
    "call_wishes": text("""
SELECT phone, words, at
  FROM call_wish
 WHERE subscriber_id = :subscriber_id
 ORDER BY id
"""),
    "questions": text("""
SELECT asked_at, kept_at
  FROM quiet_question
 WHERE subscriber_id = :subscriber_id
"""),
    # The ledger knows the person by a keyed hash alone. It outlives an erasure; the reader sees under what.
    "suppressions": text("""
SELECT encode(suppression.addr_hash, 'hex') AS address_hash, suppression.scope, suppression.action, suppression.reason,
       suppression.source, suppression.evidence, suppression.at
  FROM subscriber JOIN suppression ON suppression.addr_hash = subscriber.addr_hash
 WHERE subscriber.id = :subscriber_id
 ORDER BY suppression.seq
"""),
    "provider_lists": text("""
SELECT provider_entry.list, provider_entry.listed_at, provider_entry.pushed_at
  FROM subscriber JOIN provider_entry ON provider_entry.addr_hash = subscriber.addr_hash
 WHERE subscriber.id = :subscriber_id
 ORDER BY provider_entry.list
"""),
    # Why somebody left, in the words they chose; what an operator noted about one person.
    "notes": text("""
SELECT activity.action, activity.about, activity.at, activity.detail - 'subscriber' - 'message' - 'messages' AS detail
  FROM activity
 WHERE activity.detail ->> 'subscriber' = CAST(:subscriber_id AS text)
    OR activity.detail ->> 'message' IN (SELECT CAST(message.id AS text)
                                           FROM enrollment JOIN message ON message.enrollment_id = enrollment.id
                                          WHERE enrollment.subscriber_id = :subscriber_id)
 ORDER BY activity.id
"""),
}


def of(connection: Connection, subscriber_id: int) -> dict[str, Any] | None:
    """One person's rows by what they are: `subscriber` an object, everything else a list. None: nobody, or erased."""
    person = connection.execute(_SUBSCRIBER, {"subscriber_id": subscriber_id}).one_or_none()
    if person is None:
        return None
    found: dict[str, Any] = {"subscriber": dict(person._mapping)}
    for name, statement in _MANY.items():
        found[name] = [dict(row._mapping) for row in connection.execute(statement, {"subscriber_id": subscriber_id})]
    return found
