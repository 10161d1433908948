"""One email as the marketer wrote it: where its texts stand, which names they may mention, and what is wrong with them.

An email of a campaign has its subject in campaign.yaml and its words in a Markdown file; a service email has both in
one system file of the theme. From here on they are the same kind of `Source`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dripwell.content import theme
from dripwell.content.cage import Parsed, parse
from dripwell.content.expressions import Names
from dripwell.content.markdown import read_document
from dripwell.content.problems import Problem
from dripwell.core.campaign import Campaign, Email, Site
from dripwell.core.errors import ContentError, NotFoundError

Sources = Mapping[str, str]

ALWAYS_FIELDS = frozenset({"first_name", "last_name", "state", "email"})
SERVICE: Mapping[str, tuple[str, ...]] = {
    "confirm": ("confirm",),
    "booking": ("booked", "canceled", "changed"),
    "notice": ("notice",),
    "keep": ("keep",),
}
"""The built-in campaigns and their steps; each step's words stand in `templates/email/system/<step>.md`."""

_CALL = frozenset({"call_day", "call_time", "call_zone", "phone", "voicemail_line"})
SERVICE_EXTRAS: Mapping[str, frozenset[str]] = {
    "confirm": frozenset({"topic_title", "topic_about"}),
    "booked": _CALL,
    "changed": _CALL,
    "canceled": frozenset({"call_day", "call_time", "call_zone"}),
    "notice": frozenset(),
    "keep": frozenset(),
}
"""What `Person.extra` must hold for each service email."""

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
    "keep": frozenset({"keep_url", "privacy_url"}),
}

# Each stops where the next one opens: a file of opening braces is read once, and not once for each of them.
_PRINTED = re.compile(r"\{\{(?:(?!\{\{|\}\}).)*\}\}", re.DOTALL)
TAGS = re.compile(r"\{%(?:(?!\{%|%\}).)*%\}|\{#(?:(?!\{#|#\}).)*#\}", re.DOTALL)
LONGEST_TARGET = 1000
BROKEN = re.compile("[\0-\b\n-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


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


# -- where it stands ---------------------------------------------------------------------------------------------------


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


def system_path(key: str) -> str:
    """Where a service email's words stand."""
    return f"{theme.FOLDER}/system/{key}.md"


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


def service_campaign(sources: Sources, name: str) -> Campaign:
    """A built-in campaign (a name in `SERVICE`), its subjects from the system emails' front matter."""
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


# -- what it may mention -----------------------------------------------------------------------------------------------


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


# -- what is wrong with it ---------------------------------------------------------------------------------------------


def parse_source(source: Source) -> tuple[Parsed, Parsed, Parsed]:
    """Subject, preheader and body, or ContentError with every problem."""
    if re.search("[\ud800-\udfff]", source.subject + source.preheader + source.markdown):
        raise ContentError(f"{source.path}: this file is not UTF-8")
    for what, line in (("subject", source.subject), ("preheader", source.preheader)):
        if BROKEN.search(line):
            raise ContentError(f"{source.path}: the {what} holds a line break or a control character (D514)")
    if "\0" in source.markdown:
        raise ContentError(f"{source.path}: there is an invisible character in this file (D514)")
    found: list[Problem] = []
    out: list[Parsed] = []
    for what, content, first in (
        ("subject", source.subject, 1),
        ("preheader", source.preheader, 1),
        ("", source.markdown, source.first_line),
    ):
        parsed, problems = parse(content, source.names, source.path, first)
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


def problems_in(source: Source) -> tuple[Problem, ...]:
    """What is wrong with an email's Jinja, blocks and Markdown, by place. Subject and preheader are read apart."""
    _, found = parse(source.markdown, source.names, source.path, source.first_line)
    _, shape = read_document(_blanked(source.markdown), source.path, source.first_line)
    return tuple(sorted((*found, *shape, *_misplaced(source)), key=lambda p: (p.line, p.column)))


def refused(problems: Iterable[Problem]) -> ContentError:
    """One error that names every problem and its place."""
    lines = []
    for p in problems:
        hint = p.label or p.help
        lines.append(f"{p.path}:{p.line}:{p.column}: {p.text}{f' ({hint})' if hint else ''}")
    return ContentError("\n".join(lines))


def _blanked(markdown: str) -> str:
    """Markdown with Jinja out of the way and every line where it was: for finding problems by line."""
    keep = _PRINTED.sub(lambda m: "Q" + "\n" * m[0].count("\n"), markdown)
    return TAGS.sub(lambda m: "\n" * m[0].count("\n"), keep)


def _misplaced(source: Source) -> list[Problem]:
    """Links that stand among the words, and personal values that stand in a link's address."""
    found: list[Problem] = []
    for number, line in enumerate(source.markdown.split("\n")):
        for expression in _PRINTED.finditer(line):
            at, name = expression.start(), expression[0][2:-2].strip("-").strip()
            in_link = re.search(r"(\]\([^)\s]*|->\s+\S*)$", TAGS.sub("", line[max(at - LONGEST_TARGET, 0) : at]))
            place = (source.path, source.first_line + number, at + 1, len(expression[0]))
            if name in source.names.urls and not in_link:
                help = f"write [words]({{{{ {name} }}}})"
                found.append(Problem("D202", "error", *place, f"`{name}` is a link, not words", help))
            elif in_link and source.names.personal.intersection(re.findall(r"\w+", name)):
                text = "a link's address cannot hold a personal value"
                found.append(Problem("D302", "error", *place, text, "link to the same page for everybody"))
    return found
