"""The line and the outcome table against a real socket whose server follows a script and counts what it was sent."""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dripwell.core.campaign import Mailbox
from dripwell.delivery.line import Line, LineBrokenError
from dripwell.delivery.provider import Accepted, Envelope, LogAnswer, Mailing, NotSent, Outcome, Refused, Unknown
from dripwell.delivery.sendgrid import SendGrid

KEY = "SG.aVeryPrivateKeyId.andItsEvenMorePrivateSecretPart"
DATE = "Thu, 14 Aug 2025 16:00:00 GMT"
NOW = int(datetime(2025, 8, 14, 16, tzinfo=UTC).timestamp())
JSON = "application/json; charset=utf-8"


@dataclass
class Request:
    """One request as it came in: `whole` once all bytes its Content-Length announces were read."""

    connection: int
    head: str = ""
    body: bytes = b""
    whole: bool = False


Act = Callable[[socket.socket], bool]  # gets the peer after a whole request; says whether the connection stays open


@dataclass
class Server:
    """Serves one connection at a time; the n-th whole request is answered by the n-th act, the last one for ever."""

    acts: list[Act]
    greet: Act | None = None  # called on accept, before anything is read
    stop_reading_at: int | None = None  # reset when that many bytes of a body have come
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    ended: int = 0  # of them, closed on this side

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10)
        self.port = self.listener.getsockname()[1]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)
        self.listener.close()
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._over.is_set():
            if not select.select([self.listener], [], [], 0.02)[0]:
                continue
            peer, _ = self.listener.accept()
            self.connections += 1
            peer.settimeout(5)
            try:
                if self.tls is not None:
                    peer = self.tls.wrap_socket(peer, server_side=True)
                peer.settimeout(0.02)
                if self.greet is None or self.greet(peer):
                    self._serve(peer)
            except OSError:
                pass  # the client hung up, which many of these tests want
            finally:
                peer.close()
                self.ended += 1

    def _serve(self, peer: socket.socket) -> None:
        data, request = b"", None
        while not self._over.is_set():
            try:
                chunk = peer.recv(65_536)
            except TimeoutError:
                continue
            if not chunk:
                return
            data += chunk
            if request is None:
                request = Request(self.connections)
                self.requests.append(request)
            head, mark, request.body = data.partition(b"\r\n\r\n")
            request.head = head.decode("latin-1")
            if self.stop_reading_at is not None and mark and len(request.body) >= self.stop_reading_at:
                reset(peer)
                return
            length = next((int(v) for k, v in lines(request.head) if k == "content-length"), 0)
            if not mark or len(request.body) < length:
                continue
            request.whole = True
            act = self.acts[min(sum(one.whole for one in self.requests), len(self.acts)) - 1]
            if not act(peer):
                return
            data, request = b"", None


def lines(head: str) -> Iterator[tuple[str, str]]:
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        yield key.lower(), value.strip()


def reset(peer: socket.socket) -> bool:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def says(status: int, body: bytes | str = b"", kind: str = "", **headers: str) -> Act:
    raw = body.encode() if isinstance(body, str) else body
    rows = [f"HTTP/1.1 {status} Said", f"Date: {DATE}", f"Content-Length: {len(raw)}"]
    rows += [f"Content-Type: {kind}"] if kind else []
    rows += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    def act(peer: socket.socket) -> bool:
        peer.sendall("\r\n".join([*rows, "", ""]).encode() + raw)
        return True

    return act


def writes(raw: bytes) -> Act:
    def act(peer: socket.socket) -> bool:
        peer.sendall(raw)
        return False

    return act


def errors(*items: dict[str, Any]) -> str:
    return json.dumps({"errors": list(items)})


