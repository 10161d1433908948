"""A whole installation on a fresh database, a client of its public pages, and one mailed person."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest
import redis
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation, connect, prepare
from dripwell.core.tokens import Purpose, sign
from dripwell.settings import Settings
from dripwell.storage import clock
from dripwell.storage.database import Database
from dripwell.web.app import create_app
from tests.integration import rows

ROOT = Path(__file__).parent.parent.parent
PROVIDER_KEY = ec.derive_private_key(0xD21B, ec.SECP256R1())


@dataclass(frozen=True)
class Mailed:
    """One person with one accepted email of a drip campaign, and the links of that email."""

    installation: Installation
    subscriber: int
    campaign: int
    version: int
    enrollment: int
    message: int

    def link(self, purpose: Purpose, identity: int | None = None, at: datetime | None = None) -> str:
        """The signed word of this email's link, as if it had been mailed `at`."""
        if at is None:
            with self.installation.database.transaction() as connection:
                at = clock.read(connection).wall_now
        return sign(self.installation.keys, purpose, self.message if identity is None else identity, at)


@pytest.fixture
def installation(database: Database, redis_url: str, tmp_path: Path) -> Iterator[Installation]:
    """Everything a page needs, in the sandbox's configuration."""
    key = PROVIDER_KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with redis.Redis.from_url(redis_url) as server:
        server.flushall()
    settings = Settings(state_dir=tmp_path / "state", webhook_key=base64.b64encode(key).decode())
    opened = connect(settings, ROOT, database.dsn, redis_url)
    prepare(opened)
    yield opened
    opened.close()


@pytest.fixture
def client(installation: Installation) -> Iterator[TestClient]:
    """A browser that follows no redirect by itself."""
    with TestClient(create_app(installation), follow_redirects=False, base_url="https://mail.kcla.example") as opened:
        yield opened


@pytest.fixture
def clientele(installation: Installation) -> Iterator[Callable[..., TestClient]]:
    """Clients of an installation that differs in a few parts."""
    opened: list[TestClient] = []

    def make(**changes: object) -> TestClient:
        app = create_app(replace(installation, **changes))  # type: ignore[arg-type]
        opened.append(TestClient(app, follow_redirects=False, raise_server_exceptions=False))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def mailed(installation: Installation) -> Mailed:
    """Maria, who got the first email of `seven-benefits` and waits for the second."""
    sources = installation.sources("seven-benefits")
    links = {"1-adaptability": ["book", "https://kcla.example/article", "http://kcla.example/plain"]}
    with installation.database.transaction() as connection:
        subscriber = rows.subscriber(connection, pepper=installation.pepper)
        campaign = rows.campaign(connection)
        version = rows.version(connection, campaign, definition=sources, links=links)
        enrollment = rows.enrollment(connection, subscriber, campaign, version, cursor_key="1-adaptability")
        message = rows.message(connection, enrollment, step_key="1-adaptability")
    return Mailed(installation, subscriber, campaign, version, enrollment, message)


def signed(body: bytes, timestamp: str = "1793000000") -> dict[str, str]:
    """The headers with which the provider signs this body."""
    signature = PROVIDER_KEY.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return {
        "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
    }
