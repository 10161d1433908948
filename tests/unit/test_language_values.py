"""What files mean: the values of core that a correct installation becomes."""

from __future__ import annotations

import time as clock
from datetime import date, datetime, time
from pathlib import Path

import pytest

from dripwell.content.files import read_sources
from dripwell.content.load import Claim, load, load_site
from dripwell.core import campaign as core
from dripwell.core.conditions import All, Any, FieldIs, Happened, HasTag, HasTopic, InSegment, Joined, Not
from dripwell.core.duration import Duration
from tests.unit.language_sources import CAMPAIGN, SEGMENTS, SITE, valid_sources

ROOT = Path(__file__).parent.parent.parent


def changed(path: str, old: str, new: str) -> dict[str, str]:
    """Return the valid sources with one thing changed."""
    sources = valid_sources()
    assert sources[path].count(old) == 1
    return {**sources, path: sources[path].replace(old, new)}


def campaign(sources: dict[str, str]) -> core.Campaign:
    """Return the campaign, which must be right."""
    loaded = load(sources, "welcome")
    assert loaded.problems == ()
    assert loaded.campaign is not None
    return loaded.campaign


def test_a_campaign_with_every_key_becomes_these_values() -> None:
    assert campaign(valid_sources()) == core.Campaign(
        name="welcome",
        title="Welcome",
        kind="drip",
        topic="guides",
        steps=(
            core.Wait("wait-at-start", Duration(1, "hour")),
            core.Email(
                "1-hello",
                "1-hello",
                "How a mind makes room for change",
                "What adapting means, and what is still being studied.",
            ),
            core.Wait("wait-after-1-hello", Duration(2, "day")),
            core.Email(
                "more",
                "2-more",
                "Small repairs, and what they may add up to",
                window=core.Window(frozenset(range(5)), time(9), time(12), "America/Los_Angeles"),
            ),
            core.WaitFor("wait-after-more", Happened("consultation.canceled"), Duration(4, "day")),
            core.Branch(
                "branch-asked-again",
                "Asked again?",
                Happened("consultation.canceled", Duration(20, "day")),
                (
                    core.Tag("tag-asked-again", "asked/again"),
                    core.WaitDate("wait-after-tag-asked-again", datetime(2026, 12, 3, 9, 30)),  # noqa: DTZ001
                    core.Email("3-then", "3-then", "Three small repairs, and how long they take"),
                ),
                (
                    core.Tag("untag-asked-for-guide", "asked-for/guide", add=False),
                    core.WaitField("wait-after-untag-asked-for-guide", "visit", Duration(3, "day"), before=True),
                    core.Email("4-else", "4-else", "What to bring, and what to leave at home"),
                ),
            ),
            core.WaitClock("wait-after-branch-asked-again", 1, time(10)),
            core.Tag("tag-finished", "finished"),
        ),
        triggers=(
            core.Trigger("form", "guide-request"),
            core.Trigger("tag", "asked-for/guide"),
            core.Trigger("event", "guide.requested"),
            core.Trigger("manual"),
        ),
        approval="reviewer@harbor.example",
        goal=core.Goal("consultation.booked", Duration(30, "day"), "Call booked", exits=False),
        exits=(
            core.Exit("tag", "current-patient"),
            core.Exit("event", "left.town"),
            core.Exit("segment", "staff"),
            core.Exit("left_segment", "nearby"),
            core.Exit("after", Duration(60, "day")),
        ),
        suppress=(
            core.Suppress("tag", "current-patient"),
            core.Suppress("active_in", "other-series"),
            core.Suppress("emailed_within", Duration(24, "hour")),
        ),
        window=core.Window(frozenset({1, 2, 3}), time(10), time(17), "America/Los_Angeles"),
        limits=core.Limits(2, Duration(1, "week"), Duration(1, "day")),
        description="The first two emails.",
    )


def test_a_site_becomes_these_values() -> None:
    site, problems = load_site(valid_sources())
    assert problems == ()
    assert site is not None
    assert site.sender == core.Mailbox("Harbor", "hello@mail.harbor.example")
    assert site.service_sender == core.Mailbox("Harbor", "calls@notice.harbor.example")
    assert site.window == core.Window(frozenset(range(5)), time(9), time(18), "subscriber")
    assert site.limits == core.Limits(3, Duration(1, "week"), Duration(20, "hour"))
    assert site.suppress == (core.Suppress("segment", "staff"),)
    assert site.topic("notes") == core.Topic("notes", "Monthly notes", "One email a month.")
    assert site.forms[0] == core.Form(
        "guide-request",
        "guides",
        "Email me the guide, at most three emails a week. I can stop at any time.",
        (("email", True), ("first_name", False)),
    )
    assert site.forms[1].asks == (("email", True),)
    assert site.consultation.hours[0] == (0, time(9), time(17))
    assert site.consultation.hours[-1] == (5, time(9), time(12))
    assert len(site.consultation.hours) == 6
    assert (site.base_url, site.link_hosts) == ("https://mail.harbor.example", ("harbor.example",))
    assert (site.track_clicks, site.discreet, site.discreet_words) == (True, True, ("harborine",))


