"""The email theme: tokens, the theme's own words, and MJML -> HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import css_inline
from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateError, TemplateNotFound
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup
from mjml import mjml2html
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dripwell.content import blocks as b
from dripwell.content.markup import Writer
from dripwell.core.errors import ContentError

FOLDER = "templates/email"
BASE, BLOCKS, TOKENS = f"{FOLDER}/base.mjml.j2", f"{FOLDER}/blocks.mjml.j2", f"{FOLDER}/tokens.yaml"
ART = 7  # pictures the theme has: art/shore-1.jpg to art/shore-7.jpg
ART_BYTES = 3200  # words an email needs before a picture may stand in it (D407)
MAX_HTML = 1_000_000

_LIGHT = (
    "body_font",
    "head_font",
    "canvas",
    "card",
    "text",
    "heading",
    "muted",
    "brand",
    "on_brand",
    "callout",
    "rule",
)
_DARK = ("canvas", "card", "text", "heading", "muted", "brand", "on_brand", "callout", "callout_rule", "rule")
_WORDS = (
    "view", "leave", "preferences", "privacy", "part", "minutes", "closing", "controls", "pause", "fewer", "stop",
    "reason_series", "reason_one", "reason_confirm", "reason_booking", "reason_notice", "reason_keep",
    "off_label",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tokens:
    """What `tokens.yaml` says."""

    light: Mapping[str, str]
    dark: Mapping[str, str]
    words: Mapping[str, str]
    safety: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything around the body, as both parts print it."""

    subject: str
    preheader: str
    language: str
    short_name: str
    title: b.Line
    notes: tuple[b.Line, ...]  # off-label, safety, reason
    identity: tuple[b.Line, ...]
    footer: tuple[b.Link, ...]
    masthead: tuple[b.Link, ...] = ()
    part: tuple[int, int] | None = None
    part_line: str = ""
    art: str = ""
    controls: str = ""
    control_links: tuple[b.Link, ...] = ()


class _Loader(BaseLoader):
    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = sources

    def get_source(self, environment: Environment, template: str) -> tuple[str, None, Callable[[], bool]]:
        if template not in self.sources:
            raise TemplateNotFound(template)
        return self.sources[template], None, lambda: True


@dataclass(frozen=True, slots=True)
class Theme:
    """A theme that was read: templates compiled, tokens checked. Build it with `theme_of`."""

    tokens: Tokens
    base: Any
    module: Any
    inliner: css_inline.CSSInliner

    def html(self, frame: Frame, sections: tuple[b.Section, ...], writer: Writer) -> str:
        """The whole email as HTML, marks still in it."""
        try:
            body = self._body(sections, writer)
            mjml = self.base.render(
                t=self.tokens.light,
                d=self.tokens.dark,
                f=frame,
                title=writer.line(frame.title),
                notes=[writer.line(line) for line in frame.notes],
                identity=[writer.line(line) for line in frame.identity],
                controls=_pairs(frame.control_links, writer),
                masthead=_pairs(frame.masthead, writer),
                footer=_pairs(frame.footer, writer),
                body=Markup(body),
            )
        except TemplateError as error:
            raise ContentError(f"{BASE}: the theme cannot be filled: {error}") from error
        try:
            # No `fonts`: the compiler would link Roboto from elsewhere, and a third party would learn who reads what.
            compiled = mjml2html(mjml, disable_comments=False, fonts={})
            page: str = self.inliner.inline(compiled)
        except (ValueError, TypeError, css_inline.InlineError) as error:
            raise ContentError(f"{BASE}: the theme is not readable MJML: {error}") from error
        if len(page) > MAX_HTML:
            raise ContentError(f"this email is longer than {MAX_HTML:,} letters")
        return page

    def _body(self, sections: tuple[b.Section, ...], w: Writer) -> str:
        """Boxes are sections of their own; what flows between two boxes shares one."""
        out: list[str] = []
        pieces: list[str] = []
        articles = 0
        for before, section in zip((None, *sections), sections, strict=False):
            if isinstance(section, b.Key | b.Call | b.Facts):
                out += [self._flow(pieces), self._box(section, w)]
                pieces = []
            else:
                below = isinstance(before, b.Heading)
                pieces.append(self._piece(section, w, below=below, first=articles == 0))
                articles += isinstance(section, b.Article)
        return "".join([*out, self._flow(pieces)])

    def _flow(self, pieces: list[str]) -> str:
        return str(self.module.flow(Markup("".join(pieces)))) if pieces else ""

    def _box(self, section: b.Key | b.Call | b.Facts, w: Writer) -> str:
        m = self.module
        match section:
            case b.Key(title=title, of=nodes):
                made = m.callout(w.line(title), w.nodes(nodes))
            case b.Call(title=title, of=nodes, button=button, under=under):
                made = m.call(w.line(title), w.nodes(nodes), w.line(button.of), w.url(button), w.line(under))
            case b.Facts(rows=rows):
                made = m.facts([(w.line(label), w.line(value)) for label, value in rows])
        return str(made)

    def _piece(self, section: b.Flowing, w: Writer, *, below: bool, first: bool) -> str:
        m = self.module
        match section:
            case b.Prose(of=nodes):
                made = m.prose(w.nodes(nodes), below)
            case b.Heading(of=line):
                made = m.heading(w.line(line))
            case b.Steps(of=steps):
                made = m.steps([{"title": w.line(step.title), "text": w.line(step.text)} for step in steps], below)
            case b.Risks(title=title, of=nodes):
                made = m.risks(w.line(title), w.nodes(nodes))
            case b.Button(button=button, also=also, under=under):
                made = m.button(w.line(button.of), w.url(button), w.line(under), _pairs(also, w))
            case b.Article(kicker=kicker, title=title, of=nodes, link=link):
                label, url = (w.line(link.of), w.url(link)) if link else (Markup(""), "")
                made = m.article(w.line(kicker), w.line(title), w.nodes(nodes), label, url, first)
            case b.Signature(name=name, role=role):
                made = m.signature(self.tokens.words["closing"], w.line(name), w.line(role))
            case b.Next(of=nodes):
                made = m.next_up(w.nodes(nodes))
        return str(made)


