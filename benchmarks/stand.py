"""What the benchmarks of the web share: an installation full of mailed people, the real web process, a plain client.

It measures nothing by itself. Servers are the embedded ones with fsync on, in a folder that goes when it is done.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ground import line
from sqlalchemy import text

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.services import publish
from dripwell.settings import Settings

CAMPAIGN = "seven-benefits"
BATCH = 1000


def say(name: str, value: float, unit: str, ratio: float | None) -> None:
    """One figure, whose ratio is good from 1 on; None: it has no bar."""
    line(name, value, unit, ratio, None if ratio is None else 1.0)


@contextmanager
def opened(webhook_key: str | None = None) -> Iterator[Installation]:
    """A fresh installation on embedded servers."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as another user, who must get in
        settings = Settings(state_dir=Path(folder), webhook_key=webhook_key)
        with bootstrap.opened(settings, Path.cwd()) as installation:
            yield installation


def environment(installation: Installation) -> dict[str, str]:
    """The environment in which another process opens the same installation."""
    found = {
        "DATABASE_URL": installation.database.dsn,
        "REDIS_URL": bootstrap.broker_url(installation.settings),
        "DRIPWELL_STATE_DIR": str(installation.settings.state_dir),
        "PYTHONPATH": str(Path.cwd()),
    }
    if installation.settings.webhook_key is not None:
        found["DRIPWELL_WEBHOOK_KEY"] = installation.settings.webhook_key
    return Settings.environment(**found)


