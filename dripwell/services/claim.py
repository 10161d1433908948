"""Step 1 of sending (TX1): the next group's oldest messages become a batch OPEN."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime

from dripwell.content.render import Skeleton
from dripwell.core.campaign import Lane
from dripwell.core.errors import ContentError, NotFoundError
from dripwell.services import facts, resolve
from dripwell.services.sender import Batch, Sender
from dripwell.services.versions import Published
from dripwell.storage import batches, clock, messages
from dripwell.storage.batches import LaneRow
from dripwell.storage.database import Connection
from dripwell.storage.messages import Addressee

log = logging.getLogger("dripwell.send")

LEASE = 60.0
"""Wall seconds an OPEN batch belongs to its sender."""
LAPSED = 2
"""A message that was in so many batches whose owners died goes alone: it may be what kills them."""


def claim(sender: Sender, lane: Lane) -> Batch | None:
    """Claim a batch of this lane. None: nothing is due, the lane is shut, or others hold all of it."""
    sender.failpoint("before_claim")
    return sender.database.retrying(lambda connection: _claim(sender, connection, lane))


def _claim(sender: Sender, connection: Connection, lane: Lane) -> Batch | None:
    state = batches.lane(connection, lane)
    if state.shut or (state.breaker != "closed" and not batches.try_once(connection, lane)):
        return None
    now = clock.read(connection).now
    resolve.expire(connection, lane, now)
    limit = 1 if state.breaker != "closed" else min(state.batch_limit, sender.provider.capabilities.max_batch)
    for campaign_id, step_key, size, suspect_of in _turns(connection, state, lane, now, limit):
        try:
            published = sender.versions.wording(connection, campaign_id, step_key)
            skeleton = sender.versions.skeleton(published, step_key)
        except (ContentError, NotFoundError) as error:
            # A stored version that this Dripwell cannot read (it is older, or newer) waits; those behind it do not.
            log.critical("email %s of campaign %d cannot be mailed: %s", step_key, campaign_id, error)
            continue
        rows = messages.claim(
            connection,
            lane=lane,
            campaign_id=campaign_id,
            step_key=step_key,
            now=now,
            limit=size if skeleton is not None else 1,  # what cannot be staged goes out one message a call
            suspect_of=suspect_of,
        )
        rows = _together(rows)
        if rows:
            return _open(sender, connection, lane, published, step_key, skeleton, rows, suspect_of)
    return None


def _turns(
    connection: Connection, state: LaneRow, lane: Lane, now: datetime, limit: int
) -> Iterator[tuple[int, str, int, int | None]]:
    """(campaign, step, how many, suspects of): suspects first, half of them; then groups after the last one served."""
    suspects = messages.suspects(connection, lane, now)
    if suspects is not None:
        half = max(1, suspects.people // 2)
        yield suspects.campaign_id, suspects.step_key, min(limit, half), suspects.suspect_of
    groups = [(row.campaign_id, row.step_key) for row in messages.groups_due(connection, lane, now)]
    last = (state.last_campaign_id, state.last_step_key)
    for campaign_id, step_key in sorted(groups, key=lambda group: (group <= last, group)):
        yield campaign_id, step_key, limit, None


def _together(rows: list[Addressee]) -> list[Addressee]:
    """Of these, who may be in one call."""
    lapsed = next((row for row in rows if row.lapses >= LAPSED), None)
    if lapsed is not None:
        return [lapsed]
    # The provider refuses a call that names an address twice. One email of a series cannot be for one person twice;
    # two notices to the front desk can, and the second waits for the next batch.
    first_of = {row.subscriber_id: row for row in reversed(rows)}
    return sorted(first_of.values(), key=lambda row: row.id)


def _open(
    sender: Sender,
    connection: Connection,
    lane: Lane,
    published: Published,
    step_key: str,
    skeleton: Skeleton | None,
    rows: list[Addressee],
    suspect_of: int | None,
) -> Batch:
    nonce = sender.new_id()
    ids = [row.id for row in rows]
    batch_id = batches.open_batch(
        connection,
        provider=sender.provider.name,
        lane=lane,
        campaign_id=published.campaign_id,
        step_key=step_key,
        version_id=published.version_id,
        variant=0,
        suspects_of=suspect_of,
        owner=sender.owner,
        nonce=nonce,
        lease_seconds=LEASE,
        message_ids=ids,
    )
    messages.to_batch(connection, ids, batch_id)
    batches.served(connection, lane, published.campaign_id, step_key)
    extras = facts.extras(connection, published, step_key, rows)
    return Batch(
        id=batch_id,
        lane=lane,
        nonce=nonce,
        published=published,
        campaign_id=published.campaign_id,
        step_key=step_key,
        skeleton=skeleton,
        variant=0,
        addressees=tuple(rows),
        extras=extras,
        claimed_at=clock.read(connection).wall_now,
    )
