"""What people agree to: the very words, their version, and what a form offers besides its own topic."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from dripwell.core.campaign import Form, Site, Topic


@dataclass(frozen=True, slots=True)
class Asked:
    """One topic somebody is asked about, in exactly these words."""

    topic: str
    words: str

    @property
    def version(self) -> str:
        """The version of the words."""
        return version_of(self.words)


def version_of(words: str) -> str:
    """The version of a wording: 12 hex digits that are the same for the same words, and no others."""
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def offer(topic: Topic) -> str:
    """The words beside the box of a further topic: what is shown is what is kept."""
    return f"Email me “{topic.title}” as well. {topic.about}"


def asked_by(form: Form, site: Site, also: frozenset[str] = frozenset()) -> tuple[Asked, ...]:
    """What this form asks: its own topic first, then those of `also` that it offers. Empty: its topic is gone."""
    if site.topic(form.topic) is None:
        return ()
    further = [topic for name in form.also if name in also and (topic := site.topic(name)) is not None]
    return (Asked(form.topic, form.consent), *(Asked(topic.name, offer(topic)) for topic in further))


_BOUGHT = re.compile(
    r"(?<![a-z])(purchased|rented|scraped|harvested|bought (list|addresses|leads)|lead[ _-]?gen(eration)?)(?![a-z])",
    re.IGNORECASE,
)


def bought(source: str) -> str:
    """The word in a source of consent that says the person did not ask the clinic itself; empty: there is none.

    Who was bought, rented, scraped or generated as a lead has not agreed to be mailed by us (rules 1.21).
    """
    found = _BOUGHT.search(source)
    return found[0] if found else ""
