"""Lint of emails: words, HTML, mail and law. Each email is rendered for five invented people and looked at.

Words are checked where the marketer wrote them, so every finding has a line and a column; what only the finished email
shows is reported at the line that causes it, or at the email's first line.
"""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from dripwell.content import render, slots, theme, wording
from dripwell.content.headers import MAX_URL, unsubscribe_url
from dripwell.content.load import Claim
from dripwell.content.page import Page, read_page
from dripwell.content.problems import Problem
from dripwell.content.render import Person, Rendered, Source, Sources
from dripwell.content.samples import SAMPLES, WORDS
from dripwell.core.campaign import Campaign, Email, Site
from dripwell.core.conditions import All, Any, Condition, FieldIs, HasTag, Not
from dripwell.core.errors import ContentError

Level = Literal["error", "warning"]

SITE = "config/site.yaml"
SEGMENTS = "config/segments.yaml"
MAX_HTML, WARN_HTML = 90_000, 60_000
MAX_SUBJECT = 60
PREHEADER = (35, 110)
MAX_GRADE = 9.0
GRADE_WORDS = 100  # fewer words say nothing about reading level
MIN_BUTTON = 44
MIN_CONTRAST = 4.5
SHORTENERS = frozenset({
    "bit.ly", "tinyurl.com", "t.co", "goo.gl", "ow.ly", "is.gd", "buff.ly", "rebrand.ly", "lnkd.in", "cutt.ly", "rb.gy",
    "t.ly", "shorturl.at", "tiny.cc", "s.id", "bl.ink", "soo.gd", "hubs.ly", "mailchi.mp", "sendgrid.net",
})  # fmt: skip
_PAIRS = (
    ("text", "card"), ("heading", "card"), ("muted", "card"), ("brand", "card"), ("text", "canvas"),
    ("heading", "canvas"), ("muted", "canvas"), ("text", "callout"), ("heading", "callout"), ("brand", "callout"),
    ("on_brand", "brand"),
)  # fmt: skip
_PLACEHOLDER = re.compile(r"PLACEHOLDER|\bplaceholder\b|\.example\b|\(?\b555\)?[ .-]?\d{3}[ .-]?\d{4}\b", re.I)


def lint_emails(
    sources: Sources, site: Site, campaign: Campaign, claims: Mapping[str, Claim], *, live: bool = False
) -> tuple[Problem, ...]:
    """Every problem of a campaign's emails, file by file. `live` adds what only a live start refuses: placeholders.

    Never raises for bad content: what cannot be rendered is a problem too.
    """
    found: list[Problem] = []
    found += _theme(sources)
    found += _site(sources, site)
    found += _subjects(sources, site, campaign)
    for email in campaign.emails:
        found += _email(sources, site, campaign, email, claims)
    if live:
        found += _placeholders(sources, site, campaign, claims)
    return _in_order(found, sources, campaign)


# -- one email ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Made:
    """One email as the five sample people get it."""

    source: Source
    links: tuple[str, ...]
    by_person: Mapping[str, Rendered]


def _email(
    sources: Sources, site: Site, campaign: Campaign, email: Email, claims: Mapping[str, Claim]
) -> Iterator[Problem]:
    try:
        source = render.source_of(sources, site, campaign, email.key)
    except ContentError:
        return  # the file is missing: D201, reported where the campaign names it
    shape = render.problems_in(source)
    yield from shape
    yield from _words(source, site, campaign, claims)
    if any(problem.level == "error" for problem in shape) or _jinja(sources, campaign, source, email):
        return
    try:
        made = _make(sources, site, campaign, email, source)
    except (ContentError, ValueError) as error:
        yield _from_error(error, source)
        return
    yield from _staging(sources, site, campaign, email, source)
    yield from _finished(sources, site, campaign, made)


def _make(sources: Sources, site: Site, campaign: Campaign, email: Email, source: Source) -> _Made:
    skeleton = render.compile_step(sources, site, campaign, email.key)

    def one(person: Person) -> Rendered:
        if skeleton is None:
            return render.render_step(sources, site, campaign, email.key, person)
        return render.fill(skeleton, person)

    links = skeleton.links if skeleton else render.step_links(sources, site, campaign, email.key)
    return _Made(source, links, {name: one(person) for name, person in SAMPLES.items()})


