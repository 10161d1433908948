"""A provider that does what providers do, with a ledger that is the judge: what it took is what people got."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from dripwell.delivery.provider import Accepted, LogAnswer, Mailing, NotSent, Outcome, Refused, Unknown
from dripwell.services.settle import Patience

PATIENCE = Patience(grace=60.0, grace_service=60.0, round_gap=30.0, window=3600.0, resend=True, channel=False)
LAG = timedelta(seconds=5)
"""So much later than it was accepted, a message is in the provider's log (A2)."""

ANSWERS = (
    *["accepted"] * 6,
    *["accepted, the answer is lost"] * 3,
    *["accepted, but 500"] * 2,
    *["no answer, accepted later"] * 2,
    *["500"] * 2,
    "429",
    "429, and says until when",
    "400 names a row",
    *["400 names nobody"] * 2,
    "413",
    "401",
    "no connection",
)


class Misbehaving:
    """A provider with a ledger, whose next answer somebody else decides. It keeps A1 (whole or not), A2 and A3."""

    def __init__(self, wall: Callable[[], datetime], like: Any) -> None:
        self.name, self.capabilities = like.name, like.capabilities
        self.wall = wall
        self.answer = "accepted"
        self.logs_answer = True
        self.accepted: list[tuple[datetime, Mailing]] = []
        self.late: list[tuple[datetime, Mailing]] = []  # until when each may still be accepted

    def call(self, mailing: Mailing) -> Outcome:
        """One attempt; what comes after it is accepted, unless somebody says otherwise again."""
        answer, self.answer = self.answer, "accepted"
        if answer.startswith("accepted"):
            self.accepted.append((self.wall(), mailing))
        match answer:
            case "accepted":
                return Accepted(f"x{len(self.accepted)}")
            case "accepted, the answer is lost":
                return Unknown("timeout")
            case "accepted, but 500" | "500":
                return Unknown("500", 500)
            case "no answer, accepted later":
                self.late.append((self.wall() + timedelta(seconds=PATIENCE.grace), mailing))
                return Unknown("timeout")
            case "429":
                return NotSent("429", 429, rate_limited=True)
            case "429, and says until when":
                return NotSent("429", 429, timedelta(seconds=30), rate_limited=True)
            case "400 names a row":
                return Refused("bad address", 400, row=len(mailing.envelopes) - 1)
            case "400 names nobody":
                return Refused("bad content", 400)
            case "413":
                return Refused("too large", 413, too_large=True)
            case "401":
                return NotSent("key revoked", 401, account=True)
        assert answer == "no connection"
        return NotSent("no connection")

    def find(self, address: str, message: UUID, since: datetime) -> LogAnswer:
        """Look into the ledger, unless the log is away."""
        seen = [mailing for at, mailing in self.accepted if since <= at <= self.wall() - LAG]
        found = any(envelope.message == message for mailing in seen for envelope in mailing.envelopes)
        return LogAnswer(self.logs_answer, found and self.logs_answer)

    def close(self) -> None:
        """Nothing to drop."""

    def may_have(self, message: UUID) -> bool:
        """Whether this was accepted, or may be yet."""
        mailings = [mailing for _, mailing in (*self.accepted, *self.late)]
        return any(envelope.message == message for mailing in mailings for envelope in mailing.envelopes)

    def got(self) -> list[UUID]:
        """Every copy of a message that somebody got."""
        return [envelope.message for _, mailing in self.accepted for envelope in mailing.envelopes]
