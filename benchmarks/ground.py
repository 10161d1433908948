"""The ground all benchmarks stand on: embedded servers with fsync on, a fast sandbox, and people by the thousand.

Everything runs on this one machine, as the figures of the design ask. Rows of people and messages that a benchmark does
not measure are written by SQL; all that is measured goes through the program.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from dripwell import bootstrap
from dripwell.bootstrap import Connection, Installation
from dripwell.embedded.lock import running
from dripwell.services import publish
from dripwell.settings import Settings
from dripwell.storage import campaigns, clock

ROOT = Path(__file__).resolve().parent.parent
CAMPAIGN = "seven-benefits"
FIRST = "1-adaptability"
PIECE = 100_000


@dataclass(frozen=True)
class Ground:
    """An installation on servers of its own. `environment` opens the same one in another process."""

    installation: Installation
    environment: dict[str, str]
    folder: Path

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        """Run a script or module of ours (`-m name`) in another process on this ground."""
        return subprocess.Popen(
            [sys.executable, *script.split(), *arguments], cwd=ROOT, env=self.environment, text=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip


@contextmanager
def ground(*, sandbox: Sequence[str] = ("--fast",)) -> Iterator[Ground]:
    """Servers in a throw-away folder and a sandbox process; `sandbox` is its further options."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        provider = subprocess.Popen(
            [sys.executable, "-m", "dripwell.sandbox", "--port", "0", "--state", str(folder / "provider"),
             "--key", bootstrap.SANDBOX_KEY, "--seed", "1", *sandbox],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            url = _address(provider)
            settings = Settings(state_dir=folder, provider_url=url)
            with bootstrap.opened(settings, ROOT) as installation:
                database = installation.database.dsn
                redis = _redis(folder)
                environment = {
                    **os.environ,
                    "DATABASE_URL": database,
                    "REDIS_URL": redis,
                    "DRIPWELL_STATE_DIR": str(folder),
                    "DRIPWELL_PROVIDER_URL": url,
                    "PYTHONPATH": str(ROOT),
                }
                yield Ground(installation, environment, folder)
        finally:
            provider.terminate()
            provider.wait()


def _address(provider: subprocess.Popen[str]) -> str:
    assert provider.stdout is not None
    for line in provider.stdout:
        for word in line.split():
            if word.startswith("http://127.0.0.1:"):
                return word.rstrip("/.,")
    raise SystemExit("the sandbox did not start")


def _redis(folder: Path) -> str:
    info = running(folder)
    assert info is not None
    return info.addresses["redis"]


def running_campaign(connection: Connection, installation: Installation) -> datetime:
    """Apply, approve and start the seven benefits on a Monday morning; returns the campaign time."""
    now = clock.read(connection).now
    monday = (now + timedelta(days=(7 - now.weekday()) % 7 or 7)).replace(hour=18, minute=30)
    times = clock.forward(connection, monday)
    publish.apply(
        connection, installation.sources(CAMPAIGN), CAMPAIGN, actor="bench", live=False,
        versions=installation.versions, new_id=installation.new_id,
    )  # fmt: skip
    publish.approve(connection, CAMPAIGN, actor="clinical-review@kcla.example", versions=installation.versions)
    publish.start(connection, CAMPAIGN, actor="bench", live=False, versions=installation.versions)
    connection.execute(text("UPDATE lane_state SET batch_limit = 1000"))
    return times.now


# people: everybody active and agreed, in the clinic's own time zone.
_PEOPLE = text("""
WITH added AS (
  INSERT INTO subscriber (public_id, address, addr_hash, state, timezone, fields, joined_at)
  SELECT CAST(md5('person ' || n) AS uuid), 'somebody.' || n || '@example.com',
         sha256(CAST('somebody.' || n AS bytea)), 'active', 'America/Los_Angeles', '{"first_name": "Maria"}',
         CAST(:now AS timestamptz) - interval '10 days'
    FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
  RETURNING id
)
INSERT INTO consent (subscriber_id, topic, action, source, given_at)
SELECT id, :topic, 'give', 'benchmark', CAST(:now AS timestamptz) - interval '10 days' FROM added
""")

# messages: the first email of everybody in this range, planned and due.
_MESSAGES = text("""
WITH joined AS (
  INSERT INTO enrollment (subscriber_id, campaign_id, version_id, state, joined_at, anchor_at, next_due_at)
  SELECT subscriber.id, :campaign_id, :version_id, 'mailing', :now, :now, :now
    FROM subscriber WHERE id BETWEEN :first AND :last
  RETURNING id, subscriber_id
)
INSERT INTO message (public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane, state, due_at, addr_hash)
SELECT CAST(md5('message ' || joined.id) AS uuid), joined.id, joined.subscriber_id, :campaign_id, :key, :lane,
       'PLANNED', :now, subscriber.addr_hash
  FROM joined JOIN subscriber ON subscriber.id = joined.subscriber_id
 ORDER BY joined.id
""")


def fill(installation: Installation, people: int, *, planned: bool = True, lane: str = "drip") -> None:
    """So many people, each with the first email of the seven benefits planned and due."""
    with installation.database.transaction() as connection:
        now = running_campaign(connection, installation)
        row = campaigns.by_name(connection, CAMPAIGN)
        assert row is not None
    topic = installation.site.topics[0].name
    for first in range(1, people + 1, PIECE):
        last = min(people, first + PIECE - 1)
        values = {"first": first, "last": last, "now": now}
        with installation.database.transaction() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            before = connection.execute(text("SELECT coalesce(max(id), 0) FROM subscriber")).scalar_one()
            connection.execute(_PEOPLE, {**values, "topic": topic})
            if planned:
                connection.execute(
                    _MESSAGES,
                    {
                        **values, "first": before + 1, "last": before + last - first + 1, "campaign_id": row.id,
                        "version_id": row.version_id, "key": FIRST, "lane": lane,
                    },
                )  # fmt: skip
    settle_down(installation)


def settle_down(installation: Installation) -> None:
    """What a filled table needs before anything is measured on it."""
    with installation.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))


def count(installation: Installation, state: str) -> int:
    """How many messages are in a state."""
    with installation.database.transaction() as connection:
        found: int = connection.execute(
            text("SELECT count(*) FROM message WHERE state = :state"), {"state": state}
        ).scalar_one()
    return found


def machine() -> str:
    """One line about this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((one.partition(":")[2].strip() for one in lines if "model name" in one), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GB, {system}"


def line(name: str, value: float, unit: str, ratio: float | None, bar: float | None = None, note: str = "") -> None:
    """Print one figure, the ratio first, because that is what tells. See `docs/reference/benchmarks.md`.

    `bar` is what the ratio has to reach; a ratio is always made so that more is better. None: there is none. Columns
    are parted by two spaces or more, and `run.py` reads them, so no other text may hold two spaces.
    """
    said = "-" if ratio is None else f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"
    verdict = "no bar" if bar is None or ratio is None else f"{'meets' if round(ratio, 2) >= bar else 'BELOW'} {bar:g}"
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    print(f"{said:>8}  {verdict:11}  {name:56}  {shown:>12}  {unit:14}  {note}".rstrip(), flush=True)


def within(limit: float, measured: float) -> float:
    """The ratio of something that may be `limit` at most: 1 and above is good. Never more than 99."""
    return min(99.0, limit / measured) if measured > 0 else 99.0


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def seconds(self) -> float:
        """How long it has been."""
        return time.perf_counter() - self._began
