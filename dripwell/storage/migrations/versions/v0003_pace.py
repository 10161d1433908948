"""Warm-up and reputation: what slows a lane, a campaign or a mailbox group."""

from dripwell.storage.migrations.statements import run

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what pace needs."""
    run("0003_pace.sql")


def downgrade() -> None:
    """Refuse: the record is append-only; restore a backup instead."""
    raise RuntimeError("the record is never taken back: restore a backup instead")
