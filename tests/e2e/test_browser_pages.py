"""Every page a subscriber can come to, in a real browser: readable by everybody, light, and as narrow as a phone."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import timedelta

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page

from dripwell.core.tokens import Purpose, sign
from dripwell.storage import clock
from dripwell.web.look import STYLE
from tests.e2e.living import House

RULES = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"],
    },
    "resultTypes": ["violations"],
}
HEAVIEST = 15_000
PHONE, NARROW, DESK = (375, 800), (320, 640), (1200, 900)

_AXE = "rules => axe.run(document, rules)"
_WIDER = "() => Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - window.innerWidth"
_TEXT_SIZE = "size => { document.documentElement.style.fontSize = size }"
# Everything that can be pressed, except links inside a sentence (WCAG 2.5.8 leaves those out).
_SMALL = """() => [...document.querySelectorAll('button, input, select, textarea, summary, a.btn, a.link')]
  .filter(one => one.type !== 'hidden' && one.tabIndex >= 0)
  .map(one => [(one.innerText || one.name).trim(), (one.closest('label') || one).getBoundingClientRect()])
  .filter(([, box]) => box.height < 44 || box.width < 44).map(([name, box]) => `${name} ${box.width}x${box.height}`)"""


class Inspector:
    """Looks at whatever the page shows and keeps what is wrong, so that one run names everything."""

    def __init__(self, page: Page, url: str) -> None:
        """`page` is looked at where it stands; it is never loaded again, so the answer to a POST stays."""
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        self.looked: list[str] = []

    def open(self, path: str, name: str) -> None:
        """Open a page and look at it."""
        self.page.goto(path if path.startswith("http") else self.url + path)
        self.look(name)

    def press(self, button: str, name: str) -> None:
        """Press a button and look at what comes."""
        self.page.get_by_role("button", name=button).first.click()
        self.look(name)

    def look(self, name: str) -> None:
        """Axe in light and dark on a phone and a desk; no scrolling sideways; targets for thumbs; the weight."""
        page = self.page
        self.looked.append(page.locator("h1").inner_text())
        page.evaluate(AXE_SCRIPT)
        for width, height in (DESK, PHONE):
            page.set_viewport_size({"width": width, "height": height})
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                for found in page.evaluate(_AXE, RULES)["violations"]:
                    targets = [" ".join(map(str, node["target"])) for node in found["nodes"]]
                    self.wrong.append(f"{name}, {scheme} at {width}: {found['id']} ({found['help']}): {targets}")
        self.wrong += [f"{name}: too small for a thumb: {one}" for one in page.evaluate(_SMALL)]
        for (width, height), size in ((PHONE, "34px"), (NARROW, "")):
            page.set_viewport_size({"width": width, "height": height})
            page.evaluate(_TEXT_SIZE, size)
            if (over := page.evaluate(_WIDER)) > 0:
                self.wrong.append(f"{name}: {over} px too wide at {width} px with text of {size or '17px'}")
        weight = len(gzip.compress(page.content().encode())) + len(gzip.compress(STYLE))
        if weight >= HEAVIEST:
            self.wrong.append(f"{name}: {weight} bytes")
        if page.evaluate("document.scripts.length"):
            self.wrong.append(f"{name}: has a script")


@pytest.fixture
def inspector(living_house: House, browser: Browser) -> Iterator[Inspector]:
    context = browser.new_context()
    context.set_default_timeout(10_000)
    yield Inspector(context.new_page(), living_house.url)
    context.close()


@pytest.fixture(scope="module")
def mailed(living_house: House) -> House:
    """A house in which these people have their first email."""
    for name in ("chooses", "leaves", "books", "erases"):
        living_house.person(f"{name}@pages.example")
    living_house.ask("confirms@pages.example")
    living_house.later(days=4)
    return living_house


def test_signing_up_and_confirming(mailed: House, inspector: Inspector) -> None:
    inspector.open("/s/series-request", "sign-up")
    inspector.page.get_by_label("Your email address").press_sequentially("signs-up@pages.example", delay=140)
    inspector.page.locator("form").evaluate("one => { one.noValidate = true }")
    inspector.press("Send me the confirmation", "sign-up, not agreed")
    inspector.page.get_by_role("checkbox").first.check()
    inspector.press("Send me the confirmation", "asked")
    assert inspector.looked[-1] == "Check your email"
    inspector.open("/k", "a fresh link")
    inspector.open("/k/x", "half a confirmation link")
    inspector.open(mailed.link("confirms@pages.example", "k"), "confirm")
    inspector.press("Yes, email me", "confirmed")
    inspector.open("/privacy", "privacy")
    assert inspector.wrong == []


def test_preferences_in_every_state(mailed: House, inspector: Inspector) -> None:
    link, page = mailed.link("chooses@pages.example", "p"), inspector.page
    inspector.open(link, "preferences")
    page.set_viewport_size({"width": 375, "height": 800})
    weights = page.locator(".btn").evaluate_all(
        "all => all.map(one => { const s = getComputedStyle(one), b = one.getBoundingClientRect();"
        " return [s.fontSize, s.fontWeight, s.color, s.backgroundColor, s.borderColor, b.height].join() })"
    )
    assert len(weights) == 3  # Save, Stop this series, Unsubscribe from everything
    assert len(set(weights)) == 1, "leaving weighs as much as staying"
    for show in ("pause", "fewer", "stop"):
        inspector.open(f"{link.partition('?')[0]}?show={show}", f"preferences, {show}")
    page.get_by_label("Pause everything").check()
    page.get_by_label("Pause until").evaluate("one => { one.min = ''; one.value = '2020-01-01' }")
    inspector.press("Save", "preferences, a day that is past")
    assert page.get_by_role("alert").inner_text() == "Choose a day after today, at most six months ahead."
    page.goto(link)
    page.get_by_label("Pause everything").check()
    inspector.press("Save", "preferences, paused")
    inspector.press("Resume now", "preferences, resumed")
    inspector.press("Stop this series", "preferences, stopped")
    assert inspector.wrong == []


def test_leaving_and_coming_back(mailed: House, inspector: Inspector) -> None:
    link = mailed.link("leaves@pages.example", "u")
    inspector.open(link, "unsubscribe")
    inspector.press("Unsubscribe", "unsubscribed")
    inspector.press("Send", "thanks")
    inspector.open(mailed.link("leaves@pages.example", "p"), "preferences of somebody who left")
    inspector.page.goto(link)
    inspector.page.get_by_role("button", name="Unsubscribe").click()
    inspector.press("Undo", "undone")
    assert inspector.wrong == []


def test_ones_own_data_and_erasing_it(mailed: House, inspector: Inspector) -> None:
    link = mailed.link("erases@pages.example", "p").partition("?")[0]
    inspector.open(f"{link}/data", "my data")
    inspector.open(f"{link}/erase", "erase?")
    inspector.press("Erase my data", "erased")
    inspector.open(link, "preferences of somebody who was erased")
    assert inspector.looked[-2:] == ["Your data is erased", "There is nothing here any more"]
    assert inspector.wrong == []


def test_booking_a_call(mailed: House, inspector: Inspector) -> None:
    page, link = inspector.page, mailed.booking("books@pages.example")
    inspector.open(link, "times")
    inspector.press("Continue", "times, none chosen")
    page.locator("input[name=t]").first.check(force=True)
    inspector.press("Continue", "details")
    inspector.press("Continue", "details, with what is missing")
    page.get_by_label("Phone").fill("(555) 010-0199")
    page.locator("input[name=ask_for]").fill("Books")
    page.locator("input[name=consent]").check()
    inspector.press("Continue", "check")
    inspector.press("Book", "booked")
    inspector.open(link, "already booked")
    assert inspector.wrong == []


def test_links_that_lead_nowhere_and_the_question_whether_to_go_on(mailed: House, inspector: Inspector) -> None:
    installation = mailed.installation
    ((message,),) = mailed.query(
        "SELECT min(m.id) FROM message m JOIN subscriber s ON s.id = m.subscriber_id WHERE s.address = :address",
        address="chooses@pages.example",
    )
    with installation.database.transaction() as connection:
        wall = clock.read(connection).wall_now
    old = sign(installation.keys, Purpose.PREFERENCES, message, wall - timedelta(days=31))
    inspector.open(f"/p/{old}", "an old link")
    inspector.open("/p/x", "half a link")
    inspector.open("/nothing", "no page")
    assert inspector.looked == ["This link has expired", "This link is not complete", "There is no such page"]
    question = f"/q/{sign(installation.keys, Purpose.KEEP, message, wall)}"
    inspector.open(question, "a question that nobody asked")
    mailed.query(
        "INSERT INTO quiet_question (subscriber_id, asked_at)"
        " SELECT subscriber_id, now() FROM message WHERE id = :id RETURNING 1",
        id=message,
    )
    inspector.open(question, "a question that waits")
    inspector.press("Yes, keep me", "an answer")
    assert inspector.wrong == []
