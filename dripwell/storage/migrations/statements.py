"""Run one of the SQL files beside this module."""

from pathlib import Path

from alembic import op


def run(name: str) -> None:
    """Execute a whole file in the migration's transaction."""
    sql = (Path(__file__).parent / name).read_text(encoding="utf-8")
    # Straight to the driver, without parameters: a % in the file is a %, and many statements go in one round trip.
    cursor = op.get_bind().connection.cursor()
    cursor.execute(sql)
    cursor.close()
