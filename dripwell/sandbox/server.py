"""Runs the sandbox on loopback, and lets it do to a connection what no ASGI server offers: close it unanswered."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

KEEP_ALIVE = 75  # longer than any client keeps its connection: a stale one is then always scripted


@dataclass(slots=True)
class Lines:
    """The open connections, by the client's address and port."""

    transports: dict[tuple[str, int], asyncio.Transport] = field(default_factory=dict)
    opened: int = 0

    def cut(self, client: tuple[str, int]) -> None:
        """Close a client's connection at once (a reset); what the application answers afterwards goes nowhere."""
        transport = self.transports.get(client)
        if transport is not None:  # the client may have gone first
            transport.abort()


def protocol(lines: Lines) -> type[H11Protocol]:
    """An HTTP protocol that enters its connections in `lines`."""

    class Line(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            lines.opened += 1
            if self.client is not None:
                lines.transports[self.client] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            if self.client is not None:
                lines.transports.pop(self.client, None)
            super().connection_lost(exc)

    return Line


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1; port 0 takes a free one."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.listen(1024)  # whoever reads "Sandbox at …" may connect at once
    return made


def server(app: Any, lines: Lines) -> uvicorn.Server:
    """A server for `app`; run it with `run(sockets=[…])`."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol(lines),
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # a forwarded address is no loopback client
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=3,
        )
    )
