"""`brake list|release`: what the breakers of reputation closed, until a named person opens it again."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import click

from dripwell.cli.opening import WORDS, by_whom, opened
from dripwell.cli.output import Answer, answers, clean, moment
from dripwell.core.campaign import MARKETING_LANES
from dripwell.core.pace import GROUPS
from dripwell.services import reputation
from dripwell.storage import brakes

_SCOPES = (
    reputation.MARKETING,
    *(f"lane:{lane}" for lane in sorted(MARKETING_LANES)),
    *(f"group:{group}" for group in GROUPS),
    brakes.RAMP,
)


@click.group()
def brake() -> None:
    """See what stopped because people or providers complain, and let it go on.

    \b
    dripwell brake list
    dripwell brake release group:gmail --reason "DKIM key was wrong, fixed"
    dripwell brake release marketing --reason "the bought addresses are out" --by maria
    """


@brake.command("list")
@answers
def list_() -> Answer:
    """List what is closed, with the numbers that closed it. Confirmations and booked calls are never closed here.

    \b
    dripwell brake list
    dripwell brake list --json
    dripwell status
    """
    with opened() as installation, installation.database.snapshot() as connection:
        found = brakes.standing(connection)
        zone = ZoneInfo(installation.site.clinic.timezone)
    value = [
        {"scope": one.scope, "reason": one.reason, "since": one.since, "numbers": dict(one.detail)} for one in found
    ]
    lines = []
    for one in found:
        lines.append(f"{one.scope}   since {moment(one.since, zone)}")
        lines.append(clean(f"  {one.reason}"))
    if not found:
        return Answer({"brakes": value}, ["Nothing is closed."])
    lines += ["", "Go on: dripwell brake release SCOPE --reason …   (a campaign: dripwell resume NAME)"]
    return Answer({"brakes": value}, lines)


@brake.command()
@click.argument("scope")
@click.option("--reason", type=WORDS, required=True, help="Why it may go on, for the activity log.")
@by_whom
@answers
def release(scope: str, reason: str, actor: str) -> Answer:
    """Open SCOPE again: lane:drip, lane:newsletter, marketing (both), group:gmail …, or ramp. Counting begins anew.

    \b
    dripwell brake release marketing --reason "the bought addresses are out"
    dripwell brake release group:outlook --reason "SPF and DKIM pass again" --by maria
    dripwell brake release ramp --reason "the provider lifted the block" --json
    """
    if scope not in _SCOPES and not scope.startswith("campaign:"):  # which the service answers: resume it
        raise click.UsageError(f"there is no scope `{scope}`; there are: {', '.join(_SCOPES)}")
    with opened() as installation:
        done = installation.database.retrying(
            lambda connection: reputation.release(connection, scope, actor=actor, reason=reason)
        )
    return Answer(
        {"released": done},
        [f"{', '.join(done)}: open again. What was counted before counts no more.", "See: dripwell status"],
    )


commands: list[click.Command] = [brake]
