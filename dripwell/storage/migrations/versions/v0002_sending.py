"""Sending under faults: suspects of a refused call, growth of batches, relationship, clock."""

from dripwell.storage.migrations.statements import run

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what the sender needs."""
    run("0002_sending.sql")


def downgrade() -> None:
    """Refuse: the record is append-only; restore a backup instead."""
    raise RuntimeError("the record is never taken back: restore a backup instead")
