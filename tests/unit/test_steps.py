"""Steps of every kind: what `decide` passes on the way, where people stand then, and that nobody goes in a circle."""

# ruff: noqa: DTZ001  (local times are naive here on purpose: what they mean in a zone is what is tested)

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dripwell.core.campaign import Branch, Email, Exit, Step, Tag, Wait, WaitClock, WaitDate, WaitField, WaitFor, Window
from dripwell.core.conditions import Facts, HasTag
from dripwell.core.duration import Duration
from dripwell.core.journey import Finish, Leave, Passage, Person, PlanMessage, WaitUntil, decide, moved, tagged
from dripwell.core.passage import Passed, next_keys
from dripwell.core.states import Reason
from dripwell.core.window import is_open, zone_of
from tests.unit.test_journey import FRESHLY, PERSON, SITE, START, ask, email, series, wait

DAY = timedelta(days=1)
ASKED = HasTag("asked")
BRANCH = Branch("branch-asked", "Asked?", ASKED, (email(2),), (wait(1, "2 days"), email(3)))
TREE = series(email(1), BRANCH, Tag("tag-done", "done"), email(4))
BEHIND_ONE = Passage(1, START, START, "email-1")


def with_tags(*names: str) -> Person:
    return replace(PERSON, facts=replace(PERSON.facts, tags=frozenset(names)))


def with_fields(**fields: object) -> Person:
    return replace(PERSON, facts=replace(PERSON.facts, fields=fields))


def test_a_branch_sends_whoever_the_question_is_true_of_one_way_and_all_others_the_other() -> None:
    yes = ask(TREE, BEHIND_ONE, with_tags("asked"))
    assert isinstance(yes, PlanMessage)
    assert (yes.key, yes.passed) == ("email-2", (Passed("branch-asked", START, arm="then"),))
    no = ask(TREE, BEHIND_ONE)
    assert isinstance(no, WaitUntil)
    assert (no.waits_for, no.passed) == ("wait", (Passed("branch-asked", START, arm="else"),))


def test_a_branch_is_decided_once_whatever_happens_later() -> None:
    inside = moved(BEHIND_ONE, ask(TREE, BEHIND_ONE))
    assert inside.cursor_key == "branch-asked/else"
    decision = ask(TREE, inside, with_tags("asked"), START + 3 * DAY)
    assert isinstance(decision, PlanMessage)
    assert (decision.key, decision.passed) == ("email-3", ())


@pytest.mark.parametrize("key", ["email-2", "email-3"])
def test_behind_either_arm_the_steps_after_the_branch_go_on(key: str) -> None:
    decision = ask(TREE, replace(FRESHLY, cursor_key=key))
    assert isinstance(decision, PlanMessage)
    assert (decision.key, decision.passed) == ("email-4", (Passed("tag-done", START, tag="done"),))
    assert ask(TREE, moved(FRESHLY, decision)).passed == ()


def test_an_empty_arm_leads_to_the_step_after_the_branch() -> None:
    campaign = series(Branch("branch-x", "X?", ASKED, (email(1),)), email(2))
    decision = ask(campaign)
    assert isinstance(decision, PlanMessage)
    assert decision.key == "email-2"
    assert next_keys(campaign, moved(FRESHLY, decision).cursor_key) == ["email-2"]


def test_the_emails_that_may_still_come_are_those_of_the_arm_and_behind_it() -> None:
    assert [one.key for one in TREE.emails] == ["email-1", "email-2", "email-3", "email-4"]
    assert next_keys(TREE, "email-1") == ["email-2", "email-3", "email-4"]
    assert next_keys(TREE, "branch-asked/else") == ["email-3", "email-4"]
    assert next_keys(TREE, "email-2") == ["email-4"]
    assert next_keys(TREE, "tag-done") == ["email-4"]


def test_a_tag_is_seen_by_the_steps_behind_it_and_given_again_by_none() -> None:
    campaign = series(Tag("tag-asked", "asked"), BRANCH)
    decision = ask(campaign)
    assert [one.cursor for one in decision.passed] == ["tag-asked", "branch-asked/then"]
    taken = ask(series(Tag("untag-asked", "asked", add=False), BRANCH), person=with_tags("asked"))
    assert [one.cursor for one in taken.passed] == ["untag-asked", "branch-asked/else"]


