"""The sending protocol as a game that a machine plays to the end: one message, two workers, all that can go wrong.

Read this to learn the protocol. A `State` is what PostgreSQL has on disk (`Record`), what really became of each call
at the provider (`Call`), and where each worker stands. `successors` lists every next step that anybody can take: a
worker, the janitor, the provider, a late event, a person, a crash, a restore. `wrong` says which promise a state
breaks. `tests.faults.explore` walks through every state that can be reached and prints the shortest story that leads
to a broken promise, in words.

Time is not counted; things happen in every order that the protocol's clocks allow. The janitor may lose patience at
once, a worker may stand still for as long as it likes between two steps, an event may come early, late, often or never.
Just one clock matters, G, the grace after a call: `old` says that it has passed.

A `Variant` says which assumptions hold (A2, A3), what is done with a call that nobody can judge (`resend`), and which
single safeguard is left out. `GOOD` must hold in every state; each of `MUTANTS` must be caught, or the model is blind.
Names of steps (T3, T9 …) and promises (G1 …) are those of the design, sections 1 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

CALLS = 3
"""How often the provider is called at most. The last call goes well, so that every story ends."""
BATCHES = 3
"""How many batches are told apart at once; one that never called and is over is forgotten."""
POISON = 3
"""After so many owners died before their call, the message is rejected."""

# A message is in one of these states. Four are the end; HELD waits for a person.
PLANNED, IN_BATCH, HELD = "PLANNED", "IN_BATCH", "HELD"
ACCEPTED, REJECTED, SUPPRESSED, SKIPPED = "ACCEPTED", "REJECTED", "SUPPRESSED", "SKIPPED"
AT_REST = frozenset({ACCEPTED, REJECTED, SUPPRESSED, SKIPPED, HELD})

# A batch.
OPEN, CALLING, UNKNOWN, DONE = "OPEN", "CALLING", "UNKNOWN", "DONE"

# A request at the provider: never made; on its way and possibly accepted yet; taken; certainly never taken.
NONE, PENDING, TAKEN, REFUSED = "none", "pending", "taken", "refused"

# What the provider's answer tells, as `dripwell.delivery` reads it: one of four values.
YES, NOT_SENT, NO, UNCLEAR = "Accepted", "NotSent", "Refused", "Unknown"

# Where a worker stands: with nothing, or after step 1, 6, 7, 9 of a batch.
IDLE, CLAIMED, MARKED, CHECKED, ANSWERED = "idle", "claimed", "marked", "checked", "answered"


class Batch(NamedTuple):
    """A row of `batch`. `rounds`: how often the provider's log was asked, answered and had nothing."""

    state: str = OPEN
    outcome: str = ""
    rounds: int = 0


class Call(NamedTuple):
    """What nobody in here can see: what the provider did with this batch's request, and the journal on the host's disk.

    `copies`: how many of them people got. `line`: journaled before the call; `known`: the answer, journaled after it.
    `released`: an operator decided to risk a second copy of this one (T14), so it is not held against anybody.
    """

    request: str = NONE
    copies: int = 0
    old: bool = False
    line: bool = False
    known: str = ""
    released: bool = False


class Record(NamedTuple):
    """What PostgreSQL has. `within`: the batch the message is in; `lapses`: how many owners died before their call."""

    message: str = PLANNED
    within: int | None = None
    lapses: int = 0
    unsubscribed: bool = False
    batches: tuple[Batch, ...] = ()


class Worker(NamedTuple):
    """A sender. `late`: its payload names somebody who had unsubscribed before its final check began."""

    at: str = IDLE
    batch: int = -1
    answer: str = ""
    late: bool = False


class State(NamedTuple):
    """Everything there is. `made`: calls so far; `left`: the person was told 200 to an unsubscribe, whatever the record
    still knows about it; `backup`: an older record that could be restored, once."""

    record: Record = Record()
    calls: tuple[Call, ...] = ()
    workers: tuple[Worker, Worker] = (Worker(), Worker())
    made: int = 0
    left: bool = False
    backup: Record | None = None
    restored: bool = False


class Move(NamedTuple):
    """One step of somebody, in words. `ordinary`: it needs no luck, no fault and no person."""

    words: str
    after: State
    ordinary: bool = True


