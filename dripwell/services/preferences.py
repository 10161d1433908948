"""What a person wants from us: topics, pace, a pause, one series less."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from dripwell.core.campaign import Site
from dripwell.core.duration import resolve
from dripwell.core.states import Reason
from dripwell.services import leave
from dripwell.services.versions import Versions
from dripwell.storage import campaigns, clicks, consents, retention, suppressions
from dripwell.storage.clicks import Origin, Series
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection

LONGEST_PAUSE = timedelta(days=183)
USUAL_PAUSE = timedelta(days=14)
SHORTEST_PAUSE = timedelta(days=1)
_ACTOR = leave.PAGE


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A series somebody is in, in words: `accepted` of `emails` have gone out; None where it depends on the person."""

    enrollment_id: int
    title: str
    topic: str
    accepted: int
    emails: int | None


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the page shows. `left`: marketing is suppressed, so nothing here can be chosen."""

    address: str
    topics: frozenset[str]
    pace: str
    paused_until: datetime | None
    series: tuple[UnderWay, ...]
    left: bool


def read(connection: Connection, *, origin: Origin, versions: Versions, times: Times) -> Preferences | None:
    """What this person has chosen; None when they are erased."""
    if origin.address is None or origin.addr_hash is None:
        return None
    binding = [suppressions.ALL, suppressions.MARKETING]
    return Preferences(
        address=origin.address,
        topics=frozenset(consents.given(connection, origin.subscriber_id)),
        pace=origin.pace,
        paused_until=origin.paused_until if origin.paused_until and origin.paused_until > times.now else None,
        series=tuple(_under_way(connection, one, versions) for one in clicks.series(connection, origin.subscriber_id)),
        left=bool(suppressions.standing(connection, [origin.addr_hash], binding)),
    )


def pause_end(day: date, zone: ZoneInfo, now: datetime) -> datetime | None:
    """When a pause until `day` ends, or None for a day that is past or more than half a year away."""
    today = now.astimezone(zone).date()
    if not today < day <= today + LONGEST_PAUSE:
        return None
    return resolve(datetime.combine(day, time(0, 0)), zone)


def save(
    connection: Connection,
    *,
    subscriber_id: int,
    site: Site,
    topics: Collection[str],
    pace: str,
    paused_until: datetime | None,
    times: Times,
    page: str = "",
    network: str = "",
) -> bool:
    """Keep these choices; they count from now on, also for emails that are planned. `pace` is planned or weekly.

    `page` and `network` (truncated) say where they were made; the ledger keeps both. A topic given up ends its
    series; a topic taken on again starts none by itself. Somebody who has unsubscribed is not brought back by this.
    False, with nothing kept, for a person who was erased meanwhile.
    """
    # All at once, by id: no deadlocks. It also waits for a planner that has read the old wish about one of them.
    suppressions.lock_in_scope(connection, subscriber_id, suppressions.MARKETING)
    if not clicks.set_pace(connection, subscriber_id, pace, paused_until):
        return False
    before = set(consents.given(connection, subscriber_id))
    for topic in site.topics:
        wants = topic.name in topics
        if wants == (topic.name in before):
            continue
        wording = f"{topic.title}. {topic.about}"
        consents.add(
            connection,
            subscriber_id,
            topic.name,
            give=wants,
            source="preferences",
            wording=wording,
            at=times.now,
            page=page,
            network=network,
        )
        if not wants:
            ends = [one.id for one in clicks.series(connection, subscriber_id) if one.topic == topic.name]
            leave.end(connection, enrollment_ids=ends, reason=Reason.NO_CONSENT, times=times, actor=_ACTOR)
    retention.keep(connection, subscriber_id, times.now)  # who chooses has answered whether they want to stay
    clicks.look_again(connection, subscriber_id, times.now)
    campaigns.ring(connection, "plan")
    return True


def resume(connection: Connection, *, subscriber_id: int, times: Times) -> bool:
    """End this person's pause now; False when they are not paused.

    Everything that waited is decided anew, one email at a time: the gap and the limits hold as always.
    """
    suppressions.lock_in_scope(connection, subscriber_id, suppressions.MARKETING)
    if not clicks.end_pause(connection, subscriber_id, times.now):
        return False
    retention.keep(connection, subscriber_id, times.now)
    clicks.look_again(connection, subscriber_id, times.now)
    campaigns.ring(connection, "plan")
    return True


def stop_series(connection: Connection, *, subscriber_id: int, enrollment_id: int, times: Times) -> bool:
    """End one series of this person; False when it is not theirs or has ended already."""
    if enrollment_id not in [one.id for one in clicks.series(connection, subscriber_id)]:
        return False
    retention.keep(connection, subscriber_id, times.now)
    ended = leave.end(
        connection, enrollment_ids=[enrollment_id], reason=Reason.STOPPED_SERIES, times=times, actor=_ACTOR
    )
    return ended == 1


def _under_way(connection: Connection, series: Series, versions: Versions) -> UnderWay:
    campaign = versions.published(connection, series.newest_version_id or series.version_id).campaign
    emails = len(campaign.emails) if campaign.straight else None
    return UnderWay(series.id, campaign.title, series.topic, series.accepted, emails)
