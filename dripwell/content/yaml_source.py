"""YAML 1.2 as a tree in which every key and value knows where it stands, and nothing surprising is possible.

Built from ruamel's parse events, not its constructors, so that a hostile file (deep, aliased, tagged) is refused
while it is read and never becomes an object. Dates, `on`, `no` and `9:30` are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from dripwell.content.problems import Problem, SourceText

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_ANCHORS = 100
_MAX_REREADS = 20
_MAX_PROBLEMS = 100  # behind these a file is not read any further

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_WORDS = {"null": None, "Null": None, "NULL": None, "~": None, "": None}
_WORDS_OF_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NOT_UTF8 = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\ufeff")


@dataclass(slots=True)
class Node:
    """A value in a file, from character `start` to `end`. A plain Node is one that could not be used; that was said."""

    start: int
    end: int


@dataclass(slots=True)
class Scalar(Node):
    """One value; `raw` is its text whatever its type."""

    value: str | int | float | bool | None
    raw: str


@dataclass(slots=True)
class Items(Node):
    """A list."""

    items: list[Node]


@dataclass(slots=True)
class Keys(Node):
    """A mapping. `spots` holds the place of each key; `owner` is the model that claimed it, once one has."""

    values: dict[str, Node] = field(default_factory=dict)
    spots: dict[str, Scalar] = field(default_factory=dict)
    owner: Any = None

    def rename(self, old: str, new: str) -> None:
        """Let the value under `old` be found under `new`, in the same place in the file."""
        self.values[new] = self.values.pop(old)
        self.spots[new] = self.spots.pop(old)


class Mapping(dict[str, Any]):
    """Plain data of a `Keys` node, which it remembers."""

    def __init__(self, node: Keys) -> None:
        super().__init__((key, plain(value)) for key, value in node.values.items())
        self.node = node


class Hole:
    """Stands in plain data for a value that is empty or was already refused; no type of ours accepts it."""


def plain(node: Node) -> Any:
    """Return the node as dicts (`Mapping`), lists and scalars, with a `Hole` for what cannot be used."""
    match node:
        case Keys():
            return Mapping(node)
        case Items(items=items):
            return [plain(item) for item in items]
        case Scalar(value=value) if value is not None:
            return value
        case _:
            return Hole()


def read_yaml(source: SourceText) -> tuple[Node | None, list[Problem]]:
    """Read one file. None when there is nothing to go on; every reason for that is among the problems."""
    refused = _refuse_characters(source)
    if refused is not None:
        return None, [refused]
    braces: list[tuple[int, int]] = []
    text = source.text
    while True:
        composer = _Composer(source, text, braces)
        try:
            root = composer.document()
        except _Braces as found:
            # A value that starts with {{ reads as two nested mappings. Read again with letters in its place,
            # so that the rest of the file is still judged.
            end = _end_of_slot(text, found.start)
            braces.append((found.start, end))
            text = text[: found.start] + re.sub(r"[{}]", "x", text[found.start : end]) + text[end:]
            if len(braces) < _MAX_REREADS:
                continue
            root = None
        problems = composer.problems + [
            source.problem(
                "D103",
                start,
                end,
                "a value that starts with `{{` needs quotes",
                label="put it in quotes",
                help=f"write '{source.text[start:end].strip()}' with the single quotes",
            )
            for start, end in braces
        ]
        return root, problems


def find(root: Node | None, *path: str | int) -> Node | None:
    """Return the node at `path` (keys and list positions), or None."""
    for step in path:
        if isinstance(root, Keys) and isinstance(step, str):
            root = root.values.get(step)
        elif isinstance(root, Items) and isinstance(step, int) and 0 <= step < len(root.items):
            root = root.items[step]
        else:
            return None
    return root


def locate(source: SourceText, *path: str | int, word: str = "") -> tuple[int, int, int]:
    """Return line, column and length of the value at `path`, or of `word` in it (case aside) if it is there.

    For checks that read meaning: falls back to the nearest thing that exists, so it always answers.
    """
    root, _ = read_yaml(source)
    while path and find(root, *path) is None:
        path = path[:-1]
    node = find(root, *path)
    if node is None:
        return source.place(0, 1)
    found = source.text[node.start : node.end].lower().find(word.lower()) if word else -1
    if found >= 0:
        return source.place(node.start + found, node.start + found + len(word))
    return source.place(node.start, node.end)


class _Braces(Exception):
    """A value that starts with {{ stands at `start`."""

    def __init__(self, start: int) -> None:
        self.start = start


class _Refused(Exception):
    """The file cannot be read to its end; the problem says why."""


class _Composer:
    """Reads parse events into nodes, refusing what a campaign file never needs."""

    def __init__(self, source: SourceText, text: str, braces: list[tuple[int, int]]) -> None:
        self.source = source
        self.text = text
        self.braces = braces
        self.problems: list[Problem] = []
        self._anchors = 0

    def document(self) -> Node | None:
        """Read the one document of the file; None when it is empty or not YAML."""
        try:
            return self._document(YAML(typ="safe", pure=True).parse(self.text))
        except _Refused:
            return None
        except MarkedYAMLError as error:
            problem = _syntax_problem(self.source, error)
            slots = {self.source.place(start, end)[0] for start, end in self.braces}
            if problem.line not in slots:
                self.problems.append(problem)
            return None
        except (YAMLError, ValueError, OverflowError, AssertionError):
            # The parser itself gave up (on an escape such as "\UFFFFFFFF", on %YAML 1.3): there is no mark to show.
            text, advice = "this file is not YAML: the reader gave up", "look for a stray `\\` escape"
            self.problems.append(self.source.problem("D101", 0, 1, text, help=advice))
            return None

    def _document(self, events: Iterator[Event]) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in events:
            start = event.start_mark.index
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse("D101", start, start + 3, "a second document starts here", help="remove the `---`")
                    raise _Refused
                if event.tags or event.version not in (None, (1, 2)):
                    sign = re.search("^%.*", self.text, re.MULTILINE)
                    at, end = sign.span() if sign else (start, start + 1)
                    self._refuse("D101", at, end, "`%` directives are not used here", help="remove this line")
            elif isinstance(event, MappingStartEvent | SequenceStartEvent | ScalarEvent | AliasEvent):
                root = self._node(event, events, 1)
            elif isinstance(event, StreamEndEvent):
                break
        if root is None or (isinstance(root, Scalar) and root.value is None):
            if not self.problems:
                self._refuse("D101", 0, 1, "this file is empty", help="restore it, or delete it if it is not needed")
            return None
        return root

    def _node(self, event: Event, events: Iterator[Event], depth: int) -> Node:
        start, end = event.start_mark.index, event.end_mark.index
        if depth > MAX_DEPTH:
            self._refuse("D105", start, end, f"this is nested more than {MAX_DEPTH} levels deep", help="flatten it")
            raise _Refused
        if isinstance(event, AliasEvent):
            self._refuse(
                "D105", start, end, "aliases (`*name`) are not used here", help="write the value out in both places"
            )
            return Node(start, end)
        if not isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent):
            raise _Refused
        if event.anchor is not None:
            self._anchors += 1
            if self._anchors > MAX_ANCHORS:
                self._refuse("D105", start, end, f"this file has more than {MAX_ANCHORS} anchors", help="remove them")
                raise _Refused
        tagged = event.tag is not None and self._refuse_tag(start)
        node: Node
        if isinstance(event, ScalarEvent):
            masked = any(first <= start < last for first, last in self.braces)
            node = Scalar(start, end, _value_of(event), event.value)
            return Node(start, end) if tagged or masked else node
        if isinstance(event, SequenceStartEvent):
            node = self._items(start, events, depth)
        else:
            if event.flow_style and self.text.startswith("{{", start):
                raise _Braces(start)
            node = self._keys(start, events, depth)
        return Node(node.start, node.end) if tagged else node

    def _items(self, start: int, events: Iterator[Event], depth: int) -> Items:
        items: list[Node] = []
        for event in events:
            if isinstance(event, SequenceEndEvent):
                return Items(start, event.end_mark.index, items)
            items.append(self._node(event, events, depth + 1))
        raise _Refused

    def _keys(self, start: int, events: Iterator[Event], depth: int) -> Keys:
        node = Keys(start, start)
        for event in events:
            if isinstance(event, MappingEndEvent):
                node.end = event.end_mark.index
                return node
            key = self._node(event, events, depth + 1)
            value = self._node(next(events), events, depth + 1)
            if not isinstance(key, Scalar):
                if type(key) is not Node:
                    self._refuse("D101", key.start, key.end, "a key must be a word", help="write `name: value`")
            elif key.raw == "<<" and key.end - key.start == 2:
                self._refuse(
                    "D105", key.start, key.end, "merge keys (`<<`) are not used here", help="write the keys out"
                )
            elif key.raw in node.values:
                first = self.source.place(node.spots[key.raw].start, node.spots[key.raw].end)[0]
                self._refuse(
                    "D101",
                    key.start,
                    key.end,
                    f"`{key.raw}` is here twice",
                    label=f"first on line {first}",
                    help="keep one of the two",
                )
            else:
                node.values[key.raw] = value
                node.spots[key.raw] = key
        raise _Refused

    def _refuse_tag(self, start: int) -> bool:
        tag = re.match(r"!\S*", self.text[start:])
        length = len(tag[0]) if tag else 1
        self._refuse("D101", start, start + length, "tags (`!…`) are not used here", help="remove it, or use quotes")
        return True

    def _refuse(self, code: str, start: int, end: int, text: str, *, help: str, label: str = "") -> None:
        self.problems.append(self.source.problem(code, start, end, text, help=help, label=label))
        if len(self.problems) > _MAX_PROBLEMS:
            raise _Refused


def _value_of(event: ScalarEvent) -> str | int | float | bool | None:
    """Resolve a scalar by the core schema of YAML 1.2: quoted is text, and so is all that looks like a date."""
    text: str = event.value
    if event.style is not None:
        return text
    if text in _WORDS:
        return None
    if text in _WORDS_OF_TRUTH:
        return _WORDS_OF_TRUTH[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _end_of_slot(text: str, start: int) -> int:
    line_end = re.compile(r"[\r\n]|\Z").search(text, start)
    limit = line_end.start() if line_end else len(text)
    closing = text.find("}}", start, limit)
    return closing + 2 if closing >= 0 else limit


def _refuse_characters(source: SourceText) -> Problem | None:
    """Find what no YAML reader should be handed: too much, bytes that are not UTF-8, control characters."""
    text = source.text
    if len(text.encode("utf-8", "surrogateescape")) > MAX_BYTES:
        return source.problem("D105", 0, 1, "this file is larger than 1 MB", help="remove what was pasted into it")
    broken = not_utf8(source)
    if broken is not None:
        return broken
    control = _CONTROL.search(text)
    if control is not None:
        name = f"U+{ord(control[0]):04X}"
        return source.problem(
            "D101", control.start(), control.end(), f"there is an invisible character here ({name})", help="delete it"
        )
    if not text.strip():
        return source.problem("D101", 0, 1, "this file is empty", help="restore it, or delete it if it is not needed")
    return None


def not_utf8(source: SourceText) -> Problem | None:
    """Find the first byte that is not UTF-8 (files are read with `surrogateescape`, which keeps such bytes)."""
    broken = _NOT_UTF8.search(source.text)
    if broken is None:
        return None
    return source.problem(
        "D101",
        broken.start(),
        broken.end(),
        "this file is not UTF-8",
        label="the first byte that cannot be read",
        help="save it as UTF-8 in your editor",
    )


def _syntax_problem(source: SourceText, error: MarkedYAMLError) -> Problem:
    """Say in our own words why the parser stopped, at the place a person should look at."""
    mark = error.problem_mark or error.context_mark
    at = mark.index if mark is not None else 0
    opened = error.context_mark.index if error.context_mark is not None else at
    said = str(error.problem or "")
    context = str(error.context or "")
    text = source.text
    rest = re.match(r"[^\r\n]*", text[at:])
    end = at + max(1, len(rest[0].rstrip()) if rest else 1)
    if "'\\t'" in said or text[at : at + 1] == "\t":
        return source.problem("D101", at, at + 1, "a tab cannot indent YAML", help="use spaces, two for each level")
    if said.startswith("mapping values are not allowed"):
        return source.problem(
            "D101",
            at,
            at + 1,
            "a second `:` on this line, or a line that is indented too far",
            label="not expected here",
            help='put the value in quotes if the colon belongs to it: "Part 1: hello"',
        )
    if "quoted scalar" in context and "end of stream" in said:
        return source.problem("D101", opened, opened + 1, "this quote is never closed", help="close it on this line")
    if "unknown escape" in said:
        return source.problem(
            "D101", at - 1, at + 1, "this escape means nothing", help="write \\\\ for a backslash, or use single quotes"
        )
    if "flow sequence" in context or ("flow node" in context and text[opened : opened + 1] == "["):
        return source.problem("D101", opened, opened + 1, "this `[` is never closed", help="close it with `]`")
    if "flow mapping" in context or ("flow node" in context and text[opened : opened + 1] == "{"):
        return source.problem("D101", opened, opened + 1, "this `{` is never closed", help="close it with `}`")
    if "cannot start any token" in said or "anchor" in context or "alias" in context:
        start = opened if "scanning an" in context else at
        sign = text[start : start + 1]
        return source.problem(
            "D101", start, start + 1, f"a value cannot start with `{sign}`", help="put the whole value in quotes"
        )
    if "could not find expected ':'" in said:
        line = re.match(r"[^\r\n]*", text[opened:])
        length = len(line[0].rstrip()) if line else 1
        return source.problem("D101", opened, opened + length, "this line has no `:`", help="write `key: value`")
    if "sequence entries are not allowed" in said:
        return source.problem("D101", at, at + 1, "a list starts on a new line", help="put `- …` on a line of its own")
    if "block mapping" in context or "block collection" in context:
        return source.problem(
            "D101",
            at,
            end,
            "this does not line up with the lines above",
            help="give it the same indent as its neighbors",
        )
    return source.problem("D101", at, end, "this is not YAML", help="compare it with the lines above")
