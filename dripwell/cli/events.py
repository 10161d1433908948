"""`events list`, `events retry`: the webhooks that could not be read, and another try for them."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import click

from dripwell.bootstrap import Connection
from dripwell.cli.opening import ROW_ID, WORDS, by_whom, opened
from dripwell.cli.output import Answer, Line, answers, clean, counted, moment, number, table
from dripwell.services import ingest
from dripwell.storage import events as stored

MOST = 100
"""How many webhooks are shown, the oldest first."""


@click.group()
def events() -> None:
    """See what the provider told us that could not be read, and let it be read again.

    \b
    dripwell events list
    dripwell events list --quarantined
    dripwell events retry 4711 --reason "the parser was mended"
    """


@events.command("list")
@click.option("--quarantined", is_flag=True, help="Only those that were set aside after three tries.")
@answers
def list_(quarantined: bool) -> Answer:
    """List the webhooks that are not read yet and those that were set aside, the oldest first.

    \b
    dripwell events list
    dripwell events list --quarantined
    dripwell events list --quarantined --json
    """
    states = ["quarantined"] if quarantined else ["new", "quarantined"]
    with opened() as installation, installation.database.snapshot() as connection:
        waiting = stored.waiting(connection)
        found = stored.inbox(connection, states, MOST)
        zone = ZoneInfo(installation.site.clinic.timezone)
    rows = [
        [
            str(one.id),
            "set aside" if one.state == "quarantined" else "unread",
            moment(one.received_at, zone),
            number(one.size),
            str(one.tries),
            clean(one.error or "-"),
        ]
        for one in found
    ]
    total = sum(waiting[state] for state in states)
    if not rows:
        lines: list[Line] = [
            "No webhook is set aside." if quarantined else "Every webhook is read, and none is set aside."
        ]
    else:
        unread = counted(waiting["new"], "webhook is", "webhooks are")
        lines = [
            f"{unread} unread, {number(waiting['quarantined'])} set aside.",
            *table(["id", "state", "received", "bytes", "tries", "why"], rows),
        ]
        if total > len(rows):
            lines.append(f"  … and {number(total - len(rows))} more")
        if waiting["quarantined"]:
            lines.append("Read one again: dripwell events retry ID --reason WHY")
    value = [
        {
            "id": one.id,
            "state": one.state,
            "received_at": one.received_at,
            "bytes": one.size,
            "tries": one.tries,
            "error": one.error,
        }
        for one in found
    ]
    return Answer({"unread": waiting["new"], "quarantined": waiting["quarantined"], "webhooks": value}, lines)


@events.command("retry")
@click.argument("webhook", metavar="[ID]", type=ROW_ID, required=False)
@click.option("--all", "every", is_flag=True, help="Every webhook that was set aside.")
@click.option(
    "--reason", type=WORDS, metavar="WHY", required=True, help="Why it will be read this time, for the activity log."
)
@by_whom
@answers
def retry(webhook: int | None, every: bool, reason: str, actor: str) -> Answer:
    """Let a webhook that was set aside be read again, with three new tries. Reading it twice changes nothing.

    \b
    dripwell events retry 4711 --reason "the parser was mended"
    dripwell events retry --all --reason "PostgreSQL was full"
    dripwell events list --quarantined
    """
    if every == (webhook is not None):
        raise click.UsageError("say which: an ID, or --all")

    def work(connection: Connection) -> list[int]:
        return ingest.retry(connection, webhook, actor=actor, reason=reason)

    with opened() as installation:
        again = installation.database.retrying(work)
    if not again:
        return Answer({"retried": []}, ["No webhook is set aside."])
    return Answer(
        {"retried": again},
        [f"{counted(len(again), 'webhook', 'webhooks')} will be read again.", "See: dripwell events list"],
    )


commands: list[click.Command] = [events]
