"""What one sandbox is told when it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dripwell.sandbox.hostile import QUIET, Mood


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """`now` answers Unix seconds; `port` 0 takes a free one. Nothing else is read from outside."""

    state: Path
    now: Callable[[], float]
    port: int = 8025
    webhook: str | None = None  # where events are posted; None: nobody is told
    seed: int = 0  # provider ids follow from it, so a course can be repeated
    key: str = "SG.test"  # the one API key that opens /v3
    late: float = 5.0  # seconds by which `+late` delays an event
    mood: Mood = QUIET  # what goes wrong by chance
    fast: bool = False  # for benchmarks: no inbox, nothing filled in
