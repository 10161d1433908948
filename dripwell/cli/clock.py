"""`clock forward`: campaign time runs ahead, in the sandbox only, so that a two-week series takes seconds.

`clock accept`: the database's clock jumped, everything stopped, and a person says that the time is right now.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import click

from dripwell.bootstrap import Installation
from dripwell.cli.opening import WORDS, by_whom, opened, project
from dripwell.cli.output import Answer, answers, moment, note
from dripwell.core.duration import Duration
from dripwell.core.errors import RefusedError, UnavailableError
from dripwell.embedded.lock import running
from dripwell.services import advance, clockwatch
from dripwell.settings import Settings
from dripwell.storage import clock as clocks

PATIENCE = 120.0
"""Wall seconds that the work of one moment may take."""


@click.group()
def clock() -> None:
    """Move campaign time, in the sandbox only, and say that the time is right after an alarm.

    \b
    dripwell clock forward 2 days
    dripwell clock forward 90 minutes --json
    dripwell clock accept --reason "the server's clock was set right"
    """


@clock.command()
@click.argument("duration", nargs=-1, required=True)
@answers
def forward(duration: tuple[str, ...]) -> Answer:
    """Move campaign time forward, one due moment after the other; each is worked off before the next.

    \b
    dripwell clock forward 2 days
    dripwell clock forward 3 weeks
    dripwell clock forward 90 minutes --json
    """
    length = Duration.parse(" ".join(duration))
    if length is None or length.amount == 0:
        raise click.UsageError(
            f"`{' '.join(duration)}` is not a length of time such as `2 days`, `4 hours` or `1 week`"
        )
    project()
    settings = Settings.read()
    advance.refuse_live(settings.live_by)
    info = running(settings.state_dir)
    if info is None or not info.lasting:
        raise RefusedError(
            "nobody would plan or mail while time runs: start `dripwell run` in another terminal, "
            f"then again: dripwell clock forward {length}"
        )
    with opened() as installation:
        zone = ZoneInfo(installation.site.clinic.timezone)
        with installation.database.transaction() as connection:
            begin = clocks.read(connection).now
        until = length.after(begin, zone)
        moves = _run(installation, until, zone)
        with installation.database.transaction() as connection:
            now = clocks.read(connection).now
    return Answer(
        {"from": begin, "to": now, "moves": moves},
        [f"Campaign time is {moment(now, zone)}.", "How it went: dripwell status"],
    )


@clock.command()
@click.option("--reason", type=WORDS, required=True, help="Why the time is right now, for the activity log.")
@by_whom
@answers
def accept(reason: str, actor: str) -> Answer:
    """Say that the database's clock is right, after it jumped ahead and planning stopped.

    Look at the server's time first: whatever is due by it goes out.

    \b
    dripwell clock accept --reason "the server's clock was set right"
    dripwell clock accept --reason "it was two hours slow for a week" --by ana@kcla.example
    dripwell clock accept --reason "Redis is an hour slow" --json
    """
    with opened() as installation:
        redis_now = installation.fast.now()
        alarm = installation.database.retrying(
            lambda connection: clockwatch.accept(connection, actor=actor, reason=reason, redis_now=redis_now)
        )
        with installation.database.transaction() as connection:
            wall_now = clocks.read(connection).wall_now
        zone = ZoneInfo(installation.site.clinic.timezone)
    return Answer(
        {"accepted": alarm, "wall": wall_now},
        [f"Planning goes on. It is {moment(wall_now, zone)}.", f"What the alarm was: {alarm}"],
    )


def _run(installation: Installation, until: datetime, zone: ZoneInfo) -> int:
    """Settle, move to the next due moment, and again; returns how many moves it took."""
    moves, shown = 0, ""
    while True:
        _settle(installation)
        to = advance.step(installation.database, until)
        if to is None:
            return moves
        moves += 1
        day = f"{to.astimezone(zone):%Y-%m-%d}"
        if day != shown:
            shown = day
            note(day)


def _settle(installation: Installation) -> None:
    waiting: dict[str, int] = {}

    def remember(left: dict[str, int]) -> None:
        waiting.clear()
        waiting.update(left)

    if not advance.quiet(installation.database, patience=PATIENCE, on_wait=remember):
        words = ", ".join(f"{count} {name}" for name, count in waiting.items() if count)
        raise UnavailableError(
            f"time stands still: after {PATIENCE:.0f} s there is still work left ({words}). "
            "What is wrong: dripwell status"
        )


commands: list[click.Command] = [clock]
