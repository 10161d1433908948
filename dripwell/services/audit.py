"""What the auditor asks of more than one witness: the fast set against the ledger, a report against a second count."""

from __future__ import annotations

from dripwell.core.states import DELIVERY_PRECEDENCE
from dripwell.services.report import report
from dripwell.services.versions import Versions
from dripwell.storage import audit, campaigns
from dripwell.storage.database import Connection


def fast_set(connection: Connection, redis_url: str) -> list[str]:
    """V7: the valid set in Redis holds whom the ledger suppresses, and nobody else. A sentence for each difference.

    Silence and a set that is not valid are no difference: then SQL alone decides. Needs a READ COMMITTED transaction.
    """
    found = audit.fast_set(connection, redis_url)
    if found is None:
        return []
    said = (
        (found.missing, "the fast set lacks {} of those the ledger suppresses: no harm, SQL decides; it is slower"),
        (found.lifted, "the fast set still holds {} whom the ledger has lifted: each costs a confirmation"),
        (found.strangers, "the fast set holds {} of whom the ledger knows nothing"),
    )
    return [sentence.format(count) for count, sentence in said if count]


def recounted(connection: Connection, versions: Versions) -> list[str]:
    """V13: every report equals a second count from other rows, and both its sums hold. A sentence for each difference.

    Delivered and bounced are recounted from events, so this holds while events are kept. Read it in one snapshot.
    """
    said = []
    for campaign in campaigns.all_of_kind(connection, ["drip", "newsletter"]):
        if campaign.version_id is None:
            continue
        shown = report(connection, campaign.name, versions)
        counted = audit.recount(connection, campaign.id, DELIVERY_PRECEDENCE)
        if not shown.adds_up:
            said.append(f"{campaign.name}: the groups do not add up to everybody")
        ended = sum(shown.people.values()) - shown.people["in_progress"] - shown.people["finished"]
        pairs = [
            ("joined", shown.joined, counted.joined),
            ("in progress", shown.people["in_progress"], counted.open),
            ("finished", shown.people["finished"], counted.finished),
            ("left", ended, counted.exited),
            ("planned", shown.planned, counted.planned),
            ("clicked", shown.clicked, counted.clicked),
            ("accepted", shown.messages["accepted"], sum(step[0] for step in counted.steps.values())),
        ]
        for step in shown.steps:
            accepted, delivered, bounced = counted.steps.get(step.key, (0, 0, 0))
            pairs += [
                (f"accepted of {step.key}", step.accepted, accepted),
                (f"delivered of {step.key}", step.delivered, delivered),
                (f"bounced of {step.key}", step.bounced, bounced),
            ]
        said += [f"{campaign.name}: {what} is shown as {one}, counted {two}" for what, one, two in pairs if one != two]
    return said
