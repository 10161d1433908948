"""Step 1 of sending (TX1): the next group's oldest messages become a batch OPEN."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from dripwell.content.staging import Staged
from dripwell.core.campaign import MARKETING_LANES, Lane
from dripwell.core.errors import ContentError, NotFoundError, UnavailableError
from dripwell.core.pace import group_of
from dripwell.services import facts, pace, resolve
from dripwell.services.sender import Batch, Sender
from dripwell.services.versions import Published
from dripwell.storage import batches, brakes, clock, messages
from dripwell.storage.batches import LaneRow
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.storage.messages import Addressee

log = logging.getLogger("dripwell.send")

LEASE = 60.0
"""Wall seconds an OPEN batch belongs to its sender."""
PAUSED_FOR = 900.0
"""Wall seconds until somebody at a mailbox provider that is left alone is looked at again."""
PROBED = 500
"""How far behind the first a probe is taken: those refused together often stand together."""
LOOKS = 50
"""How often one claim looks behind people who must wait."""
LAPSED = 2
"""A message that was in so many batches whose owners died goes alone: it may be what kills them."""


def claim(sender: Sender, lane: Lane) -> Batch | None:
    """Claim a batch of this lane. None: nothing is due, the lane is shut, or others hold all of it."""
    sender.failpoint("before_claim")
    journaled = sender.journal.highest
    nonce = sender.new_id()
    try:
        batch = sender.database.retrying(lambda connection: _claim(sender, connection, lane, nonce))
    except UnavailableError:
        _give_back(sender, nonce)
        raise
    if batch is not None and batch.id <= journaled:
        # Numbers only grow: this record is older than a call this process has made.
        resolve.release(sender.database, batch.id, "older than the journal", seconds=60.0)
        sender.doubt()
        return None
    return batch


def _give_back(sender: Sender, nonce: UUID) -> None:
    # The answer to the COMMIT may be what was lost: then a batch of ours is OPEN, and only its lease would end it.
    with suppress(UnavailableError):
        with sender.database.transaction() as connection:
            batch_id = batches.opened(connection, nonce)
        if batch_id is not None:
            resolve.release(sender.database, batch_id, "database away", seconds=0.0)


def _claim(sender: Sender, connection: Connection, lane: Lane, nonce: UUID) -> Batch | None:
    state = batches.lane(connection, lane)
    if state.shut or brakes.closed(connection, lane) is not None:
        return None
    times = clock.read(connection)
    limit = 1 if state.breaker != "closed" else min(state.batch_limit, sender.provider.capabilities.max_batch)
    # Before any row is locked: when places are few, claims take turns.
    allowed = pace.allowance(connection, sender.site, lane, times.now)
    limit = limit if allowed is None else min(limit, allowed)
    if limit == 0:
        return None
    resolve.expire(connection, lane, times.now)
    for group in _turns(connection, state, lane, times.now, limit):
        try:
            published = sender.versions.wording(connection, group.campaign_id, group.step_key)
            staged = sender.versions.staged(published, group.step_key)
        except (ContentError, NotFoundError) as error:
            # A stored version that this Dripwell cannot read (it is older, or newer) waits; those behind it do not.
            log.critical("email %s of campaign %d cannot be mailed: %s", group.step_key, group.campaign_id, error)
            continue
        taken = _take(sender, connection, lane, group, published, staged, times)
        if taken is not None:
            if state.breaker != "closed" and not batches.try_once(connection, lane):
                return None
            return _open(sender, connection, lane, nonce, state, group, published, staged, taken, times)
    return None


@dataclass(frozen=True, slots=True)
class _Group:
    """What a claim may be made of: `size` messages of one email at most, or suspects of a refused batch."""

    campaign_id: int
    step_key: str
    size: int
    suspect_of: int | None = None
    probe: bool = False  # one person far from the last one, to tell bad words from a bad address


@dataclass(frozen=True, slots=True)
class _Taken:
    rows: list[Addressee]
    variant: int | None
    extras: Mapping[int, Mapping[str, str]]


def _turns(connection: Connection, state: LaneRow, lane: Lane, now: datetime, limit: int) -> Iterator[_Group]:
    """Suspects first, half of them; then the groups after the one that was served last, each in its turn."""
    suspects = messages.suspects(connection, lane, now)
    if suspects is not None:
        half = min(limit, max(1, suspects.people // 2))
        yield _Group(suspects.campaign_id, suspects.step_key, half, suspects.suspect_of)
    groups = [(row.campaign_id, row.step_key) for row in messages.groups_due(connection, lane, now)]
    last = (state.last_campaign_id, state.last_step_key)
    for campaign_id, step_key in sorted(groups, key=lambda group: (group <= last, group)):
        # One who was refused alone may be at fault, or the words: somebody else alone tells which.
        probe = batches.refused_alone(connection, campaign_id, step_key)
        yield _Group(campaign_id, step_key, 1 if probe else limit, probe=probe)


def _take(
    sender: Sender,
    connection: Connection,
    lane: Lane,
    group: _Group,
    published: Published,
    staged: Staged,
    times: Times,
) -> _Taken | None:
    """Lock those who may be in one call. None: others hold all of them, or all must wait."""

    def claimed(limit: int, among: Sequence[int] | None = None, *, hold: bool = True) -> list[Addressee]:
        return messages.claim(
            connection,
            lane=lane,
            campaign_id=group.campaign_id,
            step_key=group.step_key,
            now=times.now,
            limit=limit,
            suspect_of=group.suspect_of,
            among=among,
            hold=hold,
        )

    if staged.why_not is not None or not staged.tests:
        # What cannot be staged goes out one message a call.
        size = group.size if staged.why_not is None else 1
        if group.probe:
            far = [row.id for row in claimed(PROBED, hold=False)][-1:]
            rows = _who_may(connection, lane, lambda: claimed(1, far))
        else:
            rows = _together(_who_may(connection, lane, lambda: claimed(size)))
        variant = 0 if staged.why_not is None else None
        return _Taken(rows, variant, facts.extras(connection, published, group.step_key, rows)) if rows else None
    # Of several variants a call carries one. So many are looked at that one of them can fill it.
    seen = _who_may(connection, lane, lambda: claimed(group.size * len(staged.variants), hold=False))
    extras = facts.extras(connection, published, group.step_key, seen)
    chosen: list[int] = []
    variant = None
    for row in _together(seen, in_order=False):
        found = _variant_of(published, staged, row, extras)
        if not chosen:
            variant = found
        if found == variant and len(chosen) < group.size and (variant is not None or not chosen):
            chosen.append(row.id)
    rows = claimed(group.size, chosen) if chosen else []
    return _Taken(_together(rows), variant, extras) if rows else None


def _variant_of(
    published: Published, staged: Staged, row: Addressee, extras: Mapping[int, Mapping[str, str]]
) -> int | None:
    """This person's variant. None: a condition has no answer, so the message goes alone and rendering says why."""
    person = facts.person(published, row, extras.get(row.id, {}), {})
    try:
        return staged.variant(person)
    except ValueError:
        return None


