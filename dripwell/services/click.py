"""Following a link in an email: a stored target, and one more row in the click log."""

from __future__ import annotations

from urllib.parse import urlsplit

from dripwell.core.tokens import Keys, Purpose, sign
from dripwell.storage import clicks, clock
from dripwell.storage.database import Connection

_RECORDED = frozenset({"active", "unconfirmed"})


def resolve(connection: Connection, *, message_id: int, number: int, keys: Keys, record: bool) -> str | None:
    """Where link `number` of this message leads: an http or https URL, a path of ours, or None for our own page.

    With `record` the click is logged, unless the person was erased or has left: then it is a plain redirect (rules
    5.2).
    """
    origin = clicks.origin(connection, message_id)
    if origin is None:
        return None
    target = clicks.target(connection, origin.version_id, origin.step_key, number)
    if target is None:
        return None
    times = clock.read(connection)
    if target == "book":
        target = f"/b/{sign(keys, Purpose.BOOK, message_id, times.wall_now)}"
    elif urlsplit(target).scheme not in ("http", "https"):
        return None
    if record and origin.subscriber_state in _RECORDED:
        clicks.add(connection, message_id, number, times.now)
    return target