def test_a_tag_that_is_a_reason_to_leave_ends_the_series_there() -> None:
    campaign = series(Tag("tag-patient", "patient"), email(1), exits=(Exit("tag", "patient"),))
    assert ask(campaign) == Leave(Reason.EXIT, (Passed("tag-patient", START, tag="patient"),))


def test_a_tag_behind_a_wait_is_given_when_the_wait_is_over_and_moves_no_email() -> None:
    campaign = series(wait(1, "2 days"), Tag("tag-x", "x"), wait(2, "2 days"), email(1))
    assert ask(campaign) == WaitUntil(START + 2 * DAY, "wait")
    late = START + 2 * DAY + timedelta(hours=5)
    decision = ask(campaign, now=late)
    assert decision.passed == (Passed("tag-x", START + 2 * DAY, tag="x"),)
    straight = ask(series(wait(1, "4 days"), email(1)), now=late)
    assert isinstance(decision, WaitUntil)
    assert isinstance(straight, WaitUntil)
    assert decision.at == straight.at


def test_who_waits_for_a_condition_goes_on_when_it_is_true_or_when_the_time_is_over() -> None:
    campaign = series(WaitFor("wait-1", ASKED, Duration(4, "day")), email(1))
    assert ask(campaign) == WaitUntil(START + timedelta(hours=1), "until")
    later = START + DAY
    asked = ask(campaign, person=with_tags("asked"), now=later)
    assert isinstance(asked, PlanMessage)
    assert asked.passed == (Passed("wait-1", later),)
    ends = START + 4 * DAY
    assert ask(campaign, now=ends - timedelta(minutes=5)) == WaitUntil(ends, "until")
    over = ask(campaign, now=ends + timedelta(minutes=9))
    assert isinstance(over, PlanMessage)
    assert over.passed == (Passed("wait-1", ends),)


def test_a_weekday_is_the_next_one_on_the_persons_own_clock() -> None:
    campaign = series(WaitClock("wait-1", 1, time(10)), email(1))
    new_york = replace(PERSON, timezone="America/New_York")
    for person, zone in ((PERSON, "America/Los_Angeles"), (new_york, "America/New_York")):
        decision = ask(campaign, person=person)
        assert isinstance(decision, WaitUntil)
        tuesday = datetime(2026, 11, 3, 10, tzinfo=ZoneInfo(zone))
        assert tuesday <= decision.at <= tuesday + timedelta(minutes=40)
    on_the_spot = datetime(2026, 11, 3, 18, 0, tzinfo=UTC)
    again = ask(campaign, replace(FRESHLY, anchor_at=on_the_spot), now=on_the_spot)
    assert isinstance(again, WaitUntil)
    assert again.at >= on_the_spot + 7 * DAY


def test_a_date_is_waited_for_and_no_longer_once_it_is_past() -> None:
    campaign = series(WaitDate("wait-1", datetime(2026, 11, 5, 9, 30)), email(1))
    decision = ask(campaign)
    assert isinstance(decision, WaitUntil)
    moment = datetime(2026, 11, 5, 17, 30, tzinfo=UTC)
    assert moment <= decision.at <= moment + timedelta(minutes=40)
    past = replace(FRESHLY, anchor_at=START + 7 * DAY)
    assert isinstance(ask(campaign, past, now=START + 7 * DAY), PlanMessage)


BEFORE = WaitField("wait-1", "visit", Duration(3, "day"), before=True)
AFTER = WaitField("wait-1", "visit", Duration(1, "day"), before=False)


@pytest.mark.parametrize(("step", "day"), [(BEFORE, 9), (AFTER, 13)])
def test_a_wait_beside_a_date_of_the_person_ends_so_long_before_or_after_it(step: Step, day: int) -> None:
    decision = ask(series(step, email(1)), person=with_fields(visit="2026-11-12 10:00"))
    assert isinstance(decision, WaitUntil)
    moment = datetime(2026, 11, day, 18, tzinfo=UTC)
    assert moment <= decision.at <= moment + timedelta(minutes=40)


@pytest.mark.parametrize(
    "fields", [{}, {"visit": "soon"}, {"visit": 20261112}, {"visit": "2099-01-01"}, {"visit": "2026-11-01"}]
)
def test_without_the_date_nothing_is_mailed_that_is_about_it(fields: dict[str, object]) -> None:
    campaign = series(BEFORE, email(1), Tag("tag-x", "x"), wait(2, "1 day"), email(2))
    decision = ask(campaign, person=with_fields(**fields))
    assert isinstance(decision, WaitUntil)
    assert decision.passed == (Passed("tag-x", START),)
    assert next_keys(campaign, "tag-x") == ["email-2"]


