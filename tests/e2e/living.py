"""A whole installation as real processes, its emails, and a browser that is used as people use theirs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
from playwright.sync_api import Locator, Page
from sqlalchemy import text

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.cli import fleet
from dripwell.embedded.lock import hold
from dripwell.embedded.supervisor import Supervisor
from dripwell.services import advance, enroll
from dripwell.settings import Settings
from dripwell.storage import clock
from tests import series
from tests.conftest import ROOT
from tests.demos import free_port
from tests.processes import eventually
from tests.series import CAMPAIGN

OF_WORKERS = (
    *("worker", "installation", "pace_state", "outbox", "webhook_inbox"),
    *("provider_note", "provider_list", "provider_entry", "retention_state"),
)
"""Tables in which workers note what they did, whatever anybody reads."""


@dataclass(frozen=True)
class House:
    """Everything that `dripwell run` starts."""

    installation: Installation
    crew: fleet.Fleet

    @property
    def url(self) -> str:
        """Where the pages are."""
        return self.crew.web_url

    def mails(self, address: str = "") -> list[dict[str, Any]]:
        """What the sandbox accepted, oldest first: for this address, or for everybody."""
        found: list[dict[str, Any]] = []
        while True:
            since = found[-1]["id"] if found else 0
            more = httpx2.get(f"{self.crew.sandbox_url}/control/mails?limit=1000&since={since}").json()["mails"]
            if not more:
                return [mail for mail in found if mail["address"] == (address or mail["address"])]
            found += more

    def mail(self, address: str, count: int = 1) -> dict[str, Any]:
        """The newest email of this address, once there are `count`."""
        assert eventually(lambda: len(self.mails(address)) >= count, within=30), f"no email came to {address}"
        return self.mails(address)[-1]

    def link(self, address: str, door: str, count: int = 1) -> str:
        """The link to one of our doors (`k`, `p`, `u`, `b`, `v`, `c`) in the newest email of this address."""
        return next(link for link in self.mail(address, count)["links"] if link.startswith(f"{self.url}/{door}/"))

    def booking(self, address: str) -> str:
        """The booking page behind the newest email of this address."""
        clicks = [link for link in self.mail(address)["links"] if link.startswith(f"{self.url}/c/")]
        targets = [urljoin(self.url, httpx2.get(link).headers["location"]) for link in dict.fromkeys(clicks)]
        return next(target for target in targets if target.startswith(f"{self.url}/b/"))

    def person(self, address: str) -> int:
        """Somebody who agreed to the series and is in it."""
        with self.installation.database.transaction() as connection:
            person, _ = enroll.add(
                connection,
                address=address,
                consent=enroll.Consent("seven-part-series", "test"),
                pepper=self.installation.pepper,
                new_id=self.installation.new_id,
                times=clock.read(connection),
            )
            enroll.enroll(connection, CAMPAIGN, [person], actor="test")
        return person

    def ask(self, address: str) -> None:
        """Somebody asks for the series and is mailed the button to confirm with."""
        with self.installation.database.transaction() as connection:
            enroll.ask_to_confirm(
                connection,
                address=address,
                form="series-request",
                pepper=self.installation.pepper,
                new_id=self.installation.new_id,
                times=clock.read(connection),
            )

    def doors(self) -> list[str]:
        """The pages that nobody needs an email for."""
        return ["/privacy", *(f"/s/{form.name}" for form in self.installation.site.forms)]

    def pending(self) -> int:
        """How many webhooks the sandbox has not delivered yet."""
        return int(httpx2.get(f"{self.crew.sandbox_url}/control/pending").json()["pending"])

    def quiet(self) -> None:
        """Wait until nothing is under way anywhere."""
        assert advance.quiet(self.installation.database, patience=60, also=self.pending)

    def later(self, **span: float) -> None:
        """Let campaign time pass, from one due moment to the next."""
        with self.installation.database.transaction() as connection:
            until = clock.read(connection).now + timedelta(**span)
        self.quiet()
        while advance.step(self.installation.database, until) is not None:
            self.quiet()

    def query(self, statement: str, **values: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.installation.database.transaction() as connection:
            return [tuple(row) for row in connection.execute(text(statement), values)]

    def settled(self) -> None:
        """Wait until workers have carried on everything that was handed to them."""
        self.quiet()
        assert eventually(lambda: self.query("SELECT 1 FROM outbox WHERE done_at IS NULL") == [], within=60)

    def tables(self, *besides: str) -> dict[str, list[str]]:
        """Every row of every table, but for what workers note about themselves and `besides`."""
        with self.installation.database.transaction() as connection:
            names = connection.execute(
                text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
            ).scalars()
            return {
                name: sorted(connection.execute(text(f'SELECT CAST(t AS text) FROM "{name}" AS t')).scalars())
                for name in names
                if name not in (*OF_WORKERS, *besides)
            }


@contextmanager
def started(folder: Path) -> Iterator[House]:
    """A house with the seven-benefits series running."""
    settings = Settings(state_dir=folder, web_port=free_port(), sandbox_port=free_port())
    with hold(settings.state_dir, lasting=True) as held:
        crew = fleet.assemble(settings, held, ROOT)
        with crew.servers, Supervisor(held.folder, io.StringIO(), color=False).start(crew.processes):
            installation = bootstrap.connect(crew.settings(settings), ROOT, crew.database_url, crew.redis_url)
            try:
                with installation.database.transaction() as connection:
                    series.start(connection, installation)
                yield House(installation, crew)
            finally:
                installation.close()


_FOCUS = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const seen = one.matches('.times input') ? one.nextElementSibling : one;
  const style = getComputedStyle(seen), box = seen.getBoundingClientRect();
  const name = one.labels && one.labels.length ? one.labels[0].innerText : one.innerText || one.value;
  return {tag: one.tagName, type: one.type || '', value: one.value || '', name: (name || '').trim(),
    outline: style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth),
    top: box.top + scrollY, height: box.height, width: box.width,
    shown: box.bottom > 0 && box.top < innerHeight && box.left >= 0 && box.right <= innerWidth + 1}
}"""


