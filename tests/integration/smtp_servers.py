"""Two SMTP servers for tests: aiosmtpd, which knows the protocol better than we do, and one that follows a script."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "clinic", "pass word:ü"


@dataclass
class Taken:
    """One mail as aiosmtpd took it: dots removed again, and which connection it came by."""

    sender: str
    to: list[str]
    content: bytes
    peer: tuple[str, int]
    is_encrypted: bool
    user: bytes | None


class Relay:
    """A relay on aiosmtpd. Tags in an address misbehave as the sandbox's do: badrow, ratelimit and hangup."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, log_in: bool = False, port: int = 0) -> None:
        self.taken: list[Taken] = []
        self.commands = 0
        self._once: set[str] = set()
        self._controller = _Controller(
            self,
            hostname="127.0.0.1",
            port=port or free_port(),
            tls_context=tls,
            require_starttls=tls is not None,
            auth_required=log_in,
            authenticator=_is_right,
        )
        self._controller.start()
        self.port = self._controller.port

    def close(self) -> None:
        """Stop serving; kept connections are cut."""
        self._controller.stop()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Refuse whoever asks for it."""
        self.commands += 1
        if "+badrow@" in address:
            return f"550 5.1.1 <{address}>: Recipient address rejected: User unknown"
        if "+ratelimit@" in address and self._is_first(address):
            return f"451 4.7.1 {address}: too many messages, slow down"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take the mail, and lose the answer if the address says so."""
        assert isinstance(envelope.content, bytes)
        user = session.auth_data.login if isinstance(session.auth_data, LoginPassword) else None
        self.taken.append(
            Taken(
                envelope.mail_from or "", list(envelope.rcpt_tos), envelope.content, session.peer,
                session.ssl is not None, user,
            )
        )  # fmt: skip
        if any("+hangup@" in to and self._is_first(to) for to in envelope.rcpt_tos):
            server.transport.abort()
        return f"250 2.0.0 Ok: queued as Q{len(self.taken)}"

    def _is_first(self, address: str) -> bool:
        first = address not in self._once
        self._once.add(address)
        return first


class _Controller(Controller):
    def factory(self) -> SMTP:
        return SMTP(self.handler, **self.SMTP_kwargs)


def _is_right(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    assert isinstance(data, LoginPassword)
    right = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=right, handled=False, auth_data=data)


Act = Callable[[socket.socket], bool]  # gets the peer; says whether the connection stays open
Reply = str | bytes | Act

USUAL: Mapping[str, Reply] = {
    "GREETING": "220 relay.example ESMTP",
    "EHLO": "250-relay.example\r\n250 HELP",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 End data with <CR><LF>.<CR><LF>",
    "DOT": "250 2.0.0 Ok: queued as 4FxYz",
    "NOOP": "250 Ok",
    "RSET": "250 Ok",
    "QUIT": "221 Bye",
}


@dataclass
class Scripted:
    """Serves one connection at a time and answers each verb from its list, the last reply for ever."""

    script: dict[str, list[Reply]]
    stop_reading_at: int | None = None  # reset when that many bytes of a mail have come
    lines: list[tuple[int, str]] = field(default_factory=list)  # (connection, command)
    mails: list[bytes] = field(default_factory=list)  # each whole one, as written on the wire without its dot
    connections: int = 0
    ended: int = 0

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.over = threading.Event()
        self._said: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def verbs(self) -> list[str]:
        """What was said, by its first words."""
        return [line.partition(" ")[0] for _, line in self.lines]

    def close(self) -> None:
        """Stop serving."""
        self.over.set()
        self._thread.join(10)
        self.listener.close()
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self.over.is_set():
            if not select.select([self.listener], [], [], 0.02)[0]:
                continue
            peer, _ = self.listener.accept()
            self.connections += 1
            peer.settimeout(0.02)
            try:
                if self._reply(peer, "GREETING"):
                    self._serve(peer)
            except OSError:
                pass  # the client hung up, which many of these tests want
            finally:
                peer.close()
                self.ended += 1

    def _serve(self, peer: socket.socket) -> None:
        data, in_mail = b"", False
        while not self.over.is_set():
            end = b"\r\n.\r\n" if in_mail else b"\r\n"
            if in_mail and self.stop_reading_at is not None and len(data) >= self.stop_reading_at:
                reset(peer)
                return
            if end not in data:
                try:
                    chunk = peer.recv(65_536)
                except TimeoutError:
                    continue
                if not chunk:
                    return
                data += chunk
                continue
            found, _, data = data.partition(end)
            if in_mail:
                self.mails.append(found + b"\r\n")
                verb = "DOT"
            else:
                line = found.decode("latin-1")
                self.lines.append((self.connections, line))
                verb = line.partition(" ")[0].upper()
            # One who stops reading has said 354 and means it.
            in_mail = verb == "DATA" and self._next(verb, peek=True) in (USUAL["DATA"],)
            if not self._reply(peer, verb):
                return

    def _next(self, verb: str, *, peek: bool = False) -> Reply:
        replies = self.script.get(verb) or [USUAL.get(verb, "502 5.5.2 What?")]
        number = self._said.get(verb, 0)
        if not peek:
            self._said[verb] = number + 1
        return replies[min(number, len(replies) - 1)]

    def _reply(self, peer: socket.socket, verb: str) -> bool:
        reply = self._next(verb)
        if callable(reply):
            return reply(peer)
        peer.sendall(reply if isinstance(reply, bytes) else reply.encode() + b"\r\n")
        return verb != "QUIT"


def hang_up(peer: socket.socket) -> bool:
    """Close without a word."""
    return False


def reset(peer: socket.socket) -> bool:
    """Close so that the other side gets an error."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def silent(peer: socket.socket) -> bool:
    """Say nothing, and wait for what comes next."""
    return True


def drips(peer: socket.socket) -> bool:
    """Say one byte after another and never end, until the other side has had enough."""
    try:
        while True:
            peer.sendall(b"2")
            if select.select([peer], [], [], 0.05)[0]:
                return False
    except OSError:
        return False


def says_and_hangs_up(text: str) -> Act:
    """Answer, then close."""

    def act(peer: socket.socket) -> bool:
        peer.sendall(text.encode() + b"\r\n")
        return False

    return act


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def certified(folder: Path, name: str = "localhost") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(a server's context, a client's that trusts it) for a certificate made here."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=9_000))
        .not_valid_after(now + timedelta(days=9_000))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=path)
