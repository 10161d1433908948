"""`clock forward`: campaign time runs ahead, in the sandbox only, so that a two-week series takes seconds."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import click

from dripwell.bootstrap import Installation
from dripwell.cli.opening import opened, project
from dripwell.cli.output import Answer, answers, moment, note
from dripwell.core.duration import Duration
from dripwell.core.errors import RefusedError, UnavailableError
from dripwell.embedded.lock import running
from dripwell.services import advance
from dripwell.settings import Settings
from dripwell.storage import clock as clocks

PATIENCE = 120.0
"""Wall seconds that the work of one moment may take."""


@click.group()
def clock() -> None:
    """Move campaign time, in the sandbox only. With a live provider it is refused.

    \b
    dripwell clock forward 2 days
    dripwell clock forward 3 weeks
    dripwell clock forward 90 minutes --json
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
    advance.refuse_live(settings.live)
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
