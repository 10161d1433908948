"""`decide` alone, and `decide` in a loop: whatever the campaign, the person and the calendar, the rules hold."""

# ruff: noqa: DTZ001  (local times are naive here on purpose: what they mean in a zone is what is tested)

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dripwell.core.campaign import (
    Campaign,
    Clinic,
    Consultation,
    Email,
    Exit,
    Goal,
    Limits,
    Mailbox,
    Segment,
    Site,
    Step,
    Suppress,
    Wait,
    Window,
)
from dripwell.core.conditions import Facts, FieldIs, HasTag
from dripwell.core.duration import Duration
from dripwell.core.journey import (
    FRESH,
    Decision,
    Finish,
    Leave,
    Passage,
    Person,
    PlanMessage,
    WaitUntil,
    decide,
    next_keys,
)
from dripwell.core.states import SUPPRESSING, Reason
from dripwell.core.window import SPREAD, is_open, zone_of

TOPIC = "seven-part-series"
START = datetime(2026, 11, 2, 17, 30, tzinfo=UTC)
"""A Monday, half past nine in Los Angeles."""
GAP, WEEK = Duration(20, "hour"), Duration(1, "week")
WEEKDAYS = Window(frozenset(range(5)), time(9), time(18))

CLINIC = Clinic(
    name="Clinic", short_name="C", legal_name="Clinic", postal_address="1 Street", phone="(555) 010-0142",
    website="https://kcla.example", timezone="America/Los_Angeles",
)  # fmt: skip
SITE = Site(
    clinic=CLINIC,
    sender=Mailbox("C", "hello@mail.kcla.example"),
    service_sender=Mailbox("C", "calls@notice.kcla.example"),
    reply_to="care@kcla.example",
    base_url="https://mail.kcla.example",
    link_hosts=(),
    window=WEEKDAYS,
    limits=Limits(3, WEEK, GAP),
    suppress=(),
    topics=(),
    forms=(),
    consultation=Consultation("Call", Duration(15, "minute"), (), Duration(15, "minute"), "", "desk@kcla.example"),
    segments=(Segment("patients", "", HasTag("patient")), Segment("californians", "", FieldIs("state", ("CA",)))),
)
PERSON = Person(timezone="America/Los_Angeles", facts=Facts(topics=frozenset({TOPIC})))


def series(*steps: Step, **changes: object) -> Campaign:
    values: dict[str, object] = {"name": "series", "title": "Series", "kind": "drip", "topic": TOPIC, "steps": steps}
    return Campaign(**(values | changes))  # type: ignore[arg-type]


def email(number: int) -> Email:
    return Email(f"email-{number}", f"email-{number}", f"Part {number}")


def wait(number: int, length: str) -> Wait:
    parsed = Duration.parse(length)
    assert parsed is not None
    return Wait(f"wait-{number}", parsed)


TWO = series(email(1), wait(1, "2 days"), email(2))
FRESHLY = Passage(1, START, START)


def ask(
    campaign: Campaign = TWO,
    passage: Passage = FRESHLY,
    person: Person = PERSON,
    now: datetime = START,
    site: Site = SITE,
) -> Decision:
    return decide(campaign, campaign, site, passage, person, now)


# One decision


def test_the_first_email_goes_out_at_once_while_the_window_is_open() -> None:
    assert ask() == PlanMessage("email-1", START + FRESH)


def test_a_planned_email_is_fresh_no_longer_than_its_window() -> None:
    late = START.replace(hour=1, minute=55) + timedelta(days=1)  # five to six in the evening
    assert ask(now=late) == PlanMessage("email-1", late + timedelta(minutes=5))


def test_at_night_the_first_email_waits_for_the_morning() -> None:
    night = START + timedelta(hours=12)
    decision = ask(now=night)
    assert isinstance(decision, WaitUntil)
    assert decision.waits_for == "window"
    opens = datetime(2026, 11, 3, 17, 0, tzinfo=UTC)
    assert opens <= decision.at <= opens + 2 * SPREAD
    assert ask(now=decision.at) == PlanMessage("email-1", decision.at + FRESH)


