"""The reference says what the code knows: every key, every code, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dripwell.content.load import load
from dripwell.content.reading import Model
from dripwell.content.schema import models
from tests.unit.language_sources import CASES

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"
HEADINGS = {
    "Campaign": "CampaignFile",
    "Trigger": "Trigger",
    "Suppress": "SuppressRule",
    "Send window": "SendWindow",
    "Limits": "Limits",
    "Goal": "Goal",
    "Exit": "ExitRule",
    "Step": "Step",
    "Wait until a moment": "WaitMoment",
    "Wait until a condition": "WaitCondition",
    "Branch": "BranchEntry",
    "Claim": "ClaimEntry",
    "Reviewed": "Reviewed",
    "Segment": "SegmentEntry",
    "Condition": "Condition",
    "Site": "SiteFile",
    "Clinic": "ClinicEntry",
    "Sender": "SenderEntry",
    "Links": "LinksEntry",
    "Privacy": "PrivacyEntry",
    "Topic": "TopicEntry",
    "Form": "FormEntry",
    "Consultation": "ConsultationEntry",
    "Warm-up": "WarmUpEntry",
    "Delivery": "DeliveryEntry",
}


def documented() -> dict[str, set[str]]:
    """Return the keys in the tables of campaign.md by the heading they stand under."""
    keys: dict[str, set[str]] = {}
    heading = ""
    for line in (REFERENCE / "campaign.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        row = re.match(r"\| `([a-z_]+)` \|", line)
        if row and heading in HEADINGS:
            keys.setdefault(heading, set()).add(row[1])
    return keys


@pytest.mark.parametrize("heading", sorted(HEADINGS))
def test_the_reference_documents_exactly_the_keys_of_the_model(heading: str) -> None:
    assert documented()[heading] == set(models()[HEADINGS[heading]].keys())


def test_every_model_has_a_section_of_its_own() -> None:
    assert set(HEADINGS.values()) == set(models()) - {"OneTrigger"}


def test_every_key_that_is_not_built_yet_is_listed() -> None:
    page = (REFERENCE / "campaign.md").read_text(encoding="utf-8")
    section = page.partition("## Part of the format, not built yet")[2]
    for model in models().values():
        for key in model.later:
            assert f"`{key}`" in section


def test_every_code_is_explained() -> None:
    page = (REFERENCE / "lint.md").read_text(encoding="utf-8")
    codes = {
        problem.code
        for case in CASES.values()
        for problem in load(case.sources(), "welcome", campaigns=["welcome", "other-series"]).problems
    }
    assert codes >= {"D101", "D102", "D103", "D104", "D105", "D106", "D201", "D203"}
    for code in codes:
        assert code in page


@pytest.mark.parametrize("model", sorted(models().values(), key=lambda model: model.__name__))
def test_the_words_of_other_systems_lead_to_keys_that_exist(model: type[Model]) -> None:
    known = {*model.keys(), *model.later}
    assert set(model.peers.values()) <= known
    assert not set(model.peers) & known
    assert not set(model.later) & set(model.keys())
    assert set(model.choices) <= set(model.keys())
