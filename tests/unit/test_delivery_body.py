"""The body of a mail call: by the published schema, by the package's own helpers, and what is refused unsent."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sendgrid.helpers import mail as helpers

from dripwell.core.campaign import Mailbox
from dripwell.core.errors import ConfigurationError
from dripwell.delivery.line import Answer
from dripwell.delivery.provider import Accepted, Envelope, Mailing, NotSent, Refused
from dripwell.delivery.sendgrid import SendGrid, outcome
from dripwell.delivery.sendgrid_body import MAX_BYTES, RESERVED_HEADERS, body, refusal

DATA = Path(__file__).parents[1] / "data" / "sendgrid"
KEY = "SG.aVeryPrivateKeyId.andItsEvenMorePrivateSecretPart"


def envelope(number: int, **changes: Any) -> Envelope:
    plain = Envelope(
        to=f"person{number}@example.com",
        message=UUID(int=number + 1),
        headers={
            "List-Unsubscribe": f"<https://mail.example.com/u/word{number:06}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
        substitutions={"q3X0first000": f"Zoë {number}", "q3X0click000": f"click-{number}"},
    )
    return replace(plain, **changes)


def mailing(*envelopes: Envelope, **changes: Any) -> Mailing:
    plain = Mailing(
        batch=4711,
        sender=Mailbox("Casey at the clinic", "casey@mail.example.com"),
        reply_to="care@example.com",
        subject="Hello q3X0first000",
        text="Hello q3X0first000, https://mail.example.com/c/q3X0click000-1",
        html="<p>Hello q3X0first000</p>",
        headers={"List-ID": "Clinic notes <notes.example.com>", "Feedback-ID": "s1:c7f3:drip:clinic"},
        categories=("c7f3",),
        envelopes=envelopes or (envelope(0), envelope(1)),
    )
    return replace(plain, **changes)


FULL = mailing(*(envelope(number) for number in range(1_000)))


def test_a_full_batch_is_valid_by_the_published_schema() -> None:
    spec = json.loads((DATA / "tsg_mail_v3.json").read_text())
    schema = spec["components"]["requestBodies"]["PostMailSend"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator(
        {**schema, "components": spec["components"]}, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    assert [error.message for error in validator.iter_errors(body(FULL))] == []
    assert list(validator.iter_errors({**body(FULL), "personalizations": [{}] * 1_001}))


def test_a_full_batch_is_what_the_packages_own_helpers_build() -> None:
    mail = helpers.Mail()
    mail.from_email = helpers.From(FULL.sender.address, FULL.sender.name)
    mail.reply_to = helpers.ReplyTo(FULL.reply_to)
    mail.subject = FULL.subject
    mail.add_content(helpers.Content("text/plain", FULL.text))
    mail.add_content(helpers.Content("text/html", FULL.html))
    mail.add_category(helpers.Category("c7f3"))
    for key, value in FULL.headers.items():
        mail.add_header(helpers.Header(key, value))
    tracking = helpers.TrackingSettings()
    tracking.click_tracking = helpers.ClickTracking(enable=False, enable_text=False)
    tracking.open_tracking = helpers.OpenTracking(enable=False)
    tracking.subscription_tracking = helpers.SubscriptionTracking(enable=False)
    tracking.ganalytics = helpers.Ganalytics(enable=False)
    mail.tracking_settings = tracking
    for index, one in enumerate(FULL.envelopes):
        personal = helpers.Personalization()
        personal.add_to(helpers.To(one.to))
        for key, value in one.headers.items():
            personal.add_header(helpers.Header(key, value))
        for key, value in one.substitutions.items():
            personal.add_substitution(helpers.Substitution(key, value))
        personal.add_custom_arg(helpers.CustomArg("dw_m", one.message.hex))
        personal.add_custom_arg(helpers.CustomArg("dw_b", "4711"))
        mail.add_personalization(personal, index=index)
    assert body(FULL) == mail.get()


def test_the_json_has_the_order_of_the_envelopes() -> None:
    written = json.loads(json.dumps(body(FULL)))["personalizations"]
    assert [row["custom_args"]["dw_m"] for row in written] == [one.message.hex for one in FULL.envelopes]
    assert [row["to"] for row in written] == [[{"email": one.to}] for one in FULL.envelopes]


def test_a_full_batch_with_full_slots_stays_under_the_size_limit() -> None:
    slots = {f"q3X0slot{number:04}": "\U0001f33f" * 100 for number in range(20)}
    big = mailing(*(envelope(number, substitutions=slots) for number in range(1_000)), html="h" * 100_000)
    assert refusal(big) is None
    assert len(json.dumps(body(big)).encode()) > MAX_BYTES / 2
    plain_size = len(json.dumps(body(FULL)).encode())
    assert plain_size < MAX_BYTES / 20


def test_nothing_personal_stands_where_the_provider_keeps_it() -> None:
    value = body(FULL)
    kept = [json.dumps(value["headers"]), json.dumps(value["categories"])]
    kept += [json.dumps([row["custom_args"], row["headers"]]) for row in value["personalizations"]]
    assert not [text for text in kept if "person" in text or "Zo" in text or "@" in text]
    assert all(set(row["custom_args"]) == {"dw_m", "dw_b"} for row in value["personalizations"])
    assert all(row["to"][0].keys() == {"email"} for row in value["personalizations"])


def test_tracking_is_refused_aloud_and_no_option_that_bypasses_an_unsubscribe_is_set() -> None:
    value = body(mailing())
    assert value["tracking_settings"] == {
        "click_tracking": {"enable": False, "enable_text": False},
        "open_tracking": {"enable": False},
        "subscription_tracking": {"enable": False},
        "ganalytics": {"enable": False},
    }
    assert not value.keys() & {"asm", "mail_settings", "send_at", "batch_id", "template_id", "custom_args"}
    assert [part["type"] for part in value["content"]] == ["text/plain", "text/html"]


def test_what_is_empty_is_left_out() -> None:
    plain = mailing(
        envelope(0, headers={}, substitutions={}), headers={}, categories=(), sender=Mailbox("", "a@mail.example.com")
    )
    value = body(plain)
    assert refusal(plain) is None
    assert not value.keys() & {"headers", "categories"}
    assert value["from"] == {"email": "a@mail.example.com"}
    assert value["personalizations"][0].keys() == {"to", "custom_args"}


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"to": "person0@example.com"}, "twice"),
        ({"to": "PERSON0@Example.com"}, "twice"),
        ({"to": "a\r\nBcc: b@example.com"}, "address"),
        ({"to": "zoë@example.com"}, "address"),
        ({"to": ""}, "address"),
        ({"headers": {"Subject": "x"}}, "reserved"),
        ({"headers": {"X-SG-EID": "x"}}, "reserved"),
        ({"headers": {"List-Unsubscribe": "<https://x.example>\r\nBcc: b@example.com"}}, "line break"),
        ({"headers": {"List-Unsubscribe": "\0"}}, "NUL"),
        ({"headers": {"Größe": "x"}}, "not ASCII"),
        ({"headers": {"X Y": "x"}}, "space"),
        ({"headers": {"X:Y": "x"}}, "colon"),
        ({"headers": {"": "x"}}, "empty"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "twice"),
        ({"headers": {"LIST-ID": "x"}}, "twice"),
        ({"substitutions": {"q3X0first000": "a\nb", "q3X0click000": "c"}}, "line break"),
        ({"substitutions": {"q3X0first000": "a\ud800", "q3X0click000": "c"}}, "half a character"),
        ({"substitutions": {"q3X0first000": "a"}}, "without a value"),
        ({"substitutions": {}}, "without a value"),
        ({"substitutions": {"q3X0first000": "a" * 10_000, "q3X0click000": "c"}}, "bytes"),
    ],
)
def test_a_person_that_cannot_be_written_is_refused_by_row_before_the_call(fault: dict[str, Any], word: str) -> None:
    found = refusal(mailing(envelope(0), envelope(1), envelope(2, **fault), envelope(3)))
    assert found is not None
    assert (found.row, found.status, found.too_large) == (2, 0, False)
    assert word in found.reason
    assert "example.com" not in found.reason


@pytest.mark.parametrize(
    "fault",
    [
        {"subject": ""},
        {"subject": "a\r\nBcc: b@example.com"},
        {"subject": "a\ud800"},
        {"sender": Mailbox("a\nb", "a@mail.example.com")},
        {"sender": Mailbox("a", "zoë@mail.example.com")},
        {"sender": Mailbox("a", "")},
        {"reply_to": "a\0@example.com"},
        {"text": ""},
        {"html": ""},
        {"html": "a\0"},
        {"text": "\udfff"},
        {"headers": {"DKIM-Signature": "x"}},
        {"headers": {"List-ID": "a\nb"}},
        {"categories": ("a", "a")},
        {"categories": ("ü",)},
        {"categories": ("",)},
        {"categories": tuple(str(number) for number in range(11))},
        {"envelopes": ()},
    ],
)
def test_what_is_the_same_for_everybody_is_refused_without_a_row(fault: dict[str, Any]) -> None:
    found = refusal(mailing(**fault))
    assert found is not None
    assert (found.row, found.status, found.too_large) == (None, 0, False)


def test_every_reserved_header_is_refused_in_any_case() -> None:
    for key in RESERVED_HEADERS:
        assert refusal(mailing(headers={key.title(): "x"})) is not None


def test_more_than_a_thousand_people_are_too_large_so_that_the_batch_is_halved() -> None:
    found = refusal(mailing(*(envelope(number) for number in range(1_001))))
    assert found is not None
    assert found.too_large
    assert refusal(FULL) is None


def test_a_body_over_twenty_megabytes_is_refused_without_opening_a_connection() -> None:
    provider = SendGrid(KEY, "http://127.0.0.1:9")  # nobody listens there: a call would be NotSent
    found = provider.call(mailing(html="h" * (MAX_BYTES + 1)))
    assert isinstance(found, Refused)
    assert (found.too_large, found.row, found.status) == (True, None, 0)
    provider.close()


@given(st.text(), st.text(), st.text(), st.text())
def test_whatever_is_not_refused_is_utf8_and_has_no_line_break_where_a_header_is_made(
    subject: str, value: str, slot: str, name: str
) -> None:
    slots = {"q3X0first000": slot, "q3X0click000": "c"}
    one = mailing(
        envelope(0, headers={"X-A": value}, substitutions=slots),
        subject=subject,
        sender=Mailbox(name, "a@mail.example.com"),
    )
    if refusal(one) is None:
        for text in (subject, value, slot, name):
            assert not set(text) & {"\r", "\n", "\0"}
            text.encode()


TIMES = st.sampled_from(
    [
        *("", "0", "-1", "1e9", "9" * 12, "9" * 40, "1 Jan " + "9" * 40),
        *("Thu, 14 Aug 2025 16:00:00 GMT", "Thu, 14 Aug 2025 16:00:00", "Thu, 14 Aug 2025 99:00 GMT"),
        *("Mon, 1 Jan 0001 00:00:00 +1400", "Thu, 14 Aug 9999 23:59:59 -1200"),
    ]
)
HEADERS = st.fixed_dictionaries(
    {"content-type": st.sampled_from(["application/json", "text/html", ""]) | st.text()},
    optional={name: TIMES | st.text() for name in ("date", "retry-after", "x-ratelimit-reset", "x-message-id")},
)
ERRORS = st.lists(
    st.dictionaries(
        st.sampled_from(["field", "message"]),
        st.none() | st.integers() | st.text() | st.from_regex(r"personalizations[.\[]\d{1,9}[.\]]?"),
    )
).map(lambda errors: json.dumps({"errors": errors}).encode())


@given(st.integers(200, 599), HEADERS, st.binary() | ERRORS)
def test_any_answer_has_an_outcome_and_only_one_that_is_surely_not_accepted_may_be_repeated(
    status: int, headers: dict[str, str], text: bytes
) -> None:
    found = outcome(Answer(status, headers, text), rows=3)
    assert isinstance(found, Accepted) is (status == 202)
    if isinstance(found, NotSent):
        assert status in {401, 403, 404, 405, 406, 429, 451}
        assert found.retry_after is None or timedelta(0) <= found.retry_after <= timedelta(hours=1)
    if isinstance(found, Refused):
        assert status in {400, 413}
        assert found.row is None or found.row < 3
    if not isinstance(found, Accepted):
        assert len(found.reason) <= 160
        assert found.reason.isprintable()


@pytest.mark.parametrize("key", ["", "SG.a\r\nX: y", "SG.ä", "SG. a"])
def test_a_key_that_can_never_work_stops_the_start_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SendGrid(key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "api.sendgrid.com", "ftp://api.sendgrid.com", "https://u:p@api.sendgrid.com", "https://"]
)
def test_an_address_of_the_provider_that_can_never_work_stops_the_start(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DRIPWELL_PROVIDER_URL"):
        SendGrid(KEY, url)


def test_the_key_is_in_no_repr_and_in_no_log_even_when_everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    provider = SendGrid(KEY, "http://127.0.0.1:9")
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "python_http_client.client"):
        found = [
            provider.call(mailing()),
            provider.find("maria@example.com", UUID(int=1), datetime(2026, 11, 2, tzinfo=UTC)),
        ]
    inner = vars(provider).values()
    shown = " ".join([repr(provider), repr(found), caplog.text, *(repr(value) for value in inner)])
    shown += " ".join(repr(vars(value)) for value in inner if hasattr(value, "__dict__"))
    assert "PrivateKeyId" not in shown
    assert "HEADERS" in caplog.text  # or the test would prove nothing
    provider.close()


def test_the_packages_debug_log_stays_closed_because_it_shows_addresses(caplog: pytest.LogCaptureFixture) -> None:
    provider = SendGrid(KEY, "http://127.0.0.1:9")
    with caplog.at_level(logging.DEBUG):
        provider.call(mailing())
    assert "person0@example.com" not in caplog.text
    provider.close()
