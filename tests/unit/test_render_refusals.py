"""Marketers' texts run in a cage: nothing in them reaches Python, other people, or another program."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dripwell.content.bounds import MAX_LIST
from dripwell.content.email_source import problems_in, source_of
from dripwell.content.problems import Problem, show
from dripwell.content.render import render_step, service_campaign
from dripwell.content.theme import BASE, BLOCKS, TOKENS
from dripwell.core.errors import ContentError
from tests.unit.email_sources import PATH, campaign, compiled, person, site, small, sources

INJECTIONS = [
    line
    for line in (Path(__file__).parents[1] / "data" / "injections.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("# ")
]


def problems(markdown: str) -> tuple[Problem, ...]:
    made, few = small(markdown)
    return problems_in(source_of(made, site(), few, "small"))


@pytest.mark.parametrize("attack", INJECTIONS)
def test_an_injection_is_refused_in_the_body(attack: str) -> None:
    made, few = small(f"# Title\n\nSome words {attack} and more.\n")
    with pytest.raises(ContentError):
        compiled(made, site(), few, "small") or render_step(made, site(), few, "small", person())


@pytest.mark.parametrize("attack", [line for line in INJECTIONS if line.startswith("{")])
def test_an_injection_is_refused_in_a_subject(attack: str) -> None:
    made, few = small("# Title\n\nWords.\n", subject=f"A {attack}")
    with pytest.raises(ContentError):
        compiled(made, site(), few, "small") or render_step(made, site(), few, "small", person())


@settings(max_examples=200, deadline=None)
@given(st.text("{}%#_.|[]()'\"abn 0~*<>&:-\n`!\\^", max_size=60))
def test_any_text_is_an_email_or_a_content_error(noise: str) -> None:
    made, few = small(f"# Title\n\n{noise}\n")
    try:
        skeleton = compiled(made, site(), few, "small")
    except ContentError:
        return
    if skeleton is not None:
        assert "Title" in skeleton.text


def test_an_unknown_field_has_a_place_and_a_suggestion() -> None:
    found = problems("# Title\n\nHello,\n\nHi {{ frist_name or 'there' }}, how are you?\n")
    assert [problem.code for problem in found] == ["D202"]
    assert (found[0].path, found[0].line, found[0].column, found[0].length) == (PATH, 5, 7, 10)
    assert found[0].label == "did you mean `first_name`?"
    assert "^^^^^^^^^^ did you mean `first_name`?" in show(
        found[0], "# Title\n\nHello,\n\nHi {{ frist_name or 'there' }}, how are you?\n"
    )


def test_a_field_that_may_be_empty_needs_a_fallback() -> None:
    found = problems("# Title\n\nHi {{ first_name }}.\n\n{{ first_name | title }}\n")
    assert [(problem.code, problem.line, problem.column) for problem in found] == [("D202", 3, 7), ("D202", 5, 4)]
    assert found[0].help == 'write {{ first_name or "there" }}'


@pytest.mark.parametrize(
    "fine",
    [
        "{{ first_name or 'there' }}",
        "{{ (first_name or 'there') | upper }}",
        "{{ first_name | default('there', true) }}",
        "{{ ', ' ~ first_name if first_name else '' }}",
        "{% if first_name %}{{ first_name }}{% endif %}",
        "{{ clinic.name }}",
        "{{ series.n }}",
        "{# a note #}",
    ],
)
def test_a_field_with_a_fallback_is_fine(fine: str) -> None:
    assert problems(f"# Title\n\nWords {fine} words.\n") == ()


def test_a_link_among_the_words_is_told_how_to_stand() -> None:
    found = problems("# Title\n\nGo to {{ booking_url }} now.\n")
    assert [(problem.code, problem.line, problem.column) for problem in found] == [("D202", 3, 7)]
    assert found[0].help == "write [words]({{ booking_url }})"


def test_a_personal_value_in_an_address_is_refused() -> None:
    found = problems("# Title\n\n[x](https://kcla.example/{{ state or 'x' }})\n")
    assert [(problem.code, problem.line) for problem in found] == [("D302", 3)]


def test_an_unknown_block_is_named_with_its_nearest() -> None:
    found = problems("# Title\n\nHi.\n\n::: stpes\n- **One.** Two.\n:::\n")
    assert [(problem.code, problem.line, problem.column, problem.length) for problem in found] == [("D201", 5, 5, 5)]
    assert found[0].label == "did you mean `steps`?"


@pytest.mark.parametrize(
    ("markdown", "line", "says"),
    [
        ("Words only.\n", 1, "no title"),
        ("# One\n\n# Two\n", 3, "one title"),
        ("# T\n\n#### Small\n", 3, "too small"),
        ("# T\n\n::: key\n- a\n", 3, "never closed"),
        ("# T\n\n:::\n", 3, "closes nothing"),
        ("# T\n\n::: key\n:::\n", 3, "is empty"),
        ("# T\n\n::: call Talk?\nWords.\n:::\n", 3, "has no button"),
        ("# T\n\n::: call\nbutton: Go -> {{ booking_url }}\n:::\n", 3, "needs a title"),
        ("# T\n\n::: call Talk?\nbutton: Go\n:::\n", 4, "needs words and a target"),
        ("# T\n\n::: button\nbutton: a -> {{ booking_url }}\nbutton: b -> {{ booking_url }}\n:::\n", 5, "twice"),
        ("# T\n\n::: button\nbuton: a -> {{ booking_url }}\n:::\n", 4, "does not know"),
        ("# T\n\n::: signature\nHello\nname: x\n:::\n", 4, "holds only"),
        ("# T\n\n::: signature\nrole: x\n:::\n", 3, "has no name"),
        ("# T\n\n::: steps\nWords.\n:::\n", 4, "holds a list"),
        ("# T\n\n::: steps\n- Words.\n:::\n", 4, "bold words"),
        ("# T\n\n::: facts\nWords\n:::\n", 4, "label and a value"),
        ("# T\n\n::: steps Title\n- **A.** b\n:::\n", 3, "has no title"),
        ("# T\n\n    indented\n", 3, "code"),
        ("# T\n\n- # Heading\n", 3, "heading cannot"),
        ("# T\n\nWords <b>bold</b>.\n", 3, "raw HTML"),
        ("# T\n\n<div>\n</div>\n", 3, "raw HTML"),
        ("# T\n\n![x](y.png)\n", 3, "pictures come from the theme"),
    ],
)
def test_what_cannot_be_shown_has_a_line(markdown: str, line: int, says: str) -> None:
    found = problems(markdown)
    assert any(problem.line == line and says in problem.text for problem in found), found
    assert all(problem.column >= 1 and problem.length >= 1 for problem in found)


def test_every_problem_is_reported_in_one_pass() -> None:
    found = problems("# T\n\n{{ nobody }}\n\n::: kay\nx\n:::\n\n<b>\n\n{{ first_name }}\n")
    assert [problem.line for problem in found] == [3, 5, 9, 11]


def test_a_comment_is_never_mailed() -> None:
    made, few = small("# T\n\n<!-- The article says:\nsecret words -->\n\nWords.\n")
    skeleton = compiled(made, site(), few, "small")
    assert skeleton is not None
    assert "secret" not in skeleton.html + skeleton.text


def test_loops_and_lists_are_bounded() -> None:
    long = ", ".join("1" for _ in range(MAX_LIST + 1))
    assert [p.code for p in problems(f"# T\n\n{{% for a in [{long}] %}}x{{% endfor %}}\n")] == ["D202"]
    inner = "{% for b in [" + ", ".join(["1"] * 100) + "] %}" + "x" * 500 + "{% endfor %}"
    made, few = small("# T\n\n{% for a in [" + ", ".join(["1"] * 100) + "] %}" + inner + "{% endfor %}\n")
    with pytest.raises(ContentError, match="longer than"):
        compiled(made, site(), few, "small")


def test_a_subject_with_a_line_break_is_refused() -> None:
    for broken in ("A\nBcc: x@example.com", "A\rB", "A\0B"):
        made, few = small("# T\n\nWords.\n", subject=broken)
        with pytest.raises(ContentError, match="D514"):
            compiled(made, site(), few, "small")


@pytest.mark.parametrize("path", [BASE, BLOCKS, TOKENS])
def test_a_broken_theme_names_its_file(path: str) -> None:
    for broken in (None, "{% if", "", "a: [", "{{ ''.__class__ }}"):
        made = sources()
        if broken is None:
            del made[path]
        else:
            made[path] = broken
        with pytest.raises(ContentError, match="templates/email"):
            compiled(made, site(), campaign(), "1-adaptability")


@pytest.mark.parametrize(
    "front", ["", "# T\n", "---\nsubject: x\n---\n# T\n", "---\nsubject: a\npreheader: b\nto: c\n---\n"]
)
def test_a_system_email_without_its_front_matter_names_the_place(front: str) -> None:
    made = sources() | {"templates/email/system/confirm.md": front}
    with pytest.raises(ContentError, match=r"system/confirm\.md:\d+:\d+"):
        service_campaign(made, "confirm")
