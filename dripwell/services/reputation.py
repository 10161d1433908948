"""The breakers of reputation (rules 8.4): count, close, and leave it to a named person to open again.

Rules 8.4 divide by what was delivered or bounced. That is a fair sample only where deliveries are told as well as
bounces, and SMTP tells of none: with nothing heard of 290 of 300 people, 10 bounces are 10 among 300, not 10 among 10.
So mail is judged RIPE_AFTER it was accepted, or as soon as three quarters of what was accepted in its minute have been
heard of; until then neither its harm nor its people count. Of a call of which less than half has been heard by then,
everybody counts as resolved of whom nothing else is known; of any other call silence proves nothing good.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dripwell.core.campaign import MARKETING_LANES, Site
from dripwell.core.errors import NotFoundError, RefusedError
from dripwell.core.pace import GROUPS, domains_of, group_of, is_ramp
from dripwell.core.reputation import PAUSE, STOP, WINDOWS, Level, Limit, Signal, level, lower_bound, most
from dripwell.services import pace as warming
from dripwell.storage import brakes, campaigns, clock, pace, reputation
from dripwell.storage.brakes import RAMP
from dripwell.storage.database import Connection, Database
from dripwell.storage.reputation import Ripe, Watched

log = logging.getLogger("dripwell.reputation")

EVERY = 60.0
"""Wall seconds between two counts, over all workers."""
RIPE_AFTER = timedelta(minutes=15)
"""By then what became of a message is known, or its provider does not say."""
THAW = timedelta(days=3)
"""A warm-up goes on after so long without a message refused for our reputation (rules 8.1)."""
MARKETING = "marketing"
"""Both marketing lanes, for whoever releases them."""
_ACTOR = "reputation"
_LANES = tuple(sorted(f"lane:{lane}" for lane in MARKETING_LANES))
_DELIVERED = ("delivered", "complained")
_ENDED = ("delivered", "complained", "bounced")
_WORDS: Mapping[Signal, tuple[str, str]] = {
    "complaints": ("complaints", "emails delivered outside Gmail, of whose complaints nobody hears"),
    "bounces": ("bad addresses", "emails"),
    "blocks": ("emails refused for our reputation or volume", "of them"),
}


@dataclass(frozen=True, slots=True)
class Count:
    """What tripped: so many events among so many resolved messages in a window."""

    signal: Signal
    level: Level
    events: int
    resolved: int
    window: timedelta

    def __str__(self) -> str:
        limit = (STOP if self.level == "stop" else PAUSE)[self.signal]
        hours = int(self.window.total_seconds()) // 3600
        window = f"{hours} hours" if hours <= 24 else f"{hours // 24} days"
        events, resolved = _WORDS[self.signal]
        return (
            f"{self.events:,} {events} in {window} among {self.resolved:,} {resolved}; "
            f"we are 99 % sure that the true rate is above {limit.rate * 100:g} %"
        )

    def detail(self) -> dict[str, Any]:
        """The numbers, for the record."""
        return {
            "signal": self.signal,
            "level": self.level,
            "events": self.events,
            "resolved": self.resolved,
            "hours": int(self.window.total_seconds()) // 3600,
            "surely_above": round(lower_bound(self.events, self.resolved), 5),
        }


def watch(database: Database, site: Site, *, every: float = EVERY) -> int:
    """Count what providers and people say of our marketing mail, and close what must be closed; returns how much was.

    Call it in every settle pass: it counts at most once in `every` wall seconds over all workers. A campaign that is
    too bad is paused; numbers that would end in a block of the account close both marketing lanes; a mailbox group that
    refuses us is left alone, or during a warm-up the curve stands still. Service lanes go on. Newsletters to many are
    not held back until their first thousand have resolved, because there are no newsletters yet.
    """
    return database.retrying(lambda connection: _watch(connection, site) if pace.may_watch(connection, every) else 0)


def release(connection: Connection, scope: str, *, actor: str, reason: str) -> list[str]:
    """Open `scope` again (lane:drip, group:gmail, ramp, or marketing: both lanes); its windows begin anew.

    Returns the scopes that were opened. Raises NotFoundError when none is closed, RefusedError for a campaign.
    """
    if not reason.strip():
        raise RefusedError("say why it may go on: --reason")
    if scope.startswith("campaign:"):
        raise RefusedError("a campaign goes on by its own command: dripwell resume <name>")
    now = clock.read(connection).now
    scopes = _LANES if scope == MARKETING else (scope,)
    opened = [one for one in scopes if brakes.release(connection, one, actor, reason.strip(), now)]
    if not opened:
        raise NotFoundError(f"`{scope}` is not closed. See what is: dripwell brake list")
    for one in opened:
        campaigns.add_activity(connection, actor=actor, action="released", about=one, detail={"reason": reason.strip()})
    for lane in sorted(MARKETING_LANES):
        campaigns.ring(connection, lane)
    return opened


def _watch(connection: Connection, site: Site) -> int:
    now = clock.read(connection).now
    for one in brakes.resumed(connection, now):
        brakes.release(connection, one.scope, one.actor, "resumed", one.at)
    ripe = reputation.ripe(connection, now - RIPE_AFTER, now)
    closed = _judge_campaigns(connection, ripe, now)
    return closed + _judge_groups(connection, site, ripe, now)


# -- campaigns, and all of them together -------------------------------------------------------------------------------


def _judge_campaigns(connection: Connection, ripe: Ripe, now: datetime) -> int:
    mailing = reputation.watched(connection)
    released = brakes.released(connection)
    braked = {brake.scope for brake in brakes.standing(connection)}
    closed = 0
    trouble: Count | None = None
    for campaign in mailing:
        found = _worst(connection, [campaign], released, ripe, now)
        if found is None:
            continue
        if found.level == "stop":
            trouble = found
        elif _scope(campaign) not in braked:
            closed += _pause(connection, campaign, found, now)
            braked.add(_scope(campaign))
    # Campaigns that are paused for their own numbers say nothing about the others.
    others = [campaign for campaign in mailing if _scope(campaign) not in braked]
    if trouble is None and len(others) > 1:
        trouble = _worst(connection, others, released, ripe, now)
    return closed if trouble is None else closed + _close_lanes(connection, trouble, now)


def _scope(campaign: Watched) -> str:
    return f"campaign:{campaign.id}"


def _worst(
    connection: Connection, mailing: list[Watched], released: Mapping[str, datetime], ripe: Ripe, now: datetime
) -> Count | None:
    """What trips for these campaigns together: a stop if there is one, else the first pause."""
    worst: Count | None = None
    of_lanes = [released[lane] for lane in _LANES if lane in released]
    for window in WINDOWS:
        sinces = {
            one.id: max([now - window, *of_lanes, *([released[_scope(one)]] if _scope(one) in released else [])])
            for one in mailing
        }
        hurt = list(reputation.harm(connection, sinces, ripe).values())
        for signal in ("complaints", "bounces"):
            found = _count(connection, signal, sum(row[signal] for row in hurt), sinces, ripe, window)
            if found is not None and (worst is None or (found.level == "stop" and worst.level == "pause")):
                worst = found
    return worst


def _count(
    connection: Connection,
    signal: Signal,
    events: int,
    sinces: Mapping[int, datetime],
    ripe: Ripe,
    window: timedelta,
) -> Count | None:
    edge = most(PAUSE[signal], events)
    if edge == 0:
        return None
    complaints = signal == "complaints"
    resolved = reputation.resolved(
        connection,
        sinces,
        ripe,
        deliveries=_DELIVERED if complaints else _ENDED,
        besides=domains_of("gmail") if complaints else (),
        limit=max(edge, most(STOP[signal], events)) + 1,
    )
    found = level(signal, events, resolved)
    return None if found is None else Count(signal, found, events, resolved, window)


def _pause(connection: Connection, campaign: Watched, found: Count, now: datetime) -> int:
    brakes.pull(connection, _scope(campaign), str(found), found.detail(), now)
    if not campaigns.set_state(connection, campaign.id, ("running",), "paused"):
        return 0
    log.critical("%s is paused: %s", campaign.name, found)
    detail = {**found.detail(), "reason": str(found)}
    campaigns.add_activity(connection, actor=_ACTOR, action="paused", about=campaign.name, detail=detail)
    return 1


def _close_lanes(connection: Connection, found: Count, now: datetime) -> int:
    return sum(_close(connection, lane, str(found), found.detail(), now) for lane in _LANES)


def _close(connection: Connection, scope: str, reason: str, detail: Mapping[str, Any], now: datetime) -> int:
    if not brakes.pull(connection, scope, reason, detail, now):
        return 0
    log.critical("%s is closed: %s. Open it again: dripwell brake release %s", scope, reason, scope)
    campaigns.add_activity(connection, actor=_ACTOR, action="closed", about=scope, detail={**detail, "reason": reason})
    return 1


# -- mailbox groups ----------------------------------------------------------------------------------------------------


def _judge_groups(connection: Connection, site: Site, ripe: Ripe, now: datetime) -> int:
    warm_up = warming.standing(connection, site, now)
    in_ramp = warm_up is not None and is_ramp(warm_up.preset, warm_up.day)
    if not reputation.refused_since(connection, now - THAW) and brakes.release(
        connection, RAMP, _ACTOR, f"{THAW.days} days without a refusal", now
    ):
        campaigns.add_activity(connection, actor=_ACTOR, action="released", about=RAMP, detail={})
    closed = 0
    released = brakes.released(connection)
    for window in WINDOWS:
        # Groups that were opened again count from then on; the others share one question.
        sinces = {group: max([now - window, *_opened(released, group, in_ramp=in_ramp)]) for group in GROUPS}
        for since in sorted(set(sinces.values())):
            groups = {group for group in GROUPS if sinces[group] == since}
            closed += _judge_refusals(connection, groups, since, window, ripe, in_ramp=in_ramp, now=now)
    return closed


def _opened(released: Mapping[str, datetime], group: str, *, in_ramp: bool) -> list[datetime]:
    scopes = (f"group:{group}", RAMP) if in_ramp else (f"group:{group}",)
    return [released[scope] for scope in scopes if scope in released]


def _judge_refusals(
    connection: Connection,
    groups: set[str],
    since: datetime,
    window: timedelta,
    ripe: Ripe,
    *,
    in_ramp: bool,
    now: datetime,
) -> int:
    refused = dict.fromkeys(groups, 0)
    unknown = dict.fromkeys(groups, 0)
    for domain, trouble, messages in reputation.refusals(connection, since, ripe):
        group = group_of(f"@{domain}")
        if group in groups:
            counted = unknown if trouble == "identity" else refused
            counted[group] += messages
    closed = 0
    for group, messages in unknown.items():
        if messages:
            reason = f"{messages:,} emails refused because we do not prove who we are (5.7.515): SPF, DKIM and DMARC"
            closed += _close(connection, f"group:{group}", reason, {"signal": "identity", "events": messages}, now)
    limit: Limit = PAUSE["blocks"]
    if max(refused.values(), default=0) < limit.floor:
        return closed
    ended = dict.fromkeys(groups, 0)
    for domain, messages in reputation.resolved_by_domain(connection, since, ripe, _ENDED).items():
        group = group_of(f"@{domain}")
        if group in groups:
            ended[group] += messages
    for group in sorted(groups):
        if level("blocks", refused[group], ended[group]) is not None:
            found = Count("blocks", "pause", refused[group], ended[group], window)
            detail = {**found.detail(), "group": group}
            closed += _close(connection, RAMP if in_ramp else f"group:{group}", f"{group}: {found}", detail, now)
    return closed
