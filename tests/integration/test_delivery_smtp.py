"""SMTP against real sockets: what each answer at each stage means, what a broken connection leaves, and one copy."""

from __future__ import annotations

import email
import email.policy
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dripwell.core.campaign import Mailbox
from dripwell.core.errors import ConfigurationError
from dripwell.delivery.provider import Accepted, Envelope, Mailing, NotSent, Outcome, Refused, Unknown
from dripwell.delivery.smtp import Smtp, parse_url
from tests.integration.smtp_servers import (
    PASSWORD,
    USER,
    Relay,
    Reply,
    Scripted,
    certified,
    drips,
    hang_up,
    reset,
    says_and_hangs_up,
    silent,
)

NOW = datetime(2026, 11, 2, 17, tzinfo=UTC)
SECRET = "a-secret-nobody-may-read"
Serve = Callable[..., Scripted]


def mailing(to: str = "maria@example.com", number: int = 1, **changes: Any) -> Mailing:
    given: dict[str, Any] = {"html": "<p>Hello</p>", "text": "Hello", "subject": "Hello"} | changes
    return Mailing(
        batch=4711,
        sender=Mailbox("Casey", "casey@mail.example.com"),
        reply_to="care@example.com",
        headers={},
        categories=("c7f3",),
        envelopes=[Envelope(to, UUID(int=number), {}, {})],
        **given,
    )


BIG = mailing(html="h" * 8_000_000)  # more than the sockets' buffers hold


def smtp(server: Scripted | Relay, **options: Any) -> Smtp:
    given: dict[str, Any] = {"security": "none", "deadline": 5.0} | options
    return Smtp("127.0.0.1", server.port, now=lambda: NOW, **given)


def call(server: Scripted | Relay, what: Mailing | None = None, **options: Any) -> Outcome:
    with closing(smtp(server, **options)) as provider:
        return provider.call(what or mailing())


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Scripted] = []

    def start(stop_reading_at: int | None = None, **script: Reply | list[Reply]) -> Scripted:
        lists = {verb: replies if isinstance(replies, list) else [replies] for verb, replies in script.items()}
        servers.append(Scripted(lists, stop_reading_at))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    with closing(Relay()) as made:
        yield made


# What each answer means

