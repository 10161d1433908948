"""A file of subscribers: good rows become values, bad rows a line and a reason, and a file nobody can read says why."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dripwell.content.importing.addresses import checked
from dripwell.content.importing.judge import judged, laid_out, moment
from dripwell.content.importing.records import MAX_LINE, count
from dripwell.content.importing.safety import bare, safe
from dripwell.content.importing.values import BadRow, Given, GoodRow, LeftRow, Reading, Row, Rules, Statement
from dripwell.content.importing.writing import csv_line, refused_lines
from dripwell.core.address import address_hash, check
from dripwell.core.agreement import bought
from dripwell.core.errors import ContentError
from dripwell.services.slices import hash_of

NOW = datetime(2026, 11, 23, 17, tzinfo=UTC)
GIVEN = datetime(2026, 5, 31, tzinfo=UTC)
STATED = Statement(("series",), "paper forms", "Email me.", GIVEN)
TOPICS = frozenset({"series", "notes"})
PACIFIC = timezone(timedelta(hours=-8))


def found(
    tmp_path: Path, content: str | bytes, reading: Reading | None = None, *, name: str = "people.csv", **changes: Any
) -> list[Row]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    how = reading or Reading()
    rules = Rules(**{"statement": STATED, "topics": TOPICS, "now": NOW, "zone": PACIFIC, **changes})
    laid = laid_out(path, how)
    rows = list(judged(path, laid, how, rules))
    assert count(path, laid) == len(rows)
    assert list(judged(path, laid, how, rules, skip=2)) == rows[2:]
    return rows


def refusal(tmp_path: Path, content: bytes, reading: Reading | None = None, name: str = "people.csv") -> str:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ContentError) as caught:
        count(path, laid_out(path, reading or Reading()))
    return str(caught.value).removeprefix(str(path))


def reasons(rows: list[Row]) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in rows if isinstance(row, BadRow)]


def test_good_rows_keep_their_fields_and_bad_rows_say_line_and_reason(tmp_path: Path) -> None:
    rows = found(
        tmp_path,
        "Email,first_name,timezone,tags,state\r\n"
        "Maria@Example.com,Maria,America/Denver,vip; staff,CA\r\n"
        "nobody,,,,\r\n"
        "sam@example.com,,Mars/Olympus,,\r\n"
        "ann@example.com,Ann,,,,one more\r\n"
        "bob@example.com\r\n",
    )
    assert rows[0] == GoodRow(
        2, "Maria@example.com", "America/Denver", ("vip", "staff"), {"first_name": "Maria", "state": "CA"}
    )
    assert reasons(rows) == [
        (3, "an email address must have an @-sign"),
        (4, "`Mars/Olympus` is not a time zone such as America/Los_Angeles"),
        (5, "more cells than the first line has columns"),
    ]
    assert rows[-1] == GoodRow(6, "bob@example.com", None, (), {})


@pytest.mark.parametrize("name", ["Bea\nTwo", "Bea\r\nBcc: x@example.com", "Bea\tTwo", "Bea\u2028Two", "Bea\0Two"])
def test_a_name_no_email_could_carry_is_a_bad_row_and_not_a_subscriber(tmp_path: Path, name: str) -> None:
    (row,) = found(tmp_path, f'email,first_name\nbea@example.com,"{name}"\n')
    assert isinstance(row, BadRow)
    assert row.reason == "`first_name` holds a line break or another control character"
    (row,) = found(tmp_path, json.dumps({"email": "bea@example.com", "first_name": name}), name="people.jsonl")
    assert isinstance(row, BadRow)
    assert row.reason == "`first_name` holds a line break or another control character"


def test_a_name_of_any_language_is_a_good_row(tmp_path: Path) -> None:
    names = ["Zoë", "\u05e0\u05d5\u05e2\u05d4", "Jean\u00a0Luc", "\u30e6\u30a6\u30ad", "\u0646\u200c\u0627"]
    text = "email,first_name\n" + "".join(f"p{n}@example.com,{name}\n" for n, name in enumerate(names))
    big_endian = "\ufeff".encode("utf-16-be") + text.encode("utf-16-be")
    for content in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16"), big_endian):
        rows = found(tmp_path, content)
        assert [row.fields["first_name"] for row in rows if isinstance(row, GoodRow)] == names


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_the_one_of_the_first_line(tmp_path: Path, separator: str) -> None:
    lines = ['email,"a name, or two",tags', 'ann@example.com,"Ann; really,\t""Ann""",']
    lines = [line.replace(",", separator) for line in lines]
    if separator != "\t":
        lines = [line.replace("\t", " ") for line in lines]
    rows = found(tmp_path, "\n".join(lines))
    if separator == "\t":
        assert isinstance(rows[0], BadRow)  # the tab inside the name is no letter
    else:
        assert isinstance(rows[0], GoodRow)
        assert list(rows[0].fields) == [f"a name{separator} or two"]


