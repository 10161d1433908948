"""What one running sandbox holds: its ledger, its postman, and how it is told to behave just now."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from dripwell.sandbox.answers import Script
from dripwell.sandbox.config import Config
from dripwell.sandbox.hostile import Mood
from dripwell.sandbox.ledger import Ledger
from dripwell.sandbox.listing import Lists
from dripwell.sandbox.postman import Postman
from dripwell.sandbox.server import Lines


@dataclass(slots=True)
class LogManners:
    """How the Email Logs API behaves: `status` answers instead of it, `lag` hides what is younger (seconds)."""

    status: int | None = None
    lag: float = 0.0


@dataclass(slots=True)
class Counts:
    """What proves that nothing retries: requests, bytes read, and how often the same body came again."""

    requests: int = 0
    body_bytes: int = 0
    repeats: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    bodies: set[bytes] = field(default_factory=set)
    hostile: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Sandbox:
    """Everything one running sandbox holds. `later` keeps what is accepted after its connection was closed."""

    config: Config
    ledger: Ledger
    postman: Postman
    lines: Lines
    lists: Lists
    mood: Mood = field(default_factory=Mood)
    script: Script = field(default_factory=Script)
    lists_script: Script = field(default_factory=Script)
    logs: LogManners = field(default_factory=LogManners)
    counts: Counts = field(default_factory=Counts)
    later: set[asyncio.Task[str]] = field(default_factory=set)