T, P = "451 4.3.0 Try again later", "554 5.0.0 No"
TABLE: dict[str, tuple[dict[str, Reply], Outcome]] = {
    "250": ({}, Accepted("4FxYz", 250)),
    "250 in several lines": ({"DOT": "250-2.0.0 Ok\r\n250 id=1abc-0001-Xy"}, Accepted("1abc-0001-Xy", 250)),
    "250 of another house": ({"DOT": "250 Ok 0100018c-5e7d-000000"}, Accepted("0100018c-5e7d-000000", 250)),
    "250 without an id": ({"DOT": "250 2.6.0 Message accepted"}, Accepted("2.6.0 Message accepted", 250)),
    "421 as greeting": ({"GREETING": "421 4.3.2 busy"}, NotSent("421 to greeting: 4.3.2 busy", 421)),
    "554 as greeting": ({"GREETING": "554 go away"}, NotSent("554 to greeting: go away", 554, account=True)),
    "5xx to EHLO": ({"EHLO": "502 no"}, NotSent("502 to ehlo: no", 502, account=True)),
    "4xx to MAIL": ({"MAIL": T}, NotSent("451 to mail: 4.3.0 Try again later", 451)),
    "5xx to MAIL": ({"MAIL": P}, NotSent("554 to mail: 5.0.0 No", 554, account=True)),
    "530 to MAIL": (
        {"MAIL": "530 5.7.0 Authentication required"},
        NotSent("530 to mail: 5.7.0 Authentication required", 530, account=True),
    ),
    "552 to MAIL, the size": (
        {"MAIL": "552 5.3.4 Message size exceeds fixed limit"},
        Refused("552 to mail: 5.3.4 Message size exceeds fixed limit", 552, row=0, too_large=True),
    ),
    "421 to RCPT": (
        {"RCPT": "421 4.7.0 Too many connections from you"},
        NotSent("421 to rcpt: 4.7.0 Too many connections from you", 421, rate_limited=True),
    ),
    "450 to RCPT, greylisted": (
        {"RCPT": "450 4.2.0 Greylisted, come back"},
        NotSent("450 to rcpt: 4.2.0 Greylisted, come back", 450),
    ),
    "451 to RCPT, too fast": (
        {"RCPT": "451 4.7.1 rate limit of casey@mail.example.com exceeded"},
        NotSent("451 to rcpt: 4.7.1 rate limit of [address] exceeded", 451, rate_limited=True),
    ),
    "452 to RCPT, full": (
        {"RCPT": "452 4.2.2 Mailbox over quota"},
        NotSent("452 to rcpt: 4.2.2 Mailbox over quota", 452),
    ),
    "550 to RCPT": (
        {"RCPT": "550 5.1.1 <maria@example.com> User unknown in relay recipient table"},
        Refused("550 to rcpt: 5.1.1 <[address]> User unknown in relay recipient table", 550, row=0, hard=True),
    ),
    "550 to RCPT, about us": (
        {"RCPT": "554 5.7.1 <maria@example.com>: Relay access denied"},
        NotSent("554 to rcpt: 5.7.1 <[address]>: Relay access denied", 554, account=True),
    ),
    "251 to RCPT": ({"RCPT": "251 will forward"}, Accepted("4FxYz", 250)),
    "4xx to DATA": ({"DATA": T}, NotSent("451 to data: 4.3.0 Try again later", 451)),
    "5xx to DATA": ({"DATA": P}, Refused("554 to data: 5.0.0 No", 554, row=0)),
    "250 to DATA": ({"DATA": "250 what?"}, NotSent("250 to data: what?", 250)),
    "4xx to the dot": ({"DOT": T}, NotSent("451 to dot: 4.3.0 Try again later", 451)),
    "5xx to the dot": ({"DOT": P}, Refused("554 to dot: 5.0.0 No", 554, row=0)),
    "552 to the dot": (
        {"DOT": "552 5.3.4 Message too big"},
        Refused("552 to dot: 5.3.4 Message too big", 552, row=0, too_large=True),
    ),
    "550 to the dot, our limit": (
        {"DOT": "550 5.4.5 Daily user sending limit exceeded"},
        NotSent("550 to dot: 5.4.5 Daily user sending limit exceeded", 550, account=True),
    ),
    "251 to the dot": ({"DOT": "251 odd"}, Unknown("251 to dot: odd", 251)),
    "354 to the dot": ({"DOT": "354 go on"}, Unknown("354 to dot: go on", 354)),
    "no SMTP to the dot": ({"DOT": "OK"}, Unknown("ConnectionError: the answer is not SMTP, or has no end")),
    "no SMTP as greeting": (
        {"GREETING": "HTTP/1.1 200 OK"},
        NotSent("ConnectionError: the answer is not SMTP, or has no end"),
    ),
}


@pytest.mark.parametrize("row", TABLE)
def test_each_answer_is_read_as_the_table_says_and_the_mail_goes_out_once(serve: Serve, row: str) -> None:
    script, wanted = TABLE[row]
    server = serve(**script)
    assert call(server) == wanted
    assert server.connections == 1
    assert server.verbs().count("MAIL") <= 1
    assert len(server.mails) == (1 if "DOT" in script or isinstance(wanted, Accepted) else 0)


