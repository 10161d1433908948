"""Enrollments: one subscriber's passage through one campaign."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text

from dripwell.storage import arrays
from dripwell.storage.database import Connection


class DueCampaign(NamedTuple):
    """A running campaign with work for the planner. `newest_version_id`: its settings hold for everybody in it."""

    id: int
    public_id: UUID
    name: str
    newest_version_id: int


class Due(NamedTuple):
    """One enrollment the planner has claimed, with what a decision needs of its own row."""

    id: int
    subscriber_id: int
    campaign: DueCampaign
    version_id: int
    round: int
    cursor_key: str | None
    joined_at: datetime
    anchor_at: datetime
    next_due_at: datetime
    message_id: int | None = None  # T16: the planned message that is decided again


Reached = dict[int, tuple[datetime, int]]
"""How far a pass has come: of each campaign, by id, the (next_due_at, id) of the last enrollment it claimed."""


# add: each in their round, due at once. Whoever is in the campaign, or has been in this round, is left as they are.
_ADD = text("""
INSERT INTO enrollment (subscriber_id, campaign_id, round, version_id, joined_at, anchor_at, next_due_at)
SELECT id, :campaign_id, round, :version_id, :now, :now, :now
  FROM unnest(CAST(:subscriber_ids AS bigint[]), CAST(:rounds AS bigint[])) AS joining (id, round)
 ORDER BY id
    ON CONFLICT DO NOTHING
RETURNING subscriber_id
""")


def add(
    connection: Connection,
    *,
    subscriber_ids: Sequence[int],
    campaign_id: int,
    version_id: int,
    now: datetime,
    rounds: Sequence[int] | None = None,
) -> list[int]:
    """Enroll these people, each in the round beside them (None: 1), unless they ever were or are in the campaign now.

    Returns who joined, by subscriber id. Of two transactions that enroll the same person one waits and adds nothing.
    """
    values = {
        "subscriber_ids": arrays.numbers(subscriber_ids),
        "rounds": arrays.numbers([1] * len(subscriber_ids) if rounds is None else rounds),
        "campaign_id": campaign_id,
        "version_id": version_id,
        "now": now,
    }
    return list(connection.execute(_ADD, values).scalars())


class LastRound(NamedTuple):
    """How far a person has come in a campaign. `ended_at` None: they are in it now."""

    round: int
    ended_at: datetime | None
    ended_reason: str | None


# last_rounds: of each of these people the newest passage.
_LAST_ROUNDS = text("""
SELECT DISTINCT ON (subscriber_id) subscriber_id, round, ended_at, ended_reason
  FROM enrollment
 WHERE campaign_id = :campaign_id AND subscriber_id = ANY(CAST(:subscriber_ids AS bigint[]))
 ORDER BY subscriber_id, round DESC
""")


def last_rounds(connection: Connection, campaign_id: int, subscriber_ids: Sequence[int]) -> dict[int, LastRound]:
    """The newest round of each of these people in this campaign. Who never was in it is missing."""
    values = {"campaign_id": campaign_id, "subscriber_ids": arrays.numbers(subscriber_ids)}
    return {who: LastRound(*rest) for who, *rest in connection.execute(_LAST_ROUNDS, values).all()}


class Standing(NamedTuple):
    """Whether a person may be mailed about a topic. `agreed_at` None: no consent; `suppressed_for` None: not."""

    state: str
    agreed_at: datetime | None
    suppressed_for: str | None


# standing: of each person the newest word on the topic, and the ledger's.
_STANDING = text("""
SELECT subscriber.id, subscriber.state, CASE WHEN word.action = 'give' THEN word.given_at END AS agreed_at,
       (SELECT newest.reason
          FROM (SELECT DISTINCT ON (scope) scope, action, reason
                  FROM suppression
                 WHERE suppression.addr_hash = subscriber.addr_hash AND scope = ANY(:scopes)
                 ORDER BY scope, seq DESC) AS newest
         WHERE newest.action = 'suppress'
         ORDER BY newest.scope
         LIMIT 1) AS suppressed_for
  FROM subscriber
  LEFT JOIN LATERAL (SELECT consent.action, consent.given_at
                       FROM consent
                      WHERE consent.subscriber_id = subscriber.id AND consent.topic = :topic
                      ORDER BY consent.id DESC
                      LIMIT 1) AS word ON true
 WHERE subscriber.id = ANY(CAST(:subscriber_ids AS bigint[]))
