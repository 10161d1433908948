"""Segments: what their questions need to be answered fast."""

from dripwell.storage.migrations.statements import run

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the statements of this step."""
    run("0011_segments.sql")


def downgrade() -> None:
    """Refuse: the record is append-only; restore a backup instead."""
    raise RuntimeError("the record is never taken back: restore a backup instead")
