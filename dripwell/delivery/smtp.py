"""SMTP: one email, one attempt, one outcome; and the bounces that come back by mail.

The second way out, through a relay that signs (DKIM) and queues: an own Postfix, or a provider that signs a business
associate agreement, as SendGrid does not (rules 5.7). A call is one message, because an answer to DATA speaks of one.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import unquote, urlsplit
from uuid import UUID

from dripwell.core.errors import ConfigurationError
from dripwell.delivery import dsn, smtp_message
from dripwell.delivery.line import CONNECT_SECONDS, DEADLINE_SECONDS, told
from dripwell.delivery.provider import (
    Accepted,
    Capabilities,
    LogAnswer,
    Mailing,
    NotSent,
    Outcome,
    ProviderEvent,
    Refused,
    Unknown,
)
from dripwell.delivery.smtp_line import QUIET_SECONDS, Answer, Attempt, SaidNoError, Security, Wire, connected

SETTING = "DRIPWELL_SMTP_URL"
_SCHEMES: Mapping[str, tuple[Security, int]] = {
    "smtp+starttls": ("starttls", 587),
    "smtps": ("tls", 465),
    "smtp": ("none", 25),
}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_ABOUT_A_MAIL = ("mail", "rcpt", "data", "body", "dot")
_ENHANCED = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
_TOO_FAST = re.compile(r"\brate\b|too (?:many|fast|much)|throttl|limit|quota|slow down|frequen", re.IGNORECASE)
_TOO_LARGE = re.compile(r"\b5\.3\.4\b|too (?:large|big|long)|exceeds? .{0,40}size|size .{0,40}exceed", re.IGNORECASE)
# Said of one address and true of all: with them read as refusals, a wrong setting would use up a whole campaign.
_ABOUT_US = re.compile(
    r"\brelaying\b|\brelay access\b|\bto relay\b|\bnot relay\b|\bsend(?:ing|er)? (?:limit|quota)|authenticat",
    re.IGNORECASE,
)
_ABOUT_THEM = re.compile(r"\b5\.1\.(?:1|2|3|6|10)\b")
_QUEUE_IDS = (
    re.compile(r"(?:queued as|\bid=)\s*([\w.+<>@=-]{1,200})", re.IGNORECASE),  # Postfix, Exim
    re.compile(r"^ok:?\s+([\w.+<>@=-]{6,200})$", re.IGNORECASE),  # SES
)


@dataclass(frozen=True, slots=True)
class Relay:
    """Where mail is handed over, as DRIPWELL_SMTP_URL has it."""

    host: str
    port: int
    security: Security
    user: str | None = None
    password: str | None = field(default=None, repr=False)


def parse_url(url: str) -> Relay:
    """Read `smtp+starttls://user:password@host:587`, `smtps://…` or `smtp://…`; user and password percent-encoded.

    Raises ConfigurationError, which never repeats the URL: it holds a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"{SETTING} cannot be read: its port is no number, or its host is broken") from None
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(f"{SETTING} must start with {', '.join(f'{name}://' for name in _SCHEMES)}")
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigurationError(f"{SETTING} must look like smtp+starttls://user:password@host:587")
    security, usual = _SCHEMES[parts.scheme]
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    return Relay(parts.hostname, port or usual, security, user, password)


