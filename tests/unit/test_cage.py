"""Attempts to get out of the cage, or to make it run for ever: each refused with a place, and none of them run."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import nodes

from dripwell.content.bounds import MAX_DEPTH, MAX_FACT, MAX_LIST, MAX_NODES, MAX_STEPS
from dripwell.content.cage import parse
from dripwell.content.email_source import problems_in, source_of
from dripwell.content.expressions import CAGE, FILTERS, TESTS, Names, harmless
from dripwell.content.render import Person, render_step
from dripwell.content.samples import WORDS
from dripwell.content.slots import Marks, stage
from dripwell.content.staging import stage_step
from dripwell.core.errors import ContentError
from tests.unit.email_sources import site, small

DATA = Path(__file__).parents[1] / "data"


def attempts(name: str) -> list[str]:
    text = (DATA / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("# ")]


LIST = "[" + ", ".join("'1'" for _ in range(MAX_LIST)) + "]"
BOMBS = {
    "doubling a value thirty times": "{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 30 + "{{ a }}",
    "doubling a personal value": "{% set a = first_name %}" + "{% set a = a ~ a %}" * 30 + "{{ a or 'x' }}",
    "doubling a list": "{% set a = ['x', 'y'] %}" + "{% set a = [a, a] %}" * 30 + "{{ a ~ '' }}",
    "comparing doubled lists": "{% set a = ['x'] %}" + "{% set a = [a, a] %}" * 40 + "{% if a == a %}x{% endif %}",
    "quoting quotes": "{{ " + "[" * 19 + '"\'"' + "] ~ ''" * 19 + " }}",
    "upper of upper": "{{ (first_name or 'x')" + " | upper" * 12 + " }}",
    "a long chain of or": "{{ " + "'' or " * 8000 + "'x' }}",
    "a long chain of and": "{% if " + "first_name and " * 4000 + "first_name %}x{% endif %}",
    "a long chain of filters": "{{ first_name" + " | trim" * 8000 + " }}",
    "a long chain of tests": "{{ first_name" + " is defined" * 3000 + " }}",
    "a long chain of ~": "{{ 'x' ~ " * 1 + "'x' ~ " * 30000 + "'x' }}",
    "a long chain of comparisons": "{% if " + "1 < " * 9000 + "1 %}x{% endif %}",
    "a long chain of attributes": "{{ clinic" + ".name" * 9000 + " }}",
    "deep parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "deep lists": "{{ " + "[" * 20_000 + "1" + "]" * 20_000 + " }}",
    "deep not": "{% if " + "not " * 20_000 + "first_name %}x{% endif %}",
    "deep inline if": "{{ " + "'a' if first_name else " * 9000 + "'b' }}",
    "deep if": "{% if first_name %}" * 3000 + "x" + "{% endif %}" * 3000,
    "if a little too deep for Python": "{% if first_name %}" * 110 + "x" + "{% endif %}" * 110,
    "many elif": "{% if state == 'a' %}" + "{% elif state == 'b' %}" * 5000 + "{% endif %}",
    "many set": "{% set a = first_name %}" * 4000,
    "a list that is long": "{% for a in [" + "1, " * 30_000 + "1] %}x{% endfor %}",
    "loops in a loop with much to do": "".join(f"{{% for {name} in {LIST} %}}" for name in "ab")
    + "{% set c = first_name ~ state %}" * 20
    + "{% endfor %}" * 2,
    "loops in a loop that print much": "".join(f"{{% for {name} in {LIST} %}}" for name in "ab")
    + "x" * 500
    + "{% endfor %}" * 2,
    "a loop over letters": "{% for a in first_name %}{% for b in first_name %}x{% endfor %}{% endfor %}",
    "a loop over a text": "{% set a = '" + "x" * 90_000 + "' %}{% for b in a %}x{% endfor %}",
    "a decimal number of many digits": "{{ " + "9" * 100_000 + " }}",
    "a hexadecimal number of many digits": "{{ 0x" + "f" * 100_000 + " }}",
    "a source that is long": "x" * 200_001,
    "many expressions": "{{ a }}" * 25_000,
    "many unknown names": "".join(f"{{{{ a{n} }}}}\n" for n in range(6000)),
    "many unknown filters": "".join(f"{{{{ first_name | a{n} }}}}\n" for n in range(3000)),
    "braces that open": "{" * 150_000,
    "expressions that open": "{{ " * 60_000,
    "statements that open": "{% " * 60_000,
    "comments that open": "{# " * 60_000,
    "texts that open": '{{ "' * 45_000,
    "spaces that go on": "{{" + " " * 150_000,
    "statements of spaces": "{%" + " " * 150_000,
    "raw that goes on": "{% raw" + " " * 150_000,
    "an unclosed text": "{{ '" + "\\'" * 90_000,
}


def refusal(attempt: str) -> list[str]:
    made, few = small(f"# Title\n\nSome words {attempt} and more.\n")
    found = [one for one in problems_in(source_of(made, site(), few, "small")) if one.level == "error"]
    lines = made["campaigns/seven-benefits/small.md"].split("\n")
    for problem in found:
        assert problem.code in ("D202", "D105")
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert problem.length >= 1
        assert len(problem.text) < 200
    assert len(found) <= 100
    with pytest.raises(ContentError):
        stage_step(made, site(), few, "small")
    return [problem.text for problem in found]


@pytest.mark.parametrize("attempt", attempts("escapes.txt"))
def test_an_escape_is_refused_with_a_place(attempt: str) -> None:
    assert refusal(attempt)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_with_a_place_and_soon(name: str) -> None:
    began = time.process_time()
    assert refusal(BOMBS[name])
    assert time.process_time() - began < 5.0  # refused twice; the slowest takes about 0.6 on an idle machine


def names() -> Names:
    made, few = small("# T\n\nWords.\n")
    return source_of(made, site(), few, "small").names


def ran_while_reading(text: str) -> int:
    """How often code that Jinja made of this text ran while it was read."""
    known = names()
    count = 0

    def look(frame: FrameType, what: str, _: object) -> None:
        nonlocal count
        count += what == "call" and frame.f_code.co_filename == "<template>"

    sys.setprofile(look)
    try:
        parse(text, known, "x.md")
    finally:
        sys.setprofile(None)
    return count


def test_nothing_that_is_refused_is_run_to_see_what_it_says() -> None:
    assert ran_while_reading("{{ last_name or 'there' }}") > 0  # what is allowed is: with a name, and without
    short = [bomb for bomb in BOMBS.values() if len(bomb) < 10_000]
    ran = [attempt for attempt in (*attempts("escapes.txt"), *short) if ran_while_reading(attempt)]
    # Beside what is refused, these print a name.
    assert sorted(ran) == sorted(
        [
            "{% set x %}{{ first_name }}{% endset %}",
        ]
    )


def test_the_whole_corpus_is_refused_in_seconds() -> None:
    known = names()
    everything = [*attempts("escapes.txt"), *BOMBS.values()]
    assert len(everything) > 200
    began = time.process_time()
    for attempt in everything:
        assert parse(attempt, known, "x.md")[0] is None
    assert time.process_time() - began < 8.0  # about 1 on an idle machine


@pytest.mark.parametrize(
    "heavy",
    [
        f"{{% for a in {LIST} %}}{{% for b in {LIST} %}}{{{{ first_name or 'x' }}}}{{% endfor %}}{{% endfor %}}",
        f"{{% for a in {LIST} %}}" + "{% if first_name in [a, state] %}x{% endif %}" * 25 + "{% endfor %}",
        f"{{% for a in {LIST} %}}" + "{% set b = first_name ~ state ~ first_name %}" * 60 + "{% endfor %}",
        f"{{% for a in {LIST} %}}" + "{{ (first_name or 'x') | title }}" * 35 + "{% endfor %}",
        "{% set a = 'x' ~ first_name %}" + "{% set a = a ~ a %}" * 7 + "{{ a }}",
        "{{ first_name or 'x' }}" * 900,
        "x" * 199_000,
    ],
)
def test_what_is_allowed_takes_less_than_a_second(heavy: str) -> None:
    known = names()
    parsed, problems = parse(heavy, known, "x.md")
    assert parsed is not None, problems
    facts = dict.fromkeys(known.personal, "ß" * MAX_FACT)
    stage(parsed, known, Marks("z" * 8), facts)
    began = time.process_time()
    said = stage(parsed, known, Marks("z" * 8), facts)
    assert time.process_time() - began < 1.0  # about 0.1 on an idle machine
    assert len(said) <= 1_000_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ " + "(" * 60 + "first_name or 'x'" + ")" * 60 + " }}", ""),
        ("{% if first_name %}" * 20 + "x" + "{% endif %}" * 20, ""),
        ("{{ 'a' if state else " * 1 + "'b' if email else 'c' }}", ""),
        ("{{ (first_name or 'x') | trim | lower | title }}", ""),
        ("{% set days = ['Monday', 'Friday'] %}{% for day in days %}{{ day }}{% endfor %}", ""),
        ("{% for one in [first_name or 'a', 'b'] %}{{ one | upper }} {% endfor %}", ""),
        ("{{ 'a ' ~ clinic.name ~ (first_name or 'x') }}", ""),
        ("snake_case, __bold__ and {{ clinic.name }}", ""),
        ("{{ 1.5 }}", "whole numbers"),
        ("{{ '__' }}", "`__` cannot be used"),
        ("{{ first_name | default(boolean=true) }}", "plain values only"),
        ("{{ '\\t' }}", "without invisible characters"),
        ("{{ 1234567890123456789 }}", "at most 18 digits"),
        ("{% set " + "a" * 41 + " = 1 %}", "cannot be given another value"),
    ],
)
def test_the_cage_lets_ordinary_texts_through(text: str, says: str) -> None:
    parsed, problems = parse(text, names(), "x.md")
    assert (parsed is None) is bool(says)
    assert says in " ".join(problem.text for problem in problems)


PIECES = [
    "{{", "}}", "{%", "%}", "{#", "#}", " if ", " else ", " endif ", " for ", " in ", " endfor ", " set ", " = ", "a",
    "first_name", "clinic", ".", "name", "__class__", "|", "upper", "attr", "(", ")", "[", "]", "'x'", '"', "1", "1e9",
    "*", "~", " or ", " not ", " is ", "defined", ",", ":", "{", "}", "\\", "\n", "loop", "-", "raw ",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25))
def test_any_pile_of_pieces_is_a_text_or_has_problems_with_places(pieces: list[str]) -> None:
    known = names()
    text = "".join(pieces)
    parsed, problems = parse(text, known, "x.md", 5)
    for problem in problems:
        assert 5 <= problem.line <= 5 + text.count("\n")
        assert problem.column >= 1
    if parsed is None:
        assert problems
        return
    assert not any("__" in one.name for one in parsed.tree.find_all(nodes.Name))
    for facts in (None, dict.fromkeys(known.personal, "")):
        try:
            said = stage(parsed, known, Marks("z" * 8), facts)
        except ContentError:
            continue  # a comparison of a word with a number
        assert len(said) < 10_000


def test_the_cage_holds_eight_filters_twelve_tests_and_nothing_else() -> None:
    assert set(CAGE.filters) == set(FILTERS)
    assert set(CAGE.tests) == set(TESTS)
    assert CAGE.globals == {}
    assert CAGE.loader is None
    assert not CAGE.extensions
    assert (MAX_NODES, MAX_DEPTH, MAX_STEPS) == (5_000, 40, 200_000)


def test_only_text_and_numbers_enter() -> None:
    assert harmless({"a": ["x", 1, True, {"b": "c"}]})
    for thing in (object(), len, open, b"x", 1.5, None, {1: "x"}, ["x", set()], type("Text", (str,), {})("x")):
        assert not harmless(thing)
    known = names()
    parsed, _ = parse("{{ clinic.name }}", known, "x.md")
    assert parsed is not None
    leaking = Names(known.personal, known.urls, {"clinic": {"name": open}})  # type: ignore[dict-item]
    with pytest.raises(ContentError, match="only text and numbers"):
        stage(parsed, leaking, Marks("z" * 8), None)
    made, few = small("# T\n\nHi {{ first_name or 'x' }}\n")
    somebody = Person({"first_name": 7}, WORDS, {}, "x")  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="not text"):
        render_step(made, site(), few, "small", somebody)


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        ("a\n{% if first_name %}\nb\n", 2, "this {% if %} has no {% endif %}"),
        ("{% if first_name %}a{% endif %}\n{% for a in ['x'] %}b", 2, "this {% for %} has no {% endfor %}"),
        ("{% if first_name %}a{% if state == 'CA' %}b{% endif %}", 1, "this {% if %} has no {% endif %}"),
        ("a\n{%- endif -%}", 2, "this {% endif %} has no {% if … %} before it"),
        ("{% if first_name %}{% endfor %}{% endif %}", 1, "this {% endfor %} has no {% for … %} before it"),
    ],
)
def test_a_condition_that_never_ends_is_named_where_it_begins(source: str, line: int, says: str) -> None:
    parsed, problems = parse(source, names(), "x.md")
    assert parsed is None
    assert [(one.code, one.line, one.text) for one in problems] == [("D202", line, says)]


def test_what_cannot_be_read_inside_a_condition_is_not_blamed_on_its_end() -> None:
    _, (problem,) = parse("{% if first_name %}{{ first_name ? }}{% endif %}", names(), "x.md")
    assert "has no" not in problem.text
