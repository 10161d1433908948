"""Suppressing: what the provider knows of it, and what we know of the provider's."""

from dripwell.storage.migrations.statements import run

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the statements of this step."""
    run("0009_suppressing.sql")


def downgrade() -> None:
    """Refuse: the record is append-only; restore a backup instead."""
    raise RuntimeError("the record is never taken back: restore a backup instead")