def test_a_wait_counts_from_acceptance_on_the_persons_calendar() -> None:
    accepted = datetime(2026, 10, 30, 17, 0, tzinfo=UTC)  # Friday, 10 in the morning, daylight time
    passage = Passage(1, accepted, accepted, "email-1")
    campaign = series(email(1), wait(1, "3 days"), email(2))
    decision = ask(campaign, passage, now=accepted)
    assert isinstance(decision, WaitUntil)
    assert decision.waits_for == "wait"
    wish = datetime(2026, 11, 2, 18, 0, tzinfo=UTC)  # Monday, 10 in the morning, standard time
    assert abs(decision.at - wish) <= SPREAD


def test_waits_in_a_row_add_up() -> None:
    campaign = series(email(1), wait(1, "1 day"), wait(2, "4 hours"), email(2), window=Window())
    decision = ask(campaign, replace(FRESHLY, cursor_key="email-1"))
    assert isinstance(decision, WaitUntil)
    assert abs(decision.at - (START + timedelta(hours=28))) <= SPREAD


def test_behind_the_last_email_the_series_is_finished_even_with_a_wait_at_the_end() -> None:
    assert ask(passage=replace(FRESHLY, cursor_key="email-2")) == Finish()
    assert ask(series(email(1), wait(1, "2 days")), replace(FRESHLY, cursor_key="email-1")) == Finish()


@pytest.mark.parametrize("reason", sorted(SUPPRESSING))
def test_whoever_is_suppressed_leaves_for_that_reason(reason: Reason) -> None:
    paused = replace(PERSON, suppressed_for=reason, paused_until=START + timedelta(days=9))
    assert ask(person=paused) == Leave(reason)


@pytest.mark.parametrize(
    "person",
    [
        replace(PERSON, may_receive=False),
        replace(PERSON, facts=Facts()),
        replace(PERSON, facts=Facts(topics=frozenset({"monthly-notes"}))),
    ],
)
def test_without_consent_to_this_topic_nobody_is_mailed(person: Person) -> None:
    assert ask(person=person) == Leave(Reason.NO_CONSENT)


@pytest.mark.parametrize(
    ("within", "after", "exits", "left"),
    [
        (None, timedelta(days=300), True, True),
        (Duration(30, "day"), timedelta(days=29), True, True),
        (Duration(30, "day"), timedelta(days=31), True, False),
        (None, timedelta(days=-1), True, False),  # before joining: it does not count
        (None, timedelta(days=1), False, False),
    ],
)
def test_the_goal_ends_the_series_when_it_counts(
    within: Duration | None, after: timedelta, exits: bool, left: bool
) -> None:
    campaign = replace(TWO, goal=Goal("consultation.booked", within, exits=exits))
    person = replace(PERSON, events={"consultation.booked": START + after})
    assert (ask(campaign, person=person) == Leave(Reason.GOAL)) == left


def test_who_has_every_email_stays_until_the_goals_time_is_over_and_a_late_call_counts() -> None:
    campaign = replace(TWO, goal=Goal("consultation.booked", Duration(30, "day")))
    passage = replace(FRESHLY, cursor_key="email-2", anchor_at=START + timedelta(days=2))
    until = START + timedelta(days=30)
    assert ask(campaign, passage, now=START + timedelta(days=3)) == WaitUntil(until, "goal")
    booked = replace(PERSON, events={"consultation.booked": START + timedelta(days=20)})
    assert ask(campaign, passage, booked, START + timedelta(days=20)) == Leave(Reason.GOAL)
    assert ask(campaign, passage, now=until) == Finish()


@pytest.mark.parametrize(
    ("rule", "person", "left"),
    [
        (
            Exit("tag", "patient"),
            replace(PERSON, facts=Facts(tags=frozenset({"patient"}), topics=frozenset({TOPIC}))),
            True,
        ),
        (Exit("tag", "patient"), PERSON, False),
        (Exit("event", "consultation.booked"), replace(PERSON, events={"consultation.booked": START}), True),
        (Exit("event", "consultation.booked"), PERSON, False),
        (
            Exit("segment", "californians"),
            replace(PERSON, facts=Facts({"state": "CA"}, topics=frozenset({TOPIC}))),
            True,
        ),
        (Exit("segment", "californians"), PERSON, False),
        (Exit("segment", "misspelled"), PERSON, False),
        (Exit("left_segment", "californians"), PERSON, True),
        (Exit("left_segment", "misspelled"), PERSON, False),
        (Exit("after", Duration(3, "day")), PERSON, False),
        (Exit("after", Duration(0, "day")), PERSON, True),
    ],
)
def test_each_kind_of_exit(rule: Exit, person: Person, left: bool) -> None:
    assert (ask(replace(TWO, exits=(rule,)), person=person) == Leave(Reason.EXIT)) == left


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize(
    ("rule", "reason"), [(Suppress("segment", "patients"), Reason.SEGMENT), (Suppress("tag", "patient"), Reason.TAG)]
)
def test_a_suppressing_segment_or_tag_ends_the_series_from_site_or_campaign(
    rule: Suppress, reason: Reason, everywhere: bool
) -> None:
    patient = replace(PERSON, facts=Facts(tags=frozenset({"patient"}), topics=frozenset({TOPIC})))
    site = replace(SITE, suppress=(rule,)) if everywhere else SITE
    campaign = TWO if everywhere else replace(TWO, suppress=(rule,))
    assert ask(campaign, person=patient, site=site) == Leave(reason)
    assert ask(campaign, site=site) == PlanMessage("email-1", START + FRESH)


