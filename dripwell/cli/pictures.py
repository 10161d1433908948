"""Pictures of emails, with a real browser: `dripwell preview --png` and docs/images."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dripwell.core.errors import ConfigurationError

if TYPE_CHECKING:
    from playwright.sync_api import Route

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def take(
    html_by_name: Mapping[str, str],
    folder: Path,
    *,
    widths: Sequence[int] = (375, 640),
    dark: Sequence[bool] = (False, True),
    files: Mapping[str, bytes] | None = None,
    height: int | None = None,
) -> list[Path]:
    """Write `<name>-<width>-<light|dark>.png` for each email and return the paths.

    Nothing is fetched: a picture is shown when `files` holds it by its file name (`shore-5.jpg`), else left out.
    `height` cuts the picture off, for a page of documentation; without it the whole email is shown.
    Raises ConfigurationError, which says what to install, without Playwright or a browser.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise ConfigurationError(
            "Pictures need Playwright, which is not installed. Install it with: pip install playwright"
        ) from error
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser_path is None:
        raise ConfigurationError(
            "Pictures need a browser, and none of "
            + ", ".join(BROWSERS)
            + " is on the PATH. Install one, for example with: apt-get install chromium"
        )
    known = dict(files or {})

    def answer(route: Route) -> None:
        name = route.request.url.split("?")[0].rsplit("/", 1)[-1]
        if name in known:
            route.fulfill(body=known[name], content_type="image/jpeg")
        else:
            route.abort()

    folder.mkdir(parents=True, exist_ok=True)
    out: list[Path] = []
    try:
        with sync_playwright() as playwright:
            # No sandbox: it needs user namespaces, which containers rarely give. The pages are ours and fetch nothing.
            browser = playwright.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            for scheme in dark:
                for width in widths:
                    context = browser.new_context(
                        viewport={"width": width, "height": 700},
                        color_scheme="dark" if scheme else "light",
                        java_script_enabled=False,
                        device_scale_factor=1,
                    )
                    context.route("**/*", answer)
                    page = context.new_page()
                    for name, content in html_by_name.items():
                        page.set_content(content, wait_until="load")
                        path = folder / f"{name}-{width}-{'dark' if scheme else 'light'}.png"
                        if height is None:
                            page.screenshot(path=path, full_page=True)
                        else:
                            page.screenshot(
                                path=path,
                                full_page=True,
                                clip={"x": 0, "y": 0, "width": width, "height": height},
                            )
                        out.append(path)
                    context.close()
            browser.close()
    except Error as error:
        raise ConfigurationError(f"The browser {browser_path} did not take the picture: {error.message}") from error
    return out
