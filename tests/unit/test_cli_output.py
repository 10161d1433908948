"""What commands print is safe for a terminal, aligned, and the same in every locale."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from dripwell.cli.output import clean, counted, moment, table


@given(st.text())
def test_nothing_that_drives_a_terminal_survives(text: str) -> None:
    cleaned = clean(text)
    assert all(char == "\n" or (char.isprintable() or not char.isascii()) for char in cleaned)
    assert "\x1b" not in cleaned
    cleaned.encode()


def test_times_are_written_out_with_their_zone() -> None:
    at = datetime(2026, 12, 3, 17, 5, tzinfo=UTC)
    assert moment(at, ZoneInfo("America/Los_Angeles")) == "Thu Dec 3 2026, 9:05 AM PST"
    assert moment(at, ZoneInfo("Asia/Tokyo")) == "Fri Dec 4 2026, 2:05 AM JST"
    midnight = datetime(2026, 7, 1, 7, 0, tzinfo=UTC)
    assert moment(midnight, ZoneInfo("America/Los_Angeles")) == "Wed Jul 1 2026, 12:00 AM PDT"


def test_a_number_goes_with_its_noun() -> None:
    assert counted(1, "person", "people") == "1 person"
    assert counted(2578, "person", "people") == "2,578 people"
    assert counted(0, "error") == "0 errors"


def test_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    lines = [str(line) for line in table(["lane", "due"], [["drip", "1,204"], ["confirm", "3"]])]
    assert lines == ["  lane        due", "  drip      1,204", "  confirm       3"]
