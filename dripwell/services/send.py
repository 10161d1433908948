"""The sender: one batch, step by step, in SENDING's order of writes. Nothing here retries a call.

claim (TX1: OPEN) → pre-filter → render → tokens → mark (TX2: CALLING, committed) → final check (fresh snapshot; the
payload is exactly what it returns) → start budget → one POST → record (TX3). Each step is a function of the batch, so
a test can stop between any two.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from dripwell.content.headers import common_headers, person_headers
from dripwell.content.render import render_step, substitutions
from dripwell.core.campaign import MARKETING_LANES, Lane, Mailbox
from dripwell.core.errors import ContentError, NotFoundError, UnavailableError
from dripwell.core.tokens import Keys
from dripwell.delivery.provider import Accepted, Envelope, Mailing, NotSent, Outcome, Provider, Refused, Unknown
from dripwell.services import facts, resolve
from dripwell.services.versions import Published, Versions
from dripwell.storage import batches, campaigns, clock, messages, suppressions
from dripwell.storage.batches import Owner
from dripwell.storage.database import Connection, Database, lost_race
from dripwell.storage.fast import Fast
from dripwell.storage.messages import Addressee

log = logging.getLogger("dripwell.send")

LEASE = 60.0
"""Wall seconds an OPEN batch belongs to its sender."""
START_BUDGET = 10.0
"""A sender that stood still longer than this between mark and call does not call."""
LIMITER_WAIT = 20.0
REFUSALS = 12
"""A campaign pauses after so many refused calls in a row, or when two messages alone were refused in the same words."""
RECORD_FOR = 60.0
"""How long what only this process knows is offered to a database that is away; then evidence settles the batch."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Everything a send pass needs. `failpoint(name)` is a no-op outside tests; `rate` is messages a second.

    `replay` carries out the unsubscribes that were answered while PostgreSQL was away.
    """

    database: Database
    fast: Fast
    provider: Provider
    versions: Versions
    keys: Keys
    owner: Owner
    new_id: Callable[[], UUID]
    failpoint: Callable[[str], None]
    replay: Callable[[], int]
    rate: float


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch under way. `calling_since` is this process's monotonic clock at the start of step 6."""

    id: int
    lane: Lane
    nonce: UUID
    published: Published
    campaign_id: int
    step_key: str
    calling_since: float = 0.0


def send(sender: Sender, lane: Lane, *, out_of_time: Callable[[], bool]) -> int:
    """Send what is due in this lane until nothing is, or time is up. Returns how many batches were resolved."""
    resolved = 0
    while not out_of_time():
        batch = claim(sender, lane)
        if batch is None:
            break
        carry_out(sender, batch)
        resolved += 1
    return resolved


def carry_out(sender: Sender, batch: Batch) -> None:
    """Take one claimed batch through every step.

    Raises UnavailableError when PostgreSQL went away before the call; then nobody was called, and the batch was given
    back if it returned within a minute.
    """
    sender.failpoint("after_claim")
    try:
        called = _up_to_the_call(sender, batch)
    except UnavailableError:
        # Only we know that nobody was called: left alone, this would be a lapse, or hours of asking for evidence.
        _keep_trying(batch, lambda: _give_back(sender, batch))
        raise
    if called is None:
        return
    mailing, outcome = called
    sender.failpoint("after_response")
    record(sender, batch, mailing, outcome)
    sender.failpoint("after_record_commit")


def _up_to_the_call(sender: Sender, batch: Batch) -> tuple[Mailing, Outcome] | None:
    pre_filter(sender, batch)
    envelopes = render(sender, batch)
    if not envelopes:
        resolve.close(sender.database, batch.id, "empty", before=("OPEN",))
        return None
    if not take_tokens(sender, batch, len(envelopes)):
        return None
    marked = mark(sender, batch)
    if marked is None:
        return None
    sender.failpoint("after_mark")
    mailing = final_check(sender, marked, envelopes)
    if mailing is None:
        return None
    sender.failpoint("after_final_check")
    outcome = call(sender, marked, mailing)
    return None if outcome is None else (mailing, outcome)


def _give_back(sender: Sender, batch: Batch) -> None:
    # The answer to the mark may be what was lost, so it may be in either state.
    resolve.release(sender.database, batch.id, "database away", seconds=0.0)
    resolve.not_sent(sender.database, batch.id, "database away", outcome="stalled", seconds=0.0)


