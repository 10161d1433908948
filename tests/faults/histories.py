"""Generated histories: nobody is mailed without live consent, and no unsubscribe is lost, whatever happens and breaks.

python -m tests.faults.histories --count 10000 --seed 7 [--people 200] [--turns 28] [--mutant NAME]
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import text

from dripwell.embedded.servers import Servers, start
from dripwell.storage import schema
from dripwell.storage.database import Database
from tests.faults.careless import CARELESS
from tests.faults.doors import Doors
from tests.faults.town import Town, Wrong

PEOPLE = 200
TURNS = 28
TEMPLATE = "template_of_histories"
Copies = Callable[[], AbstractContextManager[Database]]
"""Each call makes a fresh database for one town."""


@dataclass
class Told:
    """What became of some histories: how many, what happened in them, and the first that went wrong."""

    people: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: str | None = None


def one_town(
    copies: Copies,
    redis_url: str,
    seed: int,
    people: Sequence[int],
    *,
    turns: int,
    doors: type[Doors],
    actions: int | None = None,
) -> tuple[Wrong | None, Town]:
    """Let these people live in a town of their own. Returns what went wrong, and the town as it was then."""
    with copies() as database, TemporaryDirectory() as folder:
        town = Town(database, redis_url, Path(folder), seed, people, doors=doors, actions=actions)
        try:
            town.live(turns)
            town.verdict()
        except Wrong as wrong:
            return wrong, town
        finally:
            town.close()
        return None, town


def tell(
    copies: Copies,
    redis_url: str,
    *,
    count: int,
    seed: int,
    first: int = 0,
    people: int = PEOPLE,
    turns: int = TURNS,
    doors: type[Doors] = Doors,
    shrinks: bool = True,
    hear: Callable[[str], None] = lambda line: None,
) -> Told:
    """Tell `count` histories from the `first` on, `people` to a town, until one goes wrong."""
    told = Told()
    while told.people < count:
        at = first + told.people
        town_seed = seed * 1_000_000 + at
        numbers = range(min(people, count - told.people))
        again = f"again: --seed {seed} --from {at} --count {len(numbers)} --people {people} --turns {turns}"
        try:
            wrong, town = one_town(copies, redis_url, town_seed, numbers, turns=turns, doors=doors)
        except Exception as error:
            error.add_note(again)
            raise
        told.people += len(numbers)
        told.counts.update(town.counts)
        if wrong is not None:
            told.wrong = f"{_report(wrong, town)}{again}\n"
            if shrinks and wrong.number is not None:
                told.wrong += _shorter(copies, redis_url, town_seed, wrong.number, turns, doors)
            return told
        hear(f"{told.people} histories: {', '.join(f'{n} {what}' for what, n in sorted(told.counts.items()))}")
    return told


def _report(wrong: Wrong, town: Town) -> str:
    lines = [f"WRONG: {wrong.what}", f"person {wrong.number}, of {len(town.people)}:"]
    if wrong.number is not None:
        lines += town.people[wrong.number].story
    return "\n".join(lines) + "\n"


def _shorter(copies: Copies, redis_url: str, seed: int, number: int, turns: int, doors: type[Doors]) -> str:
    """The same person alone, and then with as few actions as it takes; nothing when the others are needed for it."""
    wrong, town = one_town(copies, redis_url, seed, [number], turns=turns, doors=doors)
    if wrong is None:
        return "alone, this person fares well\n"
    best = (wrong, town)
    for actions in range(1, town.done_by[number]):
        wrong, town = one_town(copies, redis_url, seed, [number], turns=turns, doors=doors, actions=actions)
        if wrong is not None:
            best = (wrong, town)
            break
    return "\nalone, and shorter:\n" + _report(*best)


@contextmanager
def copies_of(servers: Servers) -> Iterator[Copies]:
    """Fresh databases on these servers."""
    base = servers.database_url.rpartition("/")[0]
    admin = Database(servers.database_url, pool=1)
    numbers = count()

    def run(statement: str) -> None:
        with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))

    @contextmanager
    def copy() -> Iterator[Database]:
        name = f"town{next(numbers)}"
        run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        run(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
        database = Database(f"{base}/{name}", pool=4)
        try:
            yield database
        finally:
            database.close()
            run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    run(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
    run(f"CREATE DATABASE {TEMPLATE}")
    made = Database(f"{base}/{TEMPLATE}", pool=1)
    schema.upgrade(made)
    made.close()
    try:
        yield copy
    finally:
        run(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
        admin.close()


def main() -> int:
    """Tell histories until there are enough, or one went wrong: 1 then."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="first", type=int, default=0, help="so many histories are skipped")
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--only-tell", action="store_true", help="do not look for a shorter history")
    parser.add_argument("--mutant", choices=sorted(CARELESS), help="a program that breaks one rule")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    with TemporaryDirectory() as folder, start(Path(folder), fast=True) as servers, copies_of(servers) as copies:
        told = tell(
            copies,
            servers.redis_url,
            count=given.count,
            seed=given.seed,
            first=given.first,
            people=given.people,
            turns=given.turns,
            shrinks=not given.only_tell,
            doors=CARELESS[given.mutant] if given.mutant else Doors,
            hear=lambda line: print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True),
        )
    print(told.wrong or f"{told.people} histories, and nothing was wrong", flush=True)
    return 1 if told.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
