"""Mail programs and scanners fetch every link of an email. Nothing may come of it but a line in the click log."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.cli import fleet
from dripwell.embedded.lock import hold
from dripwell.embedded.supervisor import Supervisor
from dripwell.services import advance, enroll
from dripwell.settings import Settings
from dripwell.storage import clock
from tests import series
from tests.conftest import ROOT
from tests.demos import free_port
from tests.e2e.living import OF_WORKERS
from tests.series import CAMPAIGN


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, fleet.Fleet]]:
    """Everything that `dripwell run` starts, as real processes."""
    settings = Settings(state_dir=tmp_path_factory.mktemp("house"), web_port=free_port(), sandbox_port=free_port())
    with hold(settings.state_dir, lasting=True) as held:
        crew = fleet.assemble(settings, held, ROOT)
        with crew.servers, Supervisor(held.folder, io.StringIO(), color=False).start(crew.processes):
            installation = bootstrap.connect(crew.settings(settings), ROOT, crew.database_url, crew.redis_url)
            try:
                yield installation, crew
            finally:
                installation.close()


def _dump(installation: Installation) -> dict[str, list[str]]:
    """Every row of every table, but for what workers note about themselves."""
    with installation.database.transaction() as connection:
        names = connection.execute(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        ).scalars()
        return {
            name: sorted(connection.execute(text(f'SELECT CAST(t AS text) FROM "{name}" AS t')).scalars())
            for name in names
            if name not in (*OF_WORKERS, "click")
        }


def _mails(crew: fleet.Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx2.get(f"{crew.sandbox_url}/control/mails?limit=100").json()["mails"]
    return found


def _pending(crew: fleet.Fleet) -> int:
    return int(httpx2.get(f"{crew.sandbox_url}/control/pending").json()["pending"])


def test_every_link_of_a_real_email_fetched_with_get_and_head_changes_nothing_but_the_click_log(
    house: tuple[Installation, fleet.Fleet],
) -> None:
    installation, crew = house
    with installation.database.transaction() as connection:
        series.start(connection, installation)
        now = clock.read(connection).now
        person, _ = enroll.add(
            connection,
            address="maria@example.com",
            consent=enroll.Consent("seven-part-series", "test"),
            pepper=installation.pepper,
            new_id=installation.new_id,
            times=clock.read(connection),
        )
        enroll.ask_to_confirm(
            connection,
            address="asked@example.com",
            form="series-request",
            pepper=installation.pepper,
            new_id=installation.new_id,
            times=clock.read(connection),
        )
        enroll.enroll(connection, CAMPAIGN, [person], actor="test")
    while advance.step(installation.database, now + timedelta(days=4)) is not None:
        assert advance.quiet(installation.database, patience=60, also=lambda: _pending(crew))
    mails = _mails(crew)
    assert {mail["address"] for mail in mails} == {"maria@example.com", "asked@example.com"}
    before = _dump(installation)
    own = {
        link
        for mail in mails
        for link in [*mail["links"], str(mail["list_unsubscribe"] or "").strip("<>")]
        if link.startswith(crew.web_url)
    }
    kinds = {link.removeprefix(crew.web_url).split("/")[1] for link in own}
    assert {"c", "u", "p", "v", "k", "privacy"} <= kinds
    with httpx2.Client(follow_redirects=True) as scanner:
        for link in sorted(own):
            assert scanner.head(link).status_code == 200, link
            assert scanner.get(link).status_code == 200, link
    assert _dump(installation) == before
    with installation.database.transaction() as connection:
        clicks = connection.execute(text("SELECT count(*) FROM click")).scalar_one()
    assert clicks == sum("/c/" in link for link in own)  # HEAD is not counted
