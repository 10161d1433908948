"""A small world to break: PostgreSQL and Valkey with fsync, the sandbox, web, workers; people, and a judge.

Workers reach PostgreSQL, Redis and the provider through proxies that a test can cut or shut. The test itself looks on
directly.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import httpx2
import redis
from sqlalchemy import text

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.cli.fleet import BEAT, listens
from dripwell.core.errors import UnavailableError
from dripwell.core.tokens import Purpose, sign
from dripwell.embedded.lock import hold
from dripwell.embedded.process import Process, end, has_ended, reap, spawn
from dripwell.embedded.servers import prepare
from dripwell.embedded.supervisor import Supervisor
from dripwell.services import advance, enroll, publish
from dripwell.settings import Settings
from dripwell.storage import clock, reports
from tests.demos import descendants, free_port
from tests.faults import judge
from tests.faults.proxy import Proxy
from tests.integration import rows
from tests.processes import ROOT, eventually

CAMPAIGN = "pair"
QUEUES = "plan,drip,settle,ingest,confirm,booking"
"""The order in which a worker without Celery looks after its queues."""
_STEP = """\
  - email: {number}-part
    subject: Part {number}
    preheader: What part {number} is about.
"""
_HEAD = """\
type: drip
name: Pair
description: A short series for tests.
topic: seven-part-series
trigger: {manual: true}
steps:
"""
_TEXT = """\
# Part {number}

Hello {{{{ first_name or "there" }}}}.

::: call Would you like to talk it over?
The call takes about 15 minutes and is free. It is a conversation, not a treatment. No decision is needed.
button: Book a free phone consultation -> {{{{ booking_url }}}}
:::
"""


def steps(count: int) -> tuple[str, ...]:
    """The keys of the campaign's emails."""
    return tuple(f"{number}-part" for number in range(1, count + 1))


def write_root(root: Path, emails: int) -> None:
    """A folder with our config, our theme and one short campaign whose window never closes."""
    shutil.copytree(ROOT / "templates", root / "templates")
    shutil.copytree(ROOT / "config", root / "config")
    site = root / "config" / "site.yaml"
    words = site.read_text(encoding="utf-8")
    opened = words.replace("days: weekdays", "days: any", 1).replace("hours: 09:00-18:00", "hours: 00:00-24:00", 1)
    assert opened != words
    site.write_text(opened, encoding="utf-8")
    folder = root / "campaigns" / CAMPAIGN
    folder.mkdir(parents=True)
    series = "  - wait: 3 days\n".join(_STEP.format(number=number) for number in range(1, emails + 1))
    (folder / "campaign.yaml").write_text(_HEAD + series, encoding="utf-8")
    for number in range(1, emails + 1):
        (folder / f"{number}-part.md").write_text(_TEXT.format(number=number), encoding="utf-8")


@dataclass(slots=True)
class Worker:
    """A process that runs passes without Celery."""

    process: Process
    child: subprocess.Popen[bytes]
    answers: IO[bytes]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.child.pid

    def say(self, word: str) -> None:
        """`go` or `rest`; returns when a worker that is to rest does."""
        assert self.child.stdin is not None
        self.child.stdin.write(word.encode() + b"\n")
        self.child.stdin.flush()
        if word == "rest":
            self.hear("resting")

    def hear(self, word: str) -> None:
        """Wait for a word of its."""
        while (line := self.answers.readline().decode().strip()) != word:
            assert line, "the worker ended"

    def is_stopped(self) -> bool:
        """Whether it stands still, as after SIGSTOP."""
        return _state(self.pid) == "T"

    def was_killed(self) -> bool:
        """Whether it has ended by SIGKILL."""
        return has_ended(self.child) and reap(self.child) == -signal.SIGKILL

    def kill(self) -> None:
        """kill -9."""
        self.child.kill()
        reap(self.child)

    def stop(self) -> None:
        """End it. It may be stopped already."""
        if self.child.poll() is None:
            self.kill()
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.answers.close()


