"""Bounces, delays and complaints that come back by mail: RFC 3464, RFC 5965, and what servers write instead of them.

Anybody can mail anything to the return path, so a mail here is believed only about the message whose mark it carries:
a random id that nobody has who did not get, or carry, that email. An address alone proves nothing, and none leaves this
module. Everything is bounded, and whatever breaks inside ends as ValueError.

A person's "unsubscribe" is believed the same way: by the mark in the address it was mailed to, or of the email it
answers. Whoever has that mark has the email, and with it a link that does the same. Who it says it is from is no proof,
so a mail without a mark unsubscribes nobody; an operator does (`dripwell suppressions add`).
"""

from __future__ import annotations

import email
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

from dripwell.delivery.line import told
from dripwell.delivery.provider import ProviderEvent
from dripwell.delivery.sendgrid_events import NO_TIME
from dripwell.delivery.smtp_message import BATCH_HEADER, MESSAGE_HEADER

LARGEST = 5 * 1024 * 1024
"""Octets of one mail that are looked at at all."""
_READ = 512 * 1024  # reports put what counts first, and what comes after may be the whole email
_MOST_PARTS = 60
_DEEPEST = 6
_MOST_REPORTS = 20
_LONGEST_VALUE = 2_000
_LONGEST_TEXT = 64 * 1024
_LARGEST_ID = 2**63 - 1

# rules 2.6: an address that does not exist. 5.1.7 and 5.1.8 blame the sender, 5.2.x a mailbox that may come back, and
# 5.7.x nobody but us (rules 3.6).
HARD = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})
_ACTIONS: Mapping[str, str] = {
    "failed": "bounced",
    "delayed": "deferred",
    "delivered": "delivered",
    "relayed": "delivered",
    "expanded": "delivered",
}
_BY_CLASS: Mapping[str, str] = {"5": "bounced", "4": "deferred", "2": "delivered"}
_NO_COMPLAINT = frozenset({"not-spam", "auth-failure", "dmarc", "virus"})

_RETURNED = frozenset(
    {"message/rfc822", "message/global", "text/rfc822-headers", "message/rfc822-headers", "message/global-headers"}
)
_MARK = re.compile(r"(?<!\d)(\d{1,19})-([0-9a-f]{32})(?![0-9a-f])")
_MARKED_ADDRESS = re.compile(_MARK.pattern + r"@")
_MESSAGE_ID = re.compile(r"<([0-9a-f]{32})@")
_HEX = re.compile(r"[0-9a-f]{32}")
_QUOTED_MESSAGE = re.compile(rf"^[> \t]*{MESSAGE_HEADER}:[ \t]*([0-9a-f]{{32}})\s*$", re.MULTILINE | re.IGNORECASE)
_QUOTED_BATCH = re.compile(rf"^[> \t]*{BATCH_HEADER}:[ \t]*(\d{{1,19}})\s*$", re.MULTILINE | re.IGNORECASE)
_STATUS = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?!\.?\d)")
_REPLY = re.compile(r"(?<![\d.])([45])\d\d(?=[ -])")
_ADDRESS = re.compile(r"[^\s<>\"';,:()]+@[^\s<>\"';,:()]+")
_NOBODY = re.compile(
    r"user unknown|unknown user|no such (?:user|mailbox|recipient)|(?:unknown|invalid) recipient|recipient unknown|"
    r"(?:mailbox|user|address|account) (?:does not|doesn't) exist|no mailbox here by that name|RecipNotFound",
    re.IGNORECASE,
)
_DAEMON = re.compile(r"\b(?:mailer-daemon|mail-daemon|postmaster|mdaemon)@|<>", re.IGNORECASE)
_FAILURE = re.compile(r"undeliver|fail|return|non-?delivery|could not|couldn't|rejected|status notif", re.IGNORECASE)
_LATE = re.compile(r"delay|warning|not yet|still (?:being )?(?:trying|retried)", re.IGNORECASE)
_LEAVING = re.compile(
    r"(?:(?:re|fwd?|aw|sv|rv)\s*:\s*)*(?:please\s+)?"
    r"(?:unsubscribe(?:\s+me)?|stop|remove(?:\s+me)?|opt[ -]?out)\s*[.!]*",
    re.IGNORECASE,
)
_LEAVING_ADDRESS = re.compile(r"(?:^|[\s<,;])unsubscribe\b[^\s@]{0,80}@", re.IGNORECASE)
_RETURNED_TEXT = re.compile(r"^(?:Return-Path|Received|X-Dripwell-\w+):", re.MULTILINE | re.IGNORECASE)

Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Read:
    """What a mail holds that may matter. Header names are in lower case."""

    headers: Fields
    reports: tuple[Fields, ...]  # the blocks of message/delivery-status
    feedback: Fields | None  # message/feedback-report
    returned: Fields  # headers of the email that it is about
    text: str  # its own words
    digest: str


