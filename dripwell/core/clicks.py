"""Which clicks a person made, and which a machine: mail scanners follow every link of an email (rules 7.2)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

BURST_LINKS = 3
"""So many distinct links of one message …"""
BURST = timedelta(seconds=2)
"""… fetched within this time are a machine's, all of them."""
MOST = 200
"""A message whose links were followed more often than this was read by a machine: no click of it is a person's. The
rule also bounds the work, for anybody may fetch a link as often as they like."""


class Click(NamedTuple):
    """One fetch of one link of a message. `wall_at` is when it really happened, `at` when in campaign time."""

    number: int
    wall_at: datetime
    at: datetime


def by_a_person(clicks: Sequence[Click]) -> list[Click]:
    """The likely-human ones of the clicks of ONE message, in the order of wall time.

    The same rule stands in SQL in `storage.segments`. HEAD requests never become a click, and who fetched is not
    stored, so the rule about known scanners cannot be asked afterwards: only bursts are told apart here.
    """
    if len(clicks) > MOST:
        return []
    ordered = sorted(clicks, key=lambda click: (click.wall_at, click.number))
    machine: set[int] = set()
    for place, first in enumerate(ordered):
        end = place
        while end < len(ordered) and ordered[end].wall_at <= first.wall_at + BURST:
            end += 1
        if len({click.number for click in ordered[place:end]}) >= BURST_LINKS:
            machine.update(range(place, end))
    return [click for place, click in enumerate(ordered) if place not in machine]