@pytest.mark.parametrize("stage", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("act", [hang_up, reset, silent, drips], ids=lambda act: act.__name__)
def test_a_connection_that_breaks_before_the_mail_is_not_sent_within_the_deadline(
    serve: Serve, stage: str, act: Reply
) -> None:
    server = serve(**{stage: act})
    began = time.monotonic()
    found = call(server, deadline=0.5)
    assert isinstance(found, NotSent), found
    assert not found.account
    assert time.monotonic() - began < 3
    assert server.mails == []


@pytest.mark.parametrize("act", [hang_up, reset, silent, drips], ids=lambda act: act.__name__)
def test_a_connection_that_breaks_after_the_dot_is_unknown_and_the_next_mail_goes_over_a_new_one(
    serve: Serve, act: Reply
) -> None:
    server = serve(DOT=[act, "250 2.0.0 Ok: queued as 2"])
    began = time.monotonic()
    with closing(smtp(server, deadline=0.5)) as provider:
        assert isinstance(provider.call(mailing()), Unknown)
        assert time.monotonic() - began < 3
        assert provider.call(mailing(number=2)) == Accepted("2", 250)
    assert server.connections == 2
    assert [f"Message-ID: <{n:032x}@".encode() in mail for n, mail in enumerate(server.mails, 1)] == [True, True]


def test_an_answer_cut_short_is_no_answer(serve: Serve) -> None:
    def cuts(peer: Any) -> bool:
        peer.sendall(b"250 2.0.0 Ok")
        return False

    assert call(serve(DOT=cuts)) == Unknown("ConnectionError: the connection ended within an answer")


def test_an_answer_without_end_is_no_answer(serve: Serve) -> None:
    assert isinstance(call(serve(DOT="250-again\r\n" * 100_000 + "250 ok")), Unknown)
    assert isinstance(call(serve(EHLO="250-" + "x" * 1_000_000)), NotSent)


def test_a_connection_reset_within_the_mail_is_not_sent_because_the_dot_never_left(serve: Serve) -> None:
    server = serve(stop_reading_at=100_000)
    assert isinstance(call(server, BIG), NotSent)
    assert server.mails == []


def test_a_server_that_stops_reading_is_left_at_the_deadline(serve: Serve) -> None:
    def sleeps(peer: Any) -> bool:
        peer.sendall(b"354 go on\r\n")
        until(lambda: server.over.is_set() or not is_open(peer))
        return False

    def is_open(peer: Any) -> bool:
        peer.settimeout(0.01)
        try:
            return bool(peer.recv(1))
        except TimeoutError:
            return True

    server = serve(DATA=sleeps)
    began = time.monotonic()
    assert call(server, BIG, deadline=0.5) == NotSent("no answer within 0.5 s")
    assert time.monotonic() - began < 3


def test_a_server_that_has_had_enough_within_the_mail_gets_no_dot(serve: Serve) -> None:
    def refuses_early(peer: Any) -> bool:
        peer.sendall(b"354 go on\r\n")
        peer.settimeout(5)
        size = 0
        while size < 100_000:
            size += len(peer.recv(65_536))
        peer.sendall(b"552 5.3.4 Message too big\r\n")
        while b"\r\n.\r\n" not in (chunk := peer.recv(65_536)):
            if not chunk:
                ended.append("without a dot")
                return False
        return False

    ended: list[str] = []
    server = serve(DATA=refuses_early)
    found = call(server, BIG)
    assert found == Refused("552 to body: 5.3.4 Message too big", 552, row=0, too_large=True)
    until(lambda: server.ended == 1)
    assert ended == ["without a dot"]


# The connection


def test_three_mails_go_over_one_connection(serve: Serve) -> None:
    server = serve()
    with closing(smtp(server)) as provider:
        assert [provider.call(mailing(number=n)) for n in (1, 2, 3)] == [Accepted("4FxYz", 250)] * 3
    until(lambda: server.ended == 1)
    assert server.connections == 1
    assert server.verbs() == ["ehlo", *["MAIL", "RCPT", "DATA"] * 3, "QUIT"]


def test_a_connection_that_was_quiet_is_asked_first_and_one_that_ended_is_opened_again(serve: Serve) -> None:
    server = serve(NOOP=["250 Ok", says_and_hangs_up("421 4.4.2 timeout"), "250 Ok"])
    with closing(smtp(server, quiet=-1.0)) as provider:
        assert all(isinstance(provider.call(mailing(number=n)), Accepted) for n in (1, 2, 3, 4))
    assert server.connections == 2
    assert len(server.mails) == 4
    assert server.verbs().count("NOOP") == 3


def test_a_server_that_hung_up_meanwhile_is_called_again_without_a_lost_mail(serve: Serve) -> None:
    server = serve(DOT=[says_and_hangs_up("250 2.0.0 Ok: queued as 1"), "250 2.0.0 Ok: queued as 2"])
    with closing(smtp(server)) as provider:
        assert provider.call(mailing()) == Accepted("1", 250)
        until(lambda: server.ended == 1)
        assert provider.call(mailing(number=2)) == Accepted("2", 250)
    assert (server.connections, len(server.mails)) == (2, 2)


def test_a_goodbye_behind_an_acceptance_does_not_undo_it(serve: Serve) -> None:
    server = serve(DOT=[b"250 2.0.0 Ok: queued as 1\r\n421 4.7.0 That was enough\r\n", "250 2.0.0 Ok: queued as 2"])
    with closing(smtp(server)) as provider:
        assert provider.call(mailing()) == Accepted("1", 250)
        assert provider.call(mailing(number=2)) == Accepted("2", 250)
    assert server.connections == 2


def test_a_refused_mail_is_reset_before_the_next(serve: Serve) -> None:
    server = serve(RCPT=["550 5.1.1 no", "250 ok"])
    with closing(smtp(server)) as provider:
        assert isinstance(provider.call(mailing()), Refused)
        assert isinstance(provider.call(mailing(number=2)), Accepted)
    assert server.connections == 1
    assert server.verbs()[:6] == ["ehlo", "MAIL", "RCPT", "RSET", "MAIL", "RCPT"]


def test_a_connection_ends_after_a_hundred_mails(serve: Serve) -> None:
    server = serve()
    with closing(smtp(server)) as provider:
        assert all(isinstance(provider.call(mailing(number=n)), Accepted) for n in range(1, 102))
    assert server.connections == 2
    assert [connection for connection, line in server.lines if line.startswith("MAIL")] == [1] * 100 + [2]


def test_a_line_that_was_closed_opens_again(serve: Serve) -> None:
    server = serve()
    with closing(smtp(server)) as provider:
        for number in (1, 2):
            assert isinstance(provider.call(mailing(number=number)), Accepted)
            provider.close()
            provider.close()
    assert server.connections == 2


def test_a_closed_port_is_not_sent() -> None:
    with closing(Relay()) as gone:
        port = gone.port
    with closing(Smtp("127.0.0.1", port, now=lambda: NOW, security="none")) as provider:
        found = provider.call(mailing())
    assert isinstance(found, NotSent)
    assert "ConnectionRefusedError" in found.reason


# What is asked of the server


def test_the_return_path_and_the_bounce_carry_the_mark_and_the_size_is_said(serve: Serve) -> None:
    server = serve(EHLO="250-relay.example\r\n250-SIZE 10000\r\n250 DSN")
    found = call(server, mailing("maria+x=y@example.com"), bounces="bounces+*@mail.example.com")
    assert isinstance(found, Accepted)
    mark = f"4711-{1:032x}"
    (mail,) = (line for _, line in server.lines if line.startswith("MAIL"))
    (rcpt,) = (line for _, line in server.lines if line.startswith("RCPT"))
    size = len(server.mails[0])
    assert mail == f"MAIL FROM:<bounces+{mark}@mail.example.com> SIZE={size} RET=HDRS ENVID={mark}"
    assert rcpt == ("RCPT TO:<maria+x=y@example.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;maria+2Bx+3Dy@example.com")
    assert server.lines[0][1] == "ehlo mail.example.com"


def test_a_mail_larger_than_the_server_takes_is_not_written(serve: Serve) -> None:
    server = serve(EHLO="250-relay.example\r\n250 SIZE 500")
    found = call(server)
    assert isinstance(found, Refused)
    assert (found.row, found.too_large, found.status) == (0, True, 0)
    assert server.verbs() == ["ehlo", "QUIT"]


def test_dots_long_lines_and_every_alphabet_arrive_as_they_were(relay: Relay) -> None:
    text = f".\n..\n.dot\r\n{'long ' * 600}\nZoë \U0001f600 \u05e9\u05dc\u05d5\u05dd\nFrom me\n=3D \t\nend"
    html = f"<p>.</p>\n.\n<p>{'x' * 5000}</p>"
    subject = "Zoë, \u05e9\u05dc\u05d5\u05dd \U0001f600 " * 9
    assert isinstance(call(relay, mailing(text=text, html=html, subject=subject.strip())), Accepted)
    (taken,) = relay.taken
    assert taken.content.isascii()
    assert max(len(line) for line in taken.content.split(b"\r\n")) <= 998
    assert b"\n" not in taken.content.replace(b"\r\n", b"")
    seen = email.message_from_bytes(taken.content, policy=email.policy.default)
    assert isinstance(seen, EmailMessage)
    plain, rich = seen.iter_parts()
    assert plain.get_content().replace("\r\n", "\n") == text.replace("\r\n", "\n")
    assert rich.get_content().replace("\r\n", "\n") == html
    assert seen["Subject"] == subject.strip()
    assert not seen.defects


# TLS and the account


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return certified(tmp_path_factory.mktemp("certificate"))


def test_starttls_and_a_password_lead_to_an_encrypted_mail_of_that_user(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    with closing(Relay(tls=contexts[0], log_in=True)) as relay:
        with closing(
            Smtp("localhost", relay.port, now=lambda: NOW, user=USER, password=PASSWORD, tls=contexts[1])
        ) as provider:
            assert [provider.call(mailing(number=n)) for n in (1, 2)] == [Accepted("Q1", 250), Accepted("Q2", 250)]
        assert {(taken.is_encrypted, taken.user) for taken in relay.taken} == {(True, USER.encode())}
        assert len({taken.peer for taken in relay.taken}) == 1


def test_a_wrong_password_is_the_accounts_fault_is_tried_once_and_never_told(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    with closing(Relay(tls=contexts[0], log_in=True)) as relay:
        with closing(
            Smtp("localhost", relay.port, now=lambda: NOW, user=USER, password=SECRET, tls=contexts[1])
        ) as provider:
            found = provider.call(mailing())
        assert isinstance(found, NotSent)
        assert (found.status, found.account) == (535, True)
        assert SECRET not in repr(found)
        assert relay.taken == []


def test_a_certificate_nobody_vouches_for_gets_neither_mail_nor_password(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    with closing(Relay(tls=contexts[0], log_in=True)) as relay:
        for host, tls in (("localhost", ssl.create_default_context()), ("127.0.0.1", contexts[1])):
            with closing(Smtp(host, relay.port, now=lambda: NOW, user=USER, password=PASSWORD, tls=tls)) as provider:
                found = provider.call(mailing())
            assert isinstance(found, NotSent)
            assert "CERTIFICATE_VERIFY_FAILED" in found.reason
        assert (relay.taken, relay.commands) == ([], 0)


def test_a_server_that_offers_no_starttls_gets_no_mail_in_clear(serve: Serve) -> None:
    server = serve()
    found = call(server, security="starttls", user="clinic", password=SECRET)
    assert found == NotSent("502 to tls: the server offers no STARTTLS", 502, account=True)
    assert server.verbs() == ["ehlo"]


@pytest.mark.parametrize("answer", ["220 go\r\n250-evil.example\r\n250 AUTH PLAIN", "454 4.7.0 no TLS now", "250 ok"])
def test_nothing_said_in_clear_around_starttls_is_believed(serve: Serve, answer: str) -> None:
    server = serve(EHLO="250-relay.example\r\n250 STARTTLS", STARTTLS=answer)
    with closing(smtp(server, security="starttls", user="clinic", password=SECRET)) as provider:
        assert isinstance(provider.call(mailing()), NotSent)
        assert isinstance(provider.call(mailing()), NotSent)  # and never over what the first try left
    assert set(server.verbs()) == {"ehlo", "STARTTLS"}
    assert server.connections == 2


def test_tls_from_the_first_byte(serve: Serve, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server = serve(GREETING=says_and_hangs_up("220 in clear"))
    found = call(server, security="tls", tls=contexts[1])
    assert isinstance(found, NotSent)
    assert "SSLError" in found.reason
    assert server.lines == []


@pytest.mark.parametrize(
    ("offer", "replies", "wanted"),
    [
        ("AUTH LOGIN PLAIN", ["235 ok"], ["AUTH PLAIN AGNsaW5pYwBwdw=="]),
        ("AUTH=LOGIN", ["334 VXNlcm5hbWU6"], ["AUTH LOGIN", "Y2xpbmlj", "cHc="]),
    ],
)
def test_the_mechanisms_are_spoken_as_they_are_defined(
    serve: Serve, offer: str, replies: list[Reply], wanted: list[str]
) -> None:
    server = serve(
        **{"EHLO": f"250-relay.example\r\n250 {offer}", "AUTH": replies, "Y2XPBMLJ": "334 x", "CHC=": "235 2.7.0 ok"}
    )
    assert isinstance(call(server, user="clinic", password="pw"), Accepted)
    assert [line for _, line in server.lines[1 : 1 + len(wanted)]] == wanted


@pytest.mark.parametrize(
    ("offer", "answer", "status", "is_account"),
    [
        ("HELP", "", 504, True),
        ("AUTH CRAM-MD5", "", 504, True),
        ("AUTH PLAIN", "535 5.7.8 no", 535, True),
        ("AUTH PLAIN", "454 4.7.0 Temporary authentication failure", 454, False),
        ("AUTH PLAIN", "530 5.7.0 no", 530, True),
    ],
)
def test_a_login_that_fails_sends_nothing(serve: Serve, offer: str, answer: str, status: int, is_account: bool) -> None:
    server = serve(EHLO=f"250-relay.example\r\n250 {offer}", AUTH=answer)
    with closing(smtp(server, user="clinic", password=SECRET)) as provider:
        for _ in range(2):
            found = provider.call(mailing())
            assert isinstance(found, NotSent)
            assert (found.status, found.account) == (status, is_account)
    assert "MAIL" not in server.verbs()


# The setting


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("smtp+starttls://clinic:p%40ss%2Fw@relay.example", ("relay.example", 587, "starttls", "clinic", "p@ss/w")),
        ("smtps://a%40b.example:x@relay.example:2465", ("relay.example", 2465, "tls", "a@b.example", "x")),
        ("smtp://localhost", ("localhost", 25, "none", None, None)),
        ("smtp://[::1]:2525/", ("::1", 2525, "none", None, None)),
    ],
)
def test_a_url_is_read_with_its_usual_port(url: str, wanted: tuple[object, ...]) -> None:
    found = parse_url(url)
    assert (found.host, found.port, found.security, found.user, found.password) == wanted
    assert "p@ss" not in repr(found)


@pytest.mark.parametrize(
    "url",
    [
        "http://clinic:SECRET@relay.example",
        "smtp+starttls://clinic:SECRET@relay.example:port",
        "smtp+starttls://clinic:SECRET@",
        "smtps://clinic:SECRET@relay.example/path",
        "smtps://clinic:SECRET@relay.example?x=1",
        "smtps://clinic:SECRET@[relay.example",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert "DRIPWELL_SMTP_URL" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "options",
    [
        {"user": "clinic"},
        {"password": "x"},
        {"user": "clinic", "password": "a\0b"},
        {"user": "clinic", "password": "x", "security": "none"},
        {"bounces": "no address"},
        {"bounces": "bounces+**@mail.example.com"},
        {"bounces": "much-too-long-beside-it+*@mail.example.com"},
    ],
)
def test_values_that_can_never_work_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Smtp("relay.example", 587, now=lambda: NOW, **options)


def test_what_it_can_do_is_said_plainly() -> None:
    provider = Smtp("relay.example", 587, now=lambda: NOW, baa=True)
    found = provider.capabilities
    assert (found.max_batch, found.events, found.logs, found.baa, found.idempotency) == (1, False, False, True, False)
    assert not Smtp("relay.example", 587, now=lambda: NOW).capabilities.baa
    provider.close()


def test_a_mailing_is_refused_before_anything_is_said(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    one = mailing()
    two = Mailing(**{name: getattr(one, name) for name in one.__slots__} | {"envelopes": [*one.envelopes] * 2})
    none = Mailing(**{name: getattr(one, name) for name in one.__slots__} | {"envelopes": []})
    with closing(smtp(server)) as provider:
        assert provider.call(two) == Refused("2 envelopes, by SMTP each goes alone", 0, too_large=True)
        assert provider.call(none) == Refused("no envelope", 0)
        for to in ("maria@example.com>\r\nRCPT TO:<x@y.example", "mária@example.com", "a b@c.example", "<>", ""):
            found = provider.call(mailing(to))
            assert found == Refused("address cannot be written", 0, row=0)
    assert server.connections == 0
