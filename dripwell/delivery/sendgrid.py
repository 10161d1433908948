"""SendGrid: one batch, one POST, one outcome; and its webhook.

The `sendgrid` package builds paths and JSON; the wire is ours (`line.py`), because the package opens a connection for
each request, has no timeout and raises for every status but 2xx. It is never told the API key: at DEBUG it logs its
headers, and with them the key. Only the line holds it.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import Request
from uuid import UUID

import msgspec
import python_http_client
import sendgrid

from dripwell.core.errors import ConfigurationError
from dripwell.delivery import sendgrid_body, sendgrid_erasing, sendgrid_events
from dripwell.delivery.line import CONNECT_SECONDS, DEADLINE_SECONDS, Answer, Line, LineBrokenError, Written, told
from dripwell.delivery.provider import (
    Accepted,
    Capabilities,
    Erasing,
    LogAnswer,
    Mailing,
    NotSent,
    Outcome,
    ProviderEvent,
    Refused,
    Unknown,
)

# The package's debug log also holds every address of a batch.
logging.getLogger("python_http_client.client").setLevel(logging.INFO)

ACCOUNT_STATUSES = frozenset({401, 403, 404, 405, 406, 451})
LONGEST_WAIT = timedelta(hours=1)  # asking once an hour is no loop, and a mad header must not stop a lane for years
LOG_ROWS = 50

_ROW = re.compile(r"\bpersonalizations[.\[](\d{1,6})\b")
_BATCH = re.compile(r"[1-9]\d{0,17}", re.ASCII)
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,6})?", re.ASCII)
_EPOCH_FROM = 1_000_000_000  # a reset below is seconds to wait, from here on it is a date


class SendGrid:
    """A `Provider` and an `EventDoor`. Thread-confined; made after the fork.

    `webhook_public_key` is base64 DER as the provider shows it; without one no event is genuine. `logs` says whether
    the key may read the Email Logs API. Raises ConfigurationError for a value that can never work.
    """

    name = "sendgrid"
    most_erasures = sendgrid_erasing.MOST

    def __init__(
        self,
        api_key: str,
        base_url: str = "https://api.sendgrid.com",
        webhook_public_key: str | None = None,
        *,
        logs: bool = True,
        connect: float = CONNECT_SECONDS,
        deadline: float = DEADLINE_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ConfigurationError("SENDGRID_API_KEY is missing, or has a character no key has")
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigurationError("DRIPWELL_PROVIDER_URL must look like https://api.sendgrid.com")
        self.capabilities = Capabilities(
            sendgrid_body.MAX_ENVELOPES,
            events=webhook_public_key is not None,
            logs=logs,
            baa=False,  # it signs none, in no context (rules 5.7)
            idempotency=False,  # it has no such key (rules 1.10)
        )
        self._webhook_key = sendgrid_events.public_key(webhook_public_key) if webhook_public_key is not None else None
        self._line = Line(f"Bearer {api_key}", connect=connect, deadline=deadline, tls=tls)
        self._sendgrid = sendgrid.SendGridAPIClient("known to the line only", host=base_url.rstrip("/"))
        headers = dict(self._sendgrid.client.request_headers)
        del headers["Authorization"]
        self._sendgrid.client = _LineClient(self._sendgrid.host, line=self._line, version=3, request_headers=headers)

    def call(self, mailing: Mailing) -> Outcome:
        """Make one POST with deadlines (connect 5 s, 30 s in all), or none if it cannot be said to SendGrid."""
        refused = sendgrid_body.refusal(mailing)
        if refused is not None:
            return refused
        try:
            answer = self._post(sendgrid_body.body(mailing))
        except _TooLargeError as error:
            return sendgrid_body.too_large(error.size)
        except LineBrokenError as broken:
            return Unknown(broken.reason) if broken.written else NotSent(broken.reason)
        return outcome(answer, len(mailing.envelopes))

    def find(self, address: str, message: UUID, since: datetime) -> LogAnswer:
        """Ask the Email Logs for this person since then, and each hit's details for our custom arg.

        Not found is an answer only when every row that could be the message was read.
        """
        query = _log_query(address, since)
        if query is None:
            return LogAnswer(answered=False)
        listed = self._json(self._sendgrid.client.logs.post, {"query": query, "limit": LOG_ROWS})
        rows = listed.get("messages") if listed is not None else None
        if not isinstance(rows, list):
            return LogAnswer(answered=False)
        complete = len(rows) < LOG_ROWS
        found, batches = False, set[int]()
        for row in rows:
            name = row.get("sg_message_id") if isinstance(row, dict) else None
            if not isinstance(name, str) or not name:
                complete = False
                continue
            detail = self._json(self._sendgrid.client.logs._(quote(name, safe="")).get)
            if detail is None:
                complete = False
            else:
                named = _batches(detail, message)
                found |= named is not None
                batches |= named or set()
        return LogAnswer(answered=complete or found, found=found, batches=frozenset(batches))

    def erase(self, addresses: Sequence[str]) -> Erasing:
        """Ask SendGrid to erase what it keeps of these people (rules 1.20); see `sendgrid_erasing`."""
        body = {"email_addresses": list(addresses)}
        try:
            answer = _answer(self._sendgrid.client.recipients.erasejob.post(request_body=body))
        except LineBrokenError as broken:
            return Erasing(accepted=False, reason=broken.reason)
        except _TooLargeError as error:
            return Erasing(accepted=False, reason=f"{error.size} bytes are more than a call takes", at_fault=True)
        return sendgrid_erasing.answered(answer, _object(answer), _retry_after(answer.headers))

    def is_genuine(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Check the signature on the raw bytes; without a key nothing is genuine."""
        return self._webhook_key is not None and sendgrid_events.is_genuine(self._webhook_key, headers, body)

    def events(self, body: bytes) -> list[ProviderEvent]:
        """Translate to our words; see `sendgrid_events.parse`."""
        return sendgrid_events.parse(body)

    def close(self) -> None:
        """Drop the connection."""
        self._line.close()

    def _post(self, body: dict[str, Any]) -> Answer:
        # As the package's own `post` does, which also writes the whole body into a log line that is thrown away.
        client = self._sendgrid.client.mail.send
        headers = {**client.request_headers, "Content-Type": "application/json"}
        url = client._build_url(None)
        answer: Answer = client._make_request(None, Request(url, msgspec.json.encode(body), headers, method="POST"))
        return answer

    def _json(self, ask: Any, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Return the object a 200 carries; None for every other answer, and for none."""
        try:
            answer = _answer(ask(request_body=body))
        except LineBrokenError:
            return None
        return _object(answer) if answer.status == 200 else None


def outcome(answer: Answer, rows: int) -> Outcome:
    """Read the answer to a mail call of so many rows, as SENDING.md section 6 has it. What is not listed is unknown."""
    status = answer.status
    if status == 202:
        return Accepted(answer.headers.get("x-message-id", "")[:200])
    if status == 413:  # written by the proxy in front, as HTML
        return Refused("413: too large", status, too_large=True)
    errors = _errors(answer)
    if errors is None or not (status in (400, 429) or status in ACCOUNT_STATUSES):
        return Unknown(f"{status}: {_media_type(answer) or 'no content type'}", status)
    reason = told(f"{status}: " + "; ".join(_words(error) for error in errors))
    if status == 429:
        return NotSent(reason, status, retry_after=_retry_after(answer.headers), rate_limited=True)
    if status == 400:
        return Refused(reason, status, row=_row(errors, rows))
    return NotSent(reason, status, account=True)


class _TooLargeError(Exception):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class _LineClient(python_http_client.Client):
    """The package's client over our line. `_build_client` names its own class, so it is overridden too."""

    def __init__(self, host: str, *, line: Line, **rest: Any) -> None:
        super().__init__(host, **rest)
        self._line = line

    def _build_client(self, name: str | None = None) -> _LineClient:
        path = [*self._url_path, name] if name else self._url_path
        headers = dict(self.request_headers)
        return _LineClient(self.host, line=self._line, version=self._version, request_headers=headers, url_path=path)

    def _make_request(self, opener: object, request: Written, timeout: float | None = None) -> Answer:
        size = len(request.data or b"")
        if size > sendgrid_body.MAX_BYTES:  # measured on the very bytes that would leave
            raise _TooLargeError(size)
        return self._line.request(request)


def _answer(response: Any) -> Answer:
    return Answer(response.status_code, response.headers, response.body)


def _media_type(answer: Answer) -> str:
    return told(answer.headers.get("content-type", "").partition(";")[0].strip().lower(), 40)


def _object(answer: Answer) -> dict[str, Any] | None:
    if not _media_type(answer).endswith("json"):
        return None
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _errors(answer: Answer) -> list[dict[str, Any]] | None:
    """Return what makes an answer the provider's own: `{"errors": [{…}, …]}`. No proxy in between writes that."""
    value = _object(answer)
    errors = value.get("errors") if value is not None else None
    if not isinstance(errors, list) or not errors or not all(isinstance(error, dict) for error in errors):
        return None
    return errors


def _words(error: Mapping[str, Any]) -> str:
    return " ".join(part for key in ("field", "message") if isinstance(part := error.get(key), str))


def _row(errors: list[dict[str, Any]], rows: int) -> int | None:
    """Return the first row named. The number counts the JSON that was written, which has the mailing's order."""
    for error in errors:
        for key in ("field", "message"):
            named = _ROW.search(part) if isinstance(part := error.get(key), str) else None
            if named and int(named[1]) < rows:
                return int(named[1])
    return None


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Read Retry-After (seconds or a date), else X-RateLimit-Reset (Unix seconds). The answer's own Date is "now"."""
    now = _date(headers.get("date", ""))
    text = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(text):
        return _bounded(float(text))
    until = _date(text)
    if until is not None and now is not None:
        return _bounded((until - now).total_seconds())
    reset = headers.get("x-ratelimit-reset", "").strip()
    if not _NUMBER.fullmatch(reset):
        return None
    seconds = float(reset)
    if seconds < _EPOCH_FROM:
        return _bounded(seconds)
    return _bounded(seconds - now.timestamp()) if now is not None else None


def _bounded(seconds: float) -> timedelta:
    return timedelta(seconds=min(max(seconds, 0.0), LONGEST_WAIT.total_seconds()))


def _date(text: str) -> datetime | None:
    try:
        value = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _log_query(address: str, since: datetime) -> str | None:
    """Return the filter; None when the address cannot be quoted, since no way to escape is documented."""
    mark = '"' if "'" in address else "'"
    if mark in address or "\\" in address or not address.isprintable():
        return None
    moment = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f'to_email = {mark}{address}{mark} AND sg_message_id_created_at >= TIMESTAMP "{moment}"'


def _batches(detail: Mapping[str, Any], message: UUID) -> set[int] | None:
    """The batches that a log entry, or any event in it, names beside this message; None: it is not about it."""
    events = detail.get("events")
    found: set[int] | None = None
    for part in (detail, *(events if isinstance(events, list) else ())):
        args = part.get("custom_args") if isinstance(part, dict) else None
        if isinstance(args, dict) and args.get("dw_m") == message.hex:
            found = set() if found is None else found
            batch = args.get("dw_b")
            if isinstance(batch, str) and _BATCH.fullmatch(batch):
                found.add(int(batch))
    return found
