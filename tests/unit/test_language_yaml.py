"""YAML 1.2 without surprises, and without anything a hostile file could use."""

from __future__ import annotations

import time

import pytest

from dripwell.content.problems import Problem, SourceText
from dripwell.content.yaml_source import plain, read_yaml


def read(text: str) -> tuple[object, list[Problem]]:
    """Return the plain data of a file and its problems."""
    root, problems = read_yaml(SourceText("a.yaml", text))
    return None if root is None else plain(root), problems


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("9:30", "9:30"),
        ("09:00-18:00", "09:00-18:00"),
        ("2026-01-05", "2026-01-05"),
        ("2026-12-03 09:30", "2026-12-03 09:30"),
        ("013", 13),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("true", True),
        ("'true'", "true"),
        ('"7"', "7"),
        ("(555) 010-0142", "(555) 010-0142"),
        ("10%", "10%"),
    ],
)
def test_a_plain_value_is_what_it_looks_like(written: str, value: object) -> None:
    data, problems = read(f"a: {written}\n")
    assert data == {"a": value}
    assert type(data["a"]) is type(value)  # type: ignore[index]
    assert problems == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: &x 1\nb: *x\n", "D105"),
        ("a: {<<: {b: 1}}\n", "D105"),
        ("a:\n" + "".join(f"  - &a{i} {i}\n" for i in range(101)), "D105"),
        ("a: " + "[" * 21 + "]" * 21 + "\n", "D105"),
        ("a: " + "{a: " * 21 + "1" + "}" * 21 + "\n", "D105"),
        ("#" * 1_000_001, "D105"),
        ("# " + "ü" * 500_000, "D105"),
        ("a: !!python/object/apply:os.system [ls]\n", "D101"),
        ("!!map {a: 1}\n", "D101"),
        ("a: 1\na: 2\n", "D101"),
        ("{a: 1, a: 2}\n", "D101"),
        ("? [a, b]\n: 1\n", "D101"),
        ("%YAML 1.1\n---\na: 1\n", "D101"),
        ("%YAML 1.3\n---\na: 1\n", "D101"),
        ("%TAG ! tag:example.com,2000:\n---\na: 1\n", "D101"),
        ("a: 1\n---\nb: 2\n", "D101"),
        ("", "D101"),
        ("\n# only a remark\n", "D101"),
        ("null\n", "D101"),
        ("a: \x07\n", "D101"),
        ("a: \udcff\n", "D101"),
        ('a: "\\UFFFFFFFF"\n', "D101"),
        ("a: {{ b }}\n", "D103"),
        ("- {{ b }} c\n", "D103"),
    ],
)
def test_what_a_campaign_never_needs_is_refused(text: str, code: str) -> None:
    _, problems = read(text)
    assert [problem.code for problem in problems] == [code]


def test_an_alias_bomb_is_refused_at_once() -> None:
    layers = "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))
    started = time.monotonic()
    _, problems = read("a0: &a0 [lol]\n" + layers)
    assert {problem.code for problem in problems} == {"D105"}
    assert time.monotonic() - started < 2


def test_a_file_that_is_nothing_but_faults_is_given_up_in_good_time() -> None:
    started = time.monotonic()
    _, problems = read("a: 1\n" * 190_000)
    assert 100 <= len(problems) <= 110
    assert time.monotonic() - started < 5


def test_every_value_that_starts_with_braces_is_found_and_the_rest_is_still_read() -> None:
    data, problems = read("a: {{ x }}\nb: 2\nc: {{ y }} and more\nd: [1, {{ z }}]\ne: 5\n")
    assert [problem.line for problem in problems] == [1, 3, 4]
    assert isinstance(data, dict)
    assert data["b"] == 2
    assert data["e"] == 5


def test_braces_in_quotes_or_inside_a_text_are_fine() -> None:
    data, problems = read("a: '{{ x }}'\nb: Hi {{ y }}\nc: >-\n  {{ z }}\n")
    assert data == {"a": "{{ x }}", "b": "Hi {{ y }}", "c": "{{ z }}"}
    assert problems == []


def test_anchors_that_nobody_refers_to_do_no_harm() -> None:
    assert read("a: &x 1\n") == ({"a": 1}, [])
