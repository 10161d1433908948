"""See, take along and erase what the clinic holds, from one's own signed link."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation
from dripwell.core.tokens import Purpose
from dripwell.storage import clock
from tests.integration import rows
from tests.integration.conftest import Mailed


@pytest.fixture
def path(mailed: Mailed) -> str:
    return f"/p/{mailed.link(Purpose.PREFERENCES)}"


def test_the_page_tells_in_words_and_the_download_has_it_all(client: TestClient, path: str) -> None:
    page = client.get(f"{path}/data")
    assert page.status_code == 200
    for word in ("m•••a@example.com", "Maria", "Yes to “Seven-part series”", "Email me.", "Pacific time"):
        assert word in page.text
    assert "maria@example.com" not in page.text
    assert "Seven benefits: goes on" in page.text
    assert "Seven benefits, “How a mind makes room for change”: went out" in page.text
    for inner in ("seven-benefits", "1-adaptability", "prospect", "window", "processed", ">State<"):
        assert inner not in page.text, inner
    answer = client.get(f"{path}/data.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-disposition"] == 'attachment; filename="my-data.json"'
    found = answer.json()
    assert found["subscriber"]["address"] == "maria@example.com"
    assert [consent["wording"] for consent in found["consents"]] == ["Email me."]
    assert [email["email"] for email in found["emails"]] == ["1-adaptability"]


def test_hostile_words_stay_words(client: TestClient, mailed: Mailed, path: str) -> None:
    with mailed.installation.database.transaction() as connection:
        connection.execute(
            text("UPDATE subscriber SET fields = jsonb_build_object('first_name', CAST(:bad AS text)) WHERE id = :id"),
            {"bad": "<script>alert(1)</script>\"'&", "id": mailed.subscriber},
        )
    page = client.get(f"{path}/data").text
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_only_the_button_erases(client: TestClient, mailed: Mailed, path: str) -> None:
    with mailed.installation.database.transaction() as connection:
        before = rows.everything(connection)
    question = client.get(f"{path}/erase")
    assert "What stays" in question.text
    assert question.text.count("<button") == 1
    assert client.post(f"{path}/erase").status_code == 200
    assert client.post(f"{path}/erase", data={"do": "other"}).status_code == 200
    assert client.post(f"{path}/data").status_code == 405
    with mailed.installation.database.transaction() as connection:
        assert rows.everything(connection) == before
    assert "Your data is erased" in client.post(f"{path}/erase", data={"do": "erase"}).text
    with mailed.installation.database.transaction() as connection:
        address = connection.execute(
            text("SELECT address FROM subscriber WHERE id = :id"), {"id": mailed.subscriber}
        ).scalar_one()
        after = rows.everything(connection)
    assert address is None
    assert not any("maria@example.com" in row for table in after.values() for row in table)


def test_behind_an_erased_link_every_page_says_so(client: TestClient, path: str) -> None:
    client.post(f"{path}/erase", data={"do": "erase"})
    for page in ("", "/data", "/data.json", "/erase"):
        answer = client.get(path + page)
        assert answer.status_code == 410, page
        assert "was erased" in answer.text
    for page, button in (("", "save"), ("", "leave"), ("", "resume"), ("/erase", "erase")):
        answer = client.post(path + page, data={"do": button})
        assert answer.status_code == 410, button
        assert "was erased" in answer.text


def test_an_old_or_a_forged_link_shows_and_erases_nothing(client: TestClient, mailed: Mailed) -> None:
    with mailed.installation.database.transaction() as connection:
        now = clock.read(connection).wall_now
    old = f"/p/{mailed.link(Purpose.PREFERENCES, at=now - timedelta(days=31))}"
    for page in ("/data", "/data.json", "/erase"):
        answer = client.get(old + page)
        assert answer.status_code == 410
        assert "This link has expired" in answer.text
        assert client.get(f"/p/{mailed.link(Purpose.VIEW)}{page}").status_code == 404
    assert "This link has expired" in client.post(f"{old}/erase", data={"do": "erase"}).text
    with mailed.installation.database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM subscriber WHERE state = 'erased'")).scalar() == 0


def test_a_call_that_is_to_come_is_named_before_it_is_canceled(client: TestClient, mailed: Mailed, path: str) -> None:
    with mailed.installation.database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO booking (subscriber_id, message_id, start_minute, minutes, phone, ask_for, timezone,"
                " booked_at) SELECT id, :message, extract(epoch FROM wall() + interval '3 days')::bigint / 60, 15,"
                " '(555) 010-0199', 'Maria', 'America/Los_Angeles', wall() FROM subscriber WHERE id = :id"
            ),
            {"message": mailed.message, "id": mailed.subscriber},
        )
    assert "nobody will call you" in client.get(f"{path}/erase").text
    assert "(555) 010-0199" in client.get(f"{path}/data").text
    client.post(f"{path}/erase", data={"do": "erase"})
    with mailed.installation.database.transaction() as connection:
        booking = connection.execute(text("SELECT state, phone FROM booking")).one()
    assert booking.state == "canceled"
    assert "010-0199" not in str(booking.phone)


def test_resuming_ends_the_pause_and_only_the_pause(client: TestClient, mailed: Mailed, path: str) -> None:
    with mailed.installation.database.transaction() as connection:
        connection.execute(
            text("UPDATE subscriber SET pace = 'weekly', paused_until = wall() + interval '9 days' WHERE id = :id"),
            {"id": mailed.subscriber},
        )
    assert "Resume now" in client.get(path).text
    page = client.post(path, data={"do": "resume"}).text
    assert "The pause is over" in page
    assert "Resume now" not in page
    assert "The pause is over" not in client.post(path, data={"do": "resume"}).text
    with mailed.installation.database.transaction() as connection:
        row = connection.execute(
            text("SELECT pace, paused_until FROM subscriber WHERE id = :id"), {"id": mailed.subscriber}
        ).one()
    assert tuple(row) == ("weekly", None)


def test_the_way_back_is_a_link_to_the_website(client: TestClient, mailed: Mailed, path: str) -> None:
    link = '<a href="https://kcla.example">our website</a>'
    client.post(path, data={"do": "leave"})
    assert link in client.get(path).text
    assert link in client.post(f"{path}/erase", data={"do": "erase"}).text
    assert link in client.get(path).text


def test_the_privacy_page_names_what_the_forms_ask_for_and_for_how_long_it_is_kept(
    clientele: Callable[..., TestClient], installation: Installation
) -> None:
    site = installation.site
    page = clientele().get("/privacy").text
    assert "first name, the state you live in" in page
    assert "hear nothing from you for 12 months" in page
    assert "30 days after it was last given" in page
    form = replace(site.forms[0], asks=(("email", True), ("shoe_size", False)))
    other = clientele(site=replace(site, forms=(form,), keep_quiet_subscribers=None)).get("/privacy").text
    assert "shoe size" in other
    assert "first name" not in other
    assert "hear nothing" not in other


def test_what_is_kept_is_called_so_on_every_page(client: TestClient, path: str) -> None:
    pages = [client.get(place).text for place in (f"{path}/data", f"{path}/erase", "/privacy")]
    pages += [client.post(f"{path}/erase", data={"do": "erase"}).text, client.get(path).text]
    for page in pages:
        assert re.search(r"\b[Kk]e(ep|pt)\b", page)
        assert not re.search(r"\b(store|stored|hold|held)\b", page)
