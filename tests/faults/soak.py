"""The soak: a fleet at work, people who click, book and leave, a hostile provider, and a nemesis. Then the judge.

    python -m tests.faults.soak --minutes 10 --seed 7 --people 4000 [--emails 4] [--mutant blind_retry]

Everything the nemesis does follows from the seed and stands in `timeline.jsonl` of the folder that is printed. Exit
code 1 when the judge finds anything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import redis

from dripwell.bootstrap import QUEUES
from dripwell.cli import crowd
from dripwell.core.errors import DripwellError, UnavailableError
from dripwell.services import advance, publish
from dripwell.storage import clock, reports
from tests.faults.judge import Verdict
from tests.faults.mutants import MUTANTS
from tests.faults.world import CAMPAIGN, Worker, World

HOSTILE = 0.22
EVERY = 5.0
"""Seconds between two blows of the nemesis."""
NAMES = [name for names in QUEUES.values() for name in names]
LEAVE, BOOK, CLICK = 0.04, 0.01, 0.10
"""How likely a person does each of these with an email."""
RACING = 0.2
"""How likely somebody leaves when a batch is seen between its claim and its call."""
BAD = 0.003
"""How many addresses the provider refuses for ever."""
JOINING = 0.6
"""The part of the time in which people join."""
REST = 240.0
"""Seconds after the nemesis has stopped without anything coming nearer to its end: then it is stuck."""


@dataclass(slots=True)
class Course:
    """How a soak goes: its end, and what is counted on the way."""

    world: World
    rng: Random
    until: float
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    did: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)
    workers: list[Worker] = field(default_factory=list)  # without Celery: a mutant's

    def note(self, what: str, **more: object) -> None:
        """Write one line of the timeline."""
        line = {"t": round(time.monotonic() - self.began, 2), "what": what, **more}
        with self.lock, (self.world.folder / "timeline.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.did[what] += 1


# ---- the nemesis


def _victims(course: Course) -> Mapping[str, list[int]]:
    world = course.world
    return {
        "bell": world.pids("dripwell.workers.bell"),
        "Celery or a child of it": world.pids("celery", "worker", "-Q") or world.pids("tests.faults.passes"),
        "beat": world.pids("celery", "beat"),
        "web": world.pids("dripwell.web"),
        "sandbox": world.pids("dripwell.sandbox"),
    }


def kill(course: Course, rng: Random) -> str:
    """kill -9 of one process."""
    kinds = {name: pids for name, pids in _victims(course).items() if pids}
    # Workers matter most, so they are hit most.
    name = rng.choices(list(kinds), [4 if "Celery" in kind else 1 for kind in kinds])[0]
    course.world.kill(rng.choice(kinds[name]))
    return name


def stop(course: Course, rng: Random) -> str:
    """SIGSTOP of a worker for a while."""
    pids = _victims(course)["Celery or a child of it"]
    if not pids:
        return "nobody there"
    pid, seconds = rng.choice(pids), rng.uniform(1.0, 8.0)
    course.world.kill(pid, signal.SIGSTOP)
    wake = threading.Timer(seconds, course.world.kill, [pid, signal.SIGCONT])
    wake.daemon = True
    wake.start()
    return f"for {seconds:.1f} s"


def flush(course: Course, rng: Random) -> str:
    """Redis forgets everything."""
    course.world.redis.flushall()
    return ""


def restart_redis(course: Course, rng: Random) -> str:
    """kill -9 of Redis."""
    course.world.kill(course.world.supervisor.pids()["redis"])
    return ""


def crash_database(course: Course, rng: Random) -> str:
    """Immediate stop of PostgreSQL."""
    course.world.kill(course.world.supervisor.pids()["postgres"], signal.SIGQUIT)
    return ""


def drop(course: Course, rng: Random) -> str:
    """Doorbells that wait are lost."""
    return f"{course.world.redis.delete(*NAMES)} queues"


def double(course: Course, rng: Random) -> str:
    """Doorbells that wait are there three times."""
    world, copied = course.world, 0
    for name in NAMES:
        bells = world.redis.lrange(name, 0, 20) * 2
        rng.shuffle(bells)
        if bells:
            copied += len(bells)
            world.redis.rpush(name, *bells)
    return f"{copied} copies"


def cut(course: Course, rng: Random) -> str:
    """Every connection to one server is reset."""
    name = rng.choice(sorted(course.world.lines))
    return f"{course.world.lines[name].cut()} to {name}"


BLOWS: Mapping[Callable[[Course, Random], str], int] = {
    kill: 8, stop: 4, crash_database: 3, cut: 4, flush: 2, restart_redis: 2, drop: 2, double: 2,
}  # fmt: skip


def nemesis(course: Course) -> None:
    """Strike every few seconds until the course is over."""
    rng = Random(f"{course.rng.random()}/nemesis")
    while not course.over.wait(EVERY):
        blow = rng.choices(list(BLOWS), list(BLOWS.values()))[0]
        own = Random(rng.random())  # what one blow draws shifts no later one
        try:
            course.note(blow.__name__, about=blow(course, own))
        except (KeyError, redis.RedisError) as error:
            course.note(f"{blow.__name__} missed", about=type(error).__name__)  # it is down already
        _replace_dead_workers(course)


def _replace_dead_workers(course: Course) -> None:
    for place, worker in enumerate(course.workers):
        if worker.child.poll() is not None:
            course.workers[place] = course.world.worker(*worker.process.argv[5:])


# ---- the people


def join(course: Course, people: int, seconds: float) -> None:
    """Let people join slice by slice."""
    rng = Random(f"{course.rng.random()}/join")
    slices = max(1, min(int(2 * seconds), people // 5 or 1))
    for number in range(slices):
        count = people // slices + (people % slices if number == 0 else 0)
        bad = sum(rng.random() < BAD for _ in range(count))
        for size, tag in ((count - bad, ""), *((1, rng.choice(("+badrow", "+badcall"))) for _ in range(bad))):
            if size:
                _patiently(course, lambda size=size, tag=tag: course.world.join(size, tag))  # type: ignore[misc]
        if course.over.wait(seconds / slices):
            course.note("not everybody could join", left=people - len(course.world.people))
            return


def _patiently(course: Course, work: Callable[[], object]) -> None:
    limit = time.monotonic() + 60
    while True:
        try:
            work()
            return
        except UnavailableError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.2)


def read_mail(course: Course) -> None:
    """Everybody looks at new mail: some click, some book a call, some leave, over the real pages."""
    last = 0
    with httpx2.Client(trust_env=False, timeout=10) as browser:
        while not course.over.wait(0.3):
            try:
                answer = browser.get(f"{course.world.sandbox_url}/control/mails?since={last}&limit=50").json()
                for mail in answer["mails"]:
                    last = mail["id"]
                    _act(course, browser, mail)
            except (httpx2.TransportError, httpx2.DecodingError, ValueError):
                continue  # the sandbox is being started again


def _act(course: Course, browser: httpx2.Client, mail: dict[str, Any]) -> None:
    if not mail.get("list_unsubscribe"):
        return  # about a booked call
    share = Random(f"{course.world.seed}/{mail['dw_m']}").random()
    act: crowd.Act = "nothing"
    if share < LEAVE:
        act = "one-click" if share < LEAVE / 2 else "unsubscribe"
        course.world.note_leaving(mail["address"], None)
    elif share < LEAVE + BOOK:
        act = "book"
    elif share < LEAVE + BOOK + CLICK:
        act = "click"
    if act == "nothing":
        return
    done = False
    with contextlib.suppress(httpx2.TransportError):
        done = crowd.carry_out(browser, act, mail, course.world.seed)
    if done and share < LEAVE:
        course.world.note_leaving(mail["address"], time.time())
    course.did[f"{act}{'' if done else ' (page away)'}"] += 1


_IN_A_BATCH = """
SELECT subscriber.address
  FROM batch JOIN message ON message.batch_id = batch.id JOIN subscriber ON subscriber.id = message.subscriber_id
 WHERE batch.state = 'OPEN' AND message.lane = 'drip'
 ORDER BY message.id
 LIMIT 5
