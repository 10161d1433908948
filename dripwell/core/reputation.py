"""When to stop before a mailbox provider does: the breakers of rules 8.4."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

Z = 2.326
"""One-sided 99 %."""
WINDOWS = (timedelta(hours=24), timedelta(days=30))
Signal = Literal["complaints", "bounces", "blocks"]
Level = Literal["pause", "stop"]


@dataclass(frozen=True, slots=True)
class Limit:
    """Trips when there are at least `floor` events and we are 99 % sure that their true rate is above `rate`."""

    floor: int
    rate: float


PAUSE: Mapping[Signal, Limit] = {
    "complaints": Limit(2, 0.001),
    "bounces": Limit(5, 0.02),
    "blocks": Limit(10, 0.05),
}
STOP: Mapping[Signal, Limit] = {"complaints": Limit(3, 0.003), "bounces": Limit(10, 0.05)}


def lower_bound(events: int, resolved: int) -> float:
    """The lower end of the one-sided 99 % Wilson range of a rate: 0 when nothing was resolved."""
    if resolved <= 0 or events <= 0:
        return 0.0
    rate = min(1.0, events / resolved)
    square = Z * Z / resolved
    spread = Z * math.sqrt(rate * (1 - rate) / resolved + square / (4 * resolved))
    return max(0.0, (rate + square / 2 - spread) / (1 + square))


def trips(limit: Limit, events: int, resolved: int) -> bool:
    """Whether so many events among so many resolved messages are too many."""
    return events >= limit.floor and lower_bound(events, resolved) > limit.rate


def most(limit: Limit, events: int) -> int:
    """The largest number of resolved messages among which so many events trip; 0 below the floor.

    Who counts need not count further than one more.
    """
    if events < limit.floor:
        return 0
    low, high = events, math.ceil(events / limit.rate) + 1  # at that rate itself the lower end is below the limit
    if not trips(limit, events, low):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if trips(limit, events, middle) else (low, middle)
    return low


def level(signal: Signal, events: int, resolved: int) -> Level | None:
    """What this signal calls for: `pause` its scope, `stop` every marketing lane, or nothing."""
    if signal in STOP and trips(STOP[signal], events, resolved):
        return "stop"
    return "pause" if trips(PAUSE[signal], events, resolved) else None
