"""Whatever the files say, loading ends with values or with problems at places that exist."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dripwell.content.load import load
from dripwell.content.problems import SourceText, show
from tests.unit.language_sources import CAMPAIGN, CLAIMS, SEGMENTS, SITE, valid_sources

VALID = valid_sources()
YAML_PATHS = st.sampled_from([CAMPAIGN, SITE, SEGMENTS, CLAIMS])
SNIPPETS = st.sampled_from(
    [
        *("\t", "{{", "}}", "{", "}", "[", "]", ": ", "- ", "\n", "\n  ", "#", "'", '"', "&a ", "*a", "!!int ", "<<: "),
        *("? ", "|\n", ">-\n", "---\n", "...\n", "%YAML 1.1\n", "null", "~", "true", "13", "1e999", "\\", "\r", "\r\n"),
        *("\ufeff", "\x85", "\u2028", "\udcff", "\x00", "é", "日本", "delay: ", "entry: ", "branch: ", "steps: "),
        *("<one>: ", "is: "),
    ]
)


def mutated(text: str, edits: list[tuple[float, int, str]]) -> str:
    """Apply edits: at this share of the text, remove so many characters and put these in."""
    for share, removed, added in edits:
        at = int(share * len(text))
        text = text[:at] + added + text[at + removed :]
    return text


def assert_sound(sources: dict[str, str]) -> None:
    """Loading gives either values or errors, and every error points at characters that exist."""
    loaded = load(sources, "welcome", campaigns=["welcome", "other-series"])
    if all(problem.level == "warning" for problem in loaded.problems):
        assert loaded.site is not None
        assert loaded.campaign is not None
    for problem in loaded.problems:
        assert problem.code.startswith("D")
        assert problem.text
        source = sources.get(problem.path)
        if source is None:
            continue
        line = SourceText(problem.path, source).line(problem.line)
        assert 1 <= problem.line <= len(SourceText(problem.path, source).text.splitlines()) + 1
        assert 1 <= problem.column <= max(1, len(line))
        assert problem.length >= 1
        assert problem.column + problem.length - 1 <= max(1, len(line))
        show(problem, source).encode()


@settings(max_examples=300, deadline=None)
@given(
    YAML_PATHS,
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), SNIPPETS | st.text(max_size=4) | st.just("")),
        min_size=1,
        max_size=4,
    ),
)
def test_no_damage_to_a_file_makes_loading_fail(path: str, edits: list[tuple[float, int, str]]) -> None:
    assert_sound({**VALID, path: mutated(VALID[path], edits)})


@settings(max_examples=150, deadline=None)
@given(YAML_PATHS, st.data())
def test_lines_may_be_lost_doubled_or_moved(path: str, data: st.DataObject) -> None:
    lines = VALID[path].splitlines(keepends=True)
    chosen = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=len(lines) + 3))
    assert_sound({**VALID, path: "".join(lines[number] for number in chosen)})


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=6).map(repr)
    | SNIPPETS.map(repr),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["any", "not", "is", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(YAML_PATHS, st.data(), VALUES)
def test_any_value_may_stand_where_another_stood(path: str, data: st.DataObject, value: object) -> None:
    lines = VALID[path].splitlines(keepends=True)
    number = data.draw(st.sampled_from([i for i, line in enumerate(lines) if ": " in line]))
    key, _, _ = lines[number].partition(": ")
    lines[number] = f"{key}: {str(value).replace('True', 'true').replace('None', 'null')}\n"
    assert_sound({**VALID, path: "".join(lines)})


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([CAMPAIGN, SITE, SEGMENTS, CLAIMS, "campaigns/welcome/1-hello.md"]), st.text()))
def test_any_text_at_all_may_stand_in_the_files(sources: dict[str, str]) -> None:
    assert_sound(sources)


def test_every_prefix_of_a_file_is_read_without_fail() -> None:
    for end in range(0, len(VALID[CAMPAIGN]), 7):
        assert_sound({**VALID, CAMPAIGN: VALID[CAMPAIGN][:end]})
