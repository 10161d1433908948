"""The stage-1 record: every table a message needs to be mailed once and accounted for."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the record."""
    sql = (Path(__file__).parent.parent / "0001_record.sql").read_text(encoding="utf-8")
    # Straight to the driver, without parameters: a % in the file is a %, and many statements go in one round trip.
    cursor = op.get_bind().connection.cursor()
    cursor.execute(sql)
    cursor.close()


def downgrade() -> None:
    """Refuse: the record is append-only; restore a backup instead."""
    raise RuntimeError("the record is never taken back: restore a backup instead")
