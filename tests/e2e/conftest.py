"""One house for all browser tests of a run, and a browser for each module of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.e2e import living

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def living_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[living.House]:
    """Everything that `dripwell run` starts, with a series running."""
    with living.started(tmp_path_factory.mktemp("living")) as house:
        yield house


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. `.ci/run` installs it. Where it is missing these tests are skipped, but never where CI=true."""
    if CHROMIUM is None:
        missing = "there is no Chromium on this machine: install it (apt-get install chromium)"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()
