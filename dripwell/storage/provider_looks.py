"""Pulling the provider's lists: one row a list says which page is next, so a look goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text

from dripwell.storage import arrays
from dripwell.storage.database import Connection
from dripwell.storage.provider_lists import LEASE

EVERY = timedelta(days=1)
OVERLAP = timedelta(days=1)
"""How far before the last look a short one begins: the provider's clock is not ours, and its lists are late."""
ECHO = timedelta(minutes=5)
"""How exact a comparison of the provider's clock with ours is taken to be."""


@dataclass(frozen=True, slots=True)
class Look:
    """A pull under way: which page is next. `since` None: the whole list."""

    name: str
    number: int
    since: datetime | None
    offset: int
    page_sha256: bytes | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the last look at a list found. Of one under way, the counts so far."""

    name: str
    entries: int
    unreadable: int
    added: int
    lifted: int
    looked_at: datetime | None
    whole_at: datetime | None
    is_under_way: bool
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Compared:
    """Addresses of one page: `new` are not suppressed here, `lifted` were and are no longer by their own wish."""

    new: tuple[bytes, ...]
    lifted: tuple[bytes, ...]


# due_now: look soon, unless somebody has just looked.
_DUE_NOW = text("""
UPDATE provider_list SET due_at = least(due_at, wall())
 WHERE began_at IS NULL AND (looked_at IS NULL OR looked_at < wall() - CAST(:fresh AS interval))
""")


def due_now(connection: Connection, *, unless_within: timedelta = timedelta(minutes=5)) -> None:
    """Let every list be looked at as soon as possible, unless it was so lately."""
    connection.execute(_DUE_NOW, {"fresh": unless_within})


# claim: a look under way first, else one that is due. The whole list once a day, in between what is new.
_CLAIM = text("""
UPDATE provider_list
   SET held_until = wall() + CAST(:lease AS interval),
       look = look + CASE WHEN began_at IS NULL THEN 1 ELSE 0 END,
       since = CASE WHEN began_at IS NOT NULL THEN since
                    WHEN whole_at > wall() - interval '20 h' THEN looked_at - CAST(:overlap AS interval) END,
       entries = CASE WHEN began_at IS NULL THEN 0 ELSE entries END,
       unreadable = CASE WHEN began_at IS NULL THEN 0 ELSE unreadable END,
       added = CASE WHEN began_at IS NULL THEN 0 ELSE added END,
       lifted = CASE WHEN began_at IS NULL THEN 0 ELSE lifted END,
       began_at = coalesce(began_at, wall())
 WHERE list = (SELECT list FROM provider_list
                WHERE held_until <= wall() AND (began_at IS NOT NULL OR due_at <= wall())
                ORDER BY began_at IS NULL, due_at, list
                LIMIT 1
                  FOR UPDATE SKIP LOCKED)
RETURNING list, look, since, next_offset, page_sha256
""")


def claim(connection: Connection) -> Look | None:
    """Take the next page of a list that is being looked at or is due; None: nothing is."""
    row = connection.execute(_CLAIM, {"lease": LEASE, "overlap": OVERLAP}).one_or_none()
    if row is None:
        return None
    return Look(
        row.list, row.look, row.since, row.next_offset, None if row.page_sha256 is None else bytes(row.page_sha256)
    )


# let_go: the page was not read; whoever comes next takes the same one.
_LET_GO = text("UPDATE provider_list SET held_until = '-infinity' WHERE list = :list AND look = :look")

# start_over: what came was not the next page, so this look proves nothing; another one begins later.
_GIVE_UP = text("""
UPDATE provider_list
   SET held_until = '-infinity', began_at = NULL, since = NULL, next_offset = 0, page_sha256 = NULL,
       due_at = wall() + make_interval(secs => :seconds)
 WHERE list = :list AND look = :look
""")


def let_go(connection: Connection, look: Look) -> None:
    """This page was not read; the next one to come reads it."""
    connection.execute(_LET_GO, {"list": look.name, "look": look.number})


def give_up(connection: Connection, look: Look, seconds: float) -> None:
    """This look leads nowhere; another one begins after so long."""
    connection.execute(_GIVE_UP, {"list": look.name, "look": look.number, "seconds": seconds})


# turn: this page is done. False: somebody else was first.
_TURN = text("""
UPDATE provider_list
   SET next_offset = next_offset + :rows, page_sha256 = :page_sha256, entries = entries + :entries,
       unreadable = unreadable + :unreadable, held_until = '-infinity'
 WHERE list = :list AND look = :look AND next_offset = :offset AND began_at IS NOT NULL
