"""One condition, two readers: PostgreSQL and Python say the same of everybody, whatever a record may hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any as Whatever
from typing import get_args

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from dripwell.core.clicks import MOST
from dripwell.core.conditions import (
    All,
    Any,
    Clicked,
    Condition,
    FieldIs,
    Happened,
    HasTag,
    HasTopic,
    InSegment,
    Joined,
    Not,
    Scalar,
    asked,
    holds,
    in_words,
)
from dripwell.core.duration import Duration
from dripwell.services import people
from dripwell.storage import segments
from dripwell.storage.database import Connection, Database
from tests.integration import rows

NOW = rows.START + timedelta(days=100)
SECOND = timedelta(seconds=1)
HOSTILE = [
    "CA",
    "ca",
    "",
    " ",
    "1",
    "true",
    "null",
    "'; DROP TABLE subscriber; --",
    "%s %(x)s :ids {0}",
    'a"b\\c',
    "\\u0000",
]
UNICODE = ["é", "e\u0301", "日本", "\U0001f9e1", "\u202e", "ß", "İ", "\x7f", "\ufeff"]
NUMBERS = [0, 1, -1, 1.0, 0.1, -0.0, 1e300, 10**15, 2**53 + 1, float(2**53), 1e-7]
TEXTS = st.sampled_from(HOSTILE + UNICODE) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6
)
HELD: st.SearchStrategy[Whatever] = (
    TEXTS | st.sampled_from(NUMBERS) | st.booleans() | st.none() | st.sampled_from([[], ["CA"], {"is": "CA"}, [1]])
)
ASKED: st.SearchStrategy[Scalar] = (
    TEXTS
    | st.sampled_from(NUMBERS)
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats()
    | st.sampled_from(["\0", "\ud800"])
)
FIELDS = st.sampled_from(["state", "city", "vip", "o'clock", "a:b"])
TAGS = st.sampled_from(["staff", "lead", "it's", "a,b", "{x}", '"', "NULL", ""])
TOPICS = st.sampled_from(["seven-part-series", "monthly-notes"])
EVENTS = st.sampled_from(["consultation.booked", "consultation.canceled", "o'"])
CAMPAIGNS = ("seven-benefits", "other")
STEPS = ("1-one", "2-two")
NAMES = st.sampled_from(["staff", "nested", "nowhere"])
WITHIN = st.sampled_from([Duration(30, "minute"), Duration(1, "day"), Duration(2, "week"), Duration(1, "month")])
AGES = st.sampled_from([d + s * timedelta(microseconds=1) for d in (
    timedelta(0), timedelta(minutes=30), timedelta(days=1), timedelta(weeks=2), timedelta(days=30), timedelta(days=90)
) for s in (-1, 0, 1)])  # fmt: skip

leaves: st.SearchStrategy[Condition] = st.one_of(
    st.builds(FieldIs, FIELDS, st.lists(ASKED, min_size=1, max_size=3).map(tuple)),
    st.builds(HasTag, TAGS),
    st.builds(HasTopic, TOPICS),
    st.builds(InSegment, NAMES),
    st.builds(
        Clicked, st.sampled_from([*CAMPAIGNS, "nowhere"]), st.none() | st.sampled_from(STEPS), st.none() | WITHIN
    ),
    st.builds(Happened, EVENTS, st.none() | WITHIN),
    st.builds(Joined, WITHIN),
)


def trees(bottom: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    """Combinations of these questions, empty ones too."""
    return st.recursive(
        bottom,
        lambda inner: st.one_of(
            st.builds(All, st.lists(inner, max_size=3).map(tuple)),
            st.builds(Any, st.lists(inner, max_size=3).map(tuple)),
            st.builds(Not, inner),
        ),
        max_leaves=8,
    )


@dataclass(frozen=True)
class Somebody:
    """What the record holds about one invented person."""

    fields: dict[str, Whatever]
    tags: list[str]
    joined: timedelta
    words: list[tuple[str, bool]]  # topic, yes or no, in order
    events: list[tuple[str, timedelta]]
    clicks: list[tuple[int, int, int, float, timedelta]]  # campaign, step, link, wall second, age in campaign time


somebody = st.builds(
    Somebody,
    fields=st.dictionaries(FIELDS, HELD, max_size=4),
    tags=st.lists(TAGS, max_size=3),
    joined=AGES,
    words=st.lists(st.tuples(TOPICS, st.booleans()), max_size=3),
    events=st.lists(st.tuples(EVENTS, AGES), max_size=3),
    clicks=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 1),
            st.integers(0, 3),
            st.sampled_from([0, 0.5, 2, 2.000001, 2.5, 4, 7]),
            AGES,
        ),
        max_size=8,
    ),
)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.engine.connect() as opened:
        yield opened
        opened.rollback()


def write(connection: Connection, everybody: Sequence[Somebody]) -> list[int]:
    """Write these people, and two campaigns in which each of them got two emails."""
    versions = {}
    for name in CAMPAIGNS:
        campaign = rows.campaign(connection, name)
        versions[campaign] = rows.version(connection, campaign)
    ids = []
    for number, one in enumerate(everybody):
        who = rows.subscriber(connection, f"p{number}@example.com", topics=(), joined_at=NOW - one.joined)
        ids.append(who)
        connection.execute(
            text("UPDATE subscriber SET fields = CAST(:fields AS jsonb), tags = :tags WHERE id = :id"),
            {"fields": json.dumps(one.fields), "tags": one.tags, "id": who},
        )
        for topic, yes in one.words:
            connection.execute(
                text(
                    "INSERT INTO consent (subscriber_id, topic, action, source, given_at)"
                    " VALUES (:id, :topic, :action, 'test', :at)"
                ),
                {"id": who, "topic": topic, "action": "give" if yes else "withdraw", "at": NOW},
            )
        for name, age in one.events:
            connection.execute(
                text("INSERT INTO happening (subscriber_id, event, at) VALUES (:id, :event, :at)"),
                {"id": who, "event": name, "at": NOW - age},
            )
        messages = [
            [
                rows.message(connection, passage, step_key=step, batch_id=batch)
                for step in STEPS
                for batch in [rows.batch(connection, campaign, version, step_key=step)]
            ]
            for campaign, version in versions.items()
            for passage in [rows.enrollment(connection, who, campaign, version)]
        ]
        for campaign, step, link, second, age in one.clicks:
            click(connection, messages[campaign][step], link, second, NOW - age)
    return ids


def click(connection: Connection, message: int, link: int, second: float, at: datetime = NOW) -> None:
    """Somebody fetched this link, so many seconds of wall time after the series began."""
    connection.execute(
        text("INSERT INTO click (message_id, number, at, wall_at) VALUES (:message, :link, :at, :wall)"),
        {"message": message, "link": link, "at": at, "wall": rows.START + second * SECOND},
    )


def by_sql(connection: Connection, ids: Sequence[int], condition: Condition, named: dict[str, Condition]) -> set[int]:
    """The answer of PostgreSQL."""
    return segments.among(connection, ids, condition, named, NOW)


def by_python(
    connection: Connection, ids: Sequence[int], condition: Condition, named: dict[str, Condition]
) -> set[int]:
    """The answer of the planner's reader: only what the condition asks for is read."""
    facts = people.facts(connection, ids, asked([condition], named), NOW)
    return {who for who in ids if holds(condition, facts[who], named)}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    everybody=st.lists(somebody, min_size=1, max_size=4),
    conditions=st.lists(trees(leaves), min_size=1, max_size=6),
    staff=trees(leaves.filter(lambda leaf: not isinstance(leaf, InSegment))),
    nested=trees(leaves.filter(lambda leaf: leaf != InSegment("nested"))),
)
def test_sql_and_python_agree_about_everybody(
    connection: Connection, everybody: list[Somebody], conditions: list[Condition], staff: Condition, nested: Condition
) -> None:
    named = {"staff": staff, "nested": nested}
    inside = connection.begin_nested()
    try:
        ids = write(connection, everybody)
        for condition in conditions:
            for one in (condition, Not(condition)):
                assert by_sql(connection, ids, one, named) == by_python(connection, ids, one, named)
            assert by_sql(connection, ids, condition, named) ^ by_sql(connection, ids, Not(condition), named) == set(
                ids
            )
            told = segments.members(connection, condition, named, NOW)
            assert list(told) == sorted(by_sql(connection, ids, condition, named))
            counted = segments.count(connection, condition, named, NOW)
            assert counted.people == len(by_sql(connection, ids, condition, named))
    finally:
        inside.rollback()


