"""Figure (j): `dripwell subscribers import` of a CSV file, against a bare COPY of the same rows.

The real command in a process of its own, with a column for each thing it knows: address, first name, time zone,
relationship, two fields of the marketer's own. The baseline, measured in the same run: COPY of the same file into a
table without an index or a check, which is what PostgreSQL alone can do. Then the command runs again on the same file:
nobody is added twice, and that is checked.

100,000 rows, not a million: each row is looked at by statements of its own, so a million would take an hour and tell
nothing more; the seconds for a million are computed from the rate and say so. `--rows 1000000` measures it all the
same, `--quick` takes 5,000. Memory is the command's largest resident size. There is no bar.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
from ground import ROOT, Ground, Watch, ground, line, machine
from sqlalchemy import text

ROWS, QUICK = 100_000, 5_000
MILLION = 1_000_000
ZONES = ("America/Los_Angeles", "America/New_York", "America/Chicago", "")
PIECE = 1 << 16


def main() -> None:
    """Import, import again, copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    rows = QUICK if given.quick else given.rows
    print(machine())
    with tempfile.TemporaryDirectory() as folder, ground() as here:
        file = Path(folder) / "people.csv"
        _write(file, rows)
        copied = rows / _copy(here, file)
        first, seconds, memory = _import(here, file)
        assert (first["added"], first["known"], first["bad"]) == (rows, 0, []), first
        again, seconds_again, memory_again = _import(here, file)
        assert (again["added"], again["known"], again["bad"]) == (0, rows, []), again
        with here.installation.database.transaction() as connection:
            people, agreed = connection.execute(
                text("SELECT (SELECT count(*) FROM subscriber), (SELECT count(*) FROM consent)")
            ).one()
        assert (people, agreed) == (rows, rows), (people, agreed)
    rate = rows / seconds
    line(f"(j) import of {rows:,}, of a bare COPY", rate, "rows/s", rate / copied, note=f"{seconds:.1f} s")
    line("(j) the same file again, of a bare COPY", rows / seconds_again, "rows/s", rows / seconds_again / copied,
         note=f"{seconds_again:.1f} s, nobody twice")  # fmt: skip
    line("(j) a bare COPY of the same rows", copied, "rows/s", None)
    line("(j) largest memory of the command", max(memory, memory_again), "MB", None)
    if rows != MILLION:
        line("(j) a million at this rate", MILLION / rate, "s", None, note="computed, not measured")


def _write(file: Path, rows: int) -> None:
    with file.open("w", encoding="utf-8") as out:
        out.write("email,first_name,timezone,relationship,city,heard_from\n")
        for number in range(rows):
            zone = ZONES[number % len(ZONES)]
            out.write(f"somebody.{number}@example.com,Maria {number % 997},{zone},prospect,Pasadena,a friend\n")


def _import(here: Ground, file: Path) -> tuple[dict[str, object], float, float]:
    """(what the command answered, seconds, MB at most)."""
    topic = here.installation.site.topics[0].name
    command = [sys.executable, "-m", "dripwell.cli", "subscribers", "import", str(file), "--topic", topic,
               "--source", "benchmark", "--json"]  # fmt: skip
    watch = Watch()
    with tempfile.TemporaryFile("w+") as answer:
        running = subprocess.Popen(command, cwd=ROOT, env=here.environment, stdout=answer)
        _, status, used = os.wait4(running.pid, 0)  # the memory of this child alone
        seconds = watch.seconds()
        running.returncode = os.waitstatus_to_exitcode(status)
        assert running.returncode == 0, f"the import ended with {running.returncode}"
        answer.seek(0)
        found: dict[str, object] = json.load(answer)
    return found, seconds, used.ru_maxrss / 1024


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
