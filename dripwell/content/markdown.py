"""Markdown with `::: blocks` -> the tree of `blocks.py`, and a problem with its place for what cannot be read.

Nothing passes through unseen: raw HTML, pictures, code and tables are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from markdown_it import MarkdownIt
from markdown_it.token import Token

from dripwell.content.blocks import (
    BLOCKS,
    Article,
    Break,
    Button,
    Call,
    Document,
    Emphasis,
    Facts,
    Heading,
    Inline,
    Items,
    Key,
    Line,
    Link,
    Mark,
    Next,
    Node,
    Paragraph,
    Prose,
    Quote,
    Risks,
    Rule,
    Section,
    Signature,
    Step,
    Steps,
    Strong,
    Text,
    joined,
    stripped,
)
from dripwell.content.problems import Problem, did_you_mean

_TITLED = frozenset({"key", "risks", "call", "article"})
_SETTINGS = {
    "call": ("button", "under"),
    "button": ("button", "also", "under"),
    "article": ("link",),
    "signature": ("name", "role"),
}
_OPEN = re.compile(r"^\s{0,3}:{3,}\s*([A-Za-z][\w-]*)\s*(.*?)\s*$")
_CLOSE = re.compile(r"^\s{0,3}:{3,}\s*$")
_SETTING = re.compile(r"^([a-z]+):(?:\s+(.*?))?\s*$")
_ARROW = re.compile(r"^(.+?)\s+->\s+(\S+)$")
_FACT = re.compile(r"^([^:]{1,60}):\s+(.+?)\s*$")
_MARK = re.compile(r"\[\^([A-Za-z0-9_-]+)\]")
_TITLE = re.compile(r"^#\s+(.+?)\s*#*\s*$")
_HEADING = re.compile(r"^#{2,3}\s+(.+?)\s*#*\s*$")
_ANY_HEADING = re.compile(r"^#{1,6}(\s|$)")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)

_MD = MarkdownIt("commonmark", {"html": True}).disable(["reference"])
_MD.validateLink = lambda url: True  # type: ignore[method-assign]  # a bad address is refused by name, not shown as words
_REFUSED = {
    "html_block": ("D409", "raw HTML cannot be used in an email", "write Markdown and ::: blocks"),
    "html_inline": ("D409", "raw HTML cannot be used in an email", "write Markdown and ::: blocks"),
    "image": ("D409", "pictures come from the theme", "describe it in words"),
    "code_inline": ("D101", "code cannot be used in an email", "use **bold** or plain words"),
    "code_block": ("D101", "this is indented like code", "start the line at the left edge"),
    "fence": ("D101", "code cannot be used in an email", "remove the ``` lines"),
    "heading_open": (
        "D101",
        "a heading cannot stand inside a block or a list",
        "give the block a title, or close it first",
    ),
}


class _Reader:
    def __init__(self, path: str, first_line: int) -> None:
        self.path = path
        self.first_line = first_line
        self.problems: list[Problem] = []

    def problem(self, code: str, line: int, text: str, help: str = "", *, column: int = 1, length: int = 1) -> None:
        label = help if help.startswith("did you mean") else ""
        help = "" if label else help
        at = self.first_line + line
        self.problems.append(Problem(code, "error", self.path, at, column, max(length, 1), text, help, label=label))

    # -- lines ---------------------------------------------------------------------------------------------------------

    def inline(self, text: str, line: int) -> Line:
        tokens = _MD.parseInline(text.strip())
        return self._line(tokens[0].children or [], line) if tokens else ()

    def link(self, text: str, line: int, what: str) -> Link | None:
        found = _ARROW.match(text.strip())
        if found is None:
            help = f"write {what}: Words -> {{{{ booking_url }}}}"
            self.problem("D101", line, f"`{what}:` needs words and a target", help, length=len(text))
            return None
        return Link(self.inline(found[1], line), found[2])

    def nodes(self, lines: Sequence[str], first: int) -> tuple[Node, ...]:
        tokens = _MD.parse("\n".join(lines))
        stream = iter(tokens)
        return tuple(self._nodes(stream, "", first))

    def _nodes(self, stream: Iterator[Token], until: str, first: int) -> Iterator[Node]:
        for token in stream:
            line = first + (token.map[0] if token.map else 0)
            if token.type == until:
                return
            if token.type == "paragraph_open":
                body = next(stream)
                next(stream)
                yield Paragraph(self._line(body.children or [], line))
            elif token.type in ("bullet_list_open", "ordered_list_open"):
                yield self._items(stream, token.type.replace("_open", "_close"), first)
            elif token.type == "blockquote_open":
                yield Quote(tuple(self._nodes(stream, "blockquote_close", first)))
            elif token.type == "hr":
                yield Rule()
            elif token.type in _REFUSED:
                self._refuse(token, line)
                if token.type == "heading_open":
                    next(stream)
                    next(stream)
            else:
                self.problem("D101", line, f"{token.type.replace('_', ' ')} cannot be used in an email")

    def _items(self, stream: Iterator[Token], until: str, first: int) -> Items:
        entries: list[tuple[Node, ...]] = []
        for token in stream:
            if token.type == until:
                break
            if token.type == "list_item_open":
                entries.append(tuple(self._nodes(stream, "list_item_close", first)))
        return Items(until.startswith("ordered"), tuple(entries))

    def _line(self, tokens: Sequence[Token], line: int) -> Line:
        out: list[Inline] = []
        stack: list[tuple[str, str, list[Inline]]] = []
        here = line
        for token in tokens:
            if token.type == "text":
                if token.content:
                    out.append(Text(token.content))
            elif token.type == "softbreak":
                out.append(Text(" "))
                here += 1
            elif token.type == "hardbreak":
                out.append(Break())
                here += 1
            elif token.type in ("strong_open", "em_open", "link_open"):
                stack.append((token.type, str(token.attrs.get("href", "")), out))
                out = []
            elif token.type in ("strong_close", "em_close", "link_close"):
                kind, target, outer = stack.pop()
                inner = tuple(out)
                made: Inline
                match kind:
                    case "strong_open":
                        made = Strong(inner)
                    case "em_open":
                        made = Emphasis(inner)
                    case _:
                        made = Link(inner, target)
                outer.append(made)
                out = outer
            elif token.type in _REFUSED:
                self._refuse(token, here)
            else:
                self.problem("D101", here, f"{token.type.replace('_', ' ')} cannot be used in an email")
        return joined(out)

    def _refuse(self, token: Token, line: int) -> None:
        code, text, help = _REFUSED[token.type]
        content = token.content.strip().split("\n")[0] if token.content else token.markup
        self.problem(code, line, text, help, length=len(content))

    # -- blocks --------------------------------------------------------------------------------------------------------

    def block(self, name: str, title: str, body: list[str], line: int) -> Section | None:
        first = line + 1
        settings: dict[str, list[tuple[str, int]]] = {}
        rest = list(body)
        for number, content in enumerate(body):
            found = _SETTING.match(content)
            if found and found[1] in _SETTINGS.get(name, ()):
                settings.setdefault(found[1], []).append((found[2] or "", first + number))
                rest[number] = ""
            elif found and name in ("button", "signature") and found[1] not in _SETTINGS[name]:
                self._unknown_setting(name, found[1], first + number)
                rest[number] = ""
        if title and name not in _TITLED:
            self.problem(
                "D101", line, f"`::: {name}` has no title", "write it as a heading above: ## …", length=len(title)
            )
        heading = self.inline(title, line)
        match name:
            case "key" | "risks" | "next":
                return self._plain(name, heading, rest, first)
            case "steps":
                return self._steps(rest, first)
            case "facts":
                return self._facts(rest, first)
            case "call":
                return self._call(heading, rest, settings, line)
            case "button":
                return self._button(rest, settings, line)
            case "article":
                return self._article(title, rest, settings, line)
            case _:
                return self._signature(rest, settings, line)

    def _unknown_setting(self, block: str, word: str, line: int) -> None:
        known = _SETTINGS[block]
        help = did_you_mean(word, known) or "it knows " + ", ".join(f"`{k}:`" for k in known)
        self.problem("D101", line, f"`::: {block}` does not know `{word}:`", help, length=len(word))

    def _plain(self, name: str, title: Line, rest: list[str], first: int) -> Section:
        nodes = self.nodes(rest, first)
        if not nodes:
            self.problem("D101", first - 1, f"`::: {name}` is empty", length=4 + len(name))
        match name:
            case "key":
                return Key(title, nodes)
            case "risks":
                return Risks(title, nodes)
            case _:
                return Next(nodes)

    def _steps(self, rest: list[str], first: int) -> Section:
        steps: list[Step] = []
        for node in self.nodes(rest, first):
            if not isinstance(node, Items):
                self.problem("D101", first, "`::: steps` holds a list", "start each step with `- **Bold words.**`")
                continue
            for entry in node.entries:
                body = entry[0] if entry else None
                if len(entry) != 1 or not isinstance(body, Paragraph):
                    self.problem("D101", first, "a step is one paragraph", "start each step with `- **Bold words.**`")
                elif body.of and isinstance(body.of[0], Strong):
                    steps.append(Step(body.of[0].of, stripped(body.of[1:])))
                else:
                    self.problem("D101", first, "a step opens with bold words", "write `- **First this.** Then …`")
        if not steps and not self.problems:
            self.problem("D101", first - 1, "`::: steps` is empty", length=9)
        return Steps(tuple(steps))

    def _facts(self, rest: list[str], first: int) -> Section:
        rows: list[tuple[Line, Line]] = []
        for number, content in enumerate(rest):
            found = _FACT.match(content.strip())
            if found:
                rows.append((self.inline(found[1], first + number), self.inline(found[2], first + number)))
            elif content.strip():
                self.problem(
                    "D101",
                    first + number,
                    "a fact is a label and a value",
                    "write `When: {{ call_day }}`",
                    length=len(content),
                )
        return Facts(tuple(rows))

    def _one(self, settings: dict[str, list[tuple[str, int]]], name: str) -> tuple[str, int] | None:
        found = settings.get(name, [])
        for _, line in found[1:]:
            self.problem("D101", line, f"`{name}:` stands here twice", length=len(name))
        return found[0] if found else None

    def _required_button(self, block: str, settings: dict[str, list[tuple[str, int]]], line: int) -> Link | None:
        setting = self._one(settings, "button")
        if setting is None:
            self.problem(
                "D101",
                line,
                f"`::: {block}` has no button",
                "write button: Words -> {{ booking_url }}",
                length=4 + len(block),
            )
            return None
        return self.link(*setting, "button")

    def _under(self, settings: dict[str, list[tuple[str, int]]]) -> Line:
        setting = self._one(settings, "under")
        return self.inline(*setting) if setting else ()

    def _call(
        self, title: Line, rest: list[str], settings: dict[str, list[tuple[str, int]]], line: int
    ) -> Section | None:
        button = self._required_button("call", settings, line)
        if not title:
            self.problem(
                "D101", line, "`::: call` needs a title", "write ::: call Would it help to ask someone?", length=8
            )
        nodes = self.nodes(rest, line + 1)
        return Call(title, nodes, button, self._under(settings)) if button else None

    def _button(self, rest: list[str], settings: dict[str, list[tuple[str, int]]], line: int) -> Section | None:
        self._nothing_else("button", rest, line)
        button = self._required_button("button", settings, line)
        also = [self.link(text, at, "also") for text, at in settings.get("also", [])]
        under = self._under(settings)
        return Button(button, tuple(link for link in also if link), under) if button else None

    def _article(self, title: str, rest: list[str], settings: dict[str, list[tuple[str, int]]], line: int) -> Section:
        kicker, bar, headline = title.partition("|")
        if not bar:
            kicker, headline = "", title
        if not headline.strip():
            self.problem(
                "D101", line, "`::: article` needs a title", "write ::: article Clinic news | Title", length=11
            )
        setting = self._one(settings, "link")
        link = self.link(*setting, "link") if setting else None
        return Article(self.inline(kicker, line), self.inline(headline, line), self.nodes(rest, line + 1), link)

    def _signature(self, rest: list[str], settings: dict[str, list[tuple[str, int]]], line: int) -> Section:
        self._nothing_else("signature", rest, line)
        name, role = self._one(settings, "name"), self._one(settings, "role")
        if name is None:
            self.problem("D101", line, "`::: signature` has no name", "write name: The team at KCLA", length=13)
        return Signature(self.inline(*name) if name else (), self.inline(*role) if role else ())

    def _nothing_else(self, block: str, rest: list[str], line: int) -> None:
        for number, content in enumerate(rest):
            if content.strip():
                known = ", ".join(f"`{name}:`" for name in _SETTINGS[block])
                self.problem("D101", line + 1 + number, f"`::: {block}` holds only {known}", length=len(content))


def read_document(markdown: str, path: str = "", first_line: int = 1) -> tuple[Document, tuple[Problem, ...]]:
    """Read one email's Markdown. With problems, the document is what could be understood."""
    reader = _Reader(path, first_line)
    source = _without_comments(markdown.replace("\r\n", "\n").replace("\r", "\n"))
    lines = source.split("\n")
    marks: list[Mark] = []
    for number, content in enumerate(lines):
        marks += [Mark(m[1], first_line + number, m.start() + 1) for m in _MARK.finditer(content)]
        lines[number] = _MARK.sub("", content)
    title: Line = ()
    sections: list[Section] = []
    prose: list[str] = []
    prose_line = 0

    def end_prose() -> None:
        nonlocal prose
        if any(content.strip() for content in prose):
            sections.append(Prose(reader.nodes(prose, prose_line)))
        prose = []

    number = 0
    while number < len(lines):
        content = lines[number]
        opened = _OPEN.match(content)
        if opened:
            end_prose()
            number = _read_block(reader, lines, number, opened[1], opened[2], sections)
        elif _CLOSE.match(content):
            reader.problem("D101", number, "`:::` closes nothing", "every block opens with ::: and its name", length=3)
        elif found := _TITLE.match(content):
            end_prose()
            if title:
                reader.problem("D101", number, "an email has one title", "write ## for a heading", length=len(content))
            else:
                title = reader.inline(found[1], number)
        elif found := _HEADING.match(content):
            end_prose()
            sections.append(Heading(reader.inline(found[1], number)))
        elif _ANY_HEADING.match(content):
            reader.problem("D101", number, "this heading is too small", "write ## for a heading", length=len(content))
        else:
            if not prose:
                prose_line = number
            prose.append(content)
        number += 1
    end_prose()
    if not title:
        reader.problem("D101", 0, "this email has no title", "start it with `# Title`")
    return Document(title, tuple(sections), tuple(marks)), _placed(reader.problems, markdown, first_line)


