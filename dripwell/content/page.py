"""Reads a finished email's HTML as a person and a mail program would: words, links, pictures, what is hidden."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)
_FORBIDDEN = frozenset({
    "form", "input", "button", "select", "textarea", "script", "iframe", "object", "embed", "link", "svg", "picture",
    "source", "video", "audio", "canvas", "base",
})  # fmt: skip
_FORBIDDEN_CSS = (
    (re.compile(r"@import", re.I), "remote CSS"),
    (re.compile(r"@font-face", re.I), "a web font"),
    (re.compile(r"\bvar\s*\(", re.I), "a CSS variable"),
    (re.compile(r"display\s*:\s*(?:inline-)?(?:flex|grid)\b", re.I), "flex or grid"),
    (re.compile(r"url\s*\(", re.I), "a picture in CSS"),
)


@dataclass(slots=True)
class Anchor:
    """One link: where it leads, its words, and its style."""

    href: str
    words: str = ""
    style: str = ""


@dataclass(slots=True)
class Page:
    """What was found."""

    words: str = ""  # visible
    hidden: list[str] = field(default_factory=list)
    anchors: list[Anchor] = field(default_factory=list)
    images: list[dict[str, str]] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    style: str = ""


@dataclass(slots=True)
class _Element:
    tag: str
    hidden: bool
    color: str
    background: str


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self.parts: list[str] = []
        self.stack: list[_Element] = [_Element("", False, "#000000", "#ffffff")]
        self.anchor: Anchor | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in _FORBIDDEN:
            self.page.forbidden.append(f"<{tag}>")
        self.page.forbidden += [f"{name}=" for name in given if name.startswith("on")]
        style = given.get("style", "")
        for pattern, what in _FORBIDDEN_CSS:
            if pattern.search(style):
                self.page.forbidden.append(what)
        source = given.get("src", "").lower()
        if source.startswith("data:") or given.get("href", "").lower().startswith(("data:", "javascript:")):
            self.page.forbidden.append("a data: address")
        if re.search(r"\.(svg|webp)(\?|$)", source):
            self.page.forbidden.append("an SVG or WebP picture")
        if tag == "img":
            self.page.images.append(given)
        if tag == "a" and "href" in given:
            self.anchor = Anchor(given["href"], style=style)
            self.page.anchors.append(self.anchor)
        if tag == "br":
            self.parts.append(" ")
        if tag not in _VOID:
            outer = self.stack[-1]
            background = _color(style, "background-color") or _color(style, "background") or given.get("bgcolor", "")
            background = background.lower() or outer.background
            color = (_color(style, "color") or outer.color).lower()
            self.stack.append(_Element(tag, outer.hidden or _hides(style), color, background))
            if tag in ("p", "div", "td", "li", "h1", "h2", "h3", "tr", "table", "ul", "ol"):
                self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self.anchor = None
        for index in range(len(self.stack) - 1, 0, -1):
            if self.stack[index].tag == tag:
                del self.stack[index:]
                break
        if tag in ("p", "div", "td", "li", "h1", "h2", "h3"):
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        inside = {element.tag for element in self.stack}
        if "style" in inside:
            self.page.style += data
            for pattern, what in _FORBIDDEN_CSS:
                if pattern.search(data):
                    self.page.forbidden.append(what)
            return
        if inside & {"title", "head", "script"}:
            return
        here = self.stack[-1]
        if data.strip() and (here.hidden or here.color == here.background):
            self.page.hidden.append(" ".join(data.split()))
            return
        self.parts.append(data)
        if self.anchor is not None:
            self.anchor.words += data


def read_page(html: str) -> Page:
    """Read one email. Comments for Outlook are not read."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    reader.page.words = " ".join("".join(reader.parts).split())
    return reader.page


def _hides(style: str) -> bool:
    compact = style.replace(" ", "").lower()
    if re.search(r"(?:^|;)(?:display:none|visibility:hidden|opacity:0(?:;|$)|max-height:0)", compact):
        return True
    sizes = re.findall(r"(?:^|;)font-size:([\d.]+)px", compact)
    # 0 on a cell is how MJML closes gaps; the text inside sets its own size. 1 or 2 is how people hide words.
    return bool(sizes) and 0 < float(sizes[-1]) <= 4 and "line-height" in compact and "color" in compact


def _color(style: str, name: str) -> str:
    found = re.findall(rf"(?:^|;)\s*{name}\s*:\s*(#[0-9A-Fa-f]{{6}})\b", style)
    return found[-1] if found else ""
