"""The shared rate on a real Valkey, in real seconds: short ones."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest
import redis

from dripwell.storage.limiter import KEY, SHARES, Limiter

RATE = 2000.0


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        opened.flushall()
        yield opened


@pytest.fixture
def limiter(redis_url: str, raw: redis.Redis) -> Iterator[Callable[..., Limiter]]:
    """Limiters of one installation, as many processes open them."""
    opened: list[Limiter] = []

    def make(ceiling: float = RATE, pace: Mapping[str, float] | None = None) -> Limiter:
        opened.append(Limiter(redis_url, ceiling=ceiling, pace=pace))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def rate_of(raw: redis.Redis) -> float:
    """What a 429 has left of the rate."""
    kept = raw.hget(KEY, "rate")
    assert kept is not None
    return float(kept)


class Crowd:
    """Threads that each want as much of a lane as they can get, from `start` on for so many seconds."""

    def __init__(self, make: Callable[..., Limiter]) -> None:
        self.taken: Counter[str] = Counter()
        self.waits: list[float] = []
        self._make = make
        self._threads: list[threading.Thread] = []
        self._counts_from = 0.0
        self._ends = 0.0

    def wants(self, lane: str, weight: int, *, pause: float = 0.0, timed: bool = False) -> None:
        """Somebody who asks for `weight` messages again and again, resting for `pause` after each."""
        limiter = self._make()

        def work() -> None:
            while (began := time.monotonic()) < self._ends:
                while (wait := limiter.take(lane, weight)) > 0:
                    if time.monotonic() + wait > self._ends:
                        return
                    time.sleep(wait)
                if time.monotonic() > self._counts_from:
                    self.taken[lane] += weight
                    if timed:
                        self.waits.append(time.monotonic() - began)
                time.sleep(pause)

        self._threads.append(threading.Thread(target=work, name=lane))

    def run(self, seconds: float, *, settle: float) -> float:
        """Let them all ask, and count after `settle` seconds; returns the seconds that were counted."""
        self._counts_from = time.monotonic() + settle
        self._ends = self._counts_from + seconds
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        return seconds


def test_the_shares_are_all_there_is() -> None:
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_the_total_keeps_to_the_ceiling_and_every_busy_lane_gets_its_share(limiter: Callable[..., Limiter]) -> None:
    crowd = Crowd(limiter)
    for lane, weight in (("confirm", 5), ("booking", 5), ("drip", 50), ("newsletter", 50)):
        crowd.wants(lane, weight)
    seconds = crowd.run(3.0, settle=1.5)  # what bursts there are, are used up by then
    total = sum(crowd.taken.values())
    assert total <= RATE * seconds * 1.01 + 60
    assert total > RATE * seconds * 0.85  # these threads ask less often on a busy machine
    for lane, share in SHARES.items():
        assert crowd.taken[lane] > share * total * 0.93, (lane, dict(crowd.taken))


def test_a_confirmation_does_not_wait_for_a_newsletter(limiter: Callable[..., Limiter]) -> None:
    crowd = Crowd(limiter)
    crowd.wants("newsletter", 1000)
    for _ in range(2):
        crowd.wants("drip", 100)
    crowd.wants("confirm", 1, pause=0.02, timed=True)
    seconds = crowd.run(4.0, settle=0.5)
    assert len(crowd.waits) > 80
    assert sorted(crowd.waits)[int(len(crowd.waits) * 0.99)] <= 0.05
    assert crowd.taken["newsletter"] + crowd.taken["drip"] > 0.8 * RATE * seconds
    assert crowd.taken["newsletter"] >= 1000
    assert crowd.taken["drip"] >= 0.4 * RATE * seconds * 0.9


def test_an_unused_share_goes_to_whoever_wants_it(limiter: Callable[..., Limiter]) -> None:
    crowd = Crowd(limiter)
    crowd.wants("newsletter", 20)
    seconds = crowd.run(1.0, settle=0.4)
    assert crowd.taken["newsletter"] == pytest.approx(RATE * seconds, rel=0.03)


def test_a_small_weight_finds_room_while_a_large_batch_is_paid_for(limiter: Callable[..., Limiter]) -> None:
    one = limiter(100.0)
    assert one.take("newsletter", 1000) == 0
    assert one.take("newsletter", 1000) > 0.4
    assert one.take("confirm", 1) <= 0.01  # one message's worth, and not ten seconds
    time.sleep(0.01)
    assert one.take("confirm", 1) == 0


def test_small_weights_alone_never_run_ahead(limiter: Callable[..., Limiter]) -> None:
    one = limiter(1.0)
    assert one.take("drip", 1) == 0
    assert one.take("drip", 1) > 0.4
    assert one.take("confirm", 1) > 0.4


def test_a_wait_is_half_a_second_at_most_so_that_a_lane_keeps_its_place(limiter: Callable[..., Limiter]) -> None:
    one = limiter(10.0)
    assert one.take("newsletter", 1000) == 0
    assert one.take("drip", 1000) == 0.5


def test_429_halves_the_rate_once_for_all_calls_under_way_and_it_grows_back(
    limiter: Callable[..., Limiter], raw: redis.Redis
) -> None:
    one, other = limiter(), limiter()
    for _ in range(4):
        one.throttled(None)
        other.throttled(None)
    assert rate_of(raw) == pytest.approx(1000, rel=0.001)
    seconds, microseconds = raw.time()
    now = seconds * 1_000_000 + microseconds
    raw.hset(KEY, mapping={"rate_at": now - 60_000_000})  # a minute ago
    assert other.take("drip", 1) == 0
    assert rate_of(raw) == pytest.approx(1050, rel=0.001)
    raw.hset(KEY, mapping={"rate_at": now - 3_600_000_000})
    assert other.take("drip", 1) < 0.01
    assert raw.hget(KEY, "rate") is None  # the ceiling again


def test_the_halved_rate_is_what_everybody_gets(limiter: Callable[..., Limiter]) -> None:
    limiter().throttled(None)
    crowd = Crowd(limiter)
    crowd.wants("drip", 20)
    seconds = crowd.run(0.8, settle=0.4)
    assert crowd.taken["drip"] == pytest.approx(RATE / 2 * seconds, rel=0.05)


def test_the_rate_never_falls_below_one_a_second(limiter: Callable[..., Limiter], raw: redis.Redis) -> None:
    one = limiter(3.0)
    for _ in range(6):
        one.throttled(None)
        raw.hdel(KEY, "slowed")
    assert rate_of(raw) == pytest.approx(1.0, rel=0.001)
    slow = limiter(0.25)
    raw.delete(KEY)
    slow.throttled(None)
    assert slow.take("drip", 1) == 0


def test_retry_after_closes_every_lane_until_then_but_for_ten_minutes_at_most(limiter: Callable[..., Limiter]) -> None:
    one, other = limiter(), limiter()
    one.throttled(30.0)
    for lane in SHARES:
        assert 29 < other.take(lane, 1) <= 30
    one.throttled(1e9)
    assert 599 < other.take("confirm", 1) <= 600
    other.throttled(5.0)  # never shortens what was asked for
    assert other.take("confirm", 1) > 590


def test_who_asks_for_how_long_nobody_may_call_is_told_and_not_counted(
    limiter: Callable[..., Limiter], raw: redis.Redis
) -> None:
    one, other = limiter(10.0), limiter(10.0)
    assert other.closed_for() == 0
    assert one.take("newsletter", 1000) == 0
    assert other.closed_for() == 0  # a batch that is being paid for closes nothing
    one.throttled(None)
    assert other.closed_for() == 0
    one.throttled(30.0)
    assert 29 < other.closed_for() <= 30
    raw.delete(KEY)
    for _ in range(100):
        assert other.closed_for() == 0
    assert other.take("drip", 1) == 0


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -5.0, 0.0])
def test_an_odd_retry_after_only_slows_down(limiter: Callable[..., Limiter], odd: float) -> None:
    one = limiter()
    one.throttled(odd)
    assert one.take("confirm", 1) == 0


def test_a_clock_that_was_set_back_stops_nobody(limiter: Callable[..., Limiter], raw: redis.Redis) -> None:
    one = limiter()
    one.throttled(None)
    seconds, _ = raw.time()
    later = (seconds + 7_200) * 1_000_000
    raw.hset(KEY, mapping=dict.fromkeys(("seen", "total", "lane:drip", "flag:confirm", "closed"), later))
    assert one.take("drip", 1000) == 0
    assert rate_of(raw) == pytest.approx(1000, rel=0.01)  # the refusal is not forgotten


def test_a_bucket_that_owes_more_than_a_minute_is_forgotten(limiter: Callable[..., Limiter], raw: redis.Redis) -> None:
    one = limiter()
    seconds, _ = raw.time()
    raw.hset(KEY, mapping={"total": (seconds + 90) * 1_000_000, "big": 1})
    assert one.take("drip", 1) == 0


@pytest.mark.parametrize("junk", ["nan", "inf", "-inf", "1e400", "-1", "x", "", "\0", "99999999999999999999999"])
def test_junk_in_redis_stops_nobody(limiter: Callable[..., Limiter], raw: redis.Redis, junk: str) -> None:
    one = limiter(pace={"gmail": 10.0})
    names = ("total", "big", "rate", "rate_at", "closed", "slowed", "lane:drip", "flag:confirm", "group:gmail")
    raw.hset(KEY, mapping=dict.fromkeys((*names, "seen"), junk))
    assert one.take("drip", 1000) == 0
    assert one.take_groups({"gmail": 5}) == {"gmail": 0}
    one.throttled(None)
    assert rate_of(raw) == pytest.approx(1000, rel=0.01)


def test_a_key_of_another_kind_is_replaced(limiter: Callable[..., Limiter], raw: redis.Redis) -> None:
    raw.set(KEY, "somebody else's")
    assert limiter().take("drip", 1) == 0
    assert raw.type(KEY) == b"hash"


@pytest.mark.parametrize("ceiling", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(ceiling: float) -> None:
    with pytest.raises(ValueError, match="a rate of"):
        Limiter("redis://127.0.0.1:1/0", ceiling=ceiling)


def test_an_empty_call_costs_nothing(limiter: Callable[..., Limiter], raw: redis.Redis) -> None:
    assert limiter().take("drip", 0) == 0
    assert raw.exists(KEY) == 0


def test_flushall_in_the_middle_is_harmless(limiter: Callable[..., Limiter], raw: redis.Redis) -> None:
    crowd = Crowd(limiter)
    crowd.wants("drip", 20)
    crowd.wants("confirm", 5)
    flush = threading.Timer(0.7, raw.flushall)
    flush.start()
    seconds = crowd.run(0.8, settle=0.4)
    flush.join()
    assert sum(crowd.taken.values()) == pytest.approx(RATE * seconds, rel=0.1)


def test_a_group_with_a_pace_waits_and_the_others_are_free(limiter: Callable[..., Limiter]) -> None:
    pace = {"gmail": 100.0, "yahoo": 10.0}
    one, other = limiter(pace=pace), limiter(pace=pace)
    assert one.take_groups({"gmail": 50, "yahoo": 20, "outlook": 900}) == {"gmail": 0, "yahoo": 0, "outlook": 0}
    waits = other.take_groups({"gmail": 1, "yahoo": 1, "outlook": 900, "icloud": 0})
    assert 0.4 < waits["gmail"] <= 0.5
    assert 1.9 < waits["yahoo"] <= 2.0
    assert (waits["outlook"], waits["icloud"]) == (0, 0)
    assert other.take_groups({}) == {}
    time.sleep(waits["gmail"])
    waits = other.take_groups({"gmail": 1, "yahoo": 1})
    assert waits["gmail"] == 0
    assert waits["yahoo"] > 1.3  # what was refused was not counted


def test_a_group_of_a_few_an_hour_is_kept_to_its_hour(limiter: Callable[..., Limiter]) -> None:
    one = limiter(pace={"gmail": 60 / 3600})
    assert one.take_groups({"gmail": 60}) == {"gmail": 0}
    assert 3_590 < one.take_groups({"gmail": 1})["gmail"] <= 3_600


@pytest.fixture
def gone() -> Iterator[tuple[Limiter, list[float]]]:
    """A limiter whose Redis is not there, and its clock."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ticks = [100.0]
    pace = {"gmail": 1.0}
    made = Limiter(f"redis://127.0.0.1:{port}/0", ceiling=40.0, pace=pace, local_share=0.25, ticks=lambda: ticks[0])
    yield made, ticks
    made.close()


