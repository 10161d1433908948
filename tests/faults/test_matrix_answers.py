"""What a hostile provider answers (F15 to F22): nobody gets it twice, nobody is lost, nothing is repeated blindly."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.world import Worker, World, until, working

WITHIN = 40.0
LOST_ANSWERS: dict[str, list[dict[str, Any]]] = {
    "F15 accepted, the answer lost": [{"hangup": True}],
    "F16 500 without accepting": [{"status": 500}],
    "F16 500 after accepting": [{"status": 500, "accept": True}],
    "F16 a proxy's page without accepting": [{"status": 502, "html": True}],
    "F17 accepted after the connection was closed": [{"late": 2.0}],
    "F18 429 with Retry-After": [{"status": 429, "headers": {"Retry-After": "1"}, "times": 2}],
    "F18 429 with neither header": [{"status": 429}],
    "F19 413 until the call is small": [{"status": 413, "html": True, "times": 2}],
    "F22 reset at byte 0": [{"hangup": "start"}],
    "F22 reset within the body": [{"hangup": "body"}],
    "F22 reset after the body": [{"hangup": "end", "accept": False}],
    "200 without accepting": [{"status": 200, "accept": False}],
}
AT_EVERY_COMMIT = ("F17 accepted after the connection was closed", "F22 reset within the body")


@pytest.fixture(autouse=True)
def calm(world: World) -> None:
    """The lane is as on its first day."""
    world.change("UPDATE lane_state SET batch_limit = 100, failures = 0, breaker = 'closed'")


def checked(world: World) -> None:
    """The judge finds nothing, and no payload reached the provider twice."""
    verdict = world.verdict(1)
    assert verdict.clean, verdict.wrong
    assert world.control("counts")["repeats"] == 0


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each in AT_EVERY_COMMIT else [pytest.mark.matrix]) for each in LOST_ANSWERS]
)
def test_whatever_is_answered_everybody_gets_it_once(world: World, other: Worker, name: str) -> None:
    people = world.join(8)
    world.control("next", {"answers": LOST_ANSWERS[name]})
    with working(other):
        assert world.quiet(WITHIN), world.left()
    assert world.control("counts")["scripted"] == 0, "the answer was never given"
    assert world.mailed(people)
    checked(world)


@pytest.mark.matrix
@pytest.mark.parametrize("tag", ["+badrow", "+badcall"])
def test_F20_one_bad_address_is_rejected_alone(world: World, other: Worker, tag: str) -> None:
    people = world.join(7)
    (bad,) = world.join(1, tag)
    before = world.control("counts")["requests"]
    with working(other):
        assert world.quiet(WITHIN), world.left()
    found = world.query("SELECT state FROM message WHERE subscriber_id = :id ORDER BY id", id=world.ids[bad])
    assert found[0] == ("REJECTED",)
    assert world.mailed(people)
    assert world.control("counts")["requests"] - before <= 12
    assert world.query("SELECT state FROM campaign WHERE name = 'pair'") == [("running",)]
    checked(world)


@pytest.mark.matrix
def test_F21_a_revoked_key_burns_nobody_and_work_goes_on_with_the_next(world: World, other: Worker) -> None:
    people = world.join(5)
    world.control("next", {"answers": [{"status": 401}]})
    before = world.control("counts")["requests"]
    with working(other):
        until(lambda: bool(_open_lanes(world)), 15, "no breaker opened")
        assert len(_open_lanes(world)) == 4, "it is the account that was refused"
        until(lambda: world.mailed(people), 60, "nobody tried again")
        assert world.quiet(WITHIN), world.left()
    assert world.control("counts")["requests"] - before <= 12, "looping earns a block"
    assert world.query("SELECT count(*) FROM message WHERE state = 'REJECTED' AND reason = 'refused'")[0][0] <= 2
    checked(world)


def _open_lanes(world: World) -> list[tuple[Any, ...]]:
    return world.query("SELECT lane FROM lane_state WHERE breaker = 'open'")
