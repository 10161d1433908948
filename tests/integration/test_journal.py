"""The files of the call journal: what is in them survives a crash, a full disk and other writers."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from dripwell.core.errors import UnavailableError
from dripwell.storage import journal
from dripwell.storage.journal import Answer, Broken, Call, Journal, Left, Person
from tests.conftest import ROOT

AT = datetime(2026, 11, 2, 17, 0, tzinfo=UTC)
NONCE = UUID(int=7)


def write(kept: Journal, batch: int, people: int = 1, at: datetime = AT, epoch: int = 1) -> None:
    kept.before(
        epoch=epoch,
        batch=batch,
        nonce=NONCE,
        provider="sandbox",
        lane="drip",
        campaign=UUID(int=1),
        campaign_name="seven-benefits",
        step_key="1-adaptability",
        version_id=3,
        people=[Person(n, UUID(int=n), n + 100, 1 + n % 2) for n in range(people)],
        at=at,
    )


def calls(folder: Path) -> list[int]:
    return [line.batch for line in journal.read_calls(folder) if isinstance(line, Call)]


def written_when_they_say(folder: Path) -> None:
    """Each file was last written to on the day of its name, by this host's clock."""
    for path in folder.glob("*-*-*-*-*.journal"):
        at = datetime.fromisoformat(f"{path.name.split('-', 1)[1][:10]}T23:59:00+00:00").timestamp()
        os.utime(path, (at, at))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    kept = Journal(tmp_path, host="here")
    write(kept, 41, people=3)
    kept.after(epoch=1, batch=41, nonce=NONCE, outcome="accepted", at=AT)
    row = Left(b"h" * 32, "marketing", "suppress", "unsubscribed", "page", 9, AT)
    kept.left([row])
    call, answer = journal.read_calls(tmp_path)
    assert isinstance(call, Call)
    assert (call.batch, call.host, call.nonce, call.step_key, call.at) == (41, "here", NONCE, "1-adaptability", AT)
    assert call.people == (
        Person(0, UUID(int=0), 100, 1),
        Person(1, UUID(int=1), 101, 2),
        Person(2, UUID(int=2), 102, 1),
    )
    assert answer == Answer(1, 41, NONCE, "accepted", AT)
    assert list(journal.read_leaves(tmp_path)) == [row]
    assert journal.highest(tmp_path) == (1, 41)
    assert kept.highest == 41


def test_an_address_never_stands_in_it(tmp_path: Path) -> None:
    kept = Journal(tmp_path, host="here")
    write(kept, 1, people=5)
    kept.left([Left(b"h" * 32, "all", "suppress", "complained", "provider", 1, AT)])
    assert all(b"@" not in path.read_bytes() for path in tmp_path.iterdir())
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


@pytest.mark.parametrize("cut", [2, 9, 30])
def test_a_torn_last_line_is_reported_and_passed_over(tmp_path: Path, cut: int) -> None:
    write(Journal(tmp_path, host="here"), 1)
    write(Journal(tmp_path, host="here"), 2)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    broken: list[Broken] = []
    assert [line.batch for line in journal.read_calls(tmp_path, broken.append)] == [1]
    assert [(one.path, one.line) for one in broken] == [(path, 2)]
    write(Journal(tmp_path, host="here"), 3)
    assert calls(tmp_path) == [1, 3], "what is written after it stands on a line of its own"


def test_a_line_that_lacks_only_its_end_counts(tmp_path: Path) -> None:
    write(Journal(tmp_path, host="here"), 1)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert calls(tmp_path) == [1]
    write(Journal(tmp_path, host="here"), 2)
    assert calls(tmp_path) == [1, 2]


def test_zeros_and_changed_bytes_are_reported_with_their_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = Journal(tmp_path, host="here")
    for batch in (1, 2, 3):
        write(kept, batch)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes().replace(b'"batch":2', b'"batch":5') + b"\0" * (5 * 1024 * 1024)
    path.write_bytes(content)
    assert calls(tmp_path) == [1, 3]
    assert f"{path}, line 2 cannot be read" in caplog.text
    assert f"{path}, line 4 cannot be read" in caplog.text
    write(kept, 6)
    assert calls(tmp_path) == [1, 3, 6]


