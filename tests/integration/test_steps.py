"""Steps of every kind, from the file to the row: branches, tags and what they start, and waits for something."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from dripwell.services import plan
from dripwell.storage.database import Connection, Database
from tests.integration import rows
from tests.integration.scripted import House

SERIES = """\
type: drip
name: Guide
topic: seven-part-series
trigger: {manual: true}
steps:
  - tag: reads/guide
  - branch:
      name: Has asked?
      when: {tag: asked}
      then:
        - email: 1-then
          subject: Then
      else:
        - wait: {until: {tag: asked}, at_most: 4 days}
        - email: 1-else
          subject: Otherwise
  - untag: reads/guide
"""
STARTED = "type: drip\nname: Started\ntopic: seven-part-series\ntrigger: {tag: reads/guide}\nsteps:\n"
STARTED += "  - wait: 5 days\n  - email: 1-then\n    subject: Started\n"


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def publish(house: House, name: str, file: str) -> int:
    """Store a running campaign."""
    site = dict(house._base)
    words = {f"campaigns/{name}/{stem}.md": "# Title\n\nHello.\n" for stem in ("1-then", "1-else")}
    with house.database.transaction() as connection:
        campaign = rows.campaign(connection, name)
        rows.version(connection, campaign, definition=site | words | {f"campaigns/{name}/campaign.yaml": file})
    return campaign


def standing(house: House, campaign: int) -> list[tuple[object, ...]]:
    return house.query(
        "SELECT cursor_key, arms, enrollment.state, waits_for, tags FROM enrollment JOIN subscriber"
        " ON subscriber.id = subscriber_id WHERE campaign_id = :id ORDER BY enrollment.id",
        id=campaign,
    )


def test_people_are_sent_to_the_arm_that_is_theirs_and_tagged_on_the_way(house: House) -> None:
    campaign, started = publish(house, "guide", SERIES), publish(house, "started", STARTED)
    house.enroll(campaign, house.person("yes@example.com", tags=("asked",)), house.person("no@example.com"))

    house.plan()

    assert standing(house, campaign) == [
        ("branch-has-asked/then", ["branch-has-asked/then"], "mailing", None, ["asked", "reads/guide"]),
        ("branch-has-asked/else", ["branch-has-asked/else"], "waiting", "until", ["reads/guide"]),
    ]
    assert list(house.messages()) == [("yes@example.com", "1-then")]
    assert [row[2] for row in standing(house, started)] == ["waiting", "waiting"]


def test_what_people_wait_for_lets_them_go_on_and_the_end_of_the_series_takes_the_tag(house: House) -> None:
    campaign = publish(house, "guide", SERIES)
    maria = house.person()
    house.enroll(campaign, maria)
    house.plan()
    with house.database.transaction() as connection:
        connection.execute(text("UPDATE subscriber SET tags = tags || '{asked}' WHERE id = :id"), {"id": maria})
    house.later(hours=1)

    house.plan()
    assert list(house.messages()) == [("maria@example.com", "1-else")]
    house.send()
    house.plan()

    ((cursor, arms, state, _, tags),) = standing(house, campaign)
    assert (cursor, arms, state, tags) == ("untag-reads-guide", ["branch-has-asked/else"], "finished", ["asked"])


def test_of_a_decision_and_its_tags_there_are_both_or_none(house: House) -> None:
    campaign = publish(house, "guide", SERIES)
    house.enroll(campaign, house.person(tags=("asked",)))
    before = standing(house, campaign)

    def dies(connection: Connection) -> None:
        assert plan.plan_slice(connection, house.versions, 100) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        house.database.retrying(dies)
    assert standing(house, campaign) == before
    assert house.messages() == {}
    house.plan()
    assert [row[4] for row in standing(house, campaign)] == [["asked", "reads/guide"]]


def test_an_email_about_a_visit_that_is_called_off_is_left_out_and_the_series_goes_on(house: House) -> None:
    file = SERIES[: SERIES.index("  - tag")] + (
        "  - wait: {until: 3 days before visit}\n  - email: 1-then\n    subject: Then\n"
        "  - wait: 1 day\n  - email: 1-else\n    subject: Otherwise\n"
    )
    house._base["config/site.yaml"] = house._base["config/site.yaml"] + "\nfields:\n  visit: When they come.\n"
    campaign = publish(house, "guide", file)
    soon = f"{rows.START + timedelta(days=2):%Y-%m-%d}"
    maria = house.person(fields={"first_name": "Maria", "visit": soon})
    house.enroll(campaign, maria)
    house.plan()
    assert {key: row[0] for key, row in house.messages().items()} == {("maria@example.com", "1-then"): "PLANNED"}
    with house.database.transaction() as connection:
        connection.execute(text("UPDATE subscriber SET fields = '{}' WHERE id = :id"), {"id": maria})
    house.later(minutes=20)

    house.plan()
    house.later(days=1, hours=1)
    house.plan()

    assert house.messages() == {
        ("maria@example.com", "1-then"): ("SKIPPED", "expired"),
        ("maria@example.com", "1-else"): ("PLANNED", None),
    }
