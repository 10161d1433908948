"""Tags that a series gives people and takes from them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from dripwell.storage import arrays
from dripwell.storage.database import Connection

# lock: people are held by id, like everywhere.
_LOCK = text("SELECT id FROM subscriber WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR UPDATE")

# change: each person's tags come as one text, for arrays in an array would all have to be of one length.
_CHANGE = text("""
UPDATE subscriber
   SET tags = ARRAY(SELECT DISTINCT tag FROM unnest(subscriber.tags || string_to_array(change.given, ' ')) AS tag
                     WHERE tag <> ALL (string_to_array(change.taken, ' '))
                     ORDER BY tag)
  FROM unnest(CAST(:ids AS bigint[]), CAST(:given AS text[]), CAST(:taken AS text[])) AS change (id, given, taken)
 WHERE subscriber.id = change.id AND subscriber.state <> 'erased'
""")


def change(connection: Connection, rows: Sequence[tuple[int, Sequence[str], Sequence[str]]]) -> None:
    """Give each (subscriber id, given, taken) the tags of the one list and take those of the other. The erased stay
    without. A tag has no spaces (`content.values`)."""
    if not rows:
        return
    ids = arrays.numbers(row[0] for row in rows)
    connection.execute(_LOCK, {"ids": ids})
    values = {"ids": ids, "given": [" ".join(row[1]) for row in rows], "taken": [" ".join(row[2]) for row in rows]}
    connection.execute(_CHANGE, values)
