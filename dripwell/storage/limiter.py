"""The shared rate: how long must this lane wait before its next call? One script on Redis's own clock.

An optimization, never a promise: the provider's 429 is the authority, and halves the rate for everybody. While Redis is
away each process goes on with its part of the rate; when it is back, or back empty, the next question finds it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dripwell.core.campaign import Lane

__all__ = ["SHARES", "Limiter"]

log = logging.getLogger("dripwell.storage")

SHARES: Mapping[str, float] = {Lane.CONFIRM: 0.2, Lane.BOOKING: 0.2, Lane.DRIP: 0.4, Lane.NEWSLETTER: 0.2}
"""What a lane gets when all are busy. What one does not use goes to whoever wants it."""
KEY = "dw:flow"
LONGEST_CLOSE = 600.0
"""A Retry-After is believed for so many seconds."""
_LEAVE_ALONE = 1.0  # seconds

# One hash, one script, all times in microseconds of Redis's clock.
#
# Every bucket is a GCRA: it remembers the moment at which all that was granted is paid for.
# - total: a weight fits when that moment, with it, is no further ahead than the largest batch that is being paid for
#   (`big`): so a small weight finds room while a large batch is being paid for, and a large one waits for its turn.
# - lane:<name>: runs at its share of the rate, with a burst of three batches. Beyond its share a lane may take what
#   nobody else wants; it pays for that only as far as an empty bucket, or one quiet night would starve it for hours.
# - flag:<name>: set for a second by a lane that is within its share and found no room. A lane beyond its share yields
#   to another's flag.
# - group:<name>: a mailbox group's own rate.
# - rate, rate_at: after a 429 half of what it was, and 5 % more a minute from then on. closed: Retry-After.
# - seen: the last time read. A clock that was set back by more than two seconds would make every bucket look owed for
#   hours, so they are all forgotten; a smaller step is waited for.
_FLOW = """
local task, ceiling = ARGV[1], tonumber(ARGV[2])
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
local state = {}
local flat = kind == 'hash' and redis.call('HGETALL', KEYS[1]) or {}
for i = 1, #flat, 2 do state[flat[i]] = tonumber(flat[i + 1]) end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local function read(name, low, high)
  local value = state[name]
  if value and value >= low and value <= high then return value end
end
if state.seen and state.seen > now then
  if state.seen - now <= 2000000 then
    now = state.seen
  else
    state = {rate = state.rate, rate_at = now}
    redis.call('DEL', KEYS[1])
  end
