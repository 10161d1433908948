"""`plan`, `apply`, `approve`, `start`: from files to a running campaign."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from dripwell.cli.opening import ADDRESS, by_whom, opened
from dripwell.cli.output import Answer, Line, answers, clean, counted, number
from dripwell.services import publish
from dripwell.services.publish import Plan

CHANGES_FOUND = 4
_SIGNS = {"added": ("+", "green"), "changed": ("~", "yellow"), "removed": ("-", "red")}


@click.command()
@click.argument("name", required=False)
@click.option("--exit-code", is_flag=True, help="Exit with 4 when there are changes.")
@answers
def plan(name: str | None, exit_code: bool) -> Answer:
    """See what the files would change, and for whom. Nothing is changed by looking.

    \b
    dripwell plan                                every campaign
    dripwell plan seven-benefits
    dripwell plan seven-benefits --exit-code     4 when there are changes, for scripts
    """
    with opened() as installation:
        names = [name] if name is not None else installation.campaign_names()
        with installation.database.snapshot() as connection:
            plans = [
                publish.plan(
                    connection,
                    installation.sources(each),
                    each,
                    live=installation.live,
                    versions=installation.versions,
                )
                for each in names
            ]
    lines: list[Line] = [line for made in plans for line in (*_shown(made), "")]
    changes = sum(len(made.changes) for made in plans)
    return Answer(
        {"plans": [_value(made) for made in plans], "changes": changes},
        lines[:-1] if plans else ["There is no campaign yet: put one into campaigns/NAME/campaign.yaml."],
        CHANGES_FOUND if exit_code and changes else 0,
    )


@click.command()
@click.argument("name")
@click.option("--plan", "plan_id", metavar="ID", help="Only if exactly this plan would be carried out.")
@by_whom
@answers
def apply(name: str, plan_id: str | None, actor: str) -> Answer:
    """Store the files as a version that never changes again, and make it the newest.

    \b
    dripwell apply seven-benefits
    dripwell apply seven-benefits --plan 7c1e09af
    dripwell apply seven-benefits --by maria
    """
    with opened() as installation:
        sources = installation.sources(name)
        live, versions = installation.live, installation.versions
        with installation.database.transaction() as connection:
            before = publish.newest_number(connection, name, versions=versions)
            applied = publish.apply(
                connection,
                sources,
                name,
                actor=actor,
                live=live,
                versions=versions,
                new_id=installation.new_id,
                plan_id=plan_id,
            )
            standing = publish.standing(connection, name, versions=versions)
    changed = applied != before
    next_command = _next(name, standing)
    says = (
        f"Stored {name} version {applied}."
        if changed
        else f"Nothing to store: {name} version {applied} is these files."
    )
    return Answer(
        {
            "campaign": name,
            "number": applied,
            "changed": changed,
            "state": standing.state,
            "approval": standing.approval,
            "approved": standing.approved,
            "next": next_command,
        },
        [says, *_then(standing, next_command)],
    )


@click.command()
@click.argument("name")
@click.option("--by", "actor", type=ADDRESS, required=True, metavar="ADDRESS", help="The person the campaign names.")
@answers
def approve(name: str, actor: str) -> Answer:
    """Record that the person a campaign names has read its newest version and approves exactly this.

    \b
    dripwell preview seven-benefits --html preview      read it first
    dripwell approve seven-benefits --by clinical-review@kcla.example
    dripwell approve seven-benefits --by clinical-review@kcla.example --json
    """
    with opened() as installation, installation.database.transaction() as connection:
        approved = publish.approve(connection, name, actor=actor, versions=installation.versions)
        standing = publish.standing(connection, name, versions=installation.versions)
    next_command = _next(name, standing)
    return Answer(
        {"campaign": name, "number": approved, "approved_by": actor, "state": standing.state, "next": next_command},
        [f"{actor} approved {name} version {approved}.", *_then(standing, next_command)],
    )


@click.command()
@click.argument("name")
@by_whom
@answers
def start(name: str, actor: str) -> Answer:
    """Let a campaign take people in and mail them. Refused while its approval is missing.

    \b
    dripwell start seven-benefits
    dripwell start seven-benefits --by maria
    dripwell start seven-benefits --json
    """
    with opened() as installation, installation.database.transaction() as connection:
        before = publish.existing(connection, name, lock=True).state
        publish.start(
            connection,
            name,
            actor=actor,
            live=installation.live,
            baa=installation.provider.capabilities.baa,
            versions=installation.versions,
        )
        standing = publish.standing(connection, name, versions=installation.versions)
    says = f"{name} version {standing.number} is running." if before != "running" else f"{name} was running already."
    return Answer(
        {"campaign": name, "number": standing.number, "state": standing.state, "changed": before != "running"},
        [
            says,
            f"People join by its triggers, or with: dripwell enroll {name} ADDRESS",
            f"Stop it any time: dripwell pause {name}",
        ],
    )


def _next(name: str, standing: publish.Standing) -> str | None:
    if not standing.approved:
        return f"dripwell approve {name} --by {standing.approval}"
    return {
        "draft": f"dripwell start {name}",
        "stopped": f"dripwell start {name}",
        "paused": f"dripwell resume {name}",
    }.get(standing.state)


def _then(standing: publish.Standing, next_command: str | None) -> list[Line]:
    if next_command is None:
        return ["It is running: everybody gets these words from their next email."]
    reason = f"{standing.approval} has to approve it: " if not standing.approved else "Next: "
    return [Text.assemble(reason, (next_command, "bold"))]


def _value(made: Plan) -> dict[str, Any]:
    return {
        "campaign": made.campaign,
        "title": made.title,
        "id": made.id,
        "version_now": made.version_now,
        "version_next": made.version_next,
        "changes": made.changes,
        "problems": made.problems,
        "in_progress": made.in_progress,
        "waiting_before": made.waiting_before,
        "approval": made.approval,
        "approved": made.approved,
        "audience": made.audience,
        "admits": made.admits,
    }


def _shown(made: Plan) -> list[Line]:
    path = f"campaigns/{made.campaign}/campaign.yaml"
    if made.version_now is None:
        step = "version 1, new"
    elif made.changes:
        step = f"version {made.version_now} → {made.version_next}"
    else:
        step = f"version {made.version_now}, as it is"
    lines: list[Line] = [Text.assemble((clean(made.title), "bold"), f"  {step}   ", (path, "dim")), ""]
    width = max((len(change.key) for change in made.changes), default=0)
    for change in made.changes:
        sign, style = _SIGNS[change.what]
        lines.append(
            Text.assemble("  ", (sign, style), f" {change.key.ljust(width)}   {clean(change.detail)}".rstrip())
        )
    if made.changes:
        lines.append("")
        lines += _affected(made)
    if made.audience is not None and made.admits is not None:
        them = counted(made.admits.people, "person is", "people are")
        lines += [Text("  Who may join", style="bold"), clean(f"    {made.audience}")]
        lines += [f"    {them} so now; {number(made.admits.mailable or 0)} of them could be mailed", ""]
    if made.problems:
        lines.append(
            Text.assemble(
                "  ", ("!", "yellow"), f" {counted(len(made.problems), 'warning')}: dripwell lint {made.campaign}"
            )
        )
    if made.approval is not None and not made.approved:
        lines.append(
            Text.assemble("  ", ("!", "yellow"), f" {made.approval} has to approve this version before it starts")
        )
    if not made.changes:
        return [*lines, "No changes: the files are the version that is stored."]
    count = {what: sum(change.what == what for change in made.changes) for what in _SIGNS}
    return [
        *lines,
        "" if made.problems or (made.approval and not made.approved) else Text(),
        Text.assemble(
            f"Plan {made.id}: ",
            (f"{count['added']} to add", "green"),
            ", ",
            (f"{count['changed']} to change", "yellow"),
            ", ",
            (f"{count['removed']} to remove", "red"),
            ". Nothing has left, nothing has changed.",
        ),
        Text.assemble("To make it so: ", (f"dripwell apply {made.campaign} --plan {made.id}", "bold")),
    ]


def _affected(made: Plan) -> list[Line]:
    lines: list[Line] = [Text("  Who is affected", style="bold")]
    if not made.in_progress:
        return [*lines, "    nobody is in this campaign now"]
    wide = len(number(made.in_progress))
    lines.append(
        f"    {number(made.in_progress)} {'person is' if made.in_progress == 1 else 'people are'} in this campaign now"
    )
    for key in dict.fromkeys(change.key for change in made.changes if change.key in made.waiting_before):
        ahead = made.waiting_before[key]
        lines.append(f"    {number(ahead).rjust(wide)} have not reached {key} and get the new words")
        lines.append(
            Text.assemble(
                f"    {number(made.in_progress - ahead).rjust(wide)} are past {key} and will ",
                ("not", "bold"),
                " get it again",
            )
        )
    return [*lines, "    New waits and a new order hold for people who join from now on."]


commands: list[click.Command] = [plan, apply, approve, start]
