"""`subscribers import`: a file of people comes in, is rehearsed, or is gone on with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dripwell.bootstrap import Installation
from dripwell.cli.opening import by_whom, opened
from dripwell.cli.output import Answer, Line, answers, clean, counted, is_terminal, moment, note, number, to_stderr
from dripwell.cli.subscribers import subscribers
from dripwell.content.importing.judge import lacking
from dripwell.content.importing.values import Reading, Rules, Statement
from dripwell.content.importing.vendors import VENDORS
from dripwell.content.importing.writing import refused_lines
from dripwell.content.problems import did_you_mean
from dripwell.core.agreement import bought
from dripwell.core.campaign import Site
from dripwell.core.duration import resolve
from dripwell.core.errors import ContentError, NotFoundError, RefusedError
from dripwell.services import importing as services
from dripwell.services.importing import Imported, Opened
from dripwell.storage import clock, import_runs
from dripwell.storage.import_runs import Run

MOST_BAD_ROWS = 50
"""As many are listed for a person; --json lists the first thousand, --bad writes all."""
_OR = "prospect, patient or unknown"
_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t"}
_NOW = "now"


@subscribers.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--topic", "topics", metavar="TOPIC", multiple=True, help="What they agreed to get, unless the row says.")
@click.option("--source", metavar="WORDS", default="", help="Where they agreed, unless the row says.")
@click.option("--given-at", metavar="DATE", help="When they agreed, unless the row says; `now` for this moment.")
@click.option("--wording", metavar="WORDS", default="", help="The words they agreed to, unless the row says.")
@click.option("--map", "mapped", metavar="THEIRS=OURS", multiple=True, help="What a column is: `E-Mail=email`.")
@click.option("--ignore", "ignored", metavar="COLUMN", multiple=True, help="A column to leave out.")
@click.option("--delimiter", type=click.Choice([*_SEPARATORS]), help="What separates cells (default: as the file has).")
@click.option("--from", "vendor", type=click.Choice([*VENDORS]), help="Whose export this is.")
@click.option("--as", "kind", metavar="KIND", help="Which of their files, if its name and columns do not tell.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")
@click.option("--again", is_flag=True, help="Import a file again that was imported with the same words before.")
@click.option("--bad", "bad", type=click.Path(path_type=Path), help="Write the refused rows here, with reasons.")
@by_whom
@answers
def import_(
    file: Path,
    topics: tuple[str, ...],
    source: str,
    given_at: str | None,
    wording: str,
    mapped: tuple[str, ...],
    ignored: tuple[str, ...],
    delimiter: str | None,
    vendor: str | None,
    kind: str | None,
    dry_run: bool,
    again: bool,
    bad: Path | None,
    actor: str,
) -> Answer:
    """Import a file of people: CSV or JSON lines. Good rows go in, bad rows are listed with line and reason.

    \b
    dripwell subscribers import people.csv --topic monthly-notes --source "paper forms" --given-at 2026-05-31 --dry-run
    dripwell subscribers import people.csv --topic monthly-notes --source "paper forms" --given-at 2026-05-31
    dripwell subscribers import unsubscribed_members.csv --from mailchimp

    Nobody comes in without where and when they agreed: a row says it itself (consent_source, consent_at), or you state
    it for the whole file, and the statement is kept. Whoever is suppressed stays so. Killed on the way, the same
    command goes on where it was. Columns, other systems' files and more: docs/how-to/import.md
    """
    reading = _reading(mapped, ignored, delimiter, vendor, kind)
    if bad is not None and bad.exists() and file.exists() and bad.samefile(file):
        raise click.UsageError("--bad names the file that is to be imported: it would be overwritten")
    found_file = services.opened(file, reading)
    with opened() as installation:
        rules = _rules(installation, topics, source, wording, given_at)
        missing = lacking(file, found_file.layout, reading, rules)
        if missing is not None:
            raise click.UsageError(f"no row of {file} could be taken: {missing}")
        if dry_run:
            found = _rehearsed(installation, found_file, rules, bad)
            run = None
        else:
            told = {"topics": "\n".join(topics), "source": source, "given_at": given_at or "", "wording": wording}
            run, before = services.begin(
                installation.database, found_file, rules.statement, told=told, actor=actor, again=again
            )
            found = _taken_in(installation, found_file, run, rules, before=before)
            if bad is not None:
                with installation.database.snapshot() as connection:
                    _write_bad(bad, found_file, import_runs.refusals(connection, run.id))
        zone = ZoneInfo(installation.site.clinic.timezone)
        lines = _lines(found_file, found, run, zone, bad)
        if run is not None and not found.finished_before and found.added + found.known:
            lines.append(_next(installation, run))
    return Answer(_value(file, found, rules, dry_run), lines, 1 if found.bad else 0)


def _reading(
    mapped: tuple[str, ...], ignored: tuple[str, ...], delimiter: str | None, vendor: str | None, kind: str | None
) -> Reading:
    columns = {}
    for one in mapped:
        theirs, equals, ours = one.rpartition("=")
        if not equals or not theirs.strip() or not ours.strip():
            raise click.UsageError(f"--map {one!r} is not THEIRS=OURS, such as --map \"E-Mail=email\"")  # fmt: skip
        columns[theirs.strip().lower()] = ours.strip()
    if kind is not None and vendor is None:
        raise click.UsageError("--as says which of another system's files this is: say whose with --from")
    separator = _SEPARATORS[delimiter] if delimiter else None
    return Reading(columns, frozenset(name.strip().lower() for name in ignored), separator, vendor, kind)


def _rules(
    installation: Installation, topics: tuple[str, ...], source: str, wording: str, given_at: str | None
) -> Rules:
    site = installation.site
    zone = ZoneInfo(site.clinic.timezone)
    with installation.database.transaction() as connection:
        now = clock.read(connection).now
    for topic in topics:
        if site.topic(topic) is None:
            raise NotFoundError(_no_topic(site, topic))
    at = _given_at(given_at, zone, now)
    for words, option in ((source, "--source"), (wording, "--wording")):
        if any(not letter.isprintable() for letter in words) or len(words) > 1000:
            raise click.UsageError(f"{option} is longer than 1000 characters, or holds a line break")
    if word := bought(source):
        raise RefusedError(
            f"--source says “{word}”: who was bought, rented or collected elsewhere has not asked to be mailed. "
            "Import only people who agreed with the clinic itself"
        )
    statement = Statement(tuple(dict.fromkeys(topics)), source.strip(), wording.strip(), at)
    return Rules(statement, frozenset(topic.name for topic in site.topics), now, zone)


def _given_at(written: str | None, zone: ZoneInfo, now: datetime) -> datetime | None:
    if written is None or written.strip().lower() == _NOW:
        return None if written is None else now
    try:
        at = datetime.fromisoformat(written.strip())
    except ValueError as error:
        raise click.UsageError(f"--given-at {written!r} is no date such as 2026-05-31; for this moment: now") from error
    at = at if at.tzinfo is not None else resolve(at, zone)
    if at > now:
        raise click.UsageError("--given-at is in the future: nobody can have agreed yet")
    return at


def _no_topic(site: Site, name: str) -> str:
    known = [topic.name for topic in site.topics]
    guess = did_you_mean(name, known)
    return f"config/site.yaml names no topic `{name}`{f'; {guess}' if guess else '.'} It names: {', '.join(known)}"


def _progress(words: str) -> Progress:
    return Progress(
        TextColumn(f"  {words}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=to_stderr(),
        transient=True,
        disable=not is_terminal(),
    )


def _rehearsed(installation: Installation, file: Opened, rules: Rules, bad: Path | None) -> Imported:
    with _progress("rehearsing") as progress:
        bar = progress.add_task("", total=file.rows)
        return services.rehearse(
            installation.database,
            file,
            rules,
            pepper=installation.pepper,
            new_id=installation.new_id,
            tick=lambda done: progress.update(bar, completed=done),
            refused=lambda refused: _write_bad(bad, file, refused) if bad is not None else None,
        )


def _taken_in(installation: Installation, file: Opened, run: Run, rules: Rules, *, before: bool) -> Imported:
    if before:
        with installation.database.snapshot() as connection:
            found = services.finished(connection, run.id)
        found.finished_before = True
        return found
    if run.rows_read:
        note(f"going on with run {run.id}, which has {number(run.rows_read)} of {number(file.rows)} rows")
    with _progress("importing") as progress:
        bar = progress.add_task("", total=file.rows)
        return services.take_in(
            installation.database,
            file,
            run,
            rules,
            pepper=installation.pepper,
            versions=installation.versions,
            new_id=installation.new_id,
            tick=lambda done: progress.update(bar, completed=done),
        )


def _write_bad(path: Path, file: Opened, refused: Iterator[tuple[int, str]]) -> None:
    """The refused rows, safe for a spreadsheet and for nobody's eyes but the owner's."""
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(made, "w", encoding="utf-8-sig", newline="") as out:
            out.writelines(refused_lines(file.path, file.layout, refused))
    except OSError as error:
        raise ContentError(f"{path} cannot be written: {error.strerror or error}") from error


def _value(file: Path, found: Imported, rules: Rules, dry_run: bool) -> dict[str, object]:
    counts = found.counts
    return {
        "file": file,
        "dry_run": dry_run,
        "run": found.run,
        "imported_before": found.finished_before,
        "resumed_at": found.resumed_at,
        "rows": counts.rows,
        "added": counts.added,
        "known": counts.known,
        "leaving": counts.leaving,
        "refused": counts.refused,
        "duplicates": counts.duplicates,
        "suppressed": counts.suppressed,
        "bad": [{"line": row.line, "reason": row.reason} for row in found.bad],
        "relationship_unknown": counts.unsaid,
        "topics": list(rules.statement.topics),
    }


def _lines(read: Opened, found: Imported, run: Run | None, zone: ZoneInfo, bad: Path | None) -> list[Line]:
    file, counts = read.path, found.counts
    if found.finished_before and run is not None and run.finished_at is not None:
        when = moment(run.finished_at, zone)
        lines: list[Line] = [
            f"{clean(file.name)} was imported with the same words before: run {run.id}, {when}. Nothing was done.",
            _sum(found, dry_run=False),
        ]
        if counts.refused:
            where = "The same command with --bad FILE writes them" if bad is None else _where_bad(read, bad)
            lines.append(f"{counted(counts.refused, 'row was', 'rows were')} bad then. {where}")
        return [*lines, "To import it again all the same: the same command with --again"]
    lines = [f"  {clean(str(file))}:{row.line}  {clean(row.reason)}" for row in found.bad[:MOST_BAD_ROWS]]
    if counts.refused > MOST_BAD_ROWS:
        more = "" if bad is not None else "; --bad FILE writes all"
        lines.append(f"  … and {number(counts.refused - MOST_BAD_ROWS)} more{more}")
    lines.append(_sum(found, dry_run=run is None))
    if counts.duplicates:
        them = "stands" if counts.duplicates == 1 else "stand"
        lines.append(f"{counted(counts.duplicates, 'of the bad rows', 'of the bad rows')} {them} twice in the file.")
    if counts.suppressed:
        lines.append(f"{counted(counts.suppressed, 'person', 'people')} suppressed before: nothing was lifted.")
    if counts.leaving:
        lines.append(f"{counted(counts.leaving, 'address', 'addresses')} must not be mailed any more.")
    if counts.unsaid:
        them = counted(counts.unsaid, "row does", "rows do")
        lines.append(
            f"{them} not say whether the person is a patient. To say it, give the file a column `relationship` with "
            f"{_OR}{'' if run is None else ', and import it again'}."
        )
    if bad is not None and counts.refused:
        lines.append(_where_bad(read, bad))
    if run is None:
        lines.append("Nothing was changed. To import: the same command without --dry-run")
    return lines


def _where_bad(file: Opened, bad: Path) -> str:
    if file.layout.separator is None:
        return f"The bad rows are in {clean(str(bad))}. Correct them in {clean(str(file.path))}, and import it again."
    options = "with the same options" + ("" if file.reading.delimiter is None else " but --delimiter comma")
    return f"The bad rows are in {clean(str(bad))}. When you have corrected them there, import that file {options}."


def _next(installation: Installation, run: Run) -> str:
    topics = run.topics or tuple(topic.name for topic in installation.site.topics)
    with installation.database.snapshot() as connection:
        names = services.campaigns_for(connection, topics)
    if not names:
        told = f" for {', '.join(run.topics)}" if run.topics else ""
        return f"No campaign{told} is running yet."
    return f"Into a campaign: {' or '.join(f'dripwell enroll {name} --all' for name in names[:3])}"


def _sum(found: Imported, *, dry_run: bool) -> str:
    counts = found.counts
    left = f" + {number(counts.leaving)} left" if counts.leaving else ""
    return (
        f"{counted(counts.rows, 'row')} = {number(counts.added)} {'new' if dry_run else 'added'} + "
        f"{number(counts.known)} known{left} + {number(counts.refused)} bad"
    )


commands: list[click.Command] = [subscribers]
