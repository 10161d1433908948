"""A record from before sign-ups had rows of their own is brought up to date, and nobody's request or word is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

import dripwell.storage
from dripwell.embedded.servers import Servers
from dripwell.storage import consents, schema, signups
from dripwell.storage.database import Database
from tests.integration import rows

NAME = "before_signups"


@pytest.fixture
def before(servers: Servers, template: Database) -> Iterator[Database]:
    """A record of the version before."""
    with template.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {NAME}"))
    made = Database(servers.database_url.rpartition("/")[0] + "/" + NAME, pool=1)
    with made.transaction() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(dripwell.storage.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
    yield made
    made.close()
    with template.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)"))


def test_requests_under_way_and_consents_come_along(before: Database) -> None:
    with before.transaction() as connection:
        campaign = rows.campaign(connection, "confirm", kind="service", topic="")
        version = rows.version(connection, campaign)
        asked = rows.subscriber(
            connection, "a@example.com", state="unconfirmed", topics=(), fields={"form": "x", "first_name": "A"}
        )
        waiting = rows.enrollment(connection, asked, campaign, version, round=20_000, state="mailing")
        done = rows.subscriber(connection, "b@example.com", topics=(), fields={"form": "x"})
        pressed = rows.enrollment(connection, done, campaign, version, round=20_000, state="finished")
        connection.execute(
            text(
                "INSERT INTO consent (subscriber_id, topic, action, source, wording, given_at)"
                " VALUES (:id, 't', 'give', :source, 'Email me.', :at)"
            ),
            {"id": done, "source": f"confirm:{pressed}", "at": rows.START},
        )
        other = rows.subscriber(connection, "c@example.com", fields={"form": "a column of a spreadsheet"})
    schema.upgrade(before)
    with before.transaction() as connection:
        found = signups.of_mails(connection, [waiting, pressed])
        assert {one: (request.form, request.confirmed_at) for one, request in found.items()} == {
            waiting: ("x", None),
            pressed: ("x", rows.START),
        }
        fields = connection.execute(text("SELECT id, fields FROM subscriber ORDER BY id")).all()
        assert [tuple(row) for row in fields] == [
            (asked, {"first_name": "A"}),
            (done, {}),
            (other, {"form": "a column of a spreadsheet"}),
        ]
        (row,) = consents.ledger(connection, done)
        assert row.wording == "Email me."
        new = signups.add(connection, other, form="x", source="form x", asked=(), now=rows.START)
        assert new > max(request.id for request in found.values())
