"""The provider's suppression lists, as OAI tsg_suppressions_v3.yaml has them: kept on disk, paged, by address."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

NAMES = ("bounces", "blocks", "spam_reports", "invalid_emails", "unsubscribes")
PAGE = 500


class Lists:
    """Who is on which list; each change is a line of `lists.jsonl`."""

    def __init__(self, state: Path) -> None:
        self._path = state / "lists.jsonl"
        self._lock = threading.Lock()
        self._lists: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in NAMES}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                self._apply(json.loads(line))

    def _apply(self, change: dict[str, Any]) -> None:
        entries, address = self._lists[change["list"]], change["email"].lower()
        if change["entry"] is None:
            entries.pop(address, None)
        else:
            entries.setdefault(address, change["entry"])

    def change(self, name: str, email: str, entry: dict[str, Any] | None) -> None:
        """Put an address on a list, or with None take it off."""
        with self._lock:
            change = {"list": name, "email": email, "entry": entry}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(change) + "\n")
            self._apply(change)

    def entries(self, name: str) -> list[dict[str, Any]]:
        """Everybody on a list, the newest first."""
        with self._lock:
            return sorted(self._lists[name].values(), key=lambda entry: -int(entry["created"]))


def routes(lists: Lists, key: str, now: Callable[[], float]) -> list[Route]:
    """The API's paths for the lists."""

    def guarded(answer: Callable[[Request, Any], Response]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            if request.headers.get("authorization") != f"Bearer {key}":
                return _refused("authorization required", 401)
            try:
                raw = await request.body()
                return answer(request, json.loads(raw) if raw else None)
            except (ValueError, KeyError, TypeError, AttributeError):
                return _refused("Bad Request", 400)

        return endpoint

    def show(request: Request, body: Any) -> Response:
        name = request.path_params["name"]
        if name not in NAMES:
            return _refused("Not Found", 404)
        asked = request.query_params
        limit, offset = int(asked.get("limit", PAGE)), int(asked.get("offset", 0))
        if not 1 <= limit <= PAGE or offset < 0:
            return _refused("limit is 1 to 500", 400)
        since, until = int(asked.get("start_time", 0)), int(asked.get("end_time", 2**62))
        found = [entry for entry in lists.entries(name) if since <= int(entry["created"]) <= until]
        return JSONResponse(found[offset : offset + limit])

    def remove(request: Request, body: Any) -> Response:
        name = request.path_params["name"]
        if name not in NAMES or name == "unsubscribes":
            return _refused("Not Found", 404)
        for email in [str(one) for one in body["emails"]]:
            lists.change(name, email, None)
        return Response(status_code=204)

    def add(request: Request, body: Any) -> Response:
        emails = body["recipient_emails"]
        if not isinstance(emails, list) or not all(isinstance(one, str) and "@" in one for one in emails):
            return _refused("recipient_emails is a list of addresses", 400)
        for email in emails:
            lists.change("unsubscribes", email, {"created": int(now()), "email": email})
        return JSONResponse({"recipient_emails": emails}, 201)

    def take_off(request: Request, body: Any) -> Response:
        lists.change("unsubscribes", request.path_params["email"], None)
        return Response(status_code=204)

    return [
        Route("/v3/suppression/{name}", guarded(show), methods=["GET"]),
        Route("/v3/suppression/{name}", guarded(remove), methods=["DELETE"]),
        Route("/v3/asm/suppressions/global", guarded(add), methods=["POST"]),
        Route("/v3/asm/suppressions/global/{email}", guarded(take_off), methods=["DELETE"]),
    ]


def _refused(message: str, status: int) -> JSONResponse:
    return JSONResponse({"errors": [{"field": None, "message": message}]}, status)
