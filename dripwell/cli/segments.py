"""`segments list|count|show`: who is in a saved filter right now."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.text import Text

from dripwell.cli.opening import opened
from dripwell.cli.output import Answer, Line, answers, clean, counted, moment, number, table
from dripwell.core.address import masked
from dripwell.core.conditions import in_words
from dripwell.services import segments as services
from dripwell.storage import clock
from dripwell.storage.segments import Count

MOST_EXAMPLES = 1_000
_TOPIC = click.option(
    "--topic", metavar="TOPIC", help="Also how many of them could be mailed about this: active, agreed, not suppressed."
)


@click.group()
def segments() -> None:
    """Look at the saved filters of config/segments.yaml: what they ask, and who is in them now.

    \b
    dripwell segments list
    dripwell segments count california --topic monthly-notes
    dripwell segments show california --limit 5
    """


@segments.command("list")
@answers
def list_() -> Answer:
    """List every segment with the number of people in it now.

    \b
    dripwell segments list
    dripwell segments list --json
    dripwell segments show california
    """
    with opened() as installation, installation.database.snapshot() as connection:
        site, now = installation.site, clock.read(connection).now
        found = [(one, services.count(connection, site, one.name, now)) for one in site.segments]
    rows = [[one.name, number(made.people), number(made.active), one.about] for one, made in found]
    lines = table(["segment", "people", "active", "who"], rows)
    return Answer(
        {
            "at": now,
            "segments": [
                {"segment": one.name, "about": one.about, "when": in_words(one.when), **_counts(made, None)}
                for one, made in found
            ],
        },
        lines
        if rows
        else ["There is no segment yet: write one into config/segments.yaml (docs/reference/segments.md)."],
    )


@segments.command("count")
@click.argument("name")
@_TOPIC
@answers
def count(name: str, topic: str | None) -> Answer:
    """Count the people in a segment now.

    \b
    dripwell segments count california
    dripwell segments count california --topic monthly-notes
    dripwell segments count california --json
    """
    with opened() as installation, installation.database.snapshot() as connection:
        now = clock.read(connection).now
        made = services.count(connection, installation.site, name, now, topic=topic)
    return Answer({"segment": name, "at": now, **_counts(made, topic)}, [_sentence(name, made, topic)])


@segments.command("show")
@click.argument("name")
@_TOPIC
@click.option("--limit", type=click.IntRange(0, MOST_EXAMPLES), default=5, show_default=True, help="So many examples.")
@click.option("--addresses", is_flag=True, help="Show addresses whole. Otherwise they are masked, as on the pages.")
@answers
def show(name: str, topic: str | None, limit: int, addresses: bool) -> Answer:
    """Show what a segment asks, how many people are in it now, and the newest of them.

    \b
    dripwell segments show california
    dripwell segments show california --topic monthly-notes --limit 20
    dripwell segments show california --addresses --json
    """
    with opened() as installation, installation.database.snapshot() as connection:
        site, now = installation.site, clock.read(connection).now
        segment = services.find(site, name)
        made = services.count(connection, site, name, now, topic=topic)
        people = services.examples(connection, site, name, now, limit)
    zone = ZoneInfo(site.clinic.timezone)
    shown = [
        {
            "id": one.id,
            "address": one.address if addresses else masked(one.address),
            "state": one.state,
            "joined_at": one.joined_at,
        }
        for one in people
    ]
    value: dict[str, Any] = {"segment": name, "about": segment.about, "when": in_words(segment.when), "at": now}
    lines: list[Line] = [
        Text.assemble((name, "bold"), clean(f"   {segment.about}")),
        clean(f"  when: {in_words(segment.when)}"),
        f"  {_sentence(name, made, topic)}",
    ]
    if shown:
        rows = [
            [str(line["address"]), one.state, moment(one.joined_at, zone)]
            for line, one in zip(shown, people, strict=True)
        ]
        lines += ["", *table(["the newest", "state", "joined"], rows)]
    return Answer({**value, **_counts(made, topic), "examples": shown}, lines)


def _counts(made: Count, topic: str | None) -> dict[str, Any]:
    counts: dict[str, Any] = {"people": made.people, "active": made.active}
    return counts if topic is None else {**counts, "topic": topic, "mailable": made.mailable}


def _sentence(name: str, made: Count, topic: str | None) -> str:
    says = f"{counted(made.people, 'person is', 'people are')} in {name} now, {number(made.active)} of them active"
    if made.mailable is None:
        return f"{says}."
    return f"{says}; {number(made.mailable)} could be mailed about {topic}."


commands: list[click.Command] = [segments]
