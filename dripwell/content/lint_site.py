"""Lint of what all emails share: the site's senders, links, forms and segments, the theme's colors, placeholders."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from urllib.parse import urlsplit

from dripwell.content import theme, wording
from dripwell.content.email_source import Sources
from dripwell.content.headers import MAX_URL, unsubscribe_url
from dripwell.content.load import Claim
from dripwell.content.places import SEGMENTS, SITE, in_file
from dripwell.content.problems import Problem
from dripwell.content.samples import WORDS
from dripwell.core.campaign import Campaign, Site
from dripwell.core.conditions import Clicked, Condition, FieldIs, Happened, HasTag, leaves
from dripwell.core.errors import ContentError

MIN_CONTRAST = 4.5
_PAIRS = (
    ("text", "card"), ("heading", "card"), ("muted", "card"), ("brand", "card"), ("text", "canvas"),
    ("heading", "canvas"), ("muted", "canvas"), ("text", "callout"), ("heading", "callout"), ("brand", "callout"),
    ("on_brand", "brand"),
)  # fmt: skip
_PLACEHOLDER = re.compile(r"PLACEHOLDER|\bplaceholder\b|\.example\b|\(?\b555\)?[ .-]?\d{3}[ .-]?\d{4}\b", re.I)


# -- the site ----------------------------------------------------------------------------------------------------------


def site_problems(sources: Sources, site: Site) -> Iterator[Problem]:
    """What config/site.yaml and the segments say that no email should carry and no form should ask."""
    watched = wording.sensitive()
    for name in (site.sender.name, site.service_sender.name):
        if named := watched.search(name):
            yield in_file(
                sources, SITE, name, "D302", "error", f"the sender's name says “{named[0]}”", "use the short name"
            )
        if re.search(r"[\x00-\x1f\x7f]", name) or not name.isascii():
            yield in_file(
                sources, SITE, name, "D514", "error", "the sender's name must be plain ASCII", "leave accents out"
            )
    for box in (site.sender, site.service_sender):
        if not box.address.isascii() or re.search(r"[\s\x00-\x1f\x7f]", box.address):
            yield in_file(sources, SITE, box.address, "D514", "error", "the sender's address must be plain ASCII")
    for address in (site.sender.address, site.service_sender.address, site.reply_to):
        if re.match(r"(?:no|do-?not|dont|never)[-_.]?reply\b", address, re.I):
            yield in_file(
                sources, SITE, address, "D504", "error", "nobody reads this address", "write one a person reads"
            )
    if site.sender.address.lower() == site.service_sender.address.lower():
        yield in_file(
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
        yield in_file(
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
        yield in_file(sources, SITE, "base_url", "D503", "error", "links.base_url must start with https://")
    for topic in site.topics:
        if named := watched.search(topic.name.replace("-", " ")):
            yield in_file(
                sources,
                SITE,
                topic.name,
                "D302",
                "error",
                f"the List-ID would say “{named[0]}”",
                "name the topic by its rhythm, not its subject",
            )
    for form in site.forms:
        if named := watched.search(form.name.replace("-", " ")):
            yield in_file(
                sources,
                SITE,
                form.name,
                "D302",
                "error",
                f"the address of its page would say “{named[0]}”",
                "name the form by what comes, not by its subject",
            )
        for field, _ in form.asks:
            if _asks_health(field):
                yield in_file(
                    sources,
                    SITE,
                    field,
                    "D310",
                    "error",
                    f"the form `{form.name}` asks for `{field}`",
                    "no form asks for a diagnosis or condition",
                )
    for declared in (*site.fields, *site.events):
        if _asks_health(declared.name):
            yield in_file(
                sources,
                SITE,
                declared.name,
                "D310",
                "error",
                f"`{declared.name}` is kept of people",
                "nothing that names a condition or diagnosis is stored",
            )
    for segment in site.segments:
        if word := next((one for one in _asked(segment.when) if _asks_health(one)), ""):
            yield in_file(
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


def audience_problems(sources: Sources, campaign: Campaign) -> Iterator[Problem]:
    """D310 in the campaign's own file: its audience is chosen by a condition or diagnosis."""
    if campaign.audience is None:
        return
    if word := next((one for one in _asked(campaign.audience) if _asks_health(one)), ""):
        yield in_file(
            sources,
            f"campaigns/{campaign.name}/campaign.yaml",
            word,
            "D310",
            "error",
            f"the audience uses `{word}`",
            "nobody is chosen by a condition or diagnosis",
        )


def _asked(condition: Condition) -> Iterator[str]:
    """The words of a condition that a person chose: names of fields and their values, tags, events, emails."""
    for leaf in leaves(condition):
        match leaf:
            case FieldIs(name=name, values=values):
                yield name
                yield from (value for value in values if isinstance(value, str))
            case HasTag(tag=word) | Happened(event=word) | Clicked(step=str(word)):
                yield word
            case _:
                pass


FAR = timedelta(days=90)
"""A warm-up that begins later than this is a year mistyped: until then no campaign email goes out at all."""


def far_warm_up(sources: Sources, site: Site, today: date) -> Iterator[Problem]:
    """D205: the warm-up's first day is so far ahead that it can hardly be meant. `today` is in the clinic's zone."""
    if site.warm_up is None or site.warm_up.first_day - today <= FAR:
        return
    days = (site.warm_up.first_day - today).days
    yield in_file(
        sources,
        SITE,
        "first_day:",
        "D205",
        "warning",
        f"the warm-up begins in {days:,} days; until then no campaign email goes out",
        "write the day of the first email",
    )


# -- the theme ---------------------------------------------------------------------------------------------------------


def theme_problems(sources: Sources) -> Iterator[Problem]:
    """D405: colors that cannot be read, in light, dark and forced dark mode; D101 when the theme cannot be read."""
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
                yield in_file(
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


def invented_facts(site: Site) -> list[str]:
    """The facts of the clinic that are still placeholders, in the order of the file, each once."""
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
    return [fact for fact in dict.fromkeys(facts) if _PLACEHOLDER.search(fact)]


def placeholders(sources: Sources, site: Site, campaign: Campaign, claims: Mapping[str, Claim]) -> Iterator[Problem]:
    """D513: invented facts, reviewers and addresses that a live start must not mail."""
    help = "a live start needs the real value"
    for fact in invented_facts(site):
        yield in_file(sources, SITE, fact, "D513", "error", f"`{fact}` is a placeholder", help)
    path = f"campaigns/{campaign.name}/claims.yaml"
    for claim in claims.values():
        if _PLACEHOLDER.search(f"{claim.reviewed_by} {claim.source}"):
            yield in_file(
                sources,
                path,
                f"{claim.name}:",
                "D513",
                "error",
                f"nobody has reviewed the claim `{claim.name}`",
                "a clinician reads it and puts a name here",
            )
    if campaign.approval and _PLACEHOLDER.search(campaign.approval):
        yield in_file(
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
