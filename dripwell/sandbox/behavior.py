"""From an address to what becomes of its mail: the table in the package's docstring, as values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "processed", "delivered", "deferred", "bounce", "blocked", "dropped", "invalid", "asyncbounce", "spamreport",
    "unsubscribe",
]  # fmt: skip
Misanswer = Literal["badrow", "badcall", "ratelimit", "500before", "hangup", "500after"]

SLOW_SECONDS = 2.0
ALWAYS: frozenset[Misanswer] = frozenset(("badrow", "badcall"))
"""These answer every time; the others only the first."""
MISANSWERS: tuple[Misanswer, ...] = ("badrow", "badcall", "ratelimit", "500before", "hangup", "500after")


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that becomes of an accepted mail, `after` seconds from acceptance."""

    kind: Kind
    after: float = 0.0
    why: str = ""  # of a mail that was dropped, when it is not the usual reason


@dataclass(frozen=True, slots=True)
class Course:
    """All that becomes of one mail, and how much of it the webhook hears."""

    happenings: tuple[Happening, ...]
    copies: int = 1  # 0: the webhook never hears of it
    waits: tuple[float, ...] = ()  # by so many seconds the webhook hears of each happening later


PLAIN = Course((Happening("processed"), Happening("delivered")))


def tags(address: str) -> frozenset[str]:
    """The words after each `+` of the local part, in lower case."""
    local = address.rpartition("@")[0]
    return frozenset(local.lower().split("+")[1:]) if "+" in local else frozenset()


def course(address: str, nth: int, late: float) -> Course:
    """What becomes of the `nth` mail (from 1) to this address."""
    found = tags(address)
    if not found:
        return PLAIN
    wait = late if "late" in found else 0.0
    end = _end(found, nth)
    happenings = tuple(Happening(kind, after + (wait if kind != "processed" else 0.0)) for kind, after in end)
    copies = 0 if "lostevents" in found else 2 if "doubledevents" in found else 1
    return Course(happenings, copies)


def _end(found: frozenset[str], nth: int) -> tuple[tuple[Kind, float], ...]:
    if "dropped" in found:
        return (("dropped", 0.0),)
    if "invalid" in found:
        return (("invalid", 0.0),)
    if _bounces(found, nth):
        return ("processed", 0.0), ("bounce", 0.0)
    if "softbounce" in found:
        return ("processed", 0.0), ("deferred", 0.0), ("blocked", 0.0)
    delivered: tuple[tuple[Kind, float], ...] = ("processed", 0.0), ("delivered", 0.0)
    if "defer" in found:
        delivered = ("processed", 0.0), ("deferred", 0.0), ("delivered", 1.0)
    if "asyncbounce" in found:
        return *delivered, ("asyncbounce", 0.0)
    if "complain" in found:
        return *delivered, ("spamreport", 0.0)
    if "unsubscribe" in found:
        return *delivered, ("unsubscribe", 0.0)
    return delivered


def _bounces(found: frozenset[str], nth: int) -> bool:
    if "bounce" in found:
        return True
    starts = (tag.removeprefix("bounce-at-") for tag in found if tag.startswith("bounce-at-"))
    return any(start.isdecimal() and nth >= int(start) for start in starts)


def is_slow(addresses: Sequence[str]) -> bool:
    """Whether the answer of a call to these addresses takes its time."""
    return any("slow" in tags(address) for address in addresses if "+" in address)


def misanswer(addresses: Sequence[str], is_first: Callable[[Misanswer, str], bool]) -> tuple[Misanswer, int] | None:
    """Which scripted misbehavior answers a call to these addresses, and the index of the address that asks for it.

    `is_first(tag, address)` says whether the tag has not yet answered for this address; the caller remembers it.
    """
    tagged = [(index, address, tags(address)) for index, address in enumerate(addresses) if "+" in address]
    for wanted in MISANSWERS if tagged else ():
        for index, address, found in tagged:
            if wanted in found and (wanted in ALWAYS or is_first(wanted, address)):
                return wanted, index
    return None
