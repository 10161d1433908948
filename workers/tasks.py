"""Doorbells: each runs one pass of one service. Safe to run twice, safe to lose. They carry a lane or nothing."""

from __future__ import annotations

import logging

from dripwell import bootstrap
from dripwell.core.errors import UnavailableError

from .app import app, installation

log = logging.getLogger("dripwell.workers")


@app.task(name="dripwell.send")
def send(lane: str) -> None:
    """Send what is due in `lane`, for at most 12 seconds."""
    _pass(lane)


@app.task(name="dripwell.plan")
def plan() -> None:
    """Decide for everybody who is due."""
    _pass("plan")


@app.task(name="dripwell.ingest")
def ingest() -> None:
    """Read the webhooks that have arrived."""
    _pass("ingest")


@app.task(name="dripwell.settle")
def settle() -> None:
    """Resolve batches whose owner is gone or whose outcome is unknown."""
    _pass("settle")


@app.task(name="dripwell.sync")
def sync() -> None:
    """Tell the provider whom it must not mail, and read on in its lists."""
    _pass("sync")


@app.task(name="dripwell.audit")
def audit() -> None:
    """Check every invariant of the record."""
    _pass("audit")


@app.task(name="dripwell.erase")
def erase() -> None:
    """Do what erasures still wait for."""
    _pass("erase")


@app.task(name="dripwell.retain")
def retain() -> None:
    """Let go of what is old; the day is counted by the record, not by the schedule."""
    _pass("retain")


def _pass(queue: str) -> None:
    try:
        bootstrap.run_pass(installation(), queue)
    except UnavailableError as error:
        # Nothing is lost: the rows are still due, and the next ring finds them.
        log.warning("%s: %s", queue, error)