@dataclass(frozen=True)
class Variant:
    """The protocol as designed, unless something is switched off."""

    name: str
    resend: bool = False  # T11: negative proof sends the message again; else it is HELD
    a2: bool = True  # the second round of asking the provider's log finds whatever was taken
    a3: bool = True  # no request is taken later than G after its call began
    restore: bool = False  # an older database may be put back, once
    breaks: str = ""  # of a mutant: the promise it must be found to break; empty: any counts
    # What a mutant leaves out, or does instead
    journal: bool = True  # a line on the host's disk before each call, read again after a restore
    open_lines: bool = True  # a restored batch that is OPEN and has a line counts as called
    kept_leaving: bool = True  # unsubscribes are kept outside the database, too
    marker: bool = True  # CALLING is committed before the call
    fence: bool = True  # T3 asks whether the batch is still ours
    payload_read: bool = True  # the payload is what the final check reads, not what was claimed
    check_at_the_end: bool = True  # suppressions are read in the final check
    accept_after: bool = True  # ACCEPTED is written after the answer
    budget: bool = True  # who stood still for long does not call
    timeout_unknown: bool = True  # a lost answer may have been an acceptance
    error_unknown: bool = True  # so may a 5xx
    one_request: bool = True  # the HTTP stack never repeats
    log_names_batch: bool = True  # an entry of the provider's log proves the batch that it names, no other
    both_rounds: bool = True  # negative proof takes two rounds of asking
    janitor: bool = True  # somebody looks after batches whose owner is gone


GOOD = (
    Variant("hold, without A2 and A3", a2=False, a3=False),
    Variant("resend, with A2 and A3", resend=True),
    Variant("hold, without A2 and A3, with a restore", a2=False, a3=False, restore=True),
    Variant("resend, with A2 and A3, with a restore", resend=True, restore=True),
)

MUTANTS = {
    mutant.name: mutant
    for mutant in (
        Variant("blind retry on timeout", breaks="G1", timeout_unknown=False),
        Variant("5xx as not sent", breaks="G1", error_unknown=False),
        Variant("no CALLING marker", breaks="G1", marker=False),
        Variant("no fence at T3", breaks="G1", fence=False, payload_read=False),
        Variant("accepted before the call", breaks="G2", accept_after=False),
        Variant("suppression only at claim", breaks="G4", check_at_the_end=False),
        Variant("no A3", breaks="G1", resend=True, a3=False),
        Variant("no A2", breaks="G1", resend=True, a2=False),
        Variant("an HTTP stack that retries", breaks="G1", one_request=False),
        Variant("restore without journal", breaks="G1", resend=True, restore=True, journal=False),
        # Further ones: each shows what one more safeguard is there for.
        Variant("no fence at T3, but the payload is read", breaks="V1", fence=False),
        Variant("no start budget", breaks="G1", resend=True, budget=False),
        Variant("one round of asking", breaks="G1", resend=True, both_rounds=False),
        Variant("a log entry that proves any batch", breaks="G2", a2=False, a3=False, log_names_batch=False),
        Variant("nobody looks after the dead", breaks="G3", janitor=False),
        Variant("restore that trusts OPEN", breaks="G1", resend=True, restore=True, open_lines=False),
        Variant("restore that forgets who left", breaks="G4", resend=True, restore=True, kept_leaving=False),
    )
}


# What everybody does


def successors(state: State, variant: Variant) -> Iterator[Move]:
    """Every next step that anybody can take."""
    for number, worker in enumerate(state.workers):
        if worker.at == IDLE:
            if worker not in state.workers[:number]:  # two idle workers are one and the same
                yield from _claim(state, variant, number)
            continue
        yield Move(f"{_owner(worker)} is killed", _worker(state, number, Worker()), ordinary=False)
        yield from _STEPS[worker.at](state, variant, number)
    for number in range(len(state.record.batches)):
        if variant.janitor:
            yield from _janitor(state, variant, number)
        yield from _world(state, variant, number)
        yield from _evidence(state, variant, number)
    yield from _people(state)
    if variant.restore and not state.restored:
        yield from _restore(state, variant)


