"""`status` and `report`: how it goes."""

from __future__ import annotations

import csv
import io
import math
import sys
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.text import Text

from dripwell import bootstrap
from dripwell.cli import funnel
from dripwell.cli.opening import opened
from dripwell.cli.output import Answer, Line, answers, clean, counted, moment, number, table, to_stdout
from dripwell.core.campaign import MARKETING_LANES
from dripwell.delivery.smtp import parse_url
from dripwell.embedded.lock import running
from dripwell.services import pace, publish
from dripwell.services.report import report as count_campaign
from dripwell.settings import Settings
from dripwell.storage import brakes, campaigns, clock, reports, workers

SILENT = 60.0
"""Seconds without a pass after which a queue counts as not served."""


@click.command()
@answers
def status() -> Answer:
    """See at a glance what runs, what waits and what needs somebody.

    \b
    dripwell status
    dripwell status --json
    dripwell report seven-benefits
    """
    with opened() as installation, installation.database.snapshot() as connection:
        times = clock.read(connection)
        offset = clock.offset(connection)
        stored = []
        for row in campaigns.all_of_kind(connection, ["drip"]):
            standing = publish.standing(connection, row.name, versions=installation.versions)
            stored.append(
                {
                    "campaign": row.name,
                    "state": standing.state,
                    "number": standing.number,
                    "approved": standing.approved,
                    "in_progress": sum(reports.positions(connection, row.id).values()),
                    "overdue": reports.overdue(connection, row.id, times.now),
                }
            )
        lanes = [dict(row._mapping) for row in reports.lanes(connection, times.now)]
        warm_up = pace.standing(connection, installation.site, times.now)
        due = sum(lane["due"] for lane in lanes if lane["lane"] in MARKETING_LANES)
        silent = {
            queue: workers.silent_for(connection, queue) for queues in bootstrap.QUEUES.values() for queue in queues
        }
        stopped = reports.stopped(connection)
        info = running(installation.settings.state_dir)
        value: dict[str, Any] = {
            "provider": installation.settings.provider,
            "relay": _relay(installation.settings),
            "agreement": installation.provider.capabilities.baa,
            "quarantine": None
            if stopped.quarantined_at is None
            else {"since": stopped.quarantined_at, "reason": stopped.quarantine_reason},
            "clock_alarm": stopped.clock_alarm,
            "campaign_time": times.now,
            "ahead_seconds": int(offset.total_seconds()),
            "running": info is not None and info.lasting,
            "campaigns": stored,
            "not_applied": sorted(set(installation.campaign_names()) - {str(one["campaign"]) for one in stored}),
            "lanes": lanes,
            "warm_up": warm_up,
            "warm_up_done": pace.forecast(connection, installation.site, due, times.now),
            "catch_up_per_hour": pace.catch_up_rate(connection),
            "brakes": [
                {"scope": one.scope, "reason": one.reason, "since": one.since} for one in brakes.standing(connection)
            ],
            "queues": {queue: None if math.isinf(seconds) else round(seconds, 1) for queue, seconds in silent.items()},
            "unsettled": reports.unsettled(connection, times.now),
            "being_checked": reports.being_checked(connection),
            "next_due": reports.next_due(connection),
        }
        zone = ZoneInfo(installation.site.clinic.timezone)
    return Answer(value, _status_lines(value, zone))


def _status_lines(value: dict[str, Any], zone: ZoneInfo) -> list[Line]:
    days = value["ahead_seconds"] / 86400
    ahead = f", {days:,.1f} days ahead" if value["ahead_seconds"] else ""
    lines: list[Line] = [Text.assemble((_way(value), "bold"), f"   {moment(value['campaign_time'], zone)}{ahead}")]
    lines += [*_stopped(value, zone), ""]
    rows = [
        [
            one["campaign"],
            one["state"],
            f"version {one['number']}{'' if one['approved'] else ', waits for approval'}",
            f"{number(one['in_progress'])} in progress",
            f"{number(one['overdue'])} due now" if one["overdue"] else "",
        ]
        for one in value["campaigns"]
    ]
    rows += [[name, "not applied", f"dripwell plan {name}", "", ""] for name in value["not_applied"]]
    lines += table(["campaign", "state", "version", "people", ""], rows) if rows else ["  no campaigns"]
    lines += [
        "",
        *table(
            ["lane", "due", "in batch", "held", "oldest", "calls"], [_lane(one, value, zone) for one in value["lanes"]]
        ),
    ]
    lines += _slowed(value, zone)
    served = [queue for queue, seconds in value["queues"].items() if seconds is not None and seconds < SILENT]
    silent = [queue for queue in value["queues"] if queue not in served]
    lines.append("")
    if silent:
        start = "" if value["running"] else ". Start everything: dripwell run"
        lines.append(Text.assemble("  ", ("!", "yellow"), f" nobody serves {', '.join(silent)}{start}"))
    else:
        lines.append(Text.assemble("  ", ("✓", "green"), " every queue is served"))
    lines.append(f"  in work: {_in_work(value) or 'nothing'}")
    if value["next_due"] is not None:
        lines.append(f"  next due: {moment(value['next_due'], zone)}")
    return lines


