"""One person's email as the bytes that SMTP carries, and what of a mailing cannot be said by SMTP at all.

Written out by hand and not by `email.message`: that package folds a long List-Unsubscribe or turns it into an encoded
word, which Gmail then ignores (rules 3.3), and takes its boundaries from chance. Every line here is ASCII, ends in CRLF
and has at most 998 octets, so no server on the way has a reason to change it and break a DKIM signature. Signing itself
is the relay's work.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime

from dripwell.delivery.provider import Envelope, Mailing, Refused

LONGEST_LINE = 998  # octets without CRLF (RFC 5322, 2.1.1)
MAX_BYTES = 20 * 1024 * 1024

RESERVED_HEADERS = frozenset(
    {
        "bcc",
        "cc",
        "date",
        "dkim-signature",
        "from",
        "message-id",
        "mime-version",
        "received",
        "reply-to",
        "return-path",
        "sender",
        "subject",
        "to",
    }
)
BATCH_HEADER = "X-Dripwell-Batch"
MESSAGE_HEADER = "X-Dripwell-Message"

_HEADER_KEY = re.compile(r"[!-9;-~]+")  # RFC 5322 ftext: printable ASCII without the colon
_LITERAL = re.compile(r"[ -~]*")
_NEVER_ON_ONE_LINE = re.compile(r"[\r\n\0\ud800-\udfff]")
_NEVER_IN_A_PART = re.compile(r"[\0\ud800-\udfff]")
# Narrower than RFC 5321 and as wide as what `core.address.check` lets in: no quoted local part, no domain literal.
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_LONGEST_ADDRESS = 254
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_ENCODED_LENGTH = 45  # octets in one encoded word: 60 characters of base64 in a word of 72, the limit is 75 (RFC 2047)


def is_address(text: str) -> bool:
    """Say whether this can stand between the angle brackets of MAIL and RCPT."""
    return len(text) <= _LONGEST_ADDRESS and _ADDRESS.fullmatch(text) is not None


def refusal(mailing: Mailing) -> Refused | None:
    """Return why this mailing cannot be said by SMTP, with the row at fault; None when it can.

    Refused here has status 0: no server ever saw it.
    """
    if not mailing.envelopes:
        return _refused("no envelope")
    if len(mailing.envelopes) > 1:
        return _refused(f"{len(mailing.envelopes)} envelopes, by SMTP each goes alone", too_large=True)
    envelope = mailing.envelopes[0]
    fault = _common_fault(mailing)
    if fault:
        return _refused(fault)
    fault = "" if is_address(envelope.to) else "address cannot be written"
    fault = fault or _header_fault({**mailing.headers}, envelope.headers) or _slot_fault(envelope)
    return _refused(fault, 0) if fault else None


def written(mailing: Mailing, now: datetime) -> bytes:
    """Return the only envelope's email, its slots filled in one pass. `now`, aware, becomes its Date.

    Expects a mailing that `refusal` let pass. Raises ValueError when a filled-in subject cannot stand in a header.
    """
    envelope = mailing.envelopes[0]
    subject, text, html = _filled((mailing.subject, mailing.text, mailing.html), envelope.substitutions)
    if _NEVER_ON_ONE_LINE.search(subject):
        raise ValueError("line break or NUL in the filled-in subject")
    domain = mailing.sender.address.rpartition("@")[2]
    boundary = f"=_{envelope.message.hex}"  # no quoted-printable line can hold `=_`
    lines = [
        f"From: {_phrase(mailing.sender.name)}<{mailing.sender.address}>",
        f"To: <{envelope.to}>",
        f"Reply-To: <{mailing.reply_to}>",
        f"Subject: {_unstructured(subject)}",
        f"Date: {format_datetime(now.astimezone(UTC))}",
        # The same if this message is ever repeated: mailboxes that collapse equal ids then hide the copy.
        f"Message-ID: <{envelope.message.hex}@{domain}>",
        f"{BATCH_HEADER}: {mailing.batch}",
        f"{MESSAGE_HEADER}: {envelope.message.hex}",
        *(f"{name}: {value}" for name, value in {**mailing.headers, **envelope.headers}.items()),
        "MIME-Version: 1.0",
        f'Content-Type: multipart/alternative; boundary="{boundary}"',
        "",
        *_part(boundary, "text/plain", text),
        *_part(boundary, "text/html", html),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


def _filled(parts: tuple[str, ...], values: Mapping[str, str]) -> tuple[str, ...]:
    """Fill every part in one pass: a value is never searched for words again, as when SendGrid fills it."""
    if not values:
        return parts
    words = re.compile("|".join(re.escape(word) for word in values))
    return tuple(words.sub(lambda found: values[found[0]], part) for part in parts)


def _part(boundary: str, media_type: str, content: str) -> Iterator[str]:
    yield f"--{boundary}"
    yield f"Content-Type: {media_type}; charset=utf-8"
    yield "Content-Transfer-Encoding: quoted-printable"
    yield ""
    # The encoder takes its own line breaks from the first one it meets, so there is always one, and it is CRLF.
    octets = (_LINE_BREAK.sub("\r\n", content).removesuffix("\r\n") + "\r\n").encode()
    yield binascii.b2a_qp(octets, istext=True).decode("ascii").removesuffix("\r\n")


def _unstructured(text: str) -> str:
    # An `=?` of ours would be read as the beginning of an encoded word.
    if _LITERAL.fullmatch(text) and "=?" not in text and text == text.strip() and len(text) < LONGEST_LINE - 100:
        return text
    return "\r\n ".join(_encoded_words(text))


def _phrase(name: str) -> str:
    if not name:
        return ""
    if _LITERAL.fullmatch(name) and "=?" not in name and len(name) < LONGEST_LINE // 4:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}" '
    return "\r\n ".join(_encoded_words(name)) + "\r\n "


def _encoded_words(text: str) -> Iterator[str]:
    word = b""
    for letter in text:
        octets = letter.encode()
        if len(word) + len(octets) > _ENCODED_LENGTH:
            yield f"=?utf-8?b?{base64.b64encode(word).decode()}?="
            word = b""
        word += octets
    yield f"=?utf-8?b?{base64.b64encode(word).decode()}?="


def _common_fault(mailing: Mailing) -> str:
    for name, line in {"sender name": mailing.sender.name, "subject": mailing.subject}.items():
        if _NEVER_ON_ONE_LINE.search(line):
            return f"line break, NUL or half a character in the {name}"
    if not mailing.subject:
        return "empty subject"
    for name, address in {"sender": mailing.sender.address, "reply-to": mailing.reply_to}.items():
        if not is_address(address):
            return f"the {name} is no ASCII address"
    for name, part in {"text part": mailing.text, "HTML part": mailing.html}.items():
        if not part:
            return f"empty {name}"
        if _NEVER_IN_A_PART.search(part):
            return f"NUL or half a character in the {name}"
    return ""


def _header_fault(*sets: Mapping[str, str]) -> str:
    seen: set[str] = set()
    for headers in sets:
        for key, value in headers.items():
            name = key.lower()
            if not _HEADER_KEY.fullmatch(key):
                return "header key is empty, not ASCII or has a space or colon"
            if name in RESERVED_HEADERS or name.startswith(("content-", "x-dripwell-", "resent-")):
                return f"header {key} is reserved"
            if name in seen:
                return f"header {key} twice"
            # As it stands or not at all: an encoded word in a URI header makes the header worthless (rules 3.3).
            if not value.strip() or not _LITERAL.fullmatch(value):
                return f"header {key} is empty, has a line break or a character that is not ASCII"
            if len(key) + 2 + len(value) > LONGEST_LINE:
                return f"header {key} is longer than {LONGEST_LINE} characters"
            seen.add(name)
    return ""


def _slot_fault(envelope: Envelope) -> str:
    for word, value in envelope.substitutions.items():
        if not word or _NEVER_ON_ONE_LINE.search(word) or _NEVER_ON_ONE_LINE.search(value):
            return "a slot without a word, or a line break, NUL or half a character in one"
    return ""


def _refused(reason: str, row: int | None = None, *, too_large: bool = False) -> Refused:
    return Refused(reason, status=0, row=row, too_large=too_large)
