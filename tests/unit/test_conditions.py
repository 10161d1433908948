"""Conditions are two-valued: a question about a missing field, tag, topic or segment has the answer no."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.conditions import (
    All,
    Any,
    Asked,
    Clicked,
    Condition,
    Facts,
    FieldIs,
    Happened,
    HasTag,
    HasTopic,
    InSegment,
    Joined,
    Not,
    Scalar,
    asked,
    equal,
    holds,
    in_words,
    leaves,
)
from dripwell.core.duration import Duration

NOW = datetime(2026, 11, 2, 17, 0, tzinfo=UTC)
NAMES = st.sampled_from(["state", "city", "vip"])
VALUES: st.SearchStrategy[Scalar] = st.sampled_from(["CA", "NY", "", 1, True])
TAGS = st.sampled_from(["lead", "patient", "staff"])
TOPICS = st.sampled_from(["seven-part-series", "monthly-notes"])

WITHIN = st.sampled_from([Duration(1, "day"), Duration(1, "month")])
EVENTS = st.sampled_from(["consultation.booked", "left.town"])
AGES = st.timedeltas(timedelta(0), timedelta(days=60))
questions: st.SearchStrategy[Condition] = st.one_of(
    st.builds(FieldIs, NAMES, st.lists(VALUES, min_size=1, max_size=3).map(tuple)),
    st.builds(HasTag, TAGS),
    st.builds(HasTopic, TOPICS),
    st.builds(InSegment, st.sampled_from(["patients", "californians", "nobody"])),
    st.builds(Clicked, st.sampled_from(["a", "b"]), st.sampled_from([None, "1", "2"]), st.none() | WITHIN),
    st.builds(Happened, EVENTS, st.none() | WITHIN),
    st.builds(Joined, WITHIN),
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    questions,
    lambda inner: st.one_of(
        st.builds(All, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Any, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=12,
)
TIMES = AGES.map(lambda age: NOW - age)
people = st.builds(
    Facts,
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.frozensets(TAGS),
    st.frozensets(TOPICS),
    st.dictionaries(EVENTS, TIMES, max_size=2),
    st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from("12")), TIMES, max_size=3),
    st.none() | TIMES,
    st.just(NOW),
)
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


DAY = Duration(1, "day")
MICRO = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("ago", "answer"), [(timedelta(0), True), (timedelta(days=1), True), (timedelta(days=1) + MICRO, False)]
)
def test_within_reaches_back_to_exactly_then(ago: timedelta, answer: bool) -> None:
    at = NOW - ago
    facts = Facts(events={"left.town": at}, clicks={("a", "1"): at}, joined_at=at, now=NOW)
    for condition in (Happened("left.town", DAY), Clicked("a", "1", DAY), Clicked("a", None, DAY), Joined(DAY)):
        assert holds(condition, facts, {}) is answer
    for condition in (Happened("left.town"), Clicked("a", "1"), Clicked("a")):
        assert holds(condition, facts, {})
    for condition in (Happened("left"), Clicked("a", "2"), Clicked("b")):
        assert not holds(condition, facts, {})


def test_a_question_about_time_is_not_answered_without_one() -> None:
    with pytest.raises(ValueError, match="needs `now`"):
        holds(Happened("left.town", DAY), Facts(events={"left.town": NOW}), {})


@pytest.mark.parametrize(
    ("held", "value", "answer"),
    [
        ("1", 1, False),
        (1, True, False),
        (True, 1, False),
        (True, True, True),
        (1, 1.0, True),
        (10**300, 1e300, True),  # as such a number comes back from the record
        (2**53 + 1, float(2**53), False),
        ("e\u0301", "é", False),
        (None, "None", False),
        (["CA"], "CA", False),
        ({"a": 1}, 1, False),
    ],
)
def test_a_value_equals_only_one_of_its_own_kind(held: object, value: Scalar, answer: bool) -> None:
    assert equal(held, value) is answer
    assert holds(FieldIs("x", (value,)), Facts({"x": held}), {}) is answer


def test_only_what_is_asked_for_is_asked() -> None:
    segments: dict[str, Condition] = {
        "plain": HasTag("x"),
        "clicked": Any((InSegment("plain"), Not(Clicked("a")))),
        "new": All((InSegment("clicked"), Joined(DAY))),
    }
    assert asked([InSegment("plain"), InSegment("nowhere")], segments) == Asked()
    assert asked([InSegment("clicked")], segments) == Asked(clicks=True)
    assert asked([InSegment("plain"), InSegment("new")], segments) == Asked(clicks=True, joined=True)
    assert asked([Happened("left.town")], segments) == Asked(events=True)


def test_segments_that_name_each_other_are_walked_once() -> None:
    circle: dict[str, Condition] = {"a": All((InSegment("b"), HasTag("x"))), "b": InSegment("a")}
    assert list(leaves(InSegment("a"), circle)) == [HasTag("x")]
    assert list(leaves(InSegment("a"))) == [InSegment("a")]


@given(condition=conditions)
def test_every_condition_can_be_said_on_one_line(condition: Condition) -> None:
    words = in_words(condition)
    assert words
    assert "\n" not in words


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (All((FieldIs("state", ("CA", "NV")), Not(HasTag("staff")))), "state is CA or NV, and not tag staff"),
        (Not(Any((HasTag("a"), HasTag("b")))), "not (tag a, or tag b)"),
        (Any((HasTag("a"), All((HasTag("b"), InSegment("c"))))), "tag a, or (tag b, and in c)"),
        (Clicked("a", None, DAY), "clicked in a/* within 1 day"),
        (Happened("left.town"), "left.town happened"),
    ],
)
def test_a_condition_in_words(condition: Condition, words: str) -> None:
    assert in_words(condition) == words
