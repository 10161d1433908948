"""`subscribers export`: people go out as a file, or the list of hashes nobody may mail."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from dripwell.cli.opening import by_whom, opened
from dripwell.cli.output import Answer, answers, clean, counted, note
from dripwell.cli.subscribers import subscribers
from dripwell.core.errors import ConfigurationError
from dripwell.services import exporting as services


@subscribers.command()
@click.option("--segment", metavar="NAME", help="Only people in this segment.")
@click.option("--format", "form", type=click.Choice(services.FORMATS), default=services.CSV, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Where to (default: standard output).")
@click.option("--suppressions", "hashes", is_flag=True, help="Instead: who must not be mailed, as keyed hashes.")
@by_whom
@answers
def export(segment: str | None, form: str, output: Path | None, hashes: bool, actor: str) -> Answer:
    """Export everybody who agreed to something and may be mailed, as a table or as JSON lines.

    \b
    dripwell subscribers export --output people.csv
    dripwell subscribers export --segment california --format jsonl --output california.jsonl
    dripwell subscribers export --suppressions --output suppressions.csv

    Cells that a spreadsheet would take for formulas begin with an apostrophe; an import takes it away again. Whoever
    is suppressed, unconfirmed or erased is in no export. That it was done is in the activity log.
    """
    if hashes and segment is not None:
        raise click.UsageError("--suppressions are not people, so they are in no segment")
    if output is None and click.get_current_context().params.get("as_json"):
        raise click.UsageError("--json says what was done, so the people must go to a file: --output FILE")
    with opened() as installation, _written(output, form) as write:
        if hashes:
            count = services.suppressions(installation.database, write, form=form, actor=actor)
        else:
            count = services.people(
                installation.database, installation.site, write, form=form, segment=segment, actor=actor
            )
    what = counted(count, "suppression") if hashes else counted(count, "person", "people")
    said = f"{what} exported{f' to {clean(str(output))}' if output is not None else ''}."
    value = {"file": output, "format": form, "segment": segment, "suppressions": hashes, "exported": count}
    if output is None:
        note(said)
        return Answer(value)
    return Answer(value, [said])


@contextmanager
def _written(path: Path | None, form: str) -> Iterator[Callable[[str], object]]:
    """Where lines go. A file is readable by its owner alone, and one that breaks off is not left behind."""
    if path is None:
        yield sys.stdout.write
        sys.stdout.flush()
        return
    part = path.with_name(path.name + ".part")
    try:
        made = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        # A spreadsheet takes a table without the mark for one in an old encoding.
        with open(made, "w", encoding="utf-8-sig" if form == services.CSV else "utf-8", newline="") as out:
            yield out.write
        part.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


commands: list[click.Command] = [subscribers]
