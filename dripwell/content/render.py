"""Staged rendering: one step of one version -> a skeleton with opaque words, filled for each person.

Both ways (`compile_step` + `fill`, and `render_step` for one person) run the same pipeline; they differ only in whether
the conditions and loops of the text can ask about the person. Where both apply, their results are equal byte for byte.
"""

from __future__ import annotations

import html as html_text
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlsplit

from dripwell.content import blocks as b
from dripwell.content import markup, slots, text, theme
from dripwell.content.problems import Problem
from dripwell.content.slots import Marks, Names
from dripwell.core.campaign import Campaign, Email, Site
from dripwell.core.errors import ContentError, NotFoundError

Sources = Mapping[str, str]

MAX_SLOTS = 20
MAX_BYTES = 8192  # of one person's substitutions, after escaping (rules 1.4)
MAX_VALUE = 1000  # characters of one value
WORDS_PER_MINUTE = 200
BOOK = "book"  # the target of the booking page among a version's links

ALWAYS_FIELDS = frozenset({"first_name", "last_name", "state", "email"})
SERVICE: Mapping[str, tuple[str, ...]] = {
    "confirm": ("confirm",),
    "booking": ("booked", "canceled", "changed"),
    "notice": ("notice",),
}
"""The built-in campaigns and their steps; each step's words stand in `templates/email/system/<step>.md`."""

_CALL = frozenset({"call_day", "call_time", "call_zone", "phone", "voicemail_line"})
SERVICE_EXTRAS: Mapping[str, frozenset[str]] = {
    "confirm": frozenset({"topic_title", "topic_about"}),
    "booked": _CALL,
    "changed": _CALL,
    "canceled": frozenset({"call_day", "call_time", "call_zone"}),
    "notice": frozenset(),
}
"""What `Person.extra` must hold for each service email."""

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
_CAMPAIGN_URLS = frozenset(
    {
        "booking_url",
        "view_url",
        "unsubscribe_url",
        "preferences_url",
        "pause_url",
        "fewer_url",
        "stop_url",
        "privacy_url",
    }
)
_SERVICE_URLS: Mapping[str, frozenset[str]] = {
    "confirm": frozenset({"confirm_url", "privacy_url"}),
    "booked": frozenset({"call_url", "cancel_url", "change_url", "ics_url", "privacy_url"}),
    "changed": frozenset({"call_url", "cancel_url", "change_url", "ics_url", "privacy_url"}),
    "canceled": frozenset({"booking_url", "privacy_url"}),
    "notice": frozenset({"calls_url", "privacy_url"}),
}