def test_warm_up_and_delivery_become_a_curve_a_day_and_messages_a_second() -> None:
    site, _ = load_site(valid_sources())
    assert site is not None
    assert site.warm_up == core.WarmUp("ghost-42", date(2026, 10, 6))
    assert site.delivery == core.Delivery("resend", 500.0, {"gmail": 3000 / 3600, "other": 1.0})


def test_a_site_that_says_nothing_of_warm_up_and_delivery_is_warm_and_sends_2000_a_second() -> None:
    sources = valid_sources()
    text = sources[SITE]
    without = text[: text.index("warm_up:")] + text[text.index("privacy:") :]
    site, problems = load_site({**sources, SITE: without})
    assert problems == ()
    assert site is not None
    assert (site.warm_up, site.delivery) == (None, core.Delivery(None, 2000.0, {}))


def test_a_warm_up_without_a_preset_is_that_of_a_new_domain() -> None:
    site, _ = load_site(changed(SITE, "  preset: ghost-42\n", ""))
    assert site is not None
    assert site.warm_up == core.WarmUp("new-domain", date(2026, 10, 6))


@pytest.mark.parametrize(
    ("written", "a_second"),
    [("1 per day", 1 / 86_400), ("90 per minute", 1.5), ("9999999 per second", 9_999_999.0), ("7200 per hour", 2.0)],
)
def test_a_pace_counts_emails_in_a_span_of_time(written: str, a_second: float) -> None:
    site, problems = load_site(changed(SITE, "rate: 500 per second", f"rate: {written}"))
    assert problems == ()
    assert site is not None
    assert site.delivery.rate == a_second


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("500/h", "500 per hour"),
        ("500 / sec", "500 per second"),
        ("500 a day", "500 per day"),
        ("500 per mins", "500 per minute"),
        ("500 per week", ""),
        ("500 per month", ""),
        ("500", ""),
    ],
)
def test_a_pace_is_never_guessed_faster_than_it_was_written(written: str, meant: str) -> None:
    loaded = load(changed("config/site.yaml", "gmail: 3000 per hour", f'gmail: "{written}"'), "welcome")
    (problem,) = loaded.problems
    assert problem.label == (f"did you mean `{meant}`?" if meant else "")


def test_conditions_become_the_tree_that_core_evaluates() -> None:
    site, _ = load_site(valid_sources())
    assert site is not None
    assert [segment.when for segment in site.segments] == [
        HasTag("staff"),
        All(
            (
                FieldIs("state", ("CA", "NV")),
                Any((HasTopic("guides"), HasTopic("notes"))),
                Not(InSegment("staff")),
            )
        ),
        All((Joined(Duration(2, "week")), Not(Happened("consultation.booked", Duration(30, "day"))))),
    ]


def test_claims_and_documents_come_with_the_campaign() -> None:
    loaded = load(valid_sources(), "welcome")
    assert loaded.claims == {
        "clinic-article": Claim(
            "clinic-article", "What people report.", "Our article, section 5", "Dr. Example", date(2026, 10, 1)
        )
    }
    assert list(loaded.documents) == ["1-hello", "more", "3-then", "4-else"]
    assert loaded.documents["more"] == "# More\n\nThere is more.\n"


def test_claims_and_segments_are_not_required() -> None:
    sources = valid_sources()
    del sources["campaigns/welcome/claims.yaml"], sources[SEGMENTS]
    loaded = load(sources, "welcome")
    assert loaded.claims == {}
    assert {problem.code for problem in loaded.problems} == {"D201"}  # the names nobody defines any more


def test_a_window_of_a_campaign_fills_up_from_the_site() -> None:
    window = "send_window:\n  days: [tue, wed, thu]\n  hours: 10:00-17:00\n  timezone: America/Los_Angeles\n"
    assert campaign(changed(CAMPAIGN, window, "send_window: {days: weekends}\n")).window == core.Window(
        frozenset({5, 6}), time(9), time(18), "subscriber"
    )
    assert campaign(changed(CAMPAIGN, window, "")).window is None


