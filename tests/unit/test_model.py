"""The protocol itself, before any code: every story of one message is played, and no safeguard is there for nothing."""

from __future__ import annotations

import pytest

from tests.faults.explore import explore
from tests.faults.model import GOOD, MUTANTS, Variant

REQUIRED = {
    "blind retry on timeout": "G1",
    "5xx as not sent": "G1",
    "no CALLING marker": "G1",
    "no fence at T3": "G1",
    "accepted before the call": "G2",
    "suppression only at claim": "G4",
    "no A3": "G1",
    "no A2": "G1",
    "an HTTP stack that retries": "G1",
    "restore without journal": "G1",
}
"""The mutants that must be caught, and the promise that each breaks."""


@pytest.mark.parametrize("variant", GOOD, ids=lambda variant: variant.name)
def test_the_protocol_keeps_its_promises_in_every_story(variant: Variant) -> None:
    verdict = explore(variant)
    print(f"{variant.name}: {verdict.states:,} states")
    assert verdict.violation is None, f"{variant.name}:\n{verdict.story()}"
    assert verdict.states > 10_000, "so few states that something cannot have been played"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_protocol_without_one_of_its_safeguards_is_caught(name: str) -> None:
    mutant = MUTANTS[name]
    verdict = explore(mutant)
    print(f"{name}: {verdict.states:,} states: {verdict.story()}")
    assert verdict.violation is not None, f"the mutant {name!r} survived {verdict.states:,} states"
    assert verdict.violation.startswith(REQUIRED.get(name, mutant.breaks)), verdict.story()
    assert verdict.trace, "it was wrong from the start"


def test_every_mutant_that_was_asked_for_is_there() -> None:
    assert {name: MUTANTS[name].breaks for name in REQUIRED} == REQUIRED


def test_a_story_names_the_promise_and_tells_each_step_in_words() -> None:
    story = explore(MUTANTS["blind retry on timeout"]).story().splitlines()
    assert story[0] == "G1: two calls for one message may both have been accepted"
    assert story[4] == "  4. the owner of batch 1 calls: no answer, though it was accepted"
    assert story[-1] == "  9. the owner of batch 2 calls: 202, accepted"


def test_a_message_that_nobody_looks_after_is_a_story_without_an_end() -> None:
    verdict = explore(MUTANTS["nobody looks after the dead"])
    assert verdict.story() == (
        "G3: without a person's help this message can never come to rest\n"
        "  1. a worker claims the message: batch 1 is OPEN (T2)\n"
        "  2. the owner of batch 1 is killed"
    )
