"""Staged rendering: one step of one version -> a skeleton with opaque words, filled for each person.

Both ways (`compile_step` + `fill`, and `render_step` for one person) run the same pipeline; they differ only in whether
the conditions and loops of the text can ask about the person. Where both apply, their results are equal byte for byte.
"""

from __future__ import annotations

import html as html_text
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from dripwell.content import blocks as b
from dripwell.content import markup, slots, text, theme
from dripwell.content.email_source import (
    BROKEN,
    SERVICE_EXTRAS,
    Source,
    Sources,
    parse_source,
    problems_in,
    refused,
    service_campaign,
    source_of,
)
from dripwell.content.frame import ADDRESSES, frame_of, text_frame, with_length
from dripwell.content.markdown import read_document
from dripwell.content.slots import Marks
from dripwell.core.campaign import Campaign, Site
from dripwell.core.errors import ContentError

__all__ = [
    "MAX_BYTES",
    "MAX_SLOTS",
    "MAX_VALUE",
    "SERVICE_EXTRAS",
    "Person",
    "Rendered",
    "Skeleton",
    "Slot",
    "compile_step",
    "fill",
    "render_step",
    "service_campaign",
    "step_links",
    "substitutions",
]

MAX_SLOTS = 20
MAX_BYTES = 8192  # of one person's substitutions, after escaping (rules 1.4)
MAX_VALUE = 1000  # characters of one value
BOOK = "book"  # the target of the booking page among a version's links

_PATHS: Mapping[str, tuple[str, str, str]] = {
    # name: purpose of the signed word, path before it, what follows it
    "view_url": ("view", "/v/", ""),
    "unsubscribe_url": ("unsubscribe", "/u/", ""),
    "preferences_url": ("preferences", "/p/", ""),
    "pause_url": ("preferences", "/p/", "?show=pause"),
    "fewer_url": ("preferences", "/p/", "?show=fewer"),
    "stop_url": ("preferences", "/p/", "?show=stop"),
    "confirm_url": ("confirm", "/k/", ""),
    "call_url": ("call", "/b/call/", ""),
    "cancel_url": ("call", "/b/call/", "/cancel"),
    "change_url": ("call", "/b/call/", "/change"),
    "ics_url": ("call", "/b/call/", "/calendar.ics"),
}
_PLAIN_PATHS = {"privacy_url": "/privacy", "calls_url": "/app/calls"}

_WORD = re.compile(r"[A-Za-z0-9_-]{1,200}")


@dataclass(frozen=True, slots=True)
class Slot:
    """One word of a skeleton. `expression` is what it stands for; of a `url`, the purpose of the signed word."""

    word: str
    expression: str
    kind: Literal["text", "html", "url"]


@dataclass(frozen=True, slots=True)
class Skeleton:
    """One step of one version with a word in each personal place. `links`: targets of click links, by number."""

    subject: str
    html: str
    text: str
    slots: tuple[Slot, ...]
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """One subscriber's values. `words`: signed link words by purpose. `extra`: values of a service email."""

    fields: Mapping[str, str]
    words: Mapping[str, str]
    extra: Mapping[str, str] = field(default_factory=dict)
    reason_date: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What one person gets."""

    subject: str
    html: str
    text: str


# -- public ------------------------------------------------------------------------------------------------------------


def compile_step(sources: Sources, site: Site, campaign: Campaign, key: str) -> Skeleton | None:
    """Stage one step. None: its conditions, loops or number of slots ask for `render_step`, once per person.

    Raises ContentError when it cannot be rendered at all.
    """
    source = source_of(sources, site, campaign, key)
    parsed = parse_source(source)
    if any(one.personal_control for one in parsed):
        return None
    marks = _marks(source, sources)
    skeleton = _skeleton(sources, site, campaign, key, source, parsed, marks, None)
    return skeleton if len(skeleton.slots) <= MAX_SLOTS else None


def substitutions(skeleton: Skeleton, person: Person) -> dict[str, str]:
    """Each slot's word and its value, escaped where it must be.

    Raises ValueError when a value is missing, holds a line break or NUL, contains one of the words, or all are large.
    """
    values = _values(skeleton.slots, person, {})
    size = sum(len(word) + len(value.encode()) for word, value in values.items())
    if size > MAX_BYTES:
        raise ValueError(f"the personal values take {size:,} bytes, {MAX_BYTES:,} at most")
    return values


def fill(skeleton: Skeleton, person: Person) -> Rendered:
    """Fill a skeleton in one pass, as the provider does."""
    return _filled(skeleton, substitutions(skeleton, person))


def render_step(sources: Sources, site: Site, campaign: Campaign, key: str, person: Person) -> Rendered:
    """Render one step for one person: the whole pipeline, conditions and loops included.

    Raises ContentError when the step cannot be rendered, ValueError when this person's values cannot be used.
    """
    source = source_of(sources, site, campaign, key)
    parsed = parse_source(source)
    marks = _marks(source, sources)
    skeleton = _skeleton(sources, site, campaign, key, source, parsed, marks, _facts(person))
    return _filled(skeleton, _values(skeleton.slots, person, marks.values))


def step_links(sources: Sources, site: Site, campaign: Campaign, key: str) -> tuple[str, ...]:
    """Targets of this step's click links by number, over all branches: what a version stores."""
    source = source_of(sources, site, campaign, key)
    return _targets(source, parse_source(source), _marks(source, sources), site)