""")


def standing(
    connection: Connection, subscriber_ids: Sequence[int], *, topic: str, scopes: Sequence[str]
) -> dict[int, Standing]:
    """How each of these people stands towards email about `topic`, where these scopes of the ledger bind."""
    values = {"subscriber_ids": arrays.numbers(subscriber_ids), "topic": topic, "scopes": list(scopes)}
    return {who: Standing(*rest) for who, *rest in connection.execute(_STANDING, values).all()}


# newest_word: what a person last said on a topic.
_NEWEST_WORD = text("""
SELECT action = 'give' AS gave, given_at
  FROM consent
 WHERE subscriber_id = :subscriber_id AND topic = :topic
 ORDER BY id DESC
 LIMIT 1
""")


def newest_word(connection: Connection, subscriber_id: int, topic: str) -> tuple[bool, datetime] | None:
    """Whether a person's newest word on this topic is yes, and when they said it; None: they said nothing on it."""
    row = connection.execute(_NEWEST_WORD, {"subscriber_id": subscriber_id, "topic": topic}).first()
    return None if row is None else (row.gave, row.given_at)


# add_service: a service email is planned together with its enrollment, so this starts as mailing.
_ADD_SERVICE = text("""
INSERT INTO enrollment (subscriber_id, campaign_id, version_id, round, state, joined_at, anchor_at, next_due_at,
                        repeats)
VALUES (:subscriber_id, :campaign_id, :version_id, :round, 'mailing', :now, :now, :now, true)
    ON CONFLICT (subscriber_id, campaign_id, round) DO NOTHING
""")

# service: the one that was just added, or that was there before.
_SERVICE = text("""
SELECT enrollment.id, subscriber.public_id, subscriber.addr_hash
  FROM enrollment JOIN subscriber ON subscriber.id = enrollment.subscriber_id
 WHERE enrollment.subscriber_id = :subscriber_id AND enrollment.campaign_id = :campaign_id
   AND enrollment.round = :round
""")


def add_service(
    connection: Connection, *, subscriber_id: int, campaign_id: int, version_id: int, round: int, now: datetime
) -> tuple[int, UUID, bytes | None]:
    """Enroll one person in a service campaign for this round, already mailing, or find the enrollment that is there.

    Returns (enrollment id, the subscriber's public id, address hash).
    """
    key = {"subscriber_id": subscriber_id, "campaign_id": campaign_id, "round": round}
    connection.execute(_ADD_SERVICE, {**key, "version_id": version_id, "now": now})
    row = connection.execute(_SERVICE, key).one()
    return row.id, row.public_id, None if row.addr_hash is None else bytes(row.addr_hash)


# due_campaigns: who has waited longest comes first. One step into the index a campaign: however many people are due in
# a campaign that is paused, nobody reads past them.
_DUE_CAMPAIGNS = text("""
SELECT campaign.id, campaign.public_id, campaign.name, campaign.version_id
  FROM campaign
  LEFT JOIN unnest(CAST(:campaign_ids AS bigint[]), CAST(:dues AS timestamptz[]), CAST(:ids AS bigint[]))
         AS reached (campaign_id, next_due_at, id) ON reached.campaign_id = campaign.id
 CROSS JOIN LATERAL (SELECT enrollment.next_due_at
                       FROM enrollment
                      WHERE enrollment.campaign_id = campaign.id AND enrollment.state = 'waiting'
                        AND enrollment.next_due_at <= :now
                        AND (enrollment.next_due_at, enrollment.id)
                            > (coalesce(reached.next_due_at, '-infinity'), coalesce(reached.id, 0))
                      ORDER BY enrollment.next_due_at, enrollment.id
                      LIMIT 1) AS oldest
 WHERE campaign.state = 'running'
 ORDER BY oldest.next_due_at, campaign.id
""")