def parse(body: bytes) -> list[ProviderEvent]:
    """Translate to our words: bounced, deferred, delivered, complained, unsubscribed (a person mailed that word), or
    unknown for any other reply, a vacation, anything.

    `address` is never set. Raises ValueError when the body is no mail, or one that cannot be read within the limits.
    """
    if len(body) > LARGEST:
        raise ValueError(f"the mail has {len(body)} bytes, the limit is {LARGEST}")
    try:
        read = _read(body)
        return _events(read)
    except (RecursionError, MemoryError) as error:
        raise ValueError("the mail is nested too deeply") from error
    except Exception as error:
        # The standard parser meets hostile mail here, and breaks in more ways than it documents.
        raise ValueError(f"the mail cannot be read: {type(error).__name__}: {told(str(error))}") from error


def _events(read: _Read) -> list[ProviderEvent]:
    if read.feedback is not None:
        kind = "unknown" if read.feedback.get("feedback-type", "").lower() in _NO_COMPLAINT else "complained"
        return [_event(read, kind, "complaint", read.feedback, words=read.feedback.get("feedback-type", ""))]
    blocks = [block for block in read.reports if "action" in block or "status" in block][:_MOST_REPORTS]
    if blocks:
        return [_reported(read, block) for block in blocks]
    if _is_bounce_in_words(read):
        return [_in_words(read)]
    if _is_leaving(read):
        return [_event(read, "unsubscribed", "reply", {}, words="unsubscribe")]
    return [_event(read, "unknown", "mail", {}, words=read.headers.get("auto-submitted", ""))]


def _reported(read: _Read, block: Fields) -> ProviderEvent:
    words = block.get("diagnostic-code", "")
    status = _status(block.get("status", ""), words)
    action = block.get("action", "").partition(" ")[0].lower()
    kind = _ACTIONS.get(action) or _BY_CLASS.get(status[:1], "unknown")
    hard = kind == "bounced" and _is_nobody(status, words) and _is_about_whom_we_mailed(read, block)
    return _event(read, kind, "report", block, status=status, words=words, hard=hard)


def _status(said: str, words: str) -> str:
    """Return the enhanced status; a server's own words are closer than the x.0.0 another made of them."""
    found = _STATUS.search(said)
    if found is None or found[1].endswith(".0.0"):
        found = _STATUS.search(words) or found
    return found[1] if found else ""


def _is_nobody(status: str, words: str) -> bool:
    if status in HARD:
        return True
    return status in ("", "5.0.0") and _NOBODY.search(words) is not None and "sender" not in words.lower()


def _is_about_whom_we_mailed(read: _Read, block: Fields) -> bool:
    # Somebody who forwards to a dead mailbox still reads the first one.
    ours = _ADDRESS.search(read.returned.get("to", ""))
    theirs = {
        found[0].lower()
        for name in ("original-recipient", "final-recipient")
        if (found := _ADDRESS.search(block.get(name, "")))
    }
    return ours is None or not theirs or ours[0].lower() in theirs


