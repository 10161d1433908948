"""Answers scripted for the next calls over `POST /control/next`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Hangup = Literal["start", "body", "end"]

FIELDS = (
    "status", "headers", "body", "html", "accept", "people", "hangup", "late", "delay", "delay_answer", "drip", "times",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """How one call is answered. `accept` is what the ledger does, `status` what the client is told."""

    status: int = 202
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None  # None: the provider's own words for that status
    html: bool = False  # a proxy's page, as a 413 or 502 has
    accept: bool = True
    people: int | None = None  # accept only so many of the call's people (a broken provider)
    hangup: Hangup | None = None  # close before the body, within it, or instead of the answer
    late: float = 0.0  # hang up at once, and accept only after so many seconds
    delay: float = 0.0  # seconds before accepting
    delay_answer: float = 0.0  # seconds between accepting and answering
    drip: float = 0.0  # seconds between two bytes of the answer's body
    unless_alone: bool = False  # an ordinary answer instead when the call has one person only


class Script:
    """The answers still to give, in order. Used from one thread."""

    def __init__(self) -> None:
        self._answers: deque[Answer] = deque()

    def add(self, answers: list[Answer]) -> None:
        """Queue answers after those still waiting."""
        self._answers.extend(answers)

    def clear(self) -> None:
        """Forget what is still waiting."""
        self._answers.clear()

    def take(self) -> Answer | None:
        """The next call's answer; None: the ordinary one."""
        return self._answers.popleft() if self._answers else None

    def __len__(self) -> int:
        return len(self._answers)


def parse(request: object) -> list[Answer]:
    """The answers a control request asks for. Raises ValueError naming what is wrong."""
    wishes = request.get("answers") if isinstance(request, dict) else None
    if not isinstance(wishes, list):
        raise ValueError('The body is {"answers": [{"status": 429, "times": 2}, …]}.')
    return [answer for wish in wishes for answer in _answers(wish)]


def _answers(wish: object) -> list[Answer]:
    if not isinstance(wish, dict):
        raise ValueError(f"An answer is an object, not {wish!r}.")
    unknown = sorted(wish.keys() - set(FIELDS))
    if unknown:
        raise ValueError(f"An answer has no {unknown[0]!r}; it has {', '.join(FIELDS)}.")
    times = _number(wish, "times", 1)
    hangup = wish.get("hangup")
    if hangup not in (None, False, True, "start", "body", "end"):
        raise ValueError("hangup is true, start, body or end.")
    where: Hangup | None = "end" if hangup is True else hangup or None
    status = int(_number(wish, "status", 202))
    if not 200 <= status <= 599:
        raise ValueError("status is 200 to 599.")
    headers = wish.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ValueError("headers is an object of strings.")
    body = wish.get("body")
    if body is not None and not isinstance(body, str):
        raise ValueError("body is a string.")
    # A 202 or a lost answer means accepted unless told otherwise; any other status means not accepted.
    accept = wish.get("accept", status == 202 and where in (None, "end"))
    if not isinstance(accept, bool) or (accept and where in ("start", "body")):
        raise ValueError("accept is true or false; a call cut before its end cannot be accepted.")
    late = _number(wish, "late", 0.0)
    if late and (where is not None or not accept):
        raise ValueError("late hangs up by itself, and accepts.")
    people = wish.get("people")
    if people is not None and (not isinstance(people, int) or people < 0):
        raise ValueError("people is how many of the call's people are accepted.")
    answer = Answer(
        status=status,
        headers=headers,
        body=body,
        html=bool(wish.get("html", False)),
        accept=accept,
        people=people,
        hangup=where,
        late=late,
        delay=_number(wish, "delay", 0.0),
        delay_answer=_number(wish, "delay_answer", 0.0),
        drip=_number(wish, "drip", 0.0),
    )
    return [answer] * int(times)


def _number(wish: Mapping[str, Any], name: str, usual: float) -> float:
    value = wish.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100_000:
        raise ValueError(f"{name} is a number from 0 on.")
    return value
