"""The whole program does its whole job: seven emails, invented people, real parts, and numbers that add up."""

from __future__ import annotations

import pytest

from tests.demos import Demo


@pytest.fixture(scope="module")
def demo() -> Demo:
    return Demo("--seed", "3", "--people", "120")


def test_it_exits_0_and_prints_one_object_whose_sums_hold(demo: Demo) -> None:
    found = demo.result
    assert demo.code == 0, demo.lines
    assert found["audience"] == 120 == sum(found["people"].values())
    assert found["planned"] == sum(found["messages"].values())
    assert set(found["people"]) == {
        "in_progress", "booked", "finished", "unsubscribed", "undeliverable", "left_otherwise",
    }  # fmt: skip
    assert set(found["messages"]) == {"accepted", "suppressed", "skipped", "rejected", "held", "in_work"}
    assert found["people"]["in_progress"] == 0


def test_some_people_click_book_unsubscribe_and_bounce(demo: Demo) -> None:
    found = demo.result
    assert min(found["clicked"], found["booked"], found["unsubscribed"], found["bounced"]) > 0
    assert found["bounced"] == found["people"]["undeliverable"] == 1
    assert found["booked"] == found["people"]["booked"] == sum(step["booked"] for step in found["by_step"])
    assert found["unsubscribed"] == sum(step["unsubscribed"] for step in found["by_step"])


def test_the_seven_emails_stand_in_the_order_of_the_article(demo: Demo) -> None:
    steps = demo.result["by_step"]
    assert [step["key"] for step in steps] == [
        "1-adaptability",
        "2-psychological-healing",
        "3-blocking-pain-signals",
        "4-mental-breakthroughs",
        "5-minimal-side-effects",
        "6-rapid-improvement",
        "7-lasting-relief",
    ]
    accepted = [step["accepted"] for step in steps]
    assert accepted[0] == 120
    assert accepted == sorted(accepted, reverse=True)
    assert sum(accepted) == demo.result["messages"]["accepted"]


def test_the_sandbox_ledger_agrees_and_saw_nothing_twice(demo: Demo) -> None:
    found = demo.result
    assert found["agrees"] is True
    assert found["provider"]["duplicates"] == 0
    # Besides the series there are the mails about booked calls: one to the person, one to the front desk.
    assert found["provider"]["accepted"] == found["messages"]["accepted"] + 2 * found["booked"]


def test_the_judge_and_the_invariants_found_nothing(demo: Demo) -> None:
    """Nobody twice, nobody after leaving, everyone else all seven in order with the waits of the YAML."""
    assert demo.result["wrong"] == []
    assert demo.result["broken"] == []