def test_an_email_about_a_visit_that_is_soon_leaves_at_once() -> None:
    assert isinstance(ask(series(BEFORE, email(1)), person=with_fields(visit="2026-11-04")), PlanMessage)


def test_an_email_with_a_window_of_its_own_waits_for_that_one() -> None:
    evening = Window(frozenset(range(7)), time(19), time(20))
    decision = ask(series(replace(email(1), window=evening)))
    assert isinstance(decision, WaitUntil)
    assert decision.at.astimezone(ZoneInfo("America/Los_Angeles")).hour == 19


# Any tree, any person: it ends, in order, inside the window, each step once, and twice alike.

ZONES = ("America/Los_Angeles", "Australia/Lord_Howe", "Pacific/Apia", "Europe/London", None)


@st.composite
def trees(draw: st.DrawFn, depth: int = 2, name: str = "s") -> tuple[Step, ...]:
    kinds = ["email", "wait", "for", "clock", "date", "field", "tag", "untag", *(["branch"] if depth else [])]
    made: list[Step] = []
    for number, kind in enumerate(draw(st.lists(st.sampled_from(kinds), max_size=5))):
        key = f"{name}-{number}"
        length = Duration(draw(st.integers(1, 9)), draw(st.sampled_from(["minute", "hour", "day", "week"])))
        tag = draw(st.sampled_from(["asked", "other"]))
        step: Step = Email(key, key, key)
        if kind == "wait":
            step = Wait(key, length)
        elif kind == "for":
            step = WaitFor(key, HasTag(tag), Duration(draw(st.integers(1, 48)), "hour"))
        elif kind == "clock":
            step = WaitClock(key, draw(st.integers(0, 6)), time(draw(st.integers(0, 23)), 30))
        elif kind == "date":
            step = WaitDate(key, datetime(2026, 10, 1) + timedelta(hours=draw(st.integers(0, 2000))))
        elif kind == "field":
            step = WaitField(key, "visit", length, draw(st.booleans()))
        elif kind in ("tag", "untag"):
            step = Tag(key, tag, kind == "tag")
        elif kind == "branch":
            arms = draw(trees(depth - 1, f"{key}t")), draw(trees(depth - 1, f"{key}e"))
            step = Branch(key, key, HasTag(tag), *arms)
        made.append(step)
    return tuple(made)


def run(steps: tuple[Step, ...], person: Person) -> list[tuple[str, datetime]]:
    """(step, when) of everything that one person goes through; decides as the planner does."""
    campaign = series(*steps)
    passage, now, found = FRESHLY, START, list[tuple[str, datetime]]()
    for _ in range(6000):
        decision = decide(campaign, campaign, SITE, passage, person, now)
        for passed in decision.passed:
            assert passage.anchor_at <= passed.at <= now
            found.append((passed.key, passed.at))
            person = tagged(person, passed)
        passage = moved(passage, decision)
        match decision:
            case PlanMessage(key=key):
                assert is_open(SITE.window, now, zone_of(SITE.window, person.timezone, SITE.clinic.timezone))
                if person.accepted:
                    assert now - person.accepted[-1] >= timedelta(hours=20)
                found.append((key, now))
                passage = replace(passage, cursor_key=key, anchor_at=now)
                person = replace(person, accepted=(*person.accepted, now))
            case WaitUntil(at=at):
                assert at > now
                now = at
            case Finish() | Leave():
                return found
    raise AssertionError("this never ends")


@settings(max_examples=80, deadline=None)
@given(
    trees(),
    st.sampled_from(ZONES),
    st.sampled_from(["", "2026-11-03", "2026-12-24 18:00", "2027-03-14T02:30:00-05:00", "no"]),
    st.booleans(),
)
def test_every_series_ends_in_order_with_each_step_once_and_twice_alike(
    steps: tuple[Step, ...], zone: str | None, visit: str, asked: bool
) -> None:
    facts = Facts(
        fields={"visit": visit},
        topics=PERSON.facts.topics,
        tags=frozenset({"asked"} if asked else ()),
    )
    person = replace(PERSON, timezone=zone, facts=facts)
    found = run(steps, person)
    keys = [key for key, _ in found]
    order = [step.key for step in series(*steps).walk()]
    assert len(set(keys)) == len(keys)
    assert [key for key in order if key in keys] == keys
    assert run(steps, person) == found
