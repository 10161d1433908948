"""What every provider keeps to, asked of each in the same words: SendGrid before its sandbox, SMTP before a relay."""

from __future__ import annotations

import email
import email.policy
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import pytest

from dripwell.core.campaign import Mailbox
from dripwell.delivery.provider import (
    Accepted,
    Envelope,
    EventDoor,
    LogAnswer,
    Mailing,
    NotSent,
    Outcome,
    Provider,
    Refused,
    Unknown,
)
from dripwell.delivery.sendgrid import SendGrid
from dripwell.delivery.smtp import Smtp
from tests.integration.smtp_servers import USER, Relay, free_port

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 2, 17, tzinfo=UTC)


@dataclass(frozen=True)
class Got:
    """One mail as the other side has it."""

    to: str
    subject: str
    link: str
    list_unsubscribe: str
    list_unsubscribe_post: str
    message: str
    batch: str


class Side(Protocol):
    """A provider, and what its other side has taken."""

    provider: Provider

    def got(self, batch: int) -> list[Got]: ...
    def calls(self) -> int: ...
    def nobody_there(self) -> Provider: ...
    def locked_out(self) -> Provider: ...


@dataclass
class SandboxSide:
    """SendGrid's adapter and the sandbox."""

    url: str
    provider: Provider = field(init=False)

    def __post_init__(self) -> None:
        self.provider = SendGrid("SG.test", self.url, self._ask("/control/public-key"))

    def got(self, batch: int) -> list[Got]:
        rows = json.loads(self._ask("/control/mails?since=0&limit=1000"))["mails"]
        return [
            Got(
                row["address"], row["subject"], row["links"][0], row["list_unsubscribe"],
                row["list_unsubscribe_post"], row["dw_m"], row["dw_b"],
            )
            for row in rows if row["dw_b"] == str(batch)
        ]  # fmt: skip

    def calls(self) -> int:
        return int(json.loads(self._ask("/control/counts"))["requests"])

    def nobody_there(self) -> Provider:
        return SendGrid("SG.test", f"http://127.0.0.1:{free_port()}")

    def locked_out(self) -> Provider:
        return SendGrid("SG.wrong", self.url)

    def _ask(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            text = answer.read().decode()
        return str(json.loads(text)) if "key" in path and text.startswith('"') else text


@dataclass
class RelaySide:
    """SMTP's adapter and aiosmtpd."""

    relay: Relay
    provider: Provider = field(init=False)

    def __post_init__(self) -> None:
        self.provider = _smtp(self.relay.port)

    def got(self, batch: int) -> list[Got]:
        return [got for taken in self.relay.taken if (got := _got(taken.content)).batch == str(batch)]

    def calls(self) -> int:
        return self.relay.commands

    def nobody_there(self) -> Provider:
        return _smtp(free_port())

    def locked_out(self) -> Provider:
        return Smtp("127.0.0.1", self.relay.port, now=lambda: NOW, security="none", user=USER, password="x")


def _smtp(port: int) -> Smtp:
    return Smtp("127.0.0.1", port, now=lambda: NOW, security="none")


def _got(content: bytes) -> Got:
    seen = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(seen, EmailMessage)
    (rich,) = (part for part in seen.iter_parts() if part.get_content_type() == "text/html")
    (link,) = re.findall(r'href="([^"]+)"', rich.get_content())
    return Got(
        to=seen["To"].addresses[0].addr_spec,
        subject=seen["Subject"],
        link=link,
        list_unsubscribe=seen["List-Unsubscribe"],
        list_unsubscribe_post=seen["List-Unsubscribe-Post"],
        message=seen["X-Dripwell-Message"],
        batch=seen["X-Dripwell-Batch"],
    )


@pytest.fixture(scope="module")
def sandbox_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    state: Path = tmp_path_factory.mktemp("sandbox")
    command = [sys.executable, "-m", "dripwell.sandbox", "--port", "0", "--state", str(state), "--seed", "7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        try:
            yield found[0]
        finally:
            process.terminate()


@pytest.fixture(params=["sendgrid", "smtp"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    with ExitStack() as opened:
        made: Side
        if request.param == "sendgrid":
            made = SandboxSide(_answering(request.getfixturevalue("sandbox_url")))
        else:
            made = RelaySide(opened.enter_context(closing(Relay())))
        opened.callback(made.provider.close)
        yield made


def _answering(url: str) -> str:
    deadline = time.monotonic() + 10
    while True:
        try:
            urllib.request.urlopen(f"{url}/control/counts", timeout=10).close()
            return url
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def batch() -> int:
    return uuid4().int % 2**62 + 1


def mailing(batch: int, address: str, message: UUID | None = None) -> Mailing:
    envelope = Envelope(
        to=address,
        message=message or uuid4(),
        headers={
            "List-Unsubscribe": f"<https://mail.example.com/u/{'a' * 45}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
        substitutions={"QsaltAAAA000": "Zoë QsaltAAAA001 of Köln", "QsaltAAAA001": "abc"},
    )
    return Mailing(
        batch=batch,
        sender=Mailbox("KCLA", "casey@mail.example.com"),
        reply_to="care@example.com",
        subject="Hello QsaltAAAA000",
        text="Hello QsaltAAAA000 https://mail.example.com/c/QsaltAAAA001-1",
        html='<p>Hello QsaltAAAA000 <a href="https://mail.example.com/c/QsaltAAAA001-1">read</a></p>',
        headers={"List-ID": "Clinic notes <notes.example.com>"},
        categories=("c7f3",),
        envelopes=[envelope],
    )


def test_an_accepted_mail_is_there_once_filled_in_with_its_marks_and_list_headers(side: Side, batch: int) -> None:
    what = mailing(batch, f"maria.{batch}@example.com")
    found = side.provider.call(what)
    assert isinstance(found, Accepted)
    assert found.provider_id
    assert side.got(batch) == [
        Got(
            to=f"maria.{batch}@example.com",
            subject="Hello Zoë QsaltAAAA001 of Köln",
            link="https://mail.example.com/c/abc-1",
            list_unsubscribe=f"<https://mail.example.com/u/{'a' * 45}>",
            list_unsubscribe_post="List-Unsubscribe=One-Click",
            message=what.envelopes[0].message.hex,
            batch=str(batch),
        )
    ]


def is_refused(found: Outcome) -> bool:
    return isinstance(found, Refused) and found.row == 0 and 400 <= found.status < 600


def is_slowed(found: Outcome) -> bool:
    return isinstance(found, NotSent) and found.rate_limited and not found.account


def is_unknown(found: Outcome) -> bool:
    return isinstance(found, Unknown)


@pytest.mark.parametrize(
    ("tag", "is_right", "copies"), [("badrow", is_refused, 0), ("ratelimit", is_slowed, 0), ("hangup", is_unknown, 1)]
)
def test_a_mail_that_goes_wrong_is_tried_once_and_the_next_one_goes_through(
    side: Side, batch: int, tag: str, is_right: object, copies: int
) -> None:
    assert callable(is_right)
    before = side.calls()
    found = side.provider.call(mailing(batch, f"sam.{batch}+{tag}@example.com"))
    assert is_right(found), found
    assert side.calls() == before + 1
    assert len(side.got(batch)) == copies
    assert "@" not in getattr(found, "reason", "")
    assert isinstance(side.provider.call(mailing(batch, f"ann.{batch}@example.com")), Accepted)
    assert len(side.got(batch)) == copies + 1


HOSTILE: dict[str, object] = {
    "subject": "Hello\r\nBcc: x@y.example",
    "reply_to": "care@example.com\r\nBcc: x@y.example",
    "sender": Mailbox("KCLA\nBcc: x@y.example", "casey@mail.example.com"),
    "text": "a\0b",
    "html": "\ud800",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_could_write_a_header_is_refused_before_anybody_is_called(side: Side, batch: int, name: str) -> None:
    before = side.calls()
    one = mailing(batch, f"maria.{batch}@example.com")
    found = side.provider.call(replace(one, **{name: HOSTILE[name]}))  # type: ignore[arg-type]
    assert isinstance(found, Refused)
    assert found.status == 0
    envelope = replace(one.envelopes[0], to="maria@example.com\r\nBcc: x@y.example")
    found = side.provider.call(replace(one, envelopes=[envelope]))
    assert isinstance(found, Refused)
    assert (found.status, found.row) == (0, 0)
    assert side.calls() == before
    assert side.got(batch) == []


def test_more_people_than_a_call_can_carry_are_refused_as_too_large(side: Side, batch: int) -> None:
    one = mailing(batch, "maria@example.com")
    many = [
        replace(one.envelopes[0], to=f"p{number}@example.com", message=uuid4())
        for number in range(side.provider.capabilities.max_batch + 1)
    ]
    before = side.calls()
    found = side.provider.call(replace(one, envelopes=many))
    assert isinstance(found, Refused)
    assert (found.status, found.row, found.too_large) == (0, None, True)
    assert side.calls() == before


def test_nobody_there_is_not_sent_and_no_fault_of_the_account(side: Side, batch: int) -> None:
    with closing(side.nobody_there()) as provider:
        found = provider.call(mailing(batch, "maria@example.com"))
    assert isinstance(found, NotSent)
    assert (found.account, found.rate_limited) == (False, False)


def test_a_wrong_key_or_password_is_not_sent_and_the_accounts_fault(side: Side, batch: int) -> None:
    with closing(side.locked_out()) as provider:
        found = provider.call(mailing(batch, "maria@example.com"))
    assert isinstance(found, NotSent)
    assert found.account
    assert side.got(batch) == []


def test_the_log_answers_if_and_only_if_there_is_one(side: Side, batch: int) -> None:
    what = mailing(batch, f"maria.{batch}@example.com")
    assert isinstance(side.provider.call(what), Accepted)
    kept = side.provider.capabilities.logs
    assert side.provider.find(f"maria.{batch}@example.com", what.envelopes[0].message, LONG_AGO) == LogAnswer(
        kept, kept
    )
    assert side.provider.find(f"maria.{batch}@example.com", uuid4(), LONG_AGO) == LogAnswer(kept, False)


def test_neither_promises_what_it_has_not(side: Side) -> None:
    found = side.provider.capabilities
    assert not found.baa
    assert not found.idempotency
    assert found.events is (side.provider.name == "sendgrid"), "a bounce tells of failures only"
    assert found.max_batch >= 1


def test_an_unsigned_event_is_not_genuine_and_what_is_no_event_is_a_value_error(side: Side) -> None:
    door: EventDoor = side.provider  # type: ignore[assignment]
    assert not door.is_genuine({}, b"[]")
    assert not door.is_genuine({"X-Twilio-Email-Event-Webhook-Signature": "x"}, b"[]")
    for junk in (b"", b"\0\0\0", b"{", b"[" * 10_000):
        with pytest.raises(ValueError):  # noqa: PT011
            door.events(junk)
