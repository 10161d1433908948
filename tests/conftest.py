"""Real servers for every test that wants one: one PostgreSQL and one Valkey a run, one database copied per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import text

from dripwell.embedded.servers import Servers, start
from dripwell.storage import schema
from dripwell.storage.database import Database

ROOT = Path(__file__).parent.parent

settings.register_profile("dripwell", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dripwell")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The embedded servers, without fsync, for as long as the run lasts."""
    with start(tmp_path_factory.mktemp("servers"), fast=True) as running:
        yield running


@pytest.fixture(scope="session")
def template(servers: Servers) -> Iterator[Database]:
    """A migrated database that others are copied from, and the one that copies are made on."""
    admin = Database(servers.database_url, pool=1)
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE template_of_tests"))
    made = Database(_named(servers, "template_of_tests"), pool=1)
    schema.upgrade(made)
    made.close()
    yield admin
    admin.close()


@pytest.fixture
def database(servers: Servers, template: Database, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A fresh copy of the migrated template for one test."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    with template.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template_of_tests STRATEGY file_copy"))
    made = Database(_named(servers, name), pool=4)
    yield made
    made.close()
    with template.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """A Valkey for tests; they use keys of their own or flush it."""
    return servers.redis_url


def _named(servers: Servers, name: str) -> str:
    return servers.database_url.rpartition("/")[0] + "/" + name