def _claim(state: State, variant: Variant, number: int) -> Iterator[Move]:
    """Step 1 (TX1, T2): the message and a new batch, OPEN, in one transaction."""
    record, made = state.record, len(state.record.batches)
    if record.message != PLANNED or made == BATCHES or state.made >= CALLS:
        return
    if not variant.check_at_the_end and record.unsubscribed:
        yield Move("a claim finds the address suppressed", state._replace(record=record._replace(message=SUPPRESSED)))
        return
    if variant.restore and any(worker.at != IDLE for worker in state.workers):
        return  # one after the other: a restore stops them all, and how two get in each other's way is played without
    after = _worker(state, number, Worker(CLAIMED, made))
    yield Move(
        f"a worker claims the message: batch {made + 1} is OPEN (T2)",
        after._replace(
            record=record._replace(message=IN_BATCH, within=made, batches=(*record.batches, Batch())),
            calls=(*state.calls, Call()),
        ),
    )


def _mark(state: State, variant: Variant, number: int) -> Iterator[Move]:
    """Steps 5 and 6 (TX2, T3): a line in the journal, then CALLING, committed; only if the batch is still OPEN."""
    mine = state.workers[number].batch
    who = _owner(state.workers[number])
    lined = change_call(state, mine, line=True) if variant.journal else state
    if not variant.marker:
        yield Move(f"{who} goes on without a marker", _worker(lined, number, Worker(MARKED, mine)))
        return
    batch = state.record.batches[mine]
    if variant.fence and batch.state != OPEN:
        yield Move(f"{who} finds its batch taken away, and stops (T3: 0 rows)", _worker(lined, number, Worker()))
        return
    if batch.state == OPEN:
        released = _plan_again(state, mine)
        yield Move(f"{who} gives it back before the call (T4)", _worker(released, number, Worker()), ordinary=False)
    if variant.restore and variant.journal:
        died = _worker(lined, number, Worker())
        yield Move(f"{who} is killed after its line in the journal, before CALLING", died, ordinary=False)
    marked = change_batch(lined, mine, state=CALLING, outcome="")
    yield Move(f"{who} marks it CALLING (T3)", _worker(marked, number, Worker(MARKED, mine)))


def _check(state: State, variant: Variant, number: int) -> Iterator[Move]:
    """Step 7: one fresh look at who may be mailed and who is still in the batch. What it returns is the payload."""
    mine, record = state.workers[number].batch, state.record
    who = _owner(state.workers[number])
    left = Worker()
    ours = record.message == IN_BATCH and record.within == mine
    under_way = record.batches[mine].state == (CALLING if variant.marker else OPEN)
    if variant.payload_read and not (ours and under_way):
        given_back = _plan_again(state, mine) if ours else _close(state, mine)
        yield Move(f"{who} finds nothing left to call for, and stops", _worker(given_back, number, left))
        return
    if record.unsubscribed and variant.check_at_the_end:
        after = _close(state._replace(record=record._replace(message=SUPPRESSED, within=None)), mine)
        yield Move(f"{who}'s final check finds the unsubscribe (T5)", _worker(after, number, left))
        return
    if variant.marker:
        stopped = _plan_again(state, mine)
        yield Move(f"{who} stood still, or the campaign is paused: no call (T7)", _worker(stopped, number, left), False)
    if not variant.accept_after:
        state = _accept(state, mine)
    ready = Worker(CHECKED, mine, late=state.left)
    yield Move(f"{who} makes its final check: the message is in the payload", _worker(state, number, ready))


def _make_call(state: State, variant: Variant, number: int) -> Iterator[Move]:
    """Steps 8 and 9: the start budget, then one POST, and whatever the provider makes of it."""
    worker = state.workers[number]
    mine = worker.batch
    who = _owner(worker)
    # Standing still for longer than G after this look at the clock, inside the write itself, is what A3 excludes.
    if state.calls[mine].old and variant.budget and variant.a3:
        after = _plan_again(state, mine)
        yield Move(f"{who} wakes up past its start budget: no call (T7)", _worker(after, number, Worker()))
        return

    def answered(words: str, request: str, answer: str, copies: int = 0, ordinary: bool = False) -> Move:
        after = change_call(state._replace(made=state.made + 1), mine, request=request, copies=copies)
        ready = worker._replace(at=ANSWERED, answer=answer)
        return Move(f"{who} calls: {words}", _worker(after, number, ready), ordinary)

    yield answered("202, accepted", TAKEN, YES, 1, ordinary=True)
    yield answered("400 for this message", REFUSED, NO)
    if state.made >= CALLS - 1:
        return
    yield answered("429, or no connection, or 400 for another message of the batch", REFUSED, NOT_SENT)
    lost = UNCLEAR if variant.timeout_unknown else NOT_SENT
    yield answered("no answer, though it was accepted", TAKEN, lost, 1)
    yield answered("no answer; it may be accepted later", PENDING, lost)
    error = UNCLEAR if variant.error_unknown else NOT_SENT
    yield answered("500, though it was accepted", TAKEN, error, 1)
    yield answered("500, and not accepted", REFUSED, error)
    if not variant.one_request:
        yield answered("no answer, though it was accepted; the HTTP stack repeats it: accepted again", TAKEN, YES, 2)