"""


def race(course: Course) -> None:
    """Some leave at the very moment at which a sender has them in its hands."""
    rng = Random(f"{course.rng.random()}/race")
    while not course.over.wait(0.05):
        with contextlib.suppress(DripwellError):
            found = [address for (address,) in course.world.query(_IN_A_BATCH)]
            if found and rng.random() < RACING:
                status = course.world.leave(rng.choice(found), patience=2.0)
                course.did["left while in a batch" if status == 200 else "left in vain"] += 1


def move_time(course: Course) -> None:
    """Campaign time runs ahead whenever nobody is due and nothing planned."""
    database = course.world.installation.database
    while not course.over.wait(0.3):
        try:
            left = course.world.left()
            if left["due"] == left["planned"] == 0:
                with database.transaction() as connection:
                    end = clock.read(connection).now + timedelta(days=60)
                    if reports.next_due(connection) is None:
                        continue
                advance.step(database, end)
        except DripwellError:
            continue  # PostgreSQL is being started again


# ---- the whole


@contextlib.contextmanager
def _threads(*works: Callable[[], None]) -> Iterator[list[threading.Thread]]:
    made = [threading.Thread(target=work, name=f"soak {number}") for number, work in enumerate(works)]
    for thread in made:
        thread.start()
    yield made
    for thread in made:
        thread.join(90)


def run(
    folder: Path, *, seconds: float, seed: int, people: int, emails: int = 4, mutant: str | None = None,
    hostile: float = HOSTILE, say: Callable[[str], None] = print,
) -> Verdict:  # fmt: skip
    """One soak of so many seconds, and the judge's verdict about it."""
    crew = () if mutant else ("beat", "service", "worker")
    options = ("--hostile", str(hostile), "--hostile-events", str(hostile))
    rng = Random(seed)
    with World(folder, emails=emails, crew=crew, seed=seed, options=options) as world:
        course = Course(world, rng, time.monotonic() + seconds)
        if mutant:
            # Slow enough for somebody to leave between two steps of a batch.
            world.lines["database"].latency = 0.01
            course.workers = [world.worker("--mutant", mutant) for _ in range(2)]
        say(f"seed {seed}: {people} people, {emails} emails each, {seconds:.0f} s; timeline {folder}/timeline.jsonl")
        works = (
            lambda: nemesis(course),
            lambda: join(course, people, seconds * JOINING),
            lambda: read_mail(course),
            lambda: race(course),
            lambda: move_time(course),
        )
        with _threads(*works):
            while (left := course.until - time.monotonic()) > 0:
                time.sleep(min(left, 30))
                say(f"{time.monotonic() - course.began:5.0f} s  {dict(course.did)}")
            course.over.set()
        world.http.post(f"{world.sandbox_url}/control/hostile", json={"answers": 0, "events": 0})
        course.note("the nemesis has stopped")
        for pid in world.pids("celery", "worker") + world.pids("tests.faults.passes"):
            world.kill(pid, signal.SIGCONT)
        _replace_dead_workers(course)
        _resume(world)
        world.lines["database"].latency = 0.0
        try:
            world.finish(REST)
        except AssertionError as error:
            say(f"it did not come to rest: {error}")
        counts = world.control("counts")
        say(f"provider: {counts['requests']} requests, hostile {counts['hostile']}, {counts['by_status']}")
        return world.verdict()


