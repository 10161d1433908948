"""The seven-benefits series, applied, approved and started on an installation of a test."""

from __future__ import annotations

from dripwell.bootstrap import Connection, Installation
from dripwell.services import publish

CAMPAIGN = "seven-benefits"
REVIEWER = "clinical-review@kcla.example"


def start(connection: Connection, installation: Installation) -> None:
    """Do what `dripwell apply`, `approve` and `start` do."""
    versions = installation.versions
    publish.apply(
        connection,
        installation.sources(CAMPAIGN),
        CAMPAIGN,
        actor="test",
        live=False,
        versions=versions,
        new_id=installation.new_id,
    )
    publish.approve(connection, CAMPAIGN, actor=REVIEWER, versions=versions)
    publish.start(connection, CAMPAIGN, actor="test", live=False, versions=versions)
