"""The HTTP side: the provider's API under /v3, control under /control, the inbox everywhere else."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from dripwell.sandbox import control, erasing, hostile, inbox, ledger, lists, logs, rules
from dripwell.sandbox.answers import Answer
from dripwell.sandbox.behavior import ALWAYS, SLOW_SECONDS, Misanswer, is_slow, misanswer
from dripwell.sandbox.config import Config
from dripwell.sandbox.fast import FastLedger
from dripwell.sandbox.ledger import Ledger
from dripwell.sandbox.listing import Lists
from dripwell.sandbox.postman import Key, Postman
from dripwell.sandbox.rules import Fault
from dripwell.sandbox.server import Lines, listen, server
from dripwell.sandbox.state import Sandbox

_MESSAGES = {
    400: "Bad Request",
    401: "The provided authorization grant is invalid, expired, or revoked",
    403: "access forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    415: "Content-Type should be application/json.",
    429: "too many requests",
    451: "Unavailable For Legal Reasons",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def create_app(config: Config) -> Starlette:
    """The application. Opens the state folder at once; the postman starts and ends with the lifespan."""
    book = (FastLedger if config.fast else Ledger)(config.state, config.seed)
    sandbox = Sandbox(config, book, Postman(book, Key(config.state), config), Lines(), Lists(config.state), config.mood)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sandbox.postman.start()
        yield
        await run_in_threadpool(sandbox.postman.stop)
        book.close()

    async def send(request: Request) -> Response:
        return await _mail_send(sandbox, request)

    async def search(request: Request) -> Response:
        return await _search(sandbox, request)

    async def detail(request: Request) -> Response:
        return await _detail(sandbox, request)

    routes = [
        Route("/v3/mail/send", send, methods=["POST"]),
        Route("/v3/logs", search, methods=["POST"]),
        Route("/v3/logs/{sg_message_id}", detail, methods=["GET"]),
        *erasing.routes(sandbox),
        *lists.routes(sandbox),
        Route("/v3/{rest:path}", _nothing_there, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
        *control.routes(sandbox),
        *([] if config.fast else [Mount("/", routes=inbox.routes(config, book))]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.sandbox = sandbox
    return app


def serve(config: Config) -> None:
    """Run until a signal. Prints one line when it listens."""
    app = create_app(config)
    sandbox: Sandbox = app.state.sandbox
    sock = listen(config.port)
    print(f"Sandbox at http://127.0.0.1:{sock.getsockname()[1]}/ keeps its ledger in {config.state}", flush=True)
    server(app, sandbox.lines).run(sockets=[sock])


# ---- the provider's API


async def _mail_send(sandbox: Sandbox, request: Request) -> Response:
    sandbox.counts.requests += 1
    answer = sandbox.script.take() or _drawn(sandbox)
    if answer is not None and answer.hangup == "start":
        return await _cut(sandbox, request)
    try:
        raw = await _read(sandbox, request, cut_within=answer is not None and answer.hangup == "body")
    except ClientDisconnect:
        sandbox.counts.by_status["client gone"] += 1
        return Response(status_code=499)
    if raw is None and answer is not None and answer.hangup == "body":
        return await _cut(sandbox, request)
    response = await _answer(sandbox, request, raw, answer)
    sandbox.counts.by_status["hangup" if response is None else str(response.status_code)] += 1
    return response or await _cut(sandbox, request)


def _drawn(sandbox: Sandbox) -> Answer | None:
    """What chance does to this call."""
    found = hostile.answer(sandbox.mood, sandbox.counts.requests, sandbox.config.now())
    if found is None:
        return None
    sandbox.counts.hostile[found[0]] += 1
    return found[1]


async def _answer(sandbox: Sandbox, request: Request, raw: bytes | None, answer: Answer | None) -> Response | None:
    """The answer to a request that has been read; None: close the connection instead."""
    if request.headers.get("authorization") != f"Bearer {sandbox.config.key}":
        return _refused(401)
    if raw is None:
        return _too_large()
    if answer is not None and answer.unless_alone and raw.count(b'"to":') < 2:
        answer = None
    if answer is not None and not answer.accept:
        await asyncio.sleep(answer.delay + answer.delay_answer)
        return None if answer.hangup else _scripted(answer, None)
    refusal = _refuse_form(request)
    if refusal is not None:
        return refusal
    read = await run_in_threadpool(_check, raw, sandbox.config.now())
    if isinstance(read, list):
        return _faulty(read)
    if read is None:
        return Response(status_code=200)
    addresses = [address for _, address in read.people]
    found = await run_in_threadpool(_claim, sandbox.ledger, addresses)
    if found is not None and found[0] == "badrow":
        row = read.people[found[1]][0]
        return _faulty([Fault("Does not contain a valid address.", f"personalizations.{row}.to.0.email")])
    if found is not None and found[0] == "badcall":
        return _faulty([Fault("Bad Request")])
    if found is not None:
        if found[0] == "ratelimit":
            reset = str(int(sandbox.config.now()) + 1)
            headers = {
                "Retry-After": "1",
                "X-RateLimit-Limit": "600",
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": reset,
            }
            return _refused(429, headers)
        if found[0] == "500before":
            return _refused(500)
    await asyncio.sleep((answer.delay if answer else 0.0) + (SLOW_SECONDS if is_slow(addresses) else 0.0))
    if answer is not None and answer.people is not None:
        read = ledger.Request(read.raw, read.body, read.shape, read.people[: answer.people])
    if answer is not None and answer.late:
        task = asyncio.create_task(_accept_later(sandbox, read, answer.late))
        sandbox.later.add(task)  # a task that nobody holds may be forgotten
        task.add_done_callback(sandbox.later.discard)
        return None
    call = await run_in_threadpool(_accept, sandbox, read)
    if answer is not None and answer.delay_answer:
        await asyncio.sleep(answer.delay_answer)
    if (answer is not None and answer.hangup) or (found is not None and found[0] == "hangup"):
        return None
    if found is not None:
        return _refused(500)
    if answer is not None:
        return _scripted(answer, call)
    return Response(status_code=202, headers={"X-Message-Id": call})


def _claim(book: Ledger, addresses: list[str]) -> tuple[Misanswer, int] | None:
    """Which tag misbehaves in this call. Its first time is used up here: of two calls at once, one gets it."""
    while (found := misanswer(addresses, book.is_first)) is not None:
        if found[0] in ALWAYS or book.remember(found[0], addresses[found[1]]):
            break
    return found


def _accept(sandbox: Sandbox, read: ledger.Request) -> str:
    if not read.people:  # a scripted answer accepted nobody
        return "0" * 22
    if sandbox.config.fast:
        call = sandbox.ledger.add(read, sandbox.config.now())
    else:
        dropped = sandbox.lists.dropped([address for _, address in read.people])
        call = sandbox.ledger.add(read, sandbox.config.now(), dropped)
        sandbox.lists.learn(call, sandbox.config.late)
    sandbox.postman.take(call)
    return call.provider_id


async def _accept_later(sandbox: Sandbox, read: ledger.Request, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return await run_in_threadpool(_accept, sandbox, read)


async def _read(sandbox: Sandbox, request: Request, *, cut_within: bool) -> bytes | None:
    """The whole body; None when it is too large, or when it is to be cut within and its first bytes are there."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        sandbox.counts.body_bytes += len(chunk)
        if cut_within and chunk:
            return None
        if size <= rules.MAX_BODY:
            chunks.append(chunk)
    if size > rules.MAX_BODY:
        return None
    raw = b"".join(chunks)
    mark = hashlib.sha256(raw).digest()[:16]
    sandbox.counts.repeats += mark in sandbox.counts.bodies
    sandbox.counts.bodies.add(mark)
    return raw


