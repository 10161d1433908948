"""`calls list`: whom the front desk calls next."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import click

from dripwell.cli.opening import opened
from dripwell.cli.output import Answer, answers, clean, moment, table
from dripwell.core import calls as rules
from dripwell.storage import bookings, clock

MOST = 200
"""How many wishes are shown; a booked call answers one."""


@click.group()
def calls() -> None:
    """See the phone calls that people booked.

    \b
    dripwell calls list
    dripwell calls list --json
    dripwell calls list > calls.txt
    """


@calls.command("list")
@answers
def list_() -> Answer:
    """List the booked calls that are not over, the next one first, and what people wrote who found no time.

    \b
    dripwell calls list
    dripwell calls list --json
    dripwell calls list > calls.txt
    """
    with opened() as installation, installation.database.snapshot() as connection:
        now = clock.read(connection).now
        found = bookings.upcoming_all(connection, rules.minute_of(now))
        wishes = bookings.wishes(connection, MOST)
        zone = ZoneInfo(installation.site.clinic.timezone)
    value = [
        {
            "id": call.id,
            "at": call.starts_at,
            "minutes": call.minutes,
            "phone": call.phone,
            "ask_for": call.ask_for,
            "voicemail": call.voicemail,
            "timezone": call.timezone,
        }
        for call in found
    ]
    rows = [
        [moment(call.starts_at, zone), call.phone, call.ask_for or "-", "may be left" if call.voicemail else "no"]
        for call in found
    ]
    lines = table(["when", "phone", "ask for", "voicemail"], rows) if rows else ["No call is booked."]
    if wishes:
        lines = [*lines, "", "No time suited these people; they wrote:", *table(
            ["asked", "phone", "when it suits them"], [[moment(w.at, zone), w.phone, clean(w.words)] for w in wishes]
        )]  # fmt: skip
    asked = [{"id": w.id, "at": w.at, "phone": w.phone, "words": w.words} for w in wishes]
    return Answer({"calls": value, "wishes": asked, "timezone": zone.key}, lines)


commands: list[click.Command] = [calls]
