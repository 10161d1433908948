"""Lint of emails: words, HTML, mail and law. Each email is rendered for five invented people and looked at.

Words are checked where the marketer wrote them, so every finding has a line and a column; what only the finished email
shows is reported at the line that causes it, or at the email's first line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from dripwell.content import wording
from dripwell.content.cage import parse
from dripwell.content.email_source import TAGS, Source, Sources, problems_in, source_of
from dripwell.content.lint_finished import Made, finished
from dripwell.content.lint_site import audience_problems, contrast, placeholders, site_problems, theme_problems
from dripwell.content.lint_staging import as_people_get_it, costs
from dripwell.content.load import Claim
from dripwell.content.places import SITE, Place, at_top, in_order, in_words, of_finding
from dripwell.content.problems import Problem
from dripwell.content.render import BOOK, step_links
from dripwell.content.staging import stage_step
from dripwell.core.campaign import Campaign, Email, Site
from dripwell.core.errors import ContentError

__all__ = ["contrast", "lint_emails"]

MAX_SUBJECT = 60
PREHEADER = (35, 110)
MAX_GRADE = 9.0
GRADE_WORDS = 100  # fewer words say nothing about reading level
SHORTENERS = frozenset({
    "bit.ly", "tinyurl.com", "t.co", "goo.gl", "ow.ly", "is.gd", "buff.ly", "rebrand.ly", "lnkd.in", "cutt.ly", "rb.gy",
    "t.ly", "shorturl.at", "tiny.cc", "s.id", "bl.ink", "soo.gd", "hubs.ly", "mailchi.mp", "sendgrid.net",
})  # fmt: skip


def lint_emails(
    sources: Sources, site: Site, campaign: Campaign, claims: Mapping[str, Claim], *, live: bool = False
) -> tuple[Problem, ...]:
    """Every problem of a campaign's emails, file by file. `live` adds what only a live start refuses: placeholders.

    Never raises for bad content: what cannot be rendered is a problem too.
    """
    found: list[Problem] = []
    found += theme_problems(sources)
    found += site_problems(sources, site)
    found += audience_problems(sources, campaign)
    found += _subjects(sources, site, campaign)
    for email in campaign.emails:
        found += _email(sources, site, campaign, email, claims)
    if live:
        found += placeholders(sources, site, campaign, claims)
    return in_order(found, sources, campaign)


_SURROGATES = re.compile("[\ud800-\udfff]")


def lint_documents(sources: Sources, site: Site, name: str) -> tuple[Problem, ...]:
    """What is wrong inside a campaign's Markdown files when its campaign.yaml cannot be read: all errors in one run.

    Merge fields, blocks and Markdown are judged as in `lint_emails`; what hangs on the order of the steps is not.
    """
    folder = f"campaigns/{name}/"
    stems = sorted(
        path[len(folder) : -3]
        for path, text in sources.items()
        # Bytes that are not UTF-8 stand as lone surrogates; `load` has said so already.
        if path.startswith(folder) and path.endswith(".md") and not _SURROGATES.search(text)
    )
    steps = tuple(Email(stem, stem, "") for stem in stems)
    stand_in = Campaign(name, name, "drip", site.topics[0].name if site.topics else "", steps)
    return tuple(problem for stem in stems for problem in problems_in(source_of(sources, site, stand_in, stem)))


# -- one email ---------------------------------------------------------------------------------------------------------


def _email(
    sources: Sources, site: Site, campaign: Campaign, email: Email, claims: Mapping[str, Claim]
) -> Iterator[Problem]:
    try:
        source = source_of(sources, site, campaign, email.key)
    except ContentError:
        return  # the file is missing: D201, reported where the campaign names it
    shape = problems_in(source)
    yield from shape
    yield from _words(source, site, campaign, claims)
    if any(problem.level == "error" for problem in shape) or _jinja(sources, campaign, source, email):
        return
    try:
        staged = stage_step(sources, site, campaign, email.key)
        made = Made(source, step_links(sources, site, campaign, email.key), as_people_get_it(staged))
        chosen = step_links(sources, replace(site, track_clicks=True), campaign, email.key)
    except (ContentError, ValueError) as error:
        yield _from_error(error, source)
        return
    yield from _chosen_targets(source, site, chosen)
    yield from costs(sources, campaign, source, email, staged)
    yield from finished(sources, site, campaign, made)


def _from_error(error: Exception, source: Source) -> Problem:
    text = str(error).split("\n")[0]
    place = re.match(r"([\w./-]+\.(?:md|j2|yaml))(?::(\d+):(\d+))?: (.*)", text)
    code = re.search(r"\((D\d{3})\)", text)
    if place is None:
        return Problem(code[1] if code else "D101", "error", source.path, source.first_line, 1, 1, text)
    line, column = int(place[2] or 1), int(place[3] or 1)
    said = re.sub(r" \(D\d{3}\)", "", place[4])
    return Problem(code[1] if code else "D101", "error", place[1], line, column, 1, said)


# -- words -------------------------------------------------------------------------------------------------------------


def _words(source: Source, site: Site, campaign: Campaign, claims: Mapping[str, Claim]) -> Iterator[Problem]:
    text = _readable(source.markdown)
    for finding in (*wording.pressing(text), *wording.spam_phrases(text)):
        yield of_finding(source, finding)
    yield from _link_targets(source, site)
    if source.service:
        return
    known = frozenset(name for name, claim in claims.items() if claim.source and claim.reviewed_by)
    said = [claim.says for claim in claims.values()]
    for finding in (*wording.claims_made(text, known, said), *wording.free_without_conditions(text)):
        yield of_finding(source, finding)
    for mark in re.finditer(r"\[\^([\w-]+)\]", text):
        if mark[1] not in known:
            why = "has no source or reviewer" if mark[1] in claims else "is not in claims.yaml"
            help = "claims you have: " + ", ".join(sorted(claims)) if claims else "enter it in claims.yaml"
            yield in_words(source, mark.start(1), mark.end(1), "D307", "error", f"the claim `{mark[1]}` {why}", help)
    risky = wording.needs_risks(text)
    if risky and not re.search(r"^:::+\s*risks\b", text, re.M):
        yield in_words(
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
        yield in_words(
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
        yield in_words(
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

    return TAGS.sub(blank, re.sub(r"<!--.*?-->", blank, markdown, flags=re.S))


def _link_targets(source: Source, site: Site) -> Iterator[Problem]:
    pattern = re.compile(r"\]\(\s*<?([^)\s>]+)|->\s+(\S+)|<((?:https?|mailto):[^>\s]+)>")
    # An address that a condition chooses stands behind the condition; `_chosen_targets` sees it whole.
    behind = re.compile(r"%\}((?:https?|mailto):[^\s{)>]+)")
    for found in (*pattern.finditer(source.markdown), *behind.finditer(source.markdown)):
        group = next(n for n in range(1, 4) if found[n])
        target, start, end = found[group], found.start(group), found.end(group)
        if not re.search(r"\{[{%]", target):
            for code, text, help in _about_target(target, site):
                yield in_words(source, start, end, code, "error", text, help)


def _chosen_targets(source: Source, site: Site, targets: Iterable[str]) -> Iterator[Problem]:
    """Addresses that stand nowhere in one piece, because a condition puts them together."""
    for target in targets:
        if target != BOOK and target not in source.markdown and "{%" in source.markdown:
            for code, text, help in _about_target(target, site):
                yield at_top(source, code, "error", f"{text} ({target})", help)


def _about_target(target: str, site: Site) -> Iterator[tuple[str, str, str]]:
    allowed = {host.lower() for host in site.link_hosts} | {urlsplit(site.base_url).hostname or ""}
    parts = urlsplit(target)
    host = (parts.hostname or "").lower()
    problem = ""
    if parts.scheme == "http":
        problem = "this link is not encrypted"
    elif parts.scheme in ("mailto", "tel", "sms"):
        return
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
        yield "D505", problem, f"hosts you allow: {hosts} (links.allow in {SITE})"
    watched = wording.named((*wording.TREATMENTS, *wording.CONDITIONS))
    if named := watched.search(re.sub(r"[-_/+.=&?%]", " ", f"{parts.path} {parts.query}")):
        text = f"this link's address says “{named[0]}”"
        yield "D302", text, "use an address that names no treatment or condition"


# -- subjects and preheaders -------------------------------------------------------------------------------------------


def _subjects(sources: Sources, site: Site, campaign: Campaign) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for email in campaign.emails:
        for name, content in (("subject", email.subject), ("preheader", email.preheader)):
            place = Place.of(sources, campaign, email, name, content)
            yield from _jinja_in(sources, site, campaign, email, name, content, place)
            yield from _line(site, campaign, name, content, place, email)
        same = email.subject.strip().lower()
        if same in seen and campaign.kind != "service":
            place = Place.of(sources, campaign, email, "subject", email.subject)
            yield place.whole(
                "D314",
                "warning",
                f"`{seen[same]}` has this subject too",
                "mail programs put equal subjects into one thread",
            )
        seen.setdefault(same, email.key)


def _line(site: Site, campaign: Campaign, name: str, content: str, place: Place, email: Email) -> Iterator[Problem]:
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
    plain = re.sub(r"\{\{.*?\}\}", "", TAGS.sub("", content))
    if name == "subject":
        if len(content) > MAX_SUBJECT and "{{" not in content and "{%" not in content:
            text = f"this subject has {len(content)} characters; phones show about {MAX_SUBJECT}"
            yield place.whole("D312", "warning", text, "30 to 55 is best")
        if "!" in plain:
            at = TAGS.sub(lambda tag: " " * len(tag[0]), content).index("!")
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
    elif not low <= len(TAGS.sub("", content)) <= high and campaign.kind != "service":
        text = f"this preheader has {len(content)} characters; {low} to {high} are seen"
        yield place.whole("D313", "warning", text, "phones show it beside the subject")


def _jinja_in(
    sources: Sources, site: Site, campaign: Campaign, email: Email, name: str, content: str, place: Place
) -> Iterator[Problem]:
    try:
        source = source_of(sources, site, campaign, email.key)
    except ContentError:
        return
    for problem in parse(content, source.names, place.path)[1]:
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
        for problem in parse(content, source.names, source.path)[1]
    )
