"""The sender: one batch, step by step, in SENDING's order of writes. Nothing here retries a call.

claim (TX1: OPEN) → pre-filter → render → tokens → journal (fsynced) → mark (TX2: CALLING, committed) → final check
(fresh snapshot; the payload is exactly what it returns) → start budget → one POST → record (TX3). Each step is a
function of the batch, so a test can stop between any two.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from dripwell.content.headers import common_headers, person_headers
from dripwell.content.render import Person, render_step, substitutions
from dripwell.content.staging import first_last_and_one_more, same_as_reference
from dripwell.core.campaign import Lane
from dripwell.core.errors import ContentError, UnavailableError
from dripwell.core.pace import group_of
from dripwell.delivery.provider import Envelope, Mailing, Outcome
from dripwell.services import facts, resolve
from dripwell.services.claim import claim
from dripwell.services.clockwatch import elapsed
from dripwell.services.record import keep_trying, pause, record
from dripwell.services.sender import Batch, Sender
from dripwell.storage import batches, messages
from dripwell.storage.database import Connection, lost_race
from dripwell.storage.journal import Person as Called
from dripwell.storage.messages import Addressee

__all__ = [
    "Batch",
    "Letters",
    "Sender",
    "agrees",
    "call",
    "carry_out",
    "claim",
    "digest",
    "final_check",
    "journal",
    "mark",
    "pace_groups",
    "pre_filter",
    "record",
    "render",
    "send",
    "take_tokens",
]

log = logging.getLogger("dripwell.send")

START_BUDGET = 10.0
"""A sender that stood still longer than this between mark and call does not call."""
LIMITER_WAIT = 20.0


@dataclass(frozen=True, slots=True)
class Letters:
    """A batch as it was rendered: what is the same for everybody, and each person's envelope by message id."""

    common: Mailing  # without envelopes
    envelopes: dict[int, Envelope]


def send(sender: Sender, lane: Lane, *, out_of_time: Callable[[], bool]) -> int:
    """Send what is due in this lane until nothing is, or time is up. Returns how many batches were resolved."""
    resolved = 0
    while not out_of_time():
        if sender.limiter.closed_for() > LIMITER_WAIT:
            break  # the provider asked for silence: to claim a backlog and give it back would be work for nothing
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
        keep_trying(batch, lambda: _give_back(sender, batch))
        raise
    if called is None:
        if batch.is_trial:
            with sender.database.transaction() as connection:
                batches.trial_over(connection, batch.lane)
        return
    mailing, outcome = called
    sender.failpoint("after_response")
    record(sender, batch, mailing, outcome)
    sender.failpoint("after_record_commit")


def _up_to_the_call(sender: Sender, batch: Batch) -> tuple[Mailing, Outcome] | None:
    batch = pace_groups(sender, pre_filter(sender, batch))
    letters = render(sender, batch)
    if letters is None:
        resolve.close(sender.database, batch.id, "empty", before=("OPEN",))
        return None
    if not agrees(sender, batch, letters) or not take_tokens(sender, batch, len(letters.envelopes)):
        return None
    journal(sender, batch)
    sender.failpoint("after_journal")
    marked = mark(sender, batch)
    if marked is None:
        return _void(sender, batch)
    sender.failpoint("after_mark")
    mailing = final_check(sender, marked, letters)
    if mailing is None:
        return _void(sender, batch)
    sender.failpoint("after_final_check")
    outcome = call(sender, marked, mailing)
    return _void(sender, batch) if outcome is None else (mailing, outcome)


def _void(sender: Sender, batch: Batch) -> tuple[Mailing, Outcome] | None:
    # The journal's line speaks of a call that was not made.
    sender.journal.after(epoch=batch.epoch, batch=batch.id, nonce=batch.nonce, outcome="void", at=batch.claimed_at)
    return None


def _give_back(sender: Sender, batch: Batch) -> None:
    # The answer to the mark may be what was lost, so it may be in either state.
    resolve.release(sender.database, batch.id, "database away", seconds=0.0)
    resolve.not_sent(sender.database, batch.id, "database away", outcome="stalled", seconds=0.0)


