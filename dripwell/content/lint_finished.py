"""Lint of finished emails: size, both parts, pictures, buttons, hidden words, and what the law wants in each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from dripwell.content import theme, wording
from dripwell.content.email_source import Source, Sources
from dripwell.content.page import Page, read_page
from dripwell.content.places import SITE, at_top, in_words
from dripwell.content.problems import Problem
from dripwell.content.render import Rendered
from dripwell.core.campaign import Campaign, Site

MAX_HTML, WARN_HTML = 90_000, 60_000
MIN_BUTTON = 44


@dataclass(frozen=True, slots=True)
class Made:
    """One email as the sample people get it, and somebody for each variant that none of them gets."""

    source: Source
    links: tuple[str, ...]
    by_person: Mapping[str, Rendered]


def finished(sources: Sources, site: Site, campaign: Campaign, made: Made) -> Iterator[Problem]:
    """What only the rendered email shows. Size and parts are checked for every sample person, the rest for one."""
    source = made.source
    largest = max(len(one.html.encode()) for one in made.by_person.values())
    if largest > MAX_HTML:
        yield at_top(
            source, "D401", "error", f"this email is {largest / 1000:.0f} KB; Gmail cuts off at about 100", "shorten it"
        )
    elif largest > WARN_HTML:
        yield at_top(
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
            yield at_top(source, "D403", "error", "the text part is empty")
            return
        if in_html != in_text:
            only = sorted((in_html - in_text) or (in_text - in_html))
            where = "the HTML" if in_html - in_text else "the text part"
            yield at_top(
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
            yield at_top(source, "D403", "error", f"{other} stands in one part only (as {name})")
            return


def _markup(source: Source, page: Page) -> Iterator[Problem]:
    for image in page.images:
        if "alt" not in image:
            yield at_top(
                source, "D404", "warning", "a picture has no alt", 'write alt="" when nothing is lost without it'
            )
        named = wording.sensitive().search(
            re.sub(r"[-_/.]", " ", f"{image.get('alt', '')} {_file(image.get('src', ''))}")
        )
        if named:
            yield at_top(
                source, "D302", "error", f"a picture's name or alt says “{named[0]}”", "name it by what it shows"
            )
    if page.images:
        size = len(page.words.encode())
        sentences = len(re.findall(r"[.!?](?:\s|$)", page.words))
        if size < theme.ART_BYTES or sentences < 2 * len(page.images):
            text = f"this email has a picture and {size:,} bytes of words; mail filters want {theme.ART_BYTES:,}"
            yield at_top(source, "D407", "warning", text, "more words, or no picture")
    for anchor in page.anchors:
        height = _button_height(anchor.style)
        if height is not None and height < MIN_BUTTON:
            yield at_top(source, "D406", "warning", f"the button is {height:.0f} px tall; fingers need {MIN_BUTTON}")
    preheader = _plain(source.preheader)
    filled = "{{" in preheader or "{%" in preheader
    allowed = page.hidden[:1] if filled or page.hidden[:1] == [preheader] else []
    for words in page.hidden[len(allowed) :]:
        yield at_top(source, "D408", "error", f"“{words[:40]}” is hidden", "show it or leave it out")
    for what in dict.fromkeys(page.forbidden):
        yield at_top(source, "D409", "error", f"this email holds {what}, which mail programs do not show")


def _law(
    sources: Sources, site: Site, campaign: Campaign, source: Source, page: Page, one: Rendered
) -> Iterator[Problem]:
    tokens = theme.read_tokens(sources[theme.TOKENS])
    words, text = _plain(page.words), _plain(one.text)
    address = _plain(site.clinic.postal_address)
    if not address or address not in words or address not in text:
        yield at_top(source, "D501", "error", "this email has no postal address", f"clinic.postal_address in {SITE}")
    if campaign.name != "notice":
        safety = _plain(re.sub(r"\]\([^)]*\)|\[", "", tokens.safety.get(site.clinic.safety_note, "")))
        if not safety or safety not in words or safety not in text:
            yield at_top(source, "D304", "error", "the safety line is missing", f"clinic.safety_note in {SITE}")
    if campaign.kind == "service":
        return
    if _plain(tokens.words["off_label"]) not in words:
        yield at_top(source, "D303", "error", "the off-label line is missing", f"`off_label` in {theme.TOKENS}")
    ways_out = {a.href for a in page.anchors if a.href.startswith(f"{site.base_url.rstrip('/')}/u/")}
    if not ways_out or not all(url in one.text for url in ways_out):
        yield at_top(source, "D502", "error", "this email has no unsubscribe link")


def _other_hosts(source: Source, site: Site) -> Iterator[Problem]:
    """D505: words that show one host and lead to another."""
    pattern = re.compile(r"\[((?:https?://)?(?:[\w-]+\.)+[a-z]{2,}[^\]]*)\]\((https?://[^)\s]+)\)", re.I)
    for found in pattern.finditer(source.markdown):
        shown = (urlsplit(found[1] if "//" in found[1] else f"https://{found[1]}").hostname or "").lower()
        real = (urlsplit(found[2]).hostname or "").lower()
        if shown and shown != real:
            yield in_words(
                source,
                found.start(1),
                found.end(1),
                "D505",
                "error",
                f"this shows {shown} and leads to {real}",
                "write words, not an address",
            )


# -- looking at words and styles ---------------------------------------------------------------------------------------


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