def _is_bounce_in_words(read: _Read) -> bool:
    if "disposition-notification" in read.headers.get("content-type", "") or _marks(read)[0] is None:
        return False
    if "x-failed-recipients" in read.headers:
        return True
    # A person may be postmaster too, and answer: a server says that something went wrong.
    said = read.headers.get("subject", "")
    return bool(_DAEMON.search(read.headers.get("from", "")) and (_FAILURE.search(said) or _LATE.search(said)))


def _is_leaving(read: _Read) -> bool:
    """A mail that carries a mark and says "unsubscribe": as its subject, its first line, or by where it was mailed."""
    if _marks(read)[0] is None or read.headers.get("auto-submitted", "no").partition(";")[0].strip().lower() != "no":
        return False
    mailed_to = " ".join(read.headers.get(name, "") for name in ("to", "delivered-to", "x-original-to", "envelope-to"))
    if _LEAVING_ADDRESS.search(mailed_to):
        return True
    if _LEAVING.fullmatch(read.headers.get("subject", "").strip()):
        return True
    first = next((line.strip() for line in read.text.splitlines() if line.strip()), "")
    return _LEAVING.fullmatch(first) is not None


def _in_words(read: _Read) -> ProviderEvent:
    cut = _RETURNED_TEXT.search(read.text)
    own = read.text[: cut.start()] if cut else read.text
    line = next((line for line in own.splitlines() if _STATUS.search(line) or _REPLY.search(line)), "")
    status = _status("", line)
    reply = _REPLY.search(line)
    kind = _BY_CLASS.get(status[:1] or (reply[1] if reply else ""), "bounced")
    if _LATE.search(read.headers.get("subject", "")):
        kind = "deferred"
    hard = kind == "bounced" and _is_nobody(status, line or own)
    return _event(read, kind, "words", {}, status=status, words=line, hard=hard)


def _event(
    read: _Read, kind: str, form: str, fields: Fields, *, status: str = "", words: str = "", hard: bool = False
) -> ProviderEvent:
    message, batch = _marks(read)
    at = _time(fields.get("last-attempt-date", "")) or _time(read.headers.get("date", "")) or NO_TIME
    reason = told(f"{status} {words}".strip(), 300)
    about = message.hex if message else read.digest
    whole = json.dumps([about, kind, int(at.timestamp()), reason, fields.get("final-recipient", "")])
    detail: dict[str, Any] = {"form": form, "status": status, "reason": reason}
    for name in ("action", "reporting-mta", "remote-mta", "feedback-type", "user-agent"):
        if name in fields:
            detail[name] = told(fields[name])
    return ProviderEvent(
        kind=kind,
        at=at,
        dedupe=hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest(),
        message=message,
        batch=batch,
        hard=hard,
        reason=reason,
        detail=detail,
    )


def _marks(read: _Read) -> tuple[UUID | None, int | None]:
    """Return (message, batch) of the email it is about, from the surest place to the least."""
    for block in read.reports:
        if found := _MARK.fullmatch(block.get("original-envelope-id", "")):
            return _ids(found[2], found[1])
    message = read.returned.get(MESSAGE_HEADER.lower(), "")
    if _HEX.fullmatch(message):
        return _ids(message, read.returned.get(BATCH_HEADER.lower(), ""))
    places = [read.headers.get(name, "") for name in ("to", "delivered-to", "x-original-to", "envelope-to")]
    places += [read.returned.get("return-path", ""), (read.feedback or {}).get("original-mail-from", "")]
    for place in places:
        if found := _MARKED_ADDRESS.search(place):
            return _ids(found[2], found[1])
    quoted = _QUOTED_MESSAGE.search(read.text)
    if quoted:
        batch = _QUOTED_BATCH.search(read.text)
        return _ids(quoted[1].lower(), batch[1] if batch else "")
    places = [read.returned.get("message-id", ""), *(read.headers.get(n, "") for n in ("in-reply-to", "references"))]
    for place in places:
        if found := _MESSAGE_ID.search(place):
            return _ids(found[1], "")
    return None, None


