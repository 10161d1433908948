"""What is wrong with a file, where exactly, and how that is shown to the person who must change it."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Literal

BOM = "\ufeff"
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Problem:
    """One fault in one file. `label` stands beside the carets, `help` and `note` below them; any may be empty."""

    code: str
    level: Literal["error", "warning"]
    path: str
    line: int  # from 1
    column: int  # from 1, in characters
    length: int  # at least 1, and never past the end of the line
    text: str
    help: str = ""
    note: str = ""
    label: str = ""


@dataclass(frozen=True)
class SourceText:
    """A file's text with its line numbers; a leading byte order mark is dropped and counts for nothing."""

    path: str
    raw: str

    @cached_property
    def text(self) -> str:
        """The text without its byte order mark."""
        return self.raw.removeprefix(BOM)

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(match.end() for match in _LINE_BREAK.finditer(self.text))]

    @cached_property
    def _visible(self) -> int:
        return len(self.text.rstrip())

    def problem(
        self, code: str, start: int, end: int, text: str, *, help: str = "", note: str = "", label: str = ""
    ) -> Problem:
        """Make an error about the characters from `start` to `end`, cut to the line it starts in."""
        line, column, length = self.place(start, end)
        return Problem(code, "error", self.path, line, column, length, text, help, note, label)

    def place(self, start: int, end: int) -> tuple[int, int, int]:
        """Return line, column and length of a stretch of the text; always a place that exists in the file.

        What lies behind the last visible character (the end of the file, say) is shown at that character.
        """
        start = max(0, min(start, self._visible - 1))
        line = bisect_right(self._line_starts, start)
        first = self._line_starts[line - 1]
        following = self._line_starts[line] if line < len(self._line_starts) else len(self.text)
        last = first + len(self.text[first:following].rstrip())
        start = max(first, min(start, last - 1))
        return line, start - first + 1, max(1, min(end, last) - start)

    def line(self, number: int) -> str:
        """Return the line of that number without its break; "" when there is none."""
        if not 1 <= number <= len(self._line_starts):
            return ""
        start = self._line_starts[number - 1]
        end = self._line_starts[number] if number < len(self._line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n")


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.72) -> str:
    """Return the known name that `word` is probably meant to be, or ""; short words need a lower cutoff."""
    names = list(known)
    folded = {name.lower().replace("_", "-"): name for name in names}
    found = get_close_matches(word.lower().replace("_", "-"), folded, n=1, cutoff=cutoff)
    return folded[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "did you mean `…`?" with the nearest known name, or ""."""
    name = nearest(word, known)
    return f"did you mean `{name}`?" if name else ""


def show(problem: Problem, source_text: str | None, *, color: bool = False) -> str:
    """Return the problem as several lines: what, where, the source line with carets, and what to do about it."""
    red, blue, plain = ("\x1b[1;31m", "\x1b[1;34m", "\x1b[0m") if color else ("", "", "")
    head = red if problem.level == "error" or not color else "\x1b[1;33m"
    number = str(problem.line)
    edge = " " * len(number)
    lines = [
        f"{head}{problem.level}[{problem.code}]{plain}: {problem.text}",
        f"{edge}{blue}-->{plain} {problem.path}:{problem.line}:{problem.column}",
    ]
    if source_text is not None:
        source = printable(SourceText(problem.path, source_text).line(problem.line))
        before = source[: problem.column - 1]
        marked = source[problem.column - 1 : problem.column - 1 + problem.length]
        carets = "^" * max(1, _width(marked))
        label = f" {problem.label}" if problem.label else ""
        lines += [
            f"{edge} {blue}|{plain}",
            f"{blue}{number} |{plain} {source}".rstrip(),
            f"{edge} {blue}|{plain} {' ' * _width(before)}{head}{carets}{label}{plain}",
        ]
    elif problem.label:
        lines.append(f"{edge} {blue}={plain} {problem.label}")
    lines += [f"{edge} {blue}={plain} help: {problem.help}"] if problem.help else []
    lines += [f"{edge} {blue}={plain} note: {problem.note}"] if problem.note else []
    return "\n".join(lines)


def printable(text: str) -> str:
    """Replace what a terminal must not get (control characters, undecodable bytes), one character for one."""
    return "".join(
        " " if char == "\t" else "\ufffd" if unicodedata.category(char) in ("Cc", "Cs") else char for char in text
    )


def _width(text: str) -> int:
    """Columns on a terminal: combining marks take none, East Asian wide characters two."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
