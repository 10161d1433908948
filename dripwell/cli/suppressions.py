"""`suppressions add|show|sync`: who must not be mailed, why, and how that compares with the provider's lists."""

from __future__ import annotations

import time

import click

from dripwell import bootstrap
from dripwell.bootstrap import Connection
from dripwell.cli.opening import ADDRESS, WORDS, by_whom, opened
from dripwell.cli.output import Answer, answers, counted, table
from dripwell.core.address import address_hash
from dripwell.services import leave, sync
from dripwell.storage import campaigns, clock, provider_lists, provider_looks
from dripwell.storage import suppressions as ledger

_SCOPE = click.STRING
_SECONDS = 60.0


@click.group()
def suppressions() -> None:
    """Say who must not be mailed, and see why.

    \b
    dripwell suppressions add maria@example.com --scope all --reason "she called"
    dripwell suppressions show maria@example.com
    dripwell suppressions sync
    """


@suppressions.command()
@click.argument("address", type=ADDRESS)
@click.option("--scope", type=_SCOPE, default="all", show_default=True, help="all, marketing, topic:… or campaign:…")
@click.option("--reason", type=WORDS, required=True, help="Why, for the ledger.")
@by_whom
@answers
def add(address: str, scope: str, reason: str, actor: str) -> Answer:
    """Suppress an address, now. Series in this scope end; nobody but the person can take it back.

    \b
    dripwell suppressions add maria@example.com --reason "she called"
    dripwell suppressions add maria@example.com --scope marketing --reason "by letter"
    dripwell suppressions add maria@example.com --scope topic:news --reason "she asked" --by ana
    """
    if scope not in (ledger.ALL, ledger.MARKETING) and scope.partition(":")[0] not in ("topic", "campaign"):
        raise click.UsageError("a scope is all, marketing, topic:NAME or campaign:NAME")
    with opened() as installation:
        addr_hash = address_hash(installation.pepper, address)

        def work(connection: Connection) -> list[tuple[bytes, str]]:
            row = leave.Unwanted(addr_hash, scope, "unsubscribed", f"{actor}: {reason}")
            new = leave.suppress_addresses(connection, [row], source=leave.STAFF, times=clock.read(connection))
            campaigns.add_activity(
                connection, actor=actor, action="suppressed", about=f"scope {scope}", detail={"reason": reason}
            )
            return new

        new = installation.database.retrying(work)
        installation.fast.add(new)
    said = "is suppressed now" if new else "was suppressed by staff already"
    return Answer({"suppressed": bool(new), "scope": scope}, [f"{address} {said}, scope {scope}."])


@suppressions.command()
@click.argument("address", type=ADDRESS)
@answers
def show(address: str) -> Answer:
    """Show what keeps email away from an address, oldest first.

    \b
    dripwell suppressions show maria@example.com
    dripwell suppressions show maria@example.com --json
    dripwell suppressions show maria@example.com > why.txt
    """
    with opened() as installation, installation.database.snapshot() as connection:
        addr_hash = address_hash(installation.pepper, address)
        scopes = sorted(scope for _, scope in ledger.reasons(connection, [addr_hash]))
        rows = [(scope, entry) for scope in scopes for entry in ledger.since_last_lift(connection, addr_hash, scope)]
        zone = clock.read(connection).wall_now.tzinfo
    value = [
        {"scope": scope, "reason": one.reason, "source": one.source, "evidence": one.evidence, "at": one.at}
        for scope, one in rows
    ]
    lines = table(
        ["scope", "since", "reason", "source", "evidence"],
        [
            [scope, f"{one.at.astimezone(zone):%Y-%m-%d %H:%M}", one.reason, one.source, one.evidence]
            for scope, one in rows
        ],
    )
    return Answer({"suppressions": value}, lines if rows else [f"{address} is not suppressed."])


@suppressions.command("sync")
@click.option("--dry-run", is_flag=True, help="Read the provider's lists and say what differs; change nothing.")
@answers
def sync_(dry_run: bool) -> Answer:
    """Compare with the provider's lists now, instead of once a day.

    \b
    dripwell suppressions sync
    dripwell suppressions sync --dry-run
    dripwell suppressions sync --json
    """
    until = time.monotonic() + _SECONDS
    with opened() as installation:
        lists = bootstrap.provider_lists_of(installation)
        if lists is None:
            return Answer({"lists": None}, ["This provider (SMTP) has no lists: the ledger here is the only one."])
        try:
            if dry_run:
                found, said = sync.dry_run(
                    installation.database,
                    lists,
                    hash_of=lambda one: address_hash(installation.pepper, one),
                    out_of_time=lambda: time.monotonic() > until,
                )
                value = [
                    {"name": d.name, "entries": d.entries, "unreadable": d.unreadable, "new": d.new, "lifted": d.lifted}
                    for d in found
                ]
                lines = table(
                    ["list", "entries", "not suppressed here", "lifted here"],
                    [[d.name, str(d.entries), str(d.new), str(d.lifted)] for d in found],
                )
                return Answer({"lists": value, "stopped": said}, [*lines, said] if said else lines, 1 if said else 0)
            with installation.database.transaction() as connection:
                sync.begin(connection)
            moved = sync.sync(
                installation.database,
                lists,
                installation.fast,
                hash_of=lambda one: address_hash(installation.pepper, one),
                out_of_time=lambda: time.monotonic() > until,
            )
        finally:
            lists.close()
        with installation.database.transaction() as connection:
            waiting = provider_looks.waiting(connection)
            quiet = provider_lists.quiet(connection)
    value_ = {"pushed": moved.pushed, "removed": moved.removed, "added": moved.added, "pages": moved.pages,
              "waiting": waiting, "reason": quiet.reason}  # fmt: skip
    told = [
        f"{counted(moved.added, 'suppression')} taken in, {moved.pushed} put on the provider's list, "
        f"{moved.removed} taken off, {counted(waiting, 'note')} waiting."
    ]
    if quiet.reason:
        told.append(f"The provider did not answer as it should: {quiet.reason}")
    return Answer(value_, told, 1 if quiet.reason else 0)


commands: list[click.Command] = [suppressions]