# claim_due: hold due enrollments of one campaign, those who have waited longest first; other planners skip them.
_CLAIM_DUE = text("""
SELECT id, subscriber_id, version_id, round, cursor_key, joined_at, anchor_at, next_due_at
  FROM enrollment
 WHERE campaign_id = :campaign_id AND state = 'waiting' AND next_due_at <= :now
   AND (next_due_at, id) > (:due_after, :id_after)
 ORDER BY next_due_at, id
 LIMIT :limit
   FOR UPDATE SKIP LOCKED
""")
_LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)


def claim_due(connection: Connection, now: datetime, limit: int, reached: Reached | None = None) -> list[Due]:
    """Hand at most `limit` due enrollments of running campaigns to this planner; other planners skip them.

    The campaign whose people have waited longest comes first, in it those who have waited longest. `reached` says where
    the pass stands and is not changed: what lies before it is dead rows, and reading past them costs more with each
    slice (SENDING 2, vacuum). What falls due behind it meanwhile is found by the next pass.
    """
    reached = reached or {}
    so_far = {
        "campaign_ids": arrays.numbers(reached),
        "dues": arrays.times(next_due_at for next_due_at, _ in reached.values()),
        "ids": arrays.numbers(enrollment_id for _, enrollment_id in reached.values()),
    }
    claimed: list[Due] = []
    for row in connection.execute(_DUE_CAMPAIGNS, {**so_far, "now": now}).all():
        campaign = DueCampaign._make(row)
        due_after, id_after = reached.get(campaign.id, (_LONG_AGO, 0))
        left = limit - len(claimed)
        values = {"campaign_id": campaign.id, "due_after": due_after, "id_after": id_after, "now": now, "limit": left}
        claimed += [Due(id, who, campaign, *rest) for id, who, *rest in connection.execute(_CLAIM_DUE, values).all()]
        if len(claimed) >= limit:
            break
    return claimed


# stale_campaigns (T16): running ones with a planned email that was decided too long ago to be sent on that word.
_STALE_CAMPAIGNS = text("""
SELECT campaign.id, campaign.public_id, campaign.name, campaign.version_id
  FROM campaign
 CROSS JOIN LATERAL (SELECT message.fresh_until
                       FROM message
                      WHERE message.campaign_id = campaign.id AND message.state = 'PLANNED'
                        AND message.lane IN ('drip', 'newsletter') AND message.fresh_until <= :now
                      ORDER BY message.fresh_until
                      LIMIT 1) AS oldest
 WHERE campaign.state = 'running' AND campaign.kind <> 'service'
 ORDER BY oldest.fresh_until, campaign.id
""")

# claim_stale (T16): hold the enrollments of such emails of one campaign, the longest stale first.
_CLAIM_STALE = text("""
SELECT enrollment.id, enrollment.subscriber_id, enrollment.version_id, enrollment.round, enrollment.cursor_key,
       enrollment.joined_at, enrollment.anchor_at, enrollment.next_due_at, message.id AS message_id
  FROM message JOIN enrollment ON enrollment.id = message.enrollment_id
 WHERE message.campaign_id = :campaign_id AND message.state = 'PLANNED' AND message.lane IN ('drip', 'newsletter')
   AND message.fresh_until <= :now AND enrollment.state = 'mailing'
 ORDER BY message.fresh_until
 LIMIT :limit
   FOR UPDATE OF enrollment SKIP LOCKED
""")


