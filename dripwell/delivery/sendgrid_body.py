"""A mailing as the body of `POST /v3/mail/send`, and what of it cannot be said to SendGrid at all.

The body is a dict made here, because the package's own `Mail` inserts each personalization at index 0: people would go
out in reverse, and a 400 that names `personalizations.N` would blame somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dripwell.delivery.provider import Envelope, Mailing, Refused

MAX_ENVELOPES = 1_000  # rules 1.1
MAX_BYTES = 20 * 1024 * 1024  # the provider's limit is 30 MB (rules 1.2)
MAX_SUBSTITUTION_BYTES = 10_000  # per person (rules 1.4)
MAX_CATEGORIES = 10

# rules 1.5
RESERVED_HEADERS = frozenset(
    {
        "x-sg-id",
        "x-sg-eid",
        "received",
        "dkim-signature",
        "content-type",
        "content-transfer-encoding",
        "to",
        "from",
        "subject",
        "reply-to",
        "cc",
        "bcc",
    }
)

_HEADER_KEY = re.compile(r"[!-9;-~]+")  # RFC 5322 ftext: printable ASCII without the colon
_CATEGORY = re.compile(r"[ -~]{1,255}")
_NEVER_ON_ONE_LINE = re.compile(r"[\r\n\0\ud800-\udfff]")
_NEVER_IN_A_PART = re.compile(r"[\0\ud800-\udfff]")


def body(mailing: Mailing) -> dict[str, Any]:
    """Return the JSON value to post; `personalizations` has the order of `mailing.envelopes`.

    Tracking is refused in every request, since the account's defaults apply where a request is silent (rules 1.16).
    """
    sender = {"email": mailing.sender.address}
    if mailing.sender.name:
        sender["name"] = mailing.sender.name
    result: dict[str, Any] = {
        "personalizations": [_personalization(envelope, mailing.batch) for envelope in mailing.envelopes],
        "from": sender,
        "reply_to": {"email": mailing.reply_to},
        "subject": mailing.subject,
        "content": [
            {"type": "text/plain", "value": mailing.text},
            {"type": "text/html", "value": mailing.html},
        ],
        "tracking_settings": {
            "click_tracking": {"enable": False, "enable_text": False},
            "open_tracking": {"enable": False},
            "subscription_tracking": {"enable": False},
            "ganalytics": {"enable": False},
        },
    }
    if mailing.headers:
        result["headers"] = dict(mailing.headers)
    if mailing.categories:
        result["categories"] = list(mailing.categories)
    return result


def refusal(mailing: Mailing) -> Refused | None:
    """Return why this mailing cannot be said to SendGrid, with the row at fault; None when it can.

    Refused here has status 0: the provider never saw it. Its mere policies are left to its own answer.
    """
    if not mailing.envelopes:
        return _refused("no envelope")
    if len(mailing.envelopes) > MAX_ENVELOPES:
        return _refused(f"{len(mailing.envelopes)} envelopes, the limit is {MAX_ENVELOPES}", too_large=True)
    return _common_refusal(mailing) or _row_refusal(mailing)


def too_large(size: int) -> Refused:
    """Return the refusal for a body of `size` bytes."""
    return _refused(f"the body has {size} bytes, the limit is {MAX_BYTES}", too_large=True)


def _personalization(envelope: Envelope, batch: int) -> dict[str, Any]:
    result: dict[str, Any] = {"to": [{"email": envelope.to}]}
    if envelope.headers:
        result["headers"] = dict(envelope.headers)
    if envelope.substitutions:
        result["substitutions"] = dict(envelope.substitutions)
    # Stored by the provider for good and not erasable (rules 1.3): random ids only.
    result["custom_args"] = {"dw_m": envelope.message.hex, "dw_b": str(batch)}
    return result


def _common_refusal(mailing: Mailing) -> Refused | None:
    lines = {
        "sender name": mailing.sender.name,
        "sender": mailing.sender.address,
        "reply-to": mailing.reply_to,
        "subject": mailing.subject,
    }
    for name, line in lines.items():
        if _NEVER_ON_ONE_LINE.search(line):
            return _refused(f"line break, NUL or half a character in the {name}")
        if not line and name != "sender name":
            return _refused(f"empty {name}")
    if not mailing.sender.address.isascii():
        return _refused("sender is not ASCII")
    for name, part in {"text part": mailing.text, "HTML part": mailing.html}.items():
        if not part:
            return _refused(f"empty {name}")
        if _NEVER_IN_A_PART.search(part):
            return _refused(f"NUL or half a character in the {name}")
    categories = mailing.categories
    if len(categories) > MAX_CATEGORIES or len(set(categories)) < len(categories):
        return _refused("more than 10 categories, or one twice")
    if not all(_CATEGORY.fullmatch(category) for category in categories):
        return _refused("a category is empty, not ASCII or longer than 255")
    fault = _header_fault(mailing.headers, ())
    return _refused(fault) if fault else None


def _row_refusal(mailing: Mailing) -> Refused | None:
    seen: set[str] = set()
    common = {key.lower() for key in mailing.headers}
    words = {word for envelope in mailing.envelopes for word in envelope.substitutions}
    good_keys: set[tuple[str, ...]] = set()  # a thousand people have the same few header names
    for row, envelope in enumerate(mailing.envelopes):
        address = envelope.to.lower()
        if address in seen:
            return _refused("address twice in one batch", row)  # one such pair costs the provider's 400 for all
        seen.add(address)
        keys = tuple(envelope.headers)
        fault = _to_fault(envelope.to) or ("" if keys in good_keys else _header_fault(envelope.headers, common))
        fault = fault or _line_fault(envelope) or _slot_fault(envelope, words)
        if fault:
            return _refused(fault, row)
        good_keys.add(keys)
    return None


def _to_fault(address: str) -> str:
    if not address.isascii() or not address.isprintable() or "@" not in address:
        return "address cannot be written"
    return ""


def _header_fault(headers: Mapping[str, str], taken: Iterable[str]) -> str:
    seen = set(taken)
    for key, value in headers.items():
        if not _HEADER_KEY.fullmatch(key):
            return "header key is empty, not ASCII or has a space or colon"
        if key.lower() in RESERVED_HEADERS:
            return f"header {key} is reserved"
        if key.lower() in seen:
            return f"header {key} twice"
        if _NEVER_ON_ONE_LINE.search(value):
            return f"line break, NUL or half a character in header {key}"
        seen.add(key.lower())
    return ""


def _line_fault(envelope: Envelope) -> str:
    # One look at all of it: nearly always there is nothing to find, and what is printable has no line to break.
    said = "".join([*envelope.headers.values(), *envelope.substitutions.values()])
    if said.isprintable() or not _NEVER_ON_ONE_LINE.search(said):
        return ""
    for key, value in envelope.headers.items():
        if _NEVER_ON_ONE_LINE.search(value):
            return f"line break, NUL or half a character in header {key}"
    return "line break, NUL or half a character in a slot"


def _slot_fault(envelope: Envelope, words: set[str]) -> str:
    # A word without a value would arrive in the mailbox as itself (rules 1.4).
    substitutions = envelope.substitutions
    if len(substitutions) < len(words) or "" in words:
        return "a slot without a value, or without a word"
    said = "".join(substitutions)
    if not said.isprintable() and _NEVER_ON_ONE_LINE.search(said):
        return "line break, NUL or half a character in a slot"
    said += "".join(substitutions.values())
    size = len(said) if said.isascii() else len(said.encode())
    return f"slots have {size} bytes, the limit is {MAX_SUBSTITUTION_BYTES}" if size > MAX_SUBSTITUTION_BYTES else ""


def _refused(reason: str, row: int | None = None, *, too_large: bool = False) -> Refused:
    return Refused(reason, status=0, row=row, too_large=too_large)
