"""A worker without Celery: a real process that runs pass after pass. It says "ready", and obeys `go` and `rest`.

python -m tests.faults.passes --queues plan,drip,settle,ingest [--mutant NAME]
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from pathlib import Path

from dripwell import bootstrap
from dripwell.core.errors import UnavailableError
from dripwell.settings import Settings
from tests.faults.mutants import MUTANTS

PAUSE = 0.1


def main() -> None:
    """Run passes for ever, each queue in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queues", required=True)
    parser.add_argument("--mutant", choices=sorted(MUTANTS))
    parser.add_argument("--resting", action="store_true")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    log = logging.getLogger("passes")
    if given.mutant:
        MUTANTS[given.mutant]()
    settings = Settings.read()
    installation = bootstrap.connect(settings, Path.cwd(), *bootstrap.urls(settings, None))
    may_work = threading.Event()
    if not given.resting:
        may_work.set()
    rests = threading.Event()

    def obey() -> None:
        for line in sys.stdin:
            rests.clear()
            (may_work.clear if line.strip() == "rest" else may_work.set)()

    threading.Thread(target=obey, daemon=True).start()
    print("ready", flush=True)
    while True:
        if not may_work.is_set() and not rests.is_set():
            rests.set()
            print("resting", flush=True)
        may_work.wait()
        for queue in given.queues.split(","):
            try:
                bootstrap.run_pass(installation, queue)
            except UnavailableError as error:
                log.warning("%s: %s", queue, error)
            except Exception:
                log.exception("a pass of %s failed", queue)  # as in a task: the next ring finds the rows
        threading.Event().wait(PAUSE)


if __name__ == "__main__":
    main()
