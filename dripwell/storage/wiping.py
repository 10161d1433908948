"""What an erasure does to each table: rows that say who somebody is go; rows that are counted stay, and say nobody.

Each statement may run again and then finds nothing. The subscriber's row stays as a tombstone, because enrollments and
messages hang on it, and every campaign's sums are made of those.
"""

from __future__ import annotations

import re

from sqlalchemy import text

from dripwell.storage.database import Connection

# erasing: for this transaction the append-only tables let go of one person.
_ERASING = text("SET LOCAL dripwell.erasing = 'on'")

_MINE = """(SELECT message.id
              FROM enrollment JOIN message ON message.enrollment_id = enrollment.id
             WHERE enrollment.subscriber_id = :subscriber_id)"""

# subscriber: the tombstone.
_SUBSCRIBER = text("""
UPDATE subscriber
   SET state = 'erased', address = NULL, addr_hash = NULL, timezone = NULL, fields = '{}', tags = '{}',
       pace = 'planned', paused_until = NULL, relationship = 'unknown', import_id = NULL,
       joined_at = date_trunc('day', joined_at)
 WHERE id = :subscriber_id
""")
# messages: the hash goes. What became of the message, which reports count, stays.
_MESSAGES = text(f"UPDATE message SET addr_hash = NULL WHERE id IN {_MINE} AND addr_hash IS NOT NULL")
# log: what operators wrote about a message may name its person.
_LOG = text(f"UPDATE message_log SET reason = '' WHERE message_id IN {_MINE} AND transition = 'T14' AND reason <> ''")
# clicks: that a link was followed is counted; the day is enough. Clicks of one moment stay one: machines make them.
_CLICKS = text(f"""
UPDATE click SET at = date_trunc('day', at), wall_at = wall_at - (at - date_trunc('day', at))
 WHERE message_id IN {_MINE} AND at <> date_trunc('day', at)
""")
# events: kind and time stay; whatever else the provider told may hold an address.
_EVENTS = text(f"""
UPDATE provider_event SET detail = event_without_person(trouble), sg_event_id = NULL
 WHERE message_id IN {_MINE} AND (detail <> event_without_person(trouble) OR sg_event_id IS NOT NULL)
""")
_CONSENT = text("DELETE FROM consent WHERE subscriber_id = :subscriber_id")
_HAPPENING = text("DELETE FROM happening WHERE subscriber_id = :subscriber_id")
_WISH = text("DELETE FROM call_wish WHERE subscriber_id = :subscriber_id")
_QUESTION = text("DELETE FROM quiet_question WHERE subscriber_id = :subscriber_id")
# requests: with their topics and their mails.
_REQUESTS = text("DELETE FROM signup WHERE subscriber_id = :subscriber_id")
_ANSWERS = text("DELETE FROM api_answer WHERE subscriber_id = :subscriber_id")
# bookings: a call that is to come is canceled; of the others it stays that there was one.
_BOOKINGS = text("""
UPDATE booking
   SET phone = '', ask_for = '', wording = '', timezone = 'UTC', voicemail = false,
       revision = revision + CASE WHEN state = 'booked' AND start_minute > :minute THEN 1 ELSE 0 END,
       state = CASE WHEN state = 'booked' AND start_minute > :minute THEN 'canceled' ELSE state END
 WHERE subscriber_id = :subscriber_id AND phone <> ''
""")
# activity: who did what, and when, stays; what they wrote about this person goes, and what she was to the clinic.
_ACTIVITY = text(f"""
UPDATE activity SET detail = detail - 'why' - 'reason' - 'from' - 'to'
 WHERE detail ?| ARRAY['why', 'reason', 'from', 'to']
   AND (detail ->> 'subscriber' = CAST(:subscriber_id AS text)
        OR detail ->> 'message' IN (SELECT CAST(mine.id AS text) FROM {_MINE} AS mine)
        OR (jsonb_typeof(detail -> 'messages') = 'array'
            AND EXISTS (SELECT FROM jsonb_array_elements_text(detail -> 'messages') AS told (id)
                         WHERE told.id IN (SELECT CAST(mine.id AS text) FROM {_MINE} AS mine))))
""")

# written, stray, aside: found by the address alone. An operator wrote it; a provider told it of no message of ours
# (newer ones come without, 0008); a webhook that nobody could read has it.
_WRITTEN = text("UPDATE activity SET detail = '{}' WHERE CAST(detail AS text) ~* CAST(:pattern AS text)")
_STRAY = text("""
UPDATE provider_event SET detail = '{}'
 WHERE message_id IS NULL AND CAST(detail AS text) ~* CAST(:pattern AS text)
""")
_ASIDE = text("""
UPDATE webhook_inbox SET raw = ''
 WHERE state = 'quarantined' AND encode(raw, 'escape') ~* CAST(:pattern AS text)
""")

# pushed: notes that the fast set has had. One that it has not had yet is removed when it has.
_PUSHED = text("""
DELETE FROM outbox
 WHERE kind = 'suppression' AND done_at IS NOT NULL AND detail ->> 'addr_hash' = encode(:addr_hash, 'hex')
""")
# proof: the ledger's rows stay for ever; their proof named messages of this person.
_PROOF = text("UPDATE suppression SET evidence = '' WHERE addr_hash = :addr_hash AND evidence <> ''")
# notes, lists: what stood, or was to stand, on the provider's lists.
_NOTES = text("DELETE FROM provider_note WHERE addr_hash = :addr_hash")
_LISTS = text("DELETE FROM provider_entry WHERE addr_hash = :addr_hash")
# counts: how often this address asked in one hour.
_COUNTS = text("DELETE FROM form_count WHERE position(encode(:addr_hash, 'hex') IN key) > 0")

_BY_PERSON = (
    _SUBSCRIBER, _MESSAGES, _LOG, _CLICKS, _EVENTS, _CONSENT, _HAPPENING, _WISH, _QUESTION, _REQUESTS, _ANSWERS,
    _BOOKINGS, _ACTIVITY,
)  # fmt: skip
_BY_ADDRESS = (_WRITTEN, _STRAY, _ASIDE)
_BY_HASH = (_PUSHED, _PROOF, _NOTES, _LISTS, _COUNTS)


def wipe(
    connection: Connection, subscriber_id: int, *, minute: int, address: str | None, addr_hash: bytes | None
) -> None:
    """Remove everything of this person, in the caller's transaction. A second time takes what was written meanwhile.

    `minute` is now, as bookings count it (campaign time). What can only be found by the address or its hash is left out
    where they are None: they are gone after the first time.
    """
    connection.execute(_ERASING)
    for statement in _BY_PERSON:
        values = {"subscriber_id": subscriber_id, "minute": minute}
        connection.execute(statement, values if statement is _BOOKINGS else {"subscriber_id": subscriber_id})
    if address is not None:
        for statement in _BY_ADDRESS:
            connection.execute(statement, {"pattern": _pattern(address)})
    if addr_hash is not None:
        for statement in _BY_HASH:
            connection.execute(statement, {"addr_hash": addr_hash})


def _pattern(address: str) -> str:
    """A PostgreSQL pattern of this address, in whatever case, and of none that merely ends or begins like it."""
    return rf"(^|[^a-z0-9._%+-]){re.escape(address)}($|[^a-z0-9.-])"
