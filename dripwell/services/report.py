"""The funnel: by step, by person, by message, with both sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dripwell.services import publish
from dripwell.services.versions import Versions
from dripwell.storage import reports
from dripwell.storage.database import Connection

PEOPLE = ("in_progress", "booked", "finished", "unsubscribed", "undeliverable", "left_otherwise")
MESSAGES = ("accepted", "suppressed", "skipped", "rejected", "held", "in_work")

_GROUP = {
    "goal": "booked",
    "unsubscribed": "unsubscribed",
    "complained": "unsubscribed",
    "undeliverable": "undeliverable",
    "in_progress": "in_progress",
    "finished": "finished",
}
_PLACE = {
    "ACCEPTED": "accepted",
    "SUPPRESSED": "suppressed",
    "SKIPPED": "skipped",
    "REJECTED": "rejected",
    "HELD": "held",
    "PLANNED": "in_work",
    "IN_BATCH": "in_work",
}


@dataclass(frozen=True, slots=True)
class StepRow:
    """One email of the series: messages by what became of them, and what people did after it."""

    key: str
    planned: int
    accepted: int
    delivered: int
    bounced: int
    clicked: int
    booked: int
    unsubscribed: int


@dataclass(frozen=True, slots=True)
class Report:
    """A campaign in numbers. `joined` and `planned` are counted apart from the groups that must add up to them."""

    campaign: str
    title: str
    state: str
    version: int
    joined: int
    planned: int
    people: Mapping[str, int]
    messages: Mapping[str, int]
    steps: tuple[StepRow, ...]
    clicked: int

    @property
    def adds_up(self) -> bool:
        """Whether both sums hold."""
        return sum(self.people.values()) == self.joined and sum(self.messages.values()) == self.planned


def report(connection: Connection, name: str, versions: Versions) -> Report:
    """Count a campaign. Read it in one snapshot, or the sums may be of two moments."""
    row = publish.existing(connection, name)
    assert row.version_id is not None
    published = versions.published(connection, row.version_id)
    people = dict.fromkeys(PEOPLE, 0)
    for place, count in reports.people(connection, row.id).items():
        people[_GROUP.get(place, "left_otherwise")] += count
    messages = dict.fromkeys(MESSAGES, 0)
    for state, count in reports.messages(connection, row.id).items():
        messages[_PLACE[state]] += count
    joined, planned = reports.totals(connection, row.id)
    counted = reports.by_step(connection, row.id)
    keys = [email.key for email in published.campaign.emails]
    keys += [key for key in counted if key not in keys]
    names = ("planned", "accepted", "delivered", "bounced", "clicked", "booked", "unsubscribed")
    steps = tuple(StepRow(key, *(counted.get(key, {}).get(name, 0) for name in names)) for key in keys)
    return Report(
        campaign=name,
        title=published.campaign.title,
        state=row.state,
        version=published.number,
        joined=joined,
        planned=planned,
        people=people,
        messages=messages,
        steps=steps,
        clicked=reports.clicked(connection, row.id),
    )
