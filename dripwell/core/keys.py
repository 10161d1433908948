"""Keys that name a logical thing, so that evidence from a lost timeline still matches after a restore."""

from __future__ import annotations

import hashlib
from uuid import UUID


def message_id(campaign: UUID, subscriber: UUID, step_key: str, round: int) -> UUID:
    """Name one email to one person: the same inputs always give the same id (`dw_m`, and the Message-ID)."""
    source = campaign.bytes + subscriber.bytes + step_key.encode() + b"\0" + str(round).encode()
    return UUID(bytes=hashlib.sha256(source).digest()[:16])
