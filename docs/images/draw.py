"""Draw the pictures of docs/images: `make shots`. Real parts: one subscriber, the real series, the real pages.

Emails come from the sandbox's inbox as they were accepted, pages from the running web process.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.cli import fleet, pictures
from dripwell.embedded.lock import hold
from dripwell.embedded.supervisor import Supervisor
from dripwell.services import advance, enroll, publish
from dripwell.settings import Settings
from dripwell.storage import clock

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CAMPAIGN = "seven-benefits"
COLORS = 160
"""Enough for a page of text and a calm picture; a third of the bytes."""


def main() -> None:
    """Run the series for one subscriber and draw what she gets."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        settings = Settings(state_dir=Path(folder))
        with hold(settings.state_dir, lasting=True) as held:
            crew = fleet.assemble(settings, held, ROOT)
            with crew.servers, Supervisor(held.folder, io.StringIO(), color=False).start(crew.processes):
                installation = bootstrap.connect(crew.settings(settings), ROOT, crew.database_url, crew.redis_url)
                mails = _through_the_series(installation, crew)
                _draw(crew, mails)
                installation.close()


def _through_the_series(installation: Installation, crew: fleet.Fleet) -> list[dict[str, Any]]:
    with installation.database.transaction() as connection:
        now = clock.read(connection).now
        monday = (now + timedelta(days=(7 - now.weekday()) % 7 or 7)).replace(hour=18, minute=30)
        times = clock.forward(connection, monday)
        publish.apply(
            connection,
            installation.sources(CAMPAIGN),
            CAMPAIGN,
            actor="docs",
            live=False,
            versions=installation.versions,
            new_id=installation.new_id,
        )
        publish.approve(connection, CAMPAIGN, actor="clinical-review@kcla.example", versions=installation.versions)
        publish.start(connection, CAMPAIGN, actor="docs", live=False, versions=installation.versions)
        person, _ = enroll.add(
            connection,
            address="maria@example.com",
            consent=enroll.Consent("seven-part-series", "docs"),
            pepper=installation.pepper,
            new_id=installation.new_id,
            times=times,
            timezone="America/Los_Angeles",
            fields={"first_name": "Maria"},
        )
        enroll.enroll(connection, CAMPAIGN, [person], actor="docs")
    end = monday + timedelta(days=29)
    while advance.step(installation.database, end) is not None:
        if not advance.quiet(installation.database, patience=60):
            raise SystemExit("the series does not settle")
    mails: list[dict[str, Any]] = httpx2.get(f"{crew.sandbox_url}/control/mails?limit=100").json()["mails"]
    return mails


def _draw(crew: fleet.Fleet, mails: list[dict[str, Any]]) -> None:
    keys = [path.stem for path in sorted((ROOT / "campaigns" / CAMPAIGN).glob("[0-9]-*.md"))]
    chosen = next(path for name in pictures.BROWSERS if (path := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chosen, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for key, mail in zip(keys, mails, strict=True):
            for scheme in ("light", "dark"):
                url = f"{crew.sandbox_url}/mail/{mail['id']}/html"
                _shoot(browser, url, f"email-{key}-375-{scheme}", scheme=scheme)
        book = next(link for link in mails[0]["links"] if "/c/" in link)
        _shoot(browser, book, "page-book-375-light", scheme="light")
        _shoot(browser, book, "page-book-375-dark", scheme="dark")
        _shoot(browser, f"{crew.sandbox_url}/", "inbox-1000-light", scheme="light", width=1000)
        _shoot(browser, mails[0]["list_unsubscribe"].strip("<>"), "page-unsubscribe-375-light", scheme="light")
        browser.close()


def _shoot(browser: Browser, url: str, name: str, *, scheme: Any, width: int = 375) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(url, wait_until="networkidle")
    raw = page.screenshot(full_page=True)
    context.close()
    with Image.open(io.BytesIO(raw)) as picture:
        small = picture.convert("RGB").quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        small.save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
