"""Every complaint of the language, word for word, as a person sees it.

`python -m tests.unit.test_language_wording` writes the golden files anew; read the diff before you commit it.
"""

from __future__ import annotations

import re

import pytest

from dripwell.content.load import load
from dripwell.content.problems import show
from tests.unit.language_sources import CASES, GOLDEN, Case, valid_sources


def shown(case: Case) -> str:
    """Return what `dripwell lint` prints for a case."""
    sources = case.sources()
    problems = load(sources, "welcome", campaigns=["welcome", "other-series"]).problems
    return "\n\n".join(show(problem, sources.get(problem.path)) for problem in problems) + "\n"


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_complaint_is_worded_as_in_its_golden_file(name: str) -> None:
    assert shown(CASES[name]) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_there_is_a_case_for_every_golden_file_and_the_other_way_round() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == sorted(CASES)
    assert len(CASES) >= 35


@pytest.mark.parametrize("name", sorted(CASES))
def test_no_complaint_speaks_like_a_validator(name: str) -> None:
    text = shown(CASES[name])
    assert text.strip()
    foreign = re.search(
        r"(?i)input should|pydantic|validat|expected_|\bmapping\b|\bNone\b|given schemas|<one>|<list>", text
    )
    assert foreign is None, foreign


def test_a_correct_installation_has_nothing_to_complain_about() -> None:
    assert load(valid_sources(), "welcome", campaigns=["welcome", "other-series"]).problems == ()


def write_golden_files() -> None:
    """Write every golden file as the code words it now, and remove those without a case."""
    for path in GOLDEN.glob("*.txt"):
        path.unlink()
    for name, case in CASES.items():
        (GOLDEN / f"{name}.txt").write_text(shown(case), encoding="utf-8")


if __name__ == "__main__":
    write_golden_files()
