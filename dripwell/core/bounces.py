"""When a mailbox that turns mail away again and again counts as gone (rules 2.6).

A hard bounce says that an address does not exist, once is enough. "Mailbox unavailable" (full, disabled, over quota)
may pass; it counts as gone after three different emails in 30 days with no delivery in between. What a server says
about us and not about the mailbox (reputation, volume, content) never counts, nor does a second word about one email.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

EMAILS = 3
WITHIN = timedelta(days=30)

_UNAVAILABLE = re.compile(r"\s*mailbox unavailable\s*", re.IGNORECASE)
_MAILBOX_STATUS = re.compile(r"[45]\.2\.[0-9]{1,3}")  # RFC 3463: X.2.X is about the mailbox


@dataclass(frozen=True, slots=True)
class Turned:
    """One email that was turned away, or delivered. `at` is aware; of one email the first time counts."""

    message_id: int
    at: datetime
    delivered: bool = False


def is_mailbox_unavailable(classification: str, status: str) -> bool:
    """Whether a bounce that is not hard is about this mailbox. What the provider calls it wins over the status."""
    if classification.strip():
        return _UNAVAILABLE.fullmatch(classification) is not None
    return _MAILBOX_STATUS.fullmatch(status.strip()) is not None


def is_gone(history: Iterable[Turned], now: datetime) -> bool:
    """Whether three emails in a row, in the last 30 days, found the mailbox shut. The order of `history` is no matter.

    A delivery wipes out what came before it, and an email that was delivered after all was not turned away.
    """
    recent = [one for one in history if now - WITHIN <= one.at]
    arrived = {one.message_id for one in recent if one.delivered}
    last = max((one.at for one in recent if one.delivered), default=None)
    shut = {
        one.message_id
        for one in recent
        if not one.delivered and one.message_id not in arrived and (last is None or one.at > last)
    }
    return len(shut) >= EMAILS