def claim(sender: Sender, lane: Lane) -> Batch | None:
    """Step 1 (TX1): the next group's oldest messages become a batch OPEN. None: nothing is due, or the lane is shut."""
    sender.failpoint("before_claim")
    nonce = sender.new_id()

    def work(connection: Connection) -> Batch | None:
        state = batches.lane(connection, lane)
        if state.shut:
            return None
        now = clock.read(connection).now
        resolve.expire(connection, lane, now)
        groups = [(row.campaign_id, row.step_key) for row in messages.groups_due(connection, lane, now)]
        last = (state.last_campaign_id, state.last_step_key)
        turn = _first_readable(sender, connection, sorted(groups, key=lambda group: (group <= last, group)))
        if turn is None:
            return None
        published, campaign_id, step_key, staged = turn
        limit = 1 if state.breaker != "closed" else min(state.batch_limit, sender.provider.capabilities.max_batch)
        if not staged:
            limit = 1  # what cannot be staged goes out one message a call
        rows = messages.claim(connection, lane=lane, campaign_id=campaign_id, step_key=step_key, now=now, limit=limit)
        lapsed = next((row for row in rows if row.lapses >= 2), None)
        if lapsed is not None:
            rows = [lapsed]  # it was in two batches whose owners died: it goes alone
        # The provider refuses a call that names an address twice. One email of a series cannot be for one person twice;
        # two notices to the front desk can, and the second waits for the next batch.
        rows = list({row.subscriber_id: row for row in reversed(rows)}.values())[::-1]
        if not rows:
            return None
        ids = [row.id for row in rows]
        batch_id = batches.open_batch(
            connection,
            provider=sender.provider.name,
            lane=lane,
            campaign_id=campaign_id,
            step_key=step_key,
            version_id=published.version_id,
            owner=sender.owner,
            nonce=nonce,
            lease_seconds=LEASE,
            message_ids=ids,
        )
        messages.to_batch(connection, ids, batch_id)
        batches.served(connection, lane, campaign_id, step_key)
        return Batch(batch_id, lane, nonce, published, campaign_id, step_key)

    return sender.database.retrying(work)


def _first_readable(
    sender: Sender, connection: Connection, groups: Sequence[tuple[int, str]]
) -> tuple[Published, int, str, bool] | None:
    # A stored version that this Dripwell cannot read (it is older, or newer) waits; the campaigns behind it do not.
    for campaign_id, step_key in groups:
        try:
            published = sender.versions.wording(connection, campaign_id, step_key)
            return published, campaign_id, step_key, sender.versions.skeleton(published, step_key) is not None
        except (ContentError, NotFoundError) as error:
            log.critical("email %s of campaign %d cannot be mailed: %s", step_key, campaign_id, error)
    return None


def pre_filter(sender: Sender, batch: Batch) -> None:
    """Step 2: one question to the Redis set. A hit sends the batch to the ledger early; a miss proves nothing."""
    with sender.database.transaction() as connection:
        addressees = messages.in_batch(connection, batch.id)
        sender.fast.expect(connection)
    scopes = _scopes(batch)
    hits = sender.fast.hits([a.addr_hash for a in addressees], scopes)
    if not hits:
        return
    with sender.database.transaction() as connection:
        resolve.check_out(connection, batch.id, scopes, "sender", before="OPEN")
        doubted = [a.id for a in messages.in_batch(connection, batch.id) if a.addr_hash in hits]
        if doubted:
            resolve.put_back(connection, batch.id, doubted, seconds=60.0)
    if doubted:
        # The ledger disagrees with the set: the ledger is right, and the set is built anew.
        with sender.database.transaction() as connection:
            sender.fast.rebuild(connection)


