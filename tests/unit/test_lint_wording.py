"""Rules about words, on words alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dripwell.content import wording

RULES = (
    lambda text: wording.claims_made(text, frozenset({"x"}), ["said"]),
    wording.free_without_conditions,
    wording.pressing,
    wording.spam_phrases,
)


@settings(max_examples=200, deadline=None)
@given(st.text("ab .!?\n#:-*[]^x“”free%1 cureno", max_size=200))
def test_a_finding_always_lies_inside_the_text(text: str) -> None:
    for rule in RULES:
        for finding in rule(text):
            assert 0 <= finding.start < finding.end <= len(text)
            assert finding.level in ("error", "warning")


@pytest.mark.parametrize(
    "said",
    [
        "It is not addictive.",
        "This is a non-addictive option.",
        "It cures nothing else.",
        "Results are guaranteed.",
        "It is completely safe.",
        "A safe and effective way.",
        "Permanently better.",
        "It works for everyone.",
        "Exceptionally few, with no side effects.",
        "The infusion is painless.",
        "A proven way.",
        "A miracle.",
    ],
)
def test_a_claim_nobody_can_keep_is_banned(said: str) -> None:
    assert [f.code for f in wording.claims_made(said, frozenset(), [])] == ["D305"]


@pytest.mark.parametrize(
    "said",
    [
        "This is not a cure.",
        "Nobody can guarantee that.",
        "It has never been proven to last.",
        "It does not work for everyone.",
        "Is it safe?",
        "Drive home safely, and not alone.",
        "That is not the same as permanent.",
    ],
)
def test_saying_what_is_not_known_is_allowed(said: str) -> None:
    assert list(wording.claims_made(said, frozenset(), [])) == []


def test_free_needs_its_three_conditions_in_the_same_block() -> None:
    block = "::: call Talk?\n{}\nbutton: Book a free phone consultation -> x\n:::\n"
    whole = "About 15 minutes. It is not a treatment. You don’t have to decide anything."
    assert list(wording.free_without_conditions(block.format(whole))) == []
    for missing in ("About 15 minutes.", "It is not a treatment.", "You don’t have to decide anything."):
        found = list(wording.free_without_conditions(block.format(whole.replace(missing, ""))))
        assert [f.code for f in found] == ["D308"]
    assert [f.code for f in wording.free_without_conditions(block.format("") + "\n" + whole)] == ["D308"]


def test_easy_words_have_a_low_grade_and_hard_words_a_high_one() -> None:
    assert wording.grade("The cat sat on the mat. It was a good day.") < 3
    assert wording.grade("Interdisciplinary institutional collaboration necessitates considerable deliberation.") > 15
    assert wording.grade("") == 0


def test_discreet_words_match_whole_words_only() -> None:
    watched = wording.sensitive()
    assert watched.search("About your Depression")
    assert watched.search("a panic attack, perhaps")
    assert not watched.search("A painting of Spain")