""")


def turn(
    connection: Connection, look: Look, *, rows: int, entries: int, unreadable: int, page_sha256: bytes | None
) -> bool:
    """This page of so many `rows` is read; lock it against whoever read it too. False: somebody was first."""
    values = {
        "list": look.name,
        "look": look.number,
        "offset": look.offset,
        "rows": rows,
        "entries": entries,
        "unreadable": unreadable,
        "page_sha256": page_sha256,
    }
    return connection.execute(_TURN, values).rowcount == 1


# counted: what came of a page.
_COUNTED = text("""
UPDATE provider_list SET added = added + :added, lifted = lifted + :lifted WHERE list = :list AND look = :look
""")

# finish: the end of the list. What a whole look did not meet is on the list no more, unless we put it there meanwhile.
_FINISH = text("""
UPDATE provider_list
   SET looked_at = began_at, whole_at = CASE WHEN since IS NULL THEN began_at ELSE whole_at END,
       began_at = NULL, since = NULL, next_offset = 0, page_sha256 = NULL, held_until = '-infinity',
       due_at = wall() + CAST(:every AS interval)
 WHERE list = :list AND look = :look AND began_at IS NOT NULL
RETURNING whole_at IS NOT DISTINCT FROM looked_at AS whole, looked_at
""")
_GONE = text("""
DELETE FROM provider_entry
 WHERE list = :list AND look < :look AND (pushed_at IS NULL OR pushed_at < :began_at)
""")


def counted(connection: Connection, look: Look, *, added: int, lifted: int) -> None:
    """Note what this page brought."""
    connection.execute(_COUNTED, {"list": look.name, "look": look.number, "added": added, "lifted": lifted})


def finish(connection: Connection, look: Look) -> bool:
    """The list is read to its end. True: all of it, so what was not met is gone from it."""
    row = connection.execute(_FINISH, {"list": look.name, "look": look.number, "every": EVERY}).one_or_none()
    if row is None or not row.whole:
        return False
    connection.execute(_GONE, {"list": look.name, "look": look.number, "began_at": row.looked_at})
    return True


# keep: whom the provider lists; of whoever is erased the ledger alone keeps the hash.
_KEEP = text("""
INSERT INTO provider_entry (list, addr_hash, listed_at, look)
SELECT :list, told.addr_hash, max(told.listed_at), :look
  FROM unnest(CAST(:hashes AS bytea[]), CAST(:times AS timestamptz[])) AS told (addr_hash, listed_at)
 WHERE NOT EXISTS (SELECT FROM suppression AS gone
                    WHERE gone.addr_hash = told.addr_hash AND gone.reason = 'erased')
    OR EXISTS (SELECT FROM subscriber WHERE subscriber.addr_hash = told.addr_hash)
 GROUP BY told.addr_hash
 ORDER BY told.addr_hash
    ON CONFLICT (list, addr_hash) DO UPDATE SET listed_at = excluded.listed_at, look = excluded.look
""")

# compare: what the ledger says about whom the provider lists. An entry that is older than the lift, or that is our own
# doing, is what we have to take back there. Anything in doubt counts as new: it suppresses.
_COMPARE = text("""
WITH told AS (
  SELECT addr_hash, max(listed_at) AS listed_at
    FROM unnest(CAST(:hashes AS bytea[]), CAST(:times AS timestamptz[])) AS told (addr_hash, listed_at)
   GROUP BY addr_hash)
SELECT told.addr_hash,
       NOT :complaint AND lift.at IS NOT NULL
       AND (told.listed_at < lift.at - CAST(:echo AS interval)
            OR EXISTS (SELECT FROM provider_entry AS entry
                        WHERE entry.list = :list AND entry.addr_hash = told.addr_hash
                          AND told.listed_at <= entry.pushed_at + CAST(:echo AS interval))) AS was_lifted
  FROM told
  LEFT JOIN LATERAL (SELECT max(row.at) AS at FROM suppression AS row
                      WHERE row.addr_hash = told.addr_hash AND row.scope = ANY(:scopes) AND row.action = 'lift'
                        AND row.reason <> 'undone') AS lift  -- undoing takes back one press here, and nothing there
    ON true
 WHERE NOT EXISTS (SELECT FROM suppression AS row
                    WHERE row.addr_hash = told.addr_hash AND row.scope = ANY(:scopes) AND row.action = 'suppress'
                      AND (NOT :complaint OR row.reason = 'complained')
                      AND NOT EXISTS (SELECT FROM suppression AS later
                                       WHERE later.addr_hash = row.addr_hash AND later.scope = row.scope
                                         AND later.action = 'lift' AND later.seq > row.seq))
 ORDER BY told.addr_hash
