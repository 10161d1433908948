"""The tree of one email's words: what the marketer can write, as values. The HTML and the text part are both written
from this tree, so every node below has a look in the theme. `markdown.py` reads it from Markdown with `::: blocks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BLOCKS = ("key", "steps", "risks", "call", "button", "facts", "article", "signature", "next")


@dataclass(frozen=True, slots=True)
class Text:
    """Plain words."""

    text: str


@dataclass(frozen=True, slots=True)
class Break:
    """A line break inside a paragraph."""


@dataclass(frozen=True, slots=True)
class Strong:
    """Bold words."""

    of: tuple[Inline, ...]


@dataclass(frozen=True, slots=True)
class Emphasis:
    """Slanted words."""

    of: tuple[Inline, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """Words that lead somewhere. `target` is what the marketer wrote, or a mark."""

    of: tuple[Inline, ...]
    target: str


Inline = Text | Break | Strong | Emphasis | Link
Line = tuple[Inline, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One paragraph."""

    of: Line


@dataclass(frozen=True, slots=True)
class Items:
    """A list. Each entry holds paragraphs and lists."""

    ordered: bool
    entries: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Quote:
    """Someone else's words."""

    of: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A thin line."""


Node = Paragraph | Items | Quote | Rule


@dataclass(frozen=True, slots=True)
class Prose:
    """What stands between headings and blocks."""

    of: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Heading:
    """`## …`"""

    of: Line


@dataclass(frozen=True, slots=True)
class Key:
    """`::: key Title`: three points at most, in a box."""

    title: Line
    of: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One numbered step: its bold opening and the rest."""

    title: Line
    text: Line


@dataclass(frozen=True, slots=True)
class Steps:
    """`::: steps`"""

    of: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Risks:
    """`::: risks Title`: in the body's size and color, always."""

    title: Line
    of: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """`::: call Title`: a box with the one button of the email."""

    title: Line
    of: tuple[Node, ...]
    button: Link
    under: Line


@dataclass(frozen=True, slots=True)
class Button:
    """`::: button`: a button in the open, with side links."""

    button: Link
    also: tuple[Link, ...]
    under: Line


@dataclass(frozen=True, slots=True)
class Facts:
    """`::: facts`: label and value."""

    rows: tuple[tuple[Line, Line], ...]


@dataclass(frozen=True, slots=True)
class Article:
    """`::: article kicker | Title`: one story of a newsletter."""

    kicker: Line
    title: Line
    of: tuple[Node, ...]
    link: Link | None


@dataclass(frozen=True, slots=True)
class Signature:
    """`::: signature`"""

    name: Line
    role: Line


@dataclass(frozen=True, slots=True)
class Next:
    """`::: next`: what comes after this part."""

    of: tuple[Node, ...]


Flowing = Prose | Heading | Steps | Risks | Button | Article | Signature | Next
Section = Flowing | Key | Call | Facts


@dataclass(frozen=True, slots=True)
class Mark:
    """A `[^name]` that points to the claim register; it is not printed."""

    name: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Document:
    """One email's words."""

    title: Line
    sections: tuple[Section, ...]
    marks: tuple[Mark, ...] = ()


# -- reading the tree --------------------------------------------------------------------------------------------------


def links_in(document: Document) -> Iterator[Link]:
    """Every link of the document, in reading order."""
    yield from _line_links(document.title)
    for section in document.sections:
        yield from _section_links(section)


def _section_links(section: Section) -> Iterator[Link]:
    match section:
        case Prose(of=nodes) | Next(of=nodes):
            yield from _node_links(nodes)
        case Heading(of=line):
            yield from _line_links(line)
        case Key(title=title, of=nodes) | Risks(title=title, of=nodes):
            yield from _line_links(title)
            yield from _node_links(nodes)
        case Steps(of=steps):
            for step in steps:
                yield from _line_links((*step.title, *step.text))
        case Call(title=title, of=nodes, button=button, under=under):
            yield from _line_links(title)
            yield from _node_links(nodes)
            yield button
            yield from _line_links(under)
        case Button(button=button, also=also, under=under):
            yield button
            yield from also
            yield from _line_links(under)
        case Facts(rows=rows):
            for label, value in rows:
                yield from _line_links((*label, *value))
        case Article(kicker=kicker, title=title, of=nodes, link=link):
            yield from _line_links((*kicker, *title))
            yield from _node_links(nodes)
            if link:
                yield link
        case Signature(name=name, role=role):
            yield from _line_links((*name, *role))


def _node_links(nodes: Sequence[Node]) -> Iterator[Link]:
    for node in nodes:
        match node:
            case Paragraph(of=line):
                yield from _line_links(line)
            case Items(entries=entries):
                for entry in entries:
                    yield from _node_links(entry)
            case Quote(of=inner):
                yield from _node_links(inner)
            case Rule():
                pass


def _line_links(line: Sequence[Inline]) -> Iterator[Link]:
    for part in line:
        match part:
            case Link():
                yield part
            case Strong(of=inner) | Emphasis(of=inner):
                yield from _line_links(inner)
            case _:
                pass


def plain(line: Sequence[Inline]) -> str:
    """The words of a line without their looks."""
    out = []
    for part in line:
        match part:
            case Text(text=text):
                out.append(text)
            case Break():
                out.append(" ")
            case Strong(of=inner) | Emphasis(of=inner) | Link(of=inner):
                out.append(plain(inner))
    return "".join(out)


def joined(parts: Sequence[Inline]) -> Line:
    """The parts as one line, words that touch made one."""
    out: list[Inline] = []
    for part in parts:
        last = out[-1] if out else None
        if isinstance(part, Text) and isinstance(last, Text):
            out[-1] = Text(last.text + part.text)
        else:
            out.append(part)
    return tuple(out)


def stripped(line: Line) -> Line:
    """A line without the spaces it begins with."""
    if line and isinstance(line[0], Text):
        rest = line[0].text.lstrip()
        return (Text(rest), *line[1:]) if rest else line[1:]
    return line
