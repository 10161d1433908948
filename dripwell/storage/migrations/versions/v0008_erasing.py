"""Erasing: what is still to be erased elsewhere, and rows that may go with their person."""

from dripwell.storage.migrations.statements import run

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the statements of this step."""
    run("0008_erasing.sql")


def downgrade() -> None:
    """Refuse: the record is append-only; restore a backup instead."""
    raise RuntimeError("the record is never taken back: restore a backup instead")
