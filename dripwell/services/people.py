"""Read what surrounds enrollments and turn it into the values that `core.journey.decide` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from dripwell.core.conditions import Facts
from dripwell.core.journey import Passage, Person
from dripwell.core.states import Reason
from dripwell.storage import consents, enrollments, suppressions
from dripwell.storage.database import Connection
from dripwell.storage.enrollments import Circumstances, Due

__all__ = ["GIVE_WAY", "Circumstances", "read"]

LOOK_BACK = timedelta(days=35)
"""How far acceptances are read: longer than the longest limit (one a month)."""
DEFERRED = timedelta(hours=72)
"""A deferral is retried for 72 hours; the next step waits that long at most (rules 2.7)."""
GIVE_WAY = timedelta(minutes=15)
"""How long an email waits for another campaign's that is in work for the same person."""
_RETRY = timedelta(hours=6)


def read(
    connection: Connection, dues: Sequence[Due], topic_of: Mapping[int, str], now: datetime
) -> dict[int, tuple[Passage, Person, Circumstances]]:
    """What a decision needs for each of these enrollments, by enrollment id. Read after the enrollments are locked.

    `topic_of` names each campaign's topic, by campaign id: a suppression of another topic does not bind.
    """
    ids = sorted({due.subscriber_id for due in dues})
    around = enrollments.circumstances(connection, ids, now - LOOK_BACK)
    topics = consents.topics(connection, ids)
    hashes = [c.addr_hash for c in around.values() if c.addr_hash is not None]
    reasons = suppressions.reasons(connection, hashes)
    found = {}
    for due in dues:
        about = around[due.subscriber_id]
        agreed = topics.get(due.subscriber_id, frozenset())
        found[due.id] = (
            Passage(due.id, due.joined_at, due.anchor_at, due.cursor_key),
            _person(due, about, topic_of[due.campaign_id], agreed, reasons, now),
            about,
        )
    return found


def _person(
    due: Due,
    about: Circumstances,
    topic: str,
    topics: frozenset[str],
    reasons: dict[tuple[bytes, str], str],
    now: datetime,
) -> Person:
    scopes = suppressions.binding_scopes(marketing=True, topic=topic, campaign=due.campaign_name)
    reason = next(
        (
            reasons[about.addr_hash, scope]
            for scope in scopes
            if about.addr_hash and (about.addr_hash, scope) in reasons
        ),
        None,
    )
    if about.state == "erased":
        suppressed: Reason | None = Reason.ERASED
    elif reason is not None:
        suppressed = Reason(reason) if reason in set(Reason) else Reason.UNSUBSCRIBED
    else:
        suppressed = None
    deferred = None
    if about.deferred_at is not None and now < about.deferred_at + DEFERRED:
        deferred = min(now + _RETRY, about.deferred_at + DEFERRED)
    return Person(
        timezone=about.timezone,
        facts=Facts(fields=dict(about.fields), tags=frozenset(about.tags), topics=topics),
        may_receive=about.state == "active",
        suppressed_for=suppressed,
        paused_until=about.paused_until,
        weekly=about.pace == "weekly",
        accepted=about.accepted,
        open_message=about.open_message_id is not None and about.open_message_id != due.message_id,
        events={event: at for event, at in about.events if at >= due.joined_at},
        active_in=frozenset(about.active_in) - {due.campaign_name},
        deferred_until=deferred,
    )
