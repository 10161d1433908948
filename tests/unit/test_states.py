"""The table of changes, compared with the rules it stands for, with histories, and with the page that shows it."""

from __future__ import annotations

import itertools
import re
from functools import reduce
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.states import (
    DELIVERY_PRECEDENCE,
    IN_WORK,
    SUPPRESSING,
    TERMINAL,
    TRANSITIONS,
    BatchOutcome,
    BatchState,
    EnrollmentState,
    MessageState,
    Reason,
    delivery_after,
    legal,
)

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "lifecycle.md").read_text(encoding="utf-8")
M = MessageState

# Written down here a second time, from the design and not from the code.
MAY_FOLLOW: dict[str | None, set[str]] = {
    None: {M.PLANNED, M.SUPPRESSED, M.SKIPPED},
    M.PLANNED: {M.PLANNED, M.IN_BATCH, M.SUPPRESSED, M.SKIPPED, M.ACCEPTED},
    M.IN_BATCH: {M.IN_BATCH, M.PLANNED, M.ACCEPTED, M.REJECTED, M.SUPPRESSED, M.SKIPPED, M.HELD},
    M.HELD: {M.PLANNED, M.SKIPPED, M.ACCEPTED},
    M.REJECTED: {M.ACCEPTED},
    M.SUPPRESSED: {M.ACCEPTED},
    M.SKIPPED: {M.ACCEPTED},
    M.ACCEPTED: set(),
}

states = st.sampled_from(MessageState)
events = st.sampled_from([*DELIVERY_PRECEDENCE, "unknown", "unsubscribed", "opened"])


@st.composite
def histories(draw: st.DrawFn) -> list[str]:
    """What becomes of one message when any change that is legal may happen next."""
    found: list[str] = []
    before: str | None = None
    for _ in range(draw(st.integers(1, 30))):
        choices = sorted(state for state in MessageState if legal(before, state))
        if not choices:
            break
        before = draw(st.sampled_from(choices))
        found.append(before)
    return found


def test_exactly_these_changes_are_legal() -> None:
    for before, after in MAY_FOLLOW.items():
        assert {state for state in MessageState if legal(before, state)} == after, before


@given(history=histories())
def test_a_message_is_accepted_at_most_once_and_then_never_changes(history: list[str]) -> None:
    assert history.count(M.ACCEPTED) <= 1
    assert M.ACCEPTED not in history[:-1]


@given(history=histories())
def test_an_end_is_left_only_for_accepted(history: list[str]) -> None:
    for before, after in itertools.pairwise(history):
        if before in TERMINAL:
            assert after == M.ACCEPTED


@given(history=histories())
def test_every_message_can_still_come_to_an_end(history: list[str]) -> None:
    reachable, edge = {history[-1]}, [history[-1]]
    while edge:
        before = edge.pop()
        for after in MessageState:
            if legal(before, after) and after not in reachable:
                reachable.add(after)
                edge.append(after)
    assert reachable & TERMINAL


@given(before=states, after=states)
def test_nothing_is_called_without_a_batch(before: MessageState, after: MessageState) -> None:
    if after is M.IN_BATCH and before is not M.IN_BATCH:
        assert legal(before, after) == (before is M.PLANNED)


def test_in_work_and_ends_do_not_overlap_and_only_held_is_neither() -> None:
    assert not IN_WORK & TERMINAL
    assert set(MessageState) - IN_WORK - TERMINAL == {M.HELD}


def test_the_sixteen_changes_are_named_in_order() -> None:
    assert [transition.name for transition in TRANSITIONS] == [f"T{number}" for number in range(1, 17)]


def test_a_reason_that_suppresses_is_one_about_the_address() -> None:
    assert {Reason.UNSUBSCRIBED, Reason.UNDELIVERABLE, Reason.COMPLAINED, Reason.ERASED} == SUPPRESSING


@given(order=st.permutations(DELIVERY_PRECEDENCE), extra=st.lists(events, max_size=20))
def test_delivery_ends_alike_however_events_are_shuffled_and_doubled(order: list[str], extra: list[str]) -> None:
    arrived = [*extra, *order, *extra]
    assert reduce(delivery_after, arrived, None) == DELIVERY_PRECEDENCE[-1]


@given(arrived=st.lists(events, max_size=20), data=st.data())
def test_delivery_is_the_furthest_event_whatever_the_order(arrived: list[str], data: st.DataObject) -> None:
    known = [event for event in arrived if event in DELIVERY_PRECEDENCE]
    furthest = max(known, key=DELIVERY_PRECEDENCE.index, default=None)
    assert reduce(delivery_after, arrived, None) == furthest
    assert reduce(delivery_after, data.draw(st.permutations(arrived)), None) == furthest


def test_a_late_processed_does_not_take_a_bounce_back() -> None:
    assert delivery_after("bounced", "processed") == "bounced"
    assert delivery_after("delivered", "deferred") == "delivered"
    assert delivery_after("delivered", "complained") == "complained"
    assert delivery_after("delivered", "opened") == "delivered"


def _table(head: str) -> list[list[str]]:
    lines = PAGE.splitlines()
    start = lines.index(head) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def test_the_page_shows_the_table_that_the_program_obeys() -> None:
    shown = [
        (name, frozenset(before.split(", ")), frozenset(after.split(", ")), who, guard)
        for name, before, after, who, guard in _table("| change | from | to | who | guard |")
    ]
    assert shown == [(t.name, t.before, t.after, t.who, t.guard) for t in TRANSITIONS]


def test_the_page_explains_every_state_and_outcome() -> None:
    found = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert found == [*MessageState, *BatchState, *BatchOutcome, *EnrollmentState]


def test_the_page_shows_the_order_of_delivery() -> None:
    assert " → ".join(f"`{event}`" for event in DELIVERY_PRECEDENCE) in PAGE