def _from_error(error: Exception, source: Source) -> Problem:
    text = str(error).split("\n")[0]
    place = re.match(r"([\w./-]+\.(?:md|j2|yaml))(?::(\d+):(\d+))?: (.*)", text)
    code = re.search(r"\((D\d{3})\)", text)
    if place is None:
        return Problem(code[1] if code else "D101", "error", source.path, source.first_line, 1, 1, text)
    line, column = int(place[2] or 1), int(place[3] or 1)
    said = re.sub(r" \(D\d{3}\)", "", place[4])
    return Problem(code[1] if code else "D101", "error", place[1], line, column, 1, said)


def _staging(sources: Sources, site: Site, campaign: Campaign, email: Email, source: Source) -> Iterator[Problem]:
    if render.compile_step(sources, site, campaign, email.key) is not None:
        return
    at = re.search(r"\{%-?\s*(?:if|for|set)\b[^%]*%\}", source.markdown)
    text = "this is rendered for each person apart" if at else "this email has too many personal values to be staged"
    note = "One call then carries one message instead of up to 1,000, about 10 ms each."
    yield _at(
        source,
        at.start() if at else 0,
        at.end() if at else 1,
        "D410",
        "warning",
        text,
        "use {{ … or … }} or {{ … if … else … }} if the words allow it",
        note,
    )


# -- words -------------------------------------------------------------------------------------------------------------


def _words(source: Source, site: Site, campaign: Campaign, claims: Mapping[str, Claim]) -> Iterator[Problem]:
    text = _readable(source.markdown)
    for finding in (*wording.pressing(text), *wording.spam_phrases(text)):
        yield _found(source, finding)
    yield from _link_targets(source, site)
    if source.service:
        return
    known = frozenset(name for name, claim in claims.items() if claim.source and claim.reviewed_by)
    said = [claim.says for claim in claims.values()]
    for finding in (*wording.claims_made(text, known, said), *wording.free_without_conditions(text)):
        yield _found(source, finding)
    for mark in re.finditer(r"\[\^([\w-]+)\]", text):
        if mark[1] not in known:
            why = "has no source or reviewer" if mark[1] in claims else "is not in claims.yaml"
            help = "claims you have: " + ", ".join(sorted(claims)) if claims else "enter it in claims.yaml"
            yield _at(source, mark.start(1), mark.end(1), "D307", "error", f"the claim `{mark[1]}` {why}", help)
    risky = wording.needs_risks(text)
    if risky and not re.search(r"^:::+\s*risks\b", text, re.M):
        yield _at(
            source,
            risky.start,
            risky.end,
            "D303",
            "error",
            "this needs the risks beside it",
            "add a `::: risks` block: off-label, and the risks at the length of the benefits",
        )
    buttons = list(re.finditer(r"^:::+\s*(call|button)\b", text, re.M))
    for extra in buttons[1:]:
        yield _at(
            source,
            extra.start(1),
            extra.end(1),
            "D315",
            "warning",
            "this email has a second button",
            "one call to action; turn the other into a link",
        )
    plain = re.sub(r"\[\^[\w-]+\]|^:::.*$|^\w+:.*->.*$|\{\{.*?\}\}|\]\([^)]*\)|[#*_\[]", " ", text, flags=re.M)
    if len(plain.split()) >= GRADE_WORDS and (level := wording.grade(plain)) > MAX_GRADE:
        yield _at(
            source,
            0,
            1,
            "D311",
            "warning",
            f"this reads at school grade {level:.1f}; {MAX_GRADE:.0f} is the aim",
            "shorter sentences, shorter words",
        )