def _resume(world: World) -> None:
    """A campaign that refused calls have paused is an operator's to resume."""
    if world.query("SELECT state FROM campaign WHERE name = :name", name=CAMPAIGN) == [("paused",)]:
        with world.installation.database.transaction() as connection:
            publish.resume(connection, CAMPAIGN, actor="soak", versions=world.installation.versions)


def main() -> int:
    """Read the command line, run, and say what the judge found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--people", type=int, default=None, help="default: 750 a minute, so 30,000 messages in ten")
    parser.add_argument("--emails", type=int, default=4)
    parser.add_argument("--mutant", choices=sorted(MUTANTS))
    parser.add_argument("--folder", type=Path, help="where everything is kept (default: a temporary one)")
    given = parser.parse_args()
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    people = given.people or max(100, int(750 * given.minutes))
    folder = given.folder or Path(tempfile.mkdtemp(prefix="dripwell-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    verdict = run(
        folder, seconds=given.minutes * 60, seed=seed, people=people, emails=given.emails, mutant=given.mutant,
        say=lambda line: print(line, flush=True),
    )  # fmt: skip
    print("\n".join(verdict.lines()))
    if verdict.clean:
        print(f"seed {seed}: nothing is wrong")
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
        return 0
    again = f"python -m tests.faults.soak --minutes {given.minutes} --seed {seed} --people {people}"
    print(f"seed {seed} FAILED; everything is kept in {folder}\nreplay: {again} --emails {given.emails}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
