"""The states of a message and of a batch, and every legal change between them: SENDING's T1 to T16, as data.

`docs/reference/lifecycle.md` shows the same table and a test compares the two. In SQL every change is a compare-and-set
on the old state; zero rows changed means somebody else was first: stop, do not repair.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MessageState(StrEnum):
    """Where one message is. `IN_BATCH` is refined by the state of its batch."""

    PLANNED = "PLANNED"
    IN_BATCH = "IN_BATCH"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    SUPPRESSED = "SUPPRESSED"
    SKIPPED = "SKIPPED"
    HELD = "HELD"


class BatchState(StrEnum):
    """Where one call to the provider is. Only CALLING and UNKNOWN may have been accepted."""

    OPEN = "OPEN"
    CALLING = "CALLING"
    UNKNOWN = "UNKNOWN"
    DONE = "DONE"


class BatchOutcome(StrEnum):
    """How a DONE batch ended."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NOT_SENT = "not_sent"
    STALLED = "stalled"
    LEASE = "lease"
    EMPTY = "empty"
    ABSENT = "absent"
    HELD = "held"


class EnrollmentState(StrEnum):
    """`waiting`: no open message. `mailing`: exactly one PLANNED, IN_BATCH or HELD. The others are ends."""

    WAITING = "waiting"
    MAILING = "mailing"
    FINISHED = "finished"
    EXITED = "exited"


class Reason(StrEnum):
    """Why a message was not mailed, or why an enrollment ended early."""

    UNSUBSCRIBED = "unsubscribed"
    UNDELIVERABLE = "undeliverable"
    COMPLAINED = "complained"
    ERASED = "erased"
    GOAL = "goal"
    EXIT = "exit"
    SEGMENT = "segment"
    TAG = "tag"
    NO_CONSENT = "no_consent"
    STOPPED = "stopped"  # the campaign was stopped
    STOPPED_SERIES = "stopped_series"  # the person stopped this series
    TAKEN_OUT = "taken_out"  # somebody at the clinic took the person out
    STEP_REMOVED = "step_removed"
    EXPIRED = "expired"
    RENDER = "render"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    POISON = "poison"
    NO_BAA = "no_baa"  # a patient, and the provider has signed no agreement for health data
    NO_EVIDENCE = "no_evidence"  # HELD: nobody knows whether the provider accepted it
    DOUBTFUL = "doubtful"  # HELD: the fast set calls this address suppressed again and again, the ledger does not
    RESTORED = "restored"  # HELD: planned in a time that a restored database does not remember
    SKIPPED = "skipped"  # a person decided about a HELD message


SUPPRESSING = frozenset({Reason.UNSUBSCRIBED, Reason.UNDELIVERABLE, Reason.COMPLAINED, Reason.ERASED})
"""Reasons that make a message SUPPRESSED; every other refusal makes it SKIPPED or REJECTED."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One legal change. `before` and `after` name message states; `batch_before`, `batch_after` the batch's."""

    name: str
    before: frozenset[str]
    after: frozenset[str]
    who: str
    guard: str


def _t(name: str, before: str, after: str, who: str, guard: str) -> Transition:
    return Transition(name, frozenset(before.split(", ")), frozenset(after.split(", ")), who, guard)


TRANSITIONS: tuple[Transition, ...] = (
    _t("T1", "(none)", "PLANNED, SUPPRESSED, SKIPPED", "planner", "the key (enrollment, step) is new"),
    _t("T2", "PLANNED", "IN_BATCH", "sender", "due, fresh, valid, campaign running, lane open; batch becomes OPEN"),
    _t(
        "T3",
        "IN_BATCH",
        "IN_BATCH",
        "sender",
        "batch OPEN → CALLING, same owner, lease valid; committed before the call",
    ),
    _t("T4", "IN_BATCH", "PLANNED, REJECTED", "janitor", "batch still OPEN: lease over or owner gone; 3 lapses reject"),
    _t(
        "T5",
        "IN_BATCH",
        "SUPPRESSED, SKIPPED, PLANNED, HELD",
        "sender",
        "final check: suppressed, ended, no agreement; or a hit of the fast set",
    ),
    _t("T6", "IN_BATCH", "ACCEPTED", "sender", "the provider answered 202"),
    _t("T7", "IN_BATCH", "PLANNED", "sender", "certainly not accepted: 429, no connection, stalled, paused"),
    _t("T8", "IN_BATCH", "REJECTED, PLANNED", "sender", "the provider refused this row, or it does not render"),
    _t(
        "T9",
        "IN_BATCH",
        "IN_BATCH",
        "sender, janitor",
        "batch CALLING → UNKNOWN: no clear answer, or the owner is gone",
    ),
    _t("T10", "IN_BATCH", "ACCEPTED", "ingest, settle", "evidence carries our custom args"),
    _t("T11", "IN_BATCH", "PLANNED", "settle", "negative proof and policy `resend`; logged"),
    _t("T12", "IN_BATCH", "HELD", "settle", "no evidence by the end of the window, or policy `hold`"),
    _t(
        "T13",
        "PLANNED, IN_BATCH, REJECTED, SUPPRESSED, SKIPPED, HELD",
        "ACCEPTED",
        "ingest",
        "late evidence: the record follows it",
    ),
    _t("T14", "HELD", "PLANNED, SKIPPED", "operator, erasure", "name and reason"),
    _t("T15", "PLANNED", "SUPPRESSED, SKIPPED", "services", "unsubscribe, goal, exit, stop, past valid_until"),
    _t("T16", "PLANNED", "PLANNED", "planner", "past fresh_until: decided again"),
)

TERMINAL = frozenset({MessageState.ACCEPTED, MessageState.REJECTED, MessageState.SUPPRESSED, MessageState.SKIPPED})
IN_WORK = frozenset({MessageState.PLANNED, MessageState.IN_BATCH})

DELIVERY_PRECEDENCE: tuple[str, ...] = ("processed", "deferred", "delivered", "dropped", "bounced", "complained")
"""`message.delivery` only moves to the right, however late or shuffled events arrive (rules 2.4)."""


def legal(before: str | None, after: str) -> bool:
    """Say whether a message may go from `before` (None: no row yet) to `after`."""
    return any((before or "(none)") in t.before and after in t.after for t in TRANSITIONS)


def delivery_after(before: str | None, event: str) -> str | None:
    """Return `message.delivery` after an event; an event without a place in the order changes nothing."""
    if event not in DELIVERY_PRECEDENCE:
        return before
    if before is None or DELIVERY_PRECEDENCE.index(event) > DELIVERY_PRECEDENCE.index(before):
        return event
    return before
