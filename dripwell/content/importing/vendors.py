"""The export files of other systems: what their columns are called, and which of their people have left.

Column names are those the systems write: Mailchimp's audience export (subscribed, unsubscribed and cleaned files; tags
quoted inside one cell; times in UTC), listmonk's subscriber CSV (`uuid,email,name,attributes,status,created_at,
updated_at`), SendGrid's contacts CSV and its suppression CSVs (bounces and blocks `status,reason,email,created`,
invalid addresses `reason,email,created`, spam reports `ip,email,created`, unsubscribes `email,created`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dripwell.core.errors import ContentError

ALL, MARKETING = "all", "marketing"
Leaving = tuple[str, str]  # (scope, reason) of the ledger


@dataclass(frozen=True, slots=True)
class Vendor:
    """How to read one system's files. `columns`: their small names to our words; None passes a column over.

    `kinds` says what each kind of file means for everybody in it: None, they may be mailed.
    """

    name: str
    columns: Mapping[str, str | None]
    kinds: Mapping[str, Leaving | None]
    kind_of: Callable[[str, Sequence[str]], str | None]
    agreed: str  # what their time of consent is worth, as the source of a consent; empty: they keep none
    refused: Mapping[str, str]  # kinds that are not taken, and why


def _mailchimp_kind(file: str, columns: Sequence[str]) -> str | None:
    for kind in ("nonsubscribed", "unsubscribed", "cleaned"):
        if file.startswith(kind):
            return kind
    if "clean_time" in columns:
        return "cleaned"
    return "unsubscribed" if "unsub_time" in columns else "subscribed"


def _sendgrid_kind(file: str, columns: Sequence[str]) -> str | None:
    named = set(columns)
    if not {"email", "created"} <= named:
        return "contacts"
    if "ip" in named:
        return "spam"
    if "status" in named:  # bounces and blocks have the same columns
        return "bounces" if "bounce" in file else "blocks" if "block" in file else None
    return "invalid" if "reason" in named else "unsubscribes"


_MAILCHIMP = Vendor(
    "mailchimp",
    {
        "email address": "email",
        "timezone": "their_timezone",
        "tags": "their_tags",
        "optin_time": "optin_at",
        "confirm_time": "confirm_at",
        "unsub_time": "left_at",
        "clean_time": "left_at",
        **dict.fromkeys(
            (
                "member_rating",
                "optin_ip",
                "confirm_ip",
                "latitude",
                "longitude",
                "gmtoff",
                "dstoff",
                "cc",
                "region",
                "last_changed",
                "leid",
                "euid",
                "notes",
                "unsub_campaign_title",
                "unsub_campaign_id",
                "unsub_reason",
                "unsub_reason_other",
                "clean_campaign_title",
                "clean_campaign_id",
            ),
            None,
        ),
    },
    {
        "subscribed": None,
        "unsubscribed": (MARKETING, "unsubscribed"),
        "cleaned": (ALL, "undeliverable"),
    },
    _mailchimp_kind,
    "signed up at Mailchimp",
    {"nonsubscribed": "these people never agreed to get email"},
)
_LISTMONK = Vendor(
    "listmonk",
    {"email": "email", "attributes": "their_fields", "status": "their_status",
     **dict.fromkeys(("uuid", "created_at", "updated_at"), None)},
    {"subscribers": None},
    lambda file, columns: "subscribers",
    "",
    {},
)  # fmt: skip
_SENDGRID = Vendor(
    "sendgrid",
    {
        "email": "email",
        "created": "left_at",
        **dict.fromkeys(("contact_id", "created_at", "updated_at", "alternate_emails", "ip", "reason", "status"), None),
    },
    {
        "contacts": None,
        "bounces": (ALL, "undeliverable"),
        "invalid": (ALL, "undeliverable"),
        "spam": (ALL, "complained"),
        "unsubscribes": (MARKETING, "unsubscribed"),
    },
    _sendgrid_kind,
    "",
    {"blocks": "a block is a server's passing no, which SendGrid itself does not hold against the address"},
)
VENDORS: Mapping[str, Vendor] = {one.name: one for one in (_MAILCHIMP, _LISTMONK, _SENDGRID)}
"""Every system whose files `--from` reads."""


def kind_of(path: Path, columns: Sequence[str], vendor: Vendor, told: str | None) -> str:
    """Which of the vendor's files this is: as told, or by its columns and its name.

    Raises ContentError for a kind there is not, one that is not taken, or a file that may be two.
    """
    known = [*vendor.kinds, *vendor.refused]
    kind = told or vendor.kind_of(path.name.lower(), [name.strip().lower() for name in columns])
    if kind is None:
        raise ContentError(f"{path} may be more than one of {vendor.name}'s files: say which with --as bounces|blocks")
    if kind not in known:
        raise ContentError(f"{vendor.name} has no file of the kind `{kind}`: write {', '.join(known)}")
    if kind in vendor.refused:
        raise ContentError(f"{path} is {vendor.name}'s file of {kind} addresses, and is not taken: "
                           f"{vendor.refused[kind]}")  # fmt: skip
    return kind


_QUOTED = re.compile(r'"([^"]*)"')


def mailchimp_tags(cell: str) -> tuple[str, ...]:
    """`"VIP","Spring fair"` in one cell, or the same without quotes."""
    parts = _QUOTED.findall(cell) or cell.split(",")
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def listmonk_fields(cell: str) -> dict[str, str]:
    """The JSON object of the cell `attributes` as fields. Raises ValueError when it is none."""
    value = json.loads(cell or "{}")
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return {
        str(name): content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        for name, content in value.items()
        if content is not None
    }


LISTMONK_STATUSES: Mapping[str, Leaving | str | None] = {
    "enabled": None,
    # listmonk keeps no reason: the strictest of what it can mean holds.
    "blocklisted": (ALL, "unsubscribed"),
    "disabled": "listmonk has disabled this person: enable them there first if they are to be mailed",
}
"""What each status means: None to be taken in, a scope and a reason, or why the row is refused."""