def test_every_kind_of_condition_is_asked_in_both_readers() -> None:
    """The strategy above draws each kind there is: a new one without a line there is a kind that nobody compares."""
    drawn = {type(find_one(trees(leaves), kind)) for kind in get_args(Condition)}
    assert drawn == set(get_args(Condition))


def find_one(strategy: st.SearchStrategy[Condition], kind: type) -> Condition:
    """An example of this kind; Hypothesis raises NoSuchExample when there is none."""
    return find(strategy, lambda condition: isinstance(condition, kind))


@pytest.mark.parametrize("kind", get_args(Condition))
def test_a_condition_without_a_reader_would_not_pass(connection: Connection, kind: type) -> None:
    condition = find_one(trees(leaves), kind)
    (who,) = write(connection, [NOBODY])
    assert by_sql(connection, [who], condition, {}) == by_python(connection, [who], condition, {})
    assert segments.count(connection, condition, {}, NOW).people in (0, 1)
    assert in_words(condition)


NOBODY = Somebody({}, [], timedelta(0), [], [], [])
BURSTS = [
    ("one link", [(0, 0)], True),
    ("two links at once", [(0, 0), (1, 0)], True),
    ("three links at once", [(0, 0), (1, 0), (2, 0)], False),
    ("one link, three times at once", [(0, 0), (0, 0), (0, 0)], True),
    ("three links in exactly two seconds", [(0, 0), (1, 1), (2, 2)], False),
    ("three links in a little more", [(0, 0), (1, 1), (2, 2.000001)], True),
    ("a burst, and a person later", [(0, 0), (1, 0), (2, 0), (1, 60)], True),
    ("a person first, and a burst later", [(1, 0), (0, 60), (1, 60), (2, 60)], True),
    ("a chain in which each three are close", [(0, 0), (1, 1), (2, 2), (0, 3), (1, 4)], False),
    ("as many as one person may", [(0, n * 10) for n in range(MOST)], True),
    ("one more than that", [(0, n * 10) for n in range(MOST + 1)], False),
]


