"""A TCP proxy between our processes and a server, to cut what no server cuts by itself."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True, eq=False)
class _Pair:
    """One client's connection and ours to the server. `armed`: the statement to wait for has passed."""

    client: socket.socket
    server: socket.socket
    armed: bool = False
    cutting: bool = False  # the next answer of the server is swallowed, with the connection


@dataclass(frozen=True, slots=True)
class _Trap:
    """Cut the connection at the first `at` that a client says after `after`."""

    after: bytes
    at: bytes
    answered: bool  # True: the server hears it and its answer is lost; False: it never hears it
    sprung: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Listens on a port of its own and carries bytes to `port` on the loopback until `close`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self._trap: _Trap | None = None
        self._open = threading.Event()
        self._closed = False
        self.latency = 0.0  # seconds that every piece from a client waits
        self._listener = _listener(0)
        self.port: int = self._listener.getsockname()[1]
        self._open.set()
        threading.Thread(target=self._serve, name="proxy", daemon=True).start()

    def cut(self) -> int:
        """Reset every connection there is; returns how many."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            _drop(pair)
        return len(pairs)

    def shut(self) -> None:
        """Refuse new connections and reset the present ones, as a server that is away."""
        self._open.clear()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def reopen(self) -> None:
        """Take connections again."""
        self._listener = _listener(self.port)
        self._open.set()

    def trap(self, after: bytes, at: bytes = b"COMMIT", *, answered: bool) -> threading.Event:
        """Cut once, at the first `at` after `after` on one connection; the event is set when it has happened."""
        self._trap = _Trap(after, at, answered)
        return self._trap.sprung

    def close(self) -> None:
        """End for good."""
        self._closed = True
        self.shut()
        self._open.set()

    def _serve(self) -> None:
        while not self._closed:
            self._open.wait()
            try:
                client, _ = self._listener.accept()
            except OSError:
                time.sleep(0.01)  # shut: wait for the next listener
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                _reset(client)
                continue
            for each in (client, server):
                each.settimeout(None)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(client, server)
            with self._lock:
                self._pairs.add(pair)
            threading.Thread(target=self._carry, args=(pair,), name="proxy line", daemon=True).start()
            if not self._open.is_set():
                _drop(pair)

    def _carry(self, pair: _Pair) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                ready, _, _ = select.select([pair.client, pair.server], [], [])
                for source in ready:
                    piece = source.recv(1 << 16)
                    if not piece:
                        return self._forget(pair)
                    if source is pair.client:
                        if self.latency:
                            time.sleep(self.latency)
                        if not self._pass_on(pair, piece):
                            return self._forget(pair)
                    elif pair.cutting:
                        return self._forget(pair)
                    else:
                        pair.client.sendall(piece)
        return self._forget(pair)

    def _pass_on(self, pair: _Pair, piece: bytes) -> bool:
        trap = self._trap
        if trap is not None and not trap.sprung.is_set():
            pair.armed = pair.armed or trap.after in piece
            if pair.armed and trap.at in piece:
                trap.sprung.set()
                if not trap.answered:
                    return False
                pair.cutting = True
        pair.server.sendall(piece)
        return True

    def _forget(self, pair: _Pair) -> None:
        with self._lock:
            self._pairs.discard(pair)
        _drop(pair)


def _listener(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.listen(256)
    return made


def _drop(pair: _Pair) -> None:
    _reset(pair.client)
    _reset(pair.server)


def _reset(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in select
    line.close()
