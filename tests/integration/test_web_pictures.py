"""The public pages in a real browser: narrow, dark, and with targets that a thumb can hit."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from dripwell.bootstrap import Installation
from dripwell.core.tokens import Purpose
from dripwell.web.app import create_app
from tests.integration.conftest import Mailed

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium on this machine")

# Everything that can be pressed, except links inside a sentence (WCAG 2.5.8 leaves those out).
SMALL_TARGETS = """() => [...document.querySelectorAll('button, input, select, textarea, a.btn, a.link')]
  .filter(one => one.type !== 'hidden')
  .map(one => ({text: (one.innerText || one.name).trim(), box: (one.closest('label') || one).getBoundingClientRect()}))
  .filter(({box}) => box.height < 44 || box.width < 44).map(({text, box}) => `${text} ${box.width}x${box.height}`)"""
UNNAMED = """() => [...document.querySelectorAll('input:not([type=hidden]), select, textarea')]
  .filter(one => !one.labels || !one.labels.length || !one.labels[0].innerText.trim()).map(one => one.name)"""
TOO_FAINT = """() => {
  const read = color => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const f = v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 };
    return .2126 * f(r) + .7152 * f(g) + .0722 * f(b) };
  const behind = one => { for (; one; one = one.parentElement) { const c = read(getComputedStyle(one).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c } return [255, 255, 255] };
  const found = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
    if (!own || one.closest('.sr')) continue;
    const style = getComputedStyle(one), a = light(read(style.color)), b = light(behind(one));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.push(`${own.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return found }"""


@pytest.fixture
def address(installation: Installation) -> Iterator[str]:
    """The pages, served on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(installation), port=port, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def _look(page: Page, name: str, problems: list[str]) -> None:
    """Judge what stands on the page now; keep a picture when DRIPWELL_PICTURES names a folder."""
    if folder := os.environ.get("DRIPWELL_PICTURES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)
    width = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    if width[0] > width[1]:
        problems.append(f"{name}: scrolls sideways, {width}")
    problems += [f"{name}: small target {target}" for target in page.evaluate(SMALL_TARGETS)]
    problems += [f"{name}: no label for {field}" for field in page.evaluate(UNNAMED)]
    problems += [f"{name}: faint text {text}" for text in page.evaluate(TOO_FAINT)]
    if page.locator("h1").count() != 1:
        problems.append(f"{name}: {page.locator('h1').count()} first headings")


@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (375, "dark"), (320, "light")])
def test_every_page_fits_is_readable_and_can_be_pressed(
    address: str, browser: Browser, mailed: Mailed, width: int, scheme: str
) -> None:
    problems: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 740},
        color_scheme=scheme,  # type: ignore[arg-type]
        java_script_enabled=True,  # only for looking: the pages have none
    )
    page = context.new_page()
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("request", lambda request: None if request.url.startswith(address) else problems.append(request.url))

    def press(button: Locator) -> None:
        """Press what leads to another page, and come back when that page is there."""
        with page.expect_navigation(wait_until="load"):
            button.click()

    def look(name: str) -> None:
        _look(page, f"{name}-{width}-{scheme}", problems)

    for path, name in (
        (f"/u/{mailed.link(Purpose.UNSUBSCRIBE)}", "unsubscribe"),
        (f"/p/{mailed.link(Purpose.PREFERENCES)}?show=pause", "preferences"),
        ("/privacy", "privacy"),
    ):
        page.goto(address + path)
        look(name)

    page.goto(f"{address}/b/{mailed.link(Purpose.BOOK)}")
    look("times")
    press(page.get_by_role("button", name="Show more days"))
    look("times-more")
    press(page.get_by_role("button", name="Tell us when suits you"))
    look("wish")
    page.goto(f"{address}/b/{mailed.link(Purpose.BOOK)}")
    page.locator(".times input").first.check()
    press(page.get_by_role("button", name="Continue"))
    look("details")
    page.get_by_label("Your phone number").fill("12")
    page.locator("form").evaluate("form => form.noValidate = true")
    press(page.get_by_role("button", name="Continue"))
    look("details-errors")
    page.get_by_label("Your phone number").fill("(555) 010-0199")
    page.get_by_label("Call me at this number").check()
    press(page.get_by_role("button", name="Continue"))
    look("check")
    press(page.get_by_role("button", name="Change the number"))
    press(page.get_by_role("button", name="Continue"))
    press(page.get_by_role("button", name="Book this call"))
    look("booked")
    call = page.url
    press(page.get_by_role("link", name="Change the time"))
    page.locator(".times input").first.check()
    press(page.get_by_role("button", name="Continue"))
    look("change")
    press(page.get_by_role("button", name="Change the time"))
    press(page.get_by_role("link", name="Cancel the call"))
    look("cancel")
    press(page.get_by_role("button", name="Cancel this call"))
    assert page.url == call
    look("canceled")

    page.goto(f"{address}/u/{mailed.link(Purpose.UNSUBSCRIBE)}")
    with page.expect_navigation(wait_until="load"):
        page.get_by_role("button", name="Unsubscribe").press("Enter")  # a keyboard is enough
    look("unsubscribed")
    press(page.get_by_role("button", name="Undo"))
    look("undone")
    problems = [problem for problem in problems if "status of 4" not in problem]
    page.goto(f"{address}/b/x")
    _look(page, f"broken-{width}-{scheme}", problems)
    context.close()
    assert [problem for problem in problems if "status of 4" not in problem] == []