def pre_filter(sender: Sender, batch: Batch) -> Batch:
    """Step 2: one question to the Redis set. A hit sends its person to the ledger early; a miss proves nothing.

    Returns the batch without those who left it.
    """
    with sender.database.transaction() as connection:
        sender.fast.expect(connection)
    hits = sender.fast.hits([a.addr_hash for a in batch.addressees], batch.scopes)
    if not hits:
        return batch
    with sender.database.transaction() as connection:
        _check_out(sender, batch, connection, before="OPEN")
        doubted = [a.id for a in messages.in_batch(connection, batch.id) if a.addr_hash in hits]
        if doubted:
            resolve.put_back(connection, batch.id, doubted, seconds=60.0)
    if doubted:
        # The ledger disagrees with the set: the ledger is right, and the set is built anew.
        log.error("the fast set calls %d addresses suppressed, the ledger does not; building it anew", len(doubted))
        with sender.database.transaction() as connection:
            sender.fast.rebuild(connection)
    with sender.database.transaction() as connection:
        left = messages.still_in(connection, batch.id)
    return replace(batch, addressees=tuple(a for a in batch.addressees if a.id in left))


def pace_groups(sender: Sender, batch: Batch) -> Batch:
    """Part of step 4: who is at a mailbox provider that gets no more just now goes back, and the others go on."""
    if not batch.marketing or not sender.site.delivery.pace:
        return batch
    group_by_id = {a.id: group_of(a.address) for a in batch.addressees}
    waits = sender.limiter.take_groups(Counter(group_by_id.values()))
    waiting = {group: seconds for group, seconds in waits.items() if seconds > 0}
    if not waiting:
        return batch
    with sender.database.transaction() as connection:
        for group, seconds in sorted(waiting.items()):
            ids = [identity for identity, of in group_by_id.items() if of == group]
            # Behind those who were put back before: each comes when there is room, and not all again and again.
            later = seconds + sender.behind[group] / sender.site.delivery.pace[group]
            resolve.leave_for_later(connection, batch.id, ids, seconds=later)
            sender.behind[group] += len(ids)
    return replace(batch, addressees=tuple(a for a in batch.addressees if group_by_id[a.id] not in waiting))


def render(sender: Sender, batch: Batch) -> Letters | None:
    """Step 3: the skeleton from the cache, each person's values. A row that does not render is REJECTED (T8).

    None: nobody is left.
    """
    published = batch.published
    try:
        skeleton = None if batch.variant is None else batch.staged.skeleton(batch.variant)
    except ContentError as error:
        # One branch of the text is broken. The words must change, so nobody is rejected for it.
        _stop(sender, batch, f"a variant cannot be rendered: {error}")
        return None
    headers = common_headers(published.site, published.campaign, published.site.topic(published.campaign.topic))
    common: Mailing | None = None
    envelopes: dict[int, Envelope] = {}
    failed: list[int] = []
    purposes = facts.purposes_of(skeleton, marketing=batch.marketing)
    signers = facts.signers(sender.keys, batch.claimed_at, purposes)
    for addressee in batch.addressees:
        if not addressee.address:
            continue  # erased since it was planned; the final check says so in the record
        person = _person(batch, addressee, signers)
        try:
            if skeleton is not None:
                subject, text, html = skeleton.subject, skeleton.text, skeleton.html
                values = substitutions(skeleton, person)
            else:
                rendered = render_step(published.sources, published.site, published.campaign, batch.step_key, person)
                subject, text, html, values = rendered.subject, rendered.text, rendered.html, {}
        except (ValueError, ContentError) as error:
            log.warning("message %d does not render: %s", addressee.id, type(error).__name__)
            failed.append(addressee.id)
            continue
        if common is None:
            common = _common(batch, subject, text, html)
        envelopes[addressee.id] = Envelope(
            to=addressee.address,
            message=addressee.public_id,
            # All of them stand here: nothing says whether the provider merges the call's headers with a person's.
            headers={**headers, **person_headers(published.site, person.words)} if batch.marketing else headers,
            substitutions=values,
        )
    if failed:
        resolve.reject_rows(sender.database, batch.id, failed, "render", before=("OPEN",))
    return None if common is None else Letters(common, envelopes)


def agrees(sender: Sender, batch: Batch, letters: Letters) -> bool:
    """Whether what is about to be mailed is what rendering for each of some people alone gives, byte for byte.

    The first, the middle and the last person of the first batch of each variant that this process sends, then of every
    sixteenth: what can differ hangs on the variant. A difference gives the batch back and pauses the campaign.
    """
    if batch.variant is None or not batch.staged.is_time_to_compare(batch.variant):
        return True
    signers = facts.signers(sender.keys, batch.claimed_at)
    for addressee in first_last_and_one_more([a for a in batch.addressees if a.id in letters.envelopes]):
        values = letters.envelopes[addressee.id].substitutions
        person = _person(batch, addressee, signers)
        if not same_as_reference(batch.staged, batch.variant, values, person):
            _stop(sender, batch, f"staged wrongly for message {addressee.id}")
            return False
    return True


