"""The webhook's door: checked on the raw bytes, kept as they came, nothing parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import text
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation
from dripwell.storage.database import Database
from tests.integration.conftest import signed

LARGEST = 5 * 1024 * 1024


def _inbox(installation: Installation) -> list[bytes]:
    with installation.database.transaction() as connection:
        return [bytes(raw) for raw in connection.execute(text("SELECT raw FROM webhook_inbox ORDER BY id")).scalars()]


def test_a_signed_body_is_kept_byte_for_byte(client: TestClient, installation: Installation) -> None:
    body = b'[{"event" : "delivered"}]\r\n'
    answer = client.post("/webhooks/sendgrid", content=body, headers=signed(body))
    assert (answer.status_code, answer.content) == (204, b"")
    assert _inbox(installation) == [body]


def test_what_is_signed_but_not_json_is_kept_too(client: TestClient, installation: Installation) -> None:
    body = b"\xff not json"
    assert client.post("/webhooks/sendgrid", content=body, headers=signed(body)).status_code == 204
    assert _inbox(installation) == [body]


def test_what_is_not_signed_by_the_provider_is_turned_away(client: TestClient, installation: Installation) -> None:
    body = b"[]"
    good = signed(body)
    attempts = [
        {},
        {**good, "X-Twilio-Email-Event-Webhook-Signature": "AAAA"},
        {**good, "X-Twilio-Email-Event-Webhook-Timestamp": "1793000001"},
        {name: value for name, value in good.items() if "Timestamp" not in name},
    ]
    for headers in attempts:
        assert client.post("/webhooks/sendgrid", content=body, headers=headers).status_code == 401
    assert client.post("/webhooks/sendgrid", content=b"[ ]", headers=good).status_code == 401
    assert _inbox(installation) == []


def test_without_a_key_nothing_is_genuine(clientele: Callable[..., TestClient], installation: Installation) -> None:
    assert clientele(door=None).post("/webhooks/sendgrid", content=b"[]", headers=signed(b"[]")).status_code == 401
    assert _inbox(installation) == []


def test_five_megabytes_pass_and_one_byte_more_does_not(client: TestClient, installation: Installation) -> None:
    for size, status in ((LARGEST, 204), (LARGEST + 1, 413)):
        body = b"x" * size
        assert client.post("/webhooks/sendgrid", content=body, headers=signed(body)).status_code == status

    def endless() -> Iterator[bytes]:
        for _ in range(6):
            yield b"x" * 1024 * 1024

    assert client.post("/webhooks/sendgrid", content=endless()).status_code == 413
    assert [len(raw) for raw in _inbox(installation)] == [LARGEST]


def test_while_postgresql_is_away_the_provider_is_asked_to_come_again(clientele: Callable[..., TestClient]) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/nowhere")
    answer = clientele(database=away).post("/webhooks/sendgrid", content=b"[]", headers=signed(b"[]"))
    away.close()
    assert answer.status_code == 503


def test_only_post_is_answered(client: TestClient) -> None:
    assert client.get("/webhooks/sendgrid").status_code == 405
