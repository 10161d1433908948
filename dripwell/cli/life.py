"""`pause`, `resume`, `stop`: the life of a campaign that has started."""

from __future__ import annotations

import click

from dripwell.bootstrap import Connection
from dripwell.cli.opening import by_whom, opened
from dripwell.cli.output import Answer, answers, counted, number
from dripwell.core.errors import RefusedError
from dripwell.services import publish
from dripwell.storage import reports


@click.command()
@click.argument("name")
@by_whom
@answers
def pause(name: str, actor: str) -> Answer:
    """Hold a campaign: nobody joins, nobody is mailed, nobody loses their place.

    \b
    dripwell pause seven-benefits
    dripwell pause seven-benefits --by maria
    dripwell pause seven-benefits --json
    """
    with opened() as installation, installation.database.transaction() as connection:
        before = publish.existing(connection, name, lock=True)
        publish.pause(connection, name, actor=actor)
        people = sum(reports.positions(connection, before.id).values())
    says = "is paused" if before.state != "paused" else "was paused already"
    return Answer(
        {"campaign": name, "state": "paused", "changed": before.state != "paused", "in_progress": people},
        [
            f"{name} {says}. {counted(people, 'person keeps', 'people keep')} their place.",
            f"Go on: dripwell resume {name}",
        ],
    )


@click.command()
@click.argument("name")
@by_whom
@answers
def resume(name: str, actor: str) -> Answer:
    """Go on with a paused campaign. Whoever is overdue gets one email, in order, inside the send window.

    \b
    dripwell resume seven-benefits
    dripwell resume seven-benefits --by maria
    dripwell resume seven-benefits --json
    """
    with opened() as installation, installation.database.transaction() as connection:
        before = publish.existing(connection, name, lock=True).state
        overdue = publish.resume(connection, name, actor=actor, versions=installation.versions)
    says = "is running again" if before == "paused" else "was running already"
    return Answer(
        {"campaign": name, "state": "running", "changed": before == "paused", "overdue": overdue},
        [
            f"{name} {says}. {counted(overdue, 'person is', 'people are')} overdue"
            + (": each gets one email, then waits again; windows and limits hold." if overdue else ".")
        ],
    )


@click.command()
@click.argument("name")
@click.option("--confirm", type=click.IntRange(min=0), metavar="N", help="How many people leave; it must be right.")
@by_whom
@answers
def stop(name: str, confirm: int | None, actor: str) -> Answer:
    """End a campaign for everybody in it. Says how many people leave, and does it when that number is confirmed.

    \b
    dripwell stop seven-benefits                   says how many people would leave
    dripwell stop seven-benefits --confirm 146
    dripwell pause seven-benefits                  keeps everybody's place instead
    """

    def work(connection: Connection) -> int | None:
        row = publish.existing(connection, name, lock=True)
        if row.state == "stopped":
            return None
        if confirm is None:
            people = sum(reports.positions(connection, row.id).values())
            raise RefusedError(_how_many(name, people))
        left = publish.stop(connection, name, actor=actor)
        if left != confirm:
            raise RefusedError(f"{number(confirm)} is not the number: {_how_many(name, left)}")  # and nothing is kept
        return left

    with opened() as installation:
        left = installation.database.retrying(work)
    if left is None:
        return Answer(
            {"campaign": name, "state": "stopped", "changed": False, "left": 0}, [f"{name} was stopped already."]
        )
    return Answer(
        {"campaign": name, "state": "stopped", "changed": True, "left": left},
        [f"{name} is stopped. {counted(left, 'person', 'people')} left it.", f"Numbers: dripwell report {name}"],
    )


def _how_many(name: str, people: int) -> str:
    them = "1 person is in it and would leave" if people == 1 else f"{number(people)} people are in it and would leave"
    return (
        f"stopping {name} ends it for good for everybody in it: {them}. "
        f"To do that: dripwell stop {name} --confirm {people}. To keep their places: dripwell pause {name}"
    )


commands: list[click.Command] = [pause, resume, stop]