ACCEPTED = says(202, X_Message_Id="14c5d75ce93")
ERROR = errors({"message": "no", "field": None, "help": None})


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*acts: Act, **options: Any) -> Server:
        servers.append(Server(list(acts), **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def mailing(people: int = 2, **changes: Any) -> Mailing:
    envelopes = [Envelope(f"person{number}@example.com", UUID(int=number + 1), {}, {}) for number in range(people)]
    given: dict[str, Any] = {"html": "<p>Hello</p>"} | changes
    return Mailing(
        batch=4711,
        sender=Mailbox("Casey", "casey@mail.example.com"),
        reply_to="care@example.com",
        subject="Hello",
        text="Hello",
        headers={},
        categories=("c7f3",),
        envelopes=envelopes,
        **given,
    )


BIG = mailing(html="h" * 8_000_000)  # more than the sockets' buffers hold


def call(server: Server, what: Mailing | None = None, **options: Any) -> Outcome:
    with closing(SendGrid(KEY, server.url, **options)) as provider:
        return provider.call(what or mailing())


def test_a_call_is_one_post_with_the_key_and_no_more(serve: Callable[..., Server]) -> None:
    server = serve(ACCEPTED)
    assert call(server) == Accepted("14c5d75ce93")
    (request,) = server.requests
    head = dict(lines(request.head))
    assert request.head.startswith("POST /v3/mail/send HTTP/1.1\r\n")
    assert head["authorization"] == f"Bearer {KEY}"
    assert head["content-type"] == "application/json"
    assert head["accept-encoding"] == "identity"
    rows = json.loads(request.body)["personalizations"]
    assert [row["custom_args"] for row in rows] == [{"dw_m": f"{n:032x}", "dw_b": "4711"} for n in (1, 2)]


# SENDING.md section 6, row by row.
TABLE: dict[str, tuple[Act, Outcome]] = {
    "202": (ACCEPTED, Accepted("14c5d75ce93")),
    "202 without an id": (says(202), Accepted("")),
    "429 with seconds": (
        says(429, ERROR, JSON, Retry_After="17"),
        NotSent("429: no", 429, timedelta(seconds=17), rate_limited=True),
    ),
    "429 with a date": (
        says(429, ERROR, JSON, Retry_After="Thu, 14 Aug 2025 16:01:30 GMT"),
        NotSent("429: no", 429, timedelta(seconds=90), rate_limited=True),
    ),
    "429 with a date gone by": (
        says(429, ERROR, JSON, Retry_After="Thu, 14 Aug 2025 15:00:00 GMT"),
        NotSent("429: no", 429, timedelta(0), rate_limited=True),
    ),
    "429 with a reset": (
        says(429, ERROR, JSON, X_RateLimit_Reset=str(NOW + 45)),
        NotSent("429: no", 429, timedelta(seconds=45), rate_limited=True),
    ),
    "429 with a reset in seconds to go": (
        says(429, ERROR, JSON, X_RateLimit_Reset="45"),
        NotSent("429: no", 429, timedelta(seconds=45), rate_limited=True),
    ),
    "429 with a mad time": (
        says(429, ERROR, JSON, Retry_After="999999999999"),
        NotSent("429: no", 429, timedelta(hours=1), rate_limited=True),
    ),
    "429 with nonsense": (
        says(429, ERROR, JSON, Retry_After="soon", X_RateLimit_Reset="-1"),
        NotSent("429: no", 429, None, rate_limited=True),
    ),
    "429 with neither": (says(429, ERROR, JSON), NotSent("429: no", 429, None, rate_limited=True)),
    "429 of a proxy": (says(429, "<h1>slow</h1>", "text/html", Retry_After="3"), Unknown("429: text/html", 429)),
    "400 naming a row by its field": (
        says(400, errors({"message": "bad", "field": "personalizations.1.to.0.email"}), JSON),
        Refused("400: personalizations.1.to.0.email bad", 400, row=1),
    ),
    "400 naming a row in its text": (
        says(400, errors({"message": "[x@example.com] twice in personalizations.1.to", "field": None}), JSON),
        Refused("400: [[address]] twice in personalizations.1.to", 400, row=1),
    ),
    "400 naming a row by a bracket": (
        says(400, errors({"message": "bad", "field": "personalizations[0].headers"}), JSON),
        Refused("400: personalizations[0].headers bad", 400, row=0),
    ),
    "400 naming a row that is none": (
        says(400, errors({"message": "bad", "field": "personalizations.2.to"}), JSON),
        Refused("400: personalizations.2.to bad", 400),
    ),
    "400 otherwise": (
        says(400, errors({"message": "bad", "field": "content"}), JSON),
        Refused("400: content bad", 400),
    ),
    "400 of a proxy": (says(400, "<h1>Bad Request</h1>", "text/html"), Unknown("400: text/html", 400)),
    "400 with another JSON": (says(400, '{"error": "bad"}', JSON), Unknown("400: application/json", 400)),
    "413 of a proxy": (says(413, "<h1>413</h1>", "text/html"), Refused("413: too large", 413, too_large=True)),
    "413 as JSON": (says(413, ERROR, JSON), Refused("413: too large", 413, too_large=True)),
    "402 is not listed": (says(402, ERROR, JSON), Unknown("402: application/json", 402)),
    "408": (says(408, ERROR, JSON), Unknown("408: application/json", 408)),
    "500": (says(500, ERROR, JSON), Unknown("500: application/json", 500)),
    "502 of a proxy": (says(502, "<h1>502</h1>", "text/html"), Unknown("502: text/html", 502)),
    "503": (says(503), Unknown("503: no content type", 503)),
    "200, the provider's test mode": (says(200, "{}", JSON), Unknown("200: application/json", 200)),
    "201": (says(201), Unknown("201: no content type", 201)),
    "204": (writes(b"HTTP/1.1 204 No Content\r\n\r\n"), Unknown("204: no content type", 204)),
    "302 is not followed": (says(302, Location="/v3/elsewhere"), Unknown("302: no content type", 302)),
    "307 is not followed": (says(307, Location="/v3/elsewhere"), Unknown("307: no content type", 307)),
    **{
        f"{status} of the provider": (says(status, ERROR, JSON), NotSent(f"{status}: no", status, account=True))
        for status in (401, 403, 404, 405, 406, 451)
    },
    **{
        f"{status} of a proxy": (says(status, "<h1>no</h1>", "text/html"), Unknown(f"{status}: text/html", status))
        for status in (401, 403, 404, 405, 406, 451)
    },
    "403 that says JSON and is none": (says(403, "<h1>no</h1>", JSON), Unknown("403: application/json", 403)),
    "403 with errors in a page": (says(403, ERROR, "text/html"), Unknown("403: text/html", 403)),
    "403 with no errors in it": (says(403, errors(), JSON), Unknown("403: application/json", 403)),
    "403 with errors that are text": (says(403, '{"errors": ["no"]}', JSON), Unknown("403: application/json", 403)),
}


@pytest.mark.parametrize("row", TABLE)
def test_each_answer_is_read_as_the_table_says_and_asked_for_once(serve: Callable[..., Server], row: str) -> None:
    act, wanted = TABLE[row]
    server = serve(act)
    assert call(server) == wanted
    assert len(server.requests) == 1


BROKEN: dict[str, Act] = {
    "hangs up after the whole request": lambda peer: False,
    "resets after the whole request": reset,
    "writes no HTTP": writes(b"220 smtp.example.com ESMTP\r\n"),
    "ends within the headers": writes(b"HTTP/1.1 202 Accepted\r\nX-Mess"),
    "ends within the body": writes(
        b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
    ),
    "breaks its chunks": writes(b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "has headers without end": writes(b"HTTP/1.1 202 Accepted\r\n" + b"X-A: b\r\n" * 30_000),
    "promises too much": writes(b"HTTP/1.1 202 Accepted\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 9_999_999),
    "is empty gzip": says(400, b"\x1f\x8b", JSON, Content_Encoding="gzip"),
}


@pytest.mark.parametrize("row", BROKEN)
def test_a_broken_answer_to_a_written_request_is_unknown_and_the_next_call_is_fine(
    serve: Callable[..., Server], row: str
) -> None:
    server = serve(BROKEN[row], ACCEPTED)
    with closing(SendGrid(KEY, server.url)) as provider:
        found = provider.call(mailing())
        assert isinstance(found, Unknown)
        assert len(server.requests) == 1
        assert provider.call(mailing()) == Accepted("14c5d75ce93")
    assert len(server.requests) == 2


def test_a_reset_within_the_body_is_unknown(serve: Callable[..., Server]) -> None:
    server = serve(ACCEPTED, stop_reading_at=100_000)
    assert isinstance(call(server, BIG), Unknown)
    assert [request.whole for request in server.requests] == [False]


def test_a_reset_at_byte_zero_is_never_accepted_and_never_repeated(serve: Callable[..., Server]) -> None:
    server = serve(ACCEPTED, greet=reset)
    # Which of the two depends on whether the reset arrives before the first write; neither may be repeated here.
    assert isinstance(call(server), NotSent | Unknown)
    assert (server.connections, server.requests) == (1, [])


def test_an_early_answer_while_the_body_is_being_written_is_read(serve: Callable[..., Server]) -> None:
    def refuse_at_once(peer: socket.socket) -> bool:
        peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        deadline = time.monotonic() + 10
        peer.settimeout(1)
        while time.monotonic() < deadline:  # swallow the rest, or the answer is lost to a reset
            if not peer.recv(1_000_000):
                return False
        return False

    found = call(serve(ACCEPTED, greet=refuse_at_once), BIG)
    assert found == Refused("413: too large", 413, too_large=True)


def test_a_closed_port_is_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with closing(SendGrid(KEY, f"http://127.0.0.1:{port}")) as provider:
        for _ in range(3):
            found = provider.call(mailing())
            assert isinstance(found, NotSent)
            assert (found.status, found.account, found.rate_limited) == (None, False, False)


def test_a_name_that_does_not_exist_is_not_sent() -> None:
    with closing(SendGrid(KEY, "http://nobody.invalid")) as provider:
        assert isinstance(provider.call(mailing()), NotSent)


@pytest.mark.parametrize("limits", [{"connect": 0.3}, {"deadline": 0.3}], ids=["connect", "deadline"])
def test_a_silent_handshake_is_not_sent_within_its_time(serve: Callable[..., Server], limits: dict[str, float]) -> None:
    def keep_silent(peer: socket.socket) -> bool:
        peer.settimeout(10)
        while peer.recv(65_536):
            pass
        return False

    server = serve(ACCEPTED, greet=keep_silent)
    start = time.monotonic()
    with closing(SendGrid(KEY, f"https://127.0.0.1:{server.port}", **limits)) as provider:
        assert isinstance(provider.call(mailing()), NotSent)
    assert time.monotonic() - start < 3


def drips(raw: bytes) -> Act:
    def act(peer: socket.socket) -> bool:
        for byte in raw:
            time.sleep(0.05)
            peer.sendall(bytes([byte]))
        return True

    return act


DRIPPED = {
    "with a length": b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\n" + b"x" * 100,
    "until the end of the connection": b"HTTP/1.1 202 Accepted\r\n\r\n" + b"x" * 200,
}


@pytest.mark.parametrize("form", DRIPPED)
def test_an_answer_that_drips_is_cut_at_the_deadline_and_unknown(serve: Callable[..., Server], form: str) -> None:
    head, _, rest = DRIPPED[form].partition(b"\r\n\r\n")

    def act(peer: socket.socket) -> bool:
        peer.sendall(head + b"\r\n\r\n")
        return drips(rest)(peer)

    server = serve(act, ACCEPTED)
    with closing(SendGrid(KEY, server.url, deadline=0.6)) as provider:
        start = time.monotonic()
        assert provider.call(mailing()) == Unknown("no whole answer within 0.6 s")
        assert time.monotonic() - start < 2
        assert provider.call(mailing()) == Accepted("14c5d75ce93")
    assert (len(server.requests), server.connections) == (2, 2)


def test_a_peer_that_never_answers_is_cut_at_the_deadline_and_unknown(serve: Callable[..., Server]) -> None:
    server = serve(lambda peer: True, ACCEPTED)
    start = time.monotonic()
    assert isinstance(call(server, deadline=0.4), Unknown)
    assert time.monotonic() - start < 2
    assert len(server.requests) == 1


def test_a_peer_that_stops_reading_is_cut_at_the_deadline_and_unknown(serve: Callable[..., Server]) -> None:
    over = threading.Event()
    server = serve(ACCEPTED, greet=lambda peer: over.wait(10) and False)
    start = time.monotonic()
    assert isinstance(call(server, BIG, deadline=0.4), Unknown)
    assert time.monotonic() - start < 2
    over.set()


def test_calls_share_one_connection(serve: Callable[..., Server]) -> None:
    server = serve(ACCEPTED)
    with closing(SendGrid(KEY, server.url)) as provider:
        for _ in range(20):
            assert provider.call(mailing()) == Accepted("14c5d75ce93")
    assert (len(server.requests), server.connections) == (20, 1)


def test_a_refused_call_keeps_the_connection_too(serve: Callable[..., Server]) -> None:
    server = serve(says(400, ERROR, JSON), says(429, ERROR, JSON), ACCEPTED)
    with closing(SendGrid(KEY, server.url)) as provider:
        kinds = [type(provider.call(mailing())) for _ in range(3)]
    assert kinds == [Refused, NotSent, Accepted]
    assert server.connections == 1


@pytest.mark.parametrize("end", [lambda peer: False, reset], ids=["closed", "reset"])
def test_a_kept_connection_that_the_peer_ended_is_replaced_unseen(serve: Callable[..., Server], end: Act) -> None:
    server = serve(lambda peer: ACCEPTED(peer) and end(peer))
    with closing(SendGrid(KEY, server.url)) as provider:
        for number in range(1, 6):
            assert provider.call(mailing()) == Accepted("14c5d75ce93")
            deadline = time.monotonic() + 10
            while server.ended < number and time.monotonic() < deadline:
                time.sleep(0.001)
            assert (len(server.requests), server.connections) == (number, number)


def test_a_late_timer_never_touches_the_connection_of_the_next_call(serve: Callable[..., Server]) -> None:
    server = serve(ACCEPTED)
    with closing(SendGrid(KEY, server.url, deadline=0.2)) as provider:
        end = time.monotonic() + 1
        cut = 0  # calls that a busy machine really made as long as the deadline: those are cut rightly
        while (began := time.monotonic()) < end:
            outcome = provider.call(mailing())
            if outcome != Accepted("14c5d75ce93"):
                assert time.monotonic() - began >= 0.2, outcome
                cut += 1
    assert server.connections <= 1 + cut


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2060, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    both = folder / "both.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(both)
    return theirs, ssl.create_default_context(cafile=str(both))


def test_over_tls_calls_share_a_connection_and_a_dripped_answer_is_cut(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    theirs, ours = certificate(tmp_path)
    server = serve(ACCEPTED, ACCEPTED, drips(b"HTTP/1.1 202 Accepted\r\n" + b"X" * 100), ACCEPTED, tls=theirs)
    with closing(SendGrid(KEY, f"https://localhost:{server.port}", deadline=1.0, tls=ours)) as provider:
        assert [type(provider.call(mailing())) for _ in range(2)] == [Accepted, Accepted]
        assert server.connections == 1
        start = time.monotonic()
        assert provider.call(mailing()) == Unknown("no whole answer within 1 s")
        assert time.monotonic() - start < 3
        assert provider.call(mailing()) == Accepted("14c5d75ce93")
    assert (len(server.requests), server.connections) == (4, 2)


def test_a_request_that_fails_before_its_body_is_known_to_be_unwritten(serve: Callable[..., Server]) -> None:
    server = serve(ACCEPTED)
    with closing(Line("Bearer a\r\nX-Injected: b")) as line, pytest.raises(LineBrokenError) as caught:
        line.request(urllib.request.Request(f"{server.url}/v3/mail/send", data=b"{}"))
    assert caught.value.written is False
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert server.requests == []


def test_an_unknown_certificate_is_not_sent(serve: Callable[..., Server], tmp_path: Path) -> None:
    theirs, _ = certificate(tmp_path)
    server = serve(ACCEPTED, tls=theirs)
    found = call(server)
    assert isinstance(found, NotSent)
    assert "certificate" in found.reason
    assert server.requests == []


def test_a_reason_holds_no_address_no_key_and_no_line_break(serve: Callable[..., Server]) -> None:
    said = errors({"message": f"{KEY} for <mara@example.com>\r\nand\0 " + "x" * 5_000, "field": "k"})
    found = call(serve(says(401, said, JSON)))
    assert isinstance(found, NotSent)
    assert "mara" not in found.reason
    assert "Private" not in found.reason
    assert found.reason.isprintable()
    assert len(found.reason) <= 160


# The message log.

MESSAGE = UUID(int=9)
SINCE = datetime(2025, 8, 14, 15, 58, tzinfo=UTC)
SPEC = json.loads((Path(__file__).parents[1] / "data" / "sendgrid" / "tsg_logs_v3.json").read_text())


def listed(*names: str) -> Act:
    common = {"from_email": "casey@mail.example.com", "subject": "Hello", "to_email": "mara@example.com"}
    rows = [
        {**common, "sg_message_id": name, "status": "processed", "sg_message_id_created_at": "2025-08-14T16:00:00Z"}
        for name in names
    ]
    return says(200, json.dumps({"messages": rows}), JSON)


def detailed(message: UUID | None, **more: Any) -> Act:
    args = {} if message is None else {"custom_args": {"dw_m": message.hex, "dw_b": "1"}}
    return says(200, json.dumps({"sg_message_id": "a", "status": "processed", "events": [], **args, **more}), JSON)


def find(server: Server, address: str = "mara@example.com") -> LogAnswer:
    with closing(SendGrid(KEY, server.url)) as provider:
        return provider.find(address, MESSAGE, SINCE)


def test_a_message_is_found_by_our_custom_arg_in_its_details(serve: Callable[..., Server]) -> None:
    server = serve(listed("a.b/c", "d"), detailed(UUID(int=8)), detailed(MESSAGE))
    assert find(server) == LogAnswer(answered=True, found=True)
    asked = [request.head.split(" HTTP")[0] for request in server.requests]
    assert asked == ["POST /v3/logs", "GET /v3/logs/a.b%2Fc", "GET /v3/logs/d"]
    sent = json.loads(server.requests[0].body)
    schema = {
        "$ref": "#/components/schemas/EmailLogsGetMessagesByFilterRequest",
        "components": {"schemas": SPEC["components"]["schemas"]},
    }
    jsonschema.Draft202012Validator(schema).validate(sent)
    assert sent["query"] == (
        "to_email = 'mara@example.com' AND sg_message_id_created_at >= TIMESTAMP \"2025-08-14T15:58:00Z\""
    )


def test_a_custom_arg_in_an_event_of_the_details_counts_too(serve: Callable[..., Server]) -> None:
    events = [{"event": "processed", "custom_args": {"dw_m": MESSAGE.hex}}]
    assert find(serve(listed("a"), detailed(None, events=events))).found


def test_an_empty_list_is_an_answer(serve: Callable[..., Server]) -> None:
    assert find(serve(listed())) == LogAnswer(answered=True, found=False)
    assert find(serve(listed("a"), detailed(UUID(int=8)))) == LogAnswer(answered=True, found=False)


UNANSWERED: dict[str, list[Act]] = {
    "429": [says(429, ERROR, JSON)],
    "403": [says(403, ERROR, JSON)],
    "500": [says(500)],
    "a page of a proxy": [says(200, "<h1>hello</h1>", "text/html")],
    "another JSON": [says(200, '{"result": []}', JSON)],
    "an array": [says(200, "[]", JSON)],
    "cut off": [lambda peer: False],
    "429 for a detail": [listed("a"), says(429, ERROR, JSON)],
    "404 for a detail": [listed("a"), says(404, ERROR, JSON)],
    "a row without an id": [says(200, '{"messages": [{}]}', JSON)],
    "a full page": [listed(*(f"m{number}" for number in range(50))), detailed(UUID(int=8))],
}


@pytest.mark.parametrize("row", UNANSWERED)
def test_whatever_leaves_a_doubt_is_no_answer(serve: Callable[..., Server], row: str) -> None:
    assert find(serve(*UNANSWERED[row])) == LogAnswer(answered=False, found=False)


def test_one_unreadable_detail_does_not_hide_a_hit_in_another(serve: Callable[..., Server]) -> None:
    assert find(serve(listed("a", "b"), says(500), detailed(MESSAGE))) == LogAnswer(answered=True, found=True)


def test_an_address_is_quoted_or_not_asked_for(serve: Callable[..., Server]) -> None:
    server = serve(listed())
    assert find(server, "o'brien@example.com").answered
    assert json.loads(server.requests[0].body)["query"].startswith('to_email = "o\'brien@example.com" AND')
    for address in ("o'\"b@example.com", "a\\@example.com", "a\n@example.com"):
        assert find(server, address) == LogAnswer(answered=False)
    assert len(server.requests) == 1