def claim_stale(connection: Connection, now: datetime, limit: int) -> list[Due]:
    """Hand over enrollments whose planned marketing message is no longer fresh, to be decided again (T16)."""
    claimed: list[Due] = []
    for row in connection.execute(_STALE_CAMPAIGNS, {"now": now}).all():
        campaign = DueCampaign._make(row)
        values = {"campaign_id": campaign.id, "now": now, "limit": limit - len(claimed)}
        claimed += [Due(id, who, campaign, *rest) for id, who, *rest in connection.execute(_CLAIM_STALE, values).all()]
        if len(claimed) >= limit:
            break
    return claimed


# lock: hold these in the one order everybody locks in.
_LOCK = text("""
SELECT id
  FROM enrollment
 WHERE id = ANY(CAST(:ids AS bigint[]))
 ORDER BY id
   FOR UPDATE
""")


def lock(connection: Connection, enrollment_ids: Iterable[int]) -> None:
    """Lock these enrollments in the order everybody uses: by id, after the batch, before messages."""
    connection.execute(_LOCK, {"ids": arrays.numbers(sorted(set(enrollment_ids)))})


# wait: when the planner looks again, and what for.
_WAIT = text("""
UPDATE enrollment
   SET next_due_at = waiting.until, waits_for = waiting.reason
  FROM unnest(CAST(:ids AS bigint[]), CAST(:untils AS timestamptz[]), CAST(:reasons AS text[]))
       AS waiting (id, until, reason)
 WHERE enrollment.id = waiting.id AND enrollment.state = 'waiting'
""")


def wait(connection: Connection, rows: Sequence[tuple[int, datetime, str]]) -> None:
    """Let each (id, until, reason) wait; an enrollment that ended meanwhile is left alone."""
    if rows:
        values = {
            "ids": arrays.numbers(row[0] for row in rows),
            "untils": arrays.times(row[1] for row in rows),
            "reasons": [row[2] for row in rows],
        }
        connection.execute(_WAIT, values)


# advance: from exactly where the decision found them. The arms of each row come as one text: rows differ in how many.
_ADVANCE = text("""
UPDATE enrollment
   SET cursor_key = moving.cursor_key, anchor_at = moving.at,
       arms = enrollment.arms || string_to_array(moving.arms, ' ')
  FROM unnest(CAST(:ids AS bigint[]), CAST(:befores AS text[]), CAST(:cursors AS text[]),
              CAST(:ats AS timestamptz[]), CAST(:arms AS text[])) AS moving (id, before, cursor_key, at, arms)
 WHERE enrollment.id = moving.id AND enrollment.state = 'waiting'
   AND enrollment.cursor_key IS NOT DISTINCT FROM moving.before
RETURNING enrollment.id
""")


class Advance(NamedTuple):
    """How far an enrollment gets without an email. `arms`: those of the branches on the way, as `branch-x/then`."""

    id: int
    before: str | None
    cursor_key: str
    at: datetime
    arms: Sequence[str]


def advance(connection: Connection, rows: Sequence[Advance]) -> set[int]:
    """Put these behind the steps they passed; returns who still stood where the decision found them, by id."""
    if not rows:
        return set()
    values = {
        "ids": arrays.numbers(row.id for row in rows),
        "befores": [row.before for row in rows],
        "cursors": [row.cursor_key for row in rows],
        "ats": arrays.times(row.at for row in rows),
        "arms": [" ".join(row.arms) for row in rows],
    }
    return set(connection.execute(_ADVANCE, values).scalars())


# to_mailing: from waiting only.
_TO_MAILING = text("""
UPDATE enrollment SET state = 'mailing', waits_for = NULL
 WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'waiting'
""")


def to_mailing(connection: Connection, enrollment_ids: Sequence[int]) -> None:
    """These have a planned message now."""
    connection.execute(_TO_MAILING, {"ids": arrays.numbers(enrollment_ids)})


# skip_to: the planner looks at what comes after this step, at once.
_SKIP_TO = text("""
UPDATE enrollment SET cursor_key = :step_key, anchor_at = :now, next_due_at = :now
 WHERE id = :id AND state = 'waiting'
""")


