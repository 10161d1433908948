"""Every story that the model of sending can tell: who finds a broken promise prints the shortest one that leads there.

python -m tests.faults.explore        prints how many states each variant has, and each mutant's story
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import NamedTuple

from tests.faults.model import (
    ACCEPTED,
    AT_REST,
    BATCHES,
    CALLS,
    DONE,
    GOOD,
    IDLE,
    MUTANTS,
    NONE,
    PENDING,
    PLANNED,
    REFUSED,
    TAKEN,
    Batch,
    Call,
    Record,
    State,
    Variant,
    change_call,
    successors,
    wrong,
)

STUCK = "G3: without a person's help this message can never come to rest"


class Verdict(NamedTuple):
    """How many states there are, and what is wrong with which story; None: the variant holds in all of them."""

    states: int
    violation: str | None
    trace: tuple[str, ...]

    def story(self) -> str:
        """The violation and how it comes about, in words, one step a line."""
        lines = [self.violation or "holds", *(f"{number:3}. {words}" for number, words in enumerate(self.trace, 1))]
        return "\n".join(lines)


def explore(variant: Variant) -> Verdict:
    """Every state that can be reached, breadth first: the first violation found has no shorter story."""
    start = State()
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    ordinary_before: dict[State, list[State]] = {}
    at_rest: list[State] = []
    tidied: dict[State, State] = {}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        if state.record.message in AT_REST or _beyond(state):
            at_rest.append(state)
        for words, as_it_is, ordinary in successors(state, variant):
            after = tidied.get(as_it_is)
            if after is None:
                violation = wrong(as_it_is)
                if violation and violation.startswith(variant.breaks):
                    return Verdict(len(came_from), violation, (*_trace(came_from, state), words))
                after = tidied[as_it_is] = _tidy(as_it_is, variant)
            if after == state:
                continue
            if ordinary:
                ordinary_before.setdefault(after, []).append(state)
            if after not in came_from:
                came_from[after] = (state, words)
                waiting.append(after)
    stuck = _stuck(came_from, at_rest, ordinary_before)
    if stuck is not None:
        return Verdict(len(came_from), STUCK, _trace(came_from, stuck))
    return Verdict(len(came_from), None, ())


_ACCEPTED_ONCE = State(
    Record(ACCEPTED, 0, unsubscribed=True, batches=(Batch(DONE, "accepted"),)),
    (Call(TAKEN, 1),),
    left=True,
    restored=True,
)
"""All that matters of a message that was accepted, when nobody is on the way to the provider any more."""


def _tidy(state: State, variant: Variant) -> State:
    """States whose futures are the same are one: workers have no names, and what is over is forgotten."""
    one, two = state.workers
    if two < one:
        state = state._replace(workers=(two, one))
    if not state.calls:
        return state
    gone = variant.restore and not state.restored  # what is over here may come back with an older record
    if state.record.message == ACCEPTED and one.at == two.at == IDLE:
        if not gone:
            return _ACCEPTED_ONCE
        rows = tuple(Batch(DONE) for _ in state.calls)
        state = state._replace(record=Record(ACCEPTED, unsubscribed=state.left, batches=rows))
    held = {worker.batch for worker in state.workers}
    kept = None if state.backup is None else state.backup.batches
    for number in reversed(range(len(state.calls))):
        batch, call = state.record.batches[number], state.calls[number]
        if number in held:
            continue
        if call.request == NONE:
            call = call._replace(request=REFUSED)  # nobody is left who could make it
        if state.restored or (batch.state == DONE and (kept is None or _over(kept, number))):
            call = call._replace(line=False, known="")  # no journal will be asked about it any more
        if batch.state == DONE:
            call = call._replace(old=call.old and call.request == PENDING)
        over = batch.state == DONE or (state.restored and state.record.within != number)
        if over and call.request == REFUSED and not call.line and not _named(state, number):
            state = _forget(state, number)
        elif call != state.calls[number]:
            state = change_call(state, number, **call._asdict())
    return state


def _over(batches: tuple[Batch, ...], number: int) -> bool:
    return number < len(batches) and batches[number].state == DONE


def _named(state: State, number: int) -> bool:
    if state.record.within == number:
        return True
    old = state.backup
    if old is None or number >= len(old.batches):
        return False
    return old.within == number or not _over(old.batches, number)


def _forget(state: State, number: int) -> State:
    def moved(batch: int) -> int:
        return batch - 1 if batch > number else batch

    def without(record: Record) -> Record:
        within = None if record.within is None else moved(record.within)
        return record._replace(within=within, batches=record.batches[:number] + record.batches[number + 1 :])

    one, two = (worker._replace(batch=moved(worker.batch)) for worker in state.workers)
    return state._replace(
        record=without(state.record),
        calls=state.calls[:number] + state.calls[number + 1 :],
        workers=(one, two),
        backup=None if state.backup is None else without(state.backup),
    )


def _beyond(state: State) -> bool:
    """It waits for a call that is more than we count."""
    return state.record.message == PLANNED and (state.made >= CALLS or len(state.record.batches) == BATCHES)


def _stuck(
    states: dict[State, tuple[State, str] | None], at_rest: list[State], ordinary_before: dict[State, list[State]]
) -> State | None:
    """The first state from which no ordinary steps lead to rest."""
    comes_to_rest = set(at_rest)
    waiting = deque(at_rest)
    while waiting:
        for before in ordinary_before.get(waiting.popleft(), ()):
            if before not in comes_to_rest:
                comes_to_rest.add(before)
                waiting.append(before)
    return next((state for state in states if state not in comes_to_rest), None)


def _trace(came_from: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    steps: list[str] = []
    step = came_from[state]
    while step is not None:
        state, words = step
        steps.append(words)
        step = came_from[state]
    return tuple(reversed(steps))


def main() -> int:
    """Print every verdict; 1 when a good variant is broken or a mutant survives."""
    failed = 0
    for variant in (*GOOD, *MUTANTS.values()):
        began = time.process_time()
        verdict = explore(variant)
        seconds = time.process_time() - began
        print(f"{variant.name}: {verdict.states:,} states, {seconds:.1f} s: {verdict.story()}\n", flush=True)
        failed |= (verdict.violation is None) == (variant in MUTANTS.values())
    return failed


if __name__ == "__main__":
    sys.exit(main())
