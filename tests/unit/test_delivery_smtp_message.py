"""An email as bytes: what a mail program reads out of it, what stays on one line, and what is refused."""

from __future__ import annotations

import email
import email.policy
import re
from datetime import UTC, datetime, timedelta, timezone
from email.message import EmailMessage
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.campaign import Mailbox
from dripwell.delivery.provider import Envelope, Mailing, Refused
from dripwell.delivery.smtp_message import refusal, written

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=timezone(-timedelta(hours=8)))
MESSAGE = UUID(hex="0123456789abcdef0123456789abcdef")
ANY_TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=300)
ONE_LINE = ANY_TEXT.map(lambda text: re.sub(r"[\r\n]", "", text)).filter(bool)


def mailing(
    *, to: str = "maria@example.com", headers: dict[str, str] | None = None, values: dict[str, str] | None = None,
    **changes: Any,
) -> Mailing:  # fmt: skip
    given: dict[str, Any] = {
        "sender": Mailbox("KCLA", "casey@mail.example.com"),
        "reply_to": "care@example.com",
        "subject": "Hello",
        "text": "Hello",
        "html": "<p>Hello</p>",
        "headers": {"List-ID": "<notes.example.com>"},
    } | changes
    return Mailing(
        batch=4711, categories=("c1",), envelopes=[Envelope(to, MESSAGE, headers or {}, values or {})], **given
    )