def _relay(settings: Settings) -> str | None:
    if settings.smtp_url is None:
        return None
    relay = parse_url(settings.smtp_url.get_secret_value())
    return f"{relay.host}:{relay.port}"


def _way(value: dict[str, Any]) -> str:
    if value["provider"] == "sandbox":
        return "sandbox: nothing leaves this machine"
    if value["provider"] == "sendgrid":
        return "live: SendGrid"
    signed = "an agreement for health data is signed" if value["agreement"] else "no agreement for health data"
    return f"live: SMTP through {clean(value['relay'])}, {signed}"


def _stopped(value: dict[str, Any], zone: ZoneInfo) -> list[Line]:
    """What a person must look at before any mail goes out again."""
    lines: list[Line] = []
    if value["quarantine"] is not None:
        since = moment(value["quarantine"]["since"], zone)
        lines += [
            Text.assemble(("!", "red"), (f" QUARANTINE since {since}: nobody is called.", "bold")),
            clean(f"  {value['quarantine']['reason']}"),
            "  Go on: dripwell quarantine show",
        ]
    if value["clock_alarm"] is not None:
        lines += [
            Text.assemble(("!", "red"), clean(f" {value['clock_alarm']}: planning and campaign emails stand still.")),
            "  When the time is right: dripwell clock accept --reason …",
        ]
    return ["", *lines] if lines else []


def _in_work(value: dict[str, Any]) -> str:
    work, checked = value["unsettled"], value["being_checked"]
    said = (
        (work["due"], "person due", "people due"),
        (work["planned"], "email due", "emails due"),
        (work["in_batch"], "email in a batch", "emails in batches"),
        (work["batches"] - checked, "batch", "batches"),
        (checked, "call being checked", "calls being checked"),
        (work["webhooks"], "webhook unread", "webhooks unread"),
    )
    return ", ".join(counted(count, one, many) for count, one, many in said if count)


def _slowed(value: dict[str, Any], zone: ZoneInfo) -> list[Line]:
    """What keeps marketing emails back: a warm-up, catching up, breakers."""
    lines: list[Line] = []
    warm_up: pace.Standing | None = value["warm_up"]
    if warm_up is not None and warm_up.day < 0:
        lines.append(f"  warm-up {warm_up.preset} begins in {counted(-warm_up.day, 'day')}; until then none goes out")
    elif warm_up is not None:
        used = f"{number(warm_up.used)} of {number(warm_up.cap)} used until {moment(warm_up.until, zone)}"
        still = ", standing still" if warm_up.frozen else ""
        done: date | None = value["warm_up_done"]
        last = "" if done is None else f"; what is due now is out on {done:%a %b} {done.day} {done.year}"
        lines.append(f"  warm-up {warm_up.preset}, day {warm_up.day + 1}{still}: {used}{last}")
    if value["catch_up_per_hour"] is not None:
        lines.append(f"  catching up after a silence: {number(value['catch_up_per_hour'])} emails an hour at most")
    for one in value["brakes"]:
        lines.append(Text.assemble("  ", ("!", "red"), clean(f" {one['scope']} is closed: {one['reason']}")))
    if value["brakes"]:
        lines.append("    go on: dripwell brake list")
    return ["", *lines] if lines else []


def _lane(one: dict[str, Any], value: dict[str, Any], zone: ZoneInfo) -> list[str]:
    oldest: datetime | None = one["oldest_due"]
    breaker = {"closed": "go out", "open": "held back", "half_open": "being tried"}[one["breaker"]]
    why = f": {one['breaker_reason']}" if one["breaker"] != "closed" and one["breaker_reason"] else ""
    if value["quarantine"] is not None:
        breaker, why = "stopped", ": quarantine"
    elif value["clock_alarm"] is not None and one["lane"] in MARKETING_LANES:
        breaker, why = "stopped", ": the clock is in doubt"
    counts = [number(one[name]) for name in ("due", "in_batch", "held")]
    return [one["lane"], *counts, moment(oldest, zone) if oldest else "-", clean(breaker + why)]


@click.command()
@click.argument("name")
@click.option("--csv", "as_csv", is_flag=True, help="Print the emails as CSV.")
@answers
def report(name: str, as_csv: bool) -> Answer:
    """See a campaign in numbers, email by email, with both sums. Exits with 1 when one does not hold.

    \b
    dripwell report seven-benefits
    dripwell report seven-benefits --csv > report.csv
    dripwell report seven-benefits --json
    """
    with opened() as installation, installation.database.snapshot() as connection:
        found = count_campaign(connection, name, installation.versions)
    code = 0 if found.adds_up else 1
    if as_csv:
        page = io.StringIO()
        csv.writer(page, lineterminator="\n").writerows(funnel.as_rows(found))
        return Answer(funnel.as_json(found), [page.getvalue().rstrip("\n")], code)
    color = sys.stdout.isatty() and not to_stdout().no_color
    head = Text.assemble((clean(found.title), "bold"), f"   {found.state}, version {found.version}")
    clicked = f"  {counted(found.clicked, 'person', 'people')} clicked in any email"
    drawn = Text.from_ansi(funnel.draw(found, color=color))
    return Answer(funnel.as_json(found), [head, "", drawn, Text(clicked, style="dim")], code)


commands: list[click.Command] = [status, report]
