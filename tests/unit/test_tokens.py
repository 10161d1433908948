"""Link words: what was signed opens its own door, for its own time, in its own spelling, and nothing else does."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.errors import InvalidTokenError
from dripwell.core.tokens import LIFETIME, Keys, Purpose, sign, verify

KEYS = Keys(links=(b"a key of thirty-two bytes, links!",), unsubscribe=(b"a key of its own for leaving, ok.",))
NOW = datetime(2026, 11, 2, 17, 0, tzinfo=UTC)

identities = st.integers(0, 2**64 - 1)
purposes = st.sampled_from(Purpose)
FOREVER = [purpose for purpose in Purpose if purpose not in LIFETIME]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(purpose=purposes, identity=identities)
def test_a_word_gives_back_the_id_it_was_signed_for(purpose: Purpose, identity: int) -> None:
    assert verify(KEYS, purpose, sign(KEYS, purpose, identity, NOW), NOW) == identity


@given(purpose=purposes, identity=identities)
def test_a_word_is_short_and_url_safe(purpose: Purpose, identity: int) -> None:
    word = sign(KEYS, purpose, identity, NOW)
    assert len(word) == (40 if purpose in LIFETIME else 35)
    assert set(word) <= set(ALPHABET)
    assert len(f"https://mail.kcla.example/u/{word}") <= 75


@given(purpose=purposes, other=purposes, identity=identities)
def test_a_word_opens_no_other_door(purpose: Purpose, other: Purpose, identity: int) -> None:
    word = sign(KEYS, purpose, identity, NOW)
    if other is not purpose:
        with pytest.raises(InvalidTokenError):
            verify(KEYS, other, word, NOW)


@given(purpose=purposes, identity=identities, place=st.integers(0, 39), letter=st.sampled_from(ALPHABET))
def test_changing_one_character_forges_nothing(purpose: Purpose, identity: int, place: int, letter: str) -> None:
    word = sign(KEYS, purpose, identity, NOW)
    place %= len(word)
    forged = word[:place] + letter + word[place + 1 :]
    if forged != word:
        with pytest.raises(InvalidTokenError):
            verify(KEYS, purpose, forged, NOW)


@given(purpose=purposes, text=st.text(max_size=80))
def test_no_text_a_stranger_types_opens_a_door_or_breaks_it(purpose: Purpose, text: str) -> None:
    with pytest.raises(InvalidTokenError):
        verify(KEYS, purpose, text, NOW)


@given(purpose=purposes, raw=st.binary(max_size=48))
def test_no_bytes_a_stranger_encodes_open_a_door(purpose: Purpose, raw: bytes) -> None:
    with pytest.raises(InvalidTokenError):
        verify(KEYS, purpose, base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), NOW)


@given(identity=identities)
def test_the_same_bytes_in_a_second_spelling_are_refused(identity: int) -> None:
    """26 bytes leave four unused bits in the last character: sixteen spellings decode alike, one is ours."""
    word = sign(KEYS, Purpose.CLICK, identity, NOW)
    accepted = []
    for letter in ALPHABET:
        try:
            verify(KEYS, Purpose.CLICK, word[:-1] + letter, NOW)
        except InvalidTokenError:
            continue
        accepted.append(word[:-1] + letter)
    assert accepted == [word]
    for other in (word + "=", word + "==", word + "\n", " " + word, word.replace("_", "/").replace("-", "+") + "="):
        with pytest.raises(InvalidTokenError):
            verify(KEYS, Purpose.CLICK, other, NOW)


@pytest.mark.parametrize("purpose", list(LIFETIME))
def test_a_word_that_expires_holds_for_its_lifetime_and_not_two_hours_longer(purpose: Purpose) -> None:
    word = sign(KEYS, purpose, 7, NOW)
    assert verify(KEYS, purpose, word, NOW + LIFETIME[purpose]) == 7
    with pytest.raises(InvalidTokenError, match="expired"):
        verify(KEYS, purpose, word, NOW + LIFETIME[purpose] + timedelta(hours=2))


@pytest.mark.parametrize("purpose", FOREVER)
def test_other_words_never_expire(purpose: Purpose) -> None:
    word = sign(KEYS, purpose, 7, NOW)
    assert verify(KEYS, purpose, word, NOW + timedelta(days=36500)) == 7


def test_an_unsubscribe_link_is_among_those_that_never_expire() -> None:
    assert Purpose.UNSUBSCRIBE in FOREVER


@given(purpose=purposes, identity=identities)
def test_an_older_key_of_the_ring_still_opens_what_it_signed(purpose: Purpose, identity: int) -> None:
    word = sign(KEYS, purpose, identity, NOW)
    longer = Keys(links=(*KEYS.links, b"newer"), unsubscribe=(*KEYS.unsubscribe, b"newer too"))
    assert verify(longer, purpose, word, NOW) == identity
    assert sign(longer, purpose, identity, NOW) != word


@given(identity=identities)
def test_changing_the_link_keys_leaves_unsubscribe_links_working(identity: int) -> None:
    word, click = sign(KEYS, Purpose.UNSUBSCRIBE, identity, NOW), sign(KEYS, Purpose.CLICK, identity, NOW)
    changed = Keys(links=(b"another key",), unsubscribe=KEYS.unsubscribe)
    assert verify(changed, Purpose.UNSUBSCRIBE, word, NOW) == identity
    with pytest.raises(InvalidTokenError):
        verify(changed, Purpose.CLICK, click, NOW)


def test_a_word_names_a_key_the_ring_does_not_have_yet() -> None:
    longer = Keys(links=(*KEYS.links, b"newer"), unsubscribe=KEYS.unsubscribe)
    with pytest.raises(InvalidTokenError):
        verify(KEYS, Purpose.CLICK, sign(longer, Purpose.CLICK, 7, NOW), NOW)
