"""One kept HTTP connection to a provider, with a deadline that holds and the answer to "did any of it leave?".

Nothing here repeats anything: one `request` writes at most one request. The stock clients fall short in two ways: a
read timeout starts anew with each byte, so an answer that drips never ends; and their errors do not say whether the
request was written. Here a timer shuts the socket down, and the trace hook notes when the first byte that counts goes.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import httpx2

CONNECT_SECONDS = 5.0
DEADLINE_SECONDS = 30.0
KEEP_SECONDS = 50.0  # the library's own default of 5 s would open a connection for most calls
LONGEST_ANSWER = 4 * 1024 * 1024

_CONNECTED = ("connection.connect_tcp.complete", "connection.start_tls.complete")
_WRITING = ("http11.send_request_headers.started", "http11.send_request_body.started")
_ADDRESS = re.compile(r"[^\s<>()\[\]{}\"',;:=]+@[^\s<>()\[\]{}\"',;:=]+")
_KEY = re.compile(r"SG\.[\w.-]*")


def told(text: str, limit: int = 160) -> str:
    """Return foreign text fit for a reason: one line, short, without addresses and keys."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * limit])
    return " ".join(_KEY.sub("[key]", _ADDRESS.sub("[address]", shown)).split())[:limit]


class Written(Protocol):
    """What the `sendgrid` package hands to its transport: a `urllib.request.Request`."""

    full_url: str
    data: Any

    def get_method(self) -> str: ...
    def header_items(self) -> list[tuple[str, str]]: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of any status, with the three methods `python_http_client` asks of one."""

    status: int
    headers: Mapping[str, str]  # names in any case
    body: bytes

    def getcode(self) -> int:
        return self.status

    def read(self) -> bytes:
        return self.body

    def info(self) -> Mapping[str, str]:
        return self.headers


class LineBrokenError(Exception):
    """There is no whole answer. `written` says whether a byte of the body may have left this machine.

    Never chained to the library's exception, which carries the request and with it the key.
    """

    def __init__(self, reason: str, *, written: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.written = written


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities of this machine: reading them takes tens of milliseconds, so once for a process."""
    return ssl.create_default_context()


class Line:
    """Thread-confined, and used on one side of a fork only. `authorization` is the whole header value."""

    def __init__(
        self,
        authorization: str,
        *,
        connect: float = CONNECT_SECONDS,
        deadline: float = DEADLINE_SECONDS,
        keep: float = KEEP_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._deadline = deadline
        self._stream: Any = None
        self._client = httpx2.Client(
            verify=tls or _trusted(),
            trust_env=False,
            follow_redirects=False,
            http1=True,
            http2=False,
            # Raw bytes are read below, so an answer must not come compressed.
            headers={"Authorization": authorization, "Accept-Encoding": "identity"},
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=keep),
            timeout=httpx2.Timeout(deadline, connect=min(connect, deadline)),
        )

    def request(self, request: Written) -> Answer:
        """Write it once and read the answer, all within the deadline. Raises LineBrokenError, and nothing else."""
        attempt = _Attempt(self._stream, bool(request.data))
        timer = threading.Timer(self._deadline, attempt.cut)
        timer.daemon = True
        reason = ""
        try:
            timer.start()
            answer = self._exchange(request, attempt)
        except Exception as error:
            # Whatever broke, only one question matters: may the provider have the request? So every error ends here.
            reason = told(f"{type(error).__name__}: {error}")
        finally:
            timer.cancel()
            attempt.finish()
            self._stream = attempt.stream
        if attempt.is_cut:
            # Even when there is an answer: one that ends with the connection looks whole after a cut.
            reason = f"no whole answer within {self._deadline:g} s"
        if not reason:
            return answer
        raise LineBrokenError(reason, written=attempt.written)

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()

    def _exchange(self, request: Written, attempt: _Attempt) -> Answer:
        with self._client.stream(
            request.get_method(),
            request.full_url,
            content=request.data,
            headers=request.header_items(),
            extensions={"trace": attempt.watch},
        ) as response:
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > LONGEST_ANSWER:
                    raise ValueError(f"the answer is longer than {LONGEST_ANSWER} bytes")
            return Answer(response.status_code, response.headers, bytes(body))


class _Attempt:
    """What is known about one request while it runs, shared with the timer's thread."""

    def __init__(self, stream: Any, has_body: bool) -> None:
        self.stream = stream  # a kept connection fires no connect event, so it is handed on from call to call
        self.written = False
        self.is_cut = False
        self._first_byte_that_counts = _WRITING[1] if has_body else _WRITING[0]
        self._is_over = False
        self._lock = threading.Lock()

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        if event in _CONNECTED:
            self.stream = info["return_value"]
        elif event in _WRITING:
            # A slow name server or many dead addresses can use up the deadline while there is no socket to shut.
            if self.is_cut and not self.written:
                raise TimeoutError("the deadline passed before the request was written")
            # Headers that announce a body are no request yet: if writing them fails, nothing can have been accepted.
            if event == self._first_byte_that_counts:
                self.written = True

    def cut(self) -> None:
        with self._lock:
            if self._is_over:
                return  # too late: the connection may already serve the next call
            self.is_cut = True
            wire = None if self.stream is None else self.stream.get_extra_info("socket")
            if wire is None:
                return
            try:
                # Not SSLSocket.shutdown: it drops the TLS layer first, and a write just then would go out in clear.
                socket.socket.shutdown(wire, socket.SHUT_RDWR)
            except OSError:
                return  # closed by the peer, or not connected yet: `watch` stops what comes after

    def finish(self) -> None:
        with self._lock:
            self._is_over = True
