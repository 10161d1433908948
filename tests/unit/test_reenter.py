"""`reenter`: what a marketer may write, and what it means."""

from __future__ import annotations

import pytest

from dripwell.content.load import load
from dripwell.core.campaign import Trigger
from dripwell.core.duration import Duration
from tests.unit.language_sources import CAMPAIGN, valid_sources


def written(line: str) -> dict[str, str]:
    sources = valid_sources()
    return {**sources, CAMPAIGN: sources[CAMPAIGN].replace("topic: guides\n", f"topic: guides\n{line}\n", 1)}


@pytest.mark.parametrize(
    ("line", "means"),
    [
        ("", None),
        ("reenter: never", None),
        ("reenter: after 180 days", Duration(180, "day")),
        ("reenter: after 1 month", Duration(1, "month")),
    ],
)
def test_what_reenter_means(line: str, means: Duration | None) -> None:
    loaded = load(written(line), "welcome")
    assert loaded.campaign is not None
    assert loaded.campaign.reenter == means


@pytest.mark.parametrize(
    ("line", "code", "help"),
    [
        ("reenter: 180 days", "D101", "after 180 days"),
        ("reenter: after 180 dyas", "D101", "after 180 days"),
        ("reenter: after 0 days", "D101", "never"),
        ("reenter: after 4 hours", "D101", "days, weeks or months"),
        ("reenter: always", "D101", "never"),
        ("reentry: never", "D102", "reenter"),
    ],
)
def test_what_reenter_cannot_be_is_refused_with_a_way_out(line: str, code: str, help: str) -> None:
    loaded = load(written(line), "welcome")
    assert loaded.campaign is None
    found = [problem for problem in loaded.problems if problem.code == code]
    assert len(found) == 1
    assert help in f"{found[0].text} {found[0].label} {found[0].help}"


def test_an_import_can_be_a_trigger() -> None:
    sources = valid_sources()
    sources[CAMPAIGN] = sources[CAMPAIGN].replace("- form: guide-request", "- import: true", 1)
    loaded = load(sources, "welcome")
    assert loaded.campaign is not None
    assert Trigger("import") in loaded.campaign.triggers
