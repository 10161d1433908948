"""The control side: what happened, and how calls, webhooks and logs are to be treated. Only for this machine."""

from __future__ import annotations

import html
import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dripwell.sandbox import answers, hostile, lists
from dripwell.sandbox.ledger import Ledger, Mail
from dripwell.sandbox.postman import changed
from dripwell.sandbox.state import Sandbox

_LINK = re.compile(r"<a\b[^>]*?\bhref\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE | re.DOTALL)


def routes(sandbox: Sandbox) -> list[Route]:
    """Every control request; a client elsewhere is refused."""

    def control(path: str, endpoint: Callable[[Sandbox, Request], Awaitable[Response]], method: str) -> Route:
        async def guarded(request: Request) -> Response:
            return await endpoint(sandbox, request) if _is_local(request) else _wrong("Only this machine may ask.", 403)

        return Route(path, guarded, methods=[method])

    return [
        control("/control/ledger", _show_ledger, "GET"),
        control("/control/pending", _show_pending, "GET"),
        control("/control/mails", _show_mails, "GET"),
        control("/control/counts", _show_counts, "GET"),
        control("/control/public-key", _show_key, "GET"),
        control("/control/lists", _show_lists, "GET"),
        control("/control/lists", _change_lists, "POST"),
        control("/control/next", _set_next, "POST"),
        control("/control/webhooks", _set_webhooks, "POST"),
        control("/control/logs", _set_logs, "POST"),
        control("/control/hostile", _set_mood, "POST"),
        control("/control/post", _post_raw, "POST"),
    ]


def _is_local(request: Request) -> bool:
    """A client on this machine that also names this machine: a page elsewhere cannot get in by a rebound name."""
    if request.client is None:
        return False
    try:
        is_loopback = ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
    origin = request.headers.get("origin", str(request.base_url).rstrip("/"))
    is_own_page = origin == str(request.base_url).rstrip("/")  # a form elsewhere can post to this machine, too
    return is_loopback and is_own_page and request.url.hostname in ("127.0.0.1", "localhost", "::1")


async def _show_ledger(sandbox: Sandbox, request: Request) -> Response:
    totals = await run_in_threadpool(sandbox.ledger.totals)
    if request.query_params.get("full") == "1":
        totals["lines"] = await run_in_threadpool(sandbox.ledger.lines)
    return JSONResponse(totals)


async def _show_pending(sandbox: Sandbox, request: Request) -> Response:
    return JSONResponse(sandbox.postman.report())


async def _show_counts(sandbox: Sandbox, request: Request) -> Response:
    counts = sandbox.counts
    return JSONResponse(
        {
            "requests": counts.requests,
            "connections": sandbox.lines.opened,
            "body_bytes": counts.body_bytes,
            "repeats": counts.repeats,
            "by_status": dict(counts.by_status),
            "scripted": len(sandbox.script),
            "hostile": dict(counts.hostile),
        }
    )


async def _show_key(sandbox: Sandbox, request: Request) -> Response:
    return PlainTextResponse(sandbox.postman.key.public)


async def _show_mails(sandbox: Sandbox, request: Request) -> Response:
    try:
        since = int(request.query_params.get("since", "0"))
        limit = int(request.query_params.get("limit", "100"))
    except ValueError:
        return _wrong("since and limit are numbers.")
    return JSONResponse(await run_in_threadpool(_mails, sandbox.ledger, max(since, 0), min(max(limit, 1), 1000)))


def _mails(book: Ledger, since: int, limit: int) -> dict[str, Any]:
    ids = range(since + 1, min(since + limit, book.accepted) + 1)
    shown = [_mail_json(mail) for mail in map(book.mail, ids) if mail is not None]
    return {"mails": shown, "last": shown[-1]["id"] if shown else since, "accepted": book.accepted}


def _mail_json(mail: Mail) -> dict[str, Any]:
    lower = {key.lower(): value for key, value in mail.headers.items()}
    return {
        "id": mail.id,
        "t": mail.call.at,
        "address": mail.address,
        "subject": mail.subject,
        "from": mail.sender,
        "dw_m": mail.args.get("dw_m"),
        "dw_b": mail.args.get("dw_b"),
        "provider_id": mail.call.provider_id,
        "sg_message_id": mail.message_id,
        "links": links(mail.html or ""),
        "list_unsubscribe": lower.get("list-unsubscribe"),
        "list_unsubscribe_post": lower.get("list-unsubscribe-post"),
        "categories": list(mail.categories),
    }


def links(markup: str) -> list[str]:
    """The targets of every link in a mail's HTML, in order."""
    return [html.unescape(double or single) for double, single in _LINK.findall(markup)]


async def _show_lists(sandbox: Sandbox, request: Request) -> Response:
    return JSONResponse(await run_in_threadpool(lists.shown, sandbox))


async def _change_lists(sandbox: Sandbox, request: Request) -> Response:
    try:
        await run_in_threadpool(lists.change, sandbox, await request.json())
    except (ValueError, TypeError) as error:
        return _wrong(str(error))
    return await _show_lists(sandbox, request)


async def _set_next(sandbox: Sandbox, request: Request) -> Response:
    try:
        wish = await request.json()
        scripted = answers.parse(wish)
    except ValueError as error:
        return _wrong(str(error))
    if wish.get("clear"):
        sandbox.script.clear()
    sandbox.script.add(scripted)
    return JSONResponse({"scripted": len(sandbox.script)})


async def _set_webhooks(sandbox: Sandbox, request: Request) -> Response:
    try:
        wish = await request.json()
        if not isinstance(wish, dict):
            raise ValueError('The body is {"paused": true, …}.')
        manners = changed(sandbox.postman.manners, wish)
    except ValueError as error:
        return _wrong(str(error))
    sandbox.postman.behave(manners)
    return JSONResponse({name: getattr(manners, name) for name in manners.__slots__})


async def _set_logs(sandbox: Sandbox, request: Request) -> Response:
    try:
        wish = await request.json()
        status, lag = wish.get("status"), wish.get("lag", 0)
        if not (status is None or isinstance(status, int)) or not isinstance(lag, (int, float)) or lag < 0:
            raise ValueError("status is null or a status code, lag is seconds.")
    except (ValueError, AttributeError) as error:
        return _wrong(str(error))
    sandbox.logs.status, sandbox.logs.lag = status, float(lag)
    return JSONResponse({"status": status, "lag": lag})


async def _set_mood(sandbox: Sandbox, request: Request) -> Response:
    try:
        wish = await request.json()
        if not isinstance(wish, dict):
            raise ValueError('The body is {"answers": 0.2, …}.')
        sandbox.mood = hostile.changed(sandbox.mood, wish)
    except ValueError as error:
        return _wrong(str(error))
    sandbox.postman.take_mood(sandbox.mood)
    return JSONResponse({name: getattr(sandbox.mood, name) for name in sandbox.mood.__slots__})


async def _post_raw(sandbox: Sandbox, request: Request) -> Response:
    sandbox.postman.post_raw(await request.body())
    return JSONResponse(sandbox.postman.report(), 202)


def _wrong(message: str, status: int = 400) -> JSONResponse:
    return JSONResponse({"error": message}, status)