def render(sender: Sender, batch: Batch) -> dict[int, tuple[Addressee, Envelope, Mailing]]:
    """Step 3: the skeleton from the cache, each person's values. A row that does not render is REJECTED (T8)."""
    published, key = batch.published, batch.step_key
    with sender.database.transaction() as connection:
        addressees = messages.in_batch(connection, batch.id)
        extras = facts.extras(connection, published, key, addressees)
        wall_now = clock.read(connection).wall_now
    skeleton = sender.versions.skeleton(published, key)
    marketing = batch.lane in MARKETING_LANES
    common = common_headers(published.site, published.campaign, published.site.topic(published.campaign.topic))
    found: dict[int, tuple[Addressee, Envelope, Mailing]] = {}
    failed: list[int] = []
    for addressee in addressees:
        person = facts.person(published, sender.keys, addressee, extras.get(addressee.id, {}), wall_now)
        try:
            if skeleton is not None:
                subject, text, html = skeleton.subject, skeleton.text, skeleton.html
                values = substitutions(skeleton, person)
            else:
                rendered = render_step(published.sources, published.site, published.campaign, key, person)
                subject, text, html, values = rendered.subject, rendered.text, rendered.html, {}
        except (ValueError, ContentError) as error:
            log.warning("message %d does not render: %s", addressee.id, type(error).__name__)
            failed.append(addressee.id)
            continue
        envelope = Envelope(
            to=addressee.address,
            message=addressee.public_id,
            # All of them stand here: nothing says whether the provider merges the call's headers with a person's.
            headers={**common, **(person_headers(published.site, person.words) if marketing else {})},
            substitutions=values,
        )
        found[addressee.id] = (addressee, envelope, _mailing(published, batch, subject, text, html))
    if failed:
        resolve.reject_rows(sender.database, batch.id, failed, "render", before=("OPEN",))
    return found


def take_tokens(sender: Sender, batch: Batch, weight: int) -> bool:
    """Step 4: wait for the shared rate, 20 seconds at most; a longer wait gives the batch back (T4)."""
    waited = 0.0
    while (wait := sender.fast.take(weight, sender.rate)) > 0:
        if waited + wait > LIMITER_WAIT:
            resolve.release(sender.database, batch.id, "limiter", seconds=wait)
            return False
        time.sleep(wait)
        waited += wait
    return True


def mark(sender: Sender, batch: Batch) -> Batch | None:
    """Step 6 (TX2): CALLING, committed before the first byte leaves. None: do not call."""
    since = time.monotonic()
    try:
        with sender.database.transaction() as connection:
            marked = batches.mark_calling(connection, batch.id, batch.nonce)
    except UnavailableError:
        # The answer to our COMMIT was lost. CALLING with our nonce: it went through. Anything else: do not call.
        with sender.database.transaction() as connection:
            marked = batches.state(connection, batch.id, batch.nonce) == "CALLING"
    if not marked:
        resolve.release(sender.database, batch.id, "closed", seconds=1.0)
        return None
    return replace(batch, calling_since=since)


def final_check(
    sender: Sender, batch: Batch, rendered: dict[int, tuple[Addressee, Envelope, Mailing]]
) -> Mailing | None:
    """Step 7: one fresh snapshot on the primary decides who is in the payload. None: nobody is called."""
    # PostgreSQL may have been away and back since this pass began, and what was answered meanwhile binds this check.
    sender.replay()
    try:
        with sender.database.snapshot() as connection:
            open_still = batches.may_still_call(connection, batch.id)
            if open_still:
                resolve.check_out(connection, batch.id, _scopes(batch), "sender", before="CALLING")
                left = messages.in_batch(connection, batch.id)
                # An address that changed since step 3 is not in this payload: it is rendered again.
                rows = [a for a in left if a.id in rendered and a.address == rendered[a.id][0].address]
                resolve.leave_out(connection, batch.id, {a.id for a in left} - {a.id for a in rows})
                mailing = _with_envelopes(batch.id, [rendered[a.id] for a in rows])
                batches.store_payload(connection, batch.id, [a.id for a in rows], _digest(mailing))
    except Exception as error:
        if not lost_race(error):
            raise
        open_still = False  # 40001: somebody moved our rows; nothing was called
    if not open_still:
        resolve.not_sent(sender.database, batch.id, "closed", outcome="stalled", seconds=1.0)
        return None
    if mailing is None:
        resolve.close(sender.database, batch.id, "empty", before=("CALLING",))
        return None
    return mailing


def call(sender: Sender, batch: Batch, mailing: Mailing) -> Outcome | None:
    """Steps 8 and 9: one POST. None: this process stood still since its mark, so it did not call."""
    if time.monotonic() - batch.calling_since > START_BUDGET:
        resolve.not_sent(sender.database, batch.id, "stalled", outcome="stalled", seconds=0.0)
        return None
    return sender.provider.call(mailing)


def record(sender: Sender, batch: Batch, mailing: Mailing, outcome: Outcome) -> None:
    """Step 10 (TX3): write down what became of the call; offered for a minute to a database that is away."""
    _keep_trying(batch, lambda: _record(sender, batch, mailing, outcome))