def test_a_line_break_in_a_column_that_is_left_out_costs_no_row(tmp_path: Path) -> None:
    content = 'email,notes\nann@example.com,"two\nlines, ""quoted"""\nbob@example.com,one\n'
    rows = found(tmp_path, content, Reading(ignored=frozenset({"notes"})))
    assert [(row.line, row.address) for row in rows if isinstance(row, GoodRow)] == [
        (2, "ann@example.com"),
        (4, "bob@example.com"),
    ]
    assert reasons(found(tmp_path, content)) == [(2, "`notes` holds a line break or another control character")]


def test_columns_of_other_names_are_mapped_and_others_left_out(tmp_path: Path) -> None:
    reading = Reading({"e-mail": "email", "vorname": "first_name"}, frozenset({"geheim"}))
    (row,) = found(tmp_path, "E-Mail;Vorname;Geheim;Ort\nann@example.com;Ann;x;Bonn\n", reading)
    assert row == GoodRow(2, "ann@example.com", None, (), {"first_name": "Ann", "ort": "Bonn"})
    said = refusal(tmp_path, b"email\nann@example.com\n", Reading({"mail": "email"}))
    assert said == ":1:1 --map and --ignore name columns that it has not: mail"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", " is empty: its first line must name a column `email`"),
        (
            b"name,mail\na,b\n",
            ":1:1 the first line must name a column `email`; it names: name, mail. "
            'If it has another name: --map "THEIR NAME=email"',
        ),
        (b"email\nK\xe9m@example.com\n", " cannot be read as UTF-8 text: save it as UTF-8"),
        (b"email,Email\n", ":1:1 two columns have the same name: `email`"),
        (b"\xff\xfee\0m\0a\0i\0l\0\n\0a", " cannot be read as UTF-16 text, as its first bytes say it is"),
        (
            b'email\n"ann@example.com\n' + b"x\n" * 70_000,
            ":65531:1 is not CSV: a cell is longer than any name: is a quote never closed?",
        ),
        (b"email\n" + b"x" * (MAX_LINE + 1), ":2:1 the line is longer than 1,048,576 characters"),
        (
            b"email," + b",".join(b"c%d" % n for n in range(200)) + b"\n",
            ":1:1 the first line names 201 columns; 200 at most",
        ),
        (
            b"ann@example.com,Ann\n",
            ":1:1 the first line holds an address: let a line before it name the columns",
        ),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path, content: bytes, says: str) -> None:
    assert refusal(tmp_path, content) == says