def _readable(markdown: str) -> str:
    """The Markdown with what is not mailed blanked out, every character where it was."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return re.sub(r"<!--.*?-->|\{[%#].*?[%#]\}", blank, markdown, flags=re.S)


def _link_targets(source: Source, site: Site) -> Iterator[Problem]:
    allowed = {host.lower() for host in site.link_hosts} | {urlsplit(site.base_url).hostname or ""}
    watched = wording.named((*wording.TREATMENTS, *wording.CONDITIONS))
    pattern = re.compile(r"\]\(\s*<?([^)\s>]+)|->\s+(\S+)|<((?:https?|mailto):[^>\s]+)>")
    for found in pattern.finditer(source.markdown):
        group = next(n for n in (1, 2, 3) if found[n])
        target, start, end = found[group], found.start(group), found.end(group)
        if "{{" in target:
            continue
        parts = urlsplit(target)
        host = (parts.hostname or "").lower()
        problem = ""
        if parts.scheme == "http":
            problem = "this link is not encrypted"
        elif parts.scheme in ("mailto", "tel", "sms"):
            continue
        elif parts.scheme != "https" or not host:
            problem = "this is no link"
        elif re.fullmatch(r"[\d.]+", host) or ":" in host:
            problem = "this link names a machine by number"
        elif host in SHORTENERS:
            problem = "this is a link shortener"
        elif not any(host == one or host.endswith(f".{one}") for one in allowed):
            problem = f"links may not lead to {host}"
        if problem:
            hosts = ", ".join(sorted(one for one in allowed if one))
            yield _at(source, start, end, "D505", "error", problem, f"hosts you allow: {hosts} (links.allow in {SITE})")
        named = watched.search(re.sub(r"[-_/+.=&?%]", " ", f"{parts.path} {parts.query}"))
        if named:
            yield _at(
                source,
                start,
                end,
                "D302",
                "error",
                f"this link's address says “{named[0]}”",
                "use an address that names no treatment or condition",
            )


# -- subjects and preheaders -------------------------------------------------------------------------------------------


def _subjects(sources: Sources, site: Site, campaign: Campaign) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for email in campaign.emails:
        for name, content in (("subject", email.subject), ("preheader", email.preheader)):
            place = _Place.of(sources, campaign, email, name, content)
            yield from _jinja_in(sources, site, campaign, email, name, content, place)
            yield from _line(site, campaign, name, content, place, email)
        same = email.subject.strip().lower()
        if same in seen and campaign.kind != "service":
            place = _Place.of(sources, campaign, email, "subject", email.subject)
            yield place.whole(
                "D314",
                "warning",
                f"`{seen[same]}` has this subject too",
                "mail programs put equal subjects into one thread",
            )
        seen.setdefault(same, email.key)


def _line(site: Site, campaign: Campaign, name: str, content: str, place: _Place, email: Email) -> Iterator[Problem]:
    if re.search(r"[\x00-\x1f\x7f\u2028\u2029]", content):
        yield place.whole("D514", "error", f"this {name} holds a line break or a control character", "write one line")
    if site.discreet:
        for named in wording.sensitive(site.discreet_words).finditer(content):
            yield place.part(
                named.start(),
                named.end(),
                "D301",
                "warning",
                f"this {name} would show on a lock screen",
                "keep it discreet, e.g. “How a mind makes room for change”",
                f"turn off with `privacy: {{discreet: false}}` in {SITE}",
                "names a treatment or condition",
            )
    for finding in wording.pressing(content):
        yield place.part(finding.start, finding.end, finding.code, "warning", finding.text, finding.help)
    for finding in wording.promised(content):
        yield place.part(finding.start, finding.end, finding.code, "error", finding.text, finding.help)
    plain = re.sub(r"\{\{.*?\}\}", "", content)
    if name == "subject":
        if len(content) > MAX_SUBJECT and "{{" not in content:
            text = f"this subject has {len(content)} characters; phones show about {MAX_SUBJECT}"
            yield place.whole("D312", "warning", text, "30 to 55 is best")
        if "!" in content:
            at = content.index("!")
            yield place.part(at, at + 1, "D312", "warning", "a subject needs no exclamation mark", "say it calmly")
        letters = [c for c in plain if c.isalpha()]
        if len(letters) > 5 and all(c.isupper() for c in letters):
            yield place.whole("D312", "warning", "this subject shouts", "write it in ordinary letters")
        return
    low, high = PREHEADER
    if not content.strip():
        yield place.whole("D313", "warning", "this email has no preheader", f"add one of {low} to {high} characters")
    elif content.strip().lower() == email.subject.strip().lower():
        yield place.whole("D313", "warning", "the preheader repeats the subject", "say what the subject leaves open")
    elif not low <= len(content) <= high and campaign.kind != "service":
        text = f"this preheader has {len(content)} characters; {low} to {high} are seen"
        yield place.whole("D313", "warning", text, "phones show it beside the subject")


def _jinja_in(
    sources: Sources, site: Site, campaign: Campaign, email: Email, name: str, content: str, place: _Place
) -> Iterator[Problem]:
    try:
        source = render.source_of(sources, site, campaign, email.key)
    except ContentError:
        return
    for problem in slots.parse(content, source.names, place.path)[1]:
        start = problem.column - 1
        yield place.part(
            start,
            start + problem.length,
            problem.code,
            problem.level,
            problem.text,
            problem.help,
            problem.note,
            problem.label,
        )


def _jinja(sources: Sources, campaign: Campaign, source: Source, email: Email) -> bool:
    return any(
        problem.level == "error"
        for content in (email.subject, email.preheader)
        for problem in slots.parse(content, source.names, source.path)[1]
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a subject or preheader stands."""

    path: str
    line: int
    column: int  # of the value's first character
    content: str

    @classmethod
    def of(cls, sources: Sources, campaign: Campaign, email: Email, name: str, content: str) -> _Place:
        """Find it in campaign.yaml (or a system email's front matter) by the step's `email:` and this key."""
        if campaign.kind == "service":
            path = render.system_path(email.document)
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