# -- the pipeline ------------------------------------------------------------------------------------------------------


def _marks(source: Source, sources: Sources) -> Marks:
    look = [sources.get(path, "") for path in (theme.BASE, theme.BLOCKS, theme.TOKENS)]
    return Marks(slots.salt_of([source.path, source.subject, source.preheader, source.markdown, *look]))


def _skeleton(
    sources: Sources,
    site: Site,
    campaign: Campaign,
    key: str,
    source: Source,
    parsed: tuple[slots.Parsed, slots.Parsed, slots.Parsed],
    marks: Marks,
    person: Mapping[str, str] | None,
) -> Skeleton:
    look = theme.theme_of(sources)
    targets = _targets(source, parsed, marks, site)
    subject, preheader, markdown = (slots.stage(one, source.names, marks, person) for one in parsed)
    document, problems = read_document(markdown, source.path, source.first_line)
    if problems:
        # Lines are those of the filled text; the file itself says it better, unless only the filled text is wrong.
        raise refused(problems_in(source) or problems)

    def shown(words: str) -> str:
        return marks.any_word().sub(lambda m: marks.fixed.get(m[0], m[0]), words)

    links = _Links(
        site,
        marks,
        {target: n for n, target in enumerate(targets)},
        site.track_clicks and not source.service,
        source.path,
    )
    writer = text.Writer(links.resolve, shown)
    body = [part for section in document.sections for part in writer.section(section, look.tokens.words["closing"])]
    lines = (shown(subject), preheader)
    frame = frame_of(site, campaign, key, source.service, look.tokens, document.title, lines, marks)
    outside = text_frame(frame, writer)
    words = ADDRESSES.sub(" ", marks.any_word().sub("", "\n".join([*outside[0], *body, *outside[1]])))
    frame = with_length(frame, site, look.tokens, campaign, key, body, len(words.encode()))
    above, below = text_frame(frame, writer)
    plain = "\n\n".join(part for part in [*above, *body, *below] if part.strip()) + "\n"
    page = look.html(frame, document.sections, markup.Writer(links.resolve))
    return _sealed(frame.subject, page, plain, marks, targets, source)


def _sealed(subject: str, page: str, plain: str, marks: Marks, targets: tuple[str, ...], source: Source) -> Skeleton:
    """Put fixed values in, give personal words their HTML twins, and check that every word left is known."""
    any_word = marks.any_word()
    kinds: dict[str, Slot] = {}

    def in_html(match: re.Match[str]) -> str:
        word = match[0]
        if word in marks.fixed:
            return html_text.escape(marks.fixed[word])
        if word not in marks.personal:
            return word
        twin = marks.word("h", word)
        if word in marks.values:
            marks.values[twin] = marks.values[word]
        kinds[twin] = Slot(twin, marks.personal[word], "html")
        return twin

    page = any_word.sub(in_html, page)
    for part in (subject, page, plain):
        for word in any_word.findall(part):
            if word in marks.links:
                kinds.setdefault(word, Slot(word, marks.links[word], "url"))
            elif word in marks.personal:
                kinds.setdefault(word, Slot(word, marks.personal[word], "text"))
            elif word in marks.urls:
                name = marks.urls[word]
                raise ContentError(f"{source.path}: `{name}` is a link; write [words]({{{{ {name} }}}}) (D202)")
            elif word not in kinds:
                raise ContentError(f"{source.path}: this email cannot be staged: a mark is left over")
    if BROKEN.search(subject):
        raise ContentError(f"{source.path}: the subject holds a line break or a control character (D514)")
    return Skeleton(subject, page, plain, tuple(kinds.values()), targets)