def test_settings_of_the_newest_version_hold_for_people_on_an_old_one() -> None:
    newest = series(email(3), exits=(Exit("tag", "patient"),))
    patient = replace(PERSON, facts=Facts(tags=frozenset({"patient"}), topics=frozenset({TOPIC})))
    assert decide(TWO, newest, SITE, FRESHLY, patient, START) == Leave(Reason.EXIT)
    assert decide(TWO, newest, SITE, FRESHLY, PERSON, START) == PlanMessage("email-1", START + FRESH)


@pytest.mark.parametrize(
    ("person", "waits_for"),
    [
        (replace(PERSON, open_message=True), "another_email"),
        (replace(PERSON, deferred_until=START + timedelta(hours=5)), "still_being_delivered"),
        (replace(PERSON, accepted=(START - timedelta(hours=3),)), "gap"),
        (replace(PERSON, accepted=tuple(START - timedelta(days=day) for day in (5, 3, 2))), "limit"),
        (replace(PERSON, accepted=(START - timedelta(days=2),), weekly=True), "limit"),
    ],
)
def test_what_must_wait_says_why_and_keeps_its_place(person: Person, waits_for: str) -> None:
    decision = ask(person=person)
    assert isinstance(decision, WaitUntil)
    assert decision.waits_for == waits_for
    assert decision.at > START
    later = replace(person, open_message=False, deferred_until=None)
    assert ask(person=later, now=decision.at) == PlanMessage("email-1", decision.at + FRESH)


def test_suppress_rules_about_other_campaigns_postpone_and_end_nothing() -> None:
    busy = replace(TWO, suppress=(Suppress("active_in", "welcome"),))
    decision = ask(busy, person=replace(PERSON, active_in=frozenset({"welcome"})))
    assert isinstance(decision, WaitUntil)
    assert decision.waits_for == "active_in"
    assert ask(busy) == PlanMessage("email-1", START + FRESH)
    recently = replace(TWO, suppress=(Suppress("emailed_within", Duration(4, "day")),))
    decision = ask(recently, person=replace(PERSON, accepted=(START - timedelta(days=1),)))
    assert isinstance(decision, WaitUntil)
    assert decision.waits_for == "emailed_within"
    assert decision.at >= START + timedelta(days=3)


def test_the_stricter_of_site_and_campaign_limit_holds() -> None:
    accepted = (START - timedelta(days=1),)
    stricter = replace(TWO, limits=Limits(1, Duration(3, "day"), None))
    looser = replace(TWO, limits=Limits(100, Duration(1, "day"), Duration(1, "hour")))
    assert isinstance(ask(stricter, person=replace(PERSON, accepted=accepted)), WaitUntil)
    assert isinstance(ask(looser, person=replace(PERSON, accepted=(START - timedelta(hours=5),))), WaitUntil)
    assert ask(looser, person=replace(PERSON, accepted=accepted)) == PlanMessage("email-1", START + FRESH)


def test_a_paused_person_keeps_their_place() -> None:
    until = START + timedelta(days=14)
    paused = replace(PERSON, paused_until=until)
    for passage in (FRESHLY, replace(FRESHLY, cursor_key="email-1", anchor_at=START - timedelta(days=9))):
        assert ask(passage=passage, person=paused) == WaitUntil(until, "paused")
        before = ask(passage=passage)
        after = ask(passage=passage, person=paused, now=until)
        assert isinstance(before, PlanMessage)
        assert isinstance(after, PlanMessage)
        assert before.key == after.key


