"""Programs that break one rule each. A judge that lets one of them pass is blind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from dripwell.services import resolve
from dripwell.storage.database import Database


def _blind_retry() -> None:
    """What may have been accepted is taken for refused, and goes out again at once."""

    def unknown(database: Database, batch_id: int, reason: str, status: int | None, **more: Any) -> None:
        resolve.not_sent(database, batch_id, reason, seconds=0.0, status=status, attempted=True)

    _replace(resolve, "unknown", unknown)


def _no_final_check() -> None:
    """Who left after the claim is mailed all the same."""
    honest = resolve.check_out

    def check_out(*given: Any, before: str, **more: Any) -> None:
        if before != "CALLING":
            honest(*given, before=before, **more)

    _replace(resolve, "check_out", check_out)


def _replace(module: ModuleType, name: str, broken: Callable[..., None]) -> None:
    if not callable(getattr(module, name, None)):
        raise LookupError(f"there is no {module.__name__}.{name} to break any more")
    setattr(module, name, broken)


MUTANTS: Mapping[str, Callable[[], None]] = {"blind_retry": _blind_retry, "no_final_check": _no_final_check}