# -- links -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Links:
    """Turns what stands in a link into its URL."""

    site: Site
    marks: Marks
    numbers: Mapping[str, int]
    tracked: bool
    path: str

    def resolve(self, target: str) -> str:
        target = _target(target, self.marks, self.path)
        base = self.site.base_url.rstrip("/")
        if target in _PLAIN_PATHS:
            return base + _PLAIN_PATHS[target]
        if target in _PATHS:
            purpose, before, after = _PATHS[target]
            return f"{base}{before}{self._word(purpose)}{after}"
        if target == BOOK and not self.tracked:
            return f"{base}/b/{self._word('book')}"
        if not self.tracked or target.startswith(("mailto:", "tel:", "sms:")):
            return target
        if target not in self.numbers:
            raise ContentError(f"{self.path}: a link to {target} is made in a loop; write it out")
        return f"{base}/c/{self._word('click')}-{self.numbers[target]}"

    def _word(self, purpose: str) -> str:
        word = self.marks.word("l", purpose)
        self.marks.links[word] = purpose
        return word


def _target(target: str, marks: Marks, path: str) -> str:
    """A link's target with its marks resolved: a URL, `book`, or a name such as `view_url`."""
    if target in marks.urls:
        name = marks.urls[target]
        return BOOK if name == "booking_url" else name
    target = marks.any_word().sub(lambda m: marks.fixed.get(m[0], m[0]), target)
    if marks.any_word().search(target):
        raise ContentError(f"{path}: a link's address cannot hold a personal value (D302)")
    parts = urlsplit(target)
    if parts.scheme not in markup.SCHEMES or (parts.scheme in ("http", "https") and not parts.hostname):
        raise ContentError(f"{path}: `{target}` is no link; write https://… or {{{{ booking_url }}}} (D505)")
    if re.search(r"[\s\"'<>\\\x00-\x1f]", target):
        raise ContentError(f"{path}: `{target}` holds a character that no link may hold (D505)")
    return target


def _targets(source: Source, parsed: tuple[slots.Parsed, ...], marks: Marks, site: Site) -> tuple[str, ...]:
    if source.service or not site.track_clicks:
        return ()
    document, problems = read_document(slots.flatten(parsed[2], source.names, marks), source.path, source.first_line)
    if problems and not parsed[2].personal_control:
        raise refused(problems_in(source) or problems)
    found: dict[str, None] = {}
    for link in b.links_in(document):
        target = _target(link.target, marks, source.path)
        if target == BOOK or target.startswith(("http://", "https://")):
            found[target] = None
    return tuple(found)


# -- one person --------------------------------------------------------------------------------------------------------


def _facts(person: Person) -> dict[str, str]:
    """Every personal name's value. Spaces alone are no name, so a fallback shows."""
    facts = {**person.fields, **person.extra, "reason_date": person.reason_date}
    wrong = [name for name, value in facts.items() if not isinstance(value, str)]
    if wrong:
        raise ValueError(f"`{wrong[0]}` is not text")
    return {name: value.strip() for name, value in facts.items()}


def _values(wanted: Iterable[Slot], person: Person, known: Mapping[str, str]) -> dict[str, str]:
    """Word -> escaped value. `known`: raw values found while the text was run for this person."""
    facts = _facts(person)
    out: dict[str, str] = {}
    for slot in wanted:
        if slot.kind == "url":
            value = person.words.get(slot.expression, "")
            if not _WORD.fullmatch(value):
                raise ValueError(f"there is no signed word for `{slot.expression}` links")
        else:
            found = known.get(slot.word)
            if found is None:
                found = slots.evaluate(slot.expression, facts)
            value = _checked(found, slot)
        out[slot.word] = value
    return out


def _checked(value: str, slot: Slot) -> str:
    if not value.strip() and not slots.may_be_empty(slot.expression):
        raise ValueError(f"{{{{ {slot.expression} }}}} has no value")
    if len(value) > MAX_VALUE:
        raise ValueError(f"{{{{ {slot.expression} }}}} is longer than {MAX_VALUE:,} letters")
    if BROKEN.search(value):
        raise ValueError(f"{{{{ {slot.expression} }}}} holds a line break or a control character")
    if slot.word[:-3] in value:
        raise ValueError(f"{{{{ {slot.expression} }}}} holds one of our marks")
    return html_text.escape(value) if slot.kind == "html" else value


def _filled(skeleton: Skeleton, values: Mapping[str, str]) -> Rendered:
    if not skeleton.slots:
        return Rendered(skeleton.subject, skeleton.html, skeleton.text)
    words = re.compile("|".join(re.escape(slot.word) for slot in skeleton.slots))

    def put(part: str) -> str:
        return words.sub(lambda m: values[m[0]], part)

    return Rendered(put(skeleton.subject), put(skeleton.html), put(skeleton.text))
