"""Addresses by the million: the usual ones by one regular expression, every other by `core.address.check`."""

from __future__ import annotations

import re
from functools import lru_cache

from dripwell.core.address import check

# Plain local parts only, of at most 64 letters: what this accepts, `check` returns unchanged.
_PLAIN = re.compile(r"([A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+)*)@([A-Za-z0-9.-]{4,180})\Z")
_LONGEST_LOCAL = 64


def checked(text: str) -> str:
    """Return exactly what `check` returns, faster for plain addresses. Raises the same ValueError."""
    found = _PLAIN.match(text)
    if found is None or found.end(1) > _LONGEST_LOCAL:
        return check(text)
    domain = _domain(found[2])
    return check(text) if domain is None else found[1] + "@" + domain


@lru_cache(maxsize=50_000)
def _domain(text: str) -> str | None:
    """The domain as `check` would return it, None when it would refuse it. Most people share few domains."""
    try:
        return check("a@" + text).partition("@")[2]
    except ValueError:
        return None