def _refuse_form(request: Request) -> Response | None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _refused(415)
    if request.headers.get("content-encoding", "identity") != "identity":
        return _faulty([Fault("Content-Encoding gzip is not enabled for this account.")])
    return None


def _check(raw: bytes, now: float) -> ledger.Request | list[Fault] | None:
    """The request to accept, or what is wrong with it; None: valid, and only a trial (`mail_settings.sandbox_mode`)."""
    try:
        body = msgspec.json.decode(raw)  # strict: no NaN, no half of a surrogate pair
    except (ValueError, RecursionError):
        return [Fault("Bad Request")]
    found = rules.faults(body, now)
    if found:
        return found
    shape = ledger.skeleton(body)
    left = ledger.unfilled(body, shape)
    if left is not None:
        row, word = left
        message = f"This personalization has no substitution for {word}, which the message needs."
        return [Fault(message, f"personalizations.{row}.substitutions.{word}")]
    broken = ledger.broken_subject(body, shape)
    if broken is not None:
        return [Fault("The subject must be one line and not empty once filled.", f"personalizations.{broken}.subject")]
    if ((body.get("mail_settings") or {}).get("sandbox_mode") or {}).get("enable"):
        return None
    return ledger.Request(raw, body, shape, rules.people(body))


async def _cut(sandbox: Sandbox, request: Request) -> Response:
    """Close the connection without an answer; the returned response reaches nobody."""
    if request.client is None:
        raise RuntimeError("A scripted hang-up needs the sandbox's own server (dripwell.sandbox.app.serve).")
    sandbox.lines.cut((request.client.host, request.client.port))
    await asyncio.sleep(0)  # lets the server notice
    return Response(status_code=500)