def read_line(words: str) -> Line:
    """One line of Markdown: bold, slant and links."""
    return _Reader("", 1).inline(words, 0)


def _read_block(reader: _Reader, lines: list[str], number: int, name: str, title: str, sections: list[Section]) -> int:
    end = next(
        (i for i in range(number + 1, len(lines)) if _CLOSE.match(lines[i]) or _OPEN.match(lines[i])), len(lines)
    )
    closed = end < len(lines) and bool(_CLOSE.match(lines[end]))
    if not closed:
        reader.problem(
            "D101", number, f"`::: {name}` is never closed", "end it with a line `:::`", length=4 + len(name)
        )
    body = lines[number + 1 : end]
    if name not in BLOCKS:
        help = did_you_mean(name, BLOCKS) or "blocks you can use: " + ", ".join(BLOCKS)
        reader.problem(
            "D201", number, f"no block is named `{name}`", help, column=lines[number].find(name) + 1, length=len(name)
        )
    else:
        section = reader.block(name, title, body, number)
        if section is not None:
            sections.append(section)
    return end if closed else end - 1


def _without_comments(text: str) -> str:
    """Drop `<!-- … -->` (the article's paragraph stands there, never mailed) and keep the line numbers."""
    return _COMMENT.sub(lambda m: "\n" * m[0].count("\n"), text)


def _placed(problems: list[Problem], markdown: str, first_line: int) -> tuple[Problem, ...]:
    lines = markdown.split("\n")
    out: list[Problem] = []
    for problem in problems:
        index = problem.line - first_line
        content = lines[index] if 0 <= index < len(lines) else ""
        column, length = problem.column, problem.length
        if column == 1 and content[:1].isspace():
            column = len(content) - len(content.lstrip()) + 1
        if problem.code == "D409":
            at = re.search(r"<[^>]*>?|!\[", content)
            column, length = (at.start() + 1, len(at[0])) if at else (column, length)
        length = max(1, min(length, len(content) - column + 1))
        out.append(replace(problem, column=column, length=length))
    return tuple(sorted(out, key=lambda p: (p.line, p.column)))
