"""Conditions in the files: what they become, which names they may use, and what is never refused for being old."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dripwell.content.lint import lint_emails
from dripwell.content.load import Loaded, load, load_site
from dripwell.core import campaign as core
from dripwell.core.conditions import All, Any, Clicked, Condition, FieldIs, Happened, HasTag, InSegment, Joined, Not
from dripwell.core.duration import Duration
from tests.unit.language_sources import CAMPAIGN, SEGMENTS, SITE, valid_sources

EMAILS = {"welcome": ["1-hello", "more"], "other-series": ["1-other"]}


def with_staff(when: str, **changes: str) -> dict[str, str]:
    """The valid sources in which everybody is staff of whom this is true."""
    sources = valid_sources()
    assert "when: {tag: staff}" in sources[SEGMENTS]
    return {**sources, SEGMENTS: sources[SEGMENTS].replace("when: {tag: staff}", f"when: {when}"), **changes}


def with_audience(audience: str) -> dict[str, str]:
    """The valid sources with an audience."""
    sources = valid_sources()
    return {**sources, CAMPAIGN: sources[CAMPAIGN].replace("topic: guides\n", f"topic: guides\naudience: {audience}\n")}


def codes(loaded: Loaded) -> list[tuple[str, str]]:
    """The codes that were found, each with its level."""
    return [(problem.code, problem.level) for problem in loaded.problems]


@pytest.mark.parametrize(
    ("when", "condition"),
    [
        ("{clicked: welcome/*}", Clicked("welcome")),
        ("{clicked: welcome/more, within: 30 days}", Clicked("welcome", "more", Duration(30, "day"))),
        ("{event: consultation.booked}", Happened("consultation.booked")),
        ("{event: guide.requested, within: 1 hour}", Happened("guide.requested", Duration(1, "hour"))),
        ("{joined: true, within: 2 weeks}", Joined(Duration(2, "week"))),
        ("{field: city, is: [1, true, '1']}", FieldIs("city", (1, True, "1"))),
        ("{any: [{tag: a}, {not: {segment: nearby}}]}", Any((HasTag("a"), Not(InSegment("nearby"))))),
    ],
)
def test_each_condition_becomes_its_value(when: str, condition: Condition) -> None:
    sources = with_staff(when)
    sources[SEGMENTS] = sources[SEGMENTS].replace("          segment: staff", "          tag: staff")
    site, problems = load_site(sources)
    assert [problem for problem in problems if problem.level == "error"] == []
    assert site is not None
    assert site.segments[0].when == condition


def test_an_audience_is_a_condition_and_its_own_emails_need_no_campaign() -> None:
    loaded = load(with_audience("{all: [{segment: nearby}, {not: {clicked: more}}]}"), "welcome")
    assert loaded.campaign is not None
    assert loaded.campaign.audience == All((InSegment("nearby"), Not(Clicked("welcome", "more"))))
    assert codes(loaded) == [("D317", "warning")]
    without = load(valid_sources(), "welcome").campaign
    assert without is not None
    assert without.audience is None


@pytest.mark.parametrize(
    ("clicked", "found"),
    [
        ("welcome/1-hello", []),
        ("other-series/1-other", []),
        ("welcome/1-helo", ["no email of welcome has the key `1-helo`", "did you mean `1-hello`?"]),
        ("other-series/2-other", ["no email of other-series has the key `2-other`", "did you mean `1-other`?"]),
        ("other-serie/*", ["no campaign is named `other-serie`", "did you mean `other-series`?"]),
        ("1-other", ["`1-other` does not say which campaign’s email", "did you mean `other-series/1-other`?"]),
    ],
)
def test_an_email_that_was_clicked_must_be_there(clicked: str, found: list[str]) -> None:
    problems = load(with_staff(f"{{clicked: {clicked}}}"), "welcome", campaigns=EMAILS).problems
    errors = [problem for problem in problems if problem.level == "error"]
    assert [text for problem in errors for text in (problem.text, problem.label)] == found


def test_names_are_not_checked_against_campaigns_that_nobody_told() -> None:
    assert codes(load(with_staff("{clicked: unheard-of/*}"), "welcome")) == [("D317", "warning")]


def test_a_version_that_was_right_once_is_read_for_ever() -> None:
    """Fields and events were free before they were declared: what runs since then goes on."""
    sources = valid_sources()
    site = sources[SITE]
    sources[SITE] = site[: site.index("fields:")]
    sources[SEGMENTS] += "old: {about: x, when: {any: [{field: shoe_size, is: 9}, {event: shoe.bought}]}}\n"
    assert {code for code, _ in codes(load(sources, "welcome"))} == {"D201"}
    loaded = load(sources, "welcome", stored=True)
    assert loaded.problems == ()
    assert loaded.campaign is not None
    assert load_site(sources, stored=True)[0] is not None
    assert load_site(sources)[0] is None


def test_the_site_knows_its_fields_and_events() -> None:
    site, _ = load_site(valid_sources())
    assert site is not None
    assert site.event_names() == ("consultation.booked", "consultation.canceled", "guide.requested", "left.town")
    assert site.field_names() == ("city", "first_name", "state", "visit")
    assert site.fields == (
        core.Declared("city", "Where they live, from the import of 2026."),
        core.Declared("visit", "The day they come to see us."),
    )


@pytest.mark.parametrize(
    ("condition", "refused"),
    [
        (Happened("depression.found"), True),
        (Clicked("welcome", "3-chronic-pain"), True),
        (FieldIs("state", ("CA",)), False),
        (Clicked("welcome", None), False),
    ],
)
def test_nobody_is_chosen_by_a_condition_or_diagnosis(condition: Condition, refused: bool) -> None:
    loaded = load(valid_sources(), "welcome")
    assert loaded.site is not None
    assert loaded.campaign is not None
    in_segment = replace(loaded.site, segments=(core.Segment("s", "x", Not(condition)),))
    chosen = replace(loaded.campaign, audience=All((condition,)))
    for site, campaign in ((in_segment, loaded.campaign), (loaded.site, chosen)):
        found = [problem.code for problem in lint_emails(valid_sources(), site, campaign, loaded.claims)]
        assert ("D310" in found) is refused


def test_nothing_is_declared_that_names_a_condition() -> None:
    loaded = load(valid_sources(), "welcome")
    assert loaded.site is not None
    assert loaded.campaign is not None
    fields = replace(loaded.site, fields=(core.Declared("diagnosis", "x"),))
    events = replace(loaded.site, events=(core.Declared("depression.found", "x"),))
    for site in (fields, events):
        found = lint_emails(valid_sources(), site, loaded.campaign, loaded.claims)
        assert "D310" in [problem.code for problem in found]


def test_an_audience_cannot_ask_without_measure() -> None:
    several = ", ".join("{tag: a}" for _ in range(501))
    (problem,) = load(with_audience(f"{{any: [{several}]}}"), "welcome").problems
    assert (problem.code, problem.line) == ("D105", 5)
    assert problem.text == "this audience asks 501 questions with the segments it names"


def test_a_chain_of_ten_thousand_segments_is_refused_and_not_died_of() -> None:
    chain = [f"s{n}: {{about: x, when: {{segment: s{n + 1}}}}}\n" for n in range(10_000)]
    sources = valid_sources()
    sources[SEGMENTS] += "".join(chain) + "s10000: {about: x, when: {tag: x}}\n"
    assert {code for code, _ in codes(load(sources, "welcome"))} == {"D105"}
    sources[SEGMENTS] = sources[SEGMENTS].replace(
        "s10000: {about: x, when: {tag: x}}", "s10000: {about: x, when: {segment: s0}}"
    )
    (problem,) = load(sources, "welcome").problems
    assert problem.code == "D201"
    assert problem.help == "s0 → s1 → s2 → … → s10000 → s0"