def test_a_row_says_for_itself_what_it_agreed_to_and_is_refused_when_nobody_does(tmp_path: Path) -> None:
    content = (
        "email,topics,consent_source,consent_at,consent_wording\n"
        "a@example.com,series;notes,the fair,2026-05-01,Yes.\n"
        "b@example.com,,,,\n"
        "c@example.com,notes,,,\n"
        "d@example.com,cats,,,\n"
        "e@example.com,,,tomorrow,\n"
        "f@example.com,,,2027-01-01,\n"
    )
    rows = found(tmp_path, content)
    at = datetime(2026, 5, 1, 8, tzinfo=UTC)
    assert [row.consents for row in rows if isinstance(row, GoodRow)] == [
        (Given("series", "the fair", "Yes.", at), Given("notes", "the fair", "Yes.", at)),
        None,
        (Given("notes", "", "Email me.", GIVEN),),
    ]
    assert reasons(rows) == [
        (5, "config/site.yaml names no topic `cats`"),
        (6, "`consent_at` is not a time such as 2026-05-31 or 2026-05-31T18:30"),
        (7, "the time of consent is in the future: nobody can have agreed yet"),
    ]
    alone = found(tmp_path, content, statement=Statement())
    assert reasons(alone)[:2] == [
        (3, "it says no topic: fill the column `topics`, or state one for the whole file with --topic"),
        (4, "it does not say where they agreed: fill `consent_source`, or state it for the file with --source"),
    ]
    nowhen = found(tmp_path, content, statement=Statement(("notes",), "paper"))
    assert reasons(nowhen)[0] == (
        3, "it does not say when they agreed: fill `consent_at`, or state it for the file with --given-at"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("purchased", "purchased"), ("Lead-Gen partner", "Lead-Gen"), ("lead_gen", "lead_gen"),
        ("a rented list", "rented"), ("bought list of June", "bought list"), ("scraped from a forum", "scraped"),
        ("paper form at the fair", ""), ("bought a book and ticked the box", ""), ("website repurchasedx", ""),
    ],
)  # fmt: skip
def test_whoever_was_bought_or_collected_elsewhere_is_refused(tmp_path: Path, source: str, word: str) -> None:
    assert bought(source) == word
    rows = found(tmp_path, f"email,consent_source,consent_at\na@example.com,{source},2026-05-01\n")
    assert (reasons(rows) == []) == (word == "")
    assert all(f"“{word}”" in reason for _, reason in reasons(rows))


def test_json_lines_are_rows_as_well(tmp_path: Path) -> None:
    given_notes = {"topic": "notes", "source": "web", "wording": "Notes.", "at": "2026-05-01T10:00:00+00:00"}
    lines = [
        {"email": "Ann@Example.com", "tags": ["a", "b;c"], "fields": {"City": "Bonn", "n": 3}, "city": "Köln"},
        {"email": "b@example.com", "consents": [given_notes]},
        {"email": "c@example.com", "tags": "x;y", "consents": [{"topic": "notes"}]},
        {"email": ["no"]},
        {"fields": []},
        {"email": "d@example.com", "first_name": "half \ud800"},
    ]
    content = "\n".join(json.dumps(line) for line in lines) + "\n\n[1]\n{\n" + "[" * 100_000 + "\n"
    rows = found(tmp_path, content, name="people.jsonl")
    assert rows[0] == GoodRow(
        1, "Ann@example.com", None, ("a", "b;c"), {"City": "Bonn", "n": "3", "city": "Köln"}
    )  # fmt: skip
    assert isinstance(rows[1], GoodRow)
    assert rows[1].consents == (Given("notes", "web", "Notes.", datetime(2026, 5, 1, 10, tzinfo=UTC)),)
    assert reasons(rows) == [
        (3, "`consents` is not a JSON list of objects with topic, source and at"),
        (4, "`email` is neither words nor a number"),
        (5, "`fields` is not an object"),
        (6, "`first_name` holds a line break or another control character"),
        (8, "the line is not one JSON object"),
        (9, "the line is not JSON"),
        (10, "the line is not JSON"),
    ]