# -- the finished email ------------------------------------------------------------------------------------------------


def _finished(sources: Sources, site: Site, campaign: Campaign, made: _Made) -> Iterator[Problem]:
    source = made.source
    largest = max(len(one.html.encode()) for one in made.by_person.values())
    if largest > MAX_HTML:
        yield _first(
            source, "D401", "error", f"this email is {largest / 1000:.0f} KB; Gmail cuts off at about 100", "shorten it"
        )
    elif largest > WARN_HTML:
        yield _first(
            source, "D402", "warning", f"this email is {largest / 1000:.0f} KB; aim for under 60", "shorten it"
        )
    pages = {name: read_page(one.html) for name, one in made.by_person.items()}
    yield from _parts(source, made.by_person, pages)
    page, one = pages["ordinary"], made.by_person["ordinary"]
    yield from _markup(source, page)
    yield from _law(sources, site, campaign, source, page, one)
    yield from _other_hosts(source, site)


def _parts(source: Source, by_person: Mapping[str, Rendered], pages: Mapping[str, Page]) -> Iterator[Problem]:
    """D403: words and links of both parts."""
    for name, one in by_person.items():
        page = pages[name]
        in_html, in_text = _counted(page.words), _counted(_without_urls(one.text))
        if not in_text:
            yield _first(source, "D403", "error", "the text part is empty")
            return
        if in_html != in_text:
            only = sorted((in_html - in_text) or (in_text - in_html))
            where = "the HTML" if in_html - in_text else "the text part"
            yield _first(
                source,
                "D403",
                "error",
                f"“{only[0]}” stands only in {where} (as {name})",
                "both are written from one source; change the theme so that they say the same",
            )
            return
        links = {a.href for a in page.anchors if a.href.startswith("http")}
        urls = {url.rstrip(".,;)") for url in re.findall(r"https?://\S+", one.text)}
        if links != urls:
            other = sorted(links ^ urls)[0]
            yield _first(source, "D403", "error", f"{other} stands in one part only (as {name})")
            return


