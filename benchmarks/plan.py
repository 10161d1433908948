"""Figure (c): how long the planner takes to pick and to decide for 1,000 people, as the record grows.

Fills an embedded PostgreSQL of its own with 100 thousand, 1 million and 10 million enrollments (the last takes about 12
GB of disk and half an hour), half of them with an accepted email behind them, and measures at each size:

- pick: `claim_due` alone, 1,000 rows. Bars: p99 under 250 ms, and at the largest size at most 1.5 times p99 at the
  smallest. There are 40 picks, so p99 is the slowest of them.
- slice: `plan_slice`, from the pick to the commit. Bar: 10,000 enrollments a second in one process.

Nothing is random; fsync is on. `--sizes 200000 500000` measures other sizes, 100,000 or
more; `--quick` 100,000 and 300,000.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ground import line, machine, within
from sqlalchemy import text

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.services import plan, publish
from dripwell.settings import Settings
from dripwell.storage import campaigns, clock, enrollments

CAMPAIGN = "seven-benefits"
SIZES = (100_000, 1_000_000, 10_000_000)
QUICK = (100_000, 300_000)
ROUNDS = 40
DUE = (ROUNDS + 5) * plan.SLICE
PIECE = 500_000


@dataclass(frozen=True, slots=True)
class Figures:
    """What one size took: milliseconds of each pick, seconds of each slice."""

    size: int
    picks: list[float]
    slices: list[float]


def main() -> None:
    """Measure each size on a database of its own and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    print(machine())
    measured = [_print(_measure(size)) for size in asked.sizes or (QUICK if asked.quick else SIZES)]
    smallest, largest = measured[0], measured[-1]
    growth = _percentile(largest.picks, 99) / _percentile(smallest.picks, 99)
    name = f"(c) pick p99 at {largest.size:,}, of at {smallest.size:,}"
    line(name, growth, "times", within(1.5, growth), 1.0, "at most 1.5 times")


def _measure(size: int) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with bootstrap.opened(Settings(state_dir=Path(folder)), Path.cwd()) as installation:
            _fill(installation, size)
            picks, slices = [], []
            for _ in range(ROUNDS):
                with installation.database.transaction() as connection:
                    now = clock.read(connection).now
                    began = time.perf_counter()
                    claimed = enrollments.claim_due(connection, now, plan.SLICE)
                    picks.append((time.perf_counter() - began) * 1000)
                    connection.rollback()
                assert len(claimed) == plan.SLICE, len(claimed)
                began = time.perf_counter()
                with installation.database.transaction() as connection:
                    decided = plan.plan_slice(connection, installation.versions, plan.SLICE)
                slices.append(time.perf_counter() - began)
                assert decided == plan.SLICE, decided
            with installation.database.transaction() as connection:
                planned = connection.execute(text("SELECT count(*) FROM message WHERE state = 'PLANNED'")).scalar_one()
            assert planned == ROUNDS * plan.SLICE, planned
    return Figures(size, picks, slices)


def _print(figures: Figures) -> Figures:
    rate = plan.SLICE * len(figures.slices) / sum(figures.slices)
    p50, p99 = _percentile(figures.picks, 50), _percentile(figures.picks, 99)
    line(f"(c) pick of 1,000 among {figures.size:,}, p99", p99, "ms", within(250.0, p99), 1.0, f"p50 {p50:.1f} ms")
    slices = [seconds * 1000 for seconds in figures.slices]
    note = f"slice p50 {_percentile(slices, 50):.0f} ms, p99 {_percentile(slices, 99):.0f} ms"
    line(f"(c) planned among {figures.size:,}, one process", rate, "enrollments/s", rate / 10_000, 1.0, note)
    return figures


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


