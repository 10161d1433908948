"""Invented people for the demo: who they are and what each does with each email follows from the seed alone.

They act over the real pages, as a browser would: they follow the click link, fill the booking forms, press the
unsubscribe button or let the mail program do it.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any, Literal
from urllib.parse import urljoin

import httpx2

FIRST = (
    "Maria", "James", "Aisha", "Noah", "Elena", "Marcus", "Priya", "Daniel", "Sofia", "Andre", "Mei", "Thomas", "Leila",
    "Victor", "Hannah", "Omar", "Grace", "Luis", "Naomi", "Peter", "Yara", "Samuel", "Ines", "Caleb", "",
)  # fmt: skip
LAST = (
    "Alvarez", "Brooks", "Chen", "Diaz", "Edwards", "Farah", "Garcia", "Hughes", "Ito", "Jensen", "Khan", "Lopez",
    "Meyer", "Nguyen", "Okafor", "Patel", "Quinn", "Rossi", "Singh", "Turner",
)  # fmt: skip
ZONES = ("America/Los_Angeles", "America/Los_Angeles", "America/Denver", "America/Chicago", "America/New_York", "")

CLICKS, BOOKS, UNSUBSCRIBES = 0.22, 0.012, 0.010
"""Per email: how likely a person only looks, books a call, or unsubscribes."""
BOUNCING = 0.01
"""Below what would make the breaker of reputation pause the series: five bad addresses among the first ninety."""
Act = Literal["nothing", "click", "book", "unsubscribe", "one-click"]


@dataclass(frozen=True, slots=True)
class Invented:
    """One invented person. The address tag `+bounce` makes the sandbox bounce it."""

    address: str
    first_name: str
    timezone: str


def invent(count: int, seed: int) -> list[Invented]:
    """`count` people; the same for the same seed. One in a hundred has an address that bounces."""
    rng = Random(seed)
    bouncing = set(rng.sample(range(count), round(count * BOUNCING)))
    people = []
    for number in range(count):
        first, last = rng.choice(FIRST), rng.choice(LAST)
        tag = "+bounce" if number in bouncing else ""
        address = f"{(first or 'friend').lower()}.{last.lower()}.{number:04d}{tag}@example.com"
        people.append(Invented(address, first, rng.choice(ZONES)))
    return people


def write_csv(people: Sequence[Invented], path: Path) -> None:
    """Write them as an import file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["email", "first_name", "timezone"])
        writer.writerows([person.address, person.first_name, person.timezone] for person in people)


def act_of(seed: int, address: str, email: int) -> Act:
    """What this person does with the n-th email of the series. Nothing but the inputs decides it."""
    share = int.from_bytes(hashlib.sha256(f"{seed}/{address}/{email}".encode()).digest()[:8]) / 2**64
    if share < UNSUBSCRIBES / 2:
        return "unsubscribe"
    if share < UNSUBSCRIBES:
        return "one-click"
    if share < UNSUBSCRIBES + BOOKS:
        return "book"
    if share < UNSUBSCRIBES + BOOKS + CLICKS:
        return "click"
    return "nothing"


def carry_out(browser: httpx2.Client, act: Act, mail: dict[str, Any], seed: int) -> bool:
    """Do it over the real pages. False: a page was away or did not do what a person expects; try again later."""
    match act:
        case "nothing":
            return True
        case "click":
            return _follow(browser, mail) is not None
        case "book":
            page = _follow(browser, mail)
            return page is not None and _book(browser, page, f"{seed}/{mail['address']}")
        case "unsubscribe":
            link = next(link for link in mail["links"] if "/u/" in link)
            return browser.get(link).status_code == 200 and browser.post(link).status_code == 200
        case "one-click":
            link = str(mail["list_unsubscribe"]).strip("<>")
            return browser.post(link, data={"List-Unsubscribe": "One-Click"}).status_code == 200


def _follow(browser: httpx2.Client, mail: dict[str, Any]) -> httpx2.Response | None:
    link = next(link for link in mail["links"] if "/c/" in link)
    answer = browser.get(link, follow_redirects=False)
    if answer.status_code != 302:
        return None
    page = browser.get(urljoin(link, answer.headers["location"]))
    return page if page.status_code == 200 else None


def _book(browser: httpx2.Client, page: httpx2.Response, seed: str) -> bool:
    """Fill form after form, as a person would, until the page says that the call is booked."""
    chooser = Random(seed)
    for _ in range(6):
        if page.status_code == 200 and "calendar.ics" in page.text:
            return True
        form = Form.first_in(page.text)
        if page.status_code >= 500 or form is None:
            return False
        page = browser.post(urljoin(str(page.url), form.action), data=form.filled(chooser), follow_redirects=True)
    return False


class Form(HTMLParser):
    """The first form of a page: its action, hidden values, radio choices, text fields and boxes to tick."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.hidden: dict[str, str] = {}
        self.radios: dict[str, list[str]] = {}
        self.texts: list[str] = []
        self.boxes: dict[str, str] = {}
        self.button: tuple[str, str] | None = None
        self._inside = self._done = False

    @classmethod
    def first_in(cls, html: str) -> Form | None:
        """Read the page's first form with method POST."""
        form = cls()
        form.feed(html)
        return form if form._done else None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the form asks for."""
        found = {name: value or "" for name, value in attrs}
        if tag == "form" and not self._done and found.get("method", "").lower() == "post":
            self._inside, self.action = True, found.get("action", "")
        if not self._inside or "name" not in found or "form" in found:
            return  # what names another form belongs to that one
        kind = found.get("type", "text")
        if tag == "button":
            self.button = self.button or (found["name"], found.get("value", ""))
        elif kind == "hidden":
            self.hidden[found["name"]] = found.get("value", "")
        elif kind == "radio":
            self.radios.setdefault(found["name"], []).append(found.get("value", ""))
        elif kind == "checkbox":
            self.boxes[found["name"]] = found.get("value", "on")
        else:
            self.texts.append(found["name"])

    def handle_endtag(self, tag: str) -> None:
        """Stop at the end of the form."""
        if tag == "form" and self._inside:
            self._inside, self._done = False, True

    def filled(self, chooser: Random) -> dict[str, str]:
        """Values a person might give: any of the times, an invented number, every box that must be ticked."""
        values = dict(self.hidden) | self.boxes
        for name, options in self.radios.items():
            values[name] = chooser.choice(options)
        for name in self.texts:
            values[name] = f"(555) 010-01{chooser.randrange(100):02}" if re.search("phone|number|tel", name) else "Me"
        if self.button is not None:
            values[self.button[0]] = self.button[1]
        return values
