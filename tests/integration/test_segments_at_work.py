"""Segments where they are used: before every email, at the door of a campaign, and on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, text

from dripwell.core.campaign import Campaign
from dripwell.core.conditions import All, Clicked, Condition, FieldIs, Happened, HasTag, Not
from dripwell.core.duration import Duration
from dripwell.services import audience
from dripwell.storage import clock
from dripwell.storage.database import Connection, Database
from tests.integration import rows
from tests.integration.command import CAMPAIGN, TOPIC, Project, copy_of_the_project
from tests.integration.scripted import House

SEGMENTS = """
clicked-first: {about: Clicked in the first email., when: {clicked: pair/1-first, within: 3 days}}
new: {about: Came lately., when: {joined: true, within: 30 days}}
called: {about: Has called., when: {event: consultation.booked}}
staff: {about: Works here., when: {tag: staff}}
current-patients: {about: In care., when: {tag: current-patient}}
"""


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def ruled(house: House, rule: str) -> int:
    """The campaign of two emails, which ends by this rule."""
    campaign = house.publish()
    with house.database.transaction() as connection:
        definition = connection.execute(text("SELECT definition FROM campaign_version")).scalar_one()
        definition["config/segments.yaml"] = SEGMENTS
        definition["campaigns/pair/campaign.yaml"] += f"\n{rule}\n"
        version = rows.version(connection, campaign, number=2, definition=definition)
        connection.execute(
            text("INSERT INTO link SELECT :new, step_key, number, target FROM link WHERE version_id <> :new"),
            {"new": version},
        )
    return campaign


def left(house: House) -> list[tuple[object, ...]]:
    """Who left, and why."""
    return house.query(
        "SELECT address, ended_reason FROM enrollment JOIN subscriber ON subscriber.id = subscriber_id"
        " WHERE enrollment.state = 'exited' ORDER BY address"
    )


@pytest.mark.parametrize("scanner", [False, True])
def test_who_clicked_leaves_by_a_segment_and_who_was_only_scanned_stays(house: House, scanner: bool) -> None:
    campaign = ruled(house, "exit: [{segment: clicked-first}]")
    house.enroll(campaign, house.person())
    house.plan()
    house.send()
    ((message,),) = house.query("SELECT id FROM message")
    with house.database.transaction() as connection:
        for link in range(3 if scanner else 1):
            connection.execute(
                text("INSERT INTO click (message_id, number, at) VALUES (:message, :link, wall())"),
                {"message": message, "link": link},
            )
    house.later(days=2, hours=2)
    house.plan()
    assert left(house) == ([] if scanner else [("maria@example.com", "exit")])
    assert len(house.messages()) == (2 if scanner else 1)


def test_who_joined_lately_is_kept_out_until_they_are_no_longer_new(house: House) -> None:
    campaign = ruled(house, "suppress: [{segment: new}]")
    house.enroll(campaign, house.person("new@example.com"))
    house.enroll(campaign, house.person("old@example.com", joined_at=house.wall - timedelta(days=30, seconds=1)))
    house.plan()
    assert left(house) == [("new@example.com", "segment")]
    assert list(house.messages()) == [("old@example.com", "1-first")]


def test_an_event_before_joining_counts_for_a_segment(house: House) -> None:
    campaign = ruled(house, "exit: [{left_segment: called}]")
    maria, joe = house.person("maria@example.com"), house.person("joe@example.com")
    with house.database.transaction() as connection:
        connection.execute(
            text("INSERT INTO happening (subscriber_id, event, at) VALUES (:id, 'consultation.booked', :at)"),
            {"id": maria, "at": house.wall - timedelta(days=400)},
        )
    house.enroll(campaign, maria, joe)
    house.plan()
    assert left(house) == [("joe@example.com", "exit")]


@pytest.mark.parametrize(
    ("rule", "reads"),
    [("", set()), ("exit: [{segment: staff}]", set()), ("exit: [{segment: new}]", {"joined_at"}),
     ("exit: [{segment: clicked-first}]", {"click"})],
)  # fmt: skip
def test_what_no_rule_asks_for_is_not_read_before_every_email(house: House, rule: str, reads: set[str]) -> None:
    campaign = ruled(house, rule)
    house.enroll(campaign, house.person(joined_at=house.wall - timedelta(days=90)))
    seen: list[str] = []

    def look(_one: object, _two: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(house.database.engine, "before_cursor_execute", look)
    house.plan()
    event.remove(house.database.engine, "before_cursor_execute", look)
    assert {word for word in ("joined_at", "click") for one in seen if _reads(one, word)} == reads
    assert len(house.messages()) == 1


def _reads(statement: str, word: str) -> bool:
    asked = {"joined_at": "SELECT id, joined_at FROM subscriber", "click": "FROM click"}
    return asked[word] in statement


# The door


def admitted(connection: Connection, house: House, condition: Condition | None, *people: int) -> set[int]:
    """Who may join a campaign with this audience."""
    campaign = replace(_campaign(), audience=condition)
    return audience.admits(connection, house.site, campaign, people, clock.read(connection))


def _campaign() -> Campaign:
    return Campaign(name="pair", title="Pair", kind="drip", topic=TOPIC, steps=())


def test_an_audience_lets_in_whom_its_condition_is_true_of_at_that_moment(house: House) -> None:
    california, nevada = house.person("a@example.com", fields={"state": "CA"}), house.person("b@example.com")
    with house.database.transaction() as connection:
        both = {california, nevada}
        assert admitted(connection, house, None, *both) == both
        assert admitted(connection, house, FieldIs("state", ("CA",)), *both) == {california}
        assert admitted(connection, house, Not(HasTag("lead")), *both) == both
        connection.execute(text("UPDATE subscriber SET tags = '{lead}' WHERE id = :id"), {"id": nevada})
        assert admitted(connection, house, HasTag("lead"), *both) == {nevada}, "what this transaction wrote is seen"
        assert admitted(connection, house, HasTag("lead"), california) == set()
        assert admitted(connection, house, HasTag("lead")) == set()
        asked = All((Not(Happened("consultation.booked", Duration(1, "day"))), Not(Clicked("pair"))))
        assert admitted(connection, house, asked, *both) == both
        made = audience.size(
            connection, house.site, replace(_campaign(), audience=HasTag("lead")), clock.read(connection)
        )
        assert made is not None
        assert (made.people, made.mailable) == (1, 1)
        assert audience.size(connection, house.site, _campaign(), clock.read(connection)) is None


# The command line


@pytest.fixture
def project(database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    made = copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})
    for name in ("maria", "joe", "sam"):
        made.added(f"{name}@example.com")
    with database.transaction() as connection:
        connection.execute(text("""UPDATE subscriber SET fields = '{"state": "CA"}' WHERE address NOT LIKE 'sam%'"""))
        connection.execute(text("UPDATE subscriber SET state = 'unsubscribed' WHERE address LIKE 'joe%'"))
    return made


def test_segments_are_listed_and_counted(project: Project) -> None:
    found = {one["segment"]: one for one in project.read("segments", "list")["segments"]}
    assert {name: (one["people"], one["active"]) for name, one in found.items()} == {
        "staff": (0, 0), "current-patients": (0, 0), "california": (2, 1)
    }  # fmt: skip
    assert found["california"]["when"] == "state is CA"
    assert "california" in project.run("segments", "list").stdout
    counted = project.read("segments", "count", "california", "--topic", TOPIC)
    assert (counted["people"], counted["active"], counted["mailable"]) == (2, 1, 1)
    assert project.read("segments", "count", "california", "--topic", "monthly-notes")["mailable"] == 0
    said = project.run("segments", "count", "california", "--topic", TOPIC).stdout
    assert said == f"2 people are in california now, 1 of them active; 1 could be mailed about {TOPIC}.\n"


def test_addresses_are_masked_unless_they_are_asked_for(project: Project) -> None:
    shown = project.run("segments", "show", "california").stdout
    assert "@example.com" in shown
    assert "maria" not in shown
    assert "joe" not in shown
    assert "maria" not in json.dumps(project.read("segments", "show", "california"))
    whole = project.read("segments", "show", "california", "--addresses", "--limit", "1")
    assert [one["address"] for one in whole["examples"]] == ["joe@example.com"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("count", "californa"), "names no segment `californa`; did you mean `california`?"),
        (("show", "nobody"), "It names: staff, current-patients, california"),
        (("count", "california", "--topic", "monthly-note"), "did you mean `monthly-notes`?"),
    ],
)
def test_a_name_that_is_none_gets_the_nearest(project: Project, arguments: tuple[str, ...], says: str) -> None:
    result = project.run("segments", *arguments)
    assert result.exit_code == 1
    assert says in result.stderr


def test_a_segment_is_enrolled_and_who_may_not_join_is_told_by_reason(project: Project) -> None:
    project.started()
    value = project.read("enroll", CAMPAIGN, "--segment", "california")
    assert (value["asked"], value["joined"], value["left_out"]) == (2, 1, {"suppressed": 1})
    again = project.read("enroll", CAMPAIGN, "--segment", "california")
    assert (again["joined"], again["in_it_before"]) == (0, 1)
    assert "1 left out: not to be emailed" in project.run("enroll", CAMPAIGN, "--segment", "california").stdout
    assert project.run("enroll", CAMPAIGN, "--segment", "nobody").exit_code == 1
    assert project.run("enroll", CAMPAIGN, "--segment", "california", "--all").exit_code == 2


def test_a_plan_says_who_may_join_and_how_many_that_are(project: Project) -> None:
    assert project.read("plan", CAMPAIGN)["plans"][0]["audience"] is None
    project.edit("goal:", "audience: {all: [{segment: california}, {not: {clicked: 1-adaptability}}]}\ngoal:")
    (made,) = project.read("plan", CAMPAIGN)["plans"]
    assert made["audience"] == f"in california, and not clicked in {CAMPAIGN}/1-adaptability"
    assert (made["admits"]["people"], made["admits"]["mailable"]) == (2, 1)
    assert [problem["code"] for problem in made["problems"]] == ["D317"]
    shown = project.run("plan", CAMPAIGN).stdout
    assert "Who may join" in shown
    assert "2 people are so now; 1 of them could be mailed" in shown


def test_who_is_not_in_the_audience_does_not_join_and_can_later(project: Project, database: Database) -> None:
    project.edit("goal:", "audience: {segment: california}\ngoal:")
    project.started()
    value = project.read("enroll", CAMPAIGN, "--all")
    assert (value["asked"], value["joined"], value["left_out"]) == (2, 1, {"not_in_audience": 1})
    with database.transaction() as connection:
        connection.execute(text("""UPDATE subscriber SET fields = '{"state": "CA"}'"""))
    assert project.read("enroll", CAMPAIGN, "--all")["joined"] == 1


def test_a_running_campaign_outlives_a_field_that_was_never_declared(project: Project, database: Database) -> None:
    """Versions stored before fields and events were declared go on being read."""
    project.started()
    project.read("enroll", CAMPAIGN, "--all")
    with database.transaction() as connection:
        definition = connection.execute(
            text("SELECT definition FROM campaign_version JOIN campaign ON campaign.version_id = campaign_version.id"
                 " WHERE campaign.name = :name"), {"name": CAMPAIGN}
        ).scalar_one()  # fmt: skip
        definition["config/segments.yaml"] += "\nold: {about: Before., when: {field: shoe_size, is: 9}}\n"
        campaign = connection.execute(
            text("SELECT id FROM campaign WHERE name = :name"), {"name": CAMPAIGN}
        ).scalar_one()
        rows.version(connection, campaign, number=2, definition=definition)
    assert project.read("enroll", CAMPAIGN, "--all")["in_it_before"] == 2