class Keyboard:
    """Goes through a page by Tab alone. Each stop must be seen: outlined, on the screen, in reading order."""

    def __init__(self, page: Page) -> None:
        """`page` is freshly opened: nothing has the focus yet."""
        self.page = page
        self.stops: list[dict[str, Any]] = []

    def tab(self) -> dict[str, Any] | None:
        """One stop further; None behind the last one."""
        self.page.keyboard.press("Tab")
        stop: dict[str, Any] | None = self.page.evaluate(_FOCUS)
        if stop is None:
            return None
        assert stop["outline"] >= 2, f"nobody sees that this has the focus: {stop}"
        assert stop["shown"], f"the focus is off the screen: {stop}"
        if self.stops:
            assert stop["top"] >= self.stops[-1]["top"] - stop["height"], f"the focus jumps up: {stop}"
        self.stops.append(stop)
        return stop

    def to(self, name: str, value: str | None = None) -> dict[str, Any]:
        """Tab until what is called `name` has the focus (a radio button: until its group has)."""
        for _ in range(60):
            stop = self.tab()
            assert stop is not None, f"Tab never comes to {name!r}: {[one['name'] for one in self.stops]}"
            if name in stop["name"] and (value is None or stop["value"] == value):
                return stop
        raise AssertionError(f"Tab never comes to {name!r}")

    def press(self, name: str, key: str = "Enter") -> Keyboard:
        """Tab to this and press it; the next page's keyboard."""
        self.to(name)
        with self.page.expect_navigation():
            self.page.keyboard.press(key)
        return Keyboard(self.page)

    def choose(self, among: str, wish: str) -> None:
        """Tab to the radio group that holds `among`, then by arrow to `wish`."""
        self.to(among)
        for _ in range(12):
            stop = self.page.evaluate(_FOCUS)
            if wish in stop["name"]:
                return
            self.page.keyboard.press("ArrowDown")
        raise AssertionError(f"no arrow leads to {wish!r}")


def heading(page: Page) -> Locator:
    """The page's one first heading."""
    return page.locator("h1")
