"""What every step of sending is given: the sender's parts, and the batch it is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from dripwell.content.staging import Staged
from dripwell.core.campaign import MARKETING_LANES, Lane, Site
from dripwell.core.tokens import Keys
from dripwell.delivery.provider import Provider
from dripwell.services.versions import Published, Versions
from dripwell.storage import suppressions
from dripwell.storage.batches import Owner
from dripwell.storage.database import Database
from dripwell.storage.fast import Fast
from dripwell.storage.journal import Journal
from dripwell.storage.limiter import Limiter
from dripwell.storage.messages import Addressee

STAYING = "keep"
"""The service campaign that asks who has long been silent whether they want to stay."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Everything a send pass needs. `failpoint(name)` is a no-op outside tests; `site` is the installation's.

    `replay` carries out the unsubscribes that were answered while PostgreSQL was away. `doubt()` is told that the
    record may have gone back in time.
    """

    database: Database
    fast: Fast
    provider: Provider
    versions: Versions
    keys: Keys
    owner: Owner
    new_id: Callable[[], UUID]
    failpoint: Callable[[str], None]
    replay: Callable[[], int]
    journal: Journal
    doubt: Callable[[], object]
    site: Site
    limiter: Limiter
    behind: Counter[str] = field(default_factory=Counter)  # people put back in this pass, by mailbox group


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch under way: one campaign, step, content version, variant and lane.

    `addressees` are in the order of the payload. `extras` is what service emails tell beyond the person, by message id.
    `variant` is None when each person is rendered alone. `claimed_at` is wall time; `calling_since` is this process's
    monotonic clock at the start of the mark.
    """

    id: int
    epoch: int
    lane: Lane
    nonce: UUID
    published: Published
    campaign_id: int
    step_key: str
    staged: Staged
    variant: int | None
    addressees: tuple[Addressee, ...]
    extras: Mapping[int, Mapping[str, str]]
    claimed_at: datetime
    is_trial: bool = False  # the one call while the lane's breaker is half open
    calling_since: float = 0.0

    @property
    def marketing(self) -> bool:
        """Whether limits, windows and every suppression bind."""
        return self.lane in MARKETING_LANES

    @property
    def scopes(self) -> tuple[str, ...]:
        """The suppressions that bind here. Whoever has left is not asked whether they want to stay, either."""
        campaign = self.published.campaign
        marketing = self.marketing or campaign.name == STAYING
        return suppressions.binding_scopes(marketing=marketing, topic=campaign.topic, campaign=campaign.name)
