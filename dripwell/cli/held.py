"""`held list|release|skip`: messages that need a person's decision."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

import click

from dripwell.bootstrap import Connection
from dripwell.cli.opening import ROW_ID, WORDS, by_whom, opened
from dripwell.cli.output import Answer, answers, counted, moment, table
from dripwell.core.errors import NotFoundError, RefusedError
from dripwell.services import held as service
from dripwell.storage import outcomes
from dripwell.storage.outcomes import HeldRow

_WHY = {
    "no_evidence": "nobody can say whether the provider accepted it",
    "doubtful": "the fast set calls this address suppressed, the record does not",
    "restored": "planned in a time that the restored database does not remember",
}


@click.group()
def held() -> None:
    """Decide about messages that are held, because no rule may.

    \b
    dripwell held list
    dripwell held skip 1204 1205 --reason "the clinic called them"
    dripwell held release --batch 37 --confirm 12 --reason "provider support says no"
    """


@held.command("list")
@answers
def list_() -> Answer:
    """List held messages, the longest first, each with what is known about its call.

    \b
    dripwell held list
    dripwell held list --json
    dripwell held list > held.txt
    """
    with opened() as installation, installation.database.snapshot() as connection:
        rows = outcomes.held(connection, limit=service.MOST)
        zone = ZoneInfo(installation.site.clinic.timezone)
    value = [
        {
            "id": row.id,
            "campaign": row.campaign,
            "email": row.step_key,
            "lane": row.lane,
            "reason": row.reason,
            "why": _WHY.get(row.reason, row.reason),
            "batch": row.batch_id,
            "called_at": row.called_at,
            "answer": row.http_status,
            "detail": row.detail or "",
            "log_says_no": row.empty_rounds or 0,
            "later_events_came": row.channel_alive,
            "held_since": row.updated_at,
        }
        for row in rows
    ]
    lines = table(
        ["message", "campaign", "email", "batch", "called", "why", "evidence"],
        [
            [
                str(row.id),
                row.campaign,
                row.step_key,
                "-" if row.batch_id is None else str(row.batch_id),
                "-" if row.called_at is None else moment(row.called_at, zone),
                _WHY.get(row.reason, row.reason),
                _evidence(row),
            ]
            for row in rows
        ],
    )
    if not rows:
        lines = ["No message is held."]
    else:
        lines = [
            *lines,
            "",
            "Mail it again, at the risk of a second copy: dripwell held release ID … --reason …",
            "Never mail it; the series goes on behind it: dripwell held skip ID … --reason …",
        ]
    return Answer({"held": value}, lines)


@held.command()
@click.argument("ids", nargs=-1, type=ROW_ID, metavar="[ID]...")
@click.option("--batch", type=ROW_ID, metavar="N", help="Every held message of this batch.")
@click.option("--confirm", type=click.IntRange(min=0), metavar="N", help="How many messages; it must be right.")
@click.option("--reason", type=WORDS, required=True, help="Why, for the activity log.")
@by_whom
@answers
def release(ids: tuple[int, ...], batch: int | None, confirm: int | None, reason: str, actor: str) -> Answer:
    """Mail held messages again. If the provider did accept one, that person gets it twice.

    \b
    dripwell held release 1204 --confirm 1 --reason "provider support says it never arrived"
    dripwell held release --batch 37 --confirm 12 --reason "the provider's log shows nothing"
    dripwell held release --batch 37 --reason test            says how many it would be
    """

    def work(connection: Connection) -> int:
        chosen = _ids(connection, ids, batch)
        if confirm != len(chosen):
            wrong = "" if confirm is None else f"{confirm} is not the number: "
            them = counted(len(chosen), "message")
            raise RefusedError(
                f"{wrong}{them} would be mailed again, and whoever got it already gets it twice. "
                f"To do that, add --confirm {len(chosen)}"
            )
        return service.release(connection, chosen, actor=actor, reason=reason)

    with opened() as installation:
        done = installation.database.retrying(work)
    return Answer(
        {"released": done},
        [
            f"{counted(done, 'message is', 'messages are')} planned again; windows and limits hold.",
            "See: dripwell held list",
        ],
    )


@held.command()
@click.argument("ids", nargs=-1, type=ROW_ID, metavar="[ID]...")
@click.option("--batch", type=ROW_ID, metavar="N", help="Every held message of this batch.")
@click.option("--reason", type=WORDS, required=True, help="Why, for the activity log.")
@by_whom
@answers
def skip(ids: tuple[int, ...], batch: int | None, reason: str, actor: str) -> Answer:
    """Never mail these held messages. The people stay in their series, which goes on behind the skipped email.

    \b
    dripwell held skip 1204 --reason "she told us she has it"
    dripwell held skip --batch 37 --reason "too old to be of use"
    dripwell held skip 1204 1205 --reason "doubtful" --by maria
    """
    with opened() as installation:
        done = installation.database.retrying(
            lambda connection: service.skip(connection, _ids(connection, ids, batch), actor=actor, reason=reason)
        )
    return Answer(
        {"skipped": done}, [f"{counted(done, 'message is', 'messages are')} skipped.", "See: dripwell held list"]
    )


def _ids(connection: Connection, ids: Sequence[int], batch: int | None) -> list[int]:
    if bool(ids) == (batch is not None):
        raise click.UsageError("name the messages, or one batch with --batch: dripwell held list shows both")
    if batch is None:
        return service.look_up(connection, ids)
    found = [row.id for row in outcomes.held(connection, batch_id=batch, limit=service.MOST)]
    if not found:
        raise NotFoundError(f"batch {batch} has no held message: see `dripwell held list`")
    return found


def _evidence(row: HeldRow) -> str:
    said = [f"answer {row.http_status}" if row.http_status else row.detail or "no answer"]
    if row.empty_rounds:
        said.append(f"the provider's log said no {counted(row.empty_rounds, 'time')}")
    said.append("later events came" if row.channel_alive else "no later event came")
    return "; ".join(said)


commands: list[click.Command] = [held]
