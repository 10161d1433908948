"""The demo's judge is not blind: each thing it must find, it finds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dripwell.cli.judge import Life, Received, judge
from dripwell.core.campaign import Branch, Campaign, Email, Wait
from dripwell.core.conditions import HasTag
from dripwell.core.duration import Duration

MONDAY = datetime(2026, 11, 2, 18, 0, tzinfo=UTC)
CAMPAIGN = Campaign(
    name="two",
    title="Two",
    kind="drip",
    topic="t",
    steps=(Email("a", "a", "A"), Wait("wait-after-a", Duration(2, "day")), Email("b", "b", "B")),
)
GOOD = [Received(1, "a", MONDAY, 100.0), Received(1, "b", MONDAY + timedelta(days=2), 200.0)]
FINISHED = Life(1, "America/Los_Angeles", "finished", None, None, None)


def _wrong(life: Life, received: list[Received]) -> list[str]:
    return judge(CAMPAIGN, "America/Los_Angeles", [life], received)


def test_a_right_course_has_no_findings() -> None:
    assert _wrong(FINISHED, GOOD) == []


@pytest.mark.parametrize(
    ("life", "received", "finding"),
    [
        (FINISHED, [*GOOD, replace(GOOD[1], wall=300.0)], "twice"),
        (FINISHED, [replace(GOOD[0], wall=300.0), GOOD[1]], "out of order"),
        (FINISHED, GOOD[:1], "finished with 1 of 2"),
        (FINISHED, [GOOD[0], replace(GOOD[1], at=MONDAY + timedelta(days=1))], "after 1 days instead of 2"),
        (replace(FINISHED, state="waiting"), GOOD, "still waiting"),
        (replace(FINISHED, state="exited", ended_reason="goal", left_at=MONDAY), GOOD, "after leaving (goal)"),
        (replace(FINISHED, state="exited", suppressed=150.0), GOOD, "after the suppression"),
        (FINISHED, [*GOOD, Received(2, "a", MONDAY, 1.0)], "without having joined"),
    ],
)  # fmt: skip
def test_each_wrong_is_named(life: Life, received: list[Received], finding: str) -> None:
    assert any(finding in one for one in _wrong(life, received))


def test_whoever_took_one_arm_of_a_branch_has_not_missed_the_other() -> None:
    arms = Branch("branch-x", "X?", HasTag("x"), (Email("b", "b", "B"),), (Email("c", "c", "C"),))
    branching = replace(CAMPAIGN, steps=(CAMPAIGN.steps[0], arms))
    assert judge(branching, "America/Los_Angeles", [FINISHED], GOOD) == []
    turned = [replace(GOOD[0], wall=300.0), GOOD[1]]
    assert any("out of order" in one for one in judge(branching, "America/Los_Angeles", [FINISHED], turned))