@contextmanager
def process(command: Sequence[str], env: dict[str, str], *, ready: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours; ended by SIGTERM. With `ready` it is waited for until it prints a line."""
    running = subprocess.Popen(command, env=env, stdout=subprocess.PIPE if ready else None)
    try:
        if running.stdout is not None and not running.stdout.readline():
            raise SystemExit("a process of the benchmark ended before it was ready")
        yield running
    finally:
        running.terminate()
        running.wait(30)


@contextmanager
def web(installation: Installation) -> Iterator[int]:
    """The real web process; yields its port once it answers."""
    port = free_port()
    with process([sys.executable, "-m", "dripwell.web", "--port", str(port)], environment(installation)) as running:
        until = time.monotonic() + 60
        while not _answers(port):
            if running.poll() is not None or time.monotonic() > until:
                raise SystemExit("the web process did not start")
            time.sleep(0.05)
        yield port


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


_FILL = (
    """
INSERT INTO subscriber (public_id, address, addr_hash, state, timezone, fields, joined_at)
SELECT gen_random_uuid(), 'somebody.' || n || '@example.com', sha256(CAST('somebody.' || n AS bytea)), 'active',
       'America/Los_Angeles', '{"first_name": "Maria"}', wall()
  FROM generate_series(1, :people) AS n
""",
    """
INSERT INTO enrollment (subscriber_id, campaign_id, version_id, state, joined_at, anchor_at, next_due_at)
SELECT subscriber.id, campaign.id, campaign.version_id, 'mailing', wall(), wall(), wall()
  FROM subscriber, campaign
 WHERE campaign.name = :campaign
 ORDER BY subscriber.id
""",
    """
INSERT INTO message (public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane, state, due_at, addr_hash)
SELECT gen_random_uuid(), enrollment.id, enrollment.subscriber_id, enrollment.campaign_id, :step_key, 'drip', 'PLANNED',
       wall(), subscriber.addr_hash
  FROM enrollment JOIN subscriber ON subscriber.id = enrollment.subscriber_id
 ORDER BY enrollment.id
""",
)
_ACCEPT = (
    """
INSERT INTO batch (provider, lane, campaign_id, step_key, version_id, state, outcome, owner_nonce, host, boot_id, pid,
                   lease_until, called_at, resolved_at, message_ids)
SELECT 'sendgrid', 'drip', min(campaign_id), :step_key, min(version_id), 'DONE', 'accepted', gen_random_uuid(), 'bench',
       'bench', 1, wall(), wall(), wall(), array_agg(message_id ORDER BY message_id)
  FROM (SELECT message.id AS message_id, message.campaign_id, enrollment.version_id,
               (row_number() OVER (ORDER BY message.id) - 1) / :size AS number
          FROM message JOIN enrollment ON enrollment.id = message.enrollment_id) AS mailed
 GROUP BY number
 ORDER BY number
""",
    """
UPDATE message SET state = 'ACCEPTED', accepted_at = wall(), batch_id = batch.id
  FROM batch CROSS JOIN LATERAL unnest(batch.message_ids) AS called (message_id)
 WHERE message.id = called.message_id
""",
    """
UPDATE enrollment SET state = 'waiting', cursor_key = :step_key, next_due_at = wall() + interval '3 days'
""",
)


@dataclass(frozen=True, slots=True)
class Mail:
    """One email as the outside knows it; a planned one has no batch yet."""

    id: int
    message: str
    batch: int | None
    address: str


def fill(installation: Installation, people: int, *, accepted: bool = True) -> list[Mail]:
    """Publish the campaign; give so many people its first email, accepted in batches of 1,000 or planned and due."""
    with installation.database.transaction() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        versions = installation.versions
        publish.apply(
            connection,
            installation.sources(CAMPAIGN),
            CAMPAIGN,
            actor="bench",
            live=False,
            versions=versions,
            new_id=installation.new_id,
        )
        publish.approve(connection, CAMPAIGN, actor="clinical-review@kcla.example", versions=versions)
        publish.start(connection, CAMPAIGN, actor="bench", live=False, versions=versions)
        step_key = connection.execute(text("SELECT min(step_key) FROM link WHERE step_key LIKE '1-%'")).scalar_one()
        values = {"people": people, "step_key": step_key, "campaign": CAMPAIGN, "size": BATCH}
        connection.execute(text("UPDATE lane_state SET batch_limit = :size"), {"size": BATCH})
        for statement in (*_FILL, *(_ACCEPT if accepted else ())):
            needed = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(text(statement), needed)
    with installation.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        rows = connection.execute(
            text(
                "SELECT message.id, message.public_id, message.batch_id, subscriber.address"
                " FROM message JOIN subscriber ON subscriber.id = message.subscriber_id ORDER BY message.id"
            )
        )
        return [Mail(row.id, row.public_id.hex, row.batch_id, row.address) for row in rows]


@dataclass(slots=True)
class Answers:
    """What came back: seconds from the moment a request was due until its answer was whole, by request, and when."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    done_at: dict[int, float] = field(default_factory=dict)
    took: float = 0.0

    def quantile(self, share: float) -> float:
        """The time within which this share of the requests was answered."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def ask(
    port: int,
    count: int,
    request: Callable[[int], bytes],
    *,
    connections: int = 16,
    rate: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Answers:
    """Send `count` requests over kept connections: as fast as answers come, or at `rate` a second whatever comes.

    At a rate, a request's time begins when it was due, so a stalled server cannot hide what waits behind it. `done_at`
    is by `clock`, for those answered with 2xx.
    """
    answers = Answers()
    asyncio.run(_ask(port, count, request, connections, rate, answers, clock))
    return answers


async def _ask(
    port: int,
    count: int,
    request: Callable[[int], bytes],
    connections: int,
    rate: float | None,
    answers: Answers,
    clock: Callable[[], float],
) -> None:
    numbers = iter(range(count))
    began = time.monotonic()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            due = time.monotonic()
            if rate is not None:
                due = began + number / rate
                if (early := due - time.monotonic()) > 0:
                    await asyncio.sleep(early)
            writer.write(request(number))
            await writer.drain()
            status = await _answer(reader)
            answers.seconds.append(time.monotonic() - due)
            answers.statuses[status] = answers.statuses.get(status, 0) + 1
            if 200 <= status < 300:
                answers.done_at[number] = clock()
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(connections)))
    answers.took = time.monotonic() - began


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    for header in head.split(b"\r\n"):
        if header.lower().startswith(b"content-length:"):
            await reader.readexactly(int(header[15:]))
    return status


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A POST as it goes over the wire."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def cores() -> int:
    """How many this machine has: the figures mean little without it."""
    return os.cpu_count() or 1
