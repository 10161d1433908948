"""Who is in a segment now: counted, listed, and given one by one to whoever works with them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from dripwell.content.problems import did_you_mean
from dripwell.core.campaign import Segment, Site
from dripwell.core.conditions import Condition, InSegment
from dripwell.core.errors import NotFoundError
from dripwell.storage import segments, suppressions
from dripwell.storage.database import Connection
from dripwell.storage.segments import Count, Example


def conditions(site: Site) -> dict[str, Condition]:
    """What each segment of this installation asks, by name."""
    return {segment.name: segment.when for segment in site.segments}


def find(site: Site, name: str) -> Segment:
    """The segment of that name. Raises NotFoundError with the nearest one."""
    found = site.segment(name)
    if found is None:
        names = [segment.name for segment in site.segments]
        guess = did_you_mean(name, names)
        raise NotFoundError(
            f"config/segments.yaml names no segment `{name}`{'; ' + guess if guess else '.'} "
            f"It names: {', '.join(names) or 'none'}"
        )
    return found


def members(connection: Connection, site: Site, name: str, now: datetime) -> Iterator[int]:
    """The ids of everybody in a segment at `now` (campaign time), in order and whatever their state but erased.

    They come from a cursor on the server: read them inside the transaction. Raises NotFoundError at once.
    """
    find(site, name)
    return segments.members(connection, InSegment(name), conditions(site), now)


def count(connection: Connection, site: Site, name: str, now: datetime, *, topic: str | None = None) -> Count:
    """How many are in a segment at `now` (campaign time), and how many of them could be mailed about `topic`.

    Raises NotFoundError when there is no such segment or topic.
    """
    find(site, name)
    scopes: tuple[str, ...] = ()
    if topic is not None:
        names = [known.name for known in site.topics]
        if topic not in names:
            guess = did_you_mean(topic, names)
            raise NotFoundError(
                f"config/site.yaml names no topic `{topic}`{'; ' + guess if guess else '.'} "
                f"It names: {', '.join(names)}"
            )
        scopes = (suppressions.ALL, suppressions.MARKETING, f"topic:{topic}")
    return segments.count(connection, InSegment(name), conditions(site), now, topic=topic, scopes=scopes)


def examples(connection: Connection, site: Site, name: str, now: datetime, limit: int) -> list[Example]:
    """At most `limit` people of a segment, newest first. Raises NotFoundError when there is no such segment."""
    find(site, name)
    return segments.examples(connection, InSegment(name), conditions(site), now, limit)