def test_what_lies_ahead_is_what_has_not_been_passed() -> None:
    assert next_keys(TWO, None) == ["email-1", "email-2"]
    assert next_keys(TWO, "email-1") == ["email-2"]
    assert next_keys(TWO, "email-2") == []


# Whole journeys


@dataclass(frozen=True)
class Accepted:
    """One acceptance in a simulated journey, with what was due to it."""

    key: str
    at: datetime
    anchor: datetime


@dataclass
class Course:
    """What became of one enrollment."""

    accepted: list[Accepted]
    end: Decision


zones = st.sampled_from(
    [None, "America/Los_Angeles", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata"]
)
starts = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(lambda at: at.replace(tzinfo=UTC))
lengths = st.builds(Duration, st.integers(1, 9), st.sampled_from(["minute", "hour", "day", "week"]))


@st.composite
def send_windows(draw: st.DrawFn) -> Window | None:
    if draw(st.booleans()):
        return None
    opens = draw(st.integers(0, 22))
    closes = draw(st.integers(opens + 1, 24))
    zone = draw(st.sampled_from(["subscriber", "Europe/Berlin"]))
    return Window(draw(st.frozensets(st.integers(0, 6), min_size=1)), time(opens), time(closes % 24), zone)


@st.composite
def campaigns(draw: st.DrawFn) -> Campaign:
    steps: list[Step] = []
    for number in range(draw(st.integers(1, 5))):
        steps.append(email(number))
        steps += [Wait(f"wait-{number}-{n}", draw(lengths)) for n in range(draw(st.integers(0, 2)))]
    limits = draw(st.sampled_from([None, Limits(2, WEEK, None), Limits(None, None, Duration(2, "day"))]))
    return series(*steps, window=draw(send_windows()), limits=limits)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    return replace(SITE, window=draw(send_windows()) or WEEKDAYS)


people = st.builds(
    Person,
    timezone=zones,
    facts=st.just(Facts(topics=frozenset({TOPIC}))),
    weekly=st.booleans(),
)
delays = st.lists(st.integers(0, 14), min_size=1, max_size=8)


def travel(
    campaign: Campaign, site: Site, person: Person, start: datetime, late: Sequence[int], passage_id: int = 1
) -> Course:
    """Ask `decide` again and again; each planned email is accepted some minutes later, or decided again if stale."""
    passage, now, found = Passage(passage_id, start, start), start, list[Accepted]()
    for turn in range(400):
        decision = decide(campaign, campaign, site, passage, person, now)
        match decision:
            case PlanMessage(key=key, fresh_until=fresh_until):
                assert now < fresh_until <= now + FRESH
                at = now + timedelta(minutes=late[turn % len(late)])
                if at < fresh_until:
                    found.append(Accepted(key, at, passage.anchor_at))
                    person = replace(person, accepted=(*person.accepted, at))
                    passage = replace(passage, anchor_at=at, cursor_key=key)
                now = max(at, now + timedelta(seconds=1))
            case WaitUntil(at=at):
                assert at > now, "a wait that is over is no wait"
                now = at
            case Finish() | Leave():
                return Course(found, decision)
    raise AssertionError("the journey never ends")


@settings(max_examples=60)
@given(campaign=campaigns(), site=sites(), person=people, start=starts, late=delays)
def test_everybody_gets_every_email_once_in_order_and_comes_to_the_end(
    campaign: Campaign, site: Site, person: Person, start: datetime, late: list[int]
) -> None:
    course = travel(campaign, site, person, start, late)
    assert course.end == Finish()
    assert [accepted.key for accepted in course.accepted] == [step.key for step in campaign.emails]


@settings(max_examples=60)
@given(campaign=campaigns(), site=sites(), person=people, start=starts, late=delays)
def test_no_limit_is_ever_broken_and_no_email_leaves_outside_its_window(
    campaign: Campaign, site: Site, person: Person, start: datetime, late: list[int]
) -> None:
    course = travel(campaign, site, person, start, late)
    window = campaign.window or site.window
    zone = zone_of(window, person.timezone, site.clinic.timezone)
    times = [accepted.at for accepted in course.accepted]
    assert all(is_open(window, at, zone) for at in times)
    own = [campaign.limits] if campaign.limits else []
    weekly = [Limits(1, WEEK, None)] if person.weekly else []
    for limits in (site.limits, *own, *weekly):
        if limits.gap is not None:
            assert all(after - before >= limits.gap.at_most() for before, after in itertools.pairwise(times))
        if limits.emails is not None and limits.per is not None:
            for first, beyond in zip(times, times[limits.emails :], strict=False):
                assert beyond - first >= limits.per.at_most()


@settings(max_examples=60)
@given(campaign=campaigns(), site=sites(), person=people, start=starts, late=delays)
def test_no_email_comes_before_its_wait_is_over_on_the_persons_calendar(
    campaign: Campaign, site: Site, person: Person, start: datetime, late: list[int]
) -> None:
    course = travel(campaign, site, person, start, late)
    zone = ZoneInfo(person.timezone or site.clinic.timezone)
    waits: dict[str, list[Duration]] = {}
    pending: list[Duration] = []
    for step in campaign.steps:
        if isinstance(step, Wait):
            pending.append(step.length)
        else:
            waits[step.key], pending = pending, []
    for accepted in course.accepted:
        wish = accepted.anchor
        for length in waits[accepted.key]:
            wish = length.after(wish, zone)
        assert accepted.at >= wish - SPREAD


@settings(max_examples=40)
@given(
    campaign=campaigns(),
    site=sites(),
    person=people,
    start=starts,
    late=delays,
    stop=st.integers(0, 60),
    data=st.data(),
)
def test_from_the_moment_a_reason_holds_nothing_is_mailed_and_the_journey_ends_with_it(
    campaign: Campaign, site: Site, person: Person, start: datetime, late: list[int], stop: int, data: st.DataObject
) -> None:
    reasons: dict[Reason, Callable[[Person], Person]] = {
        **{reason: (lambda p, reason=reason: replace(p, suppressed_for=reason)) for reason in SUPPRESSING},  # type: ignore[misc]
        Reason.NO_CONSENT: lambda p: replace(p, may_receive=False),
        Reason.TAG: lambda p: replace(p, facts=replace(p.facts, tags=frozenset({"patient"}))),
    }
    site = replace(site, suppress=(Suppress("tag", "patient"),))
    reason = data.draw(st.sampled_from(sorted(reasons)))
    course = travel(campaign, site, person, start, late)
    at = start + timedelta(days=stop)
    before = [accepted for accepted in course.accepted if accepted.at <= at]
    cursor = before[-1].key if before else None
    passage = Passage(1, start, before[-1].at if before else start, cursor)
    stopped = reasons[reason](replace(person, accepted=tuple(accepted.at for accepted in before)))
    assert decide(campaign, campaign, site, passage, stopped, at) == Leave(reason)


@settings(max_examples=40)
@given(one=campaigns(), other=campaigns(), site=sites(), person=people, start=starts, apart=st.integers(0, 3000))
def test_limits_hold_over_two_campaigns_at_once(
    one: Campaign, other: Campaign, site: Site, person: Person, start: datetime, apart: int
) -> None:
    """Two planners ask for one person; whoever is told to plan mails at once, and the other sees it."""
    due = {1: start, 2: start + timedelta(minutes=apart)}
    passages = {number: Passage(number, at, at) for number, at in due.items()}
    followed = {1: one, 2: other}
    for _ in range(800):
        if not due:
            break
        number = min(due, key=lambda n: (due[n], n))
        now, passage = due[number], passages[number]
        match decide(followed[number], followed[number], site, passage, person, now):
            case PlanMessage(key=key):
                person = replace(person, accepted=(*person.accepted, now))
                passages[number] = replace(passage, anchor_at=now, cursor_key=key)
            case WaitUntil(at=at):
                due[number] = at
            case Finish() | Leave():
                del due[number]
    assert not due, "a journey never ends"
    assert len(person.accepted) == len(one.emails) + len(other.emails)
    times = person.accepted
    assert all(after - before >= GAP.at_most() for before, after in itertools.pairwise(times))
    assert all(beyond - first >= WEEK.at_most() for first, beyond in zip(times, times[3:], strict=False))


@settings(max_examples=40)
@given(campaign=campaigns(), site=sites(), person=people, start=starts, now=st.integers(0, 10**6))
def test_the_same_question_has_the_same_answer(
    campaign: Campaign, site: Site, person: Person, start: datetime, now: int
) -> None:
    at = start + timedelta(seconds=now)
    passage = Passage(1, start, start)
    assert decide(campaign, campaign, site, passage, person, at) == decide(
        campaign, campaign, site, passage, person, at
    )
