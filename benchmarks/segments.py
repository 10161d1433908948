"""How long a segment takes to count, over a million subscribers.

Every kind of question is counted over the whole record, and one that joins them all. People have a state, some a tag;
everybody agreed to a topic and a tenth took it back; a third got an email, a fifth of these clicked, some through a
scanner; a tenth have an event behind them. Then the planner's question: a thousand people at once against the largest
segment, as an audience asks. Read it as: a figure over 1.00 is faster than asked for.

    python benchmarks/segments.py             1,000,000 people, about three minutes
    python benchmarks/segments.py --quick     100,000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import datetime
from pathlib import Path

from ground import line, machine, within
from sqlalchemy import text

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.core.conditions import All, Any, Clicked, Condition, FieldIs, Happened, HasTag, HasTopic, Joined, Not
from dripwell.core.duration import Duration
from dripwell.settings import Settings
from dripwell.storage import clock, segments

SIZE, QUICK = 1_000_000, 100_000
SECONDS = 5.0
"""What a count over a million may take; in proportion over fewer."""
MONTH = Duration(30, "day")
QUESTIONS: dict[str, Condition] = {
    "a field": FieldIs("state", ("CA", "NV")),
    "a tag": HasTag("staff"),
    "a topic": HasTopic("seven-part-series"),
    "not a topic": Not(HasTopic("seven-part-series")),
    "an event": Happened("consultation.booked", MONTH),
    "not an event": Not(Happened("consultation.booked")),
    "a click": Clicked("seven-benefits", None, MONTH),
    "not a click": Not(Clicked("seven-benefits", "1-adaptability")),
    "joined": Joined(MONTH),
    "all of them": All(
        (
            Any((FieldIs("state", ("CA",)), Clicked("seven-benefits", None, MONTH))),
            HasTopic("seven-part-series"),
            Not(HasTag("staff")),
            Not(Happened("consultation.booked", MONTH)),
            Not(Joined(Duration(1, "day"))),
        )
    ),
}


def main() -> None:
    """Fill a record, ask every question, print what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    size = asked.people or (QUICK if asked.quick else SIZE)
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with bootstrap.opened(Settings(state_dir=Path(folder)), Path.cwd()) as installation:
            now = _fill(installation, size)
            bound = max(0.5, SECONDS * size / SIZE)
            for name, condition in QUESTIONS.items():
                with installation.database.snapshot() as connection:
                    began = time.perf_counter()
                    found = segments.count(connection, condition, {}, now)
                    took = time.perf_counter() - began
                line(f"(k) {name}, of {size:,}", took, "s", within(bound, took), 1.0, f"{found.people:,} people")
            with installation.database.snapshot() as connection:
                few = list(range(1, min(size, 1001)))
                began = time.perf_counter()
                segments.among(connection, few, QUESTIONS["all of them"], {}, now)
                took = (time.perf_counter() - began) * 1000
                line("(k) an audience asked about 1,000", took, "ms", within(250.0, took), 1.0, "")
                began = time.perf_counter()
                told = sum(1 for _ in segments.members(connection, QUESTIONS["a topic"], {}, now))
                took = time.perf_counter() - began
                line(f"(k) every id of {told:,}", took, "s", within(2 * bound, took), 1.0, "through a cursor")


# people and what they said: the newest word of a tenth is no.
_PEOPLE = text("""
INSERT INTO subscriber (public_id, address, addr_hash, state, fields, tags, joined_at)
SELECT CAST(md5('person ' || n) AS uuid), 'somebody.' || n || '@example.com', sha256(CAST('somebody.' || n AS bytea)),
       'active', jsonb_build_object('first_name', 'Maria', 'state', (ARRAY['CA', 'NV', 'NY', 'TX', 'WA'])[1 + n % 5]),
       CASE WHEN n % 1000 = 0 THEN ARRAY['staff'] ELSE '{}' END,
       CAST(:now AS timestamptz) - interval '1 day' * (n % 365)
  FROM generate_series(1, CAST(:size AS bigint)) AS n
""")
_CONSENTS = text("""
INSERT INTO consent (subscriber_id, topic, action, source, given_at)
SELECT n, 'seven-part-series', 'give', 'benchmark', :now FROM generate_series(1, CAST(:size AS bigint)) AS n
 UNION ALL
SELECT n * 10, 'seven-part-series', 'withdraw', 'benchmark', :now
  FROM generate_series(1, CAST(:size AS bigint) / 10) AS n
""")
_EVENTS = text("""
INSERT INTO happening (subscriber_id, event, at)
SELECT n * 10, 'consultation.booked', CAST(:now AS timestamptz) - interval '1 day' * (n % 100)
  FROM generate_series(1, CAST(:size AS bigint) / 10) AS n
""")
_PASSAGES = text("""
INSERT INTO enrollment (subscriber_id, campaign_id, version_id, joined_at, anchor_at, next_due_at)
SELECT n * 3, :campaign_id, :version_id, :now, :now, :now FROM generate_series(1, CAST(:size AS bigint) / 3) AS n
""")
_MESSAGES = text("""
INSERT INTO message (public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane, state, reason, due_at)
SELECT CAST(md5('message ' || id) AS uuid), id, subscriber_id, campaign_id, '1-adaptability', 'drip', 'SKIPPED', 'x',
       :now
  FROM enrollment
""")
# clicks: every fifth message was clicked once or twice; on every twentieth a scanner followed four links at once.
_CLICKS = text("""
INSERT INTO click (message_id, number, at, wall_at)
SELECT id, 0, CAST(:now AS timestamptz) - interval '1 day' * (id % 60), CAST(:now AS timestamptz) + interval '1 hour'
  FROM message WHERE id % 5 = 0
 UNION ALL
SELECT id, number, CAST(:now AS timestamptz) - interval '1 day',
       CAST(:now AS timestamptz) + interval '1 millisecond' * number
  FROM message CROSS JOIN generate_series(0, 3) AS number WHERE id % 20 = 0
""")


def _fill(installation: Installation, size: int) -> datetime:
    with installation.database.transaction() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        values: dict[str, object] = {"now": clock.read(connection).now, "size": size}
        values["campaign_id"] = connection.execute(
            text(
                "INSERT INTO campaign (public_id, name, kind, state, topic) VALUES (CAST(md5('c') AS uuid),"
                " 'seven-benefits', 'drip', 'running', 'seven-part-series') RETURNING id"
            )
        ).scalar_one()
        values["version_id"] = connection.execute(
            text(
                "INSERT INTO campaign_version"
                " (campaign_id, number, definition, structure_hash, content_hash, applied_by)"
                " VALUES (:campaign_id, 1, '{}', 's', 'c', 'benchmark') RETURNING id"
            ),
            values,
        ).scalar_one()
        for statement in (_PEOPLE, _CONSENTS, _EVENTS, _PASSAGES, _MESSAGES, _CLICKS):
            connection.execute(statement, values)
    with installation.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
    now = values["now"]
    assert isinstance(now, datetime)
    return now


if __name__ == "__main__":
    main()