def _markup(source: Source, page: Page) -> Iterator[Problem]:
    for image in page.images:
        if "alt" not in image:
            yield _first(
                source, "D404", "warning", "a picture has no alt", 'write alt="" when nothing is lost without it'
            )
        named = wording.sensitive().search(
            re.sub(r"[-_/.]", " ", f"{image.get('alt', '')} {_file(image.get('src', ''))}")
        )
        if named:
            yield _first(
                source, "D302", "error", f"a picture's name or alt says “{named[0]}”", "name it by what it shows"
            )
    if page.images:
        size = len(page.words.encode())
        sentences = len(re.findall(r"[.!?](?:\s|$)", page.words))
        if size < theme.ART_BYTES or sentences < 2 * len(page.images):
            text = f"this email has a picture and {size:,} bytes of words; mail filters want {theme.ART_BYTES:,}"
            yield _first(source, "D407", "warning", text, "more words, or no picture")
    for anchor in page.anchors:
        height = _button_height(anchor.style)
        if height is not None and height < MIN_BUTTON:
            yield _first(source, "D406", "warning", f"the button is {height:.0f} px tall; fingers need {MIN_BUTTON}")
    preheader = _plain(source.preheader)
    allowed = page.hidden[:1] if "{{" in preheader or page.hidden[:1] == [preheader] else []
    for words in page.hidden[len(allowed) :]:
        yield _first(source, "D408", "error", f"“{words[:40]}” is hidden", "show it or leave it out")
    for what in dict.fromkeys(page.forbidden):
        yield _first(source, "D409", "error", f"this email holds {what}, which mail programs do not show")


def _law(
    sources: Sources, site: Site, campaign: Campaign, source: Source, page: Page, one: Rendered
) -> Iterator[Problem]:
    tokens = theme.read_tokens(sources[theme.TOKENS])
    words, text = _plain(page.words), _plain(one.text)
    address = _plain(site.clinic.postal_address)
    if not address or address not in words or address not in text:
        yield _first(source, "D501", "error", "this email has no postal address", f"clinic.postal_address in {SITE}")
    if campaign.name != "notice":
        safety = _plain(re.sub(r"\]\([^)]*\)|\[", "", tokens.safety.get(site.clinic.safety_note, "")))
        if not safety or safety not in words or safety not in text:
            yield _first(source, "D304", "error", "the safety line is missing", f"clinic.safety_note in {SITE}")
    if campaign.kind == "service":
        return
    if _plain(tokens.words["off_label"]) not in words:
        yield _first(source, "D303", "error", "the off-label line is missing", f"`off_label` in {theme.TOKENS}")
    ways_out = {a.href for a in page.anchors if a.href.startswith(f"{site.base_url.rstrip('/')}/u/")}
    if not ways_out or not all(url in one.text for url in ways_out):
        yield _first(source, "D502", "error", "this email has no unsubscribe link")


def _other_hosts(source: Source, site: Site) -> Iterator[Problem]:
    """D505: words that show one host and lead to another."""
    pattern = re.compile(r"\[((?:https?://)?(?:[\w-]+\.)+[a-z]{2,}[^\]]*)\]\((https?://[^)\s]+)\)", re.I)
    for found in pattern.finditer(source.markdown):
        shown = (urlsplit(found[1] if "//" in found[1] else f"https://{found[1]}").hostname or "").lower()
        real = (urlsplit(found[2]).hostname or "").lower()
        if shown and shown != real:
            yield _at(
                source,
                found.start(1),
                found.end(1),
                "D505",
                "error",
                f"this shows {shown} and leads to {real}",
                "write words, not an address",
            )


# -- site and theme ----------------------------------------------------------------------------------------------------