def _write_down(state: State, variant: Variant, number: int) -> Iterator[Move]:
    """Step 10 (TX3): what became of the call; a compare-and-set that does nothing when somebody was first."""
    worker = state.workers[number]
    mine = worker.batch
    who = _owner(worker)
    known = {YES: "taken", UNCLEAR: ""}.get(worker.answer)
    heard = change_call(state, mine, known=known) if variant.journal and variant.restore else state
    if heard != state:
        died = _worker(heard, number, Worker())
        yield Move(f"{who} is killed after journaling the answer", died, ordinary=False)
    state = _worker(heard, number, Worker())
    if state.record.batches[mine].state not in ((CALLING, UNKNOWN) if variant.marker else (OPEN,)):
        yield Move(f"{who} would record {worker.answer}, but somebody was first", state)
        return
    for after, words in _outcome(state, variant, mine, worker.answer):
        yield Move(f"{who} records {worker.answer}: {words}", after)


def _outcome(state: State, variant: Variant, mine: int, answer: str) -> Iterator[tuple[State, str]]:
    if answer == YES:
        yield _accept(state, mine), "ACCEPTED (T6)"
    elif answer == NO:
        record = state.record
        if record.message == IN_BATCH and record.within == mine:
            state = state._replace(record=record._replace(message=REJECTED))
        yield _close(state, mine), "REJECTED (T8)"
    elif answer == UNCLEAR:
        after = change_batch(state, mine, state=UNKNOWN) if state.record.batches[mine].state == CALLING else state
        yield after, "UNKNOWN (T9)"
    else:
        yield _plan_again(state, mine), "PLANNED again (T7)"


_STEPS: dict[str, Callable[[State, Variant, int], Iterator[Move]]] = {
    CLAIMED: _mark,
    MARKED: _check,
    CHECKED: _make_call,
    ANSWERED: _write_down,
}


def _janitor(state: State, variant: Variant, number: int) -> Iterator[Move]:
    """Batches whose owner seems gone. It may be wrong about that, at any time."""
    batch, record = state.record.batches[number], state.record
    name = f"batch {number + 1}"
    if batch.state == OPEN:
        if record.lapses + 1 >= POISON and record.message == IN_BATCH and record.within == number:
            poisoned = state._replace(record=record._replace(message=REJECTED, lapses=POISON))
            yield Move(f"the janitor: {name} lapsed, too often: REJECTED (T4)", _close(poisoned, number))
            return
        counts = not variant.restore  # poison is played without a restore
        lapsed = state._replace(record=record._replace(lapses=min(record.lapses + counts, POISON)))
        after = _plan_again(lapsed, number)
        yield Move(f"the janitor: the lease of {name} is over, it never called: PLANNED (T4)", after)
    if batch.state == CALLING:
        yield Move(f"the janitor: {name} takes too long: UNKNOWN (T9)", change_batch(state, number, state=UNKNOWN))
    if batch.state != UNKNOWN or not state.calls[number].old:
        return
    # Settling. The log is asked about the message; what it shows names the batch it was accepted in.
    taken = [one for one, call in enumerate(state.calls) if call.request == TAKEN]
    if batch.rounds < 2:
        for one in taken:
            after = _believe(state, one) if variant.log_names_batch else _accept(state, number)
            yield Move(f"the provider's log is asked about {name}, and shows that batch {one + 1} was accepted", after)
        if not taken or batch.rounds == 0 or not variant.a2:
            after = change_batch(state, number, rounds=batch.rounds + 1)
            yield Move(f"the provider's log is asked about {name}, and shows nothing", after)
    if variant.resend and batch.rounds >= (2 if variant.both_rounds else 1):
        after = _plan_again(state, number)
        yield Move(f"settle: {name} was never accepted, so the message is PLANNED again (T11)", after)
    held = _close(state, number, "held")
    if record.message == IN_BATCH and record.within == number:
        held = held._replace(record=held.record._replace(message=HELD))
    yield Move(f"settle: nobody knows what became of {name}: HELD (T12)", held)