def skip_to(connection: Connection, enrollment_id: int, step_key: str, now: datetime) -> None:
    """Put an enrollment behind a step whose key is used up already."""
    connection.execute(_SKIP_TO, {"id": enrollment_id, "step_key": step_key, "now": now})


# finish: from any state that has not ended.
_FINISH = text("""
UPDATE enrollment SET state = 'finished', ended_at = :now, waits_for = NULL
 WHERE id = ANY(CAST(:ids AS bigint[])) AND state IN ('waiting', 'mailing')
""")


def finish(connection: Connection, enrollment_ids: Sequence[int], now: datetime) -> None:
    """Every step is behind these."""
    connection.execute(_FINISH, {"ids": arrays.numbers(enrollment_ids), "now": now})


# leave: from any state that has not ended.
_LEAVE = text("""
UPDATE enrollment SET state = 'exited', ended_reason = :reason, ended_at = :now, waits_for = NULL
 WHERE id = ANY(CAST(:ids AS bigint[])) AND state IN ('waiting', 'mailing')
""")


def leave(connection: Connection, enrollment_ids: Sequence[int], reason: str, now: datetime) -> int:
    """End these with a reason; returns how many were still under way. Their messages are the caller's business."""
    return connection.execute(_LEAVE, {"ids": arrays.numbers(enrollment_ids), "reason": reason, "now": now}).rowcount


# move_on: behind this step, counted from now. A service campaign is one email, so its enrollment is over.
_MOVE_ON = text("""
UPDATE enrollment
   SET cursor_key = past.step_key, anchor_at = :now, next_due_at = :now, waits_for = NULL,
       state = CASE WHEN campaign.kind = 'service' THEN 'finished' ELSE 'waiting' END,
       ended_at = CASE WHEN campaign.kind = 'service' THEN CAST(:now AS timestamptz) END
  FROM unnest(CAST(:ids AS bigint[]), CAST(:step_keys AS text[])) AS past (id, step_key), campaign
 WHERE enrollment.id = past.id AND enrollment.state = 'mailing' AND campaign.id = enrollment.campaign_id
""")


def move_on(connection: Connection, rows: Sequence[tuple[int, str]], now: datetime) -> None:
    """A message of each (enrollment id, step key) is terminal: the planner looks next. Service enrollments finish."""
    if rows:
        values = {"ids": arrays.numbers(row[0] for row in rows), "step_keys": [row[1] for row in rows], "now": now}
        connection.execute(_MOVE_ON, values)


# under_way: of one person, in every campaign or in one.
_UNDER_WAY = text("""
SELECT enrollment.id, enrollment.campaign_id, campaign.name AS campaign_name,
       campaign.version_id AS newest_version_id, enrollment.version_id, enrollment.joined_at, enrollment.state
  FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
 WHERE enrollment.subscriber_id = :subscriber_id AND enrollment.state IN ('waiting', 'mailing')
   AND campaign.kind <> 'service'
   AND (CAST(:campaign_id AS bigint) IS NULL OR enrollment.campaign_id = :campaign_id)
 ORDER BY enrollment.id
""")


def under_way(connection: Connection, subscriber_id: int, campaign_id: int | None = None) -> list[Any]:
    """The marketing enrollments of one person that have not ended, in all campaigns or in `campaign_id`.

    Each has id, campaign_id, campaign_name, newest_version_id, version_id, joined_at, state.
    """
    return list(connection.execute(_UNDER_WAY, {"subscriber_id": subscriber_id, "campaign_id": campaign_id}))


# ids_under_way: of everybody in a campaign.
_IDS_UNDER_WAY = text("""
SELECT id
  FROM enrollment
 WHERE campaign_id = :campaign_id AND state IN ('waiting', 'mailing')
 ORDER BY id
""")


def ids_under_way(connection: Connection, campaign_id: int) -> list[int]:
    """Every enrollment of a campaign that has not ended, by id."""
    return list(connection.execute(_IDS_UNDER_WAY, {"campaign_id": campaign_id}).scalars())
