"""The provider's suppression lists as a Protocol: SendGrid has them, an SMTP relay has none.

One request a call, no retry anywhere below it. What became of it is a value; nothing is raised for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

ListName = Literal["bounces", "spam_reports", "invalid_emails", "unsubscribes"]
LISTS: tuple[ListName, ...] = ("bounces", "spam_reports", "invalid_emails", "unsubscribes")
PAGE = 500
"""Entries in one page, at most (OAI, PaginationCommonLimit)."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry. `at`: since when, by the provider's clock, aware UTC; None when it does not say. `status` is short."""

    address: str
    at: datetime | None
    status: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What stands on a list from an offset on. `rows` counts all, `unreadable` those that name no address."""

    entries: Sequence[Listed]
    rows: int
    unreadable: int
    digest: bytes  # SHA-256 of the answer, so that the same page twice is seen

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.rows < PAGE


@dataclass(frozen=True, slots=True)
class Done:
    """The provider did as asked; taking off a list who is not on it counts as done."""


@dataclass(frozen=True, slots=True)
class Later:
    """Not now: no connection, 429, 5xx, a broken answer, or a refused key (`account`). `reason` holds no address."""

    reason: str
    after: timedelta | None = None
    account: bool = False


@dataclass(frozen=True, slots=True)
class NotTaken:
    """400: something in what we asked is wrong, and would be again. Of several addresses, one may be why."""

    reason: str


class ProviderLists(Protocol):
    """Thread-confined; made after the fork."""

    def page(self, name: ListName, *, since: datetime | None, offset: int) -> Page | Later:
        """Read one page of a list: entries from `since` on (None: all), from `offset` on."""
        ...

    def add(self, addresses: Sequence[str]) -> Done | Later | NotTaken:
        """Put these on the list of people who get no mail at all; 1,000 at most."""
        ...

    def remove(self, name: ListName, address: str) -> Done | Later | NotTaken:
        """Take one address off one list."""
        ...

    def close(self) -> None:
        """Drop the connection."""
        ...
