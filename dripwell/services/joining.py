"""Who may join a campaign now, and why the others may not: consent, the ledger, the audience, and earlier rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

from dripwell.core.campaign import Campaign
from dripwell.core.states import SUPPRESSING, Reason
from dripwell.services import audience
from dripwell.services.versions import Published
from dripwell.storage import enrollments, suppressions
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.storage.enrollments import LastRound, Standing

Why = Literal[
    "unknown", "unconfirmed", "suppressed", "no_consent", "not_in_audience", "in_it", "been_in_it", "too_soon"
]
"""Why somebody does not join. The first that is true counts, in this order."""

_THEIR_OWN_WORD = SUPPRESSING | {Reason.NO_CONSENT, Reason.STOPPED_SERIES}
"""Who left a series for one of these comes back to it by agreeing afresh, and never because time has passed."""


@dataclass(frozen=True, slots=True)
class Joining:
    """What became of the people who were to join. Everybody asked for is in exactly one of the two."""

    joined: tuple[int, ...]
    why_not: dict[int, Why]


def let_in(connection: Connection, published: Published, subscriber_ids: Sequence[int], times: Times) -> Joining:
    """Enroll those of these people who may join, in the caller's transaction; the campaign is one that runs.

    `published` is its newest version. Whoever is not enrolled is left exactly as they are: enrolled all the same they
    would leave at once, and could not join once they have confirmed. The caller rings for the planner.
    """
    campaign = published.campaign
    ids = sorted(set(subscriber_ids))
    why_not: dict[int, Why] = {}
    scopes = suppressions.binding_scopes(marketing=True, topic=campaign.topic, campaign=campaign.name)
    standing = enrollments.standing(connection, ids, topic=campaign.topic, scopes=scopes)
    for who in ids:
        why = _unwilling(standing.get(who))
        if why is not None:
            why_not[who] = why
    willing = [who for who in ids if who not in why_not]
    admitted = audience.admits(connection, published.site, campaign, willing, times) if willing else set()
    why_not.update({who: "not_in_audience" for who in willing if who not in admitted})
    willing = [who for who in willing if who in admitted]
    rounds: dict[int, int] = {}
    last = enrollments.last_rounds(connection, published.campaign_id, willing)
    zone = ZoneInfo(published.site.clinic.timezone)
    for who in willing:
        before = last.get(who)
        again = _not_again(campaign, before, standing[who], times, zone)
        if again is not None:
            why_not[who] = again
        else:
            rounds[who] = before.round + 1 if before is not None else 1
    joined = enrollments.add(
        connection,
        subscriber_ids=list(rounds),
        rounds=list(rounds.values()),
        campaign_id=published.campaign_id,
        version_id=published.version_id,
        now=times.now,
    )
    # Somebody else enrolled them while this transaction read.
    why_not.update(dict.fromkeys(set(rounds) - set(joined), "in_it"))
    return Joining(tuple(sorted(joined)), why_not)


def _unwilling(standing: Standing | None) -> Why | None:
    if standing is None or standing.state == "erased":
        return "unknown"
    if standing.suppressed_for is not None or standing.state in ("unsubscribed", "undeliverable"):
        return "suppressed"
    if standing.state != "active":
        return "unconfirmed"
    return "no_consent" if standing.agreed_at is None else None


def _not_again(
    campaign: Campaign, last: LastRound | None, standing: Standing, times: Times, zone: ZoneInfo
) -> Why | None:
    """Why a further round may not begin; None: it may, or this is the first."""
    if last is None:
        return None
    if last.ended_at is None:
        return "in_it"
    if campaign.reenter is None:
        return "been_in_it"
    if times.now < campaign.reenter.after(last.ended_at, zone):
        return "too_soon"
    if last.ended_reason in _THEIR_OWN_WORD and (standing.agreed_at is None or standing.agreed_at <= last.ended_at):
        return "no_consent"
    return None