def _who_may(connection: Connection, lane: Lane, claimed: Callable[[], list[Addressee]]) -> list[Addressee]:
    """Of those who are claimed, whose mailbox provider we may mail now. The others are looked at again later, and those
    behind them are claimed instead.
    """
    rows = claimed()
    paused = brakes.paused_groups(connection) if rows and lane in MARKETING_LANES else set()
    if not paused:
        return rows
    for _ in range(LOOKS):
        waiting = {row.id for row in rows if group_of(row.address) in paused}
        messages.postpone(connection, sorted(waiting), PAUSED_FOR)
        if len(waiting) < len(rows) or not rows:
            return [row for row in rows if row.id not in waiting]
        rows = claimed()
    return []


def _together(rows: list[Addressee], *, in_order: bool = True) -> list[Addressee]:
    """Of these, who may be in one call, in the order of the payload (by id)."""
    lapsed = next((row for row in rows if row.lapses >= LAPSED), None)
    if lapsed is not None:
        return [lapsed]
    # The provider refuses a call that names an address twice. One email of a series cannot be for one person twice;
    # two notices to the front desk can, and the second waits for the next batch.
    first_of = {row.subscriber_id: row for row in reversed(rows)}
    found = list(first_of.values())[::-1]
    return sorted(found, key=lambda row: row.id) if in_order else found


def _open(
    sender: Sender,
    connection: Connection,
    lane: Lane,
    nonce: UUID,
    state: LaneRow,
    group: _Group,
    published: Published,
    staged: Staged,
    taken: _Taken,
    times: Times,
) -> Batch:
    ids = [row.id for row in taken.rows]
    batch_id = batches.open_batch(
        connection,
        provider=sender.provider.name,
        lane=lane,
        campaign_id=published.campaign_id,
        step_key=group.step_key,
        version_id=published.version_id,
        variant=taken.variant or 0,
        suspects_of=group.suspect_of,
        owner=sender.owner,
        nonce=nonce,
        lease_seconds=LEASE,
        message_ids=ids,
    )
    messages.to_batch(connection, ids, batch_id)
    batches.served(connection, lane, published.campaign_id, group.step_key)
    return Batch(
        id=batch_id,
        epoch=state.epoch,
        lane=lane,
        nonce=nonce,
        published=published,
        campaign_id=published.campaign_id,
        step_key=group.step_key,
        staged=staged,
        variant=taken.variant,
        addressees=tuple(taken.rows),
        extras=taken.extras,
        claimed_at=times.wall_now,
        is_trial=state.breaker != "closed",
    )
