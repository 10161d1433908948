"""The adapter against the sandbox, a second reading of the contract: outcomes, log, webhook, one request a call."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID, uuid4

import pytest

from dripwell.core.campaign import Mailbox
from dripwell.delivery.provider import (
    Accepted,
    Envelope,
    LogAnswer,
    Mailing,
    NotSent,
    Outcome,
    ProviderEvent,
    Refused,
    Unknown,
)
from dripwell.delivery.sendgrid import SendGrid

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
IN_THE_FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass
class Door:
    """Collects what the sandbox posts."""

    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        posts = self.posts

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posts.append((dict(self.headers.items()), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: the test's output is no access log."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/webhooks/sendgrid"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@dataclass
class Sandbox:
    """A running sandbox, its control API, and the webhook it posts to."""

    url: str
    door: Door

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}{path}", data, timeout=10) as answer:
            text = answer.read().decode()
            return json.loads(text) if "json" in answer.headers["Content-Type"] else text

    def requests(self) -> int:
        return int(self.ask("/control/counts")["requests"])

    def mails(self, batch: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        since = 0
        while page := self.ask(f"/control/mails?since={since}&limit=1000")["mails"]:
            found += [mail for mail in page if mail["dw_b"] == str(batch)]
            since = page[-1]["id"]
        return found


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with closing(Door()) as door:
        state = tmp_path_factory.mktemp("sandbox")
        command = [
            sys.executable,
            "-m",
            "dripwell.sandbox",
            "--port",
            "0",
            "--state",
            str(state),
            "--webhook",
            door.url,
        ]
        with subprocess.Popen([*command, "--seed", "7", "--late", "0.1"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found, line
            try:
                wait_until_it_answers(found[0])
                yield Sandbox(found[0], door)
            finally:
                process.terminate()


def wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            return urllib.request.urlopen(f"{url}/control/counts", timeout=10).close()
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def provider(sandbox: Sandbox) -> Iterator[SendGrid]:
    with closing(SendGrid("SG.test", sandbox.url, sandbox.ask("/control/public-key"))) as made:
        yield made
    sandbox.ask("/control/next", {"answers": [], "clear": True})
    sandbox.ask("/control/webhooks", {"copies": 1, "odd": False, "reversed": False})
    sandbox.ask("/control/logs", {"status": None, "lag": 0})


@pytest.fixture
def batch() -> int:
    return uuid4().int % 2**62 + 1


def envelope(address: str, message: UUID | None = None) -> Envelope:
    return Envelope(
        to=address,
        message=message or uuid4(),
        headers={
            "List-Unsubscribe": f"<https://mail.example.com/u/{address[:4]}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
        substitutions={"q3X0first000": f"Zoë of {address}", "q3X0click000": "abc"},
    )


def mailing(batch: int, *addresses: str) -> Mailing:
    return Mailing(
        batch=batch,
        sender=Mailbox("Casey", "casey@mail.example.com"),
        reply_to="care@example.com",
        subject="Hello q3X0first000",
        text="Hello q3X0first000 https://mail.example.com/c/q3X0click000-1",
        html='<p>Hello q3X0first000 <a href="https://mail.example.com/c/q3X0click000-1">read</a></p>',
        headers={"List-ID": "Clinic notes <notes.example.com>"},
        categories=("c7f3",),
        envelopes=[envelope(address) for address in addresses],
    )


def test_a_full_batch_is_accepted_once_for_each_person_with_the_slots_filled(
    sandbox: Sandbox, provider: SendGrid, batch: int
) -> None:
    full = mailing(batch, *(f"person{number}.{batch}@example.com" for number in range(1_000)))
    before = sandbox.requests()
    found = provider.call(full)
    assert isinstance(found, Accepted)
    assert sandbox.requests() == before + 1
    mails = sandbox.mails(batch)
    assert [mail["dw_m"] for mail in mails] == [one.message.hex for one in full.envelopes]
    assert {mail["provider_id"] for mail in mails} == {found.provider_id}
    assert mails[7]["subject"] == f"Hello Zoë of person7.{batch}@example.com"
    assert mails[7]["links"] == ["https://mail.example.com/c/abc-1"]
    assert mails[7]["list_unsubscribe"] == "<https://mail.example.com/u/pers>"
    assert mails[7]["list_unsubscribe_post"] == "List-Unsubscribe=One-Click"


MISBEHAVIOR: dict[str, tuple[Callable[[Outcome], bool], bool]] = {
    "badrow": (lambda found: isinstance(found, Refused) and found.row == 1 and found.status == 400, False),
    "ratelimit": (
        lambda found: isinstance(found, NotSent) and found.rate_limited and found.retry_after is not None,
        False,
    ),
    "500before": (lambda found: isinstance(found, Unknown) and found.status == 500, False),
    "500after": (lambda found: isinstance(found, Unknown) and found.status == 500, True),
    "hangup": (lambda found: isinstance(found, Unknown) and found.status is None, True),
}


@pytest.mark.parametrize("tag", MISBEHAVIOR)
def test_each_misbehavior_is_read_rightly_asked_for_once_and_settled_by_the_log(
    sandbox: Sandbox, provider: SendGrid, batch: int, tag: str
) -> None:
    is_right, is_accepted = MISBEHAVIOR[tag]
    what = mailing(batch, f"ann.{batch}@example.com", f"sam.{batch}+{tag}@example.com")
    before = sandbox.requests()
    found = provider.call(what)
    assert is_right(found), found
    assert sandbox.requests() == before + 1
    assert len(sandbox.mails(batch)) == (2 if is_accepted else 0)
    for one in what.envelopes:
        assert provider.find(one.to, one.message, LONG_AGO) == LogAnswer(answered=True, found=is_accepted)


SCRIPTED: list[tuple[dict[str, Any], Callable[[Outcome], bool], bool]] = [
    (
        {"status": 413, "html": True, "accept": False},
        lambda found: isinstance(found, Refused) and found.too_large,
        False,
    ),
    ({"status": 502, "html": True, "accept": False}, lambda found: isinstance(found, Unknown), False),
    ({"status": 502, "html": True, "accept": True}, lambda found: isinstance(found, Unknown), True),
    ({"status": 200, "accept": False}, lambda found: isinstance(found, Unknown), False),
    ({"status": 403, "accept": False}, lambda found: isinstance(found, NotSent) and found.account, False),
    ({"status": 403, "html": True, "accept": False}, lambda found: isinstance(found, Unknown), False),
    ({"hangup": "start", "accept": False}, lambda found: isinstance(found, NotSent | Unknown), False),
    ({"hangup": "body", "accept": False}, lambda found: isinstance(found, NotSent | Unknown), False),
    ({"hangup": "end"}, lambda found: isinstance(found, Unknown), True),
    ({"status": 202, "people": 1}, lambda found: isinstance(found, Accepted), True),
]


@pytest.mark.parametrize("number", range(len(SCRIPTED)))
def test_each_scripted_answer_is_read_rightly_and_asked_for_once(
    sandbox: Sandbox, provider: SendGrid, batch: int, number: int
) -> None:
    answer, is_right, is_accepted = SCRIPTED[number]
    sandbox.ask("/control/next", {"answers": [answer]})
    before = sandbox.requests()
    found = provider.call(mailing(batch, f"ann.{batch}@example.com"))
    assert is_right(found), found
    assert sandbox.requests() == before + 1
    assert len(sandbox.mails(batch)) == is_accepted


def test_a_wrong_key_is_the_accounts_fault_for_calls_and_no_answer_for_the_log(sandbox: Sandbox, batch: int) -> None:
    with closing(SendGrid("SG.wrong", sandbox.url)) as locked_out:
        found = locked_out.call(mailing(batch, f"ann.{batch}@example.com"))
        assert isinstance(found, NotSent)
        assert (found.status, found.account, found.rate_limited) == (401, True, False)
        assert locked_out.find("ann@example.com", uuid4(), LONG_AGO) == LogAnswer(answered=False)


def test_the_log_knows_each_of_many_mails_to_one_address_and_no_other_message(
    sandbox: Sandbox, provider: SendGrid, batch: int
) -> None:
    address = f"o'brien.{batch}@example.com"
    messages = [uuid4() for _ in range(3)]
    for message in messages:
        one = mailing(batch, address)
        sent = Mailing(
            **{name: getattr(one, name) for name in one.__slots__} | {"envelopes": [envelope(address, message)]}
        )
        assert isinstance(provider.call(sent), Accepted)
    for message in messages:
        assert provider.find(address, message, LONG_AGO) == LogAnswer(answered=True, found=True)
    assert provider.find(address, uuid4(), LONG_AGO) == LogAnswer(answered=True, found=False)
    assert provider.find(address, messages[0], datetime(2100, 1, 1, tzinfo=UTC)) == LogAnswer(
        answered=True, found=False
    )
    sandbox.ask("/control/logs", {"status": 429, "lag": 0})
    assert provider.find(address, messages[0], LONG_AGO) == LogAnswer(answered=False)
    sandbox.ask("/control/logs", {"status": None, "lag": 3600})
    assert provider.find(address, messages[0], LONG_AGO) == LogAnswer(answered=True, found=False)


def events_of(
    sandbox: Sandbox, provider: SendGrid, batch: int, wanted: set[str], copies: int = 1
) -> list[ProviderEvent]:
    """Wait until each kind wanted has come for this batch so many times; check every signature on the way."""
    deadline = time.monotonic() + 20
    while True:
        posts = list(sandbox.door.posts)
        assert all(provider.is_genuine(headers, body) for headers, body in posts)
        found = [event for _, body in posts for event in provider.events(body) if str(batch) in (event.address or "")]
        kinds = [event.kind for event in found]
        if all(kinds.count(kind) >= copies for kind in wanted):
            return found
        assert time.monotonic() < deadline, (kinds, wanted)
        time.sleep(0.02)


# tag -> what the events say in the end, and whether the address is bad
COURSES: dict[str, tuple[set[str], bool]] = {
    "plain": ({"processed", "delivered"}, False),
    "bounce": ({"processed", "bounced"}, True),
    "softbounce": ({"processed", "deferred", "bounced"}, False),
    "defer": ({"processed", "deferred", "delivered"}, False),
    "dropped": ({"dropped"}, False),
    "complain": ({"processed", "delivered", "complained"}, False),
    "unsubscribe": ({"processed", "delivered", "unsubscribed"}, False),
}


@pytest.mark.parametrize("is_odd", [False, True], ids=["usual", "odd"])
@pytest.mark.parametrize("tag", COURSES)
def test_the_events_of_each_course_are_genuine_and_name_our_message(
    sandbox: Sandbox, provider: SendGrid, batch: int, tag: str, is_odd: bool
) -> None:
    wanted, is_hard = COURSES[tag]
    sandbox.ask("/control/webhooks", {"odd": is_odd})
    what = mailing(batch, f"ann.{batch}+{tag}@example.com")
    assert isinstance(provider.call(what), Accepted)
    found = events_of(sandbox, provider, batch, wanted)
    assert {event.kind for event in found} <= wanted | {"unknown"}
    assert {(event.message, event.batch) for event in found} == {(what.envelopes[0].message, batch)}
    assert any(event.hard for event in found) is is_hard


def test_an_asynchronous_bounce_names_the_address_only(sandbox: Sandbox, provider: SendGrid, batch: int) -> None:
    address = f"ann.{batch}+asyncbounce@example.com"
    assert isinstance(provider.call(mailing(batch, address)), Accepted)
    found = events_of(sandbox, provider, batch, {"delivered", "bounced"})
    (bounce,) = [event for event in found if event.kind == "bounced"]
    assert (bounce.message, bounce.batch, bounce.address, bounce.hard) == (None, None, address, True)


def test_copies_under_new_event_ids_are_one_event_to_us(sandbox: Sandbox, provider: SendGrid, batch: int) -> None:
    sandbox.ask("/control/webhooks", {"copies": 3})
    assert isinstance(provider.call(mailing(batch, f"ann.{batch}@example.com")), Accepted)
    found = events_of(sandbox, provider, batch, {"processed", "delivered"}, copies=3)
    assert len({event.dedupe for event in found}) == 2
    assert len({event.event_id for event in found}) == len(found)


def test_a_body_changed_on_the_way_is_not_genuine(sandbox: Sandbox, provider: SendGrid, batch: int) -> None:
    assert isinstance(provider.call(mailing(batch, f"ann.{batch}@example.com")), Accepted)
    events_of(sandbox, provider, batch, {"processed"})
    headers, body = sandbox.door.posts[-1]
    assert provider.is_genuine(headers, body)
    assert not provider.is_genuine(headers, body + b" ")
