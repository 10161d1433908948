"""The public web application: routes, errors and headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dripwell.bootstrap import Installation
from dripwell.web.api.app import PREFIX, create_api
from dripwell.web.look import HEADERS, Look
from dripwell.web.pages import (
    book,
    call,
    click,
    confirm,
    files,
    health,
    keep,
    mine,
    preferences,
    privacy,
    signup,
    unsubscribe,
    view,
    webhook,
)
from dripwell.web.visit import Page, endpoint

_READ = ("GET",)  # HEAD comes with it
_READ_ACT = ("GET", "POST")

ROUTES: tuple[tuple[str, Page, tuple[str, ...]], ...] = (
    ("/u/{word}", unsubscribe.page, _READ_ACT),
    ("/p/{word}", preferences.page, _READ_ACT),
    ("/p/{word}/data", mine.page, _READ),
    ("/p/{word}/data.json", mine.download, _READ),
    ("/p/{word}/erase", mine.erasing, _READ_ACT),
    ("/c/{word}", click.page, _READ),
    ("/b/{word}", book.page, _READ_ACT),
    ("/b/call/{word}", call.page, _READ),
    ("/b/call/{word}/cancel", call.cancel, _READ_ACT),
    ("/b/call/{word}/change", call.change, _READ_ACT),
    ("/b/call/{word}/calendar.ics", call.calendar, _READ),
    ("/s/{form}", signup.page, _READ_ACT),
    ("/k", confirm.fresh, _READ_ACT),
    ("/k/{word}", confirm.page, _READ_ACT),
    ("/q/{word}", keep.page, _READ_ACT),
    ("/v/{word}", view.page, _READ),
    ("/privacy", privacy.page, _READ),
    ("/art/{file}", files.art, _READ),
    ("/app.css", files.style, _READ),
    ("/favicon.ico", files.no_icon, _READ),
    ("/robots.txt", files.robots, _READ),
    ("/healthz", health.page, _READ),
)


def create_app(installation: Installation) -> Starlette:
    """The application for one installation. It holds no state of its own."""
    look = Look(installation.site)
    routes: list[BaseRoute] = [
        Route(path, endpoint(page, installation, look), methods=methods) for path, page, methods in ROUTES
    ]
    routes.append(Route("/webhooks/sendgrid", webhook.endpoint(installation), methods=["POST"]))
    routes.append(Mount(PREFIX, app=create_api(installation)))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(_Headers)],
        exception_handlers={HTTPException: _http_error(look), Exception: _crash(look)},
    )
    app.router.redirect_slashes = False  # such a redirect would go wherever the Host header says
    return app


def serve(installation: Installation, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. No access log: a path here is somebody's key to their own choices."""
    uvicorn.run(
        create_app(installation),
        host=host,
        port=port,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=10,
    )


def _http_error(look: Look) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            response = look.problem(405, "That does not work here", "Open the link from the email again, or call us.")
        else:
            response = look.problem(
                error.status_code, "There is no such page", "Open the link from the email again, or call us."
            )
        response.headers.update(error.headers or {})
        return response

    return handler


def _crash(look: Look) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        response = look.problem(500, "Something went wrong on our side", "It is not your fault. Try again, or call us.")
        response.headers.update(HEADERS)  # this handler runs outside of our middleware
        return response

    return handler


class _Headers:
    """Puts our headers on every response that does not bring its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)
