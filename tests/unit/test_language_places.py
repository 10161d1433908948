"""Carets stand under the right characters, whatever the file is made of."""

from __future__ import annotations

import pytest

from dripwell.content.load import load
from dripwell.content.problems import Problem, SourceText, show
from dripwell.content.yaml_source import locate
from tests.unit.language_sources import CAMPAIGN, CASES, SITE, valid_sources


def only_problem(text: str, path: str = CAMPAIGN) -> Problem:
    """Return the one problem there is when the file at `path` says `text`."""
    (problem,) = load({**valid_sources(), path: text}, "welcome").problems
    return problem


def pointed_at(problem: Problem, text: str) -> str:
    """Return the characters the carets stand under."""
    line = SourceText("", text).line(problem.line)
    return line[problem.column - 1 : problem.column - 1 + problem.length]


def broken(old: str, new: str, path: str = CAMPAIGN) -> str:
    """Return the valid file with one thing changed."""
    text = valid_sources()[path]
    assert text.count(old) == 1
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "pointed"),
    [
        ("event: left.town", "event: 'Left Town'", "'Left Town'"),
        ("event: left.town", 'event:    "Left Town"   # gone', '"Left Town"'),
        ("- after: 60 days", "- after: sixty", "sixty"),
        ("days: [tue, wed, thu]", "days: [tue, 'x', thu]", "'x'"),
        ("limits:\n  emails: 2 per week\n  gap: 1 day", "limits: {emails: 2 per week, gap: soon}", "soon"),
        ("name: Welcome", "nam: Welcome", "nam"),
        ("name: Welcome", '"nam": Welcome', '"nam"'),
    ],
)
def test_the_carets_cover_exactly_the_wrong_key_or_value(old: str, new: str, pointed: str) -> None:
    text = broken(old, new)
    assert pointed_at(only_problem(text), text) == pointed


def test_a_byte_order_mark_and_windows_line_ends_change_no_position() -> None:
    text = broken("topic: guides", "topic: guidez")
    windows = "\ufeff" + text.replace("\n", "\r\n")
    assert only_problem(windows) == only_problem(text)
    assert show(only_problem(windows), windows) == show(only_problem(text), text)


def test_a_correct_file_with_a_byte_order_mark_and_windows_line_ends_loads() -> None:
    sources = {path: "\ufeff" + text.replace("\n", "\r\n") for path, text in valid_sources().items()}
    assert load(sources, "welcome") == load(valid_sources(), "welcome")


def test_carets_line_up_behind_wide_and_combining_characters() -> None:
    text = broken("description: The first two emails.\ntopic: guides", "x: {日本 e\u0301: 1}\ntopic: guides")
    lines = show(only_problem(text), text).splitlines()
    assert lines[4].index("^") == lines[3].index("x")
    problem = Problem("D301", "warning", "a.yaml", 1, 10, 5, "wide")
    lines = show(problem, "a: 日本 e\u0301 pain!").splitlines()
    assert lines[4] == "  | " + " " * 10 + "^^^^^"


def test_a_fault_behind_the_last_line_is_shown_on_the_last_line() -> None:
    problem = only_problem("name: [1, 2\n\n\n")
    assert (problem.line, problem.column) == (1, 7)


def test_a_value_over_several_lines_is_marked_on_its_first() -> None:
    text = broken("phone: (555) 010-0142", "phone: |\n    (555)\n    010-0142", SITE)
    problem = only_problem(text, SITE)
    assert pointed_at(problem, text) == "|"


def test_control_characters_of_a_file_never_reach_the_terminal() -> None:
    problem = only_problem(broken("name: Welcome", "name: \x1b[31mred\x07"))
    shown = show(problem, broken("name: Welcome", "name: \x1b[31mred\x07"))
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_color_adds_escapes_and_changes_no_words() -> None:
    case = CASES["unknown-segment"]
    (problem,) = load(case.sources(), "welcome").problems
    plain = show(problem, case.sources()[CAMPAIGN])
    colored = show(problem, case.sources()[CAMPAIGN], color=True)
    assert colored != plain
    for escape in ("\x1b[1;31m", "\x1b[1;34m", "\x1b[0m"):
        colored = colored.replace(escape, "")
    assert colored == plain


def test_without_its_source_a_problem_still_says_where_and_what() -> None:
    (problem,) = load(CASES["unknown-segment"].sources(), "welcome").problems
    shown = show(problem, None)
    assert "campaigns/welcome/campaign.yaml:32:19" in shown
    assert "did you mean `nearby`?" in shown


def test_a_word_inside_a_value_can_be_located_for_checks_of_meaning() -> None:
    text = valid_sources()[CAMPAIGN]
    source = SourceText(CAMPAIGN, text)
    line, column, length = locate(source, "steps", 1, "subject", word="MIND")
    assert source.line(line)[column - 1 : column - 1 + length] == "mind"
    line, column, length = locate(source, "steps", 1, "nothing-there")
    assert source.line(line)[column - 1 :].startswith("email: 1-hello")
