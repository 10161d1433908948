"""Addresses: one person is one hash however the address is typed, and two people are two."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.address import address_hash, canonical, check, masked

PEPPER = b"pepper of the tests, 32 bytes ok"

locals_ = st.text(string.ascii_letters + string.digits + "._+-", min_size=1, max_size=20).filter(
    lambda text: not text.startswith(".") and not text.endswith(".") and ".." not in text
)
domains = st.sampled_from(
    ["example.com", "Example.COM", "mail.example.org", "bücher.example.net", "xn--bcher-kva.example.net"]
)
addresses = st.builds("{}@{}".format, locals_, domains)


@given(address=addresses, before=st.sampled_from(["", " ", "\t", "\n "]), after=st.sampled_from(["", " ", "\r\n"]))
def test_case_and_space_around_an_address_make_no_second_person(address: str, before: str, after: str) -> None:
    one = address_hash(PEPPER, check(address))
    assert address_hash(PEPPER, check(before + address + after)) == one
    assert address_hash(PEPPER, check(address.swapcase())) == one


@given(one=addresses, other=addresses)
def test_different_addresses_have_different_hashes(one: str, other: str) -> None:
    same = canonical(check(one)) == canonical(check(other))
    assert (address_hash(PEPPER, check(one)) == address_hash(PEPPER, check(other))) == same


@given(address=addresses)
def test_checking_again_and_canonical_again_change_nothing(address: str) -> None:
    assert check(check(address)) == check(address)
    assert canonical(canonical(check(address))) == canonical(check(address))


def test_an_international_domain_and_its_ascii_form_are_one_person() -> None:
    assert canonical(check("maria@BÜCHER.example.net")) == canonical(check("maria@xn--bcher-kva.example.net"))


def test_dots_and_plus_tags_are_kept_because_providers_differ() -> None:
    assert len({canonical(check(a)) for a in ("m.a@example.com", "ma@example.com", "m.a+x@example.com")}) == 3


@given(address=addresses)
def test_another_pepper_gives_another_hash(address: str) -> None:
    assert address_hash(PEPPER, check(address)) != address_hash(PEPPER + b"!", check(address))
    assert len(address_hash(PEPPER, check(address))) == 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "maria",
        "maria@",
        "@example.com",
        "maria@example",
        "maria example@example.com",
        "maria@exa mple.com",
        "a@b@example.com",
        "maria@example.com, joe@example.com",
        "Maria <maria@example.com>",
        "maria@example.com\r\nBcc: joe@example.com",
        "maria\0@example.com",
        "maría@example.com",
        f"{'m' * 65}@example.com",
    ],
)
def test_what_is_no_address_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r".{10,}"):
        check(text)


@given(text=st.text(max_size=60))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = check(text)
    except ValueError:
        return
    assert address.isascii()
    assert address.count("@") == 1
    assert not set(address) & set(" \t\r\n\0<>,")


@given(address=addresses)
def test_a_masked_address_shows_at_most_two_letters_of_the_name(address: str) -> None:
    local, _, domain = check(address).rpartition("@")
    shown, _, at = masked(check(address)).rpartition("@")
    assert at == domain
    assert "•••" in shown
    assert len(shown.replace("•••", "")) <= min(2, max(1, len(local) - 1))


def test_a_mask_is_what_its_owner_recognizes() -> None:
    assert masked("maria@example.com") == "m•••a@example.com"
