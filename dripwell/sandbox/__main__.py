"""`python -m dripwell.sandbox`: the one place here that asks the machine for the time and for a random seed."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from pathlib import Path

from dripwell.sandbox.app import serve
from dripwell.sandbox.config import Config
from dripwell.sandbox.hostile import Mood
from dripwell.sandbox.ledger import DamagedStateError


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m dripwell.sandbox", description="A SendGrid to run at home.")
    parser.add_argument("--port", type=int, default=8025, help="port on 127.0.0.1; 0 takes a free one (default 8025)")
    parser.add_argument("--state", type=Path, required=True, help="folder of the ledger, the mails and the signing key")
    parser.add_argument("--webhook", metavar="URL", help="where events are posted; without it nobody is told")
    parser.add_argument("--seed", type=int, help="repeats the provider ids of an earlier course (default: random)")
    parser.add_argument("--key", default="SG.test", help="the API key that is accepted (default SG.test)")
    parser.add_argument("--late", type=float, default=5.0, help="seconds by which +late delays an event (default 5)")
    parser.add_argument("--hostile", type=_share, default=0.0, help="how likely a call goes wrong, from 0 to 1")
    parser.add_argument("--hostile-events", type=_share, default=0.0, help="how likely a mail's events go wrong")
    parser.add_argument("--grace", type=float, default=5.0, help="nothing is accepted later than this (default 5 s)")
    parser.add_argument("--fast", action="store_true", help="for benchmarks: check and keep calls, show no mails")
    given = parser.parse_args(arguments)
    seed = secrets.randbits(64) if given.seed is None else given.seed
    try:
        serve(
            Config(
                state=given.state,
                now=time.time,
                port=given.port,
                webhook=given.webhook,
                seed=seed,
                key=given.key,
                late=given.late,
                mood=Mood(answers=given.hostile, events=given.hostile_events, grace=given.grace, seed=seed),
                fast=given.fast,
            )
        )
    except KeyboardInterrupt:  # how the server passes on Ctrl-C once it has ended
        return 0
    except (DamagedStateError, OSError, ValueError) as error:
        print(f"The sandbox cannot start: {error}", file=sys.stderr)
        return 1
    return 0


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError
    return share


if __name__ == "__main__":
    sys.exit(main())
