"""The erasure of people: `POST /v3/recipients/erasejob`.

Where the provider only takes the request and works through it later, the sandbox has done it when it answers. A ledger
of requests says when and how many, never who.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dripwell.sandbox.state import Sandbox

_ADDRESS = re.compile(r"[^\s@]{1,64}@[^\s@]{1,253}")
MOST, MOST_BYTES, A_MINUTE = 5_000, 256 * 1024, 100


def routes(sandbox: Sandbox) -> list[Route]:
    """The endpoint, and `/control/erasing`: GET lists the requests, POST {"status": 403} answers so from then on."""
    asked: deque[float] = deque()
    forced: list[int] = []

    async def erase(request: Request) -> Response:
        return await _erase(sandbox, request, asked, forced)

    async def look(request: Request) -> Response:
        return JSONResponse({"requests": await run_in_threadpool(requests, sandbox.config.state)})

    async def force(request: Request) -> Response:
        status = (await request.json()).get("status")
        forced[:] = [status] if isinstance(status, int) else []
        return JSONResponse({"status": status})

    return [
        Route("/v3/recipients/erasejob", erase, methods=["POST"]),
        Route("/control/erasing", look, methods=["GET"]),
        Route("/control/erasing", force, methods=["POST"]),
    ]


async def _erase(sandbox: Sandbox, request: Request, asked: deque[float], forced: list[int]) -> Response:
    if request.headers.get("authorization") != f"Bearer {sandbox.config.key}":
        return _errors(401, "Failed to authenticate")
    if forced:
        return _errors(forced[0], "Not authorized")
    now = sandbox.config.now()
    while asked and asked[0] <= now - 60:
        asked.popleft()
    if len(asked) >= A_MINUTE:
        headers = {"X-RateLimit-Limit": str(A_MINUTE), "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"}
        return _errors(429, "too many requests", headers=headers)
    asked.append(now)
    raw = await request.body()
    try:
        value = json.loads(raw)
        addresses = value["email_addresses"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return _errors(400, "email_addresses is required", "email_addresses")
    if not isinstance(addresses, list) or not 1 <= len(addresses) <= MOST or len(raw) > MOST_BYTES:
        return _errors(400, f"1 to {MOST} addresses, at most {MOST_BYTES} bytes", "email_addresses")
    for address in addresses:
        if not isinstance(address, str) or _ADDRESS.fullmatch(address) is None:
            return _errors(400, "An address is not valid", "email_addresses")
    job = await run_in_threadpool(_carry_out, sandbox, addresses, now)
    return JSONResponse({"job_id": job}, 202)


def _carry_out(sandbox: Sandbox, addresses: Collection[str], now: float) -> str:
    for address in sorted(set(addresses)):
        sandbox.ledger.forget(address)
        sandbox.lists.forget(address)
    path = sandbox.config.state / "erasures.jsonl"
    known = len(requests(sandbox.config.state))
    job = hashlib.sha256(f"erasure {sandbox.config.seed} {known}".encode()).hexdigest()[:32]
    with path.open("ab") as file:
        file.write(json.dumps({"t": now, "job_id": job, "people": len(set(addresses))}).encode() + b"\n")
        file.flush()
        os.fdatasync(file.fileno())
    return job


def requests(state: Path) -> list[dict[str, Any]]:
    """Every request that was taken: when, its job, and how many people."""
    path = state / "erasures.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def _errors(status: int, message: str, field: str = "", headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"errors": [{"message": message, "field": field}]}, status, dict(headers or {}))