def _world(state: State, variant: Variant, number: int) -> Iterator[Move]:
    """What happens to a request that is under way, and time."""
    call, name = state.calls[number], f"batch {number + 1}"
    if call.request == PENDING:
        taken = change_call(state, number, request=TAKEN, copies=1)
        yield Move(f"the provider accepts {name}, late", taken, ordinary=False)
        yield Move(f"the request of {name} is lost on its way", change_call(state, number, request=REFUSED))
    if not call.old and state.record.batches[number].state in (CALLING, UNKNOWN):
        elder = range(number + 1)
        if variant.a3 and any(state.calls[one].request == PENDING for one in elder):
            return
        after = state
        for one in elder:
            after = change_call(after, one, old=True)
        yield Move(f"G has passed since {name} was marked CALLING", after)


def _evidence(state: State, variant: Variant, number: int) -> Iterator[Move]:
    """An event that names this batch: at any time, any number of times, or never. So nobody may count on it."""
    if state.calls[number].request == TAKEN:
        yield Move(f"an event shows that batch {number + 1} was accepted", _believe(state, number), ordinary=False)


def _people(state: State) -> Iterator[Move]:
    record = state.record
    if not state.left:
        after = state._replace(record=_unsubscribed(record), left=True)
        yield Move("the person unsubscribes, and is told 200", after, ordinary=False)
    # Between a backup and its restore only a decision that the restore takes back is of interest.
    taken_back = state.backup is None or state.backup.message == HELD
    if record.message == HELD and state.made < CALLS and taken_back and not any(call.released for call in state.calls):
        skipped = state._replace(record=record._replace(message=SKIPPED))
        yield Move("an operator skips the held message (T14)", skipped, ordinary=False)
        again = SUPPRESSED if record.unsubscribed else PLANNED
        after = state._replace(record=record._replace(message=again, within=None))
        for number, batch in enumerate(record.batches):
            if batch.outcome == "held":
                after = change_call(after, number, released=True)
        yield Move("an operator releases the held message, at the risk of a copy (T14)", after, ordinary=False)


def _unsubscribed(record: Record) -> Record:
    """The suppression, and T15; who is in a batch is left to the final check of that batch."""
    return record._replace(unsubscribed=True, message=SUPPRESSED if record.message == PLANNED else record.message)


def _restore(state: State, variant: Variant) -> Iterator[Move]:
    """A backup is made; later it replaces the record. Every worker is stopped; what the provider took, it has taken."""
    if state.backup is None:
        if state.record.message in AT_REST - {HELD}:
            return  # nothing to get wrong
        yield Move("a backup is made", state._replace(backup=_kept(state.record)), ordinary=False)
        return
    old = state.backup
    lost = tuple(Batch(DONE, "lost") for _ in state.calls[len(old.batches) :])
    record = old._replace(batches=old.batches + lost)
    if state.left and variant.kept_leaving:
        record = _unsubscribed(record)
    after = State(record, state.calls, made=state.made, left=state.left, restored=True)
    if variant.journal:
        after = _replay(after, variant)
    yield Move("the database is lost, and the backup is restored", after, ordinary=False)


def _kept(record: Record) -> Record:
    # What only saves time is not worth telling apart: rounds of asking and lapses begin anew.
    batches = tuple(batch._replace(rounds=0) for batch in record.batches)
    return record._replace(lapses=0, unsubscribed=False, batches=batches)