def _site(sources: Sources, site: Site) -> Iterator[Problem]:
    watched = wording.sensitive()
    for name in (site.sender.name, site.service_sender.name):
        if named := watched.search(name):
            yield _in_file(
                sources, SITE, name, "D302", "error", f"the sender's name says “{named[0]}”", "use the short name"
            )
        if re.search(r"[\x00-\x1f\x7f]", name) or not name.isascii():
            yield _in_file(
                sources, SITE, name, "D514", "error", "the sender's name must be plain ASCII", "leave accents out"
            )
    for box in (site.sender, site.service_sender):
        if not box.address.isascii() or re.search(r"[\s\x00-\x1f\x7f]", box.address):
            yield _in_file(sources, SITE, box.address, "D514", "error", "the sender's address must be plain ASCII")
    for address in (site.sender.address, site.service_sender.address, site.reply_to):
        if re.match(r"(?:no|do-?not|dont|never)[-_.]?reply\b", address, re.I):
            yield _in_file(
                sources, SITE, address, "D504", "error", "nobody reads this address", "write one a person reads"
            )
    if site.sender.address.lower() == site.service_sender.address.lower():
        yield _in_file(
            sources,
            SITE,
            "service_from",
            "D504",
            "error",
            "`from` and `service_from` are the same address",
            "confirmations and calls need a sender of their own",
        )
    url = unsubscribe_url(site, WORDS["unsubscribe"])
    if len(url) > MAX_URL:
        yield _in_file(
            sources,
            SITE,
            "base_url",
            "D503",
            "error",
            f"the unsubscribe URL is {len(url)} characters long, {MAX_URL} at most",
            "choose a shorter host",
        )
    parts = urlsplit(site.base_url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        yield _in_file(sources, SITE, "base_url", "D503", "error", "links.base_url must start with https://")
    for topic in site.topics:
        if named := watched.search(topic.name.replace("-", " ")):
            yield _in_file(
                sources,
                SITE,
                topic.name,
                "D302",
                "error",
                f"the List-ID would say “{named[0]}”",
                "name the topic by its rhythm, not its subject",
            )
    for form in site.forms:
        for field, _ in form.asks:
            if _asks_health(field):
                yield _in_file(
                    sources,
                    SITE,
                    field,
                    "D310",
                    "error",
                    f"the form `{form.name}` asks for `{field}`",
                    "no form asks for a diagnosis or condition",
                )
    for segment in site.segments:
        if word := next((one for one in _asked(segment.when) if _asks_health(one)), ""):
            yield _in_file(
                sources,
                SEGMENTS,
                word,
                "D310",
                "error",
                f"the segment `{segment.name}` uses `{word}`",
                "no segment is built on a condition or diagnosis",
            )


def _asks_health(name: str) -> bool:
    words = re.sub(r"[-_/.]", " ", name)
    return bool(
        wording.sensitive(("condition", "conditions", "medicine", "medicines", "illness", "disease")).search(words)
    )


def _asked(condition: Condition) -> Iterator[str]:
    match condition:
        case All(of=parts) | Any(of=parts):
            for part in parts:
                yield from _asked(part)
        case Not(of=part):
            yield from _asked(part)
        case FieldIs(name=name, values=values):
            yield name
            yield from (value for value in values if isinstance(value, str))
        case HasTag(tag=tag):
            yield tag
        case _:
            pass


def _theme(sources: Sources) -> Iterator[Problem]:
    try:
        tokens = theme.theme_of(sources).tokens
    except ContentError as error:
        yield Problem("D101", "error", theme.BASE, 1, 1, 1, str(error).split("\n")[0])
        return
    seen: set[tuple[str, str, str]] = set()
    forced = {name: _inverted(value) for name, value in tokens.light.items() if value.startswith("#")}
    for look, colors in (("light", tokens.light), ("dark", tokens.dark), ("forced dark", forced)):
        for front, back in _PAIRS:
            ratio = contrast(colors[front], colors[back])
            if ratio < MIN_CONTRAST and (look, front, back) not in seen:
                seen.add((look, front, back))
                yield _in_file(
                    sources,
                    theme.TOKENS,
                    f"{front}:",
                    "D405",
                    "warning",
                    f"{front} on {back} has contrast {ratio:.1f} in {look}, {MIN_CONTRAST} is needed",
                )


def contrast(one: str, other: str) -> float:
    """The contrast of two colors by WCAG 2, from 1 to 21."""
    a, c = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (a + 0.05) / (c + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _inverted(color: str) -> str:
    """What a mail program that forces dark mode makes of a color: its lightness turned around."""
    hue, light, saturation = colorsys.rgb_to_hls(*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)))
    return "#" + "".join(f"{round(part * 255):02X}" for part in colorsys.hls_to_rgb(hue, 1 - light, saturation))


# -- placeholders ------------------------------------------------------------------------------------------------------


