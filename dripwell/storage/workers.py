"""Which workers are alive, by what they got done: a process that is up proves nothing."""

from __future__ import annotations

from sqlalchemy import text

from dripwell.storage.batches import Owner
from dripwell.storage.database import Connection

# passed: one row a queue and process; a pass that moved nothing leaves the last progress as it was.
_PASSED = text("""
INSERT INTO worker (queue, host, boot_id, pid, last_progress)
VALUES (:queue, :host, :boot_id, :pid, CASE WHEN :progress THEN wall() END)
    ON CONFLICT (queue, host, pid) DO UPDATE
   SET boot_id = excluded.boot_id, last_pass = wall(),
       last_progress = coalesce(excluded.last_progress, worker.last_progress)
""")


def passed(connection: Connection, queue: str, owner: Owner, *, progress: bool) -> None:
    """A pass of this queue has finished in this process; `progress`: it moved something."""
    values = {
        "queue": queue,
        "host": owner.host,
        "boot_id": owner.boot_id,
        "pid": owner.pid,
        "progress": progress,
    }
    connection.execute(_PASSED, values)


# silent_for: NULL when no such process ever finished a pass.
_SILENT_FOR = text("""
SELECT extract(epoch FROM wall() - max(last_pass))::float8
  FROM worker
 WHERE queue = ANY(:queues) AND (host, pid) IS DISTINCT FROM (CAST(:host AS text), CAST(:pid AS integer))
""")


def silent_for(connection: Connection, *queues: str, besides: Owner | None = None) -> float:
    """Wall seconds since any process (`besides` not counted) finished a pass of one of these queues.

    Infinite when none ever did.
    """
    values = {
        "queues": list(queues),
        "host": besides.host if besides else None,
        "pid": besides.pid if besides else None,
    }
    found = connection.execute(_SILENT_FOR, values).scalar()
    return float("inf") if found is None else float(found)


# forget_old: a day is longer than anybody wants to look back at a process.
_FORGET_OLD = text("DELETE FROM worker WHERE last_pass < wall() - interval '1 day'")


def forget_old(connection: Connection) -> None:
    """Drop rows of processes that are long gone."""
    connection.execute(_FORGET_OLD)
