"""One kept SMTP connection, with a deadline that holds and the answer to "did the final dot leave?".

The conversation is the standard library's `smtplib`; what it lacks is here. Its timeout starts anew with each byte, so
a server that drips never ends; it reads an answer without end; and its errors do not say how far the message came. A
timer shuts the socket down, answers are bounded, and the one line that makes a server responsible for a message, the
dot alone, is written apart from what stands before it.
"""

from __future__ import annotations

import base64
import re
import smtplib
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Literal

Security = Literal["starttls", "tls", "none"]

PROBE_SECONDS = 5.0  # for a kept connection to show that it lives
QUIET_SECONDS = 2.0  # a connection this fresh is asked nothing, only looked at
KEEP_SECONDS = 60.0  # older ones are given up: servers and firewalls forget them without a word
MOST_MESSAGES = 100  # on one connection (rules 1.14)

_LONGEST_LINE = 8_192
_LONGEST_ANSWER = 65_536
_BEGINNING = re.compile(rb"(\d{3})([ -]?)")


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's whole answer: its code and its words, lines joined by spaces."""

    code: int
    words: str

    @property
    def is_yes(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.code < 300


class SaidNoError(Exception):
    """The server answered, and not with what the stage needs."""

    def __init__(self, stage: str, answer: Answer) -> None:
        super().__init__(stage)
        self.stage = stage
        self.answer = answer


class Attempt:
    """One call while it runs, shared with its timer's thread. `dotted`: the final dot may have left this machine."""

    def __init__(self, deadline: float) -> None:
        self.dotted = False
        self.is_cut = False
        self._wire: socket.socket | None = None
        self._is_over = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(deadline, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def hold(self, wire: socket.socket) -> None:
        """Make this the socket to shut at the deadline. Raises TimeoutError when it has passed already."""
        with self._lock:
            self._wire = wire
            self._check()

    def about_to_dot(self) -> None:
        """Call right before the final dot is written. Raises TimeoutError when the deadline has passed."""
        with self._lock:
            self._check()
            self.dotted = True

    def finish(self) -> None:
        """The call is over: from now on the timer touches nothing."""
        self._timer.cancel()
        with self._lock:
            self._is_over = True

    def _check(self) -> None:
        if self.is_cut:
            raise TimeoutError("the deadline has passed")

    def _cut(self) -> None:
        with self._lock:
            if self._is_over:
                return  # too late: the connection may already serve the next call
            self.is_cut = True
            if self._wire is None:
                return
            try:
                # Not SSLSocket.shutdown: it drops the TLS layer first, and a write just then would go out in clear.
                socket.socket.shutdown(self._wire, socket.SHUT_RDWR)
            except OSError:
                return  # closed by the peer, or not connected yet: `_check` stops what comes after


class Wire(smtplib.SMTP):
    """`smtplib` over a socket and a reader of our own. `since` is when it last served, on the monotonic clock."""

    def __init__(self, name: str) -> None:
        super().__init__(local_hostname=name)
        self.messages = 0  # carried so far
        self.since = 0.0
        self.is_in_the_middle = False  # of a mail that was refused: RSET before the next
        self._unread = bytearray()

    def getreply(self) -> tuple[int, bytes]:
        """Read one whole answer. Raises OSError when there is none, it is no SMTP or has no end."""
        rows: list[bytes] = []
        size = 0
        while True:
            line = self._line()
            size += len(line)
            found = _BEGINNING.match(line)
            if found is None or size > _LONGEST_ANSWER:
                raise ConnectionError("the answer is not SMTP, or has no end")
            rows.append(line[4:].strip())
            if found[2] != b"-":
                return int(found[1]), b"\n".join(rows)

    def putcmd(self, cmd: str, args: str = "") -> None:
        """Write one command. Raises ConnectionError when the server spoke unasked: answers would be read one off."""
        if self._unread:
            raise ConnectionError("the server spoke unasked")
        super().putcmd(cmd, args)

    def _line(self) -> bytes:
        # A line cut short may say less than it would have (`250` of `2501`), so only a whole one counts.
        while (end := self._unread.find(b"\n")) < 0:
            if len(self._unread) > _LONGEST_LINE:
                raise ConnectionError("the answer is not SMTP, or has no end")
            if not self._receive():
                raise ConnectionError("the connection ended within an answer" if self._unread else "hung up")
        line = bytes(self._unread[: end + 1])
        del self._unread[: end + 1]
        return line

    def _receive(self) -> bool:
        if self.sock is None:
            raise ConnectionError("the connection is closed")
        chunk = self.sock.recv(4_096)
        self._unread += chunk
        return bool(chunk)

    def _has_spoken(self) -> bool:
        """Say whether the server said something unasked, or hung up, without waiting for it."""
        assert self.sock is not None
        before = self.sock.gettimeout()
        self.sock.settimeout(0)
        try:
            return not self._receive() or bool(self._unread)
        except (BlockingIOError, ssl.SSLWantReadError):
            return bool(self._unread)
        finally:
            self.sock.settimeout(before)

    def ask(self, command: str) -> Answer:
        """Write one command and read its answer."""
        return _answer(self.docmd(command))

    def greeting(self) -> Answer:
        """Read what the server says first."""
        return _answer(self.getreply())

    def greet(self) -> None:
        """Say EHLO. Raises SaidNoError for anything but a 250."""
        answer = _answer(self.ehlo())
        if answer.code != 250:
            raise SaidNoError("ehlo", answer)

    def encrypt(self, context: ssl.SSLContext, host: str, attempt: Attempt) -> None:
        """Put TLS around the socket, which the deadline can still reach."""
        assert self.sock is not None
        if self._unread:  # said in clear, to be believed inside
            raise ConnectionError("the server spoke unasked before TLS")
        wrapped = context.wrap_socket(self.sock, server_hostname=host, do_handshake_on_connect=False)
        self.sock = wrapped
        self.ehlo_resp = self.helo_resp = None
        self.esmtp_features, self.does_esmtp = {}, False
        attempt.hold(wrapped)
        wrapped.do_handshake()

    def log_in(self, user: str, password: str) -> None:
        """Authenticate once, by PLAIN or LOGIN, whichever is offered. Raises SaidNoError."""
        offered = self.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in offered:
            answer = self.ask("AUTH PLAIN " + _base64(f"\0{user}\0{password}"))
        elif "LOGIN" in offered:
            answer = self.ask("AUTH LOGIN")
            for secret in (user, password):
                if answer.code == 334:
                    answer = self.ask(_base64(secret))
        else:
            answer = Answer(504, "the server offers neither AUTH PLAIN nor AUTH LOGIN")
        if answer.code != 235:
            raise SaidNoError("auth", answer)

    def carry(self, mail: bytes, attempt: Attempt) -> Answer:
        """Write the mail after a 354, then the dot, and read the last answer.

        Raises SaidNoError when the server answers before the dot: it has had enough, and the dot is not written.
        """
        self.send(re.sub(rb"(?m)^\.", b"..", mail))
        if self._has_spoken():
            raise SaidNoError("body", _answer(self.getreply()))
        attempt.about_to_dot()
        self.send(b".\r\n")
        answer = _answer(self.getreply())
        self.is_in_the_middle = False
        self.messages += 1
        return answer

    def is_alive(self, quiet: float = QUIET_SECONDS) -> bool:
        """Say whether the next mail can go over this connection; what was refused halfway is reset."""
        if self.sock is None or self.messages >= MOST_MESSAGES:
            return False
        idle = time.monotonic() - self.since
        try:
            if idle > KEEP_SECONDS or self._has_spoken():
                return False  # a server that speaks unasked says goodbye
            if idle <= quiet and not self.is_in_the_middle:
                return True
            before = self.sock.gettimeout()
            self.sock.settimeout(PROBE_SECONDS)
            alive = self.ask("RSET" if self.is_in_the_middle else "NOOP").code == 250
            self.sock.settimeout(before)
        except (OSError, smtplib.SMTPException):
            return False
        self.is_in_the_middle = False
        return alive

    def leave(self) -> None:
        """Say QUIT, wait for nothing, close."""
        if self.sock is not None:
            try:
                self.sock.settimeout(PROBE_SECONDS)
                self.send(b"QUIT\r\n")
            except (OSError, smtplib.SMTPException):
                self.close()  # it is gone already, which is what was wanted
        self.close()


def connected(host: str, port: int, seconds: float, attempt: Attempt) -> socket.socket:
    """Open a TCP connection to one of the host's addresses, within so many seconds for all. Raises OSError."""
    until = time.monotonic() + seconds
    last: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        left = until - time.monotonic()
        if left <= 0:
            break
        wire = socket.socket(family, kind, protocol)
        try:
            attempt.hold(wire)
            wire.settimeout(left)
            wire.connect(address)
            # The dot is a small write behind a large one: without this it waits for the other side's delayed ACK.
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            wire.close()
            last = error
        else:
            return wire
    raise last or TimeoutError(f"no connection within {seconds:g} s")


def _answer(reply: tuple[int, bytes]) -> Answer:
    return Answer(reply[0], " ".join(reply[1].decode("utf-8", "replace").split()))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
