"""A tiny program that starts another one in its own place: `leash.py PARENT SIGNAL UID GID -- program argument …`.

It asks the kernel to send SIGNAL when the thread that started it is gone, gives up root if told to, and becomes the
program. It is a program of its own because the usual way, Python code between fork and exec, is not safe in a process
with threads. It is run by path with `python -I -S`, so it imports nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
STAY = "-"  # in place of UID and GID: remain who we are


def main(arguments: list[str]) -> None:
    """Become the program; returns only by raising."""
    parent, death_signal, uid, gid, dashes, *program = arguments
    if dashes != "--" or not program:
        raise SystemExit("usage: leash.py PARENT SIGNAL UID GID -- program argument …")
    # Python ignores SIGPIPE and SIGXFSZ for itself, and what is ignored stays ignored across exec.
    for name in ("SIGINT", "SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    if uid != STAY:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if sys.platform == "linux":
        # After the change of user, which clears it. macOS has no such call: there a killed parent leaves its children
        # running, the next start waits for them on `servers.lock` and then says which processes to end by hand.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        raise SystemExit("the parent ended before its child began")
    try:
        os.execv(program[0], program)
    except OSError as problem:
        raise SystemExit(f"cannot run {program[0]}: {problem.strerror}") from problem


if __name__ == "__main__":
    main(sys.argv[1:])
