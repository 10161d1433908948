"""The text part, written from the same tree as the HTML: wrapped at 76, every link on a line of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dripwell.content import blocks as b

WRAP = 76
Resolve = Callable[[str], str]


@dataclass(slots=True)
class Writer:
    """Collects paragraphs. `resolve` turns a link's target into its URL, `show` fills fixed values in."""

    resolve: Resolve
    show: Callable[[str], str]

    def words(self, line: Sequence[b.Inline]) -> str:
        """A line's words, with hard breaks as newlines."""
        out = []
        for part in line:
            match part:
                case b.Text(text=text):
                    out.append(self.show(text))
                case b.Break():
                    out.append("\n")
                case b.Strong(of=inner) | b.Emphasis(of=inner) | b.Link(of=inner):
                    out.append(self.words(inner))
        return "".join(out)

    def urls(self, line: Sequence[b.Inline]) -> list[str]:
        """The URLs a line leads to."""
        found: list[str] = []
        for part in line:
            match part:
                case b.Link(target=target):
                    found.append(self.resolve(target))
                case b.Strong(of=inner) | b.Emphasis(of=inner):
                    found += self.urls(inner)
                case _:
                    pass
        return found

    def paragraph(self, line: Sequence[b.Inline], indent: str = "", first: str = "") -> str:
        """Wrapped words, then each URL on its own line."""
        text = "\n".join(
            wrap(part, first if number == 0 and first else indent, indent)
            for number, part in enumerate(self.words(line).split("\n"))
        )
        return "\n".join([text, *(indent + url for url in self.urls(line) if not _quiet(url))])

    def heading(self, line: Sequence[b.Inline], under: str = "-") -> str:
        """Words with a line under them."""
        text = wrap(self.words(line).replace("\n", " "))
        width = max(len(part) for part in text.split("\n"))
        return f"{text}\n{under * width}"

    def link(self, link: b.Link, indent: str = "") -> str:
        """A button or side link: its words, its URL below."""
        return f"{wrap(self.words(link.of) + ':', indent, indent)}\n{indent}{self.resolve(link.target)}"

    def nodes(self, nodes: Sequence[b.Node], indent: str = "") -> list[str]:
        """Paragraphs and lists, one text each."""
        out: list[str] = []
        for node in nodes:
            match node:
                case b.Paragraph(of=line):
                    out.append(self.paragraph(line, indent))
                case b.Items():
                    out.append(self.items(node, indent))
                case b.Quote(of=inner):
                    out.append("\n\n".join(self.nodes(inner, indent + "  ")))
                case b.Rule():
                    out.append(indent + "-" * 20)
        return out

    def items(self, items: b.Items, indent: str) -> str:
        """A list with hanging indents."""
        out: list[str] = []
        for number, entry in enumerate(items.entries, 1):
            bullet = f"{number}. " if items.ordered else "- "
            inner = indent + " " * len(bullet)
            parts = self.nodes(entry, inner)
            first = parts[0] if parts else inner
            out.append("\n".join([indent + bullet + first[len(inner) :], *parts[1:]]))
        return "\n".join(out)

    def section(self, section: b.Section, closing: str) -> list[str]:
        """One section as paragraphs. `closing` stands above a signature."""
        match section:
            case b.Prose(of=nodes):
                return self.nodes(nodes)
            case b.Heading(of=line):
                return [self.heading(line)]
            case b.Key(title=title, of=nodes) | b.Risks(title=title, of=nodes):
                return [*([self.heading(title)] if title else []), *self.nodes(nodes)]
            case b.Steps(of=steps):
                return ["\n\n".join(self._step(number, step) for number, step in enumerate(steps, 1))]
            case b.Call(title=title, of=nodes, button=button, under=under):
                below = [self.paragraph(under)] if under else []
                return [self.heading(title), *self.nodes(nodes), self.link(button), *below]
            case b.Button(button=button, also=also, under=under):
                below = [self.paragraph(under)] if under else []
                return [self.link(button), *(self.link(link) for link in also), *below]
            case b.Facts(rows=rows):
                return ["\n".join(self._fact(label, value) for label, value in rows)]
            case b.Article(kicker=kicker, title=title, of=nodes, link=link):
                above = [self.paragraph(kicker)] if kicker else []
                return [*above, self.heading(title), *self.nodes(nodes), *([self.link(link)] if link else [])]
            case b.Signature(name=name, role=role):
                lines = [closing, self.paragraph(name), *([self.paragraph(role)] if role else [])]
                return ["\n".join(lines)]
            case b.Next(of=nodes):
                return self.nodes(nodes)

    def _step(self, number: int, step: b.Step) -> str:
        bullet = f"{number}. "
        return self.paragraph((*step.title, b.Text(" "), *step.text), " " * len(bullet), bullet)

    def _fact(self, label: b.Line, value: b.Line) -> str:
        return self.paragraph((*label, b.Text(": "), *value), "  ", "- ")


def wrap(text: str, first: str = "", indent: str = "") -> str:
    """Wrap words at 76. Nothing is broken inside a word; a slot's word counts as its twelve letters."""
    return textwrap.fill(
        " ".join(text.split()),
        width=WRAP,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _quiet(url: str) -> bool:
    """Telephone links: their number already stands in the words."""
    return url.startswith(("tel:", "sms:"))
