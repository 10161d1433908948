"""`suppressions add|show|list|lift|sync`: who must not be mailed and why, and the provider's lists."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import click

from dripwell import bootstrap
from dripwell.bootstrap import Connection, Installation
from dripwell.cli.opening import ADDRESS, WORDS, by_whom, opened
from dripwell.cli.output import Answer, Line, answers, clean, counted, moment, number, table
from dripwell.content.problems import did_you_mean
from dripwell.core.address import address_hash, masked, without_addresses
from dripwell.core.errors import NotFoundError, RefusedError
from dripwell.services import leave, sync
from dripwell.storage import campaigns, clock, provider_lists, provider_looks, suppressed
from dripwell.storage import suppressions as ledger

_SECONDS = 60.0
_SHORT = 12
"""So many letters of a hash tell addresses apart that nobody here has."""


class Scope(click.ParamType[str]):
    """`all`, `marketing`, `topic:NAME` or `campaign:NAME`."""

    name = "scope"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what is no scope."""
        kind, colon, about = str(value).partition(":")
        if value in (ledger.ALL, ledger.MARKETING) or (kind in ("topic", "campaign") and colon and about.strip()):
            return str(value)
        self.fail("a scope is all, marketing, topic:NAME or campaign:NAME", param, ctx)


_SCOPE = Scope()


@click.group()
def suppressions() -> None:
    """Say who must not be mailed, and see why.

    \b
    dripwell suppressions add maria@example.com --scope all --reason "she called"
    dripwell suppressions list
    dripwell suppressions sync --dry-run
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
    dripwell suppressions add maria@example.com --scope topic:monthly-notes --reason "she asked" --by ana
    """
    reason = without_addresses(reason)
    with opened() as installation:
        _check(installation, scope)
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


def _check(installation: Installation, scope: str) -> None:
    """Refuse the scope of a topic or a campaign that nobody knows: it would keep nothing away."""
    kind, _, name = scope.partition(":")
    if kind == "topic":
        names = [topic.name for topic in installation.site.topics]
    elif kind == "campaign":
        with installation.database.snapshot() as connection:
            names = [row.name for row in campaigns.all_of_kind(connection, ("drip", "newsletter"))]
    else:
        return
    if name not in names:
        guess = did_you_mean(name, names)
        raise NotFoundError(
            f"there is no {kind} {name}{'; ' + guess if guess else '.'} "
            f"{kind.capitalize()}s are: {', '.join(names) or 'none yet'}"
        )


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
    zone = ZoneInfo(installation.site.clinic.timezone)
    value = [
        {"scope": scope, "reason": one.reason, "source": one.source, "evidence": one.evidence, "at": one.at}
        for scope, one in rows
    ]
    lines = table(
        ["scope", "since", "reason", "source", "evidence"],
        [
            [clean(scope), moment(one.at, zone), clean(one.reason), clean(one.source), clean(one.evidence)]
            for scope, one in rows
        ],
    )
    return Answer({"suppressions": value}, lines if rows else [f"{address} is not suppressed."])


