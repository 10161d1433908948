"""Looking at real processes from tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def eventually(claim: Callable[[], bool], within: float = 10.0) -> bool:
    """Whether the claim becomes true before the deadline."""
    limit = time.monotonic() + within
    while not claim():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    """Whether the process still runs; one that has ended and waits for its parent to ask does not."""
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return state not in ("", "Z")


def program(code: str, *arguments: object, python: str = sys.executable, **options: object) -> subprocess.Popen[str]:
    """A Python process of ours that runs the code; its output is piped."""
    command = [python, "-u", "-c", code, *(str(argument) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        command,
        **{"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options},  # type: ignore[call-overload]
    )