def test_without_redis_a_process_goes_on_with_its_part_of_the_rate(gone: tuple[Limiter, list[float]]) -> None:
    one, ticks = gone
    taken = 0
    for _ in range(1_000):
        ticks[0] += 0.01
        if one.take("drip", 1) == 0:
            taken += 1
    assert taken == pytest.approx(100, abs=1)  # 10 s at a quarter of 40
    one.local_share = 0.5
    ticks[0] += 10
    assert one.take("newsletter", 100) == 0
    assert one.take("newsletter", 100) == 0.5
    assert one.take("confirm", 1) == pytest.approx(0.05)  # a small weight waits for no batch here, either
    assert one.take_groups({"gmail": 5, "yahoo": 5}) == {"gmail": 0, "yahoo": 0}
    assert one.take_groups({"gmail": 5}) == {"gmail": 10.0}


def test_without_redis_a_429_slows_this_process(gone: tuple[Limiter, list[float]]) -> None:
    one, ticks = gone
    one.throttled(20.0)
    one.throttled(None)
    assert one.take("confirm", 1) == 20.0
    assert one.closed_for() == 20.0
    ticks[0] += 20
    assert one.closed_for() == 0
    assert one.take("drip", 1) == 0
    assert one.take("drip", 1) == pytest.approx(0.2, rel=0.02)  # half of a quarter of 40 a second


def test_redis_that_comes_back_is_used_without_a_restart(redis_url: str, raw: redis.Redis) -> None:
    ticks = [100.0]
    one = Limiter(redis_url, ceiling=RATE, ticks=lambda: ticks[0])
    raw.config_set("maxmemory", "1")  # a full server: it answers, and takes no writes
    try:
        assert one.take("drip", 1) == 0
        assert raw.exists(KEY) == 0
        began = time.monotonic()
        assert one.take("confirm", 1) >= 0
        assert time.monotonic() - began < 0.25
    finally:
        raw.config_set("maxmemory", "0")
    ticks[0] += 2
    assert one.take("drip", 1) == 0
    assert raw.exists(KEY) == 1
    one.close()
