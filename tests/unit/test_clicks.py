"""Which clicks are a person's: whatever was followed, the answer depends on nothing but what the rule names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.clicks import BURST, BURST_LINKS, MOST, Click, by_a_person

START = datetime(2026, 11, 2, 17, 0, tzinfo=UTC)
clicks = st.lists(
    st.builds(
        lambda number, half_seconds: Click(number, START + timedelta(seconds=half_seconds / 2), START),
        st.integers(0, 4),
        st.integers(0, 20),
    ),
    max_size=12,
)


@given(clicks)
def test_a_click_is_a_machines_exactly_when_a_window_around_it_holds_three_links(followed: list[Click]) -> None:
    def is_machine(click: Click) -> bool:
        starts = [one.wall_at for one in followed if one.wall_at <= click.wall_at <= one.wall_at + BURST]
        windows = [{one.number for one in followed if start <= one.wall_at <= start + BURST} for start in starts]
        return any(len(window) >= BURST_LINKS for window in windows)

    assert sorted(by_a_person(followed)) == sorted(click for click in followed if not is_machine(click))


@given(st.randoms(use_true_random=False), clicks)
def test_the_order_of_the_rows_does_not_matter(random: object, followed: list[Click]) -> None:
    shuffled = list(followed)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert by_a_person(shuffled) == by_a_person(followed)


def test_no_person_follows_the_links_of_one_email_so_often() -> None:
    many = [Click(0, START + timedelta(minutes=n), START) for n in range(MOST + 1)]
    assert by_a_person(many) == []
    assert len(by_a_person(many[1:])) == MOST
