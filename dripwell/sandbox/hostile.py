"""A provider in a bad mood: which call and which event goes wrong, and how, drawn from a seed.

Whatever is drawn here keeps the promises that senders build on: a call is accepted whole or not at all (A1), the log
knows what was accepted at once (A2), and nothing is accepted later than `grace` after its call began (A3). A provider
that breaks these is scripted over `/control/next`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, TypeVar

from dripwell.sandbox.answers import Answer
from dripwell.sandbox.behavior import Course

T = TypeVar("T")
MARGIN = 2.0
"""Seconds before the end of the grace time within which nothing more is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """How likely a call (`answers`) and the events of a mail (`events`) go wrong; `grace` is G, in seconds."""

    answers: float = 0.0
    events: float = 0.0
    grace: float = 5.0
    seed: int = 0


QUIET = Mood()
"""Nothing goes wrong by chance."""


class Chance:
    """Numbers that follow from a text alone, one after the other."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._drawn = 0

    def share(self) -> float:
        """From 0 up to, but not, 1."""
        self._drawn += 1
        return int.from_bytes(hashlib.sha256(f"{self._text}/{self._drawn}".encode()).digest()[:6]) / 2**48

    def between(self, low: float, high: float) -> float:
        """From `low` to `high`."""
        return low + (high - low) * self.share()

    def one_of(self, choices: Sequence[T]) -> T:
        """Each as likely as the others."""
        return choices[int(self.share() * len(choices))]

    def weighted(self, weights: Mapping[str, int]) -> str:
        """Each as likely as its weight."""
        point = self.share() * sum(weights.values())
        return next(name for name, end in zip(weights, accumulate(weights.values()), strict=True) if point < end)


Draw = Callable[[Chance, Mood, float], Answer]


def _late(rng: Chance, mood: Mood) -> float:
    longest = max(0.0, mood.grace - MARGIN)
    return rng.between(min(1.0, longest), longest)


_NOT_TAKEN = Answer(status=500, accept=False)
_TAKEN = Answer(status=500)

ANSWERS: Mapping[str, tuple[int, Draw]] = {
    "429 with Retry-After": (
        6,
        lambda rng, mood, now: Answer(429, {"Retry-After": str(rng.one_of((1, 2)))}, accept=False),
    ),
    "429 with a reset time": (
        5,
        lambda rng, mood, now: Answer(429, {"X-RateLimit-Reset": str(int(now) + rng.one_of((1, 2, 3)))}, accept=False),
    ),
    "429 without a word": (4, lambda rng, mood, now: Answer(429, accept=False)),
    "401": (1, lambda rng, mood, now: Answer(401, accept=False)),
    "413 page": (6, lambda rng, mood, now: Answer(413, html=True, accept=False, unless_alone=True)),
    "500 not accepted": (12, lambda rng, mood, now: _NOT_TAKEN),
    "500 accepted": (12, lambda rng, mood, now: _TAKEN),
    "502 page not accepted": (4, lambda rng, mood, now: replace(_NOT_TAKEN, status=502, html=True)),
    "502 page accepted": (3, lambda rng, mood, now: replace(_TAKEN, status=502, html=True)),
    "200 not accepted": (4, lambda rng, mood, now: replace(_NOT_TAKEN, status=200)),
    "reset at byte 0": (7, lambda rng, mood, now: Answer(accept=False, hangup="start")),
    "reset within the body": (7, lambda rng, mood, now: Answer(accept=False, hangup="body")),
    "reset after the body": (7, lambda rng, mood, now: Answer(accept=False, hangup="end")),
    "accepted and hung up": (12, lambda rng, mood, now: Answer(hangup="end")),
    "accepted late": (6, lambda rng, mood, now: Answer(delay=_late(rng, mood))),
    "hung up and accepted late": (6, lambda rng, mood, now: Answer(late=_late(rng, mood))),
}
"""Every way in which a call can go wrong: how often, out of their sum, and the answer."""

EVENTS: Mapping[str, int] = {"lost": 5, "copied": 5, "late": 5, "reversed": 3, "malformed": 2}
"""Every way in which the events of a mail can go wrong, and how often out of their sum."""


def answer(mood: Mood, number: int, now: float) -> tuple[str, Answer] | None:
    """What goes wrong with the `number`-th call, by name; None: nothing."""
    rng = Chance(f"{mood.seed}/call/{number}")
    if rng.share() >= mood.answers:
        return None
    name = rng.weighted({name: weight for name, (weight, _) in ANSWERS.items()})
    return name, ANSWERS[name][1](rng, mood, now)


def fate(mood: Mood, call: int, index: int, course: Course) -> tuple[Course, bytes | None]:
    """What the webhook hears of one mail, and a body of nonsense that comes along."""
    rng = Chance(f"{mood.seed}/mail/{call}/{index}") if mood.events else None
    if rng is None or rng.share() >= mood.events:
        return course, None
    match rng.weighted(EVENTS):
        case "lost":
            return replace(course, copies=0), None
        case "copied":
            return replace(course, copies=course.copies * rng.one_of((2, 3, 46))), None
        case "late":
            wait = rng.between(0.5, max(1.0, 2 * mood.grace))
            return replace(course, waits=(wait,) * len(course.happenings)), None
        case "reversed":
            last = len(course.happenings)
            return replace(course, waits=tuple(0.3 * (last - place) for place in range(last))), None
    return course, rng.one_of((b"", b"{", b"[1, null, []]", b'[{"event": "unheard-of", "timestamp": "soon"}]', b"\xff"))


def changed(mood: Mood, wishes: Mapping[str, Any]) -> Mood:
    """Return another mood as wished. Raises ValueError naming what is wrong."""
    for name, value in wishes.items():
        if name not in Mood.__slots__:
            raise ValueError(f"There is no mood {name!r}; there are {', '.join(Mood.__slots__)}.")
        if isinstance(value, bool) or not isinstance(value, int if name == "seed" else (int, float)):
            raise ValueError(f"{name} cannot be {value!r}.")
    made = replace(mood, **wishes)
    if not (0 <= made.answers <= 1 and 0 <= made.events <= 1 and 0 <= made.grace <= 3600):
        raise ValueError("answers and events are probabilities from 0 to 1, grace is seconds up to 3600.")
    return made
