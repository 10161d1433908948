"""Figure (j): `dripwell subscribers import` of a CSV file, against a bare COPY of the same rows.

The real command in a process of its own, with a column for each thing it knows: address, first name, time zone,
relationship, two fields of the marketer's own. The baseline, measured in the same run: COPY of the same file into a
table without an index or a check, which is what PostgreSQL alone can do. Then the command runs again on the same file:
nobody is added twice, and that is checked. Last, on a record of its own, the same file comes in while the command is
killed with -9 three times and started again: counts and a checksum over the tables must be those of the first run.

A million rows, and the bar is 20,000 rows a second on two cores (`--quick` takes 20,000 rows, `--rows N` any number).
Memory is the command's largest resident size: with 100,000 rows and with a million it is the same, and a file of a
tenth of the rows is imported before to show it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from ground import ROOT, Ground, Watch, ground, line, machine
from sqlalchemy import text

ROWS, QUICK = 1_000_000, 20_000
BAR = 20_000
ZONES = ("America/Los_Angeles", "America/New_York", "America/Chicago", "")
PIECE = 1 << 16
KILLS = 3

# sums: everything an import decides, whatever the order of ids; its own number stands in sources.
_SUMS = text("""
SELECT (SELECT count(*) FROM subscriber), (SELECT count(*) FROM consent),
       (SELECT sum(hashtextextended(concat_ws('|', address, state, timezone, fields, tags,
                                              relationship), 0)) FROM subscriber),
       (SELECT sum(hashtextextended(concat_ws('|', subscriber.address, consent.topic, consent.action,
                                              regexp_replace(consent.source, '[0-9]+', ''), consent.wording_version,
                                              consent.given_at), 0))
          FROM consent JOIN subscriber ON subscriber.id = consent.subscriber_id)
""")


def main() -> None:
    """Import, import again, copy, import while being killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    rows = QUICK if given.quick else given.rows
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        file, tenth = Path(folder) / "people.csv", Path(folder) / "tenth.csv"
        _write(file, rows)
        _write(tenth, rows // 10, "other")
        with ground() as here:
            copied = rows / _copy(here, file)
            _, _, small_memory = _import(here, tenth)
            first, seconds, memory = _import(here, file)
            assert (first["added"], first["known"], first["refused"]) == (rows, 0, 0), first
            again, seconds_again, memory_again = _import(here, file, "--again")
            assert (again["added"], again["known"], again["refused"]) == (0, rows, 0), again
        with ground() as here:
            _import(here, tenth)
            _import(here, file)
            whole = _sums(here)
        with ground() as here:
            _import(here, tenth)
            found = _killed(here, file, rows)
            broken = _sums(here)
        assert found["added"] == rows, found
        assert broken == whole, (broken, whole)
    rate = rows / seconds
    line(f"(j) import of {rows:,}, of 20,000 a second", rate, "rows/s", rate / BAR, 1.0, note=f"{seconds:.1f} s")
    line("(j) the same, of a bare COPY", rate, "rows/s", rate / copied)
    line("(j) the same file again, of a bare COPY", rows / seconds_again, "rows/s", rows / seconds_again / copied,
         note=f"{seconds_again:.1f} s, nobody twice")  # fmt: skip
    line("(j) a bare COPY of the same rows", copied, "rows/s", None)
    line("(j) largest memory of the command", max(memory, memory_again), "MB", None)
    line(f"(j) largest memory with {rows // 10:,} rows", small_memory, "MB", None)
    line("(j) killed with -9 and gone on with, same counts and sums", KILLS, "times", None)


def _write(file: Path, rows: int, name: str = "somebody") -> None:
    with file.open("w", encoding="utf-8") as out:
        out.write("email,first_name,timezone,relationship,city,heard_from\n")
        for number in range(rows):
            zone = ZONES[number % len(ZONES)]
            out.write(f"{name}.{number}@example.com,Maria {number % 997},{zone},prospect,Pasadena,a friend\n")


def _command(here: Ground, file: Path, *more: str) -> list[str]:
    topic = here.installation.site.topics[0].name
    return [sys.executable, "-m", "dripwell.cli", "subscribers", "import", str(file), "--topic", topic,
            "--source", "benchmark", "--given-at", "2026-01-05", "--json", *more]  # fmt: skip


def _import(here: Ground, file: Path, *more: str) -> tuple[dict[str, object], float, float]:
    """(what the command answered, seconds, MB at most)."""
    watch = Watch()
    with tempfile.TemporaryFile("w+") as answer:
        running = subprocess.Popen(_command(here, file, *more), cwd=ROOT, env=here.environment, stdout=answer)
        _, status, used = os.wait4(running.pid, 0)  # the memory of this child alone
        seconds = watch.seconds()
        running.returncode = os.waitstatus_to_exitcode(status)
        assert running.returncode == 0, f"the import ended with {running.returncode}"
        answer.seek(0)
        found: dict[str, object] = json.load(answer)
    return found, seconds, used.ru_maxrss / 1024


def _killed(here: Ground, file: Path, rows: int) -> dict[str, object]:
    """Import while the command is killed `KILLS` times on the way; what it answered at last."""
    for kill in range(1, KILLS + 1):
        running = subprocess.Popen(_command(here, file), cwd=ROOT, env=here.environment, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        wanted = rows * kill // (KILLS + 1)
        while _read(here) < wanted:
            assert running.poll() is None, "the import ended before it was killed"
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        running.wait()
    found, _, _ = _import(here, file)
    assert int(str(found["resumed_at"])) > 0, found
    return found


def _read(here: Ground) -> int:
    with here.installation.database.transaction() as connection:
        newest = "SELECT rows_read FROM import_run WHERE file = 'people.csv' ORDER BY id DESC LIMIT 1"
        return int(connection.execute(text(newest)).scalar() or 0)


def _sums(here: Ground) -> tuple[object, ...]:
    with here.installation.database.transaction() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        return tuple(connection.execute(_SUMS).one())


def _copy(here: Ground, file: Path) -> float:
    """Seconds of a COPY of the file into a plain table, from the first byte to its commit."""
    with here.installation.database.transaction() as connection:
        connection.execute(
            text(
                "CREATE TABLE bare (email text, first_name text, timezone text, relationship text, city text,"
                " heard_from text)"
            )
        )
    watch = Watch()
    with here.installation.database.transaction() as connection, file.open("rb") as rows:
        session = connection.connection.dbapi_connection
        assert isinstance(session, psycopg.Connection)
        with session.cursor().copy("COPY bare FROM STDIN (FORMAT csv, HEADER)") as copy:
            while piece := rows.read(PIECE):
                copy.write(piece)
    seconds = watch.seconds()
    with here.installation.database.transaction() as connection:
        connection.execute(text("DROP TABLE bare"))
    return seconds


if __name__ == "__main__":
    main()