end
local changed = {'seen', string.format('%.0f', now)}
local function write(name, value)
  changed[#changed + 1] = name
  changed[#changed + 1] = string.format('%.6f', value)
end
local function finish(answer)
  redis.call('HSET', KEYS[1], unpack(changed))
  redis.call('PEXPIRE', KEYS[1], 7200000)
  return answer
end

local lowest = math.min(1, ceiling)
local rate = read('rate', lowest, ceiling) or ceiling
local rate_at = read('rate_at', 0, now) or now
if rate < ceiling then
  rate = rate * 1.05 ^ ((now - rate_at) / 60000000)
  if rate < ceiling then
    write('rate', rate)
    write('rate_at', now)
  else
    rate = ceiling
    redis.call('HDEL', KEYS[1], 'rate', 'rate_at')
  end
end
local closed = read('closed', now, now + 600000000) or now

if task == 'closed' then return finish(math.ceil(closed - now)) end

if task == 'throttled' then
  -- Calls that were under way together are refused together: that is one reason to slow down, not eight.
  if not read('slowed', now - 2000000, now) then
    write('rate', math.max(lowest, rate / 2))
    write('rate_at', now)
    write('slowed', now)
  end
  write('closed', math.max(closed, now + tonumber(ARGV[3])))
  return finish(string.format('%.6f', rate))
end

if task == 'groups' then
  local waits = {}
  for i = 3, #ARGV, 3 do
    local name, each = 'group:' .. ARGV[i], 1000000 / tonumber(ARGV[i + 2])
    local paid_at = read(name, 0, now + 60000000 + 3000 * each) or now
    waits[#waits + 1] = math.ceil(math.max(0, paid_at - now))
    if paid_at <= now then write(name, now + tonumber(ARGV[i + 1]) * each) end
  end
  return finish(waits)
end

local lane, weight, share = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local each = 1000000 / rate
local cost = weight * each
local paid_at = math.max(read('total', 0, now + math.max(60000000, 1000 * each)) or now, now - 100000)
local big = paid_at > now and read('big', 1, 1000) or 0
local room = math.max(cost, big * each)

local share_cost = cost / share
local burst = math.max(weight, math.min(3000, math.max(300, 3 * weight))) * each / share
local lane_at = math.max(read('lane:' .. lane, 0, now + 3000 * each / share) or now, now)
local within = lane_at + share_cost <= now + burst

local yields = false
for i = 6, #ARGV do
  if ARGV[i] ~= lane and read('flag:' .. ARGV[i], now + 1, now + 1000000) then yields = true end
end

if closed > now then return finish(math.ceil(closed - now)) end
local fits = paid_at + cost <= now + room
if fits and (within or not yields) then
  write('total', paid_at + cost)
  write('big', math.max(big, math.min(weight, 1000)))
  write('lane:' .. lane, math.max(lane_at, math.min(lane_at + share_cost, now + burst)))
  write('flag:' .. lane, 0)
  return finish(0)
end
if within then write('flag:' .. lane, now + 1000000) end
-- Half a second at most, so that the flag of a lane that waits does not go out.
local wait = fits and 20000 or math.max(1000, paid_at + cost - room - now)
return finish(math.ceil(math.min(wait, 500000)))
"""


class Limiter:
    """One per process, safe between threads. Opening it talks to nobody.

    `ceiling` is the whole installation's rate in messages a second, `pace` the rate of each mailbox group that has one.
    `local_share` is the part of the ceiling this process may use while Redis is away: one divided by how many live; who
    learns that may set it at any time.
    """

    def __init__(
        self,
        url: str,
        *,
        ceiling: float,
        pace: Mapping[str, float] | None = None,
        local_share: float = 0.25,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (math.isfinite(ceiling) and ceiling > 0):
            raise ValueError(f"a rate of {ceiling} messages a second")
        self.local_share = local_share
        self._redis = redis.Redis.from_url(
            url,
            socket_connect_timeout=0.1,
            socket_timeout=0.12,
            retry=Retry(NoBackoff(), 0),  # redis-py retries ten times if left alone
            protocol=2,
            driver_info=None,
        )
        self._flow = self._redis.register_script(_FLOW)
        self._ceiling = ceiling
        self._pace = dict(pace or {})
        self._ticks = ticks
        self._lock = threading.Lock()
        self._away_until = 0.0
        self._local = _Local(ceiling, self._pace)

    def take(self, lane: str, weight: int) -> float:
        """Ask to make a call of `weight` messages in this lane now: 0 = go, and it is counted; else seconds to wait.

        Ask again after waiting: somebody else may have been first. A wait of more than half a second means that the
        provider asked for silence.
        """
        if weight <= 0:
            return 0.0
        answer = self._ask([*("take", self._ceiling, str(lane), weight, SHARES[lane]), *map(str, SHARES)])
        if isinstance(answer, int):
            return answer / 1_000_000
        with self._lock:
            return self._local.take(weight, self.local_share, self._ticks())

    def take_groups(self, weights: Mapping[str, int]) -> dict[str, float]:
        """Ask the same for the mailbox groups of one call: group -> 0 (go, and it is counted) or seconds to wait.

        A group without a rate of its own is free. A group that must wait says nothing about the others.
        """
        waits = dict.fromkeys(weights, 0.0)
        paced = [name for name, weight in weights.items() if name in self._pace and weight > 0]
        if not paced:
            return waits
        arguments = [part for name in paced for part in (name, weights[name], self._pace[name])]
        answer = self._ask(["groups", self._ceiling, *arguments])
        if isinstance(answer, list):
            return waits | {name: wait / 1_000_000 for name, wait in zip(paced, answer, strict=True)}
        with self._lock:
            now = self._ticks()
            return waits | {name: self._local.take_group(name, weights[name], self.local_share, now) for name in paced}

    def throttled(self, retry_after_seconds: float | None) -> None:
        """The provider answered 429: half the rate for everybody, growing by 5 % a minute, never below 1 a second.

        With a Retry-After nobody calls until then; ten minutes at most. Several refusals within two seconds are one.
        """
        given = retry_after_seconds
        seconds = min(given, LONGEST_CLOSE) if given is not None and math.isfinite(given) and given > 0 else 0.0
        with self._lock:
            self._local.throttled(seconds, self._ticks())
        self._ask(["throttled", self._ceiling, int(seconds * 1_000_000)])

    def closed_for(self) -> float:
        """Seconds for which the provider's Retry-After keeps everybody silent; 0 = open. Nothing is counted.

        While Redis is away: for which what this process itself was told does.
        """
        answer = self._ask(["closed", self._ceiling])
        if isinstance(answer, int):
            return answer / 1_000_000
        with self._lock:
            return self._local.closed_for(self._ticks())

    def close(self) -> None:
        """Drop the connections."""
        self._redis.close()

    def _ask(self, arguments: list[str | int | float]) -> int | list[int] | None:
        """The script's answer, or None when Redis has none; never an exception of Redis, never more than 250 ms."""
        if self._ticks() < self._away_until:
            return None
        try:
            answer: int | list[int] = self._flow(keys=[KEY], args=arguments)
            return answer
        except (redis.RedisError, OSError) as error:
            log.warning("Redis does not answer (%s); sending at this process's part of the rate", type(error).__name__)
            self._away_until = self._ticks() + _LEAVE_ALONE
            return None


class _Local:
    """The same for one process alone. Lanes share one bucket: a process serves few, and a small weight goes first."""

    def __init__(self, ceiling: float, pace: Mapping[str, float]) -> None:
        self._ceiling = ceiling
        self._pace = pace
        self._rate = ceiling
        self._rate_at = 0.0
        self._slowed_at = -math.inf
        self._closed_until = -math.inf
        self._paid_at = -math.inf
        self._big = 0
        self._groups: dict[str, float] = {}

    def take(self, weight: int, share: float, now: float) -> float:
        if (silent := self.closed_for(now)) > 0:
            return silent
        each = 1 / (self._rate_now(now) * share)
        paid_at = max(self._paid_at, now)
        big = max(self._big, weight) if paid_at > now else weight
        wait = paid_at + weight * each - big * each - now
        if wait > 1e-9:
            return min(wait, 0.5)
        self._paid_at, self._big = paid_at + weight * each, big
        return 0.0

    def take_group(self, name: str, weight: int, share: float, now: float) -> float:
        paid_at = self._groups.get(name, now)
        if paid_at > now:
            return paid_at - now
        self._groups[name] = now + weight / (self._pace[name] * share)
        return 0.0

    def closed_for(self, now: float) -> float:
        return max(0.0, self._closed_until - now)

    def throttled(self, seconds: float, now: float) -> None:
        if now - self._slowed_at > 2.0:
            self._rate, self._rate_at = max(min(1.0, self._ceiling), self._rate_now(now) / 2), now
            self._slowed_at = now
        self._closed_until = max(self._closed_until, now + seconds)

    def _rate_now(self, now: float) -> float:
        minutes = min((now - self._rate_at) / 60, 1_000.0)
        return min(self._ceiling, self._rate * math.pow(1.05, minutes))