@pytest.mark.parametrize(("clicks", "human"), [pytest.param(c, h, id=name) for name, c, h in BURSTS])
def test_a_burst_of_links_is_a_machines(connection: Connection, clicks: list[tuple[int, float]], human: bool) -> None:
    (who,) = write(connection, [NOBODY])
    message = connection.execute(text("SELECT min(id) FROM message")).scalar_one()
    for link, second in clicks:
        click(connection, message, link, second)
    condition = Clicked("seven-benefits", "1-one")
    assert by_sql(connection, [who], condition, {}) == ({who} if human else set())
    assert by_python(connection, [who], condition, {}) == ({who} if human else set())
    assert list(segments.members(connection, condition, {}, NOW)) == ([who] if human else [])


def test_a_scanner_of_one_email_does_not_hide_the_person_in_another(connection: Connection) -> None:
    (who,) = write(connection, [NOBODY])
    first, second = connection.execute(text("SELECT id FROM message ORDER BY id LIMIT 2")).scalars()
    for link in range(5):
        click(connection, first, link, 0)
    click(connection, second, 0, 0)
    for condition, answer in (
        (Clicked("seven-benefits"), {who}),
        (Clicked("seven-benefits", "1-one"), set()),
        (Clicked("seven-benefits", "2-two"), {who}),
        (Clicked("other"), set()),
    ):
        assert by_sql(connection, [who], condition, {}) == answer
        assert by_python(connection, [who], condition, {}) == answer


def test_a_link_hammered_a_hundred_thousand_times_costs_no_more_than_a_moment(connection: Connection) -> None:
    (who,) = write(connection, [NOBODY])
    connection.execute(
        text(
            "INSERT INTO click (message_id, number, at, wall_at)"
            " SELECT (SELECT min(id) FROM message), n % 7, :now, :now FROM generate_series(1, 100000) AS n"
        ),
        {"now": NOW},
    )
    connection.execute(text("SET LOCAL statement_timeout = '5s'"))
    condition = Clicked("seven-benefits")
    assert by_sql(connection, [who], condition, {}) == set()
    assert by_python(connection, [who], condition, {}) == set()
    assert segments.count(connection, condition, {}, NOW).people == 0