def _pairs(links: tuple[b.Link, ...], writer: Writer) -> list[tuple[Markup, str]]:
    return [(writer.line(link.of), writer.url(link)) for link in links]


def theme_of(sources: Mapping[str, str]) -> Theme:
    """Read the theme. Raises ContentError that names the file."""
    missing = [path for path in (BASE, BLOCKS, TOKENS) if path not in sources]
    if missing:
        raise ContentError(f"the email theme is not complete: {', '.join(missing)} is missing")
    return _theme(sources[BASE], sources[BLOCKS], sources[TOKENS])


@lru_cache(maxsize=16)
def _theme(base: str, blocks: str, tokens: str) -> Theme:
    read = read_tokens(tokens)
    env = ImmutableSandboxedEnvironment(
        loader=_Loader({"base.mjml.j2": base, "blocks.mjml.j2": blocks}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals = {"range": env.globals["range"]}
    try:
        module = env.get_template("blocks.mjml.j2").make_module({"t": read.light, "d": read.dark})
        template = env.get_template("base.mjml.j2")
        inlined = str(module.inlined_rules())  # type: ignore[attr-defined]
    except (TemplateError, AttributeError) as error:
        raise ContentError(f"{FOLDER}: the theme is not readable: {error}") from error
    inliner = css_inline.CSSInliner(
        inline_style_tags=False, keep_style_tags=True, load_remote_stylesheets=False, extra_css=inlined
    )
    return Theme(read, template, module, inliner)


@lru_cache(maxsize=16)
def read_tokens(text: str) -> Tokens:
    """Read `tokens.yaml`; ContentError names what is missing."""
    try:
        data = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ContentError(f"{TOKENS}: this is not readable YAML: {error}") from error
    light, dark = _group(data, "t", _LIGHT), _group(data, "d", _DARK)
    for name, value in [*light.items(), *dark.items()]:
        if not name.endswith("_font") and not re.fullmatch(r"#[0-9A-Fa-f]{6}", value):
            raise ContentError(f'{TOKENS}: `{name}: {value}` is not a color; write it as "#RRGGBB"')
    return Tokens(light, dark, _group(data, "words", _WORDS), _group(data, "safety", ()))


def _group(data: object, name: str, needed: tuple[str, ...]) -> Mapping[str, str]:
    group = data.get(name) if isinstance(data, dict) else None
    if not isinstance(group, dict):
        raise ContentError(f"{TOKENS}: `{name}` is missing")
    missing = [key for key in needed if key not in group]
    if missing:
        raise ContentError(f"{TOKENS}: `{name}` lacks {', '.join(missing)}")
    return {str(key): " ".join(str(value).split()) for key, value in group.items()}
