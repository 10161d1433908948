"""Signed words for links: version, purpose, an opaque id, 128 bits of HMAC. No address, ever.

A word is base64url of `version ‖ key id ‖ id (8 bytes) [‖ issued, in hours since 1970 (4 bytes)] ‖ mac (16 bytes)`: 35
or 40 characters, so `https://mail.kcla.example/u/<word>` stays under the 75 characters that Python folds into an
illegal header (rules 3.3). The purpose is inside the MAC, so a word for one door does not open another.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from dripwell.core.errors import InvalidTokenError

VERSION = 1
_MAC = 16
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_ISSUED = struct.Struct(">I")


class Purpose(StrEnum):
    """The doors a word can open. Each names the id it carries."""

    CLICK = "click"  # message id
    VIEW = "view"  # message id
    UNSUBSCRIBE = "unsubscribe"  # message id
    PREFERENCES = "preferences"  # message id
    BOOK = "book"  # message id
    CONFIRM = "confirm"  # enrollment id (of the `confirm` campaign)
    CALL = "call"  # booking id
    KEEP = "keep"  # message id (of the `keep` campaign)
    FORM = "form"  # when a form was shown, in seconds since 1970


LIFETIME: Mapping[Purpose, timedelta] = {Purpose.CONFIRM: timedelta(days=7), Purpose.PREFERENCES: timedelta(days=30)}
"""Purposes that expire. The others never do: an unsubscribe link works for ever (rules 5.1)."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Two rings, newest key last, at most 255 each: one for unsubscribe links, which must outlive the other."""

    links: tuple[bytes, ...]
    unsubscribe: tuple[bytes, ...]

    def ring(self, purpose: Purpose) -> tuple[bytes, ...]:
        """The keys that sign this purpose."""
        return self.unsubscribe if purpose is Purpose.UNSUBSCRIBE else self.links


def sign(keys: Keys, purpose: Purpose, identity: int, wall_now: datetime) -> str:
    """Return the signed word for `identity`; `wall_now` is used only by purposes that expire."""
    return signer(keys, purpose, wall_now)(identity)


def signer(keys: Keys, purpose: Purpose, wall_now: datetime) -> Callable[[int], str]:
    """Return what signs many ids for one purpose: a thousand people an email have several words each."""
    ring = keys.ring(purpose)
    key, label = ring[-1], purpose.encode() + b"\0"
    head = bytes((VERSION, len(ring) - 1))
    issued = _ISSUED.pack(int(wall_now.timestamp() // 3600)) if purpose in LIFETIME else b""

    def word(identity: int) -> str:
        body = head + identity.to_bytes(8, "big") + issued
        mac = hmac.digest(key, label + body, "sha256")[:_MAC]
        return binascii.b2a_base64(body + mac, newline=False).translate(_URL_SAFE).rstrip(b"=").decode("ascii")

    return word


def verify(keys: Keys, purpose: Purpose, word: str, wall_now: datetime) -> int:
    """Return the id in `word`. Raises InvalidTokenError when it was forged, mangled or has expired."""
    expires = purpose in LIFETIME
    size = 10 + (4 if expires else 0) + _MAC
    try:
        raw = base64.b64decode(word.encode("ascii") + b"=" * (-len(word) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError) as error:
        raise InvalidTokenError("this link is not complete") from error
    if len(raw) != size or raw[0] != VERSION:
        raise InvalidTokenError("this link is not complete")
    body, mac = raw[:-_MAC], raw[-_MAC:]
    ring = keys.ring(purpose)
    if raw[1] >= len(ring) or not hmac.compare_digest(mac, _mac(ring[raw[1]], purpose, body)):
        raise InvalidTokenError("this link is not one of ours")
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") != word:
        raise InvalidTokenError("this link is not one of ours")  # a second spelling of the same bytes
    if expires:
        issued = datetime.fromtimestamp(struct.unpack(">I", body[10:14])[0] * 3600, UTC)
        if wall_now > issued + LIFETIME[purpose] + timedelta(hours=1):
            raise InvalidTokenError("this link has expired")
    identity: int = struct.unpack(">Q", body[2:10])[0]
    return identity


def _mac(key: bytes, purpose: Purpose, body: bytes) -> bytes:
    # The one-shot function: a thousand people an email have several words each.
    return hmac.digest(key, purpose.encode() + b"\0" + body, "sha256")[:_MAC]