def _stop(sender: Sender, batch: Batch, reason: str) -> None:
    """Give the batch back and pause its campaign: what is wrong is wrong for everybody in it."""
    resolve.release(sender.database, batch.id, reason[:200], seconds=60.0)
    with sender.database.transaction() as connection:
        pause(connection, batch, reason[:500])


def _person(batch: Batch, addressee: Addressee, signers: facts.Signers) -> Person:
    return facts.person(batch.published, addressee, batch.extras.get(addressee.id, {}), signers)


def take_tokens(sender: Sender, batch: Batch, weight: int) -> bool:
    """Step 4: wait for the shared rate, 20 seconds at most; a longer wait gives the batch back (T4)."""
    waited = 0.0
    while (wait := sender.limiter.take(batch.lane, weight)) > 0:
        if waited + wait > LIMITER_WAIT:
            resolve.release(sender.database, batch.id, "limiter", seconds=wait)
            return False
        time.sleep(wait)
        waited += wait
    return True


def journal(sender: Sender, batch: Batch) -> None:
    """Step 5: the call is on this host's disk before anybody can have made it, so a restored record can be told.

    Raises UnavailableError when it is not: no line, no call.
    """
    published = batch.published
    sender.journal.before(
        epoch=batch.epoch,
        batch=batch.id,
        nonce=batch.nonce,
        provider=sender.provider.name,
        lane=batch.lane,
        campaign=published.public_id,
        campaign_name=published.campaign.name,
        step_key=batch.step_key,
        version_id=published.version_id,
        people=[Called(a.id, a.public_id, a.subscriber_id, a.round) for a in batch.addressees],
        at=batch.claimed_at,
    )


def mark(sender: Sender, batch: Batch) -> Batch | None:
    """Step 6 (TX2): CALLING, committed before the first byte leaves. None: do not call."""
    since = elapsed()
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


def final_check(sender: Sender, batch: Batch, letters: Letters) -> Mailing | None:
    """Step 7: one fresh snapshot on the primary decides who is in the payload. None: nobody is called."""
    # PostgreSQL may have been away and back since this pass began, and what was answered meanwhile binds this check.
    sender.replay()
    mailing: Mailing | None = None
    try:
        with sender.database.snapshot() as connection:
            open_still = batches.may_still_call(connection, batch.id)
            if open_still:
                _check_out(sender, batch, connection, before="CALLING")
                left = messages.still_in(connection, batch.id)
                # An address that changed since step 3 is not in this payload: it is rendered again.
                ids = [a.id for a in batch.addressees if a.id in letters.envelopes and left.get(a.id) == a.address]
                resolve.leave_out(connection, batch.id, left.keys() - set(ids))
                if ids:
                    mailing = replace(letters.common, envelopes=tuple(letters.envelopes[one] for one in ids))
                batches.store_payload(connection, batch.id, ids, digest(mailing))
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
    if elapsed() - batch.calling_since > START_BUDGET:
        resolve.not_sent(sender.database, batch.id, "stalled", outcome="stalled", seconds=0.0)
        return None
    return sender.provider.call(mailing)


def digest(mailing: Mailing | None) -> bytes:
    """SHA-256 over everything a call says, so that a journal can be compared with the record."""
    if mailing is None:
        return b""
    said = [str(mailing.batch), mailing.subject, mailing.text, mailing.html]
    for envelope in mailing.envelopes:
        headers, values = envelope.headers.values(), envelope.substitutions.values()
        said.append("\x1f".join([envelope.to, envelope.message.hex, *headers, *values]))
    return hashlib.sha256("\x1e".join(said).encode()).digest()


def _check_out(sender: Sender, batch: Batch, connection: Connection, *, before: str) -> None:
    baa = sender.provider.capabilities.baa
    resolve.check_out(connection, batch.id, batch.scopes, "sender", before=before, baa=baa)


def _common(batch: Batch, subject: str, text: str, html: str) -> Mailing:
    site = batch.published.site
    return Mailing(
        batch=batch.id,
        sender=site.sender if batch.marketing else site.service_sender,
        reply_to=site.reply_to,
        subject=subject,
        text=text,
        html=html,
        headers={},
        categories=[f"c{batch.campaign_id}"],
        envelopes=(),
    )