def test_mailchimp_files_are_read_by_their_own_columns(tmp_path: Path) -> None:
    head = (
        "Email Address,First Name,MEMBER_RATING,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,CONFIRM_IP,TIMEZONE,CC,LEID,EUID,TAGS"
    )
    mailchimp = Reading(vendor="mailchimp")
    nobody_stated = Statement(("series",))
    subscribed = found(
        tmp_path,
        f"{head}\n"
        "ann@example.com,Ann,2,2024-02-01 09:00:00,192.0.2.1,2024-02-01 09:05:00,192.0.2.1,Europe/Berlin,DE,1,a1,"
        '"""VIP"",""Spring fair"""\n'
        "bob@example.com,,2,2024-02-01 09:00:00,,,,Nowhere,DE,2,b2,\n"
        "cy@example.com,,2,,,,,,,3,c3,\n",
        mailchimp,
        name="subscribed_members_export.csv",
        statement=nobody_stated,
    )
    confirmed = Given(
        "series", "signed up at Mailchimp, confirmed by email", "", datetime(2024, 2, 1, 9, 5, tzinfo=UTC)
    )
    assert subscribed[0] == GoodRow(
        2, "ann@example.com", "Europe/Berlin", ("VIP", "Spring fair"), {"first_name": "Ann"}, "unknown", (confirmed,)
    )
    assert isinstance(subscribed[1], GoodRow)
    assert subscribed[1].timezone is None
    assert isinstance(subscribed[2], BadRow)
    left_at = "ann@example.com,Ann,2,,,,,,,,,,2024-05-01 10:00:00,I forgot"
    gone = found(
        tmp_path, f"{head},UNSUB_TIME,UNSUB_REASON\n{left_at}\n", mailchimp, name="unsubscribed_members_export.csv"
    )
    assert gone == [
        LeftRow(2, "ann@example.com", "marketing", "unsubscribed", "mailchimp: unsubscribed, 2024-05-01")
    ]  # fmt: skip
    dead = found(tmp_path, f"{head},CLEAN_TIME\nann@example.com\nnobody\n", mailchimp, name="export.csv")
    assert dead[0] == LeftRow(2, "ann@example.com", "all", "undeliverable", "mailchimp: cleaned")
    assert reasons(dead) == [(3, "an email address must have an @-sign")]
    never = refusal(tmp_path, f"{head}\n".encode(), mailchimp, "nonsubscribed_members.csv")
    assert never.endswith("nonsubscribed addresses, and is not taken: these people never agreed to get email")


def test_listmonk_keeps_no_consent_so_it_must_be_stated_and_its_blocklist_holds(tmp_path: Path) -> None:
    content = (
        "uuid,email,name,attributes,status,created_at,updated_at\n"
        'u1,ann@example.com,Ann,"{""city"": ""Bonn"", ""n"": {""a"": 1}}",enabled,2024-01-01,2024-01-01\n'
        "u2,bob@example.com,Bob,{},blocklisted,2024-01-01,2024-01-01\n"
        "u3,cy@example.com,Cy,{},disabled,2024-01-01,2024-01-01\n"
        "u4,di@example.com,Di,[1],enabled,2024-01-01,2024-01-01\n"
    )
    rows = found(tmp_path, content, Reading(vendor="listmonk"))
    assert rows[0] == GoodRow(2, "ann@example.com", None, (), {"name": "Ann", "city": "Bonn", "n": '{"a": 1}'})
    assert rows[1] == LeftRow(3, "bob@example.com", "all", "unsubscribed", "listmonk: subscribers")
    assert reasons(rows) == [
        (4, "listmonk has disabled this person: enable them there first if they are to be mailed"),
        (5, "`attributes` is not a JSON object"),
    ]
    unstated = found(tmp_path, content, Reading(vendor="listmonk"), statement=Statement(("series",)))
    assert isinstance(unstated[0], BadRow)