class Smtp:
    """A `Provider` and an `EventDoor`. Thread-confined; made after the fork.

    `now` is the wall clock, aware, for the Date of each email. `bounces` is the return path; a `*` in it becomes the
    message's own mark (`bounces+*@mail.example.com`), so that even a bounce that quotes nothing is understood. Without
    it bounces go to the sender's address. `baa`: a business associate agreement with whoever runs the relay is signed.
    Raises ConfigurationError for a value that can never work.
    """

    name = "smtp"

    def __init__(
        self,
        host: str,
        port: int,
        *,
        now: Callable[[], datetime],
        security: Security = "starttls",
        user: str | None = None,
        password: str | None = None,
        baa: bool = False,
        bounces: str | None = None,
        connect: float = CONNECT_SECONDS,
        deadline: float = DEADLINE_SECONDS,
        quiet: float = QUIET_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if (user is None) != (password is None):
            raise ConfigurationError(f"{SETTING} names a user or a password: it needs both, or neither")
        if user is not None and ("\0" in user or "\0" in (password or "")):
            raise ConfigurationError(f"{SETTING}: NUL can stand in no user and no password")
        if security == "none" and user is not None and host not in _LOOPBACK:
            raise ConfigurationError(f"{SETTING} would send a password in clear: use smtp+starttls:// or smtps://")
        marked = (bounces or "").replace("*", "1" * 52, 1)  # a batch's number, a dash, 32 letters of a message
        if bounces is not None and ("*" in marked or not smtp_message.is_address(marked)):
            raise ConfigurationError(
                "DRIPWELL_SMTP_BOUNCES must be an address, at most one * in it and 12 characters beside it before "
                "the @, such as bounces+*@mail.example.com"
            )
        # Bounces tell of failures only: that nothing is heard of a message says nothing about it.
        self.capabilities = Capabilities(max_batch=1, events=False, logs=False, baa=baa, idempotency=False)
        self._host, self._port, self._security = host, port, security
        self._user, self._password, self._bounces, self._now = user, password, bounces, now
        self._connect, self._deadline, self._quiet = connect, deadline, quiet
        self._tls = tls or ssl.create_default_context()
        self._wire: Wire | None = None

    def call(self, mailing: Mailing) -> Outcome:
        """Hand one email over, with deadlines (connect 5 s, 30 s in all), or nothing if it cannot be said by SMTP."""
        refused = smtp_message.refusal(mailing)
        if refused is not None:
            return refused
        try:
            mail = smtp_message.written(mailing, self._now())
        except ValueError as error:
            return Refused(told(str(error)), status=0, row=0)
        if len(mail) > smtp_message.MAX_BYTES:
            return _too_large(len(mail), smtp_message.MAX_BYTES)
        attempt = Attempt(self._deadline)
        try:
            found = self._attempt(mailing, mail, attempt)
        except SaidNoError as no:
            found = outcome(no.stage, no.answer)
            if no.stage == "body" or no.answer.code == 421:
                self._drop()
        except Exception as error:
            # Whatever broke, only one question matters: may the server have taken it? So every error ends here.
            reason = told(f"{type(error).__name__}: {error}")
            if attempt.is_cut:
                reason = f"no answer within {self._deadline:g} s"
            found = Unknown(reason) if attempt.dotted else NotSent(reason)
            self._drop()
        finally:
            attempt.finish()
        if attempt.is_cut:
            self._drop()
        if self._wire is not None:
            self._wire.since = time.monotonic()
        return found

    def find(self, address: str, message: UUID, since: datetime) -> LogAnswer:
        """SMTP keeps no log that could be asked, so this is never an answer."""
        return LogAnswer(answered=False)

    def is_genuine(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Bounces come by mail (`dripwell bounces read`); whatever knocks at the webhook is not ours."""
        return False

    def events(self, body: bytes) -> list[ProviderEvent]:
        """Translate a bounce or a complaint to our words; see `dsn.parse`."""
        return dsn.parse(body)

    def close(self) -> None:
        """Say goodbye and drop the connection."""
        if self._wire is not None:
            self._wire.leave()
            self._wire = None

    def _attempt(self, mailing: Mailing, mail: bytes, attempt: Attempt) -> Outcome:
        wire = self._kept(attempt) or self._opened(attempt)
        limit = wire.esmtp_features.get("size", "")
        if limit.isascii() and limit.isdigit() and 0 < int(limit[:12]) < len(mail):
            return _too_large(len(mail), int(limit[:12]))
        envelope = mailing.envelopes[0]
        mark = f"{mailing.batch}-{envelope.message.hex}"
        sender = (self._bounces or mailing.sender.address).replace("*", mark, 1)
        size = f" SIZE={len(mail)}" if wire.has_extn("size") else ""
        # A bounce then carries the mark, and only the headers of what people were mailed.
        asked = (f" RET=HDRS ENVID={mark}", _wanted(envelope.to)) if wire.has_extn("dsn") else ("", "")
        wire.is_in_the_middle = True
        _expect(wire, "mail", f"MAIL FROM:<{sender}>{size}{asked[0]}", 250)
        _expect(wire, "rcpt", f"RCPT TO:<{envelope.to}>{asked[1]}", 250, 251, 252)
        _expect(wire, "data", "DATA", 354)
        return outcome("dot", wire.carry(mail, attempt))

    def _kept(self, attempt: Attempt) -> Wire | None:
        wire = self._wire
        if wire is None:
            return None
        if wire.sock is not None:
            attempt.hold(wire.sock)
        if wire.is_alive(self._quiet):
            return wire
        self.close()
        return None

    def _opened(self, attempt: Attempt) -> Wire:
        # The name is said to the relay and lands in a Received line: not this machine's own.
        wire = Wire((self._bounces or "").rpartition("@")[2] or "localhost")
        try:
            wire.sock = connected(self._host, self._port, self._connect, attempt)
            if self._security == "tls":
                wire.encrypt(self._tls, self._host, attempt)
            wire.sock.settimeout(self._deadline)
            answer = wire.greeting()
            if answer.code != 220:
                raise SaidNoError("greeting", answer)
            wire.greet()
            if self._security == "starttls":
                self._start_tls(wire, attempt)
            if self._user is not None and self._password is not None:
                wire.log_in(self._user, self._password)
        except BaseException:
            wire.close()  # one that was set up by half must never carry a mail
            raise
        self._wire = wire
        return wire

    def _start_tls(self, wire: Wire, attempt: Attempt) -> None:
        # Never without: a server, or somebody in between, that stops offering it must not get the mail in clear.
        if not wire.has_extn("starttls"):
            raise SaidNoError("tls", Answer(502, "the server offers no STARTTLS"))
        _expect(wire, "tls", "STARTTLS", 220)
        wire.encrypt(self._tls, self._host, attempt)
        wire.greet()

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


def outcome(stage: str, answer: Answer) -> Outcome:
    """Read an answer, as SENDING.md section 6 has it.

    `stage`: greeting, ehlo, tls, auth, mail, rcpt, data, body (a mail not yet ended by its dot) or dot.

    Only a 250 to the final dot is Accepted, and only after it a code outside the rules is Unknown: what stands before
    it commits nobody.
    """
    code = answer.code
    reason = told(f"{code} to {stage}: {answer.words}")
    if stage == "dot" and not 400 <= code < 600:
        return Accepted(_queue_id(answer.words), code) if code == 250 else Unknown(reason, code)
    if not 500 <= code < 600:
        return NotSent(reason, code, rate_limited=_is_too_fast(answer))
    if stage in _ABOUT_A_MAIL and _TOO_LARGE.search(answer.words):
        return Refused(reason, code, row=0, too_large=True)
    if stage in _ABOUT_A_MAIL[1:] and not _is_about_us(answer):
        hard = stage == "rcpt" and _ABOUT_THEM.search(answer.words) is not None
        return Refused(reason, code, row=0, hard=hard)
    return NotSent(reason, code, account=True)


def _is_about_us(answer: Answer) -> bool:
    if _ABOUT_THEM.search(answer.words):
        return False
    return answer.code in (530, 535) or _ABOUT_US.search(answer.words) is not None


def _is_too_fast(answer: Answer) -> bool:
    if not 400 <= answer.code < 500 or not _TOO_FAST.search(answer.words):
        return False
    enhanced = _ENHANCED.search(answer.words)
    # 4.2.2 and 4.3.1 speak of a full mailbox or disk, in much the same words.
    return answer.code == 421 or enhanced is None or (enhanced[2] in ("7", "4", "5"))


def _expect(wire: Wire, stage: str, command: str, *codes: int) -> None:
    answer = wire.ask(command)
    if answer.code not in codes:
        raise SaidNoError(stage, answer)


def _wanted(address: str) -> str:
    """Return what RCPT asks of a server that knows RFC 3461: tell us of failures and delays."""
    xtext = "".join(f"+{ord(letter):02X}" if letter in "+=" else letter for letter in address)
    return f" NOTIFY=FAILURE,DELAY ORCPT=rfc822;{xtext}"


def _queue_id(words: str) -> str:
    plain = _ENHANCED.sub("", words).strip()
    found = next((found for pattern in _QUEUE_IDS if (found := pattern.search(plain))), None)
    return found[1] if found else told(words, 200)


def _too_large(size: int, limit: int) -> Refused:
    return Refused(f"the email has {size} bytes, the limit is {limit}", status=0, row=0, too_large=True)
