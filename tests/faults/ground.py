"""The ground a town stands on: an installation with pages, campaigns and a clock of its own, on an empty database."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import text
from starlette.testclient import TestClient

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.content.files import read_sources
from dripwell.content.load import load
from dripwell.content.render import step_links
from dripwell.services import publish
from dripwell.settings import Settings
from dripwell.storage import campaigns, clock
from dripwell.storage.database import Database
from dripwell.storage.limiter import Limiter
from dripwell.web.app import create_app
from tests.faults.consent import Moment
from tests.faults.doors import Doors, Trouble
from tests.integration import rows
from tests.integration.scripted import ROOT, ScriptedProvider

AHEAD = timedelta(days=40)
"""Campaign time is so far ahead of wall time: whoever mixes the two is found out."""
TOPICS = {"seven-part-series": "Seven-part series", "health-guides": "Guides", "monthly-notes": "Monthly notes"}
FORMS = {"series-request": "seven-part-series", "guides-request": "health-guides", "notes-request": "monthly-notes"}
MORE_FORMS = """forms:
  guides-request: {topic: health-guides, asks: {email: required}, consent: Email me the guides.}
  notes-request: {topic: monthly-notes, asks: {email: required}, consent: Email me the notes.}
"""
SERIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "series": ("seven-part-series", "{form: series-request}", ("1 day", "2 days")),
    "guides": ("health-guides", "{form: guides-request}\nreenter: after 2 days", ("2 days",)),
    "notes": ("monthly-notes", "{form: notes-request}", ("3 days",)),
}
"""name -> topic, trigger, the waits between its emails."""
BY_FORM = {"series-request": "series", "guides-request": "guides", "notes-request": "notes"}
PROXY = "127.0.0.1"
"""Says from which network somebody comes."""
REENTERED = "guides"
WAVES = 9
"""Campaigns of one email that staff put everybody into, one after the other."""


class Ground:
    """Everything a pass or a page needs. Wall time stands still until `later`; campaign time goes with it."""

    def __init__(
        self, database: Database, redis_url: str, folder: Path, provider: ScriptedProvider, doors: type[Doors]
    ) -> None:
        self.database = database
        self.provider = provider
        self.wall = rows.START
        self.order = 0
        self.topic_of: dict[str, str] = {name: topic for name, (topic, _, _) in SERIES.items()}
        self.topic_of |= {f"wave-{number}": list(TOPICS)[number % 3] for number in range(WAVES)}
        self.steps_of: dict[str, tuple[str, ...]] = {}
        self._close = ExitStack()
        self._settle_down(folder)
        settings = Settings(
            state_dir=folder / "state",
            secret_key=SecretStr("a key for links"),
            unsubscribe_key=SecretStr("a key for leaving"),
            pepper=SecretStr("the pepper of a town"),
            trusted_proxy=PROXY,
        )
        opened = bootstrap.connect(settings, folder, database.dsn, redis_url)
        opened.database.close()
        self._close.callback(opened.close)
        quick = Limiter(redis_url, ceiling=1e9)
        self._close.callback(quick.close)
        changes: dict[str, Any] = {"limiter": quick, "provider": self.provider}
        self.works = replace(opened, database=database, **changes)
        # Who acts in the middle of a pass may meet its locks, and then it is as if PostgreSQL were away.
        self.people_at = Database(database.dsn, pool=4, session="-c lock_timeout=40ms")
        self._close.callback(self.people_at.close)
        self.admin = Database(database.dsn, pool=1)
        self._close.callback(self.admin.close)
        self.doors = doors(
            replace(opened, database=self.people_at, **changes), pages=self._pages, wall=lambda: self.wall
        )
        self.doors.works = self.works
        self._close.callback(self.doors.close)
        self.doors.lose_redis()
        self.trouble_of_people = Trouble(self.people_at, self._administer)
        self.trouble_of_passes = Trouble(database, self._administer)
        self._set_clock()
        bootstrap.prepare(self.works)
        for name in self.topic_of:
            self._publish(name)
        with database.transaction() as connection:
            clock.forward(connection, clock.read(connection).wall_now + AHEAD)
            self.works.fast.rebuild(connection)
            found = connection.execute(text("SELECT id, name FROM campaign")).all()
        self.name_of = {f"c{row.id}": row.name for row in found}

    def _pages(self, installation: Installation) -> TestClient:
        client = TestClient(create_app(installation), follow_redirects=False, client=(PROXY, 50_000))
        return self._close.enter_context(client)

    def _settle_down(self, folder: Path) -> None:
        found = read_sources(ROOT, "seven-benefits")
        sources = {path: content for path, content in found.items() if not path.startswith("campaigns/")}
        site = sources["config/site.yaml"].replace("\nforms:", "\n" + MORE_FORMS.rstrip("\n"), 1)
        for old, new in (
            ("emails: 3 per week", "emails: 40 per week"),
            ("gap: 20 hours", "gap: 1 hour"),
            ("days: weekdays", "days: any"),
            ("hours: 09:00-18:00", "hours: 00:00-24:00"),
        ):
            assert old in site, old
            site = site.replace(old, new, 1)
        sources["config/site.yaml"] = site
        for name, topic in self.topic_of.items():
            _, trigger, waits = SERIES.get(name, (topic, "{manual: true}", ()))
            steps = [f"{number}-part" for number in range(1, len(waits) + 2)]
            self.steps_of[name] = tuple(steps)
            lines = ["type: drip", f"name: {name.title()}", "description: For tests.", f"topic: {topic}"]
            lines += [f"trigger: {trigger}", "steps:"]
            for number, step in enumerate(steps):
                if number:
                    lines.append(f"  - wait: {waits[number - 1]}")
                lines += [f"  - email: {step}", f"    subject: Part {number + 1}", "    preheader: What it says."]
                sources[f"campaigns/{name}/{step}.md"] = f"# Part {number + 1}\n\nHello, here is part {number + 1}.\n"
            sources[f"campaigns/{name}/campaign.yaml"] = "\n".join(lines) + "\n"
        for path, content in sources.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content, encoding="utf-8")

    def _publish(self, name: str) -> None:
        sources = self.works.sources(name)
        loaded = load(sources, name)
        assert loaded.site is not None
        assert loaded.campaign is not None, loaded.problems
        with self.database.transaction() as connection:
            row = campaigns.add(
                connection,
                public_id=rows.uuid_of(name),
                name=name,
                kind="drip",
                state="running",
                topic=self.topic_of[name],
            )
            structure, content = publish.hashes(sources, loaded.campaign)
            links = {e.key: step_links(sources, loaded.site, loaded.campaign, e.key) for e in loaded.campaign.emails}
            campaigns.add_version(
                connection,
                campaign_id=row.id,
                number=1,
                sources=sources,
                structure_hash=structure,
                content_hash=content,
                applied_by="test",
                links=links,
                topic=self.topic_of[name],
            )

    def close(self) -> None:
        """Give everything back."""
        self._close.close()

    def _administer(self, statement: str) -> None:
        with self.admin.transaction() as connection:
            connection.execute(text(statement))

    # Time

    def _set_clock(self) -> None:
        name = self.database.engine.url.database
        self._administer(f"ALTER DATABASE {name} SET dripwell.wall = '{self.wall.isoformat()}'")
        for one in (self.database, self.people_at, self.admin):
            one.engine.dispose()  # the setting is read when a connection opens

    def later(self, span: timedelta) -> None:
        """Both clocks move on."""
        self.wall += span
        self._set_clock()

    def moment(self) -> Moment:
        """Now; what happens next comes after it."""
        self.order += 1
        return Moment(self.order, self.wall, self.wall + AHEAD)