def _scripted(answer: Answer, provider_id: str | None) -> Response:
    headers = dict(answer.headers)
    if answer.status == 202 and provider_id is not None:
        headers.setdefault("X-Message-Id", provider_id)
    if answer.body is not None or answer.html or answer.status < 300:
        phrase = _MESSAGES.get(answer.status, "Error")
        content = answer.body if answer.body is not None else _page(answer.status, phrase) if answer.html else ""
        kind = "text/html" if answer.html else "application/json" if content else None
        if answer.drip:
            return StreamingResponse(_drip(content or "{}", answer.drip), answer.status, headers, kind)
        return Response(content, answer.status, headers, kind)
    return _refused(answer.status, headers)


async def _drip(content: str, pause: float) -> AsyncIterator[bytes]:
    for byte in content.encode():
        yield bytes([byte])
        await asyncio.sleep(pause)


def _too_large() -> Response:
    return Response(_page(413, "Request Entity Too Large"), 413, media_type="text/html")


def _page(status: int, phrase: str) -> str:
    title = f"{status} {phrase}"
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )


def _refused(status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"errors": [Fault(_MESSAGES.get(status, "Error")).as_json()]}, status, headers)


def _faulty(found: list[Fault]) -> JSONResponse:
    return JSONResponse({"errors": [fault.as_json() for fault in found]}, 400)


async def _search(sandbox: Sandbox, request: Request) -> Response:
    refusal = _refuse_logs(sandbox, request)
    if refusal is not None:
        return refusal
    try:
        wish = await request.json()
        query, limit = wish.get("query", ""), wish.get("limit", 10)
        if not isinstance(query, str) or not isinstance(limit, int) or not 1 <= limit <= 1000:
            raise ValueError("limit is 1 to 1000")
        now = sandbox.config.now()
        if sandbox.logs.lag:
            newest = logs.stamp(now - sandbox.logs.lag)
            query += f'{" AND" if query.strip() else ""} sg_message_id_created_at < TIMESTAMP "{newest}"'
        found = await run_in_threadpool(logs.search, sandbox.ledger, query, limit, now, sandbox.config.late)
    except (ValueError, AttributeError) as error:
        return _faulty([Fault(f"invalid query: {error}", "query")])
    return JSONResponse({"messages": found})


async def _detail(sandbox: Sandbox, request: Request) -> Response:
    refusal = _refuse_logs(sandbox, request)
    if refusal is not None:
        return refusal
    wanted = request.path_params["sg_message_id"]
    now = sandbox.config.now()
    found = await run_in_threadpool(logs.detail, sandbox.ledger, wanted, now, sandbox.config.late)
    return JSONResponse(found) if found is not None else _refused(404)


async def _nothing_there(request: Request) -> Response:
    return _refused(405 if request.path_params["rest"] in ("mail/send", "logs") else 404)


def _refuse_logs(sandbox: Sandbox, request: Request) -> Response | None:
    if request.headers.get("authorization") != f"Bearer {sandbox.config.key}":
        return _refused(401)
    return _refused(sandbox.logs.status) if sandbox.logs.status is not None else None
