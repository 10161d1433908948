"""Redis, for what may be forgotten: the suppression set and slot holds.

Nothing here is a promise. Every failure becomes "unknown" (None) within 250 ms, and after one failure Redis is left
alone for a second, so that a pass full of small questions does not wait for each of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dripwell.storage import suppressions
from dripwell.storage.database import Connection

__all__ = ["Fast"]

log = logging.getLogger("dripwell.storage")
T = TypeVar("T")
Member = tuple[bytes, str]

MARK = "dw:supp:mark"
_BUILDING = "dw:supp:building"
_REBUILD_LOCK = "dw:supp:rebuild"
_PRESENT = b"\0"  # always a member, so that an empty ledger still makes a key
_LEAVE_ALONE = 1.0  # seconds
_PIECE = 2_000

# Keep a slot unless somebody else does.
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# Give a hold back only if it is still this owner's.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

# Change the valid set, or nothing. What a script writes reaches the append-only file as one MULTI: mark and members
# are lost together or not at all.
_CHANGE = """
local mark = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
if mark[1] ~= ARGV[1] or mark[2] ~= ARGV[2] then
  return 0
end
if #ARGV > 4 then
  redis.call(ARGV[3], KEYS[2], unpack(ARGV, 5))
end
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'xmin', ARGV[4])
end
return 1
"""


class Fast:
    """One per process, safe between threads. Opening it talks to nobody."""

    def __init__(self, url: str, *, ticks: Callable[[], float] = time.monotonic) -> None:
        """`ticks` counts seconds."""
        self._redis = redis.Redis.from_url(
            url,
            socket_connect_timeout=0.1,
            socket_timeout=0.12,
            retry=Retry(NoBackoff(), 0),  # redis-py retries ten times if left alone
            protocol=2,
            driver_info=None,
        )
        self._hold = self._redis.register_script(_HOLD)
        self._release = self._redis.register_script(_RELEASE)
        self._change = self._redis.register_script(_CHANGE)
        self._ticks = ticks
        self._away_until = 0.0
        self._expected: tuple[int, int] | None = None

    def is_there(self) -> bool:
        """Whether Redis answers just now."""
        return self._ask(lambda: bool(self._redis.ping())) is True

    def now(self) -> datetime | None:
        """What time the server says it is; None while it is away. For comparing, never for deciding what is due."""
        told = self._ask(self._redis.time)
        if told is None:
            return None
        seconds, microseconds = told
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)

    # The suppression set

    def expect(self, connection: Connection) -> bool:
        """Learn from the record which set is valid. False: Redis has another or none, and `rebuild` would help."""
        self._expected = suppressions.marks(connection)
        return self._ask(lambda: self._is_valid(self._mark())) is True

    def hits(self, hashes: Sequence[bytes], scopes: Sequence[str]) -> set[bytes] | None:
        """Of these addresses, those the set knows as suppressed in one of `scopes`.

        A hit must be confirmed by the ledger and a miss proves nothing. None: Redis is silent, or its set is not the
        one of this record, so ask SQL alone.
        """
        if self._expected is None:
            return None
        found: set[bytes] = set()
        for at in range(0, len(hashes), _PIECE):
            piece = hashes[at : at + _PIECE]
            members = [_member(addr_hash, scope) for addr_hash in piece for scope in scopes]
            answers = self._ask(lambda members=members: self._are_members(members))  # type: ignore[misc]
            if answers is None:
                return None
            found.update(piece[index // len(scopes)] for index, is_in in enumerate(answers) if is_in)
        return found

    def add(self, members: Iterable[Member]) -> bool:
        """Add (address hash, scope) pairs to the valid set. False: not done, and the outbox will try again."""
        return self._apply("SADD", [_member(*member) for member in members])

    def remove(self, members: Iterable[Member]) -> bool:
        """Take lifted pairs out of the set. False: not done; `follow` does it."""
        return self._apply("SREM", [_member(*member) for member in members])

    def rebuild(self, connection: Connection) -> bool:
        """Build the set anew from the ledger and put it in place with its mark, both or neither.

        Only one process rebuilds at a time; another one, or a silent Redis, makes this False. Takes as long as the
        ledger is long, in calls that are each bounded.
        """
        epoch, generation = self._expected = suppressions.marks(connection)
        if not self._ask(lambda: self._redis.set(_REBUILD_LOCK, "1", nx=True, px=60_000)):
            return False
        try:
            reached = suppressions.horizon(connection)  # before the rows: what is read twice does no harm
            if self._ask(lambda: self._redis.delete(_BUILDING)) is None:
                return False
            members = (_member(*member) for member in suppressions.all_standing(connection))
            while piece := list(islice(members, _PIECE)):
                if self._ask(lambda piece=piece: self._redis.sadd(_BUILDING, *piece)) is None:  # type: ignore[misc]
                    return False
            return self._ask(lambda: self._put_in_place(epoch, generation, reached)) is True
        finally:
            self._ask(lambda: self._redis.delete(_REBUILD_LOCK))

    def follow(self, connection: Connection) -> bool:
        """Bring the set up to the ledger: what was written since the mark, or all of it when the mark is wrong.

        Of each address and scope the newest row decides, so whoever was lifted leaves the set. What another process
        writes meanwhile is behind the horizon that is marked, so the next time looks at it again.
        """
        self._expected = suppressions.marks(connection)
        mark = self._ask(self._mark)
        if mark is None:
            return False
        if not self._is_valid(mark) or not self._ask(lambda: self._redis.exists(self._key())):
            return self.rebuild(connection)
        reached = suppressions.horizon(connection)
        late = suppressions.changed_from(connection, int(mark[b"xmin"]))
        standing = suppressions.standing(connection, [one for one, _ in late], sorted({scope for _, scope in late}))
        lifted = [_member(*member) for member in late if member not in standing]
        if lifted and not self._apply("SREM", lifted):
            return False
        return self._apply("SADD", [_member(*member) for member in late if member in standing], reached)

    # Slot holds

    def hold(self, slot: str, owner: str, length: timedelta) -> bool | None:
        """Keep `slot` for `owner` for so long, or longer if it is theirs already.

        False: somebody else holds it. None: unknown, go on, the booking row decides.
        """
        span = int(length.total_seconds() * 1000)
        answer = self._ask(lambda: int(self._hold(keys=[f"dw:hold:{slot}"], args=[owner, span])))
        return None if answer is None else answer == 1

    def held(self, slots: Sequence[str], owner: str) -> set[str]:
        """Of these slots, those that somebody else holds; none when that is unknown."""
        if not slots:
            return set()
        owners = self._ask(lambda: self._redis.mget([f"dw:hold:{slot}" for slot in slots])) or []
        return {
            slot for slot, holder in zip(slots, owners, strict=False) if holder is not None and holder != owner.encode()
        }

    def release(self, slot: str, owner: str) -> None:
        """Give a hold back; nothing happens when it is not `owner`'s. Lost releases expire by themselves."""
        self._ask(lambda: self._release(keys=[f"dw:hold:{slot}"], args=[owner]))

    def close(self) -> None:
        """Drop the connections."""
        self._redis.close()

    def _ask(self, question: Callable[[], T]) -> T | None:
        """The answer, or None when there was none; never an exception of Redis."""
        if self._ticks() < self._away_until:
            return None
        try:
            return question()
        except (redis.RedisError, OSError) as error:
            log.warning("Redis does not answer (%s); going on without it", type(error).__name__)
            self._away_until = self._ticks() + _LEAVE_ALONE
            return None

    def _key(self) -> str:
        epoch, generation = self._expected or (0, 0)
        return _set_of(b"%d" % epoch, b"%d" % generation).decode()

    def _mark(self) -> dict[bytes, bytes]:
        return self._redis.hgetall(MARK)  # type: ignore[return-value]  # bytes, because nothing is decoded

    def _is_valid(self, mark: dict[bytes, bytes]) -> bool:
        if self._expected is None or b"xmin" not in mark:
            return False
        epoch, generation = self._expected
        return (mark.get(b"epoch"), mark.get(b"generation")) == (str(epoch).encode(), str(generation).encode())

    def _are_members(self, members: list[bytes]) -> list[int] | None:
        pipe = self._redis.pipeline(transaction=True)
        pipe.hgetall(MARK)
        pipe.smismember(self._key(), [_PRESENT, *members])
        mark, answers = pipe.execute()
        if not self._is_valid(mark) or not answers[0]:
            return None
        found: list[int] = answers[1:]
        return found

    def _apply(self, command: str, members: list[bytes], reached: int | None = None) -> bool:
        """Change the valid set, piece by piece; the horizon is marked as reached with the last piece."""
        if self._expected is None:
            return False
        for at in range(0, max(len(members), 1), _PIECE):
            piece = members[at : at + _PIECE]
            horizon = str(reached) if reached is not None and at + _PIECE >= len(members) else ""
            args = [*map(str, self._expected), command, horizon, *piece]
            if not self._ask(lambda args=args: self._change(keys=[MARK, self._key()], args=args)):  # type: ignore[misc]
                return False
        return True

    def _put_in_place(self, epoch: int, generation: int, reached: int) -> bool:
        before = self._mark()
        old, new = _set_of(before.get(b"epoch", b""), before.get(b"generation", b"")), self._key().encode()
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.sadd(_BUILDING, _PRESENT)
            pipe.rename(_BUILDING, new)
            if old != new:
                pipe.unlink(old)
            pipe.hset(MARK, mapping={"epoch": str(epoch), "generation": str(generation), "xmin": str(reached)})
            pipe.execute()
        return True


def _set_of(epoch: bytes, generation: bytes) -> bytes:
    return b"dw:supp:%b:%b" % (epoch, generation)


def _member(addr_hash: bytes, scope: str) -> bytes:
    return addr_hash[:16] + scope.encode()
