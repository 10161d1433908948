"""Staged rendering: one step of one version -> a skeleton with opaque words, filled for each person.

Both ways (a skeleton of `staging.py` + `fill`, and `render_step` for one person) run the same pipeline; they differ
only in who answers the conditions of the text: a variant, or the person. Their results are equal byte for byte.
"""

from __future__ import annotations

import html as html_text
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from dripwell.content import blocks as b
from dripwell.content import markup, slots, text, theme
from dripwell.content.bounds import MAX_FACT
from dripwell.content.cage import Parsed
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
from dripwell.content.expressions import evaluate, may_be_empty
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
    "compile_variant",
    "fill",
    "filled",
    "render_step",
    "service_campaign",
    "step_links",
    "substitutions",
]

MAX_SLOTS = 20
MAX_TESTS = 3  # conditions on the person; each doubles the variants
MAX_BYTES = 8192  # of one person's substitutions, after escaping (rules 1.4)
MAX_VALUE = 1000  # characters of one value
SAID = 2000  # sets of values that a skeleton remembers
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
    "keep_url": ("keep", "/q/", ""),
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
    mentioned: frozenset[str] = frozenset()  # facts the whole step mentions, in any branch
    # Values found before, by the facts they were found from: first names and dates repeat, and this is the hot path.
    said: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict, compare=False, repr=False)


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


def compile_variant(
    sources: Sources, site: Site, campaign: Campaign, key: str, answers: Mapping[str, bool]
) -> Skeleton:
    """One step as everybody gets it for whom its conditions have these answers (`staging.py` says which there are).

    Raises ContentError when it cannot be rendered, or when a word is not where it must be.
    """
    source = source_of(sources, site, campaign, key)
    marks = _marks(source, sources)
    return _skeleton(sources, site, campaign, key, source, parse_source(source), marks, None, answers)


def substitutions(skeleton: Skeleton, person: Person) -> dict[str, str]:
    """Each slot's word and its value, escaped where it must be.

    Raises ValueError when a value is missing, holds a line break or NUL, contains one of the words, or all are large.
    """
    values = _values(skeleton, person, {})
    said = "".join([*values, *values.values()])
    size = len(said) if said.isascii() else len(said.encode())
    if size > MAX_BYTES:
        raise ValueError(f"the personal values take {size:,} bytes, {MAX_BYTES:,} at most")
    return values


def fill(skeleton: Skeleton, person: Person) -> Rendered:
    """Fill a skeleton in one pass, as the provider does."""
    return filled(skeleton, substitutions(skeleton, person))


def render_step(sources: Sources, site: Site, campaign: Campaign, key: str, person: Person) -> Rendered:
    """Render one step for one person: the whole pipeline, conditions and loops included.

    Raises ContentError when the step cannot be rendered, ValueError when this person's values cannot be used.
    """
    source = source_of(sources, site, campaign, key)
    parsed = parse_source(source)
    marks = _marks(source, sources)
    facts = facts_of(person, mentioned_in(parsed))
    skeleton = _skeleton(sources, site, campaign, key, source, parsed, marks, facts, {})
    return filled(skeleton, _values(skeleton, person, marks.values))


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
    parsed: tuple[Parsed, Parsed, Parsed],
    marks: Marks,
    person: Mapping[str, str] | None,
    answers: Mapping[str, bool],
) -> Skeleton:
    look = theme.theme_of(sources)
    targets = _targets(source, parsed, marks, site)
    subject, preheader, markdown = (slots.stage(one, source.names, marks, person, answers) for one in parsed)
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
    return _sealed(frame.subject, page, plain, marks, targets, source, mentioned_in(parsed))


def _sealed(
    subject: str,
    page: str,
    plain: str,
    marks: Marks,
    targets: tuple[str, ...],
    source: Source,
    mentioned: frozenset[str],
) -> Skeleton:
    """Put fixed values in, give personal words their HTML twins, and check that every word left is a whole slot."""
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
        # A word that a parser cut or recased is no word any more, but it still holds the salt.
        if part.lower().count(marks.salt) != len(any_word.findall(part)):
            raise ContentError(f"{source.path}: this email cannot be staged: a mark was broken")
    if BROKEN.search(subject):
        raise ContentError(f"{source.path}: the subject holds a line break or a control character (D514)")
    return Skeleton(subject, page, plain, tuple(kinds.values()), targets, mentioned)


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
            raise ContentError(f"{self.path}: a link to {target} is made in a loop or by conditions; write it out")
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


