"""What `plan` says changed between two versions of a campaign."""

from __future__ import annotations

from dataclasses import replace
from datetime import time

from hypothesis import given, settings
from hypothesis import strategies as st

from dripwell.core.campaign import Branch, Campaign, Email, Step, Tag, Wait, WaitClock, Window, walk
from dripwell.core.conditions import HasTag
from dripwell.core.duration import Duration
from dripwell.services.differences import Change, differences

BRANCH = Branch("branch-more", "More?", HasTag("more"), (Email("then", "then", "Then"),), (Tag("tag-less", "less"),))
STEPS: tuple[Step, ...] = (Email("one", "one", "One"), Wait("wait-after-one", Duration(2, "day")), BRANCH)


def campaign(*steps: Step) -> Campaign:
    return Campaign("series", "Series", "drip", "guide", steps)


def told(*steps: Step) -> list[Change]:
    return differences(campaign(*STEPS), campaign(*steps), {}, {})


def test_a_change_within_an_arm_is_named() -> None:
    arm = (Email("then", "then", "Then again"),)
    assert told(*STEPS[:2], replace(BRANCH, then=arm)) == [Change("changed", "then", "subject: Then → Then again")]


def test_another_question_is_named_in_words() -> None:
    (change,) = told(*STEPS[:2], replace(BRANCH, when=HasTag("other")))
    assert change.key == "branch-more"
    assert "more" in change.detail
    assert "other" in change.detail


def test_a_step_that_moves_to_another_arm_changes_the_order() -> None:
    moved = replace(BRANCH, then=(*BRANCH.then, *BRANCH.otherwise), otherwise=())
    assert told(*STEPS[:2], moved) == [Change("changed", "steps", "order")]


def test_waits_of_every_kind_are_told_with_their_lengths() -> None:
    assert told(STEPS[0], Wait("wait-after-one", Duration(3, "day")), BRANCH) == [
        Change("changed", "wait-after-one", "2 days → 3 days")
    ]
    assert told(STEPS[0], WaitClock("wait-after-one", 1, time(10)), BRANCH) == [
        Change("changed", "wait-after-one", "2 days → until Tuesday 10:00")
    ]


def test_an_emails_own_window_is_a_change() -> None:
    one = Email("one", "one", "One", window=Window(days=frozenset({1})))
    assert told(one, *STEPS[1:]) == [Change("changed", "one", "send window")]


def test_words_are_compared_in_arms_too() -> None:
    path = "campaigns/series/then.md"
    same = campaign(*STEPS)
    assert differences(same, same, {path: "a"}, {path: "b"}) == [Change("changed", "then", "words")]


@settings(max_examples=60)
@given(st.permutations(STEPS), st.sets(st.sampled_from([step.key for step in STEPS])))
def test_what_is_removed_and_what_moves_is_always_told(steps: list[Step], gone: set[str]) -> None:
    left = tuple(step for step in steps if step.key not in gone)
    missing = {step.key for step in walk(STEPS)} - {step.key for step in walk(left)}
    found = told(*left)
    assert {change.key for change in found if change.what == "removed"} == missing
    kept = [step.key for step in STEPS if step.key not in gone]
    assert (Change("changed", "steps", "order") in found) == ([step.key for step in left] != kept)
