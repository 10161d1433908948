"""Running the demo as a person would, in a process of its own, and finding its processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.processes import ROOT

NUMBERS = ("audience", "people", "messages", "planned", "by_step", "clicked", "booked", "unsubscribed", "bounced")
"""What may not depend on anything but the seed."""


class Demo:
    """One `dripwell demo --once --json`. `on_line(pid, line)` hears every progress line while it runs."""

    def __init__(self, *arguments: str, on_line: Callable[[int, str], None] = lambda _pid, _line: None) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIPWELL_")}
        for name in ("DATABASE_URL", "REDIS_URL", "SENDGRID_API_KEY"):
            environment.pop(name, None)
        environment |= {"DRIPWELL_WEB_PORT": str(free_port()), "DRIPWELL_SANDBOX_PORT": str(free_port())}
        command = [sys.executable, "-m", "dripwell.cli", "demo", "--once", "--json", *arguments]
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            self.lines: list[str] = []
            assert process.stderr is not None
            assert process.stdout is not None
            thread = threading.Thread(target=self._hear, args=(process, on_line))
            thread.start()
            out = process.stdout.read()
            thread.join()
            self.code = process.wait()
        self.out = out

    def _hear(self, process: subprocess.Popen[str], on_line: Callable[[int, str], None]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.lines.append(line.rstrip())
            on_line(process.pid, line)

    @property
    def result(self) -> dict[str, Any]:
        """The one object it printed."""
        assert self.out.count("\n") == 1, (self.out, self.lines)
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def numbers(self) -> dict[str, Any]:
        """The part of the object that hangs on the seed alone."""
        return {name: self.result[name] for name in NUMBERS}


def descendants(pid: int) -> dict[int, tuple[int, str]]:
    """Every process below `pid`: its parent and its command line."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended while we looked
    found: dict[int, tuple[int, str]] = {}
    layer = {pid}
    while layer:
        layer = {child for child, parent in parents.items() if parent in layer}
        for child in layer:
            try:
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            found[child] = (parents[child], command)
    return found


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