def test_no_line_no_call_when_the_disk_is_full(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: the write fails half way, as it would there."""
    program = f"""
import resource, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from dripwell.core.errors import UnavailableError
from dripwell.storage.journal import Journal
from tests.integration.test_journal import write
kept = Journal(Path({str(tmp_path)!r}), host="here")
write(kept, 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    write(kept, 2, people=1000)
except UnavailableError as error:
    print(error)
write(kept, 3)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
write(kept, 4, people=1000)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "nobody is called without a line in it" in done.stdout
    assert "Make room" in done.stdout
    assert calls(tmp_path) == [1, 3, 4]


def test_a_folder_that_cannot_be_made_means_no_call_but_an_answer_never_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    kept = Journal(tmp_path / "file" / "journal", host="here")
    with pytest.raises(UnavailableError, match="cannot be written"):
        write(kept, 1)
    assert kept.highest == 0
    kept.after(epoch=1, batch=1, nonce=NONCE, outcome="accepted", at=AT)
    assert "the answer to batch 1 is not in the journal" in caplog.text


def test_two_processes_append_at_once(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from dripwell.storage.journal import Journal
from tests.integration.test_journal import write
kept = Journal(Path({str(tmp_path)!r}), host="here", file_size=200_000)
first = int(sys.argv[1])
for batch in range(first, first + 150):
    write(kept, batch, people=batch % 40)
"""
    writers = [subprocess.Popen([sys.executable, "-c", program, str(first)]) for first in (1000, 2000, 3000)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    broken: list[Broken] = []
    found = [line.batch for line in journal.read_calls(tmp_path, broken.append)]
    assert broken == []
    assert sorted(found) == [first + n for first in (1000, 2000, 3000) for n in range(150)]
    assert len(list(tmp_path.iterdir())) > 1, "a full file is followed by the next"
    assert all(path.stat().st_size <= 200_000 for path in tmp_path.iterdir())


def test_a_removed_file_is_not_written_into_the_void(tmp_path: Path) -> None:
    kept = Journal(tmp_path / "journal", host="here")
    write(kept, 1)
    for path in (tmp_path / "journal").iterdir():
        path.unlink()
    (tmp_path / "journal").rmdir()
    write(kept, 2)
    assert calls(tmp_path / "journal") == [2]


def test_days_that_are_long_over_are_removed(tmp_path: Path) -> None:
    kept = Journal(tmp_path, host="here")
    for days in (0, 34, 35, 36, 400):
        write(kept, 1000 - days, at=AT - timedelta(days=days))
        kept.left([Left(b"h" * 32, "all", "suppress", "x", "page", 1, AT - timedelta(days=days))])
    (tmp_path / "calls-notes.journal").write_text("somebody's own")
    written_when_they_say(tmp_path)
    gone = journal.prune(tmp_path, AT.date(), AT)
    assert sorted({date.fromisoformat(path.name.split("-", 1)[1][:10]) for path in gone}) == [
        date(2025, 9, 28),
        date(2026, 9, 27),
    ]
    assert len(gone) == 4
    assert calls(tmp_path) == [965, 966, 1000]
    assert journal.prune(tmp_path, AT.date(), AT, keep_days=1) != []
    assert calls(tmp_path) == [1000]


def test_a_single_clock_that_is_ahead_removes_nothing(tmp_path: Path) -> None:
    kept = Journal(tmp_path, host="here")
    for days in (0, 34):
        write(kept, 1000 - days, at=AT - timedelta(days=days))
    written_when_they_say(tmp_path)
    ahead = AT + timedelta(days=365)
    assert journal.prune(tmp_path, ahead.date(), AT) == [], "the clock of the database"
    assert journal.prune(tmp_path, AT.date(), ahead) == [], "the clock of this host"
    assert calls(tmp_path) == [966, 1000]
    assert len(journal.prune(tmp_path, ahead.date(), ahead)) == 2


def test_a_process_knows_what_the_others_of_its_host_have_journaled(tmp_path: Path) -> None:
    other, kept = Journal(tmp_path, host="here"), Journal(tmp_path, host="here")
    write(other, 41)
    assert kept.highest == 41
    write(other, 42)
    assert kept.look() == kept.highest == 42
    write(kept, 43)
    assert kept.highest == 43
    assert other.look() == 43


def test_the_newest_file_is_the_one_written_to_last(tmp_path: Path) -> None:
    """The database's clock was a year ahead for an hour, so a file has a name that stays the latest for a year."""
    kept = Journal(tmp_path, host="here")
    write(kept, 500, at=AT + timedelta(days=365))
    write(kept, 501, at=AT)
    for path in tmp_path.iterdir():
        if "2027" in path.name:
            os.utime(path, (0, 0))
    assert journal.highest(tmp_path) == (1, 501)


def test_recent_calls_are_read_without_the_old_ones(tmp_path: Path) -> None:
    kept = Journal(tmp_path, host="here", file_size=3_000_000)
    for batch in range(20):
        write(kept, batch, at=AT - timedelta(hours=20 - batch))
    write(Journal(tmp_path, host="there"), 20, at=AT)
    write(kept, 21, people=40_000, at=AT)  # longer than what is read at once
    write(kept, 22, people=40_000, at=AT)  # in the next file of the day
    (tmp_path / "calls-2026-10-30-001.journal").mkdir()  # whoever reads it fails
    found = journal.batches_called(tmp_path, "here", AT - timedelta(hours=2))
    assert {18, 19, 21, 22} <= found
    assert found.isdisjoint({*range(16), 20})
    assert journal.batches_called(tmp_path / "nothing", "here", AT) == set()


def test_who_was_left_out_of_a_call_stands_in_its_answer(tmp_path: Path) -> None:
    kept = Journal(tmp_path, host="here")
    kept.after(epoch=1, batch=41, nonce=NONCE, outcome="accepted", at=AT, left_out=[UUID(int=3), UUID(int=1)])
    (answer,) = journal.read_calls(tmp_path)
    assert answer == Answer(1, 41, NONCE, "accepted", AT, (UUID(int=3), UUID(int=1)))


def test_a_hundred_thousand_lines_are_read_in_little_memory(tmp_path: Path) -> None:
    kept = Journal(tmp_path, host="here")
    write(kept, 1)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() * 100_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in journal.read_calls(tmp_path)) == 100_000
        assert journal.highest(tmp_path) == (1, 1)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()


def test_the_highest_is_of_the_latest_epoch(tmp_path: Path) -> None:
    assert journal.highest(tmp_path) == (0, 0)
    kept = Journal(tmp_path, host="here")
    write(kept, 900, epoch=1, at=AT - timedelta(days=1))
    write(kept, 50, epoch=2)
    assert journal.highest(tmp_path) == (2, 50)
