"""Mail that comes back: golden samples of what servers write, and mail that somebody wrote to break the reader."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dripwell.delivery.dsn import HARD, LARGEST, parse
from dripwell.delivery.provider import ProviderEvent

FOLDER = Path(__file__).parents[1] / "data" / "bounces"
READS = json.loads((FOLDER / "reads.json").read_text())
SAMPLES = sorted(path.stem for path in FOLDER.glob("*.eml"))
MARIA = b"maria@example.com"
UNKNOWN_USER = (FOLDER / "postfix-unknown-user.eml").read_bytes()


def as_json(event: ProviderEvent, name: str) -> object:
    value = getattr(event, name)
    return value.hex if isinstance(value, UUID) else value.isoformat() if isinstance(value, datetime) else value


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_reads_as_its_golden_value_says(name: str) -> None:
    found = parse((FOLDER / f"{name}.eml").read_bytes())
    assert [{key: as_json(event, key) for key in wanted} for event, wanted in zip(found, READS[name], strict=True)] == (
        READS[name]
    )


def test_the_samples_show_every_kind_a_mail_can_mean() -> None:
    assert set(READS) == set(SAMPLES)
    kinds = {(row["kind"], row["hard"]) for rows in READS.values() for row in rows}
    assert kinds == {(kind, False) for kind in ("bounced", "deferred", "delivered", "complained", "unknown")} | {
        ("bounced", True)
    }


@pytest.mark.parametrize("name", SAMPLES)
def test_no_address_leaves_the_reader_and_a_copy_is_the_same_event(name: str) -> None:
    raw = (FOLDER / f"{name}.eml").read_bytes()
    found = parse(raw)
    assert "@" not in json.dumps([[event.reason, dict(event.detail), event.address] for event in found])
    assert [event.dedupe for event in parse(raw)] == [event.dedupe for event in found]
    assert len({event.dedupe for event in found}) == len(found)


@pytest.mark.parametrize("name", SAMPLES)
def test_bare_line_feeds_and_a_missing_end_change_nothing(name: str) -> None:
    raw = (FOLDER / f"{name}.eml").read_bytes()
    wanted = [(event.kind, event.hard, event.message, event.batch) for event in parse(raw)]
    without_end = raw[: raw.rindex(b"\r\n--")] if b"multipart/" in raw.partition(b"\r\n\r\n")[0] else raw
    for changed in (raw.replace(b"\r\n", b"\n"), without_end):
        assert [(event.kind, event.hard, event.message, event.batch) for event in parse(changed)] == wanted


@pytest.mark.parametrize("status", ["5.1.0", "5.1.1", "5.1.2", "5.1.3", "5.1.4", "5.1.6", "5.1.7", "5.1.10", "5.2.1"])
def test_only_an_address_that_does_not_exist_is_hard(status: str) -> None:
    (found,) = parse(UNKNOWN_USER.replace(b"Status: 5.1.1", f"Status: {status}".encode()).replace(b"550 5.1.1", b"550"))
    assert (found.kind, found.hard) == ("bounced", status in HARD)


def test_what_the_human_part_claims_is_not_the_servers_word() -> None:
    lie = b"Action: failed\r\nStatus: 5.1.1\r\nX-Dripwell-Message: " + b"f" * 32
    (found,) = parse((FOLDER / "postfix-delayed.eml").read_bytes().replace(b"THIS IS A WARNING ONLY.", lie))
    assert (found.kind, found.hard) == ("deferred", False)
    assert found.message == UUID(hex="0123456789abcdef0123456789abcdef")


def test_a_report_inside_the_email_that_came_back_is_not_read() -> None:
    outer = b"From: maria@example.com\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
    outer += b"--x\r\nContent-Type: message/rfc822\r\n\r\n" + UNKNOWN_USER + b"\r\n--x--\r\n"
    assert [event.kind for event in parse(outer)] == ["unknown"]


@pytest.mark.parametrize(
    "at",
    [
        "Fri, 99 Foo 2026 25:61:61 +9999",
        "Mon, 01 Jan 1900 00:00:00 +1400",
        "Fri, 31 Dec 9999 23:59:59 -1400",
        "x" * 5000,
    ],
)
def test_a_mad_date_is_no_date(at: str) -> None:
    head, _, rest = UNKNOWN_USER.partition(b"Date: Mon,  2 Nov 2026 17:00:09 +0000 (UTC)")
    (found,) = parse(head + b"Date: " + at.encode() + rest)
    assert found.at.year in (1970, 9999)
    assert found.hard


HOSTILE = {
    "empty": b"",
    "no header": b"\r\n\r\nhello",
    "only a body": b"hello\nworld\n",
    "binary": bytes(range(256)) * 100,
    "too large": b"Subject: x\r\n\r\n" + b"x" * LARGEST,
    "nested multiparts": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(5_000)
    ),
    "nested mails": b"Content-Type: message/rfc822\r\n\r\n" * 5_000,
    "mails in multiparts, 20 deep": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(20)
    ),
    "many parts": b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\n" * 200_000,
    "many blocks": UNKNOWN_USER.replace(b"\r\nFinal-Recipient", b"A: b\r\n\r\n" * 100_000 + b"\r\nFinal-Recipient"),
    "many headers": b"X-A: b\r\n" * 500_000 + b"\r\n",
    "a long header": b"Subject: " + b"x" * 4_000_000 + b"\r\n\r\n",
    "a folded header without end": b"Subject: x\r\n" + b" x\r\n" * 1_000_000,
    "brackets": b"From: " + b"<" * 200_000 + b"\r\nDate: " + b"(" * 200_000 + b"\r\n\r\n",
    "a boundary of 1 MB": b"Content-Type: multipart/report; boundary=" + b"x" * 1_000_000 + b"\r\n\r\n",
    "a charset nobody has": UNKNOWN_USER.replace(b"us-ascii", b"x-\xff-nobody"),
    "a charset that is a file": UNKNOWN_USER.replace(b"us-ascii", b"/etc/passwd"),
    "broken parameters": b"Content-Type: multipart/report; boundary*0*=\xff'; boundary*1=''; =\r\n\r\n--x\r\n",
    "broken base64": UNKNOWN_USER.replace(
        b"text/rfc822-headers", b"text/rfc822-headers\r\nContent-Transfer-Encoding: base64"
    ),
    "dashes": b"X-A: b\r\n\r\n" + b"1-" * 200_000 + b"\r\n",
    "digits": b"From: MAILER-DAEMON@x\r\nSubject: failed\r\nTo: 1-" + b"a" * 32 + b"@x\r\n\r\n" + b"5." * 200_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mail_is_read_or_refused_with_a_value_error_soon(name: str) -> None:
    began = time.process_time()
    try:
        found = parse(HOSTILE[name])
    except ValueError:
        found = []
    assert time.process_time() - began < 5
    assert len(found) <= 20
    assert all(len(event.reason) <= 300 for event in found)


@given(st.binary(max_size=300), st.integers(0, len(UNKNOWN_USER)), st.integers(0, 300))
@example(b"\0", 0, 0)
def test_any_bytes_anywhere_raise_nothing_but_value_errors(junk: bytes, at: int, cut: int) -> None:
    mangled = UNKNOWN_USER[:at] + junk + UNKNOWN_USER[at + cut :]
    try:
        found = parse(mangled)
    except ValueError:
        return
    for event in found:
        assert event.address is None
        json.dumps(event.detail).encode()
        assert "\0" not in event.reason
