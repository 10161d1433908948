"""`keys add|list|revoke`: which programs may use the API, and for what."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import click

from dripwell.cli.opening import by_whom, opened
from dripwell.cli.output import Answer, Line, answers, table
from dripwell.services import keys as services
from dripwell.storage import api_keys, clock

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")


def _name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter("small letters, digits and hyphens, as in booking-system")
    return value


@click.group()
def keys() -> None:
    """Say which programs may use the API at /api/v1, and for what. Each gets a key of its own.

    \b
    dripwell keys add booking-system --scope events:write --scope enroll
    dripwell keys list
    dripwell keys revoke booking-system
    """


@keys.command()
@click.argument("name", callback=_name)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(list(services.SCOPES)),
    help="What the key may do; once for each.",
)
@click.option("--days", type=click.IntRange(1, 3650), help="It expires after so many days. Default: never.")
@click.option(
    "--per-minute",
    type=click.IntRange(1, 1_000_000),
    default=services.PER_MINUTE,
    show_default=True,
    help="Requests it may make a minute.",
)
@by_whom
@answers
def add(name: str, scopes: tuple[str, ...], days: int | None, per_minute: int, actor: str) -> Answer:
    """Make a key and show it, this once. Only a hash of it is kept.

    \b
    dripwell keys add booking-system --scope events:write --scope enroll
    dripwell keys add website --scope subscribers:write --days 365
    dripwell keys add numbers --scope report:read --per-minute 60
    """
    with opened() as installation:
        secret = installation.new_api_key()
        with installation.database.transaction() as connection:
            expires_at = services.add(
                connection,
                name=name,
                scopes=scopes,
                secret=secret,
                times=clock.read(connection),
                actor=actor,
                lasts=timedelta(days=days) if days is not None else None,
                per_minute=per_minute,
            )
    until = f" until {expires_at:%Y-%m-%d}" if expires_at is not None else ""
    return Answer(
        {"name": name, "key": secret, "scopes": sorted(set(scopes)), "expires_at": expires_at},
        [
            secret,
            f"This is {name}'s key{until}. It is not shown again: put it where that program keeps its secrets.",
            f"Out of force at once: dripwell keys revoke {name}",
        ],
    )


@keys.command("list")
@answers
def list_() -> Answer:
    """List every key: its beginning, what it may do, when it was last used. Never the key itself.

    \b
    dripwell keys list
    dripwell keys list --json
    dripwell keys revoke booking-system
    """
    with opened() as installation, installation.database.transaction() as connection:
        wall_now = clock.read(connection).wall_now
        found = api_keys.every(connection)
    if not found:
        return Answer({"keys": []}, ["There is no key yet: dripwell keys add NAME --scope events:write"])
    listed: list[dict[str, Any]] = [
        {
            "name": key.name,
            "begins": key.prefix,
            "state": services.state(key, wall_now),
            "scopes": list(key.scopes),
            "per_minute": key.per_minute,
            "last_used": key.last_used,
            "expires_at": key.expires_at,
            "made_at": key.made_at,
            "made_by": key.made_by,
        }
        for key in found
    ]
    shown = [
        [
            one["name"],
            f"{one['begins']}…",
            one["state"],
            " ".join(one["scopes"]),
            str(one["last_used"] or "never"),
            f"{one['expires_at']:%Y-%m-%d}" if one["expires_at"] else "never",
        ]
        for one in listed
    ]
    lines: list[Line] = table(["name", "begins", "state", "may", "last used", "expires"], shown)
    return Answer({"keys": listed}, lines)


@keys.command()
@click.argument("name")
@by_whom
@answers
def revoke(name: str, actor: str) -> Answer:
    """Put a key out of force. The next request with it is refused.

    \b
    dripwell keys revoke booking-system
    dripwell keys revoke booking-system --by maria
    dripwell keys list
    """
    with opened() as installation, installation.database.transaction() as connection:
        services.revoke(connection, name, actor=actor)
    return Answer({"name": name, "state": "revoked"}, [f"{name} is out of force, from the next request on."])


commands: list[click.Command] = [keys]
