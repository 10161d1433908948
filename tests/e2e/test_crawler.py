"""Scanners fetch every link of every email, and of every page behind it, with GET and HEAD and scripts on."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urldefrag, urlencode, urljoin, urlsplit

import httpx2
import pytest
from playwright.sync_api import Browser, Request

from tests.e2e.living import House


class _Links(HTMLParser):
    """Everything on a page that a GET could be made of: links, resources and forms with method GET."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._action: str | None = None
        self._fields: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.found += [given[name] for name in ("href", "src") if given.get(name)]
        if tag == "form" and given.get("method", "get").lower() == "get":
            self._action, self._fields = given.get("action", ""), []
        if tag in ("input", "button", "select", "textarea") and self._action is not None and given.get("name"):
            self._fields.append((given["name"], given.get("value", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form" and self._action is not None:
            self.found.append(f"{self._action}?{urlencode(self._fields)}")
            self._action = None


@dataclass
class Crawl:
    """What was fetched, and what a browser asked for by itself on the way."""

    origin: str
    seen: set[str] = field(default_factory=set)
    pages: list[str] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def scan(self, browser: Browser, roots: set[str]) -> None:
        """Follow everything from `roots` on, on this origin alone: first HEAD, then GET, then a browser."""
        todo = sorted(roots)
        context = browser.new_context()
        context.route(lambda url: not url.startswith(self.origin), lambda route: route.abort())
        page = context.new_page()
        page.on("request", self._note)
        with httpx2.Client() as scanner:
            while todo:
                address = urldefrag(todo.pop(0)).url
                if address in self.seen or not address.startswith(self.origin + "/"):
                    continue
                self.seen.add(address)
                head, got = scanner.head(address), scanner.get(address)
                assert head.status_code == got.status_code, address
                assert got.status_code in (200, 204, 302, 303, 404, 410), address
                found = [got.headers["location"]] if "location" in got.headers else []
                if got.headers.get("content-type", "").startswith("text/html"):
                    parser = _Links()
                    parser.feed(got.text)
                    found += parser.found
                    page.goto(address, wait_until="load")
                    self.pages.append(address)
                todo += [urljoin(address, link) for link in found]
        context.close()

    def _note(self, request: Request) -> None:
        self.asked.append((request.method, request.url))


def _book(house: House, address: str) -> None:
    """Book a call from this person's newest email, as its page would."""
    booking = house.booking(address)
    with httpx2.Client() as visitor:
        page = visitor.get(booking).text
        (start, *_) = re.findall(r'name="t" value="(\d+)"', page)
        sheet = {"step": "book", "t": start, "phone": "(555) 010-0199", "ask_for": "Zoe", "consent": "yes"}
        assert visitor.post(booking, data=sheet).status_code == 303


@pytest.fixture(scope="module")
def inhabited(living_house: House) -> House:
    """A house with people in every situation that has pages of its own."""
    house = living_house
    everybody = [f"{name}@crawl.example" for name in ("mailed", "booked", "paused", "left")]
    for address in everybody:
        house.person(address)
    house.ask("asked@crawl.example")
    house.later(days=4)
    for address in everybody:
        house.mail(address)
    _book(house, "booked@crawl.example")
    with httpx2.Client() as visitor:
        paused, left = house.link("paused@crawl.example", "p"), house.link("left@crawl.example", "u")
        (until,) = set(re.findall(r'name="until" value="([-\d]+)"', visitor.get(paused).text))
        wish = {"do": "save", "topic": "seven-part-series", "pace": "pause", "until": until}
        assert "Saved" in visitor.post(paused.partition("?")[0], data=wish).text
        assert visitor.post(left, data={}).status_code == 200
    house.later(hours=1)
    return house


def test_every_link_of_every_email_and_page_fetched_with_get_and_head_changes_nothing(
    inhabited: House, browser: Browser
) -> None:
    house = inhabited
    roots = {f"{house.url}{path}" for path in house.doors()}
    for mail in [mail for mail in house.mails() if mail["address"].endswith("@crawl.example")]:
        roots |= {*mail["links"], str(mail["list_unsubscribe"] or "").strip("<>")}
    house.settled()
    before = house.tables("click")
    for name in ("consent", "suppression", "enrollment", "subscriber", "booking", "message"):
        assert before[name], f"nobody is in {name}: the crawl would prove nothing"
    crawl = Crawl(house.url)
    crawl.scan(browser, roots)
    after = house.tables("click")
    assert {name: Counter(after[name]) - Counter(before[name]) for name in before if after[name] != before[name]} == {}
    assert {method for method, _ in crawl.asked} == {"GET"}
    doors = {urlsplit(address).path.split("/")[1] for address in crawl.seen}
    assert {"u", "p", "c", "b", "k", "v", "s", "privacy"} <= doors
    assert any(address.endswith("/data") for address in crawl.pages)
    assert any(address.endswith("/erase") for address in crawl.pages)
    assert any("/b/call/" in address for address in crawl.pages)