# people: four time zones, everybody active, everybody agreed.
_PEOPLE = text("""
INSERT INTO subscriber (public_id, address, addr_hash, state, timezone, fields, joined_at)
SELECT CAST(md5('person ' || n) AS uuid), 'somebody.' || n || '@example.com', sha256(CAST('somebody.' || n AS bytea)),
       'active', (ARRAY['America/Los_Angeles', 'America/New_York', 'America/Chicago', NULL])[1 + n % 4],
       '{"first_name": "Maria"}', CAST(:now AS timestamptz) - interval '10 days'
  FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
""")
_CONSENTS = text("""
INSERT INTO consent (subscriber_id, topic, action, source, given_at)
SELECT n, :topic, 'give', 'benchmark', CAST(:now AS timestamptz) - interval '10 days'
  FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
""")

# passages: `due` of them, all over the table, were due within the last hour; the others are over the next two weeks.
# Every second one has the first email behind it.
_PASSAGES = text("""
INSERT INTO enrollment (subscriber_id, campaign_id, version_id, cursor_key, joined_at, anchor_at, next_due_at)
SELECT n, :campaign_id, :version_id, CASE WHEN n % 2 = 0 THEN CAST(:key AS text) END,
       CAST(:now AS timestamptz) - interval '10 days', CAST(:now AS timestamptz) - interval '4 days',
       CASE WHEN n % :every = 1 OR n % :every = 2
            THEN CAST(:now AS timestamptz) - interval '1 hour' * ((n * 7919) % 3600) / 3600.0
            ELSE CAST(:now AS timestamptz) + interval '1 day' + interval '1 second' * ((n * 7919) % 1209600) END
  FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
""")
_HISTORY = text("""
INSERT INTO message (public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane, state, batch_id, due_at,
                     accepted_at, delivery)
SELECT CAST(md5('message ' || n) AS uuid), n, n, :campaign_id, :key, 'drip', 'ACCEPTED', :batch_id,
       CAST(:now AS timestamptz) - interval '4 days', CAST(:now AS timestamptz) - interval '4 days', 'delivered'
  FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
 WHERE n % 2 = 0
""")
_BATCH = text("""
INSERT INTO batch (provider, lane, campaign_id, step_key, version_id, state, outcome, owner_nonce, host, boot_id, pid,
                   lease_until, called_at, message_ids)
VALUES ('benchmark', 'drip', :campaign_id, :key, :version_id, 'DONE', 'accepted', CAST(md5('nonce') AS uuid), 'host',
        'boot', 1, :now, :now, '{}')
RETURNING id
""")


def _fill(installation: Installation, size: int) -> None:
    with installation.database.transaction() as connection:
        now = clock.read(connection).now
        monday = (now + timedelta(days=(7 - now.weekday()) % 7 or 7)).replace(hour=18, minute=45)
        now = clock.forward(connection, monday).now
        sources = installation.sources(CAMPAIGN)
        versions, new_id = installation.versions, installation.new_id
        publish.apply(connection, sources, CAMPAIGN, actor="bench", live=False, versions=versions, new_id=new_id)
        publish.approve(connection, CAMPAIGN, actor="clinical-review@kcla.example", versions=versions)
        publish.start(connection, CAMPAIGN, actor="bench", live=False, versions=versions)
        campaign = campaigns.by_name(connection, CAMPAIGN)
        assert campaign is not None
        values: dict[str, object] = {
            "now": now,
            "campaign_id": campaign.id,
            "version_id": campaign.version_id,
            "topic": campaign.topic,
            "key": "1-adaptability",
            "every": max(2, 2 * size // DUE),
        }
        values["batch_id"] = connection.execute(_BATCH, values).scalar_one()
    for first in range(1, size + 1, PIECE):
        _add(installation, {**values, "first": first, "last": min(size, first + PIECE - 1)})
    with installation.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))


def _add(installation: Installation, values: dict[str, object]) -> None:
    with installation.database.transaction() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        for statement in (_PEOPLE, _CONSENTS, _PASSAGES, _HISTORY):
            connection.execute(statement, values)


if __name__ == "__main__":
    main()
