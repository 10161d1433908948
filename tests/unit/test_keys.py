"""The id of one email to one person follows from what it is, so that it is the same after a restore."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.keys import message_id

keys = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=30)
parts = st.tuples(st.uuids(), st.uuids(), keys, st.integers(0, 10**12))


@given(part=parts)
def test_the_same_email_to_the_same_person_has_the_same_id(part: tuple[UUID, UUID, str, int]) -> None:
    assert message_id(*part) == message_id(*part)


@given(one=parts, other=parts)
def test_whatever_differs_gives_another_id(
    one: tuple[UUID, UUID, str, int], other: tuple[UUID, UUID, str, int]
) -> None:
    assert (message_id(*one) == message_id(*other)) == (one == other)


@given(campaign=st.uuids(), person=st.uuids(), key=keys, digits=st.integers(0, 9), round=st.integers(0, 99))
def test_a_key_that_ends_in_a_digit_is_not_mistaken_for_a_round(
    campaign: UUID, person: UUID, key: str, digits: int, round: int
) -> None:
    assert message_id(campaign, person, f"{key}{digits}", round) != message_id(
        campaign, person, key, int(f"{digits}{round}")
    )


def test_the_id_never_changes_from_one_version_of_dripwell_to_the_next() -> None:
    found = message_id(UUID(int=1), UUID(int=2), "adaptability", 1)
    assert str(found) == "d61da3f7-1110-4729-4273-c18ee8c8b51d"