def _ids(message: str, batch: str) -> tuple[UUID, int | None]:
    number = int(batch) if batch.isascii() and batch.isdigit() and len(batch) <= 19 else 0
    return UUID(hex=message), number if 0 < number <= _LARGEST_ID else None


def _read(body: bytes) -> _Read:
    start = body[:_READ]
    # Counted before parsing: the parser recurses into each, and takes quadratic time over many boundaries.
    lowered = start.lower()
    if lowered.count(b"multipart/") + lowered.count(b"message/") > _MOST_PARTS:
        raise ValueError("the mail has too many parts")
    mail = email.message_from_bytes(start)
    if not mail.keys():
        raise ValueError("there is no header, so this is no mail")
    reports: list[Fields] = []
    returned: Fields = {}
    feedback: Fields | None = None
    texts: list[str] = []
    for part in _parts(mail):
        kind = part.get_content_type()
        if kind in ("message/delivery-status", "message/global-delivery-status"):
            reports += [] if reports else _blocks(part)
        elif kind == "message/feedback-report":
            feedback = feedback if feedback is not None else next(iter(_blocks(part)), {})
        elif kind in _RETURNED:
            fields = next(iter(_blocks(part)), {})
            if not returned or (MESSAGE_HEADER.lower() in fields and MESSAGE_HEADER.lower() not in returned):
                returned = fields
        elif kind.startswith("text/") and len(texts) < 4:
            texts.append(_text(part))
    return _Read(
        headers=_fields(mail),
        reports=tuple(reports),
        feedback=feedback,
        returned=returned,
        text="\n".join(texts),
        digest=hashlib.sha256(body).hexdigest(),
    )


def _parts(mail: Message) -> Iterator[Message]:
    """Yield the leaves in order. An email that came back is a leaf: what stands in it is not the server's word."""
    waiting = [(mail, 0)]
    seen = 0
    while waiting:
        part, depth = waiting.pop()
        seen += 1
        if seen > _MOST_PARTS or depth > _DEEPEST:
            raise ValueError("the mail has too many parts, or they are nested too deeply")
        inside = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(inside, list):
            waiting += [(child, depth + 1) for child in reversed(inside) if isinstance(child, Message)]
        else:
            yield part


def _blocks(part: Message) -> list[Fields]:
    """Return the blocks of fields in a part, which the parser hands over as messages or as plain text."""
    inside = part.get_payload()
    if isinstance(inside, list):
        found = [_fields(block) for block in inside[: _MOST_REPORTS + 1] if isinstance(block, Message)]
        rest = inside[0].get_payload() if len(inside) == 1 and isinstance(inside[0], Message) else None
        text = rest if isinstance(rest, str) and part.get_content_type() == "message/global-delivery-status" else ""
    else:
        found, text = [], _text(part)
    for block in re.split(r"\r?\n\r?\n", text)[: _MOST_REPORTS + 1]:
        found.append(_fields(email.message_from_string(block.strip() + "\n\n")))
    return [fields for fields in found if fields]


def _fields(mail: Message) -> Fields:
    found: dict[str, str] = {}
    for name, value in mail.items()[:200]:
        found.setdefault(name.lower()[:100], " ".join(str(value)[:_LONGEST_VALUE].split()))
    return found


def _text(part: Message) -> str:
    octets = part.get_payload(decode=True)
    return octets[:_LONGEST_TEXT].decode("utf-8", "replace") if isinstance(octets, bytes) else ""


def _time(text: str) -> datetime | None:
    try:
        value = parsedate_to_datetime(text)
        value = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        value = value.astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return value if value > NO_TIME else None
