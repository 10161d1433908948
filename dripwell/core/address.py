"""Addresses: how one is checked, told apart from another, hashed for the ledger and masked for a page."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata

from email_validator import EmailNotValidError, validate_email


def check(text: str) -> str:
    """Return the address as typed, trimmed. Raises ValueError with a sentence that says what is wrong with it."""
    trimmed = unicodedata.normalize("NFC", text.strip())
    if not trimmed:
        raise ValueError("the address is empty")
    try:
        result = validate_email(trimmed, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError as error:
        raise ValueError(str(error)) from error
    return result.local_part + "@" + result.ascii_domain


def canonical(address: str) -> str:
    """Return the form that identifies a person: lower case, ASCII domain; dots and plus tags are kept.

    Expects an address that `check` returned.
    """
    local, _, domain = unicodedata.normalize("NFC", address.strip()).rpartition("@")
    return local.lower() + "@" + domain.encode("idna").decode("ascii").lower()


def address_hash(pepper: bytes, address: str) -> bytes:
    """Return the 32 bytes that stand for this address in the suppression ledger, for ever."""
    return hmac.new(pepper, canonical(address).encode(), hashlib.sha256).digest()


def masked(address: str) -> str:
    """Return `m•••a@example.com`: enough for its owner to know it, too little for a passer-by."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}•••{local[-1:] if len(local) > 2 else ''}@{domain}"


_LIKE_AN_ADDRESS = re.compile(r"[^\s<>()\[\]{}\"',;:=]+[@\uff20][^\s<>()\[\]{}\"',;:=]+")


def without_addresses(words: str) -> str:
    """Return the words with `[address]` for whatever looks like one: what is kept for ever names nobody."""
    return _LIKE_AN_ADDRESS.sub("[address]", words)
