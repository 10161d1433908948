"""The API: keys, what each request does to the record, the same request twice, and bad input."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation
from dripwell.core.address import address_hash
from dripwell.services import erase, keys
from dripwell.storage import api_keys, clock
from dripwell.storage.database import Database
from tests.integration import rows
from tests.integration.callers import bearing, key_for
from tests.integration.conftest import Mailed

API = "/api/v1"
CONSENT = {
    "topic": "seven-part-series",
    "source": "front desk, in writing",
    "wording": "Yes, email me the series.",
    "given_at": "2026-11-01T09:30:00-08:00",
}
MARIA = "maria@example.com"


def one(installation: Installation, sql: str, **values: object) -> Any:
    with installation.database.transaction() as connection:
        return connection.execute(text(sql), values).scalar_one()


def told(client: TestClient, path: str, body: object, secret: str, **more: str) -> Any:
    return client.post(f"{API}/{path}", json=body, headers=bearing(secret, **more))


def code(response: Any) -> str:
    """The code of an error, whose shape is checked on the way."""
    error = response.json()["error"]
    assert set(error) == {"code", "problem", "who", "next", "at"}
    assert error["problem"]
    assert error["next"]
    return str(error["code"])


# Keys


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer nonsense", "Basic eDp5", "Bearer dw_" + "A" * 43, "Bearer é"])
def test_a_request_without_a_key_in_force_is_refused_with_a_challenge(client: TestClient, header: str) -> None:
    headers = {"authorization": header.encode("latin-1")} if header else {}
    response = client.post(f"{API}/subscribers/find", json={"address": MARIA}, headers=headers)  # type: ignore[arg-type]
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer ")
    assert code(response) == "no_key"


def test_a_key_may_do_what_its_scopes_say_and_nothing_else(client: TestClient, installation: Installation) -> None:
    secret = key_for(installation, scopes=["report:read"])
    response = told(client, "subscribers", {"address": MARIA}, secret)
    assert response.status_code == 403
    assert "subscribers:write" in response.headers["www-authenticate"]
    assert response.json()["error"]["who"] == "operator"
    assert one(installation, "SELECT count(*) FROM subscriber") == 0


def test_a_revoked_key_and_an_expired_one_open_nothing_from_the_next_request_on(
    client: TestClient, installation: Installation
) -> None:
    secret, other = key_for(installation, "one"), key_for(installation, "other")
    assert told(client, "subscribers/find", {"address": MARIA}, secret).status_code == 404
    with installation.database.transaction() as connection:
        keys.revoke(connection, "one", actor="test")
        connection.execute(text("UPDATE api_key SET expires_at = wall() WHERE name = 'other'"))
    for gone in (secret, other):
        assert told(client, "subscribers/find", {"address": MARIA}, gone).status_code == 401
    again = key_for(installation, "one")  # the name is free once its key is revoked
    assert told(client, "subscribers/find", {"address": MARIA}, again).status_code == 404


def test_a_key_is_kept_as_a_hash_and_stands_in_no_log(
    client: TestClient, installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = key_for(installation)
    told(client, "subscribers", {"address": MARIA, "consent": CONSENT, "nonsense": 1}, secret)
    told(client, "subscribers", {"address": MARIA, "consent": CONSENT}, secret, idempotency_key="k1")
    with installation.database.transaction() as connection:
        everything = json.dumps(rows.everything(connection))
    assert secret not in everything
    assert secret[9:] not in everything
    assert secret[3:] not in caplog.text
    assert MARIA not in caplog.text
    assert one(installation, "SELECT last_used = CAST(wall() AT TIME ZONE 'UTC' AS date) FROM api_key")


def test_a_key_that_has_used_up_its_minute_is_told_when_to_come_back(
    client: TestClient, installation: Installation
) -> None:
    secret = key_for(installation, per_minute=3)
    statuses = []
    for _ in range(9):  # a minute may end on the way, once
        response = told(client, "subscribers/find", {"address": MARIA}, secret)
        statuses.append(response.status_code)
    assert statuses[:3] == [404, 404, 404]
    assert 429 in statuses
    assert code(response) == "too_many"
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.headers["ratelimit-policy"] == '"minute";q=3;w=60'
    assert '"minute";r=0;' in response.headers["ratelimit"]


# Subscribers


def test_a_subscriber_without_consent_is_unconfirmed_and_is_mailed_nothing(
    client: TestClient, installation: Installation
) -> None:
    response = told(client, "subscribers", {"address": MARIA, "fields": {"first_name": "Maria"}}, key_for(installation))
    assert response.status_code == 200
    assert (response.json()["added"], response.json()["state"]) == (True, "unconfirmed")
    assert one(installation, "SELECT count(*) FROM message") == 0
    assert one(installation, "SELECT count(*) FROM consent") == 0


def test_a_confirmation_is_mailed_when_a_form_is_named(client: TestClient, installation: Installation) -> None:
    response = told(client, "subscribers", {"address": MARIA, "confirm": "series-request"}, key_for(installation))
    assert response.json()["confirming"] is True
    assert one(installation, "SELECT state FROM subscriber") == "unconfirmed"
    assert one(installation, "SELECT count(*) FROM message WHERE lane = 'confirm'") == 1


def test_consent_is_kept_with_its_words_source_and_time(client: TestClient, installation: Installation) -> None:
    secret = key_for(installation)
    first = told(client, "subscribers", {"address": MARIA, "consent": CONSENT}, secret).json()
    second = told(client, "subscribers", {"address": MARIA.upper(), "consent": CONSENT}, secret).json()
    assert (first["state"], first["consent"], second["consent"]) == ("active", "recorded", "known")
    assert (second["added"], second["id"]) == (False, first["id"])
    assert one(installation, "SELECT count(*) FROM consent") == 1
    assert one(installation, "SELECT source FROM consent") == CONSENT["source"]
    assert one(installation, "SELECT given_at = '2026-11-01 17:30Z' FROM consent")


def test_consent_lifts_no_suppression_and_the_answer_says_so(client: TestClient, mailed: Mailed) -> None:
    installation, secret = mailed.installation, key_for(mailed.installation)
    with installation.database.transaction() as connection:
        connection.execute(
            text("SELECT suppress_person(:who, 'marketing', 'unsubscribed', 'page', 'test', 'unsubscribed', wall())"),
            {"who": mailed.subscriber},
        )
    answer = told(client, "subscribers", {"address": MARIA, "consent": CONSENT}, secret).json()
    assert answer["suppressed"] == {"marketing": "unsubscribed"}
    assert answer["state"] == "unsubscribed"
    joined = told(client, "campaigns/seven-benefits/enrollments", {"address": MARIA}, secret).json()
    assert (joined["joined"], joined["why_not"]) == (False, "suppressed")


def test_older_consent_does_not_undo_what_the_person_said_later(client: TestClient, mailed: Mailed) -> None:
    with mailed.installation.database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO consent (subscriber_id, topic, action, source, given_at)"
                " VALUES (:who, :topic, 'withdraw', 'page', '2026-11-01 18:00Z')"
            ),
            {"who": mailed.subscriber, "topic": CONSENT["topic"]},
        )
    secret = key_for(mailed.installation)
    before = told(client, "subscribers", {"address": MARIA, "consent": CONSENT}, secret).json()
    assert before["consent"] == "withdrawn_since"
    later = {**CONSENT, "given_at": "2026-11-01T10:30:00-08:00"}
    assert told(client, "subscribers", {"address": MARIA, "consent": later}, secret).json()["consent"] == "recorded"


def test_who_was_erased_is_not_brought_back_by_another_program(client: TestClient, mailed: Mailed) -> None:
    secret = key_for(mailed.installation)
    erase.erase(mailed.installation.database, mailed.subscriber, pepper=mailed.installation.pepper, actor="subscriber")
    # An event that comes late must not hide that they were erased.
    with mailed.installation.database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO suppression (addr_hash, scope, action, reason, source, evidence)"
                " VALUES (:hash, 'marketing', 'suppress', 'unsubscribed', 'one-click', '')"
            ),
            {"hash": address_hash(mailed.installation.pepper, MARIA)},
        )
    response = told(client, "subscribers", {"address": MARIA, "consent": CONSENT}, secret)
    assert (response.status_code, code(response)) == (409, "refused")
    assert one(mailed.installation, "SELECT count(*) FROM subscriber WHERE address IS NOT NULL") == 0
    assert one(mailed.installation, "SELECT count(*) FROM consent") == 0


def test_consent_from_the_future_is_refused(client: TestClient, installation: Installation) -> None:
    later = {**CONSENT, "given_at": "2099-01-01T00:00:00Z"}
    response = told(client, "subscribers", {"address": MARIA, "consent": later}, key_for(installation))
    assert (response.status_code, code(response)) == (409, "refused")
    assert one(installation, "SELECT count(*) FROM subscriber") == 0


def test_somebody_is_looked_up_by_a_body_and_nothing_changes(client: TestClient, mailed: Mailed) -> None:
    secret = key_for(mailed.installation)
    told(client, "subscribers/find", {"address": MARIA}, secret)  # the key was used today
    with mailed.installation.database.transaction() as connection:
        before = {name: kept for name, kept in rows.everything(connection).items() if name != "api_use"}
    found = told(client, "subscribers/find", {"address": MARIA}, secret).json()
    with mailed.installation.database.transaction() as connection:
        after = {name: kept for name, kept in rows.everything(connection).items() if name != "api_use"}
    assert (found["state"], found["topics"], found["fields"]) == (
        "active",
        ["seven-part-series"],
        {"first_name": "Maria"},
    )
    assert after == before


# Events, enrollments, report


def test_an_event_reaches_the_goal_of_a_series_and_ends_it(client: TestClient, mailed: Mailed) -> None:
    secret = key_for(mailed.installation)
    body = {"address": MARIA, "event": "consultation.booked", "id": "desk-17"}
    assert told(client, "events", body, secret).json()["recorded"] is True
    assert told(client, "events", body, secret).json()["recorded"] is False
    assert one(mailed.installation, "SELECT count(*) FROM happening") == 1
    assert one(mailed.installation, "SELECT ended_reason FROM enrollment") == "goal"


def test_an_event_that_is_not_declared_is_refused_with_a_guess(client: TestClient, mailed: Mailed) -> None:
    body = {"address": MARIA, "event": "consultation.boked"}
    response = told(client, "events", body, key_for(mailed.installation))
    assert (response.status_code, code(response)) == (422, "unknown_name")
    assert "consultation.booked" in response.json()["error"]["next"]


def test_enrolling_says_why_somebody_does_not_join(client: TestClient, mailed: Mailed) -> None:
    secret = key_for(mailed.installation)
    path = "campaigns/seven-benefits/enrollments"
    told(client, "subscribers", {"address": "new@example.com", "consent": CONSENT}, secret)
    assert told(client, path, {"address": "new@example.com"}, secret).json()["joined"] is True
    assert told(client, path, {"address": MARIA}, secret).json()["why_not"] == "in_it"
    assert told(client, path, {"address": "nobody@example.com"}, secret).status_code == 404
    assert told(client, "campaigns/none/enrollments", {"address": MARIA}, secret).status_code == 404
    with mailed.installation.database.transaction() as connection:
        connection.execute(text("UPDATE campaign SET state = 'paused' WHERE name = 'seven-benefits'"))
    assert told(client, path, {"address": MARIA}, secret).status_code == 409


def test_the_report_is_read_and_adds_up(client: TestClient, mailed: Mailed) -> None:
    secret = key_for(mailed.installation)
    report = client.get(f"{API}/campaigns/seven-benefits/report", headers=bearing(secret)).json()
    assert (report["joined"], report["planned"], report["adds_up"]) == (1, 1, True)
    assert report["steps"][0]["key"] == "1-adaptability"


# The same request twice


def test_the_same_request_under_one_key_is_answered_as_before_and_happens_once(
    client: TestClient, mailed: Mailed
) -> None:
    secret = key_for(mailed.installation)
    body = {"address": MARIA, "event": "consultation.canceled"}
    first = told(client, "events", body, secret, idempotency_key="a-1")
    second = told(client, "events", body, secret, idempotency_key="a-1")
    assert second.json() == first.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert one(mailed.installation, "SELECT count(*) FROM happening") == 1
    other = told(client, "events", {**body, "event": "consultation.booked"}, secret, idempotency_key="a-1")
    assert (other.status_code, code(other)) == (422, "key_used")
    elsewhere = told(client, "events", body, key_for(mailed.installation, "other"), idempotency_key="a-1")
    assert "idempotent-replayed" not in elsewhere.headers


def test_a_refused_request_can_be_mended_under_the_same_key(client: TestClient, mailed: Mailed) -> None:
    secret = key_for(mailed.installation)
    body = {"address": "late@example.com", "event": "consultation.canceled"}
    assert told(client, "events", body, secret, idempotency_key="b").status_code == 404
    told(client, "subscribers", {"address": "late@example.com"}, secret)
    assert told(client, "events", body, secret, idempotency_key="b").status_code == 200


def test_answers_are_forgotten_after_a_day(client: TestClient, mailed: Mailed) -> None:
    secret = key_for(mailed.installation)
    body = {"address": MARIA, "event": "consultation.canceled"}
    told(client, "events", body, secret, idempotency_key="c")
    with mailed.installation.database.transaction() as connection:
        connection.execute(text("UPDATE api_answer SET at = at - interval '25 hours'"))
    assert "idempotent-replayed" not in told(client, "events", body, secret, idempotency_key="c").headers
    with mailed.installation.database.transaction() as connection:
        connection.execute(text("UPDATE api_answer SET at = at - interval '25 hours'"))
        assert api_keys.forget_answers(connection) == 1


def test_of_simultaneous_requests_under_one_key_one_is_carried_out(client: TestClient, mailed: Mailed) -> None:
    secret = key_for(mailed.installation)
    body = {"address": MARIA, "event": "consultation.canceled"}
    barrier = Barrier(4)

    def ask() -> Any:
        barrier.wait(timeout=20)
        return told(client, "events", body, secret, idempotency_key="d")

    with ThreadPoolExecutor(4) as pool:
        answers = [one.result(timeout=60) for one in [pool.submit(ask) for _ in range(4)]]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.text for answer in answers}) == 1
    assert one(mailed.installation, "SELECT count(*) FROM happening") == 1


def test_who_waits_too_long_for_the_same_request_is_told_to_ask_again(mailed: Mailed) -> None:
    key_for(mailed.installation)
    database = mailed.installation.database
    with database.transaction() as first:
        assert api_keys.claim(first, 1, "e", b"x" * 32) is None
        with pytest.raises(api_keys.StillAnswering), database.transaction() as second:
            api_keys.claim(second, 1, "e", b"x" * 32, patience=0.05)


# Bad input

GOOD = json.dumps({"address": MARIA}).encode()
BAD: dict[str, tuple[bytes, str, int]] = {
    "no body": (b"", "application/json", 400),
    "not JSON": (b"{", "application/json", 400),
    "bad UTF-8": (b'{"address": "\xff\xfe"}', "application/json", 400),
    "half a surrogate pair": (b'{"address": "\\ud800@example.com"}', "application/json", 400),
    "a NUL": (b'{"address": "m\\u0000@example.com"}', "application/json", 422),
    "very deep": (b"[" * 30_000 + b"]" * 30_000, "application/json", 400),
    "a key twice": (b'{"address": "a@example.com", "address": "b@example.com"}', "application/json", 400),
    "NaN": (b'{"address": NaN}', "application/json", 400),
    "a number beyond int64": (b'{"address": 9223372036854775808}', "application/json", 422),
    "a number of 5,000 digits": (b'{"address": ' + b"9" * 5000 + b"}", "application/json", 400),
    "an unknown field": (b'{"address": "m@example.com", "admin": true}', "application/json", 422),
    "a list": (b"[]", "application/json", 422),
    "null": (b"null", "application/json", 422),
    "too large": (b'{"address": "' + b"a" * 70_000 + b'"}', "application/json", 413),
    "a form": (b"address=m%40example.com", "application/x-www-form-urlencoded", 415),
    "no type": (GOOD, "", 415),
    "another charset": (GOOD, "application/json; charset=utf-16", 415),
    "two addresses": (b'{"address": "a@example.com, b@example.com"}', "application/json", 422),
    "a header": (b'{"address": "a@example.com\\r\\nBcc: b@example.com"}', "application/json", 422),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("path", ["subscribers", "subscribers/find", "events", "campaigns/seven-benefits/enrollments"])
def test_bad_input_is_refused_clearly_and_changes_nothing(
    client: TestClient, installation: Installation, name: str, path: str
) -> None:
    body, kind, status = BAD[name]
    headers = bearing(key_for(installation)) | ({"content-type": kind} if kind else {})
    response = client.post(f"{API}/{path}", content=body, headers=headers)
    assert response.status_code == status
    assert code(response) in ("bad_json", "too_large", "not_json", "invalid")
    assert MARIA not in response.text
    assert one(installation, "SELECT count(*) FROM subscriber") == 0


def test_a_body_that_says_nothing_of_its_size_is_cut_off(client: TestClient, installation: Installation) -> None:
    headers = bearing(key_for(installation)) | {"content-type": "application/json"}
    response = client.post(f"{API}/events", content=iter([b" " * 8192] * 100), headers=headers)
    assert (response.status_code, code(response)) == (413, "too_large")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "events", 405), ("POST", "none", 404), ("GET", "", 404)]
)
def test_a_wrong_path_or_method_is_answered_in_the_same_shape(
    client: TestClient, method: str, path: str, status: int
) -> None:
    response = client.request(method, f"{API}/{path}")
    assert response.status_code == status
    assert code(response) in ("no_such_path", "method_not_allowed")
    assert (response.headers.get("allow") == "POST") is (status == 405)


def test_a_database_that_is_away_is_said_with_when_to_come_back(clientele: Any, installation: Installation) -> None:
    away = Database("postgresql://postgres@127.0.0.1:1/nothing", pool=1)
    client = clientele(database=away)
    response = told(client, "subscribers/find", {"address": MARIA}, "dw_" + "A" * 43)
    away.close()
    assert (response.status_code, code(response)) == (503, "unavailable")
    assert response.headers["retry-after"] == "60"


def test_the_times_of_a_key_are_wall_time(installation: Installation) -> None:
    with installation.database.transaction() as connection:
        clock.forward(connection, clock.read(connection).now + timedelta(days=400))
        times = clock.read(connection)
        secret = installation.new_api_key()
        expires = keys.add(
            connection,
            name="a",
            scopes=["enroll"],
            secret=secret,
            times=times,
            actor="test",
            lasts=timedelta(days=1),
        )
        assert expires == times.wall_now + timedelta(days=1)
        caller = keys.admit(connection, secret, times)
    assert caller is not None
    assert caller.scopes == {"enroll"}
