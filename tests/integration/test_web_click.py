"""Click links: a stored target, or our own page. No URL is ever taken out of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from starlette.testclient import TestClient

from dripwell.core.tokens import Purpose
from dripwell.storage.database import Database
from tests.integration.conftest import Mailed

TARGETS = {"https://kcla.example/article", "http://kcla.example/plain"}


def _clicks(mailed: Mailed) -> list[tuple[int, int]]:
    with mailed.installation.database.transaction() as connection:
        found = connection.execute(text("SELECT message_id, number FROM click ORDER BY id"))
        return [(row.message_id, row.number) for row in found]


def test_a_click_redirects_to_the_stored_target_and_is_counted(client: TestClient, mailed: Mailed) -> None:
    answer = client.get(f"/c/{mailed.link(Purpose.CLICK)}-1")
    assert answer.status_code == 302
    assert answer.headers["location"] == "https://kcla.example/article"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert _clicks(mailed) == [(mailed.message, 1)]


def test_looking_is_not_counted(client: TestClient, mailed: Mailed) -> None:
    answer = client.head(f"/c/{mailed.link(Purpose.CLICK)}-1")
    assert (answer.status_code, answer.headers["location"]) == (302, "https://kcla.example/article")
    assert _clicks(mailed) == []


def test_the_booking_link_leads_to_this_persons_booking_page(client: TestClient, mailed: Mailed) -> None:
    answer = client.get(f"/c/{mailed.link(Purpose.CLICK)}-0")
    assert answer.headers["location"] == f"/b/{mailed.link(Purpose.BOOK)}"
    assert client.get(answer.headers["location"]).status_code == 200


@pytest.mark.parametrize("state", ["erased", "unsubscribed"])
def test_the_link_of_somebody_who_left_is_a_plain_redirect(client: TestClient, mailed: Mailed, state: str) -> None:
    with mailed.installation.database.transaction() as connection:
        if state == "erased":
            connection.execute(text("UPDATE subscriber SET state = 'erased', address = NULL, addr_hash = NULL"))
        else:
            connection.execute(text("UPDATE subscriber SET state = :state"), {"state": state})
    assert client.get(f"/c/{mailed.link(Purpose.CLICK)}-1").status_code == 302
    assert _clicks(mailed) == []


def test_without_click_tracking_old_links_redirect_and_record_nothing(
    clientele: Callable[..., TestClient], mailed: Mailed
) -> None:
    client = clientele(site=replace(mailed.installation.site, track_clicks=False))
    assert client.get(f"/c/{mailed.link(Purpose.CLICK)}-2").headers["location"] == "http://kcla.example/plain"
    assert _clicks(mailed) == []


def test_while_postgresql_is_away_a_click_is_a_calm_page(clientele: Callable[..., TestClient], mailed: Mailed) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/nowhere")
    answer = clientele(database=away).get(f"/c/{mailed.link(Purpose.CLICK)}-1")
    away.close()
    assert answer.status_code == 503
    assert "location" not in answer.headers
    assert "try again" in answer.text
    assert answer.headers["retry-after"] == "60"


@pytest.mark.parametrize(
    "tail", ["-3", "-99999", "-01", "-", "", "-1/x", "-1-1", "--1", "-١", "-1?u=https://evil.example", "-0x1"]
)
def test_a_number_that_is_not_one_of_the_emails_is_our_own_page(client: TestClient, mailed: Mailed, tail: str) -> None:
    answer = client.get(f"/c/{mailed.link(Purpose.CLICK)}{tail}")
    if "?" in tail:
        assert answer.headers["location"] == "https://kcla.example/article"
    else:
        assert answer.status_code == 404
        assert "location" not in answer.headers


def test_no_redirect_follows_the_host_header(client: TestClient, mailed: Mailed) -> None:
    for path in ("/c/0/", f"/c/{mailed.link(Purpose.CLICK)}-1/", "/u/x/", "/privacy/", "//evil.example/"):
        answer = client.get(path, headers={"host": "evil.example"})
        assert answer.status_code == 404
        assert "location" not in answer.headers


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mangled_word_leads_anywhere(client: TestClient, mailed: Mailed, data: st.DataObject) -> None:
    word = f"{mailed.link(Purpose.CLICK)}-1"
    mangled = data.draw(
        st.one_of(
            st.text(max_size=80),
            st.sampled_from(
                [
                    "https://evil.example",
                    "//evil.example",
                    "\\evil.example",
                    "%2F%2Fevil.example",
                    "javascript:alert(1)",
                ]
            ),
            st.builds(
                lambda at, letter: word[:at] + letter + word[at + 1 :],
                st.integers(0, len(word) - 1),
                st.characters(codec="ascii"),
            ),
            st.sampled_from([f"{mailed.link(purpose)}-1" for purpose in Purpose if purpose is not Purpose.CLICK]),
        )
    )
    answer = client.get(f"/c/{quote(mangled, safe='')}")
    location = answer.headers.get("location")
    assert location is None or location in TARGETS or location.startswith("/b/")
    if mangled != word and location in TARGETS:
        assert mangled.rpartition("-")[0] == word.rpartition("-")[0]  # only another number of the same email