@pytest.mark.parametrize(
    ("hours", "opens", "closes"),
    [
        ("00:00-24:00", time(0), time(0)),
        ("09:30-24:00", time(9, 30), time(0)),
        ("00:00-00:01", time(0), time(0, 1)),
    ],
)
def test_a_window_may_reach_the_end_of_the_day(hours: str, opens: time, closes: time) -> None:
    window = campaign(changed(CAMPAIGN, "hours: 10:00-17:00", f"hours: {hours}")).window
    assert window is not None
    assert (window.opens, window.closes) == (opens, closes)


@pytest.mark.parametrize("hours", ["22:00-06:00", "09:00-09:00", "09:00-00:00", "24:00-24:00", "9:00-17:00", "09:00"])
def test_a_window_that_is_empty_or_runs_past_midnight_is_refused(hours: str) -> None:
    (problem,) = load(changed(CAMPAIGN, "hours: 10:00-17:00", f"hours: {hours}"), "welcome").problems
    assert problem.code == "D101"


@pytest.mark.parametrize("url", ["http://localhost:8000", "http://127.0.0.1:8000/", "https://mail.example.com"])
def test_a_base_url_is_https_or_this_machine(url: str) -> None:
    site, problems = load_site(changed(SITE, "https://mail.harbor.example", url))
    assert problems == ()
    assert site is not None
    assert site.base_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["http://mail.example.com", "ftp://x.example", "https://", "https://a.example/b", "https://u@a.example", "x"]
)
def test_any_other_base_url_is_refused(url: str) -> None:
    site, problems = load_site(changed(SITE, "https://mail.harbor.example", url))
    assert site is None
    assert [problem.code for problem in problems] == ["D101"]


def test_a_trigger_can_stand_alone() -> None:
    several = valid_sources()[CAMPAIGN].split("trigger:\n")[1].split("suppress:")[0]
    assert campaign(changed(CAMPAIGN, several, "  manual: true\n")).triggers == (core.Trigger("manual"),)


def test_problems_of_several_files_come_in_the_order_site_segments_campaign_claims() -> None:
    sources = {path: text + "zzz: 1\n" if path.endswith(".yaml") else text for path, text in valid_sources().items()}
    paths = [problem.path for problem in load(sources, "welcome").problems]
    assert paths == [SITE, SEGMENTS, CAMPAIGN, "campaigns/welcome/claims.yaml"]


def test_a_fault_in_the_site_raises_no_second_complaint_in_the_campaign() -> None:
    loaded = load(changed(SITE, "topics:\n", "topics: [\n"), "welcome")
    assert [problem.path for problem in loaded.problems] == [SITE]
    assert loaded.site is None
    assert loaded.campaign is not None


def test_a_campaign_or_site_that_is_missing_is_a_problem_and_not_an_exception() -> None:
    assert [problem.text for problem in load({}, "welcome").problems] == [
        "there is no file config/site.yaml",
        "there is no file campaigns/welcome/campaign.yaml",
    ]


def test_a_warning_does_not_keep_a_campaign_from_loading() -> None:
    loaded = load(changed(CAMPAIGN, "  - wait: 2 days\n", "  - wait: 3 hours\n"), "welcome")
    assert [(problem.code, problem.level) for problem in loaded.problems] == [("D203", "warning")]
    assert loaded.campaign is not None


def test_names_of_other_campaigns_are_checked_when_they_are_known() -> None:
    assert load(valid_sources(), "welcome").problems == ()
    (problem,) = load(valid_sources(), "welcome", campaigns=["welcome", "other-serie"]).problems
    assert (problem.code, problem.label) == ("D201", "did you mean `other-serie`?")


def test_the_first_campaign_and_its_site_have_no_problems_and_load_quickly() -> None:
    sources = read_sources(ROOT, "seven-benefits")
    loaded = load(sources, "seven-benefits", campaigns=["seven-benefits"])
    assert loaded.problems == ()
    assert loaded.site is not None
    assert loaded.campaign is not None
    assert len(loaded.campaign.emails) == 7
    assert len(loaded.documents) == 7
    quickest = 1.0
    for _ in range(5):
        started = clock.perf_counter()
        load(sources, "seven-benefits")
        quickest = min(quickest, clock.perf_counter() - started)
    assert quickest < 0.1  # 10 ms on a quiet machine