class World:
    """Start it with `with`. `crew` names the Celery processes: `beat`, `service`, `worker` (any may be repeated)."""

    def __init__(
        self, folder: Path, *, emails: int = 2, crew: Sequence[str] = (), seed: int = 1, options: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.steps = steps(emails)
        self.seed = seed
        self.people: list[str] = []
        self.ids: dict[str, int] = {}
        self.notes = folder / "unsubscribes.jsonl"
        self._crew = tuple(crew)
        self._options = tuple(options)
        self._emails = emails
        self._stack = contextlib.ExitStack()
        self._workers: list[Worker] = []
        self._numbers = itertools.count()
        self._note_lock = threading.Lock()

    def __enter__(self) -> World:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        root = self.folder / "root"
        write_root(root, self._emails)
        state = self.folder / "state"
        held = stack.enter_context(hold(state, lasting=True))
        servers = stack.enter_context(prepare(held))
        assert servers.database_url is not None
        assert servers.redis_url is not None
        self.root, self.state = root, state
        sandbox_port, self.web_port = free_port(), free_port()
        self.sandbox_url, self.web_url = f"http://127.0.0.1:{sandbox_port}", f"http://127.0.0.1:{self.web_port}"
        self.lines = {
            "database": Proxy(_port(servers.database_url)),
            "web database": Proxy(_port(servers.database_url)),
            "redis": Proxy(_port(servers.redis_url)),
            "provider": Proxy(sandbox_port),
        }
        for line in self.lines.values():
            stack.callback(line.close)
        self.environment = self._environment(servers.database_url, servers.redis_url)
        web = self.environment | {"DATABASE_URL": _through(servers.database_url, self.lines["web database"])}
        ledger, hook = str(bootstrap.sandbox_folder(self._settings())), f"{self.web_url}/webhooks/sendgrid"
        sandbox = ("dripwell.sandbox", "--port", str(sandbox_port), "--state", ledger, "--key", bootstrap.SANDBOX_KEY,
                   "--webhook", hook, "--seed", str(self.seed), *self._options)  # fmt: skip
        processes = [
            *servers.processes,
            self._python("sandbox", sandbox, wait=True, ready=lambda: listens(sandbox_port)),
            self._python("web", ("dripwell.web", "--port", str(self.web_port)), wait=True, env=web,
                         ready=lambda: listens(self.web_port)),
            *(self._celery(f"{name}{number}", name) for number, name in enumerate(self._crew)),
        ]  # fmt: skip
        self.log = stack.enter_context((self.folder / "world.log").open("w", encoding="utf-8"))
        self.supervisor = Supervisor(state, self.log, color=False)
        stack.enter_context(self.supervisor.start(processes))
        stack.callback(self.end_workers)
        self.installation = bootstrap.connect(self._settings(), root, servers.database_url, servers.redis_url)
        stack.callback(self.installation.close)
        self.redis = redis.Redis.from_url(servers.redis_url)
        stack.callback(self.redis.close)
        self.http = httpx2.Client(trust_env=False, timeout=15)
        stack.callback(self.http.close)
        bootstrap.prepare(self.installation)
        self._apply(self.installation)

    def _settings(self) -> Settings:
        return Settings(state_dir=self.state, provider_url=self.sandbox_url, base_url=self.web_url)

    def _environment(self, database_url: str, redis_url: str) -> dict[str, str]:
        ours = ("DATABASE_URL", "REDIS_URL", "SENDGRID_API_KEY")
        rest = {name: v for name, v in os.environ.items() if not name.startswith("DRIPWELL_") and name not in ours}
        return rest | {
            "DATABASE_URL": _through(database_url, self.lines["database"]),
            "REDIS_URL": _through(redis_url, self.lines["redis"]),
            "DRIPWELL_PROVIDER_URL": f"http://127.0.0.1:{self.lines['provider'].port}",
            "DRIPWELL_BASE_URL": self.web_url,
            "DRIPWELL_STATE_DIR": str(self.state),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }

    def _python(self, name: str, arguments: Sequence[str], **more: Any) -> Process:
        env = more.pop("env", self.environment)
        return Process(name, (sys.executable, "-m", *arguments), env=env, cwd=self.root,
                       death_signal=signal.SIGKILL, **more)  # fmt: skip

    def _celery(self, name: str, kind: str) -> Process:
        if kind == "beat":
            return self._python(name, BEAT)
        queues, children = ("service", "1") if kind == "service" else ("rest", "2")
        names = ",".join(bootstrap.QUEUES[queues])
        return self._python(name, ("dripwell.workers.bell", "--queues", names, "--children", children), grace=45.0)

    def _apply(self, installation: Installation) -> None:
        with installation.database.transaction() as connection:
            publish.apply(
                connection,
                installation.sources(CAMPAIGN),
                CAMPAIGN,
                actor="test",
                live=False,
                versions=installation.versions,
                new_id=installation.new_id,
            )
            publish.start(connection, CAMPAIGN, actor="test", live=False, versions=installation.versions)

    # Processes

    def worker(self, *options: str, queues: str = QUEUES, **environment: str) -> Worker:
        """Start a worker without Celery; DRIPWELL_… may be given. Returns when it is ready."""
        arguments = ("tests.faults.passes", "--queues", queues, *options)
        process = self._python("passes", arguments, env=self.environment | environment)
        with (self.folder / "workers.log").open("ab") as log:
            child = spawn(process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        assert child.stdout is not None
        made = Worker(process, child, child.stdout)
        self._workers.append(made)
        made.hear("ready")
        return made

    @contextlib.contextmanager
    def running(self, *kinds: str) -> Iterator[None]:
        """Let these Celery processes run meanwhile: `beat`, `service`, `worker`, each as often as it is named."""
        processes = [self._celery(f"{kind}{number}", kind) for number, kind in enumerate(kinds)]
        with (self.folder / "workers.log").open("ab") as log:
            children = [spawn(process, stdout=log) for process in processes]
        try:
            yield
        finally:
            for process, child in zip(processes, children, strict=True):
                end(process, child)

    def end_workers(self, besides: Worker | None = None) -> None:
        """End every worker without Celery that still runs."""
        for worker in [each for each in self._workers if each is not besides]:
            worker.stop()
            self._workers.remove(worker)

    def pids(self, *words: str) -> list[int]:
        """Processes below this one whose command line has all these words, the leash left out."""
        found = descendants(os.getpid())
        return sorted(pid for pid, (_, command) in found.items() if all(word in command for word in words))

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
        """Signal a process; False when it has gone already."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def crash_database(self) -> None:
        """Immediate stop, as a crash; the supervisor starts it again. Returns when it has gone."""
        pid = self.supervisor.pids()["postgres"]
        os.kill(pid, signal.SIGQUIT)
        assert eventually(lambda: self.supervisor.pids().get("postgres") != pid)

    def await_database(self, within: float = 30.0) -> None:
        """Wait until PostgreSQL answers again."""

        def answers() -> bool:
            try:
                self.query("SELECT 1")
            except UnavailableError:
                return False
            return True

        assert eventually(answers, within)

    # People

    def join(self, count: int, tag: str = "") -> list[str]:
        """So many new people, enrolled in the campaign; returns their addresses."""
        made = [f"p{next(self._numbers)}{tag}@example.com" for _ in range(count)]
        with self.installation.database.transaction() as connection:
            for address in made:
                self.ids[address] = rows.subscriber(connection, address, pepper=self.installation.pepper, timezone=None)
            enroll.enroll(connection, CAMPAIGN, [self.ids[address] for address in made], actor="test")
        self.people += made
        return made

    def leave(self, address: str, *, patience: float = 10.0) -> int:
        """Unsubscribe over the page, by any message of theirs; notes when the 2xx had come. Returns the status."""
        return self.post_leave(address, self.unsubscribe_link(address), patience=patience)

    def unsubscribe_link(self, address: str) -> str:
        """The link that any of this person's emails carries."""
        query = "SELECT min(id), wall() FROM message WHERE subscriber_id = :id"
        ((message, now),) = self.query(query, id=self.ids[address])
        return f"{self.web_url}/u/{sign(self.installation.keys, Purpose.UNSUBSCRIBE, message, now)}"

    def post_leave(self, address: str, link: str, *, patience: float = 10.0) -> int:
        """Press the mail program's button until it is answered."""
        self.note_leaving(address, None)
        limit = time.monotonic() + patience
        status = 0
        while time.monotonic() < limit:
            try:
                status = self.http.post(link, data={"List-Unsubscribe": "One-Click"}).status_code
            except httpx2.TransportError:
                status = 0
            if 200 <= status < 300:
                self.note_leaving(address, time.time())
                return status
            time.sleep(0.1)
        return status

    def note_leaving(self, address: str, answered: float | None) -> None:
        """Write down that somebody tried to leave, or when they had been told that they had."""
        line = json.dumps({"address": address, "answered": answered}) + "\n"
        with self._note_lock, self.notes.open("a", encoding="utf-8") as file:
            file.write(line)

    # Time and the end

    def query(self, statement: str, **values: object) -> list[tuple[Any, ...]]:
        """The rows of a query, on the test's own connection."""
        with self.installation.database.transaction() as connection:
            return [tuple(row) for row in connection.execute(text(statement), values)]

    def change(self, statement: str, **values: object) -> None:
        """Change rows, on the test's own connection."""
        with self.installation.database.transaction() as connection:
            connection.execute(text(statement), values)

    def control(self, name: str, wish: object = None) -> dict[str, Any]:
        """Ask or tell the sandbox."""
        url = f"{self.sandbox_url}/control/{name}"
        response = self.http.get(url) if wish is None else self.http.post(url, json=wish)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def quiet(self, within: float) -> bool:
        """Whether everything comes to rest in time: nobody due, nothing in a batch, no event on its way."""
        return advance.quiet(
            self.installation.database, patience=within, also=lambda: int(self.control("pending")["pending"])
        )

    def mailed(self, people: Sequence[str]) -> bool:
        """Whether the sandbox has accepted a mail to each of these addresses."""
        got = {mail.address for mail in self.mails()}
        return all(judge.address_hash(address) in got for address in people)

    def left(self) -> dict[str, int]:
        """What is not at rest."""
        with self.installation.database.transaction() as connection:
            return dict(reports.unsettled(connection, clock.read(connection).now))

    def finish(self, within: float) -> None:
        """Move campaign time on, moment by moment, until everybody has every email.

        Fails when nothing has come nearer to its end for `within` seconds. How long all of it takes is the machine's.
        """
        database = self.installation.database
        while True:
            left, accepted = 10**9, -1
            while not self.quiet(within):
                before, left = left, sum(self.left().values())
                more = len(self.mails()) > accepted
                assert left < before or more, (self.seed, self.left())
                accepted = len(self.mails())
            with database.transaction() as connection:
                if reports.next_due(connection) is None:
                    return
                end = clock.read(connection).now + timedelta(days=60)
            advance.step(database, end, timedelta(hours=1))

    def mails(self) -> list[judge.Mail]:
        """What the sandbox's ledger file holds."""
        return judge.read_ledger(bootstrap.sandbox_folder(self._settings()) / "ledger.jsonl")

    def verdict(self, steps: int | None = None, *, may_hold: bool = False) -> judge.Verdict:
        """The judge, when everybody was to get the first `steps` emails (None: all)."""
        with self.installation.database.snapshot() as connection:
            record = judge.read_record(connection)
        return judge.judge(
            self.mails(),
            record,
            judge.read_leavings(self.notes),
            campaign=CAMPAIGN,
            steps=self.steps[:steps],
            people=self.people,
            may_hold=may_hold,
        )

    def got(self, address: str) -> list[str]:
        """The batches in which the sandbox accepted a mail to this address."""
        return [str(mail.batch) for mail in self.mails() if mail.address == judge.address_hash(address)]


@contextlib.contextmanager
def working(worker: Worker) -> Iterator[None]:
    """This worker works meanwhile, and rests afterwards."""
    worker.say("go")
    try:
        yield
    finally:
        worker.say("rest")


def until(claim: Callable[[], bool], within: float, what: str) -> None:
    """Wait for something to happen; say what did not."""
    assert eventually(claim, within), what


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _through(url: str, line: Proxy) -> str:
    return url.replace(f":{_port(url)}/", f":{line.port}/")
