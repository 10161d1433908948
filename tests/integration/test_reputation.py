"""The breakers on real rows: what closes, what goes on, and how a named person opens it again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from dripwell.content.load import SEGMENTS_PATH, SITE_PATH, load_site
from dripwell.core.campaign import MARKETING_LANES, SERVICE_LANES, Site, WarmUp
from dripwell.core.errors import NotFoundError, RefusedError
from dripwell.services import pace, reputation
from dripwell.storage import brakes, campaigns, clock
from dripwell.storage.database import Connection, Database
from tests.integration import rows
from tests.integration.command import copy_of_the_project

ROOT = Path(__file__).parent.parent.parent
DAY = timedelta(days=1)
BLOCKED = {"event": "bounce", "type": "blocked", "bounce_classification": "Reputation", "reason": "550 5.7.1 blocked"}
FREQUENT = {**BLOCKED, "bounce_classification": "Frequency or Volume Too High"}
UNPROVEN = {"event": "bounce", "type": "blocked", "reason": "550 5.7.515 Access denied", "bounce_classification": ""}
FULL = {"event": "bounce", "type": "bounce", "bounce_classification": "Mailbox Unavailable", "reason": "mailbox full"}


@pytest.fixture
def site() -> Site:
    """The site of the repository: its sending domain is warm."""
    read, _ = load_site({path: (ROOT / path).read_text(encoding="utf-8") for path in (SITE_PATH, SEGMENTS_PATH)})
    assert read is not None
    return replace(read, warm_up=None)


@dataclass
class Past:
    """Marketing mail of the last days, call by call."""

    database: Database
    site: Site
    people: int = 0

    def campaign(self, name: str = "seven-benefits", **values: Any) -> tuple[int, int]:
        """A running campaign and its version."""
        with self.database.transaction() as connection:
            campaign = rows.campaign(connection, name, **values)
            return campaign, rows.version(connection, campaign)

    def mailed(
        self,
        drip: tuple[int, int],
        people: int,
        *,
        delivery: str | None = "delivered",
        ago: timedelta = timedelta(hours=1),
        domain: str = "mail.example.com",
        state: str = "active",
        lane: str = "drip",
        event: str | None = None,
        detail: dict[str, str] | None = None,
    ) -> None:
        """One accepted call for so many people of a domain, and what became of all of them."""
        if people == 0:
            return
        with self.database.transaction() as connection:
            now = clock.read(connection).now
            numbers = {"from": self.people + 1, "to": self.people + people}
            self.people += people
            batch = rows.batch(connection, *drip, lane=lane, message_ids=[-self.people], at=now - ago)
            values = {
                **numbers,
                "domain": domain,
                "state": state,
                "campaign": drip[0],
                "version": drip[1],
                "lane": lane,
                "batch": batch,
                "at": now - ago,
                "delivery": delivery,
                "event": event,
                "detail": json.dumps(detail or {}),
                "now": now,
            }
            connection.execute(_MAILED, values)
            connection.execute(_OF_BATCH, values)
            if event is not None:
                connection.execute(_EVENTS, values)

    def hurt(self, drip: tuple[int, int], people: int, what: str, **values: Any) -> None:
        """So many complained, or had a bad address (bounced)."""
        delivery, state = ("complained", "unsubscribed") if what == "complained" else ("bounced", "undeliverable")
        self.mailed(drip, people, **{"delivery": delivery, "state": state, "event": what, **values})

    def bounce(self, people: int) -> None:
        """So many of whom nothing was told turn out to have a bad address."""
        with self.database.transaction() as connection:
            connection.execute(_BOUNCE, {"people": people, "now": clock.read(connection).now})

    def deliver(self, people: int) -> None:
        """So many of whom nothing was told got their email."""
        with self.database.transaction() as connection:
            connection.execute(_DELIVER, {"people": people})

    def watch(self) -> int:
        """What a settle pass does."""
        return reputation.watch(self.database, self.site, every=0)

    def state(self, name: str = "seven-benefits") -> str:
        with self.database.transaction() as connection:
            row = campaigns.by_name(connection, name)
        assert row is not None
        return row.state

    def closed(self) -> dict[str, str | None]:
        with self.database.transaction() as connection:
            return {lane: brakes.closed(connection, lane) for lane in sorted(MARKETING_LANES | SERVICE_LANES)}

    def lanes_closed(self) -> set[str]:
        return {lane for lane, reason in self.closed().items() if reason is not None}

    def groups(self) -> set[str]:
        with self.database.transaction() as connection:
            return brakes.paused_groups(connection)

    def resume(self, name: str = "seven-benefits") -> None:
        """What `dripwell resume` writes."""
        with self.database.transaction() as connection:
            row = campaigns.by_name(connection, name, lock=True)
            assert row is not None
            assert campaigns.set_state(connection, row.id, ("paused",), "running")
            campaigns.add_activity(connection, actor="maria", action="resumed", about=name, detail={})

    def release(self, scope: str) -> list[str]:
        with self.database.transaction() as connection:
            return reputation.release(connection, scope, actor="maria", reason="fixed")


_MAILED = text("""
WITH numbers AS (SELECT generate_series(CAST(:from AS integer), CAST(:to AS integer)) AS n),
people AS (
  INSERT INTO subscriber (public_id, address, addr_hash, state, joined_at)
  SELECT gen_random_uuid(), 'p' || n || '@' || :domain, sha256(convert_to('p' || n, 'UTF8')), :state, :at FROM numbers
  RETURNING id
), series AS (
  INSERT INTO enrollment (subscriber_id, campaign_id, version_id, state, joined_at, anchor_at, next_due_at, ended_at)
  SELECT id, :campaign, :version, 'finished', :at, :at, :at, :at FROM people
  RETURNING id, subscriber_id
)
INSERT INTO message (public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane, state, batch_id, due_at,
                     accepted_at, delivery)
