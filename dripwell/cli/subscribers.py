"""`subscribers add|import|show`, `enroll`, `exit`: people and the campaigns they are in."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.text import Text

from dripwell.cli.opening import ADDRESS, by_whom, opened
from dripwell.cli.output import Answer, Line, answers, clean, counted, moment, note, number
from dripwell.content.importing.values import RELATIONSHIPS
from dripwell.content.problems import did_you_mean
from dripwell.core.campaign import Site
from dripwell.core.duration import resolve
from dripwell.core.errors import NotFoundError, RefusedError
from dripwell.services import enroll as services
from dripwell.services import importing, publish, segments
from dripwell.services.enroll import Consent
from dripwell.storage import clock, consents, reports, suppressions
from dripwell.storage.clock import Times
from dripwell.storage.consents import ConsentRow
from dripwell.storage.database import Connection

_LEFT_OUT: dict[str, str] = {
    "unknown": "no longer subscribers",
    "unconfirmed": "they have not confirmed their address",
    "suppressed": "not to be emailed",
    "no_consent": "they have not agreed to the campaign's topic",
    "not_in_audience": "the campaign's audience does not let them in",
}
_BECAME = {
    "ACCEPTED": "accepted",
    "PLANNED": "planned",
    "IN_BATCH": "being mailed",
    "HELD": "held",
    "REJECTED": "refused",
    "SUPPRESSED": "not mailed",
    "SKIPPED": "not mailed",
}

NO_AGREEMENT = "the provider has signed no agreement for health data"
_WORDS = {"no_baa": f"a patient, and {NO_AGREEMENT}"}
"""Reasons that say nothing to whoever has not read the rules."""


@click.group()
def subscribers() -> None:
    """Add people, import them, and see what happened to one.

    \b
    dripwell subscribers add maria@example.com --topic seven-part-series --source "front desk, in writing"
    dripwell subscribers import people.csv --topic seven-part-series --source "paper forms" --given-at 2026-05-31
    dripwell subscribers show maria@example.com
    """


@subscribers.command()
@click.argument("address", type=ADDRESS)
@click.option(
    "--confirm-by-email", is_flag=True, help="Mail the confirmation; nothing else until its button is pressed."
)
@click.option("--form", metavar="NAME", help="The form whose words the person confirms.")
@click.option("--topic", metavar="TOPIC", help="What the person agreed to get.")
@click.option("--source", metavar="WORDS", help="Where the person agreed.")
@click.option("--wording", metavar="WORDS", default="", help="The words the person agreed to.")
@click.option(
    "--given-at", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]), metavar="DATE", help="When (default: now)."
)
@click.option("--first-name", metavar="NAME")
@click.option("--timezone", metavar="ZONE", help="Such as America/Denver (default: the clinic's).")
@click.option(
    "--relationship",
    type=click.Choice(RELATIONSHIPS, case_sensitive=False),
    help="To the clinic (default: prospect, or what is known). Alone it corrects what is kept of somebody known.",
)
@by_whom
@answers
def add(
    address: str,
    confirm_by_email: bool,
    form: str | None,
    topic: str | None,
    source: str | None,
    wording: str,
    given_at: datetime | None,
    first_name: str | None,
    timezone: str | None,
    relationship: str | None,
    actor: str,
) -> Answer:
    """Add one person: either they confirm by email, or you say how you know that they agreed.

    \b
    dripwell subscribers add maria@example.com --confirm-by-email --form series-request
    dripwell subscribers add maria@example.com --topic seven-part-series --source "front desk, in writing"
    dripwell subscribers add maria@example.com --relationship patient          corrects what is kept of her

    Patients are mailed only through a provider that has signed an agreement for health data.
    """
    zone = _zone(timezone)
    fields = {"first_name": first_name} if first_name else {}
    if confirm_by_email:
        if form is None or topic is not None or source is not None or wording or given_at is not None:
            raise click.UsageError("--confirm-by-email goes with --form NAME, and with neither --topic nor --source")
        return _ask_to_confirm(address, form, fields, zone, relationship, actor)
    alone = (form, topic, source, given_at, first_name, timezone) == (None,) * 6 and not wording
    if relationship is not None and alone:
        return _correct(address, relationship, actor)
    if form is not None or topic is None or source is None:
        raise click.UsageError(
            "nobody is mailed without consent: give --confirm-by-email --form NAME, "
            "or say how they agreed with --topic TOPIC --source WORDS"
        )
    with opened() as installation, installation.database.transaction() as connection:
        times = clock.read(connection)
        consent = _consent(installation.site, times, topic, source, wording, given_at)
        before = services.relationship_of(connection, address, installation.pepper)
        subscriber_id, new = services.add(
            connection,
            address=address,
            consent=consent,
            pepper=installation.pepper,
            new_id=installation.new_id,
            times=times,
            timezone=zone,
            fields=fields,
            relationship=relationship,
            corrects=relationship is not None,
            actor=actor,
        )
        after = services.relationship_of(connection, address, installation.pepper)
        suppressed = _suppressed(connection, subscriber_id)
    for scope, reason in suppressed.items():
        note(
            f"{address} is suppressed ({scope}: {reason}) and stays so: only they can come back, by confirming a form."
        )
    return Answer(
        {
            "address": address,
            "added": new,
            "topic": topic,
            "given_at": consent.given_at or times.now,
            "suppressed": suppressed,
            "relationship": after,
        },
        [
            f"{address} is {'added' if new else 'known; the consent is kept'}, with consent to {topic}.",
            f"relationship: {before} → {after}" if before not in (None, after) else f"relationship: {after}",
            f"Into a campaign: dripwell enroll NAME {address}",
        ],
    )


def _correct(address: str, relationship: str, actor: str) -> Answer:
    with opened() as installation, installation.database.transaction() as connection:
        before = services.correct(
            connection,
            address=address,
            pepper=installation.pepper,
            new_id=installation.new_id,
            times=clock.read(connection),
            relationship=relationship,
            actor=actor,
        )
    changed = before != relationship
    says = f"relationship: {before} → {relationship}" if changed else f"{address} is kept as {relationship} already."
    return Answer({"address": address, "added": False, "relationship": relationship, "was": before}, [says])


def _ask_to_confirm(
    address: str, form: str, fields: dict[str, str], zone: str | None, relationship: str | None, actor: str
) -> Answer:
    with opened() as installation, installation.database.transaction() as connection:
        names = [known.name for known in installation.site.forms]
        if form not in names:
            raise NotFoundError(_no_such("form", form, names))
        before = services.relationship_of(connection, address, installation.pepper)
        services.ask_to_confirm(
            connection,
            address=address,
            form=form,
            pepper=installation.pepper,
            new_id=installation.new_id,
            times=clock.read(connection),
            timezone=zone,
            fields=fields,
            relationship=relationship,
            actor=actor,
        )
        after = services.relationship_of(connection, address, installation.pepper)
        if after == "patient" and not installation.provider.capabilities.baa:
            raise RefusedError(  # which takes everything back: they would wait for an email that never comes
                f"{address} is a patient, and {NO_AGREEMENT}: no email would ever reach them. Mail through a relay "
                "whose owner has signed one, with DRIPWELL_SMTP_URL and DRIPWELL_SMTP_BAA=yes "
                "(docs/how-to/smtp.md), or note how they agreed: "
                f"dripwell subscribers add {address} --topic TOPIC --source WORDS"
            )
    lines: list[Line] = [
        f"{address} is asked to confirm. Nothing else is mailed until they do. One such email a day at most."
    ]
    if before not in (None, after):
        lines.append(f"relationship: {before} → {after}")
    return Answer({"address": address, "form": form, "confirmation": "planned", "relationship": after}, lines)


@subscribers.command()
@click.argument("address", type=ADDRESS)
@answers
def show(address: str) -> Answer:
    """Show one person: what they agreed to, every email made and not made with its reason, and what comes next.

    \b
    dripwell subscribers show maria@example.com
    dripwell subscribers show maria@example.com --json
    dripwell exit seven-benefits maria@example.com
    """
    with opened() as installation, installation.database.snapshot() as connection:
        person = services.find(connection, address, installation.pepper)
        value: dict[str, Any] = {
            "address": person.address,
            "state": person.state,
            "relationship": person.relationship,
            "joined_at": person.joined_at,
            "timezone": person.timezone,
            "fields": person.fields,
            "tags": person.tags,
            "pace": person.pace,
            "paused_until": person.paused_until,
            "suppressed": _suppressed(connection, person.id),
            "consents": _consents(connection, person.id),
            "timeline": [dict(row._mapping) for row in reports.timeline(connection, person.id)],
        }
        value["next"] = [
            {"campaign": row["campaign"], "at": row["until"], "waits_for": row["reason"]}
            for row in value["timeline"]
            if row["what"] == "joined" and row["state"] == "waiting"
        ]
        zone = ZoneInfo(installation.site.clinic.timezone)
    return Answer(value, _person_lines(value, zone))


def _person_lines(value: dict[str, Any], zone: ZoneInfo) -> list[Line]:
    lines: list[Line] = [
        Text.assemble((value["address"], "bold"), f"   {value['state']}   since {moment(value['joined_at'], zone)}")
    ]
    facts = [f"relationship {value['relationship']}"]
    facts += [f"{name} {content}" for name, content in value["fields"].items()]
    facts += [f"tag {tag}" for tag in value["tags"]]
    facts += [value["timezone"]] if value["timezone"] else []
    facts += ["at most one email a week"] if value["pace"] == "weekly" else []
    facts += [f"paused until {moment(value['paused_until'], zone)}"] if value["paused_until"] else []
    lines += [clean("  " + " · ".join(facts))] if facts else []
    lines += [Text(f"  suppressed ({scope}): {reason}", style="red") for scope, reason in value["suppressed"].items()]
    lines += ["", Text("Consent", style="bold")]
    for row in value["consents"]:
        lines += _consent_lines(row, zone)
    lines += [] if value["consents"] else ["  none"]
    lines += ["", Text("What happened", style="bold")]
    for row in value["timeline"]:
        what = _joined(row) if row["what"] == "joined" else _mailed(row)
        lines.append(f"  {moment(row['at'], zone)}   {row['campaign']}   {what}")
    lines += [] if value["timeline"] else ["  nothing yet"]
    lines += ["", Text("Next", style="bold")]
    for row in value["next"]:
        why = f" ({_spaced(row['waits_for'])})" if row["waits_for"] else ""
        lines.append(f"  {row['campaign']}: looked at again {moment(row['at'], zone)}{why}")
    return lines if value["next"] else [*lines, "  nothing"]


def _consents(connection: Connection, subscriber_id: int) -> list[dict[str, Any]]:
    rows = consents.ledger(connection, subscriber_id)
    imports = importing.explained(connection, {row.source for row in rows})
    return [{**_plain_consent(row), "import": imports.get(row.source)} for row in rows]


def _plain_consent(row: ConsentRow) -> dict[str, Any]:
    found = asdict(row)
    return {"topic": found.pop("topic"), "action": found.pop("action"), "given_at": found.pop("at"), **found}


def _consent_lines(row: dict[str, Any], zone: ZoneInfo) -> list[Line]:
    verb = "given" if row["action"] == "give" else "withdrawn"
    lines: list[Line] = [
        clean(f"  {row['topic']}   {verb} {moment(row['given_at'], zone)}   source: {row['source']}"),
    ]
    proof = [f"asked {moment(row['asked_at'], zone)}"] if row["asked_at"] else []
    proof += [f"confirmed {moment(row['confirmed_at'], zone)}"] if row["confirmed_at"] else []
    proof += [f"page {row['page']}"] if row["page"] else []
    proof += [f"network {row['network']}"] if row["network"] else []
    proof += [row["import"]] if row["import"] else []
    lines += [clean("    " + " · ".join(proof))] if proof else []
    lines += [clean(f"    “{row['wording']}”   wording {row['version']}")] if row["wording"] else []
    return lines


def _joined(row: dict[str, Any]) -> str:
    ended = {"finished": ", finished", "exited": f", left: {_spaced(row['reason'])}"}
    return "joined" + ended.get(row["state"], "")


def _mailed(row: dict[str, Any]) -> str:
    reason = _WORDS.get(row["reason"]) or _spaced(row["reason"])
    became = _BECAME[row["state"]]
    if not reason:
        return f"{row['step_key']}   {became}"
    return f"{row['step_key']}   {became}{', ' if row['state'] == 'ACCEPTED' else ': '}{reason}"


def _spaced(reason: str | None) -> str:
    return clean((reason or "").replace("_", " "))


@click.command()
@click.argument("name")
@click.argument("addresses", nargs=-1, type=ADDRESS, metavar="[ADDRESS]...")
@click.option("--all", "everybody", is_flag=True, help="Everybody active who agreed to the campaign's topic.")
@click.option("--segment", metavar="SEGMENT", help="Everybody who is in this segment now and may join.")
@by_whom
@answers
def enroll(name: str, addresses: tuple[str, ...], everybody: bool, segment: str | None, actor: str) -> Answer:
    """Let people into a running campaign. Whoever was ever in it is left as they are: nobody gets an email twice.

    \b
    dripwell enroll seven-benefits maria@example.com
    dripwell enroll seven-benefits maria@example.com sam@example.com
    dripwell enroll seven-benefits --segment california

    With --all or --segment, whoever may not join stays as they are, and the answer says how many and why.
    """
    if [bool(addresses), everybody, segment is not None].count(True) != 1:
        raise click.UsageError(
            "name the people, or say --segment SEGMENT, or --all for everybody who agreed to the campaign's topic"
        )
    with opened() as installation, installation.database.transaction() as connection:
        row = publish.existing(connection, name)
        if everybody:
            ids = services.everybody(connection, row.topic)
        elif segment is not None:
            ids = list(segments.members(connection, installation.site, segment, clock.read(connection).now))
        else:
            people = [
                services.find(connection, address, installation.pepper, to_join=row.topic) for address in addresses
            ]
            services.refuse_unwilling(connection, people, row.topic)
            ids = list(dict.fromkeys(person.id for person in people))
        joining = services.enroll_each(connection, installation.versions, name, ids, actor=actor)
    joined = len(joining.joined)
    why = Counter(joining.why_not.values())
    before = why["in_it"] + why["been_in_it"] + why["too_soon"]
    again = f"; {number(before)} had been in it before, and nothing changes for them." if before else "."
    others = [(reason, count) for reason, count in sorted(why.items()) if reason in _LEFT_OUT]
    return Answer(
        {"campaign": name, "asked": len(ids), "joined": joined, "in_it_before": before, "left_out": dict(others)},
        [
            f"{counted(joined, 'person', 'people')} joined {name}{again}",
            *(f"  {number(count)} left out: {_LEFT_OUT[reason]}" for reason, count in others),
            f"What becomes of them: dripwell report {name}",
        ],
    )


@click.command("exit")
@click.argument("name")
@click.argument("address", type=ADDRESS)
@by_whom
@answers
def exit_(name: str, address: str, actor: str) -> Answer:
    """Take one person out of a campaign. They stay a subscriber.

    \b
    dripwell exit seven-benefits maria@example.com
    dripwell exit seven-benefits maria@example.com --by maria
    dripwell subscribers show maria@example.com
    """
    with opened() as installation, installation.database.transaction() as connection:
        person = services.find(connection, address, installation.pepper)
        left = services.take_out(connection, name, person.id, actor=actor)
        if not left:
            raise NotFoundError(f"{address} is not in {name} now: dripwell subscribers show {address}")
    return Answer({"campaign": name, "address": address, "left": left}, [f"{address} left {name}."])


def _consent(site: Site, times: Times, topic: str, source: str, wording: str, given_at: datetime | None) -> Consent:
    if site.topic(topic) is None:
        raise NotFoundError(_no_such("topic", topic, [known.name for known in site.topics]))
    if not source.strip():
        raise click.UsageError("--source is empty: say where they agreed")
    at = resolve(given_at, ZoneInfo(site.clinic.timezone)) if given_at is not None else None
    if at is not None and at > times.now:
        raise click.UsageError("--given-at is in the future: nobody can have agreed yet")
    return Consent(topic, source.strip(), wording.strip(), at)


def _zone(name: str | None) -> str | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError) as error:
        raise click.UsageError(f"`{name}` is not a time zone such as America/Los_Angeles") from error


def _suppressed(connection: Connection, subscriber_id: int) -> dict[str, str]:
    found = suppressions.address_of(connection, subscriber_id)
    if found is None or found[0] is None:
        return {}
    return {scope: reason for (_, scope), reason in suppressions.reasons(connection, [found[0]]).items()}


def _no_such(what: str, name: str, known: list[str]) -> str:
    guess = did_you_mean(name, known)
    guess = f"; {guess}" if guess else "."
    return f"config/site.yaml names no {what} `{name}`{guess} It names: {', '.join(known) or 'none'}"


commands: list[click.Command] = [subscribers, enroll, exit_]
