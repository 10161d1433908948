"""What starts a series: each trigger, who is let in by it, and who may go through it again."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import text

from dripwell.bootstrap import Installation
from dripwell.core.keys import message_id
from dripwell.services import confirm, enroll, happen, leave, plan, signup, tell
from dripwell.storage import campaigns, clock, consents, suppressions
from dripwell.storage.database import Connection
from tests.integration import rows

TOPIC = "seven-part-series"
CAMPAIGN = "seven-benefits"
TRIGGERS = {
    "form": ("{form: series-request}", "series-request"),
    "tag": ("{tag: asked-for/guide}", "asked-for/guide"),
    "event": ("{event: consultation.canceled}", "consultation.canceled"),
    "import": ("{import: true}", ""),
}


def applied(installation: Installation, trigger: str = "{manual: true}", more: str = "") -> int:
    """The campaign, running, with another trigger and further lines."""
    sources = installation.sources(CAMPAIGN)
    path = f"campaigns/{CAMPAIGN}/campaign.yaml"
    head, _, tail = sources[path].partition("trigger:\n")
    steps = tail[tail.index("goal:") :]
    sources[path] = f"{head}trigger: {trigger}\n{more}{steps}"
    with installation.database.transaction() as connection:
        campaign = rows.campaign(connection, CAMPAIGN)
        rows.version(connection, campaign, definition=sources)
    return campaign


def person(installation: Installation, address: str = "maria@example.com", **changes: object) -> int:
    with installation.database.transaction() as connection:
        return rows.subscriber(connection, address, pepper=installation.pepper, **changes)  # type: ignore[arg-type]


def triggered(installation: Installation, kind: str, *people: int) -> dict[str, list[int]]:
    with installation.database.transaction() as connection:
        times = clock.read(connection)
        return happen.trigger_many(connection, installation.versions, people, kind, TRIGGERS[kind][1], times)


def enrolled(installation: Installation) -> list[tuple[int, int, str]]:
    """(person, round, state) of everybody in the campaign."""
    with installation.database.transaction() as connection:
        found = connection.execute(
            text(
                "SELECT subscriber_id, round, enrollment.state FROM enrollment JOIN campaign"
                " ON campaign.id = campaign_id WHERE name = :name ORDER BY subscriber_id, round"
            ),
            {"name": CAMPAIGN},
        )
        return [tuple(row) for row in found]


def finished(installation: Installation, ago: timedelta, reason: str | None = None) -> None:
    """End every passage, so long ago in campaign time."""
    with installation.database.transaction() as connection:
        connection.execute(
            text(
                "UPDATE enrollment SET"
                " state = CASE WHEN CAST(:reason AS text) IS NULL THEN 'finished' ELSE 'exited' END,"
                " ended_reason = :reason, ended_at = :at, joined_at = :at WHERE state IN ('waiting', 'mailing')"
            ),
            {"reason": reason, "at": clock.read(connection).now - ago},
        )


@pytest.mark.parametrize("kind", TRIGGERS)
def test_each_trigger_lets_in_everybody_who_may_be_mailed_at_once_and_nobody_else(
    installation: Installation, kind: str
) -> None:
    applied(installation, TRIGGERS[kind][0])
    willing = [person(installation, f"p{number}@example.com") for number in range(3)]
    unconfirmed = person(installation, "u@example.com", state="unconfirmed")
    without = person(installation, "n@example.com", topics=())
    gone = person(installation, "g@example.com", state="unsubscribed")

    joined = triggered(installation, kind, *willing, unconfirmed, without, gone)

    assert joined == {CAMPAIGN: willing}
    assert enrolled(installation) == [(who, 1, "waiting") for who in willing]


@pytest.mark.parametrize("kind", TRIGGERS)
def test_a_trigger_of_another_kind_or_name_lets_nobody_in(installation: Installation, kind: str) -> None:
    other = "tag" if kind != "tag" else "event"
    applied(installation, TRIGGERS[other][0])
    assert triggered(installation, kind, person(installation)) == {}
    assert enrolled(installation) == []


@pytest.mark.parametrize("kind", TRIGGERS)
def test_the_audience_decides_who_joins_by_any_trigger(installation: Installation, kind: str) -> None:
    applied(installation, TRIGGERS[kind][0], "audience: {tag: nearby}\n")
    inside = person(installation, "near@example.com", tags=("nearby",))
    outside = person(installation, "far@example.com")

    assert triggered(installation, kind, inside, outside) == {CAMPAIGN: [inside]}
    assert enrolled(installation) == [(inside, 1, "waiting")]


def test_staff_are_told_of_each_person_why_they_do_not_join(installation: Installation) -> None:
    applied(installation, more="audience: {tag: nearby}\nreenter: after 10 days\n")
    inside = person(installation, "near@example.com", tags=("nearby",))
    outside = person(installation, "far@example.com")
    unconfirmed = person(installation, "u@example.com", state="unconfirmed", tags=("nearby",))
    with installation.database.transaction() as connection:
        first = enroll.enroll_each(
            connection, installation.versions, CAMPAIGN, [inside, outside, unconfirmed, 10**9], actor="test"
        )
        again = enroll.enroll_each(connection, installation.versions, CAMPAIGN, [inside], actor="test")
    finished(installation, timedelta(days=3))
    with installation.database.transaction() as connection:
        soon = enroll.enroll_each(connection, installation.versions, CAMPAIGN, [inside], actor="test")
    assert first.joined == (inside,)
    assert first.why_not == {outside: "not_in_audience", unconfirmed: "unconfirmed", 10**9: "unknown"}
    assert again.why_not == {inside: "in_it"}
    assert soon.why_not == {inside: "too_soon"}


@pytest.mark.parametrize("kind", TRIGGERS)
def test_who_was_in_a_series_never_joins_it_again_by_itself(installation: Installation, kind: str) -> None:
    applied(installation, TRIGGERS[kind][0])
    who = person(installation)
    triggered(installation, kind, who)
    finished(installation, timedelta(days=4000))

    assert triggered(installation, kind, who) == {}
    assert enrolled(installation) == [(who, 1, "finished")]


@pytest.mark.parametrize("kind", TRIGGERS)
def test_a_new_round_begins_when_the_time_since_the_last_one_ended_is_over(
    installation: Installation, kind: str
) -> None:
    applied(installation, TRIGGERS[kind][0], "reenter: after 180 days\n")
    who = person(installation)
    triggered(installation, kind, who)
    assert triggered(installation, kind, who) == {}  # in it now
    finished(installation, timedelta(days=179))
    assert triggered(installation, kind, who) == {}
    finished_more = timedelta(days=2)
    with installation.database.transaction() as connection:
        connection.execute(text("UPDATE enrollment SET ended_at = ended_at - :more"), {"more": finished_more})
    assert triggered(installation, kind, who) == {CAMPAIGN: [who]}
    assert enrolled(installation) == [(who, 1, "finished"), (who, 2, "waiting")]


def test_the_time_until_a_new_round_is_campaign_time(installation: Installation) -> None:
    applied(installation, TRIGGERS["tag"][0], "reenter: after 2 weeks\n")
    who = person(installation)
    triggered(installation, "tag", who)
    finished(installation, timedelta(0))
    assert triggered(installation, "tag", who) == {}
    with installation.database.transaction() as connection:
        clock.forward(connection, clock.read(connection).now + timedelta(days=15))
    assert triggered(installation, "tag", who) == {CAMPAIGN: [who]}


def test_a_new_round_plans_its_first_email_as_a_message_of_its_own(installation: Installation) -> None:
    campaign = applied(installation, TRIGGERS["tag"][0], "reenter: after 10 days\n")
    who = person(installation, timezone=None)
    with installation.database.transaction() as connection:
        sent = rows.enrollment(
            connection, who, campaign, campaigns.by_id(connection, campaign).version_id or 0, state="finished"
        )
        rows.message(connection, sent, step_key="1-adaptability", at=rows.START)
    triggered(installation, "tag", who)
    with installation.database.transaction() as connection:
        # The first opening of the window, whatever day it is now.
        clock.forward(connection, clock.read(connection).now + timedelta(days=30))
        for _ in range(200):
            plan.plan_slice(connection, installation.versions, 10)
            found = connection.execute(
                text(
                    "SELECT message.public_id FROM message JOIN enrollment ON enrollment.id = enrollment_id"
                    " WHERE round = 2"
                )
            ).scalars()
            planned = list(found)
            if planned:
                break
            clock.forward(connection, clock.read(connection).now + timedelta(hours=1))
        owner = campaigns.by_id(connection, campaign).public_id
    of_person = rows.uuid_of("subscriber", "maria@example.com")
    assert planned == [message_id(owner, of_person, "1-adaptability", 2)]
    assert planned != [message_id(owner, of_person, "1-adaptability", 1)]


@pytest.mark.parametrize("reason", ["unsubscribed", "complained", "undeliverable", "no_consent", "stopped_series"])
def test_who_left_by_their_own_word_comes_back_only_by_agreeing_afresh(installation: Installation, reason: str) -> None:
    applied(installation, TRIGGERS["tag"][0], "reenter: after 10 days\n")
    who = person(installation, joined_at=rows.START - timedelta(days=4000))
    triggered(installation, "tag", who)
    finished(installation, timedelta(days=100), reason)

    assert triggered(installation, "tag", who) == {}

    with installation.database.transaction() as connection:
        now = clock.read(connection).now
        consents.add(connection, who, TOPIC, give=True, source="confirm:9", wording="Yes.", at=now)
    assert triggered(installation, "tag", who) == {CAMPAIGN: [who]}


@pytest.mark.parametrize("scope", ["all", "marketing", f"topic:{TOPIC}", f"campaign:{CAMPAIGN}"])
def test_nobody_joins_whom_the_ledger_keeps_out(installation: Installation, scope: str) -> None:
    applied(installation, TRIGGERS["tag"][0])
    who = person(installation)
    with installation.database.transaction() as connection:
        found = suppressions.address_of(connection, who)
        assert found is not None
        assert found[0] is not None
        suppressions.append(
            connection,
            addr_hash=found[0],
            scope=scope,
            action="suppress",
            reason="unsubscribed",
            source="test",
            evidence="",
        )
    assert triggered(installation, "tag", who) == {}


def test_who_unsubscribed_joins_again_after_confirming_again(installation: Installation) -> None:
    applied(installation, TRIGGERS["form"][0], "reenter: after 1 day\n")
    who = person(installation)
    triggered(installation, "form", who)
    with installation.database.transaction() as connection:
        leave.suppress(
            connection,
            subscriber_id=who,
            scope="marketing",
            reason="unsubscribed",
            source=leave.PAGE,
            evidence="",
            times=clock.read(connection),
        )
        clock.forward(connection, clock.read(connection).now + timedelta(days=30))
    assert triggered(installation, "form", who) == {}
    with installation.database.transaction() as connection:
        signup.request(connection, who, form="series-request", source="test", times=clock.read(connection))
        asked = connection.execute(
            text("SELECT max(e.id) FROM enrollment e JOIN campaign c ON c.id = campaign_id WHERE c.name = 'confirm'")
        ).scalar_one()
        pressed = confirm.confirm(
            connection, enrollment_id=asked, site=installation.site, versions=installation.versions
        )
    assert pressed is not None
    assert enrolled(installation) == [(who, 1, "exited"), (who, 2, "waiting")]


def race(installation: Installation, *works: Callable[[Barrier], object]) -> list[object]:
    """Run these at the same moment, each on a connection of its own."""
    barrier = Barrier(len(works))
    with ThreadPoolExecutor(len(works)) as pool:
        return [one.result(timeout=30) for one in [pool.submit(work, barrier) for work in works]]


@pytest.mark.parametrize("rounds_before", [0, 1])
def test_two_triggers_at_once_begin_one_round(installation: Installation, rounds_before: int) -> None:
    applied(installation, TRIGGERS["tag"][0], "reenter: after 1 day\n")
    who = person(installation)
    if rounds_before:
        triggered(installation, "tag", who)
        finished(installation, timedelta(days=10))

    def work(barrier: Barrier) -> dict[str, list[int]]:
        with installation.database.transaction() as connection:
            times = clock.read(connection)
            barrier.wait(timeout=20)
            return happen.trigger_many(connection, installation.versions, [who], "tag", TRIGGERS["tag"][1], times)

    answers = race(installation, work, work)

    assert sorted(answers, key=bool) == [{}, {CAMPAIGN: [who]}]
    assert [state for _, _, state in enrolled(installation)].count("waiting") == 1
    assert len(enrolled(installation)) == rounds_before + 1


def test_the_record_itself_refuses_a_second_open_passage(installation: Installation) -> None:
    campaign = applied(installation)
    who = person(installation)
    with installation.database.transaction() as connection:
        version = campaigns.by_id(connection, campaign).version_id
        assert version is not None
        rows.enrollment(connection, who, campaign, version)
    with pytest.raises(Exception, match="enrollment_one_open"), installation.database.transaction() as connection:
        rows.enrollment(connection, who, campaign, version, round=2)


def test_an_event_ends_only_series_that_had_begun_when_it_happened(installation: Installation) -> None:
    applied(installation)
    who = person(installation)
    with installation.database.transaction() as connection:
        enroll.enroll(connection, CAMPAIGN, [who], actor="test")
        times = clock.read(connection)
        before = times.now - timedelta(days=1)
        happen.record(connection, installation.versions, who, happen.BOOKED, times, at=before)
    assert enrolled(installation) == [(who, 1, "waiting")]
    with installation.database.transaction() as connection:
        happen.record(connection, installation.versions, who, happen.BOOKED, clock.read(connection))
    assert enrolled(installation) == [(who, 1, "exited")]


def test_an_event_told_twice_under_one_id_happens_once(installation: Installation) -> None:
    who = person(installation)
    with installation.database.transaction() as connection:
        times = clock.read(connection)
        told = [
            happen.record(connection, installation.versions, who, happen.BOOKED, times, sender_id=sender_id)
            for sender_id in ("a", "a", "b", None, None)
        ]
        kept = connection.execute(text("SELECT count(*) FROM happening")).scalar_one()
    assert told == [True, False, True, True, True]
    assert kept == 4


def test_a_campaign_that_does_not_run_lets_nobody_in(installation: Installation) -> None:
    campaign = applied(installation, TRIGGERS["tag"][0])
    with installation.database.transaction() as connection:
        campaigns.set_state(connection, campaign, ["running"], "paused")
    assert triggered(installation, "tag", person(installation)) == {}


def test_an_event_waits_for_an_unsubscribe_that_is_under_way_and_neither_stops_the_other(
    installation: Installation,
) -> None:
    applied(installation)
    who = person(installation)
    with installation.database.transaction() as connection:
        enroll.enroll(connection, CAMPAIGN, [who], actor="test")
        address = connection.execute(text("SELECT address FROM subscriber WHERE id = :who"), {"who": who}).scalar_one()

    def tells(connection: Connection) -> bool:
        times = clock.read(connection)
        _, news = tell.event(
            connection, address=address, name=happen.BOOKED, versions=installation.versions,
            pepper=installation.pepper, times=times,
        )  # fmt: skip
        return news

    def is_waiting() -> bool:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        with installation.database.transaction() as connection:
            return bool(connection.execute(text(waiting)).scalar_one())

    def told() -> bool:
        with installation.database.transaction() as connection:
            return tells(connection)

    with ThreadPoolExecutor(1) as pool:
        with installation.database.transaction() as connection:
            suppressions.lock_in_scope(connection, who, suppressions.MARKETING)
            event = pool.submit(told)
            until = time.monotonic() + 20
            while not is_waiting():
                assert time.monotonic() < until
                time.sleep(0.01)
            leave.suppress(
                connection, subscriber_id=who, scope=suppressions.MARKETING, reason="unsubscribed", source=leave.PAGE,
                evidence="", times=clock.read(connection),
            )  # fmt: skip
        assert event.result(timeout=20)
    with installation.database.transaction() as connection:
        found = connection.execute(text("SELECT ended_reason FROM enrollment WHERE subscriber_id = :w"), {"w": who})
        assert found.scalars().all() == ["unsubscribed"]