def test_more_sets_than_are_joined_are_asked_one_by_one(connection: Connection) -> None:
    (who,) = write(connection, [replace(NOBODY, events=[(f"e.{n}", timedelta(0)) for n in range(40)])])
    every = All(tuple(Happened(f"e.{n}") for n in range(40)))
    assert segments.count(connection, every, {}, NOW).people == 1
    assert segments.count(connection, All((every, Happened("e.41"))), {}, NOW).people == 0
    assert list(segments.members(connection, every, {}, NOW)) == [who]


def test_who_could_be_mailed_is_active_agreed_and_not_in_the_ledger(connection: Connection) -> None:
    topic = "seven-part-series"
    agreed = replace(NOBODY, words=[(topic, True)])
    ids = write(connection, [agreed, agreed, agreed, agreed, replace(NOBODY, words=[(topic, True), (topic, False)])])
    connection.execute(text("UPDATE subscriber SET state = 'unsubscribed' WHERE id = :id"), {"id": ids[1]})
    for who, action in ((ids[2], "suppress"), (ids[3], "suppress"), (ids[3], "lift")):
        connection.execute(
            text(
                "INSERT INTO suppression (addr_hash, scope, action, reason, source)"
                " SELECT addr_hash, :scope, :action, 'unsubscribed', 'test' FROM subscriber WHERE id = :id"
            ),
            {"scope": f"topic:{topic}", "action": action, "id": who},
        )
    made = segments.count(connection, All(()), {}, NOW, topic=topic, scopes=["all", "marketing", f"topic:{topic}"])
    assert (made.people, made.active, made.mailable) == (5, 4, 2)
    assert segments.count(connection, All(()), {}, NOW).mailable is None


def test_somebody_erased_is_in_no_segment(connection: Connection) -> None:
    gone, here = write(connection, [NOBODY, NOBODY])
    connection.execute(
        text("UPDATE subscriber SET state = 'erased', address = NULL, addr_hash = NULL WHERE id = :id"), {"id": gone}
    )
    assert list(segments.members(connection, All(()), {}, NOW)) == [here]
    assert segments.count(connection, All(()), {}, NOW).people == 1
    assert [one.id for one in segments.examples(connection, All(()), {}, NOW, 5)] == [here]


def test_the_examples_are_the_newest_and_no_more_than_asked_for(connection: Connection) -> None:
    ids = write(connection, [NOBODY] * 4)
    assert [one.id for one in segments.examples(connection, All(()), {}, NOW, 2)] == [ids[3], ids[2]]
    assert segments.examples(connection, All(()), {}, NOW, 0) == []


def test_the_text_of_a_statement_holds_no_value(connection: Connection) -> None:
    hostile = "x') OR true; DROP TABLE subscriber; --"
    condition = All(
        (
            FieldIs(hostile, (hostile, 4242)),
            HasTag(hostile),
            HasTopic(hostile),
            Clicked(hostile, hostile, Duration(4242, "day")),
            Happened(hostile, Duration(4242, "day")),
            Joined(Duration(4242, "day")),
        )
    )
    seen: list[str] = []

    def look(_one: object, _two: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(connection, "before_cursor_execute", look)
    assert segments.count(connection, condition, {}, NOW, topic=hostile, scopes=[hostile]).people == 0
    assert segments.among(connection, [1], condition, {}, NOW) == set()
    assert seen
    assert not any("DROP" in statement or "4242" in statement for statement in seen)


@pytest.mark.parametrize(("micro", "counts"), [(-1, True), (0, True), (1, False)])
def test_within_reaches_back_to_exactly_then_in_both_readers(connection: Connection, micro: int, counts: bool) -> None:
    ago = timedelta(days=1, microseconds=micro)
    (who,) = write(connection, [Somebody({}, [], ago, [], [("left.town", ago)], [(0, 0, 0, 0, ago)])])
    day = Duration(1, "day")
    for condition in (Joined(day), Happened("left.town", day), Clicked("seven-benefits", None, day)):
        answer = {who} if counts else set()
        assert by_sql(connection, [who], condition, {}) == answer
        assert by_python(connection, [who], condition, {}) == answer
        assert set(segments.members(connection, condition, {}, NOW)) == answer
