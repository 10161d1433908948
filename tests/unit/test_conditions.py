"""Conditions are two-valued: a question about a missing field, tag, topic or segment has the answer no."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.conditions import (
    All,
    Any,
    Condition,
    Facts,
    FieldIs,
    HasTag,
    HasTopic,
    InSegment,
    Not,
    Scalar,
    holds,
)

NAMES = st.sampled_from(["state", "city", "vip"])
VALUES: st.SearchStrategy[Scalar] = st.sampled_from(["CA", "NY", "", 1, True])
TAGS = st.sampled_from(["lead", "patient", "staff"])
TOPICS = st.sampled_from(["seven-part-series", "monthly-notes"])

leaves: st.SearchStrategy[Condition] = st.one_of(
    st.builds(FieldIs, NAMES, st.lists(VALUES, min_size=1, max_size=3).map(tuple)),
    st.builds(HasTag, TAGS),
    st.builds(HasTopic, TOPICS),
    st.builds(InSegment, st.sampled_from(["patients", "californians", "nobody"])),
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(All, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Any, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=12,
)
people = st.builds(Facts, st.dictionaries(NAMES, VALUES, max_size=3), st.frozensets(TAGS), st.frozensets(TOPICS))
SEGMENTS: Mapping[str, Condition] = {
    "patients": HasTag("patient"),
    "californians": All((FieldIs("state", ("CA",)), Not(InSegment("patients")))),
}


@given(condition=conditions, facts=people)
def test_a_condition_or_its_opposite_holds_and_never_both(condition: Condition, facts: Facts) -> None:
    assert holds(condition, facts, SEGMENTS) != holds(Not(condition), facts, SEGMENTS)


@given(parts=st.lists(conditions, max_size=4).map(tuple), facts=people)
def test_all_and_any_are_each_others_opposite(parts: tuple[Condition, ...], facts: Facts) -> None:
    none = All(tuple(Not(part) for part in parts))
    assert holds(Any(parts), facts, SEGMENTS) != holds(none, facts, SEGMENTS)
    assert holds(All(parts), facts, SEGMENTS) == all(holds(part, facts, SEGMENTS) for part in parts)


@given(facts=people)
def test_of_nothing_all_holds_and_any_does_not(facts: Facts) -> None:
    assert holds(All(()), facts, {})
    assert not holds(Any(()), facts, {})


@given(name=NAMES, values=st.lists(VALUES, min_size=1).map(tuple))
def test_a_missing_field_equals_nothing(name: str, values: tuple[Scalar, ...]) -> None:
    assert not holds(FieldIs(name, values), Facts(), {})
    assert holds(Not(FieldIs(name, values)), Facts(), {})


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        (FieldIs("state", ("CA",)), True),
        (FieldIs("state", ("NY", "CA")), True),
        (FieldIs("state", ("NY",)), False),
        (HasTag("patient"), False),
        (HasTopic("seven-part-series"), True),
        (HasTopic("monthly-notes"), False),
        (InSegment("californians"), True),
        (InSegment("misspelled"), False),
        (Any((HasTag("patient"), FieldIs("state", ("CA",)))), True),
    ],
)
def test_each_question_about_one_person(condition: Condition, answer: bool) -> None:
    maria = Facts({"state": "CA"}, frozenset({"lead"}), frozenset({"seven-part-series"}))
    assert holds(condition, maria, SEGMENTS) is answer
