"""Color on a terminal only, and not when NO_COLOR is set; nothing is said by color alone."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from tests.conftest import ROOT

COLOR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3|9)[0-9]m")


def on_a_terminal(*arguments: str, **changes: str) -> bytes:
    """What the command writes when its stdout is a terminal."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **changes}
    process = subprocess.Popen(
        [sys.executable, "-m", "dripwell.cli", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    found = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while True:
            try:
                part = terminal.read(65536)
            except OSError:  # the other side has closed
                break
            if not part:
                break
            found += part
    process.wait(timeout=30)
    return found


def test_a_terminal_gets_color_and_no_color_means_none() -> None:
    colored = on_a_terminal("lint", "--live")
    plain = on_a_terminal("lint", "--live", NO_COLOR="1")
    assert COLOR.search(colored)
    assert not COLOR.search(plain)
    assert "error[D513]" in plain.decode()
    assert "✗ " in plain.decode()


def test_a_terminal_of_another_encoding_gets_a_question_mark_and_no_traceback() -> None:
    shown = on_a_terminal("lint", PYTHONIOENCODING="ascii")
    assert COLOR.sub(b"", shown).replace(b"\x1b[0m", b"").startswith(b"? 7 emails")