@suppressions.command("list")
@click.option("--scope", type=_SCOPE, help="Only this scope.")
@click.option("--source", help="Only what this source said last: page, reply, staff, import, provider …")
@click.option("--limit", type=click.IntRange(0, 1000), default=20, show_default=True, help="So many of the newest.")
@click.option("--addresses", is_flag=True, help="Show addresses whole. Otherwise they are masked, as on the pages.")
@answers
def list_(scope: str | None, source: str | None, limit: int, addresses: bool) -> Answer:
    """Count who must not be mailed, by scope and source, and list the newest.

    \b
    dripwell suppressions list
    dripwell suppressions list --scope all --source provider
    dripwell suppressions list --limit 100 --addresses --json

    The ledger knows addresses by a keyed hash. Where no subscriber has the address, its first letters stand for it.
    """
    with opened() as installation, installation.database.snapshot() as connection:
        counts = suppressed.counted(connection, scope=scope, source=source)
        newest = suppressed.newest(connection, limit=limit, scope=scope, source=source)
    zone = ZoneInfo(installation.site.clinic.timezone)
    shown = [
        {
            "address": None if one.address is None else one.address if addresses else masked(one.address),
            "hash": one.addr_hash.hex()[:_SHORT] if one.address is None else None,
            "scope": one.scope,
            "reason": one.reason,
            "source": one.source,
            "at": one.at,
        }
        for one in newest
    ]
    value = {
        "counts": [{"scope": one.scope, "source": one.source, "addresses": one.addresses} for one in counts],
        "newest": shown,
    }
    if not counts:
        return Answer(
            value, ["Nobody is suppressed." if scope is source is None else "Nobody like that is suppressed."]
        )
    lines: list[Line] = [
        *table(
            ["scope", "source", "addresses"],
            [[clean(one.scope), clean(one.source), number(one.addresses)] for one in counts],
        )
    ]
    if shown:
        rows = [
            [str(line["address"] or line["hash"]), clean(one.scope), moment(one.at, zone), clean(one.reason),
             clean(one.source)]
            for line, one in zip(shown, newest, strict=True)
        ]  # fmt: skip
        lines += ["", *table(["the newest", "scope", "since", "reason", "source"], rows)]
    return Answer(value, lines)


@suppressions.command()
@click.argument("address", type=ADDRESS)
@click.option("--scope", type=_SCOPE, required=True, help="all: nothing else can be lifted by an operator.")
@click.option("--reason", type=WORDS, required=True, help="Why, for the ledger.")
@by_whom
@answers
def lift(address: str, scope: str, reason: str, actor: str) -> Answer:
    """Let service emails, such as those about a booked call, reach an address again. Marketing stays forbidden.

    \b
    dripwell suppressions lift maria@example.com --scope all --reason "the mailbox works again"
    dripwell suppressions lift maria@example.com --scope all --reason "she called and asked" --by ana
    dripwell suppressions lift maria@example.com --scope all --reason "a typing error of ours" --json

    To marketing people come back only by their own fresh, confirmed sign-up. Refused for whoever reported spam.
    """
    if scope != ledger.ALL:
        raise RefusedError(
            f"scope {scope} is lifted by its person alone: by signing up again with a form and confirming it. "
            "To see what stands: dripwell suppressions show ADDRESS"
        )
    reason = without_addresses(reason)
    with opened() as installation:
        addr_hash = address_hash(installation.pepper, address)

        def work(connection: Connection) -> list[tuple[bytes, str]]:
            times = clock.read(connection)
            lifted = leave.lift_all(connection, addr_hash=addr_hash, reason=reason, actor=actor, times=times)
            if lifted:
                campaigns.add_activity(
                    connection, actor=actor, action="lifted", about="scope all", detail={"reason": reason}
                )
            return lifted

        lifted = installation.database.retrying(work)
        installation.fast.remove(lifted)
    said = (
        "may get service emails again, and marketing only after a fresh, confirmed sign-up."
        if lifted
        else "was not suppressed in scope all. Nothing was changed."
    )
    return Answer({"lifted": bool(lifted), "scope": scope}, [f"{address} {said}"])


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
                found, unlisted, said = sync.dry_run(
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
                if unlisted is not None:
                    there = counted(unlisted, "address", "addresses")
                    lines += ["", f"{there} suppressed here for all mail and not listed there."]
                answer = {"lists": value, "unlisted": unlisted, "stopped": said}
                return Answer(answer, [*lines, said] if said else lines, 1 if said else 0)
            with installation.database.transaction() as connection:
                sync.begin(connection, unless_within=timedelta(0))
            moved = sync.sync(
                installation.database,
                lists,
                installation.fast,
                hash_of=lambda one: address_hash(installation.pepper, one),
                out_of_time=lambda: time.monotonic() > until,
                pages=sync.MOST_ROWS,
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
