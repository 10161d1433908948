"""SendGrid's suppression lists over our own line: reads `/v3/suppression/*`, writes `/v3/asm/suppressions/global`.

Sizes and paths are those of OAI tsg_suppressions_v3.yaml. Whatever comes back is bounded and believed only as far as it
is JSON of the documented form; unknown fields are left alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request

from dripwell.core.errors import ConfigurationError
from dripwell.delivery.line import CONNECT_SECONDS, DEADLINE_SECONDS, Answer, Line, LineBrokenError, told
from dripwell.delivery.lists import PAGE, Done, Later, Listed, ListName, NotTaken, Page
from dripwell.delivery.sendgrid import ACCOUNT_STATUSES

# At INFO it writes every URL, and one of ours has an address in it.
logging.getLogger("httpx2").setLevel(logging.WARNING)

MOST_ADDED = 1_000
_LONGEST_ADDRESS = 320
_MOST_ROWS = 20 * PAGE  # a server that ignores the limit is followed so far
_USUAL_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = 3600
_SECONDS = re.compile(r"\d{1,6}", re.ASCII)


class SendGridLists:
    """A `ProviderLists`. Thread-confined; made after the fork. The key must reach suppressions (rules 1.15)."""

    def __init__(
        self,
        api_key: str,
        base_url: str = "https://api.sendgrid.com",
        *,
        connect: float = CONNECT_SECONDS,
        deadline: float = DEADLINE_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigurationError("DRIPWELL_PROVIDER_URL must look like https://api.sendgrid.com")
        self._base = base_url.rstrip("/")
        self._line = Line(f"Bearer {api_key}", connect=connect, deadline=deadline, tls=tls)

    def page(self, name: ListName, *, since: datetime | None, offset: int) -> Page | Later:
        """Read one page; a page that is no JSON array of objects is no page."""
        wanted = {"limit": str(PAGE), "offset": str(offset)}
        if since is not None:
            wanted["start_time"] = str(int(since.timestamp()))
        answer = self._ask("GET", f"/v3/suppression/{name}?{urlencode(wanted)}")
        if isinstance(answer, Later):
            return answer
        if answer.status != 200:
            return _later(answer)
        try:
            rows = json.loads(answer.body)
        except (ValueError, RecursionError):
            return Later("200: the answer is no JSON")
        if not isinstance(rows, list) or len(rows) > _MOST_ROWS:
            return Later("200: the answer is no list, or a far too long one")
        found = [entry for row in rows if (entry := _listed(row)) is not None]
        return Page(found, len(rows), len(rows) - len(found), hashlib.sha256(answer.body).digest())

    def add(self, addresses: Sequence[str]) -> Done | Later | NotTaken:
        """One POST for all of them."""
        if not 0 < len(addresses) <= MOST_ADDED:
            raise ValueError(f"between 1 and {MOST_ADDED} addresses, not {len(addresses)}")
        answer = self._ask("POST", "/v3/asm/suppressions/global", {"recipient_emails": list(addresses)})
        return _done(answer)

    def remove(self, name: ListName, address: str) -> Done | Later | NotTaken:
        """One DELETE. Only where there is no other way does the address stand in the path."""
        if name == "unsubscribes":
            answer = self._ask("DELETE", f"/v3/asm/suppressions/global/{quote(address, safe='')}")
        else:
            answer = self._ask("DELETE", f"/v3/suppression/{name}", {"emails": [address]})
        if isinstance(answer, Answer) and answer.status == 404:
            return Done()  # not on the list
        return _done(answer)

    def close(self) -> None:
        """Drop the connection."""
        self._line.close()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer | Later:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if data else {})}
        try:
            return self._line.request(Request(self._base + path, data, headers, method=method))
        except LineBrokenError as broken:
            return Later(broken.reason)  # written or not: saying it again does no harm


def _done(answer: Answer | Later) -> Done | Later | NotTaken:
    if isinstance(answer, Later):
        return answer
    if answer.status in (200, 201, 204):
        return Done()
    if answer.status == 400:
        return NotTaken(told(f"400: {_words(answer)}"))
    return _later(answer)


def _later(answer: Answer) -> Later:
    reason = told(f"{answer.status}: {_words(answer)}")
    if answer.status != 429:
        return Later(reason, account=answer.status in ACCOUNT_STATUSES)
    said = answer.headers.get("retry-after", "").strip()
    wait = timedelta(seconds=min(int(said), _LONGEST_WAIT)) if _SECONDS.fullmatch(said) else _USUAL_WAIT
    return Later(reason, wait)


def _words(answer: Answer) -> str:
    try:
        errors = json.loads(answer.body)["errors"]
        return "; ".join(str(error["message"]) for error in errors[:3])
    except (ValueError, RecursionError, KeyError, TypeError):
        return "no reason given"


def _listed(row: Any) -> Listed | None:
    """One entry; None for what names nobody."""
    address = row.get("email") if isinstance(row, dict) else None
    if not isinstance(address, str) or not 3 <= len(address.strip()) <= _LONGEST_ADDRESS or "@" not in address:
        return None
    status = row.get("status")
    return Listed(address.strip(), _moment(row.get("created")), told(status, 20) if isinstance(status, str) else "")


def _moment(value: Any) -> datetime | None:
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0) if seconds > 0 else None
    except (ValueError, OverflowError, OSError):
        return None
