"""`quarantine show|begin|replay|lift`: what to do when the database has gone back in time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from dripwell.bootstrap import Installation
from dripwell.cli.opening import WORDS, by_whom, opened
from dripwell.cli.output import Answer, Line, answers, counted, moment, number
from dripwell.core.errors import NotFoundError
from dripwell.services import hold, restore
from dripwell.services import quarantine as service
from dripwell.storage import journal, spool

MOST_DAYS = 3650
"""Ten years: every email there ever was."""
_JOURNALS = click.option(
    "--journal",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another host's journal folder, copied here; may be given again.",
)


@click.group()
def quarantine() -> None:
    """Look after a database that was restored: nobody is called until it has learned what it forgot.

    \b
    dripwell quarantine show
    dripwell quarantine replay
    dripwell quarantine lift --reason "restored Tuesday's backup, journals replayed"
    """


@quarantine.command()
@_JOURNALS
@answers
def show(folders: Sequence[Path]) -> Answer:
    """Say whether calls are stopped, why, and what the journals know that the database does not.

    \b
    dripwell quarantine show
    dripwell quarantine show --journal sender-2/journal
    dripwell quarantine show --json
    """
    with opened() as installation:
        found = service.show(installation.database, _folders(installation, folders))
        zone = ZoneInfo(installation.site.clinic.timezone)
    value = {
        "quarantined_at": found.since,
        "reason": found.reason,
        "replayed_at": found.replayed_at,
        "journaled_calls": found.lost.calls,
        "lost_calls": found.lost.lost_calls,
        "lost_emails": found.lost.emails,
        "unsettled_batches": found.unsettled_batches,
        "unsettled_emails": found.unsettled_emails,
        "broken_lines": [f"{one.path}, line {one.line}: {one.why}" for one in found.lost.broken],
    }
    if found.since is None or found.reason is None:
        return Answer(value, ["There is no quarantine. Calls are made."])
    return Answer(
        value, [f"QUARANTINE since {moment(found.since, zone)}. Nobody is called.", found.reason, *_told(found)]
    )


def _told(found: service.Found) -> list[Line]:
    lost = found.lost
    lines: list[Line] = [""]
    lines.append(
        f"The journal holds {counted(lost.calls, 'call')}. The database does not know {number(lost.lost_calls)} of "
        f"them, with {counted(lost.emails, 'email')} that people may have got."
    )
    if lost.broken:
        lines.append(f"{counted(len(lost.broken), 'line')} of it cannot be read: {lost.broken[0].path}.")
    if found.unsettled_batches:
        lines.append(
            f"Of {counted(found.unsettled_batches, 'batch', 'batches')} with "
            f"{counted(found.unsettled_emails, 'email')} nobody knows the outcome yet; the provider's log is asked."
        )
    lines.append("")
    if found.replayed_at is None:
        lines.append("First: dripwell quarantine replay    puts back what the journals know, and calls nobody.")
        lines.append("Lifting before that means that everybody who was mailed after the backup is mailed again.")
    else:
        lines.append("The journals are replayed. Nobody in them is mailed a second time.")
        lines.append("Go on: dripwell quarantine lift --reason …    from then on mail leaves again.")
    return lines


@quarantine.command()
@_JOURNALS
@click.option(
    "--hold-since",
    type=click.IntRange(1, MOST_DAYS),
    metavar="DAYS",
    help="A host and its journal are lost: hold every email planned in these days.",
)
@by_whom
@answers
def replay(folders: Sequence[Path], hold_since: int | None, actor: str) -> Answer:
    """Put back what the journals know and the database forgot: calls, their answers, unsubscribes. Calls nobody.

    \b
    dripwell quarantine replay
    dripwell quarantine replay --journal sender-2/journal
    dripwell quarantine replay --hold-since 30
    """
    with opened() as installation:
        spooled = spool.path_in(installation.settings.state_dir)
        done = restore.replay(installation.database, _folders(installation, folders), spooled, actor=actor)
        held = hold.hold(installation.database, installation.versions, hold_since) if hold_since is not None else 0
    value = {
        "journaled_calls": done.calls,
        "lost_calls": done.lost_calls,
        "emails": done.emails,
        "accepted": done.accepted,
        "strangers": done.strangers,
        "lost_campaigns": dict(done.lost_campaigns),
        "unsubscribes": done.leaves,
        "spooled": done.spooled,
        "held": held,
        "broken_lines": [f"{one.path}, line {one.line}: {one.why}" for one in done.broken],
    }
    return Answer(value, _replayed(done, held))


def _replayed(done: restore.Replayed, held: int) -> list[Line]:
    lines: list[Line] = [
        f"{counted(done.lost_calls, 'forgotten call')} of {number(done.calls)} in the journals "
        f"{'is' if done.lost_calls == 1 else 'are'} in the record again, with {counted(done.emails, 'email')}.",
        f"Of these, {number(done.accepted)} were accepted; evidence settles the others.",
        f"{counted(done.leaves, 'entry', 'entries')} of the suppression ledger and {number(done.spooled)} spooled "
        f"{'unsubscribe' if done.spooled == 1 else 'unsubscribes'} hold again.",
    ]
    if done.strangers:
        lines.append(
            f"{counted(done.strangers, 'email')} went to people who joined after the backup. They are not in the "
            "record; import them again and they join as new."
        )
    for name, emails in sorted(done.lost_campaigns.items()):
        lines.append(
            f"{counted(emails, 'email')} of {name} went out, and the database has no such campaign. Do not start it "
            "again for the same people: they would get these emails a second time."
        )
    if held:
        lines.append(f"{counted(held, 'email')} are held. Decide: dripwell held list")
    if done.broken:
        lines.append(f"{counted(len(done.broken), 'line')} cannot be read, the first in {done.broken[0].path}.")
    return [*lines, "Go on: dripwell quarantine show, then dripwell quarantine lift --reason …"]


@quarantine.command()
@click.option("--reason", type=WORDS, required=True, metavar="WORDS", help="What happened.")
@by_whom
@answers
def begin(reason: str, actor: str) -> Answer:
    """Stop every call, because you have restored a backup and no witness has noticed.

    \b
    dripwell quarantine begin --reason "restored the 14:05 snapshot"
    dripwell quarantine begin --reason "restored the 14:05 snapshot" --by maria
    dripwell quarantine show
    """
    with opened() as installation:
        changed = service.begin(installation.database, actor=actor, reason=reason)
    says = "Nobody is called from now on." if changed else "There is a quarantine already."
    return Answer({"quarantined": True, "changed": changed}, [says, "Go on: dripwell quarantine show"])


@quarantine.command()
@click.option(
    "--reason", type=WORDS, required=True, metavar="WORDS", help="What was done and why calls are right again."
)
@click.option("--without-replay", is_flag=True, help="Nothing was mailed after the backup, or every journal is lost.")
@by_whom
@answers
def lift(reason: str, without_replay: bool, actor: str) -> Answer:
    """Let mail leave again. Your name and reason are kept.

    \b
    dripwell quarantine lift --reason "restored Tuesday's backup, journals replayed"
    dripwell quarantine lift --reason "pg_upgrade to 17, nothing was lost" --without-replay
    dripwell quarantine lift --reason "moved to new servers, journals replayed" --by maria
    """
    with opened() as installation:
        batches, emails = service.lift(installation.database, actor=actor, reason=reason, without_replay=without_replay)
    lines: list[Line] = ["The quarantine is lifted. Mail leaves again."]
    if batches:
        lines.append(
            f"{counted(emails, 'email')} in {counted(batches, 'batch', 'batches')} still wait for evidence; they are "
            "not mailed before it comes."
        )
    return Answer({"lifted": True, "unsettled_batches": batches, "unsettled_emails": emails}, lines)


def _folders(installation: Installation, others: Sequence[Path]) -> list[Path]:
    for folder in others:
        if not any(folder.glob("calls-*.journal")):
            raise NotFoundError(
                f"no journal in {folder}: name the folder that holds calls-….journal, a copy of the other host's "
                "journal folder in its state directory"
            )
    return [journal.folder_in(installation.settings.state_dir), *others]


commands: list[click.Command] = [quarantine]
