"""`dripwell demo`: the whole program does its whole job, in a throw-away folder, while campaign time runs fast."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
import httpx2

from dripwell import bootstrap
from dripwell.bootstrap import Connection, Installation
from dripwell.cli import crowd, fleet, funnel
from dripwell.cli.judge import Life, Received, judge
from dripwell.cli.output import note
from dripwell.content.importing.values import Rules, Statement
from dripwell.core.errors import RefusedError, UnavailableError
from dripwell.embedded.lock import hold
from dripwell.embedded.supervisor import Supervisor
from dripwell.services import advance, enroll, importing, publish
from dripwell.services.report import Report, report
from dripwell.settings import Settings
from dripwell.storage import clock, invariants, ledger, reports

CAMPAIGN = "seven-benefits"
REVIEWER = "clinical-review@kcla.example"
HURRY = timedelta(hours=1)
"""How much campaign time one move of the demo may skip."""
PATIENCE = 120.0
"""Wall seconds one move of campaign time may take before the demo gives up and says what is stuck."""


@click.command()
@click.option("--once", is_flag=True, help="Exit after the funnel, 0 only if every number adds up.")
@click.option("--seed", type=int, default=1, show_default=True, help="Repeat a course.")
@click.option("--people", type=click.IntRange(10, 5000), default=400, show_default=True, help="Invented subscribers.")
@click.option("--json", "as_json", is_flag=True, help="Print one object instead of the table.")
def demo(once: bool, seed: int, people: int, as_json: bool) -> None:
    """Watch the program do its whole job with invented people; nothing leaves this machine.

    \b
    dripwell demo
    dripwell demo --once --json
    dripwell demo --once --seed 7 --people 100
    """
    settings = Settings.read()
    if settings.live:
        raise RefusedError(f"a demo never runs with a live provider: unset {settings.live_by} and try again")
    folder = Path(tempfile.mkdtemp(prefix="dripwell-demo-"))
    folder.chmod(0o755)
    # A demo is throw-away: nothing of the environment's own servers or state is touched.
    own = Settings(state_dir=folder, web_port=settings.web_port, sandbox_port=settings.sandbox_port)
    try:
        with hold(folder, lasting=True) as held:
            crew = fleet.assemble(own, held, Path.cwd(), seed=seed)
            with crew.servers:
                held.announce(crew.addresses)
                course = _watch(crew, own, folder, seed, people, as_json=as_json, stay=not once)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not course.holds:
        sys.exit(1)


@dataclass
class Course:
    """What a run of the demo found, and whether all of it agrees."""

    seed: int
    report: Report
    provider: dict[str, int]
    agrees: bool  # the sandbox's ledger and our record name the same messages, each once
    broken: dict[str, list[Any]]  # invariants that do not hold
    wrong: list[str]  # the judge's findings: twice, out of order, too early, after leaving
    seconds: float

    @property
    def holds(self) -> bool:
        """Both sums hold, the ledger agrees, no invariant is broken and the judge found nothing."""
        return self.report.adds_up and self.agrees and not self.broken and not self.wrong

    def as_json(self) -> dict[str, Any]:
        """One object, as `--json` prints it."""
        found = self.report
        return {
            "version": 1,
            "seed": self.seed,
            "audience": found.joined,
            "people": dict(found.people),
            "messages": dict(found.messages),
            "planned": found.planned,
            "by_step": [funnel.step_json(step) for step in found.steps],
            "clicked": found.clicked,
            "booked": found.people["booked"],
            "unsubscribed": found.people["unsubscribed"],
            "bounced": found.people["undeliverable"],
            "provider": self.provider,
            "agrees": self.agrees,
            "adds_up": found.adds_up,
            "broken": sorted(self.broken),
            "wrong": self.wrong,
            "seconds": round(self.seconds, 1),
        }


def _watch(
    crew: fleet.Fleet, own: Settings, folder: Path, seed: int, people: int, *, as_json: bool, stay: bool
) -> Course:
    began = time.monotonic()
    with (folder / "demo.log").open("w", encoding="utf-8") as out:
        supervisor = Supervisor(folder, out, color=False)
        note("starting PostgreSQL, Valkey, the sandbox, web, beat and workers …")
        with supervisor.start(crew.processes):
            installation = bootstrap.connect(crew.settings(own), Path.cwd(), crew.database_url, crew.redis_url)
            try:
                course = _course(installation, crew, folder, seed, people, began)
                print(json.dumps(course.as_json()) if as_json else _table(course, crew), flush=True)
                if stay:
                    note("Ctrl-C stops and removes everything")
                    _until_interrupted()
            finally:
                installation.close()
    return course


def _until_interrupted() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        note("stopping")


def _course(
    installation: Installation, crew: fleet.Fleet, folder: Path, seed: int, people: int, began: float
) -> Course:
    bootstrap.prepare(installation)
    _begin(installation, folder, seed, people)
    with httpx2.Client(timeout=15, trust_env=False) as browser:
        audience = Audience(browser, str(crew.sandbox_url), seed)
        _through_the_series(installation, audience)
        ledger_says = audience.ledger()
    with installation.database.snapshot() as connection:
        found = report(connection, CAMPAIGN, installation.versions)
        broken = invariants.broken(connection)
        ours = ledger.accepted(connection)
        wrong = _judged(connection, installation, ours, ledger_says["lines"])
        wrong += [f"{row.campaign}/{row.step_key} is {row.state} ({row.reason})" for row in ledger.unmailed(connection)]
    by_message: dict[str, int] = ledger_says["by_message"]
    agrees = set(by_message) == set(ours) and set(by_message.values()) <= {1}
    provider = {name: ledger_says[name] for name in ("accepted", "calls", "duplicates")}
    return Course(seed, found, provider, agrees, broken, wrong, time.monotonic() - began)


def _judged(
    connection: Connection, installation: Installation, ours: dict[str, Any], lines: list[dict[str, Any]]
) -> list[str]:
    row = publish.existing(connection, CAMPAIGN)
    assert row.version_id is not None
    published = installation.versions.published(connection, row.version_id)
    lives = [
        Life(life.subscriber_id, life.timezone, life.state, life.ended_reason, life.left_at, life.suppressed)
        for life in ledger.lives(connection, row.id)
    ]
    received = [
        Received(known.subscriber_id, known.step_key, known.accepted_at, float(line["t"]))
        for line in lines
        if (known := ours.get(str(line["dw_m"]))) is not None and known.campaign == CAMPAIGN
    ]
    return judge(published.campaign, published.site.clinic.timezone, lives, received)


def _begin(installation: Installation, folder: Path, seed: int, people: int) -> None:
    """Import the invented people, then plan, apply, approve, start and enroll, on a Monday morning."""
    database = installation.database
    with database.transaction() as connection:
        now = clock.forward(connection, _next_monday(clock.read(connection).now)).now
    path = folder / "people.csv"
    crowd.write_csv(crowd.invent(people, seed), path)
    stated = Statement(("seven-part-series",), "invented for the demo", "Email me the seven-part series.", now)
    topics = frozenset(topic.name for topic in installation.site.topics)
    taken = importing.bring_in(
        database,
        path,
        Rules(stated, topics, now, ZoneInfo(installation.site.clinic.timezone)),
        actor="demo",
        pepper=installation.pepper,
        versions=installation.versions,
        new_id=installation.new_id,
    )
    note(f"imported {taken.added} invented subscribers")
    sources = installation.sources(CAMPAIGN)
    with database.transaction() as connection:
        made = publish.plan(connection, sources, CAMPAIGN, live=False, versions=installation.versions)
        publish.apply(
            connection,
            sources,
            CAMPAIGN,
            actor="demo",
            live=False,
            versions=installation.versions,
            new_id=installation.new_id,
            plan_id=made.id,
        )
        publish.approve(connection, CAMPAIGN, actor=REVIEWER, versions=installation.versions)
        publish.start(connection, CAMPAIGN, actor="demo", live=False, versions=installation.versions)
        joined = enroll.enroll(connection, CAMPAIGN, enroll.everybody(connection, "seven-part-series"), actor="demo")
    note(f"applied, approved and started {CAMPAIGN}; {joined} people joined")


def _through_the_series(installation: Installation, audience: Audience) -> None:
    database = installation.database
    with database.transaction() as connection:
        end = clock.read(connection).now + timedelta(days=60)
    shown = ""
    while True:
        _until_quiet(installation, audience)
        if audience.act():
            _until_quiet(installation, audience)
        moved = _retried(lambda: _move(installation, end))
        if moved is None:
            return
        day = f"{moved.astimezone(ZoneInfo(installation.site.clinic.timezone)):%A, %B %-d}"
        if day != shown:
            shown = day
            note(f"{day}: {audience.seen} emails accepted so far")


def _move(installation: Installation, end: datetime) -> datetime | None:
    with installation.database.transaction() as connection:
        if reports.next_due(connection) is None:
            return None
    return advance.step(installation.database, end, HURRY)


def _until_quiet(installation: Installation, audience: Audience) -> None:
    waiting: dict[str, int] = {}

    def remember(left: dict[str, int]) -> None:
        waiting.update(left)

    if not advance.quiet(installation.database, patience=PATIENCE, also=audience.pending, on_wait=remember):
        raise UnavailableError(f"the demo waited {PATIENCE:.0f} s for this to settle: {waiting}")


def _retried(work: Callable[[], datetime | None]) -> datetime | None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except UnavailableError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


class Audience:
    """The invented people at their inboxes. They read what the sandbox accepted and act over the real pages."""

    def __init__(self, browser: httpx2.Client, sandbox_url: str, seed: int) -> None:
        self._browser = browser
        self._sandbox = sandbox_url
        self._seed = seed
        self._last = 0
        self._received: dict[str, int] = {}
        self.seen = 0

    def pending(self) -> int:
        """How many events the sandbox has not delivered yet."""
        return int(self._get("/control/pending")["pending"])

    def ledger(self) -> dict[str, Any]:
        """What the sandbox's own ledger counted."""
        return self._get("/control/ledger?full=1")

    def act(self) -> int:
        """Read what is new and do what these people do; returns how many did anything."""
        todo: list[tuple[str, crowd.Act, dict[str, Any]]] = []
        for mail in self._new():
            address = str(mail["address"])
            if not mail.get("list_unsubscribe"):
                continue  # a service email: about a booked call, or for the front desk
            number = self._received[address] = self._received.get(address, 0) + 1
            if "+bounce" not in address:
                todo.append((address, crowd.act_of(self._seed, address, number), mail))
        acting = [one for one in sorted(todo, key=lambda one: one[0]) if one[1] != "nothing"]
        # Whoever only looks does not depend on anybody else; bookings choose among what is free, so they take turns.
        with ThreadPoolExecutor(max_workers=4) as readers:
            for done in [readers.submit(self._do, act, mail) for _, act, mail in acting if act == "click"]:
                done.result()
        for _, act, mail in acting:
            if act != "click":
                self._do(act, mail)
        return len(acting)

    def _do(self, act: crowd.Act, mail: dict[str, Any]) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                if crowd.carry_out(self._browser, act, mail, self._seed):
                    return
            except httpx2.TransportError:
                pass  # the pages are being started again
            if time.monotonic() > until:
                raise UnavailableError(f"an invented person could not {act} over the pages")
            time.sleep(0.2)

    def _new(self) -> Iterator[dict[str, Any]]:
        while True:
            answer = self._get(f"/control/mails?since={self._last}&limit=1000")
            yield from answer["mails"]
            self._last, self.seen = answer["last"], answer["accepted"]
            if not answer["mails"]:
                return

    def _get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._browser.get(self._sandbox + path).json()
        return answer


def _next_monday(now: datetime) -> datetime:
    """The next Monday, 10:30 in Los Angeles, so that a course does not hang on the day it is run."""
    local = now.astimezone(ZoneInfo("America/Los_Angeles"))
    days = (7 - local.weekday()) % 7 or 7
    return (local + timedelta(days=days)).replace(hour=10, minute=30, second=0, microsecond=0).astimezone(UTC)


def _table(course: Course, crew: fleet.Fleet) -> str:
    lines = [funnel.draw(course.report, color=sys.stdout.isatty())]
    mark = "✓" if course.agrees else "✗"
    lines.append(
        f"  ledger  {course.provider['accepted']:,} accepted by the sandbox in {course.provider['calls']:,} calls, "
        f"{course.provider['duplicates']} twice; its messages are ours, each once  {mark}"
    )
    lines += [f"  broken  {name}: {rows}" for name, rows in course.broken.items()]
    lines += [f"  wrong   {finding}" for finding in course.wrong]
    lines.append(f"  {course.seconds:.1f} s   inbox  {crew.sandbox_url}/")
    return "\n".join(lines)


commands: list[click.Command] = [demo]
