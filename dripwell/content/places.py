"""Where a finding of the lint stands: from words, a file or a whole email to a path, a line and a column."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from dripwell.content import wording
from dripwell.content.email_source import Source, Sources, system_path
from dripwell.content.problems import Problem
from dripwell.core.campaign import Campaign, Email

Level = Literal["error", "warning"]

SITE = "config/site.yaml"
SEGMENTS = "config/segments.yaml"


def in_words(
    source: Source, start: int, end: int, code: str, level: Level, text: str, help: str = "", note: str = ""
) -> Problem:
    """A problem about characters of an email's Markdown."""
    markdown = source.markdown
    line = markdown.count("\n", 0, start)
    begin = markdown.rfind("\n", 0, start) + 1
    stop = markdown.find("\n", start)
    end = min(end, stop if stop >= 0 else len(markdown))
    column, length = start - begin + 1, max(end - start, 1)
    return Problem(code, level, source.path, source.first_line + line, column, length, text, help, note)


def of_finding(source: Source, finding: wording.Finding) -> Problem:
    """What the word rules found in an email's Markdown."""
    level: Level = "error" if finding.level == "error" else "warning"
    return in_words(source, finding.start, finding.end, finding.code, level, finding.text, finding.help)


def at_top(source: Source, code: str, level: Level, text: str, help: str = "") -> Problem:
    """A problem of the whole email, shown at its first line."""
    first = source.markdown.split("\n", 1)[0]
    return Problem(code, level, source.path, source.first_line, 1, max(len(first), 1), text, help)


def in_file(sources: Sources, path: str, needle: str, code: str, level: Level, text: str, help: str = "") -> Problem:
    """A problem about the first place where `needle` stands in a file."""
    content = sources.get(path, "")
    at = content.find(needle)
    if at < 0:
        return Problem(code, level, path, 1, 1, 1, text, help)
    line = content.count("\n", 0, at)
    column = at - (content.rfind("\n", 0, at) + 1) + 1
    return Problem(code, level, path, line + 1, column, max(len(needle.split("\n")[0]), 1), text, help)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a subject or preheader stands."""

    path: str
    line: int
    column: int  # of the value's first character
    content: str

    @classmethod
    def of(cls, sources: Sources, campaign: Campaign, email: Email, name: str, content: str) -> Place:
        """Find it in campaign.yaml (or a system email's front matter) by the step's `email:` and this key."""
        if campaign.kind == "service":
            path = system_path(email.document)
            lines = sources.get(path, "").split("\n")
            begin, end = 0, len(lines)
        else:
            path = f"campaigns/{campaign.name}/campaign.yaml"
            lines = sources.get(path, "").split("\n")
            stem = re.compile(rf"^\s*(?:-\s+)?email:\s*[\"']?{re.escape(email.document)}[\"']?\s*(?:#.*)?$")
            begin = next((n for n, line in enumerate(lines) if stem.match(line)), 0)
            item = re.compile(r"^\s*-\s")
            while begin > 0 and not item.match(lines[begin]):
                begin -= 1
            end = next((n for n in range(begin + 1, len(lines)) if item.match(lines[n])), len(lines))
        for number in range(begin, end):
            found = re.match(rf"^\s*(?:-\s+)?{name}:\s*", lines[number])
            if found:
                at = lines[number].find(content, found.end()) if content else -1
                column = at if at >= 0 else found.end()
                shown = content if at >= 0 else ""
                return cls(path, number + 1, min(column, max(len(lines[number]) - 1, 0)) + 1, shown)
        return cls(path, begin + 1, 1, "")

    def whole(self, code: str, level: Level, text: str, help: str = "") -> Problem:
        """About the whole value."""
        return Problem(code, level, self.path, self.line, self.column, max(len(self.content), 1), text, help)

    def part(
        self, start: int, end: int, code: str, level: str, text: str, help: str = "", note: str = "", label: str = ""
    ) -> Problem:
        """About some of its characters."""
        level_: Level = "error" if level == "error" else "warning"
        if not self.content:
            return Problem(code, level_, self.path, self.line, self.column, 1, text, help, note, label)
        column = self.column + start
        return Problem(code, level_, self.path, self.line, column, max(end - start, 1), text, help, note, label)


def in_order(found: Iterable[Problem], sources: Sources, campaign: Campaign) -> tuple[Problem, ...]:
    """Each problem once: site, segments, campaign file, what else there is, then the emails as they are sent."""
    order = {SITE: 0, SEGMENTS: 1, f"campaigns/{campaign.name}/campaign.yaml": 2}
    for number, email in enumerate(campaign.emails, 10):
        order.setdefault(f"campaigns/{campaign.name}/{email.document}.md", number)
    unique = dict.fromkeys(found)
    return tuple(sorted(unique, key=lambda p: (order.get(p.path, 9), p.path, p.line, p.column, p.code)))
