"""Every page: reading changes nothing, nothing comes from elsewhere, hostile text stays text, broken links help."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation
from dripwell.core.tokens import Purpose
from dripwell.services import enroll
from dripwell.storage import clock, consents
from dripwell.storage.database import Database
from dripwell.storage.fast import Fast
from dripwell.web.app import ROUTES
from tests.integration import rows
from tests.integration.conftest import Mailed

DOORS = {
    "u": Purpose.UNSUBSCRIBE,
    "p": Purpose.PREFERENCES,
    "b": Purpose.BOOK,
    "v": Purpose.VIEW,
}
HOSTILE = "\"><script>alert(1)</script>{{7*7}}'&\u202e"


@pytest.fixture
def asked(installation: Installation) -> int:
    """The confirmation that somebody new asked for through a form: its enrollment."""
    return ask_once_more(installation)


def ask_once_more(installation: Installation) -> int:
    """Ask, for the first time or afresh: the enrollment of the newest confirmation."""
    with installation.database.transaction() as connection:
        person = enroll.ask_to_confirm(
            connection,
            address="new@example.com",
            form="series-request",
            pepper=installation.pepper,
            new_id=installation.new_id,
            times=clock.read(connection),
        )
        found: int = connection.execute(
            text("SELECT max(id) FROM enrollment WHERE subscriber_id = :id"), {"id": person}
        ).scalar_one()
    return found


@pytest.fixture
def paths(mailed: Mailed, asked: int, client: TestClient) -> dict[str, str]:
    """One address of every page, those of a booked call too."""
    with mailed.installation.database.transaction() as connection:
        booking = connection.execute(
            text(
                "INSERT INTO booking (subscriber_id, start_minute, minutes, phone, ask_for, timezone, booked_at)"
                " SELECT id, extract(epoch FROM wall())::bigint / 60 + 4000, 15, '(555) 010-0199', :name,"
                " 'America/Los_Angeles', wall() FROM subscriber WHERE id = :id RETURNING id"
            ).bindparams(name="Maria", id=mailed.subscriber)
        ).scalar_one()
        # A second person, whose booking page still offers times.
        other = rows.subscriber(connection, "zoe@example.com", pepper=mailed.installation.pepper)
        enrollment = rows.enrollment(connection, other, mailed.campaign, mailed.version)
        free = rows.message(connection, enrollment, step_key="1-adaptability")
    call = f"/b/call/{mailed.link(Purpose.CALL, booking)}"
    return {
        **{f"/{door}/{{word}}": f"/{door}/{mailed.link(purpose)}" for door, purpose in DOORS.items()},
        "free": f"/b/{mailed.link(Purpose.BOOK, free)}",
        "fewer": f"/p/{mailed.link(Purpose.PREFERENCES)}?show=fewer",
        "/s/{form}": "/s/series-request",
        "/k": "/k",
        "/k/{word}": f"/k/{mailed.link(Purpose.CONFIRM, asked)}",
        "/q/{word}": f"/q/{mailed.link(Purpose.KEEP)}",
        "/p/{word}/data": f"/p/{mailed.link(Purpose.PREFERENCES)}/data",
        "/p/{word}/data.json": f"/p/{mailed.link(Purpose.PREFERENCES)}/data.json",
        "/p/{word}/erase": f"/p/{mailed.link(Purpose.PREFERENCES)}/erase",
        "/c/{word}": f"/c/{mailed.link(Purpose.CLICK)}-1",
        "/b/call/{word}": call,
        "/b/call/{word}/cancel": f"{call}/cancel",
        "/b/call/{word}/change": f"{call}/change",
        "/b/call/{word}/calendar.ics": f"{call}/calendar.ics",
        "/privacy": "/privacy",
        "/art/{file}": "/art/shore-1.jpg",
        "/app.css": "/app.css",
        "/favicon.ico": "/favicon.ico",
        "/robots.txt": "/robots.txt",
        "/healthz": "/healthz",
    }


def _pages(client: TestClient, paths: dict[str, str]) -> dict[str, str]:
    found = {}
    for name, path in paths.items():
        answer = client.get(path)
        if answer.headers.get("content-type", "").startswith("text/html") and not path.startswith("/v/"):
            found[name] = answer.text
    found["unsubscribed"] = client.post(paths["/u/{word}"]).text
    found["broken"] = client.get("/u/x").text
    return found


def test_reading_every_page_changes_nothing_but_the_click_log(
    client: TestClient, mailed: Mailed, paths: dict[str, str]
) -> None:
    assert {path for path, _, _ in ROUTES} <= set(paths)
    with mailed.installation.database.transaction() as connection:
        before = rows.everything(connection)
    for path in paths.values():
        assert client.head(path).status_code in (200, 204, 302), path
    for path in paths.values():
        assert client.get(path).status_code in (200, 204, 302), path
    for path in paths.values():
        assert client.options(path).status_code == 405
    with mailed.installation.database.transaction() as connection:
        after = rows.everything(connection)
    assert len(after.pop("click")) == len(before.pop("click")) + 1
    assert after == before


def test_every_answer_carries_the_strict_headers(client: TestClient, paths: dict[str, str]) -> None:
    for path in (*paths.values(), "/nothing", "/u/x"):
        headers = client.get(path).headers
        assert headers["referrer-policy"] == "no-referrer", path
        assert headers["x-content-type-options"] == "nosniff"
        assert "noindex" in headers["x-robots-tag"]
        assert "set-cookie" not in headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "base-uri 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script" not in policy


def test_pages_are_light_have_a_title_and_load_nothing_from_elsewhere(
    client: TestClient, paths: dict[str, str]
) -> None:
    style = client.get("/app.css")
    assert len(style.content) < 9_000
    assert "immutable" in style.headers["cache-control"]
    for name, page in _pages(client, paths).items():
        assert len(gzip.compress(page.encode())) < 15_000, name
        assert re.search(r"<title>[^<]+ - KCLA</title>", page), name
        assert "<script" not in page
        assert " style=" not in page
        assert not re.search(r" on[a-z]+=", page)
        fetched = re.findall(r'<(?:link|img|iframe|object|source)[^>]*(?:href|src)="([^"]+)"', page)
        assert fetched, name
        assert all(address.startswith("/app.css?v=") for address in fetched), name


def test_no_page_shows_the_whole_address(client: TestClient, paths: dict[str, str]) -> None:
    for name, page in _pages(client, paths).items():
        assert "maria@example.com" not in page, name
        assert "new@example.com" not in page, name


def test_a_link_that_is_not_whole_helps_and_tells_nothing(
    client: TestClient, mailed: Mailed, paths: dict[str, str]
) -> None:
    texts: dict[bool, set[str]] = {True: set(), False: set()}
    for door, purpose in DOORS.items():
        word = mailed.link(purpose)
        nobody = mailed.link(purpose, 987_654)
        leads_out = door in ("u", "p")
        for path in (f"/{door}/{word[:-1]}", f"/{door}/{word}x", f"/{door}/é", f"/{door}/{mailed.link(Purpose.CALL)}"):
            answer = client.get(path)
            assert answer.status_code == 404
            texts[leads_out].add(answer.text)
        if door != "u":
            texts[leads_out].add(client.get(f"/{door}/{nobody}").text)
    for path in ("/b/call/x", "/b/call/x/cancel", "/c/x-1", "/b/call/x/calendar.ics"):
        texts[False].add(client.get(path).text)
    for path in ("/b/call/x/cancel", "/b/x"):
        texts[False].add(client.post(path).text)
    texts[True].add(client.post("/p/x").text)
    texts[True].add(client.get("/p/x/data").text)
    for pages in texts.values():
        (page,) = pages
        assert "This link is not complete" in page
        assert "Open it from the email again" in page
        assert "tel:+15550100142" in page
    # Whoever wants to leave can, without a link and without a call.
    (leaving,) = texts[True]
    assert f'href="mailto:{mailed.installation.site.reply_to}?subject=unsubscribe"' in leaving


def test_an_erased_person_is_nobody(client: TestClient, mailed: Mailed, paths: dict[str, str]) -> None:
    with mailed.installation.database.transaction() as connection:
        connection.execute(
            text("UPDATE subscriber SET state = 'erased', address = NULL, addr_hash = NULL WHERE id = :id"),
            {"id": mailed.subscriber},
        )
    for door in ("/b/{word}", "/v/{word}"):
        assert client.get(paths[door]).status_code == 404
    for answer in (client.get(paths["/p/{word}"]), client.post(paths["/p/{word}"], data={"do": "save"})):
        assert answer.status_code == 410
        assert "was erased" in answer.text
    assert client.get(paths["/c/{word}"]).status_code == 302
    assert client.post(paths["/u/{word}"]).status_code == 200


def test_hostile_names_stay_text(client: TestClient, mailed: Mailed, paths: dict[str, str]) -> None:
    with mailed.installation.database.transaction() as connection:
        connection.execute(
            text("UPDATE subscriber SET fields = jsonb_build_object('first_name', CAST(:name AS text))"),
            {"name": HOSTILE},
        )
        connection.execute(text("UPDATE booking SET ask_for = :name, phone = :name"), {"name": HOSTILE})
    filled = {
        "t": "1",
        "phone": HOSTILE,
        "ask_for": HOSTILE,
        "words": HOSTILE,
        "zone": HOSTILE,
        "show": HOSTILE,
        "consent": "yes",
    }
    pages = list(_pages(client, paths).values())
    pages += [
        client.post(paths["free"], data={**filled, "step": step}).text
        for step in ("time", "details", "wish", "edit-details", "book")
    ]
    pages.append(client.get(paths["/v/{word}"]).text)
    for page in pages:
        assert "<script" not in page
        assert "49" not in re.sub(r"\d{5,}|#[0-9A-Fa-f]{3,8}|[A-Za-z0-9_-]{20,}", "", page) or "{{7*7}}" in page
    assert any("&lt;script&gt;" in page for page in pages)


def test_the_email_can_be_read_in_the_browser(client: TestClient, paths: dict[str, str]) -> None:
    answer = client.get(paths["/v/{word}"])
    assert answer.status_code == 200
    assert "Maria" in answer.text
    assert "img-src 'self' https://mail.kcla.example/art/" in answer.headers["content-security-policy"]
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "<script" not in answer.text


@pytest.mark.parametrize(
    "name", ["nope.jpg", "..%2Fbase.mjml.j2", "%2e%2e/base.mjml.j2", "shore-1.JPG", "tokens.yaml", "."]
)
def test_only_pictures_of_the_theme_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/art/{name}").status_code == 404


def test_pictures_are_cached_by_everybody_alike(client: TestClient) -> None:
    answer = client.get("/art/shore-1.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert "public" in answer.headers["cache-control"]


def test_errors_have_the_same_calm_look(
    clientele: Callable[..., TestClient], client: TestClient, mailed: Mailed
) -> None:
    missing, wrong = client.get("/nothing"), client.post("/privacy")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    away = Database("postgresql://nobody@127.0.0.1:1/nowhere")
    unavailable = clientele(database=away).get(f"/p/{mailed.link(Purpose.PREFERENCES)}")
    away.close()
    crashed = clientele(versions=None).get(f"/p/{mailed.link(Purpose.PREFERENCES)}")
    assert (unavailable.status_code, crashed.status_code) == (503, 500)
    for answer in (missing, wrong, unavailable, crashed):
        assert "- KCLA</title>" in answer.text
        assert "tel:+15550100142" in answer.text
        assert "Traceback" not in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_health_tells_what_answers_and_no_secret(
    clientele: Callable[..., TestClient], client: TestClient, installation: Installation
) -> None:
    assert client.get("/healthz").json() == {"database": "ok", "redis": "ok"}
    away, silent = Database("postgresql://nobody:hush@127.0.0.1:1/nowhere"), Fast("redis://127.0.0.1:1/0")
    answer = clientele(database=away, fast=silent).get("/healthz")
    away.close()
    silent.close()
    assert (answer.status_code, answer.json()) == (503, {"database": "away", "redis": "away"})


# Preferences


def _subscriber(mailed: Mailed) -> tuple[str, datetime | None]:
    with mailed.installation.database.transaction() as connection:
        row = connection.execute(
            text("SELECT pace, paused_until FROM subscriber WHERE id = :id"), {"id": mailed.subscriber}
        ).one()
    return row.pace, row.paused_until


def test_preferences_show_topics_pace_and_where_a_series_is(client: TestClient, mailed: Mailed) -> None:
    page = client.get(f"/p/{mailed.link(Purpose.PREFERENCES)}").text
    assert re.search(r'value="seven-part-series" checked', page)
    assert not re.search(r'value="monthly-notes" checked', page)
    assert re.search(r'value="planned" checked', page)
    assert "1 of 7 emails have come so far" in page
    assert "Unsubscribe from everything" in page


@pytest.mark.parametrize(
    ("show", "chosen"), [("pause", "pause"), ("fewer", "weekly"), ("stop", "planned"), ("x", "planned")]
)
def test_a_link_can_bring_a_choice_forward_but_saves_nothing(
    client: TestClient, mailed: Mailed, show: str, chosen: str
) -> None:
    page = client.get(f"/p/{mailed.link(Purpose.PREFERENCES)}?show={show}").text
    assert re.search(rf'value="{chosen}" checked', page)
    assert ("Nothing is saved yet" in page) == (show in ("pause", "fewer"))
    if show == "stop":
        assert page.index("Stop this series") < page.index("What would you like")
    assert _subscriber(mailed) == ("planned", None)


def test_a_pause_holds_until_that_day_begins_where_the_person_is(client: TestClient, mailed: Mailed) -> None:
    path = f"/p/{mailed.link(Purpose.PREFERENCES)}"
    with mailed.installation.database.transaction() as connection:
        today = clock.read(connection).now
    until = (today + timedelta(days=14)).date()
    saved = client.post(
        path, data={"do": "save", "topic": "seven-part-series", "pace": "pause", "until": until.isoformat()}
    )
    assert "Saved" in saved.text
    pace, paused = _subscriber(mailed)
    assert pace == "planned"
    assert paused is not None
    assert (paused.astimezone().date() - until).days in (-1, 0, 1)
    again = client.post(path, data={"do": "save", "topic": "seven-part-series", "pace": "weekly"})
    assert re.search(r'value="weekly" checked', again.text)
    assert _subscriber(mailed) == ("weekly", None)


@pytest.mark.parametrize("until", ["", "soon", "0001-01-01", "9999-12-31", "2020-02-30", "2020-01-01"])
def test_a_pause_without_a_sensible_day_is_asked_again(client: TestClient, mailed: Mailed, until: str) -> None:
    answer = client.post(f"/p/{mailed.link(Purpose.PREFERENCES)}", data={"do": "save", "pace": "pause", "until": until})
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert _subscriber(mailed) == ("planned", None)


def test_a_wish_about_pace_makes_planned_messages_be_decided_again(client: TestClient, mailed: Mailed) -> None:
    with mailed.installation.database.transaction() as connection:
        connection.execute(text("UPDATE enrollment SET state = 'mailing' WHERE id = :id"), {"id": mailed.enrollment})
        planned = rows.message(connection, mailed.enrollment, step_key="2-psychological-healing", state="PLANNED")
    client.post(
        f"/p/{mailed.link(Purpose.PREFERENCES)}", data={"do": "save", "topic": "seven-part-series", "pace": "weekly"}
    )
    with mailed.installation.database.transaction() as connection:
        stale = connection.execute(
            text("SELECT state = 'PLANNED' AND fresh_until <= :now FROM message WHERE id = :id"),
            {"now": clock.read(connection).now, "id": planned},
        ).scalar()
    assert stale


def test_giving_up_a_topic_ends_its_series_and_is_kept_as_a_consent_row(client: TestClient, mailed: Mailed) -> None:
    path = f"/p/{mailed.link(Purpose.PREFERENCES)}"
    page = client.post(path, data={"do": "save", "topic": "monthly-notes", "pace": "planned"})
    assert re.search(r'value="monthly-notes" checked', page.text)
    assert not re.search(r'value="seven-part-series" checked', page.text)
    with mailed.installation.database.transaction() as connection:
        consents = connection.execute(
            text("SELECT topic, action FROM consent WHERE source = 'preferences' ORDER BY topic")
        ).all()
        pages = set(connection.execute(text("SELECT page FROM consent WHERE source = 'preferences'")).scalars())
        state = connection.execute(
            text("SELECT state, ended_reason FROM enrollment WHERE id = :id"), {"id": mailed.enrollment}
        ).one()
    assert [tuple(row) for row in consents] == [("monthly-notes", "give"), ("seven-part-series", "withdraw")]
    assert pages == {f"{mailed.installation.site.base_url}/p"}, "where, without the key to it"
    assert tuple(state) == ("exited", "no_consent")


def test_stopping_one_series_ends_that_one_only_and_only_ones_own(client: TestClient, mailed: Mailed) -> None:
    with mailed.installation.database.transaction() as connection:
        other = rows.subscriber(connection, "other@example.com", pepper=mailed.installation.pepper)
        theirs = rows.enrollment(connection, other, mailed.campaign, mailed.version)
    path = f"/p/{mailed.link(Purpose.PREFERENCES)}"
    for stop in (str(theirs), "abc", "9" * 30, "²", ""):
        client.post(path, data={"stop": stop})
    client.post(path)
    assert re.search(r'value="seven-part-series" checked', client.get(path).text)
    page = client.post(path, data={"stop": str(mailed.enrollment)})
    assert "This series has stopped" in page.text
    with mailed.installation.database.transaction() as connection:
        states = connection.execute(
            text("SELECT id, state, ended_reason FROM enrollment WHERE id IN (:mine, :theirs)"),
            {"mine": mailed.enrollment, "theirs": theirs},
        ).all()
    assert {tuple(row) for row in states} == {
        (mailed.enrollment, "exited", "stopped_series"),
        (theirs, "waiting", None),
    }


def test_unsubscribing_from_everything_on_the_preferences_page_can_be_undone_there(
    client: TestClient, mailed: Mailed
) -> None:
    path = f"/p/{mailed.link(Purpose.PREFERENCES)}"
    page = client.post(path, data={"do": "leave"}).text
    assert "You are unsubscribed" in page
    assert "You are unsubscribed." in client.get(path).text
    client.post(path, data={"do": "save", "topic": "monthly-notes", "pace": "weekly"})
    assert _subscriber(mailed) == ("planned", None)
    (undo,) = set(re.findall(r'action="(/u/[^"]+)"', page))
    assert "You get our emails again" in client.post(undo, data={"do": "undo"}).text


def test_a_preferences_link_works_for_thirty_days(client: TestClient, mailed: Mailed) -> None:
    with mailed.installation.database.transaction() as connection:
        now = clock.read(connection).wall_now
    young = mailed.link(Purpose.PREFERENCES, at=now - timedelta(days=29))
    old = mailed.link(Purpose.PREFERENCES, at=now - timedelta(days=31))
    assert client.get(f"/p/{young}").status_code == 200
    for answer in (client.get(f"/p/{old}"), client.post(f"/p/{old}", data={"do": "leave"})):
        assert answer.status_code == 410
        assert "This link has expired" in answer.text
        assert "link to unsubscribe works in every email" in answer.text
    with mailed.installation.database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM suppression")).scalar() == 0


# Confirmation


def test_pressing_the_button_confirms_starts_the_series_and_a_second_press_changes_nothing(
    client: TestClient, mailed: Mailed, asked: int
) -> None:
    path = f"/k/{mailed.link(Purpose.CONFIRM, asked)}"
    page = client.get(path)
    assert page.text.count("<button") == 1
    assert "Email me the seven-part series" in page.text
    assert "Your address is confirmed" in client.post(path).text
    with mailed.installation.database.transaction() as connection:
        before = rows.everything(connection)
        person = connection.execute(text("SELECT id, state FROM subscriber WHERE address = 'new@example.com'")).one()
        ledger = consents.ledger(connection, person.id)
        joined = connection.execute(
            text("SELECT count(*) FROM enrollment WHERE subscriber_id = :id AND campaign_id = :campaign"),
            {"id": person.id, "campaign": mailed.campaign},
        ).scalar()
    assert person.state == "active"
    assert joined == 1
    (consent,) = ledger
    assert (consent.topic, consent.action) == ("seven-part-series", "give")
    assert consent.wording.startswith("Email me the seven-part series")
    assert "Your address is confirmed" in client.post(path).text
    assert "Your address is confirmed" in client.get(path).text
    with mailed.installation.database.transaction() as connection:
        assert rows.everything(connection) == before


def test_a_fresh_confirmation_lifts_an_unsubscribe_but_no_complaint(
    client: TestClient, mailed: Mailed, asked: int
) -> None:
    from dripwell.services import leave
    from dripwell.storage import suppressions

    with mailed.installation.database.transaction() as connection:
        person = connection.execute(text("SELECT id FROM subscriber WHERE address = 'new@example.com'")).scalar_one()
        for scope, reason in (("marketing", "unsubscribed"), ("all", "complained")):
            leave.suppress(
                connection,
                subscriber_id=person,
                scope=scope,
                reason=reason,
                source="sendgrid",
                evidence="",
                times=clock.read(connection),
            )
    fresh = ask_once_more(mailed.installation)
    assert fresh != asked
    client.post(f"/k/{mailed.link(Purpose.CONFIRM, fresh)}")
    with mailed.installation.database.transaction() as connection:
        addr_hash, state = suppressions.address_of(connection, person) or (b"", "")
        assert suppressions.standing(connection, [addr_hash or b""], ["all", "marketing"]) == {(addr_hash, "all")}
    assert state == "unsubscribed"


def test_a_confirmation_link_works_for_seven_days(client: TestClient, mailed: Mailed, asked: int) -> None:
    with mailed.installation.database.transaction() as connection:
        now = clock.read(connection).wall_now
    assert client.get(f"/k/{mailed.link(Purpose.CONFIRM, asked, now - timedelta(days=6))}").status_code == 200
    assert client.post(f"/k/{mailed.link(Purpose.CONFIRM, asked, now - timedelta(days=8))}").status_code == 404


def test_a_series_enrollment_is_no_confirmation(client: TestClient, mailed: Mailed) -> None:
    assert client.post(f"/k/{mailed.link(Purpose.CONFIRM, mailed.enrollment)}").status_code == 404


def test_the_clinics_name_and_phone_come_from_the_site(
    clientele: Callable[..., TestClient], installation: Installation
) -> None:
    clinic = replace(installation.site.clinic, short_name="Clinic <b>", phone="+44 20 7946 0000")
    page = clientele(site=replace(installation.site, clinic=clinic)).get("/privacy").text
    assert "Your privacy - Clinic &lt;b&gt;</title>" in page
    assert 'href="tel:+442079460000"' in page
