"""Header values that follow from content: one-click unsubscribing, List-ID, Auto-Submitted (rules 3.1 to 3.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from dripwell.core.campaign import Campaign, Site, Topic
from dripwell.core.errors import ContentError

MAX_URL = 75  # Python's email package encodes longer ones, and Gmail then ignores the header (rules 3.3)

_BROKEN = re.compile(r"[\x00-\x1f\x7f]")


def person_headers(site: Site, words: Mapping[str, str]) -> dict[str, str]:
    """One person's headers of a marketing message. `words`: signed link words by purpose.

    Raises ContentError when the URL is longer than 75 characters, ValueError without a word.
    """
    word = words.get("unsubscribe", "")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", word):
        raise ValueError("there is no signed word for `unsubscribe` links")
    url = unsubscribe_url(site, word)
    if len(url) > MAX_URL:
        raise ContentError(
            f"config/site.yaml: the unsubscribe URL is {len(url)} characters long, {MAX_URL} at most: "
            "choose a shorter links.base_url (D503)"
        )
    return {"List-Unsubscribe": f"<{url}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}


def common_headers(site: Site, campaign: Campaign, topic: Topic | None) -> dict[str, str]:
    """Headers that are the same for everybody: List-ID for a topic's emails, Auto-Submitted for service emails.

    Raises ContentError when one would hold a line break or a character that is not ASCII (D514).
    """
    if campaign.kind == "service" or topic is None:
        return {"Auto-Submitted": "auto-generated"} if campaign.kind == "service" else {}
    host = urlsplit(site.base_url).hostname or ""
    # The topic's name, never its title: a title may name a condition, and this is stored by every server on the way.
    label = re.sub(r"[^a-z0-9-]+", "-", topic.name.lower()).strip("-")
    headers = {"List-ID": f"<{label}.{host}>"}
    for name, value in headers.items():
        if _BROKEN.search(value) or not value.isascii():
            raise ContentError(f"{name} would hold a character that no header may hold (D514)")
    return headers


def unsubscribe_url(site: Site, word: str) -> str:
    """Where one person unsubscribes."""
    return f"{site.base_url.rstrip('/')}/u/{word}"