def _replay(state: State, variant: Variant) -> State:
    """In quarantine, before anybody calls: each journaled call that the record knows nothing final about is UNKNOWN.

    That includes a batch which the backup shows as OPEN: between the backup and the loss it may have been called. The
    message belongs to the last of them; when that one's G has passed, so has every earlier one's.
    """
    for number, call in enumerate(state.calls):
        batch, record = state.record.batches[number], state.record
        lost = batch.outcome == "lost" or (batch.state == OPEN and variant.open_lines)
        if not call.line or not (lost or batch.state in (CALLING, UNKNOWN)):
            continue
        if call.known == "taken":
            state = change_batch(state, number, state=DONE, outcome="accepted")
            state = state._replace(record=state.record._replace(message=ACCEPTED, within=number))
        elif call.known == "refused":
            state = _plan_again(state, number)
        else:
            state = change_batch(state, number, state=UNKNOWN, outcome="")
            if record.message in (PLANNED, IN_BATCH, HELD):
                state = state._replace(record=state.record._replace(message=IN_BATCH, within=number))
    return state


# What becomes of a batch and its message, each in one transaction


def _accept(state: State, number: int) -> State:
    state = change_batch(state, number, state=DONE, outcome="accepted")
    if state.record.message == IN_BATCH and state.record.within == number:
        state = state._replace(record=state.record._replace(message=ACCEPTED))
    return state


def _believe(state: State, number: int) -> State:
    """T10, T13: the record follows the evidence, whatever it said before, and whatever batch the message is in now."""
    batch = state.record.batches[number]
    if batch.state in (CALLING, UNKNOWN):
        state = _accept(state, number)
    elif batch.state == DONE and batch.outcome != "accepted":
        state = change_batch(state, number, outcome="accepted")
    else:
        return state
    if state.record.message != ACCEPTED:
        state = state._replace(record=state.record._replace(message=ACCEPTED, within=number))
    return state


def _plan_again(state: State, number: int) -> State:
    """T4, T7, T8, T11: out of the batch; but who unsubscribed meanwhile is not planned again (T15)."""
    state = _close(state, number)
    record = state.record
    if record.message == IN_BATCH and record.within == number:
        again = SUPPRESSED if record.unsubscribed else PLANNED
        state = state._replace(record=record._replace(message=again, within=None))
    return state


def _close(state: State, number: int, outcome: str = "") -> State:
    if state.record.batches[number].state == DONE:
        return state  # a compare-and-set of nothing
    return change_batch(state, number, state=DONE, outcome=outcome, rounds=0)


def change_batch(state: State, number: int, /, **changes: object) -> State:
    batches = list(state.record.batches)
    batches[number] = batches[number]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(record=state.record._replace(batches=tuple(batches)))


def change_call(state: State, number: int, /, **changes: object) -> State:
    calls = list(state.calls)
    calls[number] = calls[number]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(calls=tuple(calls))


def _worker(state: State, number: int, worker: Worker) -> State:
    one, two = state.workers
    return state._replace(workers=(worker, two) if number == 0 else (one, worker))


def _owner(worker: Worker) -> str:
    return f"the owner of batch {worker.batch + 1}"


# What must hold


def wrong(state: State) -> str | None:
    """The promise that this state breaks, in words; None: all is well."""
    record, calls = state.record, state.calls
    possible = sum(max(call.copies, call.request in (PENDING, TAKEN)) for call in calls if not call.released)
    if possible > 1:
        return "G1: two calls for one message may both have been accepted"
    if any(worker.late and worker.at == ANSWERED for worker in state.workers):
        return "G4: a call names somebody whose unsubscribe was there before its final check"
    for number, (batch, call) in enumerate(zip(record.batches, calls, strict=True)):
        busy = any(worker.batch == number for worker in state.workers)
        if batch.outcome == "accepted" and call.request != TAKEN and not busy:
            return "G2: the record says that a batch was accepted, the provider never took it: its people are lost"
    if record.message == IN_BATCH and (record.within is None or record.batches[record.within].state == DONE):
        return "G2: the message waits in a batch that is over"
    if not state.restored and _ambiguous(record, calls) > 1:  # a restored record knows less than the journals
        return "V1: by the record, two calls for one message may have been made"
    return None


def _ambiguous(record: Record, calls: tuple[Call, ...]) -> int:
    return sum(
        batch.state in (CALLING, UNKNOWN) or batch.outcome in ("accepted", "held")
        for batch, call in zip(record.batches, calls, strict=True)
        if not call.released
    )
