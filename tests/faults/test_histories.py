"""Generated histories find nothing in the program, and find what a careless one does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from dripwell.embedded.servers import Servers
from tests.faults import consent
from tests.faults.careless import CARELESS
from tests.faults.consent import MARKETING, Belief, Moment, World
from tests.faults.histories import Copies, copies_of, tell

SEED = 1
SLICE = 40
SLICE_TURNS = 16
MANY = 400
ENOUGH = 400
"""Of so many histories with a careless program at least one must go wrong."""
TOPIC, SERIES = "notes", "monthly"
START = datetime(2026, 11, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def copies(servers: Servers) -> Iterator[Copies]:
    """Fresh databases, one for each town."""
    with copies_of(servers) as made:
        yield made


def test_nobody_is_mailed_without_live_consent_whatever_happens(copies: Copies, redis_url: str) -> None:
    told = tell(copies, redis_url, count=SLICE, seed=SEED, people=SLICE, turns=SLICE_TURNS)
    assert told.wrong is None, told.wrong
    assert told.counts["mails"] > SLICE, "too little happened to say anything"


@pytest.mark.matrix
def test_the_same_in_many_more_histories(copies: Copies, redis_url: str) -> None:
    told = tell(copies, redis_url, count=MANY, seed=SEED + 1, people=MANY // 2)
    assert told.wrong is None, told.wrong


@pytest.mark.matrix
@pytest.mark.parametrize("name", sorted(CARELESS))
def test_a_careless_program_is_found(copies: Copies, redis_url: str, name: str) -> None:
    told = tell(copies, redis_url, count=ENOUGH, seed=SEED, people=100, doors=CARELESS[name], shrinks=False)
    assert told.wrong is not None, f"{told.people} histories with {name}, and nobody noticed"
    assert "must not" in told.wrong or "has lost" in told.wrong


# The judge's own rules


class Told:
    """One person's history, told to the model."""

    def __init__(self) -> None:
        self.orders = count(1)
        self.belief = Belief()
        self.now = START

    def at(self) -> Moment:
        return Moment(next(self.orders), self.now, self.now)

    def asks(self) -> None:
        at = self.at()
        self.belief.happened(lambda world: consent.ask(world, TOPIC, at))

    def presses(self, word: str) -> None:
        self.belief.happened(lambda world: consent.press(world, word, TOPIC, [SERIES]))

    def leaves(self, *, own: bool = True, scope: str = MARKETING, answered: bool = True) -> None:
        at = self.at()

        def change(world: World) -> World:
            return consent.leave(world, scope, at, own=own, begun=self.belief.begun())

        (self.belief.happened if answered else self.belief.may_have_happened)(change)

    def undoes(self) -> None:
        at = self.at()
        self.belief.happened(lambda world: consent.undo(world, at))

    def may_get(self) -> set[bool]:
        """Whether the worlds allow an email."""
        at = self.at()
        return {consent.against(world, SERIES, TOPIC, at, None) is None for world in self.belief.worlds}


@pytest.fixture
def told() -> Told:
    """Somebody who asked and confirmed."""
    made = Told()
    made.asks()
    made.presses("first")
    assert made.may_get() == {True}
    return made


def test_asking_alone_gives_nothing() -> None:
    told = Told()
    told.asks()
    assert told.may_get() == {False}


def test_a_word_that_was_pressed_before_takes_nothing_back(told: Told) -> None:
    told.leaves()
    told.asks()
    told.presses("first")
    assert told.may_get() == {False}
    told.presses("second")
    assert told.may_get() == {True}


def test_a_fresh_opt_in_after_leaving_everything_brings_back_only_what_it_asks_for(told: Told) -> None:
    other = "guides"
    early = told.at()
    told.belief.happened(lambda world: consent.ask(world, other, early))
    told.leaves()
    told.belief.happened(lambda world: consent.press(world, "old", other, []))
    assert told.may_get() == {False}
    late = told.at()
    told.belief.happened(lambda world: consent.ask(world, other, late))
    told.belief.happened(lambda world: consent.press(world, "new", other, []))
    (world,) = told.belief.worlds
    assert (world.topics, world.left) == ({other}, frozenset())
    assert told.may_get() == {False}
    told.belief.happened(lambda world: consent.state(world, TOPIC, in_a_file=True))
    assert told.may_get() == {False}
    told.asks()
    told.presses("second")
    assert told.may_get() == {True}


def test_a_request_from_before_the_unsubscribe_is_not_fresh(told: Told) -> None:
    told.asks()
    told.leaves()
    told.presses("second")
    assert told.may_get() == {False}


def test_an_unsubscribe_without_an_answer_may_or_may_not_have_happened(told: Told) -> None:
    told.leaves(answered=False)
    assert told.may_get() == {True, False}
    told.leaves()
    assert told.may_get() == {False}


def test_undo_is_for_ones_own_word_of_the_last_day(told: Told) -> None:
    told.leaves()
    told.now += timedelta(hours=24)
    told.undoes()
    assert told.may_get() == {True}
    told.leaves()
    told.now += timedelta(hours=24, seconds=1)
    told.undoes()
    assert told.may_get() == {False}


def test_nobody_undoes_a_complaint(told: Told) -> None:
    told.leaves()
    told.leaves(scope=consent.ALL, own=False)
    told.undoes()
    assert told.may_get() == {False}
    told.asks()
    told.presses("second")
    assert told.may_get() == {False}


def test_a_file_brings_back_nobody_who_left_gave_up_or_was_erased(told: Told) -> None:
    at = told.at()
    told.belief.happened(
        lambda world: consent.choose(world, frozenset(), at, paused_until=None, weekly=False, begun={})
    )
    told.belief.happened(lambda world: consent.state(world, TOPIC, in_a_file=True))
    assert told.may_get() == {False}
    erased = told.at()
    told.belief.happened(lambda world: consent.erase(world, erased, begun=[]))
    told.belief.happened(lambda world: consent.state(world, TOPIC, in_a_file=True))
    assert told.may_get() == {False}
