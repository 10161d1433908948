"""A thousand people are one request: real emails, a plain HTTP capture, the provider's own OpenAPI file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import text

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.core.campaign import Lane
from dripwell.services import enroll, plan, publish, send
from dripwell.settings import Settings
from dripwell.storage import clock
from dripwell.storage.database import Database
from tests import series
from tests.conftest import ROOT
from tests.series import CAMPAIGN


class Capture(BaseHTTPRequestHandler):
    """Accepts everything and keeps the bodies."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]

    def do_POST(self) -> None:
        """Take one request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(body)  # type: ignore[attr-defined]
        self.send_response(202)
        self.send_header("X-Message-Id", f"capture-{len(self.server.bodies)}")  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def capture() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Capture)
    server.daemon_threads = True
    server.bodies = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def installation(
    database: Database, redis_url: str, capture: ThreadingHTTPServer, tmp_path: Path
) -> Iterator[Installation]:
    settings = Settings(
        state_dir=tmp_path / "state",
        provider_url=f"http://127.0.0.1:{capture.server_address[1]}",
    )
    (tmp_path / "state").mkdir()
    made = bootstrap.connect(settings, ROOT, database.dsn, redis_url)
    bootstrap.prepare(made)
    yield made
    made.close()


def _a_thousand(installation: Installation) -> list[int]:
    with installation.database.transaction() as connection:
        times = clock.read(connection)
        consent = enroll.Consent("seven-part-series", "test")
        return [
            enroll.add(
                connection,
                address=f"somebody.with.a.longer.name.{number:04d}@mail.example.com",
                consent=consent,
                pepper=installation.pepper,
                new_id=installation.new_id,
                times=times,
                fields={"first_name": "Maria-Fernanda"},
            )[0]
            for number in range(1000)
        ]


def test_each_email_to_a_thousand_people_is_one_valid_call_under_a_megabyte(
    installation: Installation, capture: ThreadingHTTPServer
) -> None:
    people = _a_thousand(installation)
    with installation.database.transaction() as connection:
        series.start(connection, installation)
        enroll.enroll(connection, CAMPAIGN, people, actor="test")
        connection.execute(text("UPDATE lane_state SET batch_limit = 1000"))
    keys = [email.key for email in installation.versions.published(*_newest(installation)).campaign.emails]
    for _ in keys:
        _make_everybody_due(installation)
        plan.plan(installation.database, installation.versions, out_of_time=lambda: False)
        send.send(bootstrap.sender(installation), Lane.DRIP, out_of_time=lambda: False)
    bodies: list[bytes] = capture.bodies  # type: ignore[attr-defined]
    assert len(bodies) == len(keys) == 7
    spec = json.loads((ROOT / "tests/data/sendgrid/tsg_mail_v3.json").read_text())
    schema = spec["components"]["requestBodies"]["PostMailSend"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator(
        {**schema, "components": spec["components"]}, format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    for raw in bodies:
        body = json.loads(raw)
        assert len(raw) < 1_000_000
        assert len(body["personalizations"]) == 1000
        assert [error.message for error in validator.iter_errors(body)] == []
        assert len({p["to"][0]["email"] for p in body["personalizations"]}) == 1000
        for personalization in body["personalizations"]:
            assert set(personalization["custom_args"]) == {"dw_m", "dw_b"}
            assert personalization["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
            assert personalization["to"][0].keys() == {"email"}
    with installation.database.transaction() as connection:
        rows = connection.execute(text("SELECT state, count(*) FROM message GROUP BY state")).all()
    assert [tuple(row) for row in rows] == [("ACCEPTED", 7000)]


def _newest(installation: Installation) -> tuple[Any, int]:
    with installation.database.transaction() as connection:
        row = publish.existing(connection, CAMPAIGN)
        assert row.version_id is not None
        installation.versions.published(connection, row.version_id)
        return connection, row.version_id


def _make_everybody_due(installation: Installation) -> None:
    """Move campaign time four days on, to a Wednesday's or Thursday's noon, without anybody in between."""
    with installation.database.transaction() as connection:
        now = clock.read(connection).now
        ahead = now.replace(hour=20, minute=0, second=0, microsecond=0)
        ahead += timedelta(days=7 if ahead.weekday() == 2 else (2 - ahead.weekday()) % 7)
        clock.forward(connection, ahead if ahead > now else ahead + timedelta(days=7))
