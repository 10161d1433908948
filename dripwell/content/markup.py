"""The tree as HTML fragments. Looks come from the theme; nothing but these few tags leaves this module."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import nh3
from markupsafe import Markup

from dripwell.content import blocks as b

TAGS = {"p", "strong", "em", "a", "ul", "ol", "li", "br", "blockquote", "hr"}
SCHEMES = {"https", "http", "mailto", "tel", "sms"}


@dataclass(slots=True)
class Writer:
    """Writes fragments. `resolve` turns a link's target into its URL."""

    resolve: Callable[[str], str]

    def line(self, line: Sequence[b.Inline]) -> Markup:
        """Words with bold, slant and links."""
        return _clean(self._line(line))

    def nodes(self, nodes: Sequence[b.Node]) -> Markup:
        """Paragraphs and lists."""
        return _clean("".join(self._node(node) for node in nodes))

    def url(self, link: b.Link) -> str:
        """Where a button leads."""
        return self.resolve(link.target)

    def _line(self, line: Sequence[b.Inline]) -> str:
        out: list[str] = []
        for part in line:
            match part:
                case b.Text(text=text):
                    out.append(html.escape(text, quote=False))
                case b.Break():
                    out.append("<br>")
                case b.Strong(of=inner):
                    out.append(f"<strong>{self._line(inner)}</strong>")
                case b.Emphasis(of=inner):
                    out.append(f"<em>{self._line(inner)}</em>")
                case b.Link(of=inner, target=target):
                    out.append(f'<a href="{html.escape(self.resolve(target))}">{self._line(inner)}</a>')
        return "".join(out)

    def _node(self, node: b.Node) -> str:
        match node:
            case b.Paragraph(of=line):
                return f"<p>{self._line(line)}</p>"
            case b.Items(ordered=ordered, entries=entries):
                tag = "ol" if ordered else "ul"
                return f"<{tag}>{''.join(f'<li>{self._entry(entry)}</li>' for entry in entries)}</{tag}>"
            case b.Quote(of=inner):
                return f"<blockquote>{''.join(self._node(one) for one in inner)}</blockquote>"
            case b.Rule():
                return "<hr>"

    def _entry(self, entry: Sequence[b.Node]) -> str:
        if len(entry) == 1 and isinstance(entry[0], b.Paragraph):
            return self._line(entry[0].of)
        return "".join(self._node(node) for node in entry)


def _clean(fragment: str) -> Markup:
    """Belt and braces: the tree cannot hold anything else, and this proves it."""
    cleaned = nh3.clean(fragment, tags=TAGS, attributes={"a": {"href"}}, url_schemes=SCHEMES, link_rel=None)
    # MJML reads XML: an element that closes itself must say so.
    return Markup(cleaned.replace("<br>", "<br />").replace("<hr>", "<hr />"))
