"""Steps of every kind: which arms of branches people took."""

from dripwell.storage.migrations.statements import run

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the statements of this step."""
    run("0012_steps.sql")


def downgrade() -> None:
    """Refuse: the record is append-only; restore a backup instead."""
    raise RuntimeError("the record is never taken back: restore a backup instead")