SELECT gen_random_uuid(), id, subscriber_id, :campaign, 'adaptability', :lane, 'ACCEPTED', :batch, :at, :at, :delivery
  FROM series
""")
_OF_BATCH = text("""
UPDATE batch SET accepted_at = :at, message_ids = ARRAY(SELECT id FROM message WHERE batch_id = :batch ORDER BY id)
 WHERE id = :batch
""")
_EVENTS = text("""
INSERT INTO provider_event (dedupe, message_id, batch_id, type, at, campaign_at, detail)
SELECT 'e' || id || copy, id, :batch, :event, :now, :now, CAST(:detail AS jsonb)
  FROM message CROSS JOIN generate_series(1, 2) AS copy
 WHERE batch_id = :batch
""")  # each of them twice, as providers do


# The newest first.
_BOUNCE = text("""
WITH told AS (
  UPDATE message SET delivery = 'bounced'
   WHERE id IN (SELECT id FROM message
                 WHERE coalesce(delivery, 'processed') = 'processed'
                 ORDER BY batch_id DESC, id
                 LIMIT :people)
  RETURNING id, subscriber_id, batch_id
), people AS (
  UPDATE subscriber SET state = 'undeliverable' FROM told WHERE subscriber.id = told.subscriber_id
)
INSERT INTO provider_event (dedupe, message_id, batch_id, type, at, campaign_at)
SELECT 'b' || id, id, batch_id, 'bounced', :now, :now FROM told
""")
_DELIVER = text("""
UPDATE message SET delivery = 'delivered'
 WHERE id IN (SELECT id FROM message WHERE delivery IS NULL ORDER BY id LIMIT :people)
