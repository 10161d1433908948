"""The table of a campaign looks as promised and never hides a sum that does not hold."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from dripwell.cli import funnel
from dripwell.services.report import MESSAGES, PEOPLE, Report, StepRow

STEPS = (
    ("1-adaptability", 400, 8, 131, 3, 6),
    ("2-psychological-healing", 383, 0, 112, 4, 4),
    ("3-blocking-pain-signals", 375, 0, 124, 6, 4),
    ("4-mental-breakthroughs", 365, 0, 96, 3, 3),
    ("5-minimal-side-effects", 359, 0, 117, 5, 3),
    ("6-rapid-improvement", 351, 0, 108, 7, 2),
    ("7-lasting-relief", 342, 0, 79, 4, 2),
)
TABLE = """\
  email                     accepted   clicked   booked after   unsubscribed
  1-adaptability                 400       131              3              6   8 bounced
  2-psychological-healing        383       112              4              4
  3-blocking-pain-signals        375       124              6              4
  4-mental-breakthroughs         365        96              3              3
  5-minimal-side-effects         359       117              5              3
  6-rapid-improvement            351       108              7              2
  7-lasting-relief               342        79              4              2"""
OF_PEOPLE = (
    "  people  400 joined = 0 in progress + 32 booked + 336 finished + 24 unsubscribed + 8 undeliverable"
    " + 0 left otherwise   ✓"
)
OF_EMAILS = (
    "  emails  2,578 planned = 2,575 accepted + 3 suppressed + 0 skipped + 0 rejected + 0 held + 0 in work"
    "                    ✓"
)
PROMISED = "\n".join((TABLE, OF_PEOPLE, OF_EMAILS))


def a_report(people: dict[str, int], messages: dict[str, int], *, joined: int, planned: int) -> Report:
    steps = tuple(
        StepRow(key, accepted, accepted, accepted - bounced, bounced, clicked, booked, left)
        for key, accepted, bounced, clicked, booked, left in STEPS
    )
    return Report("seven-benefits", "Seven benefits", "running", 1, joined, planned, people, messages, steps, 250)


def promised() -> Report:
    return a_report(
        dict(zip(PEOPLE, (0, 32, 336, 24, 8, 0), strict=True)),
        dict(zip(MESSAGES, (2575, 3, 0, 0, 0, 0), strict=True)),
        joined=400,
        planned=2578,
    )


def test_the_table_is_the_one_that_was_promised() -> None:
    assert funnel.draw(promised(), color=False) == PROMISED


def test_color_changes_nothing_but_color() -> None:
    drawn = funnel.draw(promised(), color=True)
    assert drawn.replace("\x1b[32m", "").replace("\x1b[0m", "") == PROMISED


numbers = st.integers(0, 10_000)


@given(st.tuples(*[numbers] * len(PEOPLE)), st.tuples(*[numbers] * len(MESSAGES)), numbers, numbers)
def test_a_check_mark_stands_exactly_where_a_sum_holds(
    people: tuple[int, ...], messages: tuple[int, ...], joined: int, planned: int
) -> None:
    for found_joined, found_planned in ((joined, planned), (sum(people), sum(messages))):
        made = a_report(
            dict(zip(PEOPLE, people, strict=True)),
            dict(zip(MESSAGES, messages, strict=True)),
            joined=found_joined,
            planned=found_planned,
        )
        of_people, of_emails = funnel.draw(made, color=False).splitlines()[-2:]
        assert of_people.endswith("✓") == (sum(people) == found_joined)
        assert of_emails.endswith("✓") == (sum(messages) == found_planned)
        assert made.adds_up == (of_people.endswith("✓") and of_emails.endswith("✓"))
        assert made.adds_up or "does not add up" in of_people + of_emails


def test_json_holds_what_the_table_shows() -> None:
    value = json.loads(json.dumps(funnel.as_json(promised())))
    assert value["version"] == 1
    assert value["adds_up"] is True
    assert sum(value["people"].values()) == value["joined"] == 400
    assert value["by_step"][0] == {
        "key": "1-adaptability",
        "planned": 400,
        "accepted": 400,
        "delivered": 392,
        "bounced": 8,
        "clicked": 131,
        "booked": 3,
        "unsubscribed": 6,
    }


def test_rows_for_csv_have_a_head_and_as_many_cells_each() -> None:
    head, *rows = funnel.as_rows(promised())
    assert head[0] == "key"
    assert {len(row) for row in rows} == {len(head)}


def test_a_campaign_without_emails_has_a_table_too() -> None:
    empty = Report("x", "X", "draft", 1, 0, 0, dict.fromkeys(PEOPLE, 0), dict.fromkeys(MESSAGES, 0), (), 0)
    assert funnel.draw(empty, color=False).count("✓") == 2