def _targets(source: Source, parsed: tuple[Parsed, ...], marks: Marks, site: Site) -> tuple[str, ...]:
    """Click targets over all branches, in document order: the same numbers in every variant, and for everybody."""
    if source.service or not site.track_clicks:
        return ()
    body, place = parsed[2], (source.path, source.first_line)
    document, problems = read_document(slots.flatten(body, source.names, marks), *place)
    if problems and not body.personal_control:
        raise refused(problems_in(source) or problems)
    if not _CHOSEN_TARGET.search(source.markdown):
        return tuple(dict.fromkeys(_tracked(document, marks, source.path)))
    # A condition inside an address: with every branch open at once, two addresses run into one another.
    real: dict[str, None] = {}
    for answers in _answers(body):
        document, _ = read_document(slots.stage(body, source.names, marks, None, answers), *place)
        real |= dict.fromkeys(_tracked(document, marks, source.path))
    return tuple(real)


# A condition in the address of a link or a button.
_CHOSEN_TARGET = re.compile(r"\]\([^)\n]{0,500}\{%|->[^\n]{0,500}\{%|<https?:[^>\n]{0,500}\{%")


def _answers(parsed: Parsed) -> Iterator[dict[str, bool]]:
    """All answers to a text's conditions; of more than three, all yes, all no, and each one against the others."""
    said = list(dict.fromkeys(question.said for question in slots.personal_tests(parsed.tree, parsed)))
    if len(said) <= MAX_TESTS:
        for number in range(2 ** len(said)):
            yield {one: not number >> bit & 1 for bit, one in enumerate(said)}
        return
    for most in (True, False):
        yield dict.fromkeys(said, most)
        for one in said:
            yield {**dict.fromkeys(said, most), one: not most}


def _tracked(document: b.Document, marks: Marks, path: str) -> Iterator[str]:
    for link in b.links_in(document):
        target = _target(link.target, marks, path)
        if target == BOOK or target.startswith(("http://", "https://")):
            yield target


# -- one person --------------------------------------------------------------------------------------------------------


def mentioned_in(parsed: Iterable[Parsed]) -> frozenset[str]:
    """The facts that a step's texts mention, in any branch."""
    return frozenset().union(*(one.mentioned for one in parsed))


def facts_of(person: Person, mentioned: frozenset[str]) -> dict[str, str]:
    """The facts a step mentions. Spaces alone are no name, so a fallback shows. ValueError when one cannot be used."""
    known = {**person.fields, **person.extra, "reason_date": person.reason_date}
    facts: dict[str, str] = {}
    for name in (*mentioned, "reason_date"):
        value = known.get(name, "")
        if not isinstance(value, str):
            raise ValueError(f"`{name}` is not text")
        if len(value) > MAX_FACT:
            raise ValueError(f"`{name}` is longer than {MAX_FACT:,} letters")
        facts[name] = value.strip()
    return facts


def _values(skeleton: Skeleton, person: Person, known: Mapping[str, str]) -> dict[str, str]:
    """Word -> escaped value. `known`: raw values found while the text was run for this person."""
    facts = facts_of(person, skeleton.mentioned)
    said = tuple(facts.values())
    found = None if known else skeleton.said.get(said)
    if found is None:
        found = {
            slot.word: _checked(known[slot.word] if slot.word in known else evaluate(slot.expression, facts), slot)
            for slot in skeleton.slots
            if slot.kind != "url"
        }
        if not known:
            if len(skeleton.said) >= SAID:
                skeleton.said.clear()
            skeleton.said[said] = found
    out = dict(found)
    for slot in skeleton.slots:
        if slot.kind == "url":
            value = person.words.get(slot.expression, "")
            if not _WORD.fullmatch(value):
                raise ValueError(f"there is no signed word for `{slot.expression}` links")
            out[slot.word] = value
    return out


def _checked(value: str, slot: Slot) -> str:
    if not value.strip() and not may_be_empty(slot.expression):
        raise ValueError(f"{{{{ {slot.expression} }}}} has no value")
    if len(value) > MAX_VALUE:
        raise ValueError(f"{{{{ {slot.expression} }}}} is longer than {MAX_VALUE:,} letters")
    if BROKEN.search(value):
        raise ValueError(f"{{{{ {slot.expression} }}}} holds a line break or a control character")
    if slot.word[:-3] in value:
        raise ValueError(f"{{{{ {slot.expression} }}}} holds one of our marks")
    return html_text.escape(value) if slot.kind == "html" else value


def filled(skeleton: Skeleton, values: Mapping[str, str]) -> Rendered:
    """A skeleton with these values in its words' places, put in in one pass."""
    if not skeleton.slots:
        return Rendered(skeleton.subject, skeleton.html, skeleton.text)
    words = re.compile("|".join(re.escape(slot.word) for slot in skeleton.slots))

    def put(part: str) -> str:
        return words.sub(lambda m: values[m[0]], part)

    return Rendered(put(skeleton.subject), put(skeleton.html), put(skeleton.text))