""")


@pytest.fixture
def past(database: Database, site: Site) -> Past:
    return Past(database, site)


# -- a campaign -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "events", "among"),
    [("complained", 2, 446), ("complained", 3, 852), ("bounced", 5, 92), ("bounced", 10, 245)],
)
def test_a_campaign_is_paused_at_the_golden_count_and_not_one_message_later(
    past: Past, what: str, events: int, among: int
) -> None:
    drip = past.campaign()
    past.hurt(drip, events, what)
    past.mailed(drip, among - events + 1)
    assert past.watch() == 0
    assert past.state() == "running"
    with past.database.transaction() as connection:
        connection.execute(text("UPDATE message SET delivery = NULL WHERE id = (SELECT max(id) FROM message)"))
    assert past.watch() == 1
    assert past.state() == "paused"
    assert past.lanes_closed() == set()
    with past.database.transaction() as connection:
        said = connection.execute(text("SELECT actor, action, about, detail FROM activity")).one()
    assert (said.actor, said.action, said.about) == ("reputation", "paused", "seven-benefits")
    assert (said.detail["events"], said.detail["resolved"], said.detail["level"]) == (events, among, "pause")
    assert past.watch() == 0  # and nothing is said twice


def test_a_healthy_campaign_goes_on(past: Past) -> None:
    drip = past.campaign()
    past.mailed(drip, 3_000)
    past.hurt(drip, 2, "complained")
    past.hurt(drip, 40, "bounced")
    past.mailed(drip, 200, delivery="bounced", event="bounced", detail=FULL)  # nobody's address is bad
    assert past.watch() == 0
    assert past.state() == "running"
    assert past.lanes_closed() == set()


def test_what_is_not_resolved_yet_proves_nothing_good(past: Past) -> None:
    drip = past.campaign()
    past.hurt(drip, 2, "complained")
    past.mailed(drip, 800)
    past.mailed(drip, 500, delivery="deferred")
    with past.database.transaction() as connection:
        connection.execute(text("UPDATE message SET delivery = NULL WHERE delivery = 'delivered' AND id % 2 = 0"))
    assert past.watch() == 1


# Providers that tell of no deliveries, or late.


@pytest.mark.parametrize("delivery", [None, "processed"])
@pytest.mark.parametrize(("events", "among", "level"), [(5, 92, "pause"), (10, 245, "pause"), (10, 99, "stop")])
def test_where_no_delivery_is_told_bounces_are_counted_among_what_was_accepted(
    past: Past, delivery: str | None, events: int, among: int, level: str
) -> None:
    drip = past.campaign()
    past.mailed(drip, among + 1, delivery=delivery)
    past.bounce(events)
    if level == "pause":
        assert past.watch() == 0
        assert past.state() == "running"
    with past.database.transaction() as connection:
        connection.execute(text("UPDATE message SET delivery = 'deferred' WHERE id = (SELECT max(id) FROM message)"))
    assert past.watch() == (1 if level == "pause" else 2)
    with past.database.transaction() as connection:
        (said, *_) = connection.execute(text("SELECT detail FROM activity")).scalars()
    assert (said["events"], said["resolved"], said["level"]) == (events, among, level)


def test_ten_bounces_among_three_hundred_calls_of_one_person_each_close_nothing(past: Past) -> None:
    drip = past.campaign()
    for ago in (timedelta(minutes=5), timedelta(hours=1)):
        for number in range(150):
            past.mailed(drip, 1, delivery=None, ago=ago)
            if number % 30 == 0:
                past.bounce(1)
    assert past.watch() == 0
    assert past.state() == "running"
    assert past.lanes_closed() == set()


def test_bounces_that_are_told_before_the_deliveries_wait_for_them(past: Past) -> None:
    drip = past.campaign()
    past.mailed(drip, 300, delivery=None, ago=timedelta(minutes=2))
    past.bounce(10)
    assert past.watch() == 0
    past.deliver(139)
    assert past.watch() == 0
    past.deliver(60)
    assert past.watch() == 0  # two thirds of them
    past.deliver(91)
    assert past.watch() == 0  # and all of them are fine
    assert past.state() == "running"


def test_young_mail_is_judged_as_soon_as_most_of_it_is_known(past: Past) -> None:
    drip = past.campaign()
    past.mailed(drip, 120, delivery=None, ago=timedelta(minutes=2))
    past.bounce(10)
    assert past.watch() == 0
    past.deliver(50)
    assert past.watch() == 0
    past.deliver(30)
    assert past.watch() == 2
    assert past.lanes_closed() == {"drip", "newsletter"}


def test_what_nobody_tells_of_is_judged_after_a_quarter_of_an_hour(past: Past) -> None:
    drip = past.campaign()
    past.mailed(drip, 99, delivery=None, ago=timedelta(minutes=13))
    past.bounce(10)
    assert past.watch() == 0
    with past.database.transaction() as connection:
        connection.execute(text("UPDATE batch SET accepted_at = accepted_at - interval '3 min'"))
        connection.execute(text("UPDATE message SET accepted_at = accepted_at - interval '3 min'"))
    assert past.watch() == 2


def test_gmail_reports_no_complaints_so_its_mail_does_not_dilute_them(past: Past) -> None:
    drip = past.campaign()
    past.hurt(drip, 2, "complained")
    past.mailed(drip, 3_000, domain="gmail.com")
    past.mailed(drip, 400, domain="GoogleMail.com")
    past.mailed(drip, 400)
    assert past.watch() == 1
    assert past.state() == "paused"


def test_a_month_counts_where_a_day_is_too_short(past: Past) -> None:
    drip = past.campaign()
    past.hurt(drip, 1, "complained", ago=20 * DAY)
    past.hurt(drip, 1, "complained", ago=10 * DAY)
    past.mailed(drip, 400, ago=5 * DAY)
    assert past.watch() == 1


def test_what_is_longer_ago_than_a_month_is_forgotten(past: Past) -> None:
    drip = past.campaign()
    past.hurt(drip, 9, "complained", ago=31 * DAY)
    past.mailed(drip, 100)
    assert past.watch() == 0


def test_a_bad_day_is_not_hidden_by_a_good_month(past: Past) -> None:
    drip = past.campaign()
    past.mailed(drip, 5_000, ago=10 * DAY)
    past.hurt(drip, 3, "complained")
    past.mailed(drip, 600)
    assert past.watch() == 1


def test_going_on_restarts_the_windows_and_names_who_did(past: Past) -> None:
    drip = past.campaign()
    past.hurt(drip, 2, "complained")
    past.mailed(drip, 100)
    assert past.watch() == 1
    past.resume()
    assert past.watch() == 0
    assert past.state() == "running"
    with past.database.transaction() as connection:
        assert connection.execute(text("SELECT released_by FROM brake")).scalars().all() == ["maria"]
        # What came before is over, late complaints about it too; what comes now counts.
        connection.execute(
            text("UPDATE brake SET since = since - interval '1 hour', released_at = :at"),
            {"at": _now(connection) - timedelta(minutes=30)},
        )
    past.hurt(drip, 5, "complained", ago=timedelta(minutes=40))
    assert past.watch() == 0
    past.hurt(drip, 2, "complained", ago=timedelta(minutes=20))
    assert past.watch() == 1
    assert past.state() == "paused"


def test_a_campaign_that_a_person_paused_is_left_as_it_is(past: Past) -> None:
    drip = past.campaign(state="paused")
    past.hurt(drip, 2, "complained")
    past.mailed(drip, 300)
    past.watch()
    assert past.state() == "paused"
    with past.database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM activity")).scalar_one() == 0


def test_another_campaign_is_not_paused_for_it(past: Past) -> None:
    bad, good = past.campaign(), past.campaign("guides")
    past.hurt(bad, 2, "complained")
    past.mailed(bad, 300)
    past.mailed(good, 300)
    assert past.watch() == 1
    assert (past.state(), past.state("guides")) == ("paused", "running")
    assert past.lanes_closed() == set()


# -- the installation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "events", "among"), [("complained", 3, 284), ("complained", 5, 615), ("bounced", 10, 99)]
)
def test_numbers_that_end_in_a_block_close_both_marketing_lanes_and_no_other(
    past: Past, what: str, events: int, among: int
) -> None:
    drip = past.campaign()
    past.hurt(drip, events, what)
    past.mailed(drip, among - events)
    assert past.watch() == 2
    assert past.lanes_closed() == {"drip", "newsletter"}
    assert past.watch() == 0


def test_campaigns_that_are_bad_only_together_close_the_lanes(past: Past) -> None:
    for name in ("one", "two", "three"):
        drip = past.campaign(name)
        past.hurt(drip, 1, "complained")
        past.mailed(drip, 100)
    assert past.watch() == 2
    assert past.lanes_closed() == {"drip", "newsletter"}
    assert {past.state(name) for name in ("one", "two", "three")} == {"running"}


def test_service_mail_is_never_counted_and_never_closed(past: Past) -> None:
    confirm = past.campaign("confirm", kind="service")
    past.hurt(confirm, 50, "complained", lane="confirm")
    past.hurt(confirm, 50, "bounced", lane="booking")
    past.mailed(confirm, 50, lane="confirm", delivery="bounced", event="bounced", detail=BLOCKED)
    assert past.watch() == 0
    assert past.lanes_closed() == set()
    assert past.groups() == set()


def test_a_release_opens_the_lanes_and_restarts_the_windows(past: Past) -> None:
    drip = past.campaign()
    past.hurt(drip, 3, "complained")
    past.mailed(drip, 100)
    assert past.watch() == 2
    with pytest.raises(RefusedError, match="say why"), past.database.transaction() as connection:
        reputation.release(connection, "marketing", actor="maria", reason=" ")
    assert past.release("lane:drip") == ["lane:drip"]
    assert past.lanes_closed() == {"newsletter"}
    assert past.release("marketing") == ["lane:newsletter"]
    with pytest.raises(NotFoundError, match="not closed"):
        past.release("marketing")
    with pytest.raises(RefusedError, match="dripwell resume"):
        past.release("campaign:1")
    assert past.watch() == 0
    assert past.lanes_closed() == set()
    assert past.state() == "running"
    with past.database.transaction() as connection:
        said = connection.execute(text("SELECT actor, about FROM activity WHERE action = 'released' ORDER BY id")).all()
    assert [tuple(row) for row in said] == [("maria", "lane:drip"), ("maria", "lane:newsletter")]


# -- mailbox groups ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detail", [BLOCKED, FREQUENT])
def test_a_group_that_refuses_us_is_left_alone_and_no_other(past: Past, detail: dict[str, str]) -> None:
    drip = past.campaign()
    past.mailed(drip, 6, domain="yahoo.com", delivery="bounced", event="bounced", detail=detail)
    past.mailed(drip, 4, domain="aol.com", delivery="bounced", event="bounced", detail=detail)
    past.mailed(drip, 20, domain="yahoo.co.uk")
    past.mailed(drip, 20, domain="gmail.com", delivery="bounced", event="bounced", detail=FULL)
    assert past.watch() == 1
    assert past.groups() == {"yahoo"}
    assert past.state() == "running"
    assert past.release("group:yahoo") == ["group:yahoo"]
    assert past.watch() == 0
    assert past.groups() == set()


def test_nine_refusals_or_few_among_many_are_no_reason(past: Past) -> None:
    drip = past.campaign()
    past.mailed(drip, 9, domain="yahoo.com", delivery="bounced", event="bounced", detail=BLOCKED)
    past.mailed(drip, 40, domain="hotmail.com", delivery="bounced", event="bounced", detail=BLOCKED)
    past.mailed(drip, 2_000, domain="outlook.com")
    assert past.watch() == 0
    assert past.groups() == set()


def test_ten_refusals_among_three_hundred_of_whom_nothing_is_told_are_no_reason(past: Past) -> None:
    drip = past.campaign()
    past.mailed(drip, 10, domain="yahoo.com", delivery="bounced", event="bounced", detail=BLOCKED)
    past.mailed(drip, 10, domain="outlook.com", delivery="bounced", event="bounced", detail=BLOCKED)
    past.mailed(drip, 290, domain="yahoo.com", delivery=None)
    past.mailed(drip, 60, domain="outlook.com", delivery=None)
    assert past.watch() == 1
    assert past.groups() == {"outlook"}


def test_a_refusal_for_want_of_proof_waits_for_nothing(past: Past) -> None:
    drip = past.campaign()
    past.mailed(drip, 500, domain="live.com", delivery=None, ago=timedelta(minutes=1))
    past.bounce(1)
    with past.database.transaction() as connection:
        connection.execute(
            text("UPDATE provider_event SET detail = CAST(:detail AS jsonb)"), {"detail": json.dumps(UNPROVEN)}
        )
    assert past.watch() == 1
    assert past.groups() == {"outlook"}


def test_one_refusal_for_want_of_proof_closes_that_group_at_once(past: Past) -> None:
    drip = past.campaign()
    past.mailed(drip, 1, domain="live.com", delivery="bounced", event="bounced", detail=UNPROVEN)
    past.mailed(drip, 500, domain="live.com")
    assert past.watch() == 1
    assert past.groups() == {"outlook"}


def test_in_a_warm_up_refusals_freeze_the_curve_until_three_days_pass_without_one(past: Past) -> None:
    drip = past.campaign()
    with past.database.transaction() as connection:
        today = _now(connection).date()
    past.site = replace(past.site, warm_up=WarmUp("new-domain", today - 4 * DAY))
    past.mailed(drip, 10, domain="yahoo.com", delivery="bounced", event="bounced", detail=BLOCKED)
    assert past.watch() == 1
    assert past.groups() == set()
    assert past.watch() == 0
    with past.database.transaction() as connection:
        now = _now(connection)
        before, later = (pace.standing(connection, past.site, at) for at in (now, now + 2 * DAY))
        assert before is not None
        assert later is not None
        assert (later.frozen, later.day) == (True, before.day)
        connection.execute(text("UPDATE provider_event SET campaign_at = campaign_at - interval '71 hours'"))
    assert past.watch() == 0
    with past.database.transaction() as connection:
        assert [one.scope for one in brakes.standing(connection)] == ["ramp"]
        connection.execute(text("UPDATE provider_event SET campaign_at = campaign_at - interval '2 hours'"))
    assert past.watch() == 0
    with past.database.transaction() as connection:
        assert brakes.standing(connection) == []
    assert past.watch() == 0  # what froze it does not freeze it again


# -- who counts, and who sees it --------------------------------------------------------------------------------------


def test_it_counts_once_a_minute_over_all_workers(past: Past) -> None:
    drip = past.campaign()
    assert reputation.watch(past.database, past.site) == 0
    past.hurt(drip, 3, "complained")
    assert reputation.watch(past.database, past.site) == 0
    assert past.lanes_closed() == set()
    with past.database.transaction() as connection:
        connection.execute(text("UPDATE pace_state SET watched_at = wall() - interval '61 s'"))
    assert reputation.watch(past.database, past.site) == 2


def test_a_brake_is_listed_released_and_shown_by_commands(
    past: Past, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project = copy_of_the_project(tmp_path, {"DATABASE_URL": past.database.dsn, "REDIS_URL": redis_url})
    assert project.run("brake", "list").stdout == "Nothing is closed.\n"
    drip = past.campaign("bad", kind="newsletter")
    past.hurt(drip, 3, "complained")
    past.mailed(drip, 100)
    past.watch()
    listed = project.read("brake", "list")["brakes"]
    assert [one["scope"] for one in listed] == ["lane:drip", "lane:newsletter"]
    assert listed[0]["numbers"]["events"] == 3
    words = "3 complaints in 24 hours among 103 emails delivered outside Gmail"
    assert words in project.run("brake", "list").stdout
    assert words in project.run("status").stdout
    assert project.run("brake", "release", "marketing", "--reason", " ").exit_code == 2
    assert project.read("brake", "release", "marketing", "--reason", "fixed", "--by", "maria") == {
        "version": 1,
        "released": ["lane:drip", "lane:newsletter"],
    }
    assert project.run("brake", "release", "marketing", "--reason", "again").exit_code == 1
    assert project.read("status")["brakes"] == []


def test_status_shows_the_warm_up(past: Past, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = copy_of_the_project(tmp_path, {"DATABASE_URL": past.database.dsn, "REDIS_URL": redis_url})
    assert project.read("status")["warm_up"] is None
    with past.database.transaction() as connection:
        first = _now(connection).date() - 3 * DAY
    path = project.root / "config" / "site.yaml"
    path.write_text(f"{path.read_text()}\nwarm_up:\n  preset: ghost-42\n  first_day: {first}\n")
    shown = project.read("status")["warm_up"]
    assert (shown["preset"], shown["used"], shown["frozen"]) == ("ghost-42", 0, False)
    assert shown["day"] in (2, 3)  # it is another day in Los Angeles for some hours
    assert f"warm-up ghost-42, day {shown['day'] + 1}: 0 of {shown['cap']} used until" in project.run("status").stdout


def _now(connection: Connection) -> datetime:
    return clock.read(connection).now
