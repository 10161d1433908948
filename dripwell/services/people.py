"""Read what surrounds enrollments and turn it into the values that `core.journey.decide` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from dripwell.core.campaign import Campaign, Site
from dripwell.core.conditions import Facts
from dripwell.core.journey import Passage, Person
from dripwell.core.states import Reason
from dripwell.services.versions import Published
from dripwell.storage import consents, suppressions, surroundings
from dripwell.storage.database import Connection
from dripwell.storage.enrollments import Due
from dripwell.storage.surroundings import Acceptances, Someone

LOOK_BACK = timedelta(days=35)
"""How far acceptances are read: longer than the longest limit (one a month)."""
DEFERRED = timedelta(hours=72)
"""A deferral is retried for 72 hours; the next step waits that long at most (rules 2.7)."""
GIVE_WAY = timedelta(minutes=15)
"""How long an email waits for another campaign's that is in work for the same person."""
_RETRY = timedelta(hours=6)
_NOTHING = Acceptances((), newest_deferred=False)
_REASONS = frozenset(Reason)


class Surrounded(NamedTuple):
    """One enrollment as `decide` takes it, with its subscriber's own row."""

    passage: Passage
    person: Person
    someone: Someone


@dataclass(frozen=True, slots=True)
class _Around:
    """Everything that was read about a set of people, each part by subscriber id but the ledger's reasons."""

    someone: Mapping[int, Someone]
    topics: Mapping[int, frozenset[str]]
    accepted: Mapping[int, Acceptances]
    open_messages: Mapping[int, int]
    events: Mapping[int, Mapping[str, datetime]]
    active_in: Mapping[int, set[str]]
    reasons: Mapping[tuple[bytes, str], str]


def read(
    connection: Connection, dues: Sequence[Due], newest: Mapping[int, Published], now: datetime
) -> dict[int, Surrounded]:
    """What a decision needs for each of these enrollments, by enrollment id. Read after the enrollments are locked.

    `newest` is each campaign's newest version, by campaign id: its topic says which suppressions bind, its rules what
    has to be read.
    """
    ids = sorted({due.subscriber_id for due in dues})
    around = _read(
        connection, ids, now, active_in=any(_asks_active_in(one.site, one.campaign) for one in newest.values())
    )
    scopes = {
        campaign_id: suppressions.binding_scopes(marketing=True, topic=one.campaign.topic, campaign=one.campaign.name)
        for campaign_id, one in newest.items()
    }
    return {
        due.id: Surrounded(
            Passage(due.id, due.joined_at, due.anchor_at, due.cursor_key),
            _person(due, around, scopes[due.campaign.id], now),
            around.someone[due.subscriber_id],
        )
        for due in dues
    }


def _read(connection: Connection, ids: Sequence[int], now: datetime, *, active_in: bool) -> _Around:
    someone = surroundings.someone(connection, ids)
    hashes = [one.addr_hash for one in someone.values() if one.addr_hash is not None]
    return _Around(
        someone=someone,
        topics=consents.topics(connection, ids),
        accepted=surroundings.acceptances(connection, ids, now - LOOK_BACK),
        open_messages=surroundings.open_messages(connection, ids),
        events=surroundings.events(connection, ids),
        active_in=surroundings.active_in(connection, ids) if active_in else {},
        reasons=suppressions.reasons(connection, hashes),
    )


def _asks_active_in(site: Site, campaign: Campaign) -> bool:
    """Everybody is in at least one campaign, so that is read for rules that ask."""
    return any(rule.kind == "active_in" for rule in (*site.suppress, *campaign.suppress))


def _person(due: Due, around: _Around, scopes: Sequence[str], now: datetime) -> Person:
    who = due.subscriber_id
    someone = around.someone[who]
    accepted = around.accepted.get(who, _NOTHING)
    open_message = around.open_messages.get(who)
    events = around.events.get(who)
    return Person(
        timezone=someone.timezone,
        facts=Facts(someone.fields, frozenset(someone.tags), around.topics.get(who, frozenset())),
        may_receive=someone.state == "active",
        suppressed_for=_suppressed_for(someone, around.reasons, scopes),
        paused_until=someone.paused_until,
        weekly=someone.pace == "weekly",
        accepted=accepted.at,
        open_message=open_message is not None and open_message != due.message_id,
        events={event: at for event, at in events.items() if at >= due.joined_at} if events else {},
        active_in=frozenset(around.active_in.get(who, ())) - {due.campaign.name},
        deferred_until=_deferred_until(accepted, now),
    )


def _suppressed_for(someone: Someone, reasons: Mapping[tuple[bytes, str], str], scopes: Sequence[str]) -> Reason | None:
    if someone.state == "erased":
        return Reason.ERASED
    if not reasons or someone.addr_hash is None:
        return None
    for scope in scopes:
        reason = reasons.get((someone.addr_hash, scope))
        if reason is not None:
            return Reason(reason) if reason in _REASONS else Reason.UNSUBSCRIBED
    return None


def _deferred_until(accepted: Acceptances, now: datetime) -> datetime | None:
    """When to look again, while the receiving server still puts the last email off."""
    if not accepted.newest_deferred or now >= accepted.at[-1] + DEFERRED:
        return None
    return min(now + _RETRY, accepted.at[-1] + DEFERRED)
