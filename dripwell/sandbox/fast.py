"""A ledger for benchmarks: one write and one fsync a call, nothing filled in, no inbox.

What the provider promises stays: a call is checked, and its lines are on the disk before it is answered. What people
look at is left out, so that the sandbox is not what a benchmark measures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dripwell.sandbox.ledger import (
    NOBODY_DROPPED,
    Call,
    DamagedStateError,
    Ledger,
    Mail,
    Request,
    address_hash,
    args_of,
    id_of_call,
)


class FastLedger(Ledger):
    """Begins with an empty folder and cannot be opened again: addresses are not kept."""

    def __init__(self, state: Path, seed: int) -> None:
        if (state / "ledger.jsonl").exists() and (state / "ledger.jsonl").stat().st_size:
            raise DamagedStateError(f"A fast sandbox needs an empty folder, and {state} has a ledger.")
        super().__init__(state, seed)

    def add(self, request: Request, now: float, dropped: Mapping[int, str] = NOBODY_DROPPED) -> Call:
        """Accept these people's mails. Returns when the ledger lines are on the disk. Nobody is ever `dropped`."""
        args = [args_of(request.body, row) for row, _ in request.people]
        written = {batch: json.dumps(batch) for batch in {arg.get("dw_b") for arg in args}}
        size = len(request.people)
        with self._lock:
            number = len(self._index.calls) + 1
            provider_id = id_of_call(self._seed, number)
            head = f'{{"t":{now!r},"call":{number},"of":{size},"id":"{provider_id}",'
            lines = [
                f'{head}"dw_b":{written[arg.get("dw_b")]},"dw_m":{json.dumps(arg.get("dw_m"))},'
                f'"address":"{address_hash(address)}"}}\n'
                for (_, address), arg in zip(request.people, args, strict=True)
            ]
            self._lines.append("".join(lines).encode())
            return self._count(number, now, provider_id, request.people, [""] * size, args, 0, 0)

    def body(self, call: Call) -> Mapping[str, Any]:
        """As much of the request as events and logs need."""
        people: list[dict[str, Any]] = [{}] * (max(call.rows, default=-1) + 1)
        for row, dw_m, dw_b in zip(call.rows, call.messages, call.batches, strict=True):
            args = {"dw_m": dw_m, "dw_b": dw_b}
            people[row] = {"custom_args": {name: value for name, value in args.items() if value is not None}}
        return {"from": {"email": ""}, "personalizations": people}

    def mail(self, mail_id: int) -> Mail | None:
        """None: what was in a mail is not kept."""
        return None
