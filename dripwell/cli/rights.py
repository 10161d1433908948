"""`subscribers data|erase|erasures`: what the clinic holds about one person, and that it holds it no longer."""

from __future__ import annotations

import sys
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.text import Text

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.cli.opening import ADDRESS, ROW_ID, WORDS, by_whom, opened
from dripwell.cli.output import Answer, Line, answers, clean, counted, moment, note, table
from dripwell.cli.subscribers import subscribers
from dripwell.core import seal
from dripwell.core.address import masked
from dripwell.core.calls import zone_name
from dripwell.core.errors import RefusedError
from dripwell.services import enroll as people
from dripwell.services import erase as services
from dripwell.services import mine, plain
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
    """Show everything that is kept about one person, in the words of their own page. --json is for them to take along.

    \b
    dripwell subscribers data maria@example.com
    dripwell subscribers data maria@example.com --json > maria.json
    dripwell subscribers erase maria@example.com
    """
    with opened() as installation, installation.database.snapshot() as connection:
        person = people.find(connection, address, installation.pepper)
        found = mine.everything(connection, person.id)
        titles = mine.titles(connection, installation.versions, found)
        site = installation.site
    zone = ZoneInfo(site.clinic.timezone)
    told = plain.sections(found, site, zone, titles, whole=True, most=None)
    lines: list[Line] = [f"As their own page tells them. Times are {zone_name(zone.key)}."]
    for section in told:
        if section.entries:
            lines += ["", Text(section.title, style="bold")]
            lines += [line for entry in section.entries for line in _entry_lines(entry)]
    nothing = [section.title for section in told if not section.entries]
    lines += ["", "Nothing of these is kept:", *(f"  {title}" for title in nothing)] if nothing else []
    return Answer(found, lines)


def _entry_lines(entry: plain.Entry) -> list[Line]:
    facts = [f"{label}: {said}" for label, said in entry.facts]
    if not entry.title:
        return [clean(f"  {fact}") for fact in facts]
    lines: list[Line] = [clean(f"  {entry.title}")]
    return [*lines, clean("    " + " · ".join(facts))] if facts else lines


@subscribers.command()
@click.argument("address", type=ADDRESS)
@click.option("--confirm", type=ADDRESS, metavar="ADDRESS", help="The address once more: scripts are not asked.")
@by_whom
@answers
def erase(address: str, confirm: str | None, actor: str) -> Answer:
    """Erase one person for good, here and at the provider. They are never mailed again unless they sign up themselves.

    \b
    dripwell subscribers erase maria@example.com
    dripwell subscribers erase maria@example.com --confirm maria@example.com
    dripwell subscribers erasures                      what still waits for the provider

    A keyed hash stays in the list of those who must not be mailed, so that neither an import nor staff brings them
    back; only they can, by confirming a form. A booked call is canceled. It cannot be undone: after a backup from
    before it is restored, they are erased once more.
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
            answer = erasing.answer_of(connection, latest[0])
    state = latest[1]
    return Answer(
        {"erasure": begun.id, "state": state, "record_is_clean": begun.complete}, _erased_lines(address, state, answer)
    )


def _erased_lines(address: str, state: str, answer: erasing.Answered) -> list[Line]:
    """What went, what stays, and what waits, in this order."""
    lines: list[Line] = [f"{masked(address)} is erased and never mailed again unless they sign up themselves."]
    if state == "begun":
        lines.append(
            "Waits: an email to them is under way at this moment. When it is known what became of it, within a day, "
            "everything that says who they are goes, and the provider is asked to erase it, too."
        )
    else:
        lines.append(
            "Gone: the address, the name and all other fields, what they agreed to, their clicks, phone numbers and "
            "notes about them. A booked call to come is canceled."
        )
    lines.append(
        "Stays: a keyed hash of the address in the do-not-email list, so that no import brings them back, "
        "and counts that name nobody."
    )
    if state == "asking":
        said = f" ({clean(answer.words)})" if answer.words else ""
        lines.append(
            f"Waits: the provider has not taken the request yet{said}. It is asked again by itself; until then the "
            "address is kept for that alone, encrypted."
        )
    elif state != "begun":
        done = "The provider has taken the request to erase, too." if answer.taken else f"{clean(answer.words)}."
        return [*lines, done]
    return [*lines, "Where it is: dripwell subscribers erasures"]


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
            "asked_again_at": row.retry_at if row.state == "asking" else None,
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
