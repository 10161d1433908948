"""Beat: when the bells ring even if nobody says anything. None, two or five beats give the same result."""

from __future__ import annotations

from typing import Any

EXPIRES = 60
"""Seconds after which an unheard doorbell is dropped: no storm after an outage."""


def _every(seconds: float, task: str, queue: str, *args: str) -> dict[str, Any]:
    return {"task": task, "schedule": seconds, "args": args, "options": {"queue": queue, "expires": EXPIRES}}


SCHEDULE: dict[str, dict[str, Any]] = {
    "plan": _every(5, "dripwell.plan", "plan"),
    "ingest": _every(5, "dripwell.ingest", "ingest"),
    "settle": _every(10, "dripwell.settle", "keep"),
    "audit": _every(300, "dripwell.audit", "keep"),
    "erase": _every(30, "dripwell.erase", "keep"),
    "sync": _every(15, "dripwell.sync", "keep"),
    "retain": _every(600, "dripwell.retain", "keep"),
    **{lane: _every(5, "dripwell.send", lane, lane) for lane in ("confirm", "booking", "drip", "newsletter")},
}