@pytest.mark.parametrize(
    ("name", "head", "kind", "scope", "reason"),
    [
        ("suppression_bounces.csv", "status,reason,email,created", None, "all", "undeliverable"),
        ("x.csv", "status,reason,email,created", "bounces", "all", "undeliverable"),
        ("x.csv", "reason,email,created", None, "all", "undeliverable"),
        ("x.csv", "ip,email,created", None, "all", "complained"),
        ("x.csv", "email,created", None, "marketing", "unsubscribed"),
    ],
)
def test_sendgrid_suppressions_hold_here_too(
    tmp_path: Path, name: str, head: str, kind: str | None, scope: str, reason: str
) -> None:
    line = head.replace("email", "ann@example.com").replace("created", "1714557600")
    (row,) = found(tmp_path, f"{head}\n{line}\n", Reading(vendor="sendgrid", kind=kind), name=name)
    assert isinstance(row, LeftRow)
    assert (row.address, row.scope, row.reason) == ("ann@example.com", scope, reason)
    assert row.evidence.endswith(", 2024-05-01")


def test_sendgrid_contacts_are_people_and_blocks_are_nobodys_will(tmp_path: Path) -> None:
    sendgrid = Reading(vendor="sendgrid")
    (row,) = found(
        tmp_path, "EMAIL,FIRST_NAME,CONTACT_ID,CREATED_AT,UPDATED_AT\nann@example.com,Ann,c1,2024-01-01,\n", sendgrid
    )  # fmt: skip
    assert row == GoodRow(2, "ann@example.com", None, (), {"first_name": "Ann"})
    head = b"status,reason,email,created\n"
    assert "say which with --as bounces|blocks" in refusal(tmp_path, head, sendgrid)
    assert "does not hold against the address" in refusal(tmp_path, head, sendgrid, "suppression_blocks.csv")
    assert "write contacts, bounces" in refusal(tmp_path, head, Reading(vendor="sendgrid", kind="friends"))


@given(st.text(max_size=40) | st.text("'=+-@\t\r\na", max_size=8))
def test_a_safe_cell_begins_no_formula_and_is_taken_back_exactly(value: str) -> None:
    assert safe(value)[:1] not in tuple("=+-@\t\r\n")
    assert bare(safe(value)) == value


def test_refused_rows_are_written_for_a_spreadsheet_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("email,first_name\nnobody,=1+1\nann@example.com,Ann\n", encoding="utf-8")
    lines = list(refused_lines(path, laid_out(path, Reading()), iter([(2, "no address")])))
    assert lines == ["line,reason,email,first_name\r\n", "2,no address,nobody,'=1+1\r\n"]
    assert csv_line(["-1", 'a"b', "c,d"]) == '\'-1,"a""b","c,d"\r\n'


_letters = st.text("abcdefABCDEF019._+-'!=@ é", max_size=12)
_domains = st.sampled_from(
    ["example.com", "EXAMPLE.com", "xn--bcher-kva.example", "bücher.example", "a--b.example", "localhost", "a_b.com",
     "-a.com", "a..com", "test.test", "1.2.3.4", "example.c0m", "example.com.", "a" * 64 + ".com", "sub.Example.Org"]
) | _letters  # fmt: skip


@given(st.tuples(_letters | st.integers(60, 70).map("a".__mul__), _domains).map("@".join) | st.emails())
def test_the_fast_look_at_an_address_agrees_with_the_slow_one(text: str) -> None:
    try:
        slow: str | None = check(text)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error)) + r"\Z"):
            checked(text)
        return
    assert checked(text) == slow
    assert slow is not None
    assert hash_of(b"pepper", slow) == address_hash(b"pepper", slow)


def test_times_are_read_as_other_systems_write_them() -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    for written in ("2024-05-01T12:00:00Z", "2024-05-01 12:00:00+00:00", "2024-05-01 04:00:00", "1714564800"):
        assert moment(written, PACIFIC) == noon
    for written in ("", "soon", "2024-13-01", "99999999999999", "0001-01-01"):
        assert moment(written, PACIFIC) is None or written == "0001-01-01"
