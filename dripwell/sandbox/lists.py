"""The provider's suppression lists over HTTP, as OAI tsg_suppressions_v3.yaml has them, and `/control/lists`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dripwell.sandbox import answers
from dripwell.sandbox.answers import Answer
from dripwell.sandbox.listing import NAMES
from dripwell.sandbox.state import Sandbox

PAGE = 500


def routes(sandbox: Sandbox) -> list[Route]:
    """The API's paths for the lists."""
    lists, now = sandbox.lists, sandbox.config.now

    def guarded(answer: Callable[[Request, Any], Response]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            raw = await request.body()
            scripted = sandbox.lists_script.take()
            if scripted is not None:
                return _scripted(scripted)
            if request.headers.get("authorization") != f"Bearer {sandbox.config.key}":
                return _refused("authorization required", 401)
            try:
                return await run_in_threadpool(answer, request, json.loads(raw) if raw else None)
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
            lists.take_off(name, email)
        return Response(status_code=204)

    def add(request: Request, body: Any) -> Response:
        emails = body["recipient_emails"]
        if not isinstance(emails, list) or not all(isinstance(one, str) and "@" in one for one in emails):
            return _refused("recipient_emails is a list of addresses", 400)
        for email in emails:
            lists.put("unsubscribes", email, now())
        return JSONResponse({"recipient_emails": emails}, 201)

    def take_off(request: Request, body: Any) -> Response:
        lists.take_off("unsubscribes", request.path_params["email"])
        return Response(status_code=204)

    return [
        Route("/v3/suppression/{name}", guarded(show), methods=["GET"]),
        Route("/v3/suppression/{name}", guarded(remove), methods=["DELETE"]),
        Route("/v3/asm/suppressions/global", guarded(add), methods=["POST"]),
        Route("/v3/asm/suppressions/global/{email}", guarded(take_off), methods=["DELETE"]),
    ]


def shown(sandbox: Sandbox) -> dict[str, Any]:
    """Every list, and how many scripted answers wait."""
    return {**{name: sandbox.lists.entries(name) for name in NAMES}, "scripted": len(sandbox.lists_script)}


def change(sandbox: Sandbox, wish: object) -> None:
    """Carry out a control request. Raises ValueError naming what is wrong, before anything is changed."""
    if not isinstance(wish, dict) or not wish.keys() <= {"add", "remove", "answers", "clear"}:
        raise ValueError('The body is {"add": {"bounces": ["a@example.com"]}, "remove": {…}, "answers": […]}.')
    changes: dict[str, list[tuple[str, str]]] = {"add": [], "remove": []}
    for what, found in changes.items():
        for name, emails in dict(wish.get(what) or {}).items():
            if name not in NAMES or not isinstance(emails, list) or not all(isinstance(one, str) for one in emails):
                raise ValueError(f"{what} names lists ({', '.join(NAMES)}), each with its addresses.")
            found += [(name, email) for email in emails]
    scripted = answers.parse(wish) if "answers" in wish else []
    if wish.get("clear"):
        sandbox.lists_script.clear()
    sandbox.lists_script.add(scripted)
    for name, email in changes["add"]:
        sandbox.lists.put(name, email, sandbox.config.now())
    for name, email in changes["remove"]:
        sandbox.lists.take_off(name, email)


def _scripted(answer: Answer) -> Response:
    if answer.body is None and answer.status >= 300:
        return _refused("scripted", answer.status, dict(answer.headers))
    return Response(answer.body or "", answer.status, dict(answer.headers), "application/json")


def _refused(message: str, status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"errors": [{"field": None, "message": message}]}, status, headers)
