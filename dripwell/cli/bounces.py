"""`bounces read`: bounces and complaints that came back by mail, kept for the same reader as a provider's events."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import click

from dripwell.bootstrap import Installation
from dripwell.cli.opening import opened
from dripwell.cli.output import Answer, Line, answers, clean, counted, kind_of, print_error
from dripwell.core.errors import DripwellError, RefusedError
from dripwell.delivery.dsn import LARGEST
from dripwell.storage import campaigns, events

TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: a mail server that pipes to this command keeps the mail and comes back."""


@click.group()
def bounces() -> None:
    """Take in what came back by mail, when this installation mails by SMTP.

    \b
    dripwell bounces read < bounce.eml
    dripwell bounces read Maildir/new/*
    "|cd /srv/dripwell && dripwell bounces read"      in a mail server's alias for the return path
    """


@bounces.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@answers
def read(files: tuple[Path, ...]) -> Answer:
    """Keep mails to the return path, one a file or one on stdin. They are understood within seconds, by `ingest`.

    \b
    dripwell bounces read < bounce.eml
    dripwell bounces read Maildir/new/*
    dripwell bounces read Maildir/new/* --json

    Exit code 75 means that a setting is wrong or the record does not answer: what is not kept should come again.
    """
    kept: list[str] = []
    bad: list[dict[str, str]] = []
    try:
        with opened() as installation:
            keep(installation, _mails(files), kept, bad)
    except DripwellError as error:
        # Whatever is wrong is wrong with this installation and not with the mail, so no mail may be lost for it: a mail
        # server that pipes to us tries again for 75 alone.
        kind = kind_of(error)
        print_error(str(error), kind, as_json=False)
        return Answer({"kept": kept, "bad": bad, "error": str(error), "kind": kind}, [], TRY_AGAIN)
    lines: list[Line] = [f"  {clean(row['file'])}  {clean(row['reason'])}" for row in bad]
    read_soon = " What they say is read at once." if kept else ""
    lines.append(f"{counted(len(kept), 'mail', 'mails')} kept, {len(bad)} refused.{read_soon}")
    return Answer({"kept": kept, "bad": bad}, lines, 1 if bad else 0)


def keep(
    installation: Installation, mails: Iterable[tuple[str, bytes | str]], kept: list[str], bad: list[dict[str, str]]
) -> None:
    """Put each mail into the inbox, one transaction each, and its name into `kept`; into `bad` what cannot be taken.

    Raises RefusedError when this installation does not mail by SMTP, UnavailableError at the first that is not kept.
    """
    if installation.provider.name != "smtp":
        raise RefusedError(
            "this installation mails through SendGrid, which tells of bounces by its webhook. Bounces come by mail "
            "when it mails by SMTP: set DRIPWELL_SMTP_URL (docs/how-to/smtp.md)"
        )
    for name, mail in mails:
        if isinstance(mail, str):
            bad.append({"file": name, "reason": mail})
            continue
        with installation.database.transaction() as connection:
            events.put_inbox(connection, mail)
            campaigns.ring(connection, "ingest")
        kept.append(name)


def _mails(files: tuple[Path, ...]) -> Iterator[tuple[str, bytes | str]]:
    """Yield each file's name with its bytes, or with why it cannot be taken."""
    if not files:
        yield "stdin", _whole(sys.stdin.buffer)
        return
    for path in files:
        try:
            with path.open("rb") as file:
                yield str(path), _whole(file)
        except OSError as error:
            yield str(path), f"cannot be read: {error.strerror or error}"


def _whole(file: BinaryIO) -> bytes | str:
    mail = file.read(LARGEST + 1)
    if not mail.strip():
        return "is empty"
    return mail if len(mail) <= LARGEST else "is larger than 5 MB"


commands: list[click.Command] = [bounces]