def _placeholders(sources: Sources, site: Site, campaign: Campaign, claims: Mapping[str, Claim]) -> Iterator[Problem]:
    clinic = site.clinic
    facts = (
        clinic.legal_name,
        clinic.postal_address,
        clinic.phone,
        clinic.website,
        site.sender.address,
        site.service_sender.address,
        site.reply_to,
        site.base_url,
        site.consultation.caller_id,
        site.consultation.notify,
        *site.link_hosts,
    )
    help = "a live start needs the real value"
    for fact in dict.fromkeys(facts):
        if _PLACEHOLDER.search(fact):
            yield _in_file(sources, SITE, fact, "D513", "error", f"`{fact}` is a placeholder", help)
    path = f"campaigns/{campaign.name}/claims.yaml"
    for claim in claims.values():
        if _PLACEHOLDER.search(f"{claim.reviewed_by} {claim.source}"):
            yield _in_file(
                sources,
                path,
                f"{claim.name}:",
                "D513",
                "error",
                f"nobody has reviewed the claim `{claim.name}`",
                "a clinician reads it and puts a name here",
            )
    if campaign.approval and _PLACEHOLDER.search(campaign.approval):
        yield _in_file(
            sources,
            f"campaigns/{campaign.name}/campaign.yaml",
            campaign.approval,
            "D513",
            "error",
            f"`{campaign.approval}` is a placeholder",
            help,
        )
    for email in campaign.emails:
        document = f"campaigns/{campaign.name}/{email.document}.md"
        for number, line in enumerate(sources.get(document, "").split("\n"), 1):
            for found in _PLACEHOLDER.finditer(line):
                length = found.end() - found.start()
                yield Problem(
                    "D513", "error", document, number, found.start() + 1, length, "this is a placeholder", help
                )


# -- places ------------------------------------------------------------------------------------------------------------


def _at(
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


def _found(source: Source, finding: wording.Finding) -> Problem:
    level: Level = "error" if finding.level == "error" else "warning"
    return _at(source, finding.start, finding.end, finding.code, level, finding.text, finding.help)


def _first(source: Source, code: str, level: Level, text: str, help: str = "") -> Problem:
    first = source.markdown.split("\n", 1)[0]
    return Problem(code, level, source.path, source.first_line, 1, max(len(first), 1), text, help)


def _in_file(sources: Sources, path: str, needle: str, code: str, level: Level, text: str, help: str = "") -> Problem:
    """A problem about the first place where `needle` stands in a file."""
    content = sources.get(path, "")
    at = content.find(needle)
    if at < 0:
        return Problem(code, level, path, 1, 1, 1, text, help)
    line = content.count("\n", 0, at)
    column = at - (content.rfind("\n", 0, at) + 1) + 1
    return Problem(code, level, path, line + 1, column, max(len(needle.split("\n")[0]), 1), text, help)


def _in_order(found: Iterable[Problem], sources: Sources, campaign: Campaign) -> tuple[Problem, ...]:
    order = {SITE: 0, SEGMENTS: 1, f"campaigns/{campaign.name}/campaign.yaml": 2}
    for number, email in enumerate(campaign.emails, 10):
        order.setdefault(f"campaigns/{campaign.name}/{email.document}.md", number)
    unique = dict.fromkeys(found)
    return tuple(sorted(unique, key=lambda p: (order.get(p.path, 9), p.path, p.line, p.column, p.code)))


# -- words -------------------------------------------------------------------------------------------------------------


def _counted(words: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", words.lower()))


def _without_urls(text: str) -> str:
    return re.sub(r"(?:https?://|mailto:)\S+", " ", text)


def _plain(words: str) -> str:
    return " ".join(words.split())


def _file(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def _button_height(style: str) -> float | None:
    """The height of a link that looks like a button: MJML gives it padding and a background."""
    if "background" not in style or "display:inline-block" not in style.replace(" ", ""):
        return None
    line = re.search(r"line-height:\s*([\d.]+)px", style)
    padding = re.search(r"(?:^|;)\s*padding:\s*([\d.]+)px(?:\s+[\d.]+px)?(?:\s+([\d.]+)px)?", style)
    if line is None or padding is None:
        return None
    top = float(padding[1])
    return float(line[1]) + top + float(padding[2] or top)