_WORD = re.compile(r"[A-Za-z0-9_-]{1,200}")
_BROKEN = re.compile("[\0-\b\n-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_URLS = re.compile(r"(?:https?://|mailto:)\S+")


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


@dataclass(frozen=True, slots=True)
class Source:
    """One email's own texts, where they stand, and what they may mention."""

    path: str
    subject: str
    preheader: str
    markdown: str
    first_line: int
    names: Names
    service: bool


# -- public ------------------------------------------------------------------------------------------------------------


def compile_step(sources: Sources, site: Site, campaign: Campaign, key: str) -> Skeleton | None:
    """Stage one step. None: its conditions, loops or number of slots ask for `render_step`, once per person.

    Raises ContentError when it cannot be rendered at all.
    """
    source = source_of(sources, site, campaign, key)
    parsed = _parse(source)
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
    parsed = _parse(source)
    marks = _marks(source, sources)
    skeleton = _skeleton(sources, site, campaign, key, source, parsed, marks, _facts(person))
    return _filled(skeleton, _values(skeleton.slots, person, marks.values))


def step_links(sources: Sources, site: Site, campaign: Campaign, key: str) -> tuple[str, ...]:
    """Targets of this step's click links by number, over all branches: what a version stores."""
    source = source_of(sources, site, campaign, key)
    return _targets(source, _parse(source), _marks(source, sources), site)


def service_campaign(sources: Sources, name: str) -> Campaign:
    """The built-in campaign `confirm`, `booking` or `notice`, its subjects from the system emails' front matter."""
    if name not in SERVICE:
        raise NotFoundError(f"no service campaign is named `{name}`; there are {', '.join(SERVICE)}")
    steps = []
    for key in SERVICE[name]:
        path = system_path(key)
        if path not in sources:
            raise ContentError(f"{path} is missing")
        settings, _, _ = front_matter(sources[path], path)
        steps.append(Email(key, key, settings["subject"], settings["preheader"]))
    return Campaign(name, name.capitalize(), "service", "", tuple(steps))


def problems_in(source: Source) -> tuple[Problem, ...]:
    """What is wrong with an email's Jinja, blocks and Markdown, by place. Subject and preheader are read apart."""
    _, found = slots.parse(source.markdown, source.names, source.path, source.first_line)
    _, shape = b.read_document(_blanked(source.markdown), source.path, source.first_line)
    return tuple(sorted((*found, *shape, *_misplaced(source)), key=lambda p: (p.line, p.column)))


# -- sources -----------------------------------------------------------------------------------------------------------


def system_path(key: str) -> str:
    """Where a service email's words stand."""
    return f"{theme.FOLDER}/system/{key}.md"


def source_of(sources: Sources, site: Site, campaign: Campaign, key: str) -> Source:
    """One step's texts and names. NotFoundError when the campaign has no such email, ContentError without its file."""
    email = next((email for email in campaign.emails if email.key == key), None)
    if email is None:
        known = ", ".join(email.key for email in campaign.emails)
        raise NotFoundError(f"{campaign.name} has no email `{key}`; it has {known}")
    service = campaign.kind == "service"
    path = system_path(email.document) if service else f"campaigns/{campaign.name}/{email.document}.md"
    if path not in sources:
        raise ContentError(f"{path} is missing")
    markdown, first_line = sources[path].removeprefix("\ufeff"), 1
    if service:
        _, markdown, first_line = front_matter(sources[path], path)
    return Source(path, email.subject, email.preheader, markdown, first_line, names_of(site, campaign, email), service)


def front_matter(content: str, path: str) -> tuple[dict[str, str], str, int]:
    """Split a system email: its subject and preheader, its Markdown, and the line that starts on."""
    lines = content.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    end = next((n for n, line in enumerate(lines[1:], 1) if line.strip() == "---"), 0)
    if lines[0].strip() != "---" or not end:
        raise ContentError(f"{path}:1:1: this email starts with `---`, its subject and preheader, and `---`")
    settings: dict[str, str] = {}
    for number, line in enumerate(lines[1:end], 2):
        name, colon, value = line.partition(":")
        if not colon or name not in ("subject", "preheader") or not value.strip():
            raise ContentError(f"{path}:{number}:1: write `subject: …` or `preheader: …` here")
        settings[name] = value.strip()
    for name in ("subject", "preheader"):
        if name not in settings:
            raise ContentError(f"{path}:1:1: `{name}:` is missing")
    return settings, "\n".join(lines[end + 1 :]), end + 2


def names_of(site: Site, campaign: Campaign, email: Email) -> Names:
    """What an email of this campaign may mention."""
    clinic = site.clinic
    fixed: dict[str, str | int | Mapping[str, str | int]] = {
        "clinic": {
            "name": clinic.name,
            "short_name": clinic.short_name,
            "legal_name": clinic.legal_name,
            "postal_address": clinic.postal_address,
            "phone": clinic.phone,
            "website": clinic.website,
        },
        "clinic_phone": clinic.phone,
        "call_length": str(site.consultation.length),
        "caller_id": site.consultation.caller_id,
        "step": {"key": email.key},
    }
    fields = ALWAYS_FIELDS | {name for form in site.forms for name, _ in form.asks}
    if campaign.kind == "service":
        extras = SERVICE_EXTRAS.get(email.key, frozenset())
        return Names(fields | extras, _SERVICE_URLS.get(email.key, frozenset()), fixed, extras)
    number, of = part_of(campaign, email.key)
    fixed["series"] = {"n": number, "of": of, "title": campaign.title}
    return Names(fields, _CAMPAIGN_URLS, fixed)


def part_of(campaign: Campaign, key: str) -> tuple[int, int]:
    """Which part of how many this email is."""
    keys = [email.key for email in campaign.emails]
    return keys.index(key) + 1, len(keys)


def _parse(source: Source) -> tuple[slots.Parsed, slots.Parsed, slots.Parsed]:
    """Subject, preheader and body, or ContentError with every problem."""
    if re.search("[\ud800-\udfff]", source.subject + source.preheader + source.markdown):
        raise ContentError(f"{source.path}: this file is not UTF-8")
    for what, line in (("subject", source.subject), ("preheader", source.preheader)):
        if _BROKEN.search(line):
            raise ContentError(f"{source.path}: the {what} holds a line break or a control character (D514)")
    if "\0" in source.markdown:
        raise ContentError(f"{source.path}: there is an invisible character in this file (D514)")
    found: list[Problem] = []
    out: list[slots.Parsed] = []
    for what, content, first in (
        ("subject", source.subject, 1),
        ("preheader", source.preheader, 1),
        ("", source.markdown, source.first_line),
    ):
        parsed, problems = slots.parse(content, source.names, source.path, first)
        found += [
            p if not what else Problem(p.code, p.level, p.path, 1, 1, 1, f"{what}: {p.text}", p.help)
            for p in problems
            if p.level == "error"
        ]
        if parsed is not None:
            out.append(parsed)
    if found or len(out) != 3:
        raise refused(found)
    return out[0], out[1], out[2]


def refused(problems: Iterable[Problem]) -> ContentError:
    """One error that names every problem and its place."""
    lines = []
    for p in problems:
        hint = p.label or p.help
        lines.append(f"{p.path}:{p.line}:{p.column}: {p.text}{f' ({hint})' if hint else ''}")
    return ContentError("\n".join(lines))


def _blanked(markdown: str) -> str:
    """Markdown with Jinja out of the way and every line where it was: for finding problems by line."""
    keep = re.sub(r"\{\{.*?\}\}", lambda m: "Q" + "\n" * m[0].count("\n"), markdown, flags=re.DOTALL)
    return re.sub(r"\{[%#].*?[%#]\}", lambda m: "\n" * m[0].count("\n"), keep, flags=re.DOTALL)


def _misplaced(source: Source) -> list[Problem]:
    """Links that stand among the words, and personal values that stand in a link's address."""
    found: list[Problem] = []
    for number, line in enumerate(source.markdown.split("\n")):
        for expression in re.finditer(r"\{\{-?\s*(.*?)\s*-?\}\}", line):
            at, name = expression.start(), expression[1]
            in_link = re.search(r"(\]\([^)\s]*|->\s+\S*)$", line[:at])
            place = (source.path, source.first_line + number, at + 1, len(expression[0]))
            if name in source.names.urls and not in_link:
                help = f"write [words]({{{{ {name} }}}})"
                found.append(Problem("D202", "error", *place, f"`{name}` is a link, not words", help))
            elif in_link and source.names.personal.intersection(re.findall(r"\w+", name)):
                text = "a link's address cannot hold a personal value"
                found.append(Problem("D302", "error", *place, text, "link to the same page for everybody"))
    return found


def _marks(source: Source, sources: Sources) -> Marks:
    look = [sources.get(path, "") for path in (theme.BASE, theme.BLOCKS, theme.TOKENS)]
    return Marks(slots.salt_of([source.path, source.subject, source.preheader, source.markdown, *look]))


# -- the pipeline ------------------------------------------------------------------------------------------------------


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
    document, problems = b.read_document(slots.flatten(parsed[2], source.names, marks), source.path, source.first_line)
    if problems and not parsed[2].personal_control:
        raise refused(problems_in(source) or problems)
    found: dict[str, None] = {}
    for link in b.links_in(document):
        target = _target(link.target, marks, source.path)
        if target == BOOK or target.startswith(("http://", "https://")):
            found[target] = None
    return tuple(found)


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
    document, problems = b.read_document(markdown, source.path, source.first_line)
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
    frame = _frame(site, campaign, key, source.service, look.tokens, document.title, lines, marks)
    outside = _text_frame(frame, writer)
    words = _URLS.sub(" ", marks.any_word().sub("", "\n".join([*outside[0], *body, *outside[1]])))
    frame = _with_length(frame, site, look.tokens, campaign, key, body, len(words.encode()))
    above, below = _text_frame(frame, writer)
    plain = "\n\n".join(part for part in [*above, *body, *below] if part.strip()) + "\n"
    page = look.html(frame, document.sections, markup.Writer(links.resolve))
    return _sealed(frame.subject, page, plain, marks, targets, source)


def _frame(
    site: Site,
    campaign: Campaign,
    key: str,
    service: bool,
    tokens: theme.Tokens,
    title: b.Line,
    lines: tuple[str, str],
    marks: Marks,
) -> theme.Frame:
    """Everything around the body. `lines`: subject and preheader, with their marks."""
    clinic, words = site.clinic, tokens.words
    host = urlsplit(clinic.website).hostname or clinic.website
    if clinic.safety_note not in tokens.safety:
        raise ContentError(f"{theme.TOKENS}: there is no safety line `{clinic.safety_note}` (D304)")
    safety = _theme_line(tokens.safety[clinic.safety_note], {})
    privacy = _link(words["privacy"], "privacy_url", marks)
    identity = [(b.Text(clinic.legal_name),), (b.Text(clinic.postal_address),), (_telephone(clinic.phone),)]
    facts = {"host": host, "short_name": clinic.short_name}
    subject, preheader = lines
    if service:
        reason = _theme_line(words[f"reason_{campaign.name}"], facts)
        notes: tuple[b.Line, ...] = (safety, reason) if campaign.name != "notice" else (reason,)
        return theme.Frame(
            subject=subject,
            preheader=preheader,
            language=clinic.language,
            short_name=clinic.short_name,
            title=title,
            notes=notes,
            identity=tuple(identity),
            footer=(privacy,),
        )
    number, of = part_of(campaign, key)
    topic = site.topic(campaign.topic)
    date = marks.word("p", "reason_date")
    marks.personal[date] = "reason_date"
    facts |= {"of": str(of), "date": date, "topic": topic.title if topic else campaign.title}
    reason = _theme_line(words["reason_series" if of > 1 else "reason_one"], facts)
    leave = _link(words["leave"], "unsubscribe_url", marks)
    return theme.Frame(
        subject=subject,
        preheader=preheader,
        language=clinic.language,
        short_name=clinic.short_name,
        # The way out stands near the top too: where a long email is cut off, its foot is not seen (rules 6.1).
        masthead=(_link(words["view"], "view_url", marks), leave),
        part=(number, of) if of > 1 else None,
        title=title,
        controls=words["controls"],
        control_links=tuple(_link(words[name], f"{name}_url", marks) for name in ("pause", "fewer", "stop")),
        notes=(_theme_line(words["off_label"], facts), safety, reason),
        identity=tuple(identity),
        footer=(leave, _link(words["preferences"], "preferences_url", marks), privacy),
    )


def _with_length(
    frame: theme.Frame, site: Site, tokens: theme.Tokens, campaign: Campaign, key: str, body: list[str], size: int
) -> theme.Frame:
    """Add the line that says which part this is and how long it takes, and the picture if the words carry it (D407)."""
    if frame.part is None:
        return frame
    number, of = frame.part
    words = len(re.findall(r"\w[\w’'-]*", _URLS.sub(" ", "\n".join(body))))
    minutes = max(1, math.ceil(words / WORDS_PER_MINUTE))
    said = {"n": str(number), "of": str(of), "minutes": str(minutes)}
    line = f"{_put(tokens.words['part'], said)} · {_put(tokens.words['minutes'], said)}"
    art = f"{site.base_url.rstrip('/')}/art/shore-{(number - 1) % theme.ART + 1}.jpg" if size >= theme.ART_BYTES else ""
    return replace(frame, part_line=line, art=art)


def _text_frame(frame: theme.Frame, writer: text.Writer) -> tuple[list[str], list[str]]:
    """What stands above and below the body in the text part: the same words and links as in the HTML."""
    above = [frame.short_name, *(writer.link(link) for link in frame.masthead), frame.part_line]
    above.append(writer.heading(frame.title, "="))
    below = ["-" * text.WRAP]
    if frame.controls:
        below += [text.wrap(frame.controls), *(writer.link(link) for link in frame.control_links), "-" * text.WRAP]
    below += [writer.paragraph(note) for note in frame.notes]
    below.append("\n".join(writer.paragraph(line) for line in frame.identity))
    below += [writer.link(link) for link in frame.footer]
    return above, below


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
    if _BROKEN.search(subject):
        raise ContentError(f"{source.path}: the subject holds a line break or a control character (D514)")
    return Skeleton(subject, page, plain, tuple(kinds.values()), targets)


def _link(words: str, name: str, marks: Marks) -> b.Link:
    word = marks.word("u", name)
    marks.urls[word] = name
    return b.Link((b.Text(words),), word)


def _telephone(phone: str) -> b.Inline:
    digits = re.sub(r"[^\d+]", "", phone)
    if not digits:
        return b.Text(phone)
    return b.Link((b.Text(phone),), f"tel:+1{digits}" if len(digits) == 10 else f"tel:{digits}")


def _put(words: str, facts: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: facts.get(m[1], m[0]), words)


def _theme_line(words: str, facts: Mapping[str, str]) -> b.Line:
    """The theme's own words: Markdown links first, then {names}, so a clinic's name is never read as Markdown."""

    def filled(line: Iterable[b.Inline]) -> b.Line:
        out: list[b.Inline] = []
        for part in line:
            match part:
                case b.Text(text=words):
                    out.append(b.Text(_put(words, facts)))
                case b.Link(of=inner, target=target):
                    out.append(b.Link(filled(inner), target))
                case b.Strong(of=inner):
                    out.append(b.Strong(filled(inner)))
                case b.Emphasis(of=inner):
                    out.append(b.Emphasis(filled(inner)))
                case b.Break():
                    out.append(part)
        return tuple(out)

    return filled(b.read_line(words))


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
    if _BROKEN.search(value):
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