def _keep_trying(batch: Batch, write: Callable[[], None]) -> None:
    until = time.monotonic() + RECORD_FOR
    while True:
        try:
            return write()
        except UnavailableError:
            if time.monotonic() > until:
                log.error("batch %d: what became of it could not be recorded; evidence will settle it", batch.id)
                return None
            time.sleep(0.5)


def _record(sender: Sender, batch: Batch, mailing: Mailing, outcome: Outcome) -> None:
    database, lane, size = sender.database, batch.lane, len(mailing.envelopes)
    sender.failpoint("before_record_commit")
    match outcome:
        case Accepted(provider_id=provider_id, status=status):
            resolve.accepted(database, batch.id, before=("CALLING", "UNKNOWN"), status=status, provider_id=provider_id)
            with database.transaction() as connection:
                batches.went_well(connection, lane)
        case NotSent() as refusal:
            seconds = refusal.retry_after.total_seconds() if refusal.retry_after else None
            resolve.not_sent(database, batch.id, refusal.reason, seconds=seconds, status=refusal.status, attempted=True)
            with database.transaction() as connection:
                if refusal.rate_limited:
                    batches.shrink(connection, lane, size)
                else:
                    batches.went_badly(connection, lane, refusal.reason, at_once=refusal.account)
        case Refused() as refusal:
            resolve.refused(database, batch.id, refusal, size)
            with database.transaction() as connection:
                if refusal.row is None and size > 1:
                    batches.shrink(connection, lane, size)
                if lane in MARKETING_LANES:  # a service email of one person must not stop everybody's
                    _pause_if_refused(connection, batch, refusal, size)
        case Unknown(reason=reason, status=status):
            resolve.unknown(database, batch.id, reason, status)
            with database.transaction() as connection:
                batches.shrink(connection, lane, size)
                batches.went_badly(connection, lane, reason, at_once=False)


def _pause_if_refused(connection: Connection, batch: Batch, refusal: Refused, size: int) -> None:
    # When it is the words that are refused and not one row, going on would reject the whole campaign, person by person.
    refusals = batches.refusals(connection, batch.campaign_id, batch.published.version_id, batch.step_key, REFUSALS)
    alone = [words for people, words in refusals if people == 1]
    hopeless = (refusal.too_large and size == 1) or len(refusals) >= REFUSALS or len(set(alone)) < len(alone)
    if hopeless and campaigns.set_state(connection, batch.campaign_id, ("running",), "paused"):
        log.critical("campaign %d is paused: its email %s is refused", batch.campaign_id, batch.step_key)
        name = batch.published.campaign.name
        detail = {"email": batch.step_key, "reason": refusal.reason}
        campaigns.add_activity(connection, actor="sender", action="paused", about=name, detail=detail)


def _scopes(batch: Batch) -> Sequence[str]:
    campaign = batch.published.campaign
    return suppressions.binding_scopes(
        marketing=batch.lane in MARKETING_LANES, topic=campaign.topic, campaign=campaign.name
    )


def _mailing(published: Published, batch: Batch, subject: str, text: str, html: str) -> Mailing:
    site = published.site
    marketing = batch.lane in MARKETING_LANES
    sender: Mailbox = site.sender if marketing else site.service_sender
    return Mailing(
        batch=batch.id,
        sender=sender,
        reply_to=site.reply_to,
        subject=subject,
        text=text,
        html=html,
        headers={},
        categories=[f"c{batch.campaign_id}"],
        envelopes=(),
    )


def _with_envelopes(batch_id: int, rendered: Sequence[tuple[Addressee, Envelope, Mailing]]) -> Mailing | None:
    if not rendered:
        return None
    return replace(rendered[0][2], batch=batch_id, envelopes=tuple(envelope for _, envelope, _ in rendered))


def _digest(mailing: Mailing | None) -> bytes:
    def plain(value: Any) -> str:
        return str(value)

    if mailing is None:
        return b""
    people = [[e.to, e.message.hex, dict(e.headers), dict(e.substitutions)] for e in mailing.envelopes]
    whole = [mailing.batch, mailing.subject, mailing.text, mailing.html, dict(mailing.headers), people]
    return hashlib.sha256(json.dumps(whole, default=plain, sort_keys=True).encode()).digest()
