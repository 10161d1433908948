"""Who may join a campaign: its `audience`, asked once, when the trigger happens."""

from __future__ import annotations

from collections.abc import Collection

from dripwell.core.campaign import Campaign, Site
from dripwell.services.segments import conditions
from dripwell.storage import segments, suppressions
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection


def admits(
    connection: Connection, site: Site, campaign: Campaign, subscriber_ids: Collection[int], times: Times
) -> set[int]:
    """Those of these people whom the campaign's audience lets in now; without an audience all of them.

    Sees what this transaction has written: call it behind the change that is the trigger. Consent and suppression are
    asked elsewhere, before every email.
    """
    if campaign.audience is None or not subscriber_ids:
        return set(subscriber_ids)
    return segments.among(connection, list(subscriber_ids), campaign.audience, conditions(site), times.now)


def size(connection: Connection, site: Site, campaign: Campaign, times: Times) -> segments.Count | None:
    """How many the audience would let in now, and how many of them could be mailed; None without an audience."""
    if campaign.audience is None:
        return None
    scopes = suppressions.binding_scopes(marketing=True, topic=campaign.topic, campaign=campaign.name)
    return segments.count(
        connection, campaign.audience, conditions(site), times.now, topic=campaign.topic, scopes=scopes
    )
