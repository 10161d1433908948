"""An address in a form that only this installation reads: kept while a provider has yet to be told to erase it."""

from __future__ import annotations

import hashlib
import hmac
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = bytes(12)
_PURPOSE = b"dripwell erasure\0"


def sealed(secret: bytes, person: UUID, address: str) -> bytes:
    """Return the address under a key of this person's own (`subscriber.public_id`): AES-256-GCM.

    A key seals one text only, so its nonce may be the same for all.
    """
    return AESGCM(_key(secret, person)).encrypt(_NONCE, address.encode(), None)


def opened(secret: bytes, person: UUID, box: bytes) -> str:
    """Return what `sealed` was given. Raises ValueError when the secret is another one, or the bytes were changed."""
    try:
        return AESGCM(_key(secret, person)).decrypt(_NONCE, box, None).decode()
    except InvalidTag as error:
        raise ValueError("the address cannot be read: DRIPWELL_PEPPER is not the one it was kept under") from error


def _key(secret: bytes, person: UUID) -> bytes:
    return hmac.digest(secret, _PURPOSE + person.bytes, hashlib.sha256)
