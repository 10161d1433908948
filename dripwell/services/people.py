"""Read what surrounds enrollments and turn it into the values that `core.journey.decide` takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from dripwell.core.campaign import Campaign, Site
from dripwell.core.clicks import by_a_person
from dripwell.core.conditions import Asked, Condition, Facts, InSegment, asked
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
    facts: Mapping[int, Facts]
    accepted: Mapping[int, Acceptances]
    open_messages: Mapping[int, int]
    events: Mapping[int, Mapping[str, datetime]]
    active_in: Mapping[int, set[str]]
    reasons: Mapping[tuple[bytes, str], str]


def read(
    connection: Connection,
    dues: Sequence[Due],
    newest: Mapping[int, Published],
    now: datetime,
    *,
    steps: Iterable[Campaign],
) -> dict[int, Surrounded]:
    """What a decision needs for each of these enrollments, by enrollment id. Read after the enrollments are locked.

    `newest` is each campaign's newest version, by campaign id: its topic says which suppressions bind, its rules what
    has to be read; `steps` are the versions people are on, whose branches and waits ask, too.
    """
    ids = sorted({due.subscriber_id for due in dues})
    asking = [question for one in steps for question in one.conditions()]
    rules = [_asked(one.site, one.campaign, asking) for one in newest.values()]
    around = _read(
        connection,
        ids,
        now,
        active_in=any(_asks_active_in(one.site, one.campaign) for one in newest.values()),
        needed=Asked(clicks=any(one.clicks for one in rules), joined=any(one.joined for one in rules)),
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


def _read(connection: Connection, ids: Sequence[int], now: datetime, *, active_in: bool, needed: Asked) -> _Around:
    someone = surroundings.someone(connection, ids)
    hashes = [one.addr_hash for one in someone.values() if one.addr_hash is not None]
    events = surroundings.events(connection, ids)
    return _Around(
        someone=someone,
        facts=_facts(connection, someone, events, needed, now),
        accepted=surroundings.acceptances(connection, ids, now - LOOK_BACK),
        open_messages=surroundings.open_messages(connection, ids),
        events=events,
        active_in=surroundings.active_in(connection, ids) if active_in else {},
        reasons=suppressions.reasons(connection, hashes),
    )


def facts(connection: Connection, subscriber_ids: Sequence[int], needed: Asked, now: datetime) -> dict[int, Facts]:
    """What conditions may ask about these people at `now` (campaign time), by id: all that `needed` names."""
    someone = surroundings.someone(connection, subscriber_ids)
    events = surroundings.events(connection, subscriber_ids) if needed.events else {}
    return _facts(connection, someone, events, needed, now)


def _facts(
    connection: Connection,
    someone: Mapping[int, Someone],
    events: Mapping[int, Mapping[str, datetime]],
    needed: Asked,
    now: datetime,
) -> dict[int, Facts]:
    ids = list(someone)
    topics = consents.topics(connection, ids)
    joined = surroundings.joined(connection, ids) if needed.joined else {}
    clicks = _clicks(connection, ids) if needed.clicks else {}
    return {
        who: Facts(
            fields=one.fields,
            tags=frozenset(one.tags),
            topics=topics.get(who, frozenset()),
            events=events.get(who, {}),
            clicks=clicks.get(who, {}),
            joined_at=joined.get(who),
            now=now,
        )
        for who, one in someone.items()
    }


def _clicks(connection: Connection, ids: Sequence[int]) -> dict[int, dict[tuple[str, str], datetime]]:
    found: dict[int, dict[tuple[str, str], datetime]] = {}
    for read in surroundings.clicks(connection, ids):
        newest = max((click.at for click in by_a_person(read.clicks)), default=None)
        if newest is not None:
            theirs = found.setdefault(read.subscriber_id, {})
            place = (read.campaign, read.step_key)  # the same in every round
            theirs[place] = max(newest, theirs.get(place, newest))
    return found


def _asked(site: Site, campaign: Campaign, asking: Sequence[Condition]) -> Asked:
    """What the rules of a campaign, and the steps of its versions, ask about people: most ask
    nothing that has to be read for them."""
    suppressed = [rule.value for rule in (*site.suppress, *campaign.suppress) if rule.kind == "segment"]
    left = [rule.value for rule in campaign.exits if rule.kind in ("segment", "left_segment")]
    named = [InSegment(str(name)) for name in (*suppressed, *left)]
    return asked([*named, *asking], {segment.name: segment.when for segment in site.segments})


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
        facts=around.facts[who],
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
