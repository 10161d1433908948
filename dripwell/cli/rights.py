"""`subscribers data|erase|erasures`: what the clinic holds about one person, and that it holds it no longer."""

from __future__ import annotations

import sys
from typing import Any
from zoneinfo import ZoneInfo

import click

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.cli.opening import ADDRESS, ROW_ID, WORDS, by_whom, opened
from dripwell.cli.output import Answer, Line, answers, clean, counted, moment, note, table
from dripwell.cli.subscribers import subscribers
from dripwell.core import seal
from dripwell.core.address import masked
from dripwell.core.errors import RefusedError
from dripwell.services import enroll as people
from dripwell.services import erase as services
from dripwell.services import mine
from dripwell.storage import erasing

MOST = 200
"""As many erasures are listed."""
_STATES = {
    "begun": "waits for a call that is under way",
    "asking": "the provider has not taken it yet",
    "asked": "the last sweep is in a few minutes",
    "done": "done",
}


@subscribers.command()
@click.argument("address", type=ADDRESS)
@answers
def data(address: str) -> Answer:
    """Show everything that is held about one person, as their own page does. With --json it can be handed to them.

    \b
    dripwell subscribers data maria@example.com
    dripwell subscribers data maria@example.com --json > maria.json
    dripwell subscribers erase maria@example.com
    """
    with opened() as installation, installation.database.snapshot() as connection:
        person = people.find(connection, address, installation.pepper)
        found = mine.everything(connection, person.id)
    lines: list[Line] = []
    for name, rows in found.items():
        if name == "format":
            continue
        several = rows if isinstance(rows, list) else [rows]
        lines.append(f"{name.replace('_', ' ')}{'' if several else ': nothing'}")
        lines += ["  " + clean(_one_line(row)) for row in several]
    return Answer(found, lines)


def _one_line(row: dict[str, Any]) -> str:
    return " · ".join(f"{key} {value}" for key, value in row.items() if value not in (None, "", [], {}))


@subscribers.command()
@click.argument("address", type=ADDRESS)
@click.option("--confirm", type=ADDRESS, metavar="ADDRESS", help="The address once more: scripts are not asked.")
@by_whom
@answers
def erase(address: str, confirm: str | None, actor: str) -> Answer:
    """Erase one person for good: from every table, and at the provider. Their address is never mailed again.

    \b
    dripwell subscribers erase maria@example.com
    dripwell subscribers erase maria@example.com --confirm maria@example.com
    dripwell subscribers erasures                      what still waits for the provider

    A keyed hash stays in the list of those who must not be mailed, so that no import brings them back; only they can,
    by confirming a form. A booked call is canceled. It cannot be undone, but by restoring a backup it is done again.
    """
    with opened() as installation:
        with installation.database.snapshot() as connection:
            person = people.find(connection, address, installation.pepper)
        assert person.address is not None
        _agreed(person.address, confirm)
        begun = services.erase(
            installation.database,
            person.id,
            pepper=installation.pepper,
            actor=actor,
            failpoint=installation.failpoint,
            kept=installation.journal,
        )
        bootstrap.carry_on_erasing(installation, lambda: False)
        with installation.database.snapshot() as connection:
            latest = erasing.latest_of(connection, person.id)
    assert latest is not None
    state = latest[1]
    lines = [f"{masked(address)} is mailed no more."]
    if begun.complete:
        lines.append(
            "The record is clean." if state != "asking" else "The record is clean; the provider has yet to take it."
        )
    else:
        lines.append("A call for them is under way; the record is clean when that is settled, within a day.")
    return Answer(
        {"erasure": begun.id, "state": state, "record_is_clean": begun.complete},
        [*lines, "What still waits: dripwell subscribers erasures"],
    )


def _agreed(address: str, confirm: str | None) -> None:
    """Raise RefusedError unless somebody has said that it is this person."""
    shown = masked(address)
    if confirm is not None:
        if confirm.lower() != address.lower():
            raise RefusedError("--confirm names another address, so nobody is erased: write the same one twice")
        return
    if not sys.stdin.isatty():
        raise RefusedError(
            f"erasing cannot be undone, and nobody is here to ask. To do it: add --confirm with the address of {shown}"
        )
    note(f"Erasing {shown} cannot be undone. Type {shown.replace('•••', '...')} to go on, anything else to stop.")
    typed = click.prompt("", default="", show_default=False, prompt_suffix="> ", err=True).strip().lower()
    if typed not in (shown.lower(), shown.replace("•••", "...").lower(), address.lower()):
        raise RefusedError("nobody is erased: what was typed is something else")


@subscribers.command()
@click.option("--all", "everything", is_flag=True, help="Those that are done, too.")
@click.option("--settled", type=ROW_ID, metavar="N", help="Somebody has erased this one at the provider by hand.")
@click.option("--reason", type=WORDS, help="How it was settled, for the activity log. Goes with --settled.")
@by_whom
@answers
def erasures(everything: bool, settled: int | None, reason: str | None, actor: str) -> Answer:
    """List erasures that are not done, and what the provider answered. Nobody is named; who waits is masked.

    \b
    dripwell subscribers erasures
    dripwell subscribers erasures --all --json
    dripwell subscribers erasures --settled 7 --reason "done in the provider's console"

    When the account may not erase, somebody does it there by hand: --settled N then ends the asking, and the last
    copy of the address is removed. With --json a waiting address is shown whole for that.
    """
    if (settled is None) != (reason is None):
        raise click.UsageError("--settled N and --reason WHY go together")
    with opened() as installation:
        if settled is not None and reason is not None:
            with installation.database.transaction() as connection:
                services.drop(connection, settled, actor=actor, reason=reason)
        with installation.database.snapshot() as connection:
            rows = erasing.listed(connection, everything=everything, limit=MOST)
        zone = ZoneInfo(installation.site.clinic.timezone)
        waiting = {row.id: _address(installation, row) for row in rows if row.sealed is not None}
    value = [
        {
            "id": row.id,
            "state": row.state,
            "by": row.actor,
            "begun_at": row.begun_at,
            "erased_at": row.erased_at,
            "done_at": row.done_at,
            "provider": row.provider,
            "answer": row.answer,
            "job_id": row.job_id,
            "tries": row.tries,
            "asked_again_at": row.retry_at if row.state == "asking" and row.tries else None,
            "address": waiting.get(row.id),
        }
        for row in rows
    ]
    lines = table(
        ["erasure", "begun", "by", "who", "where it is", "the provider"],
        [
            [
                str(row.id),
                moment(row.begun_at, zone),
                row.actor,
                masked(waiting[row.id] or "") if waiting.get(row.id) else "-",
                _STATES[row.state],
                row.answer or "-",
            ]
            for row in rows
        ],
    )
    lines = [*lines, "", counted(len(rows), "erasure")] if rows else ["Nothing waits: every erasure is done."]
    return Answer({"erasures": value}, lines)


def _address(installation: Installation, row: Any) -> str | None:
    try:
        return seal.opened(installation.pepper, row.public_id, bytes(row.sealed))
    except ValueError:
        return None


commands: list[click.Command] = [subscribers]
