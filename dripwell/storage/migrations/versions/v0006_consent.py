"""Sign-up: who agreed to what, in which words, from where, and when it was confirmed."""

from dripwell.storage.migrations.statements import run

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the statements of this step."""
    run("0006_consent.sql")


def downgrade() -> None:
    """Refuse: the record is append-only; restore a backup instead."""
    raise RuntimeError("the record is never taken back: restore a backup instead")
