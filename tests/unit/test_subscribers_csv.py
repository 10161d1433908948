"""A CSV of subscribers: good rows become values, bad rows a line and a reason, and a file nobody can read says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from dripwell.content.subscribers_csv import BadRow, GoodRow, count, read
from dripwell.core.errors import ContentError


def rows(tmp_path: Path, text: str) -> list[GoodRow | BadRow]:
    path = tmp_path / "people.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return list(read(path))


def refusal(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "people.csv"
    path.write_bytes(content)
    with pytest.raises(ContentError) as caught:
        count(path)
    return str(caught.value).removeprefix(str(path))


def test_good_rows_keep_their_fields_and_bad_rows_say_line_and_reason(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        "Email,first_name,timezone,tags,state\r\n"
        "Maria@Example.com,Maria,America/Denver,vip; staff,CA\r\n"
        "maria@example.com,Again,,,\r\n"
        "nobody,,,,\r\n"
        "sam@example.com,,Mars/Olympus,,\r\n"
        "ann@example.com,Ann,,,,one more\r\n"
        "bob@example.com\r\n",
    )
    assert found[0] == GoodRow(
        2, "Maria@example.com", "America/Denver", ("vip", "staff"), {"first_name": "Maria", "state": "CA"}
    )
    bad = [(row.line, row.reason) for row in found if isinstance(row, BadRow)]
    assert bad == [
        (3, "the same address stands in an earlier row"),
        (4, "An email address must have an @-sign."),
        (5, "`Mars/Olympus` is not a time zone such as America/Los_Angeles"),
        (6, "more cells than the first line has columns"),
    ]
    assert found[-1] == GoodRow(7, "bob@example.com", None, (), {})


@pytest.mark.parametrize("name", ["Bea\nTwo", "Bea\r\nBcc: x@example.com", "Bea\tTwo", "Bea\u2028Two", "Bea\0Two"])
def test_a_name_no_email_could_carry_is_a_bad_row_and_not_a_subscriber(tmp_path: Path, name: str) -> None:
    (found,) = rows(tmp_path, f'email,first_name\nbea@example.com,"{name}"\n')
    assert isinstance(found, BadRow)
    assert found.reason == "`first_name` holds a line break or another control character"


def test_a_name_of_any_language_is_a_good_row(tmp_path: Path) -> None:
    names = ["Zoë", "\u05e0\u05d5\u05e2\u05d4", "Jean\u00a0Luc", "\u30e6\u30a6\u30ad", "\u0646\u200c\u0627"]
    found = rows(tmp_path, "email,first_name\n" + "".join(f"p{n}@example.com,{name}\n" for n, name in enumerate(names)))
    assert [row.fields["first_name"] for row in found if isinstance(row, GoodRow)] == names


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", " is empty: its first line must name a column `email`"),
        (b"name,mail\na,b\n", ":1:1 the first line must name a column `email`; it names: name, mail"),
        (
            b"\xef\xbb\xbfemail;first_name\na@example.com;A\n",
            ":1:1 the first line must name a column `email`; it names: email;first_name. "
            "It is separated by semicolons: save it with commas",
        ),
        (b"email\nK\xe9m@example.com\n", " cannot be read as UTF-8 text: save it as UTF-8"),
        (b"email,Email\n", ":1:1 two columns have the same name"),
    ],
)
def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path, content: bytes, says: str) -> None:
    assert refusal(tmp_path, content) == says
