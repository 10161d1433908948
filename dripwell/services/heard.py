"""What follows for the suppression ledger from what the provider told: complaints, dead mailboxes, people who left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dripwell.core.bounces import WITHIN, is_gone, is_mailbox_unavailable
from dripwell.delivery.provider import ProviderEvent
from dripwell.services import leave
from dripwell.storage import erasing, events, leaving, turned_away
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection

_SUPPRESSES = {
    "complained": ("all", "complained", "unsubscribed"),
    "unsubscribed": ("marketing", "unsubscribed", "unsubscribed"),
}


@dataclass(frozen=True, slots=True)
class About:
    """One event with whom it is about, as far as we know. `proves`: its ids are ours, so the batch was accepted."""

    event: ProviderEvent
    batch_id: int | None = None
    message_id: int | None = None
    subscriber_id: int | None = None
    proves: bool = False
    addr_hash: bytes | None = None
    """The hash of the address that the event itself names."""

    @property
    def suppresses(self) -> tuple[str, str, str] | None:
        """(scope, reason, the person's state) when this person must not be mailed any more (rules 2.6)."""
        return None if self.subscriber_id is None else self.says

    @property
    def says(self) -> tuple[str, str, str] | None:
        """The same of whoever it is about, known or not."""
        if self.event.kind == "bounced" and self.event.hard:
            return "all", "undeliverable", "undeliverable"
        return _SUPPRESSES.get(self.event.kind)

    @property
    def source(self) -> str:
        """Whose word that is: a person's own mail, or the provider's event."""
        replied = self.event.kind == "unsubscribed" and self.event.detail.get("form") == "reply"
        return leave.REPLY if replied else leave.PROVIDER

    @property
    def shut(self) -> bool:
        """A bounce that is about this person's mailbox, which may open again."""
        if self.event.kind != "bounced" or self.event.hard or self.message_id is None:
            return False
        told = self.event.detail
        return is_mailbox_unavailable(str(told.get("bounce_classification") or ""), str(told.get("status") or ""))


def suppress(connection: Connection, fresh: Iterable[About], times: Times) -> None:
    """Whoever complained, left or is gone: once each, in the order everybody locks in."""
    wanted: dict[tuple[int, tuple[str, str, str], str], ProviderEvent] = {}
    for one in fresh:
        if one.suppresses is not None and one.subscriber_id is not None:
            wanted.setdefault((one.subscriber_id, one.suppresses, one.source), one.event)
    rows = [
        leaving.Leaving(subscriber_id, scope, reason, source, event.event_id or event.dedupe, state)
        for (subscriber_id, (scope, reason, state), source), event in sorted(wanted.items(), key=lambda pair: pair[0])
    ]
    leaving.suppress(connection, rows, now=times.now)


def suppress_shut(connection: Connection, fresh: Iterable[About], times: Times) -> None:
    """Whose mailbox stayed shut for the third email (rules 2.6); `take_in` holds their enrollments already."""
    people = sorted({one.subscriber_id for one in fresh if one.shut and one.subscriber_id is not None})
    histories = turned_away.history(connection, people, times.now, WITHIN)
    evidence = "the mailbox was unavailable for three emails in 30 days"
    rows = [
        leaving.Leaving(who, "all", "undeliverable", leave.SOFT_BOUNCES, evidence, "undeliverable")
        for who in people
        if is_gone(histories.get(who, ()), times.now)
    ]
    leaving.suppress(connection, rows, now=times.now)


def suppress_erased(connection: Connection, fresh: Iterable[About], times: Times) -> None:
    """Whoever is erased and complains, leaves or is gone: their row has no address any more, the event does.

    Its hash is all that is kept. Only for people we once mailed: anybody else's address is no matter of ours. Last in
    the transaction, since somebody may have signed up again with this address.
    """
    about = [one for one in fresh if one.addr_hash is not None and one.says is not None]
    if not about:
        return
    ids = sorted({one.subscriber_id for one in about if one.subscriber_id is not None})
    gone = events.erased(connection, ids)
    unknown = [one.addr_hash for one in about if one.subscriber_id is None and one.addr_hash is not None]
    hashes = erasing.erased(connection, unknown)
    for source in (leave.PROVIDER, leave.REPLY):
        rows = [
            leave.Unwanted(one.addr_hash, one.says[0], one.says[1], "an event that came after the erasure")
            for one in about
            if one.addr_hash is not None and one.says is not None and one.source == source
            and (one.subscriber_id in gone if one.subscriber_id is not None else one.addr_hash in hashes)
        ]  # fmt: skip
        if rows:
            leave.suppress_addresses(connection, rows, source=source, times=times)