def read(mail: bytes) -> EmailMessage:
    found = email.message_from_bytes(mail, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


def parts(mail: bytes) -> list[str]:
    return [part.get_content().replace("\r\n", "\n") for part in read(mail).iter_parts()]


def test_a_mail_program_reads_what_was_meant() -> None:
    one = mailing(headers={"Auto-Submitted": "auto-generated"})
    assert refusal(one) is None
    seen = read(written(one, NOW))
    assert dict(seen.items()) == {
        "From": "KCLA <casey@mail.example.com>",
        "To": "maria@example.com",
        "Reply-To": "care@example.com",
        "Subject": "Hello",
        "Date": "Mon, 02 Nov 2026 17:00:00 +0000",
        "Message-ID": f"<{MESSAGE.hex}@mail.example.com>",
        "X-Dripwell-Batch": "4711",
        "X-Dripwell-Message": MESSAGE.hex,
        "List-ID": "<notes.example.com>",
        "Auto-Submitted": "auto-generated",
        "MIME-Version": "1.0",
        "Content-Type": f'multipart/alternative; boundary="=_{MESSAGE.hex}"',
    }
    assert [part.get_content_type() for part in seen.iter_parts()] == ["text/plain", "text/html"]
    assert written(one, NOW) == written(one, NOW)


@pytest.mark.parametrize("length", [75, 78, 200, 900])
def test_list_unsubscribe_stands_on_one_line_as_it_was_given(length: int) -> None:
    value = f"<https://mail.example.com/u/{'a' * (length - 29)}>"
    mail = written(
        mailing(headers={"List-Unsubscribe": value, "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}), NOW
    )
    assert f"\r\nList-Unsubscribe: {value}\r\n".encode() in mail
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in mail


@given(name=ONE_LINE, subject=ONE_LINE, text=ANY_TEXT, html=ANY_TEXT)
def test_whatever_is_written_is_seven_bit_short_lines_and_reads_back(
    name: str, subject: str, text: str, html: str
) -> None:
    one = mailing(sender=Mailbox(name, "casey@mail.example.com"), subject=subject, text=text, html=html)
    assert refusal(one) is None
    mail = written(one, NOW)
    assert mail.isascii()
    assert mail.endswith(b"\r\n")
    assert b"\n" not in mail.replace(b"\r\n", b"")
    assert b"\r" not in mail.replace(b"\r\n", b"")
    assert max(len(line) for line in mail.split(b"\r\n")) <= 998
    head, _, body = mail.partition(b"\r\n\r\n")
    assert len(re.findall(rb"(?m)^[A-Za-z-]+:", head)) == 11
    assert all(len(line) <= 76 for line in body.split(b"\r\n"))
    plain, rich = parts(mail)

    def as_lines(part: str) -> str:
        return part.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")

    assert (as_lines(plain), as_lines(rich)) == (as_lines(text), as_lines(html))
    raw = email.message_from_bytes(mail)
    shown = email.header.decode_header(raw["Subject"])
    decoded = "".join(word.decode(charset or "ascii") if isinstance(word, bytes) else word for word, charset in shown)
    assert decoded == subject


@pytest.mark.parametrize(
    "name", ["KCLA", 'The "Clinic", Inc.', "back\\slash", "Zoë <casey@evil.example>", "=?utf-8?q?x?=", "a" * 200]
)
def test_a_display_name_says_itself_and_never_another_address(name: str) -> None:
    seen = read(written(mailing(sender=Mailbox(name, "casey@mail.example.com")), NOW))
    (mailbox,) = seen["From"].addresses
    assert (mailbox.display_name, mailbox.addr_spec) == (name, "casey@mail.example.com")


def test_slots_are_filled_in_one_pass_everywhere() -> None:
    words = {"QsaltAAAA000": "Zoë QsaltAAAA001", "QsaltAAAA001": "<b>", "Q.+*(000": "regex"}
    mail = written(
        mailing(
            subject="Hi QsaltAAAA000",
            text="QsaltAAAA001QsaltAAAA000 Q.+*(000",
            html="<p>QsaltAAAA000</p>",
            values=words,
        ),
        NOW,
    )
    assert read(mail)["Subject"] == "Hi Zoë QsaltAAAA001"
    assert parts(mail) == ["<b>Zoë QsaltAAAA001 regex", "<p>Zoë QsaltAAAA001</p>"]


INJECTIONS: dict[str, tuple[Mailing, int | None]] = {
    "a line break in the subject": (mailing(subject="Hi\r\nBcc: x@y.example"), None),
    "half a character in the subject": (mailing(subject="Hi \ud83d"), None),
    "a line break in the name": (mailing(sender=Mailbox("A\nBcc: x@y.example", "a@b.example")), None),
    "a second sender": (mailing(sender=Mailbox("A", "a@b.example>, <c@d.example")), None),
    "a sender that is not ASCII": (mailing(sender=Mailbox("A", "zoë@b.example")), None),
    "a line break in reply-to": (mailing(reply_to="a@b.example\r\nX: y"), None),
    "NUL in the text": (mailing(text="a\0b"), None),
    "half a character in the HTML": (mailing(html="\udc00"), None),
    "no text": (mailing(text=""), None),
    "no subject": (mailing(subject=""), None),
    "a line break in an address": (mailing(to="a@b.example\r\nDATA"), 0),
    "an address that is not ASCII": (mailing(to="zoë@b.example"), 0),
    "two addresses": (mailing(to="a@b.example,c@d.example"), 0),
    "an address too long": (mailing(to="a@" + "b" * 260 + ".example"), 0),
    "a line break in a header": (mailing(headers={"List-Unsubscribe": "<https://a>\r\nBcc: x@y.example"}), 0),
    "a bare line feed in a header": (mailing(headers={"X-A": "a\nb"}), 0),
    "a header that is not ASCII": (mailing(headers={"X-A": "ë"}), 0),
    "an empty header": (mailing(headers={"X-A": " "}), 0),
    "a header name with a colon": (mailing(headers={"X-A: b\r\nBcc": "c"}), 0),
    "a blind copy": (mailing(headers={"bCC": "x@y.example"}), 0),
    "another content type": (mailing(headers={"Content-Type": "text/plain"}), 0),
    "another mark": (mailing(headers={"x-dripwell-message": "0"}), 0),
    "a header twice": (mailing(headers={"list-id": "<a.b>"}), 0),
    "a header too long": (mailing(headers={"List-Unsubscribe": "<https://a/" + "x" * 990 + ">"}), 0),
    "a line break in a value": (mailing(values={"QAAA": "a\r\nBcc: x@y.example"}), 0),
    "NUL in a value": (mailing(values={"QAAA": "\0"}), 0),
    "an empty word": (mailing(values={"": "x"}), 0),
}


@pytest.mark.parametrize("name", INJECTIONS)
def test_what_would_write_another_header_or_command_is_refused_without_repeating_it(name: str) -> None:
    what, row = INJECTIONS[name]
    found = refusal(what)
    assert isinstance(found, Refused)
    assert (found.status, found.row) == (0, row)
    assert "@" not in found.reason
    assert found.reason.isprintable()


def test_a_date_is_written_in_utc() -> None:
    assert b"\r\nDate: Thu, 01 Jan 1970 00:00:00 +0000\r\n" in written(mailing(), datetime(1970, 1, 1, tzinfo=UTC))