""")


def keep(connection: Connection, look: Look, entries: Mapping[bytes, datetime | None]) -> None:
    """Remember whom this page names."""
    values = {"list": look.name, "look": look.number, **_told(entries)}
    connection.execute(_KEEP, values)


def compare(
    connection: Connection, name: str, entries: Mapping[bytes, datetime | None], scopes: Sequence[str]
) -> Compared:
    """Of these entries of a list (hash -> when listed), those the ledger does not suppress in any of `scopes`.

    A spam report is new until the ledger knows of a complaint, whatever else stands: nobody may lift that.
    """
    if not entries:
        return Compared((), ())
    values = {
        "list": name,
        "scopes": list(scopes),
        "complaint": name == "spam_reports",
        "echo": ECHO,
        **_told(entries),
    }
    rows = connection.execute(_COMPARE, values).all()
    return Compared(
        tuple(bytes(row.addr_hash) for row in rows if not row.was_lifted),
        tuple(bytes(row.addr_hash) for row in rows if row.was_lifted),
    )


def _told(entries: Mapping[bytes, datetime | None]) -> dict[str, str]:
    return {"hashes": arrays.hashes(entries), "times": arrays.times(entries.values())}


# missing: who is suppressed here for all mail and is on none of the provider's lists, as far as we have looked.
_MISSING = text("""
SELECT subscriber.addr_hash
  FROM subscriber
 WHERE subscriber.addr_hash IS NOT NULL
   AND subscriber.addr_hash IN (SELECT addr_hash FROM suppression WHERE scope = 'all' AND action = 'suppress')
   AND (SELECT newest.action FROM suppression AS newest
         WHERE newest.addr_hash = subscriber.addr_hash AND newest.scope = 'all'
         ORDER BY newest.seq DESC LIMIT 1) = 'suppress'
   AND NOT EXISTS (SELECT FROM provider_entry AS entry WHERE entry.addr_hash = subscriber.addr_hash)
   AND NOT EXISTS (SELECT FROM provider_list WHERE whole_at IS NULL)
 ORDER BY subscriber.id
 LIMIT :limit
""")

# for_all: who is suppressed here for all mail and has an address that the provider could be told.
_FOR_ALL = text("""
SELECT subscriber.addr_hash
  FROM subscriber
 WHERE subscriber.addr_hash IS NOT NULL
   AND (SELECT newest.action FROM suppression AS newest
         WHERE newest.addr_hash = subscriber.addr_hash AND newest.scope = 'all'
         ORDER BY newest.seq DESC LIMIT 1) = 'suppress'
""").execution_options(yield_per=5_000)

# standing: each list as the last look left it.
_STANDING = text("""
SELECT list AS name, entries, unreadable, added, lifted, looked_at, whole_at, began_at IS NOT NULL AS is_under_way,
       nullif(due_at, '-infinity') AS due_at
  FROM provider_list
 ORDER BY list
""")
_WAITING = text("SELECT count(*) FROM provider_note WHERE done_at IS NULL")


def missing(connection: Connection, limit: int = 10_000) -> list[bytes]:
    """Whom we suppress for all mail and the provider does not list. Empty until every list was read whole once."""
    return [bytes(one) for one in connection.execute(_MISSING, {"limit": limit}).scalars()]


def for_all(connection: Connection) -> Iterator[bytes]:
    """Everybody here who is suppressed for all mail, in no order."""
    with connection.execute(_FOR_ALL) as rows:
        for row in rows:
            yield bytes(row.addr_hash)


def standing(connection: Connection) -> list[Standing]:
    """Each list as the last look left it."""
    return [Standing(**row._mapping) for row in connection.execute(_STANDING)]


def waiting(connection: Connection) -> int:
    """How many notes the provider has not been told yet."""
    found: int = connection.execute(_WAITING).scalar_one()
    return found
