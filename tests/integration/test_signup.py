"""Signing up: whoever asks gets the same answer, nobody is mailed at will, and what was agreed to is kept.

The rules of mailing are tried on a house whose clock moves; the pages on a whole installation.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from html import unescape

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from starlette.responses import Response
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation
from dripwell.core.address import address_hash
from dripwell.core.agreement import version_of
from dripwell.core.campaign import Form, Lane, Site
from dripwell.core.tokens import Purpose, sign
from dripwell.services import confirm, leave, signup
from dripwell.storage import clock, consents, signups, suppressions
from dripwell.storage.database import Connection, Database
from dripwell.storage.fast import Fast
from dripwell.storage.signups import Signup
from tests.integration import rows
from tests.integration.conftest import Mailed
from tests.integration.scripted import House

MARIA = "maria@example.com"
SECOND = Form("notes-request", "monthly-notes", "Email me the monthly notes.", (("email", True),))


def with_forms(site: Site, **changes: object) -> Site:
    """The site with its first form changed, and a second form."""
    return replace(site, forms=(replace(site.forms[0], **changes), SECOND))  # type: ignore[arg-type]


# How often an address is mailed


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    """A house that mails confirmations, and whose every test ends with the judge."""
    made = House(database, redis_url)
    made.publish_service()
    made.site = with_forms(made.site)
    yield made
    made.check()
    made.close()


def ask(house: House, address: str = MARIA, *, form: int = 0, again: bool = False, **typed: str) -> None:
    """Ask through a form, and let the confirmation go out."""
    asked = house.site.forms[form]
    answers = signup.read(asked, {"email": address, **typed})
    assert not answers.errors

    def work(connection: Connection) -> None:
        signup.ask(
            connection,
            form=asked,
            site=house.site,
            answers=answers,
            also=frozenset(),
            page=f"https://mail.kcla.example/s/{asked.name}",
            network="203.0.113.0/24",
            again=again,
            pepper=rows.PEPPER,
            new_id=house.new_id,
            times=clock.read(connection),
        )

    house.database.retrying(work)
    house.send(Lane.CONFIRM)


def press(house: House, enrollment_id: int) -> confirm.Confirmed | None:
    return house.database.retrying(
        lambda connection: confirm.confirm(
            connection, enrollment_id=enrollment_id, site=house.site, versions=house.versions
        )
    )


def mails(house: House) -> list[int]:
    """The enrollments of the confirmations that went out, oldest first."""
    return [
        int(str(one))
        for (one,) in house.query("SELECT enrollment_id FROM message WHERE state = 'ACCEPTED' ORDER BY enrollment_id")
    ]


def test_the_same_request_again_is_one_email_and_asking_for_it_is_three_a_day(house: House) -> None:
    ask(house)
    ask(house)
    assert house.provider.addresses() == [MARIA]
    for _ in range(5):
        ask(house, again=True)
    assert house.provider.addresses() == [MARIA] * 3
    house.later(hours=25)
    ask(house, again=True)
    assert house.provider.addresses() == [MARIA] * 4
    assert house.query("SELECT count(*) FROM signup") == [(1,)]


def test_no_number_of_different_requests_gets_an_address_more_than_three_emails_a_day(house: House) -> None:
    for number in range(6):
        ask(house, first_name=f"Name {'abcdef'[number]}")
        ask(house, form=1, again=True)
    assert house.provider.addresses() == [MARIA] * 3


def test_an_address_gets_six_emails_in_a_month_as_long_as_nobody_presses_a_button(house: House) -> None:
    for _ in range(10):
        ask(house, again=True)
        house.later(days=2)
    assert house.provider.addresses() == [MARIA] * 6
    house.later(days=25)  # the first ones are older than a month now
    ask(house, again=True)
    assert house.provider.addresses() == [MARIA] * 7


def test_whoever_pressed_a_button_is_mailed_as_before(house: House) -> None:
    for _ in range(6):
        ask(house, again=True)
        house.later(days=2)
    press(house, mails(house)[-1])
    ask(house, form=1)
    assert house.provider.addresses() == [MARIA] * 7


def test_asking_once_more_is_a_request_of_today(house: House) -> None:
    ask(house)
    ((first,),) = house.query("SELECT asked_wall FROM signup")
    house.later(days=20)
    ask(house)
    assert house.query("SELECT asked_wall, asked_at FROM signup") == [(house.wall, house.wall)]
    house.later(days=20)
    with house.database.transaction() as connection:
        assert signup.mail_again(
            connection,
            addr_hash=address_hash(rows.PEPPER, MARIA),
            times=clock.read(connection),
        )
    assert house.query("SELECT asked_wall, asked_at FROM signup") == [(house.wall, house.wall)]
    assert first != house.wall


def test_asking_once_more_after_an_unsubscribe_makes_no_old_link_fresh(house: House) -> None:
    ask(house)
    (old,) = mails(house)
    ((person,),) = house.query("SELECT id FROM subscriber")
    assert isinstance(person, int)
    house.later(minutes=1)
    stop(house, person, "marketing", "unsubscribed")
    house.later(minutes=1)
    ask(house, again=True)
    refused = press(house, old)
    assert refused is not None
    assert refused.request.state is confirm.State.OVERTAKEN


def test_requests_through_two_forms_are_confirmed_each_by_its_own_email(house: House) -> None:
    ask(house, form=0)
    ask(house, form=1)
    first, second = mails(house)
    assert press(house, second) is not None
    with house.database.transaction() as connection:
        ((person,),) = connection.execute(text("SELECT id FROM subscriber")).all()
        assert consents.given(connection, person) == ["monthly-notes"]
    assert press(house, first) is not None
    with house.database.transaction() as connection:
        assert consents.given(connection, person) == ["monthly-notes", "seven-part-series"]
        sources = {row.topic: (row.source, row.page) for row in consents.ledger(connection, person)}
    assert sources == {
        "monthly-notes": ("form notes-request", "https://mail.kcla.example/s/notes-request"),
        "seven-part-series": ("form series-request", "https://mail.kcla.example/s/series-request"),
    }


def test_each_confirmation_names_what_it_was_asked_for(house: House) -> None:
    ask(house, form=0)
    ask(house, form=1)
    assert len(house.provider.mailings) == 2
    said = [str(mailing) for mailing in house.provider.mailings]
    assert "Seven-part series" in said[0]
    assert "Monthly notes" in said[1]
    assert "Seven-part series" not in said[1]


def stop(house: House, person: int, scope: str, reason: str) -> None:
    with house.database.transaction() as connection:
        leave.suppress(
            connection,
            subscriber_id=person,
            scope=scope,
            reason=reason,
            source=leave.PAGE,
            evidence="test",
            times=clock.read(connection),
        )


def test_whoever_unsubscribed_may_ask_again_and_confirming_lifts_it(house: House) -> None:
    person = house.person(MARIA)
    stop(house, person, "marketing", "unsubscribed")
    house.later(seconds=1)
    ask(house)
    assert house.provider.addresses() == [MARIA]
    assert house.query("SELECT state FROM subscriber") == [("unsubscribed",)]  # asking alone brings nobody back
    confirmed = press(house, mails(house)[0])
    assert confirmed is not None
    with house.database.transaction() as connection:
        addr_hash, state = suppressions.address_of(connection, person) or (None, "")
        assert addr_hash is not None
        assert suppressions.standing(connection, [addr_hash], ["marketing", "all"]) == set()
    assert state == "active"
    assert confirmed.lifted == ((addr_hash, "marketing"),)


@pytest.mark.parametrize("said_by", [leave.PAGE, leave.STAFF, leave.REPLY])
def test_leaving_once_more_counts_against_a_request_made_in_between(house: House, said_by: str) -> None:
    person = house.person(MARIA)
    left = leave.Unwanted(address_hash(rows.PEPPER, MARIA), "marketing", "unsubscribed")

    def go() -> None:
        with house.database.transaction() as connection:
            times = clock.read(connection)
            if said_by == leave.PAGE:
                values = {"scope": "marketing", "reason": "unsubscribed", "source": said_by, "evidence": "test"}
                leave.suppress(connection, subscriber_id=person, times=times, **values)
            else:
                leave.suppress_addresses(connection, [left], source=said_by, times=times)

    go()
    go()
    assert house.query("SELECT count(*) FROM suppression") == [(1,)]  # the same word twice is one
    house.later(seconds=1)
    ask(house)
    house.later(seconds=1)
    go()
    press(house, mails(house)[0])
    with house.database.transaction() as connection:
        assert suppressions.standing(connection, [left.addr_hash], ["marketing"]) == {(left.addr_hash, "marketing")}
    assert house.query("SELECT state FROM subscriber") == [("unsubscribed",)]
    house.later(seconds=1)
    ask(house)
    press(house, mails(house)[-1])
    assert house.query("SELECT state FROM subscriber") == [("active",)]


def agreed(house: House, person: int) -> list[str]:
    with house.database.transaction() as connection:
        return consents.given(connection, person)


def test_whoever_left_everything_gets_back_only_what_they_ask_for(house: House) -> None:
    ask(house, form=0)
    ask(house, form=1)
    for mail in mails(house):
        press(house, mail)
    ((person,),) = house.query("SELECT id FROM subscriber")
    assert isinstance(person, int)
    assert agreed(house, person) == ["monthly-notes", "seven-part-series"]
    house.later(days=1)
    stop(house, person, "marketing", "unsubscribed")
    house.later(minutes=1)
    ask(house, form=0)
    house.later(minutes=1)
    confirmed = press(house, mails(house)[-1])
    assert confirmed is not None
    assert confirmed.lifted
    assert agreed(house, person) == ["seven-part-series"]
    with house.database.transaction() as connection:
        (row,) = (row for row in consents.ledger(connection, person) if row.action == "withdraw")
    assert (row.topic, row.source, row.at) == ("monthly-notes", "unsubscribe", house.wall)


def test_a_second_request_after_leaving_everything_stays_as_fresh_as_the_first(house: House) -> None:
    ask(house, form=0)
    ask(house, form=1)
    for mail in mails(house):
        press(house, mail)
    ((person,),) = house.query("SELECT id FROM subscriber")
    assert isinstance(person, int)
    house.later(days=2)
    stop(house, person, "marketing", "unsubscribed")
    house.later(minutes=1)
    ask(house, form=0)
    ask(house, form=1)
    first, second = mails(house)[-2:]
    house.later(minutes=1)
    press(house, first)
    assert agreed(house, person) == ["seven-part-series"]
    press(house, second)
    assert agreed(house, person) == ["monthly-notes", "seven-part-series"]


@pytest.mark.parametrize("reason", ["complained", "undeliverable"])
def test_nothing_is_mailed_to_an_address_that_complained_or_is_dead(house: House, reason: str) -> None:
    person = house.person(MARIA)
    stop(house, person, "all", reason)
    ask(house)
    ask(house, again=True)
    assert house.provider.mailings == []


def test_an_expired_link_is_mailed_again_for_its_own_request(house: House) -> None:
    ask(house, form=0)
    ask(house, form=1)
    first, _ = mails(house)
    house.later(days=8)
    with house.database.transaction() as connection:
        assert signup.mail_this_again(connection, enrollment_id=first, times=clock.read(connection))
    house.send(Lane.CONFIRM)
    newest = mails(house)[-1]
    with house.database.transaction() as connection:
        request = signups.of_mails(connection, [newest])[newest]
    assert request.form == "series-request"
    press(house, newest)
    with house.database.transaction() as connection:
        assert not signup.mail_this_again(connection, enrollment_id=first, times=clock.read(connection))


# The pages


class Visitor:
    """Somebody at the page of a form, who has taken their time."""

    def __init__(self, client: TestClient, installation: Installation) -> None:
        self.client = client
        self.installation = installation

    def shown(self, ago: float = 10.0) -> str:
        with self.installation.database.transaction() as connection:
            now = clock.read(connection).wall_now
        return signup.shown_at(self.installation.keys, now - timedelta(seconds=ago))

    def post(self, *, form: str = "series-request", ago: float = 10.0, **typed: str | list[str]) -> Response:
        """Post the form; `consent=""` leaves the box unticked."""
        fields: dict[str, str | list[str]] = {"email": MARIA, "dw-agree": "yes", "dw-shown": self.shown(ago)}
        fields.update({name.replace("__", "-"): value for name, value in typed.items()})
        return self.client.post(f"/s/{form}", data=fields)  # type: ignore[return-value]

    def count(self, table: str) -> int:
        with self.installation.database.transaction() as connection:
            found: int = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
        return found

    def nothing_is_kept(self) -> bool:
        return [self.count(table) for table in ("signup", "subscriber", "wording", "message")] == [0, 0, 0, 0]

    def links(self) -> list[str]:
        """The paths of the confirmations that were planned, oldest first."""
        with self.installation.database.transaction() as connection:
            now = clock.read(connection).wall_now
            found = connection.execute(text("SELECT enrollment_id FROM signup_mail ORDER BY enrollment_id")).scalars()
            return [f"/k/{sign(self.installation.keys, Purpose.CONFIRM, one, now)}" for one in found]


@pytest.fixture
def visitor(client: TestClient, installation: Installation) -> Visitor:
    return Visitor(client, installation)


@pytest.fixture
def visiting(clientele: Callable[..., TestClient], installation: Installation) -> Callable[..., Visitor]:
    """Visitors of an installation that differs in a few parts."""
    return lambda **changes: Visitor(clientele(**changes), replace(installation, **changes))


def test_from_the_form_to_the_ledger(visitor: Visitor, mailed: Mailed) -> None:
    page = visitor.client.get("/s/series-request")
    assert page.status_code == 200
    assert " checked" not in page.text
    assert page.text.count("<button") == 1
    asked = visitor.post(first_name="Ana María", email=" New.Person@Example.COM ")
    assert asked.status_code == 200
    assert "Check your email" in asked.text
    assert "calls@notice.kcla.example" in asked.text
    assert visitor.count("consent WHERE subscriber_id <> 1") == 0  # nothing before the button is pressed
    with visitor.installation.database.transaction() as connection:
        before = connection.execute(text("SELECT state, fields FROM subscriber WHERE id <> 1")).one()
    assert tuple(before) == ("unconfirmed", {})
    (link,) = visitor.links()
    assert "Is N•••n@example.com yours?" in visitor.client.get(link).text
    assert "Your address is confirmed" in visitor.client.post(link).text
    words = visitor.installation.site.forms[0].consent
    with visitor.installation.database.transaction() as connection:
        person = connection.execute(text("SELECT id, state, fields FROM subscriber WHERE id <> 1")).one()
        (row,) = consents.ledger(connection, person.id)
        series = connection.execute(
            text("SELECT count(*) FROM enrollment WHERE subscriber_id = :id AND campaign_id = :campaign"),
            {"id": person.id, "campaign": mailed.campaign},
        ).scalar_one()
    assert (person.state, person.fields, series) == ("active", {"first_name": "Ana María"}, 1)
    assert (row.topic, row.action, row.source) == ("seven-part-series", "give", "form series-request")
    assert (row.wording, row.version) == (words, version_of(words))
    assert row.page == "https://mail.kcla.example/s/series-request"
    assert row.network == "unknown"  # the test client has no network address
    assert row.asked_at is not None
    assert row.confirmed_at is not None
    assert row.asked_at < row.confirmed_at == row.at


def test_further_topics_are_unticked_and_count_only_when_ticked(visiting: Callable[..., Visitor]) -> None:
    visitor = visiting()
    site = with_forms(visitor.installation.site, also=("monthly-notes", "health-guides"))
    visitor = visiting(site=site)
    page = visitor.client.get("/s/series-request").text
    assert page.count('name="dw-also"') == 2
    assert " checked" not in page
    visitor.post(dw__also=["monthly-notes", "no-such-topic", "seven-part-series"])
    (link,) = visitor.links()
    confirmation = visitor.client.get(link).text
    offered = "Email me “Monthly notes” as well. One email a month."
    assert offered in unescape(page)
    assert offered in unescape(confirmation)
    visitor.client.post(link)
    with visitor.installation.database.transaction() as connection:
        ledger = consents.ledger(connection, 1)
    assert {row.topic: row.wording for row in ledger} == {
        "seven-part-series": site.forms[0].consent,
        "monthly-notes": offered,
    }


def test_the_ledger_keeps_the_words_that_were_shown_though_the_form_changed_or_went(
    visiting: Callable[..., Visitor],
) -> None:
    visitor = visiting()
    words = visitor.installation.site.forms[0].consent
    visitor.post()
    (link,) = visitor.links()
    changed = visiting(site=with_forms(visitor.installation.site, consent="Other words."))
    assert words in changed.client.get(link).text
    gone = visiting(site=replace(visitor.installation.site, forms=()))
    assert gone.client.get("/s/series-request").status_code == 404
    assert "Your address is confirmed" in gone.client.post(link).text
    with visitor.installation.database.transaction() as connection:
        assert [row.wording for row in consents.ledger(connection, 1)] == [words]
        assert connection.execute(text("SELECT words FROM wording")).scalars().all() == [words]


def test_without_the_tick_nothing_is_kept(visitor: Visitor) -> None:
    answer = visitor.post(dw__agree="")
    assert answer.status_code == 422
    assert "Tick this box" in answer.text
    assert visitor.nothing_is_kept()


def test_a_form_on_another_site_leads_to_the_page_and_its_ticks_do_not_count(visitor: Visitor) -> None:
    for shown in ("", "forged", visitor.shown(ago=25 * 3600)):
        answer = visitor.client.post(
            "/s/series-request",
            data={"email": MARIA, "first_name": "Maria", "dw-agree": "yes", "dw-shown": shown},
            headers={"origin": "https://kcla.example"},
        )
        assert answer.status_code == 200
        assert "press the button once more" in answer.text
        assert f'value="{MARIA}"' in answer.text
        assert 'value="Maria"' in answer.text
        assert " checked" not in answer.text
    assert visitor.nothing_is_kept()


def test_pressing_in_a_flash_is_asked_once_more_and_then_counts(visitor: Visitor) -> None:
    early = visitor.post(ago=0)
    assert "very fast" in early.text
    assert " checked" in early.text
    assert visitor.nothing_is_kept()
    visitor.post()
    assert visitor.count("signup") == 1


def test_the_field_for_programs_stops_them_and_a_screen_reader_never_meets_it(visitor: Visitor) -> None:
    page = visitor.client.get("/s/series-request").text
    trap = re.search(r'<div class="sr" aria-hidden="true">.*?</div>', page)
    assert trap is not None
    assert "Leave this field empty" in trap[0]
    assert 'tabindex="-1"' in trap[0]
    answer = visitor.post(web__site="https://spam.example")
    assert "must stay empty" in answer.text
    assert "spam.example" not in answer.text
    assert visitor.nothing_is_kept()


KINDS = ("unknown", "active", "unconfirmed", "unsubscribed", "complained", "erased")


def become(connection: Connection, kind: str, address: str, pepper: bytes) -> None:
    """Let this address be known as `kind`."""
    if kind == "unknown":
        return
    state, topics = ("unconfirmed", ()) if kind == "unconfirmed" else ("active", ("seven-part-series",))
    person = rows.subscriber(connection, address, state=state, pepper=pepper, topics=topics)
    if kind in ("unsubscribed", "complained", "erased"):
        leave.suppress(
            connection,
            subscriber_id=person,
            scope="marketing" if kind == "unsubscribed" else "all",
            reason="unsubscribed" if kind == "unsubscribed" else "complained",
            source=leave.PAGE,
            evidence="test",
            times=clock.read(connection),
        )
    if kind == "erased":
        connection.execute(
            text("UPDATE subscriber SET state = 'erased', address = NULL, addr_hash = NULL WHERE id = :id"),
            {"id": person},
        )


def test_everybody_gets_the_same_answer_for_the_same_work(visitor: Visitor) -> None:
    installation = visitor.installation
    statements: list[str] = []

    def note(conn: object, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    found = {}
    visitor.post(email="warm@example.com")  # what a process reads once is read
    for kind in KINDS:
        address = f"m{kind:-<12}a@example.com"  # of one length, since the page holds it in a hidden field
        with installation.database.transaction() as connection:
            become(connection, kind, address, installation.pepper)
        shown = visitor.shown()
        event.listen(installation.database.engine, "before_cursor_execute", note)
        answer = visitor.post(email=address, dw__shown=shown)
        event.remove(installation.database.engine, "before_cursor_execute", note)
        page = answer.text.replace(address, "ADDRESS").replace(shown, "SHOWN")
        found[kind] = (answer.status_code, page, dict(answer.headers), list(statements))
        statements.clear()
    for kind in KINDS:
        assert found[kind] == found["unknown"], kind
    assert found["unknown"][0] == 200
    assert len(found["unknown"][3]) > 8
    assert visitor.count("signup_mail") == 1 + len(KINDS)


def test_nothing_of_a_known_person_changes_before_their_button_is_pressed(visitor: Visitor, mailed: Mailed) -> None:
    with mailed.installation.database.transaction() as connection:
        before = connection.execute(text("SELECT CAST(to_jsonb(one) AS text) FROM subscriber AS one")).scalars().all()
    assert visitor.post(first_name="Mallory", state="Nowhere").status_code == 200
    with mailed.installation.database.transaction() as connection:
        after = connection.execute(text("SELECT CAST(to_jsonb(one) AS text) FROM subscriber AS one")).scalars().all()
    assert after == before


def test_a_network_asks_ten_times_an_hour(visitor: Visitor) -> None:
    for number in range(10):
        assert visitor.post(email=f"p{number}@example.com").status_code == 200
    refused = visitor.post(email="p10@example.com")
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "3600"
    assert "Too many requests came from your network" in refused.text
    # Nobody is believed who writes the header themselves.
    spoofed = visitor.client.post(
        "/s/series-request",
        data={"email": MARIA, "dw-agree": "yes", "dw-shown": visitor.shown()},
        headers={"x-forwarded-for": "203.0.113.77"},
    )
    assert spoofed.status_code == 429
    assert visitor.count("signup") == 10


def test_behind_a_trusted_proxy_each_network_has_its_own_limit_and_is_kept_truncated(
    installation: Installation,
) -> None:
    from dripwell.web.app import create_app

    settings = installation.settings.model_copy(update={"trusted_proxy": "192.0.2.1"})
    app = create_app(replace(installation, settings=settings))
    with TestClient(app, client=("192.0.2.1", 4711)) as client:
        visitor = Visitor(client, installation)

        def post(address: str, forwarded: str) -> int:
            fields = {"email": address, "dw-agree": "yes", "dw-shown": visitor.shown()}
            answer = client.post("/s/series-request", data=fields, headers={"x-forwarded-for": forwarded})
            return answer.status_code

        for number in range(11):
            made_up = f"198.51.{number}.1, 203.0.113.{number}"
            assert post(f"p{number}@example.com", made_up) == (200 if number < 10 else 429)
        assert post("six@example.com", "2001:db8:1:2::3") == 200
    with installation.database.transaction() as connection:
        kept = connection.execute(text("SELECT DISTINCT network FROM signup ORDER BY network")).scalars().all()
    assert kept == ["2001:db8:1::/48", "203.0.113.0/24"]


def test_limits_hold_while_redis_is_away(visiting: Callable[..., Visitor]) -> None:
    visitor = visiting(fast=Fast("redis://127.0.0.1:1/0"))
    answers = [visitor.post(email=f"p{number}@example.com").status_code for number in range(11)]
    assert answers == [200] * 10 + [429]


# A link that is broken or old


def test_a_broken_link_offers_a_fresh_one_and_says_the_same_to_everybody(visitor: Visitor) -> None:
    visitor.post()
    assert visitor.count("signup_mail") == 1
    for path in ("/k/x", f"{visitor.links()[0]}x", visitor.links()[0][:-1], "/k/é"):
        for answer in (visitor.client.get(path), visitor.client.post(path)):
            assert answer.status_code == 404
            assert "This link is not complete" in answer.text
            assert 'action="/k"' in answer.text
    texts = set()
    for address in (MARIA, "nobody@example.com"):
        answer = visitor.client.post("/k", data={"email": address, "dw-shown": visitor.shown()})
        assert answer.status_code == 200
        texts.add(answer.text)
    assert len(texts) == 1
    assert visitor.count("signup_mail") == 2
    assert visitor.count("subscriber") == 1
    assert "Your address is confirmed" in visitor.client.post(visitor.links()[1]).text


def test_asking_for_fresh_links_is_bounded_like_the_form(visitor: Visitor) -> None:
    visitor.post()
    assert "very fast" in visitor.client.post("/k", data={"email": MARIA, "dw-shown": visitor.shown(0)}).text
    assert visitor.client.post("/k", data={"email": "no", "dw-shown": visitor.shown()}).status_code == 422
    answers = [
        visitor.client.post("/k", data={"email": MARIA, "dw-shown": visitor.shown()}).status_code for _ in range(10)
    ]
    assert answers == [200] * 9 + [429]
    assert visitor.count("signup_mail") == 3


def test_a_form_there_is_not_says_so_and_speaks_of_no_email(visitor: Visitor) -> None:
    for answer in (visitor.client.get("/s/nope"), visitor.client.post("/s/nope", data={"email": MARIA})):
        assert answer.status_code == 404
        assert "There is no such form" in answer.text
        assert "Open" not in answer.text
    assert visitor.nothing_is_kept()


def test_whoever_waits_is_told_what_to_look_for(visitor: Visitor) -> None:
    asked = visitor.post()
    fresh = visitor.client.post("/k", data={"email": MARIA, "dw-shown": visitor.shown()})
    for answer in (asked, fresh):
        assert "Please confirm your address" in answer.text  # the subject, as templates/email/system/confirm.md has it
        assert "calls@notice.kcla.example" in answer.text
    assert '<a href="/s/series-request">fill in the form again</a>' in asked.text


def test_an_expired_link_has_a_button_for_a_fresh_one(visitor: Visitor) -> None:
    visitor.post()
    with visitor.installation.database.transaction() as connection:
        now = clock.read(connection).wall_now
        (mail,) = connection.execute(text("SELECT enrollment_id FROM signup_mail")).scalars().all()
    old = f"/k/{sign(visitor.installation.keys, Purpose.CONFIRM, mail, now - timedelta(days=8))}"
    for answer in (visitor.client.get(old), visitor.client.post(old)):
        assert answer.status_code == 404
        assert "This link has expired" in answer.text
    assert visitor.count("signup_mail") == 1
    assert visitor.count("consent") == 0
    assert "Check your email" in visitor.client.post(old, data={"do": "again"}).text
    assert visitor.count("signup_mail") == 2


# Hostile input

HOSTILE_ADDRESSES = [
    "",
    "maria",
    "@example.com",
    "maria@",
    "maria@localhost",
    "maria@example",
    "a@b@example.com",
    "maria@example.com\r\nBcc: victim@example.com",
    "maria@example.com\nSubject: hello",
    "maria\r\n@example.com",
    "maria@example.com\x00",
    "\x00",
    "maria@example.com%0d%0aBcc: victim@example.com",
    "maria@example.com, victim@example.com",
    "maria@example.com;victim@example.com",
    "Maria <maria@example.com>",
    "<script>alert(1)</script>@example.com",
    '"maria"@example.com',
    '"a b"@example.com',
    '"\\"@example.com',
    "maria@[127.0.0.1]",
    "maria@[IPv6:::1]",
    "maria@127.0.0.1",
    "maria@ex\u0430mple.com",  # a Cyrillic letter among Latin ones
    "maria@\u03b5xample.com",
    "m\u0430ria@example.com",
    "maria\u200b@example.com",
    "maria@example.com\u202e",
    "maria@exam ple.com",
    "maria@-example.com",
    "maria@example..com",
    ".maria@example.com",
    "maria..a@example.com",
    "=HYPERLINK(1)@example.com\t1",
    "{{7*7}}@@example.com",
    f"{'m' * 65}@example.com",
    f"maria@{'e' * 64}.com",
    "m" * 300,
    "m" * 60_000,
]


@pytest.mark.parametrize("address", HOSTILE_ADDRESSES, ids=range(len(HOSTILE_ADDRESSES)))
def test_no_address_that_is_none_is_kept(visitor: Visitor, address: str) -> None:
    for path in ("/s/series-request", "/k"):
        answer = visitor.client.post(path, data={"email": address, "dw-agree": "yes", "dw-shown": visitor.shown()})
        assert answer.status_code == 422, path
        assert "email-error" in answer.text
        assert "<script>alert" not in answer.text
        assert "\x00" not in answer.text
    assert visitor.nothing_is_kept()


HOSTILE_NAMES = [
    "Maria\x00",
    "Maria\r\nBcc: victim@example.com",
    "<b>Maria</b>",
    "<img src=x onerror=alert(1)>",
    "win at https://spam.example",
    "www.spam.example",
    "maria@example.com",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "Maria\u202e",
    "M" * 101,
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_no_field_carries_markup_links_or_control_characters(visitor: Visitor, name: str) -> None:
    answer = visitor.post(first_name=name)
    assert answer.status_code == 422
    assert "first_name-error" in answer.text
    assert "<img" not in answer.text
    assert visitor.nothing_is_kept()


@pytest.mark.parametrize("name", ["Zoë", "O’Brien", "María José", "孫", "Ngọc-Anh", "=1+1", "Dr. D'Arcy, Jr."])
def test_names_people_have_are_kept(visitor: Visitor, name: str) -> None:
    assert visitor.post(first_name=name).status_code == 200
    with visitor.installation.database.transaction() as connection:
        assert connection.execute(text("SELECT fields ->> 'first_name' FROM signup")).scalar_one() == name


@pytest.mark.parametrize("path", ["/s/series-request", "/k"])
@pytest.mark.parametrize("field", ["email", "first_name", "dw-shown", "dw-agree", "anything"])
def test_a_megabyte_in_any_field_is_too_long(visitor: Visitor, path: str, field: str) -> None:
    fields = {"email": MARIA, "dw-agree": "yes", "dw-shown": visitor.shown(), field: "m" * 1_000_000}
    for answer in (visitor.client.post(path, data=fields), visitor.client.post(path, files={"x": b"x" * 1_000_000})):
        assert answer.status_code == 413
        assert "That is too long" in answer.text
    assert visitor.nothing_is_kept()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/x-www-form-urlencoded"),
        (b"\xff\xfe=\xff", "application/x-www-form-urlencoded"),
        (b"&".join(b"a=1" for _ in range(100)), "application/x-www-form-urlencoded"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x"),
        (b"no boundary", "multipart/form-data"),
        (b'{"email": "maria@example.com"}', "application/json"),
        (b"email=maria%40example.com%00&dw-agree=yes", "application/x-www-form-urlencoded"),
    ],
    ids=range(7),
)
def test_a_body_that_is_no_form_gets_the_form(visitor: Visitor, body: bytes, kind: str) -> None:
    answer = visitor.client.post("/s/series-request", content=body, headers={"content-type": kind})
    assert answer.status_code == 422
    assert "<form" in answer.text
    assert visitor.nothing_is_kept()


@pytest.mark.parametrize("path", ["/s/no-such-form", "/s/", "/s/..%2f", "/s/series-request/", "/s/%00", "/s/<b>"])
def test_a_form_there_is_not_is_a_page_that_helps(visitor: Visitor, path: str) -> None:
    for answer in (visitor.client.get(path), visitor.client.post(path, data={"email": MARIA})):
        assert answer.status_code == 404
        assert "<b>" not in answer.text
    assert visitor.nothing_is_kept()


# The ledger itself


def test_the_ledger_is_only_added_to_but_by_erasing(database: Database) -> None:
    with database.transaction() as connection:
        rows.subscriber(connection)
        consents.add(connection, 1, "health-guides", give=True, source="x", wording="Words.", at=rows.START)
        consents.add(connection, 1, "health-guides", give=False, source="x", wording="Words.", at=rows.START)
        assert connection.execute(text("SELECT count(*) FROM wording")).scalar_one() == 1
    for statement in ("UPDATE consent SET topic = 'x'", "DELETE FROM consent", "UPDATE wording SET words = 'x'"):
        with pytest.raises(DBAPIError, match="append-only"), database.transaction() as connection:
            connection.execute(text(statement))
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL dripwell.erasing = 'on'"))
        connection.execute(text("DELETE FROM consent"))
    with database.transaction() as connection:
        assert consents.ledger(connection, 1) == []
    with database.transaction() as connection:
        rows.subscriber(connection, "joe@example.com")
    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as connection:
        connection.execute(text("DELETE FROM consent"))


def test_rows_older_than_the_table_of_words_have_their_words_and_a_version(database: Database) -> None:
    with database.transaction() as connection:
        person = rows.subscriber(connection)  # writes as the first version of the record did
        (row,) = consents.ledger(connection, person)
    assert (row.wording, row.version) == ("Email me.", version_of("Email me."))


def test_a_request_that_nobody_was_shown_words_for_is_confirmed_in_those_of_the_form(
    visitor: Visitor, mailed: Mailed
) -> None:
    from dripwell.services import enroll

    with mailed.installation.database.transaction() as connection:
        person = enroll.ask_to_confirm(
            connection,
            address="new@example.com",
            form="series-request",
            pepper=mailed.installation.pepper,
            new_id=mailed.installation.new_id,
            times=clock.read(connection),
            actor="maria",
        )
    (link,) = visitor.links()
    visitor.client.post(link)
    with mailed.installation.database.transaction() as connection:
        (row,) = consents.ledger(connection, person)
    assert row.wording == mailed.installation.site.forms[0].consent
    assert row.source == "form series-request, asked by maria"
    assert (row.page, row.network) == ("https://mail.kcla.example/k", "unknown")


def _is_open(request: Signup | None) -> bool:
    return request is not None and request.confirmed_at is None


def test_only_requests_that_wait_are_mailed_again(database: Database) -> None:
    with database.transaction() as connection:
        person = rows.subscriber(connection)
        first = signups.add(connection, person, form="a", source="form a", asked=(), now=rows.START)
        signups.add(connection, person, form="b", source="form b", asked=(), now=rows.START)
        assert _is_open(signups.newest_open(connection, person, "a"))
        assert signups.confirm(connection, first, rows.START)
        assert not signups.confirm(connection, first, rows.START)
        assert signups.newest_open(connection, person, "a") is None
        newest = signups.newest_open(connection, person)
        assert newest is not None
        assert newest.form == "b"


def test_two_requests_at_once_are_one_request_and_one_email(house: House) -> None:
    ready = threading.Barrier(6)

    def at_once() -> None:
        ready.wait(timeout=10)
        ask(house)

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(at_once) for _ in range(6)]:
            future.result(timeout=60)
    house.send(Lane.CONFIRM)
    assert house.provider.addresses() == [MARIA]
    assert house.query("SELECT count(*) FROM signup") == [(1,)]


def test_a_press_while_another_one_is_under_way_gives_consent_once(house: House) -> None:
    ask(house)
    (mail,) = mails(house)
    ready = threading.Barrier(4)

    def at_once() -> None:
        ready.wait(timeout=10)
        press(house, mail)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(at_once) for _ in range(4)]:
            future.result(timeout=60)
    assert house.query("SELECT count(*) FROM consent") == [(1,)]


def test_counts_nobody_asks_about_any_more_go(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO form_count (at, key) SELECT wall() - interval '61 minutes', 'network ' || number"
                " FROM generate_series(1, 150) AS number"
            )
        )
        assert [signups.count(connection, "network a", 2) for _ in range(3)] == [True, True, False]
        kept = connection.execute(text("SELECT key, count(*) FROM form_count GROUP BY key")).all()
    assert [tuple(row) for row in kept] == [("network a", 2)]


# A link that is older than what its person said last


def test_an_old_link_lifts_no_later_unsubscribe_and_a_fresh_request_does(house: House) -> None:
    ask(house)
    (old,) = mails(house)
    ((person,),) = house.query("SELECT id FROM subscriber")
    assert isinstance(person, int)
    house.later(minutes=1)
    stop(house, person, "marketing", "unsubscribed")
    house.later(minutes=1)
    refused = press(house, old)
    assert refused is not None
    assert refused.request.state is confirm.State.OVERTAKEN
    assert house.query("SELECT count(*) FROM consent") == [(0,)]
    assert house.query("SELECT count(*) FROM suppression WHERE action = 'lift'") == [(0,)]
    with house.database.transaction() as connection:
        assert signup.mail_this_again(connection, enrollment_id=old, times=clock.read(connection))
    house.send(Lane.CONFIRM)
    fresh = press(house, mails(house)[-1])
    assert fresh is not None
    assert (fresh.request.state, len(fresh.lifted)) == (confirm.State.DONE, 1)
    assert house.query("SELECT count(*) FROM signup") == [(2,)]


def test_a_press_while_the_ledger_is_written_asks_to_press_again(visitor: Visitor) -> None:
    database = visitor.installation.database
    with database.transaction() as connection:
        person = rows.subscriber(connection, "new@example.com", pepper=visitor.installation.pepper)
        _leave_all(connection, person)
    visitor.post(email="new@example.com")
    (link,) = visitor.links()
    with database.transaction() as connection:
        _leave_all(connection, rows.subscriber(connection, "joe@example.com"))  # an import that goes on
        began = time.monotonic()
        busy = visitor.client.post(link)
        assert time.monotonic() - began < 10  # PostgreSQL itself would end the statement after 30 seconds
        assert busy.status_code == 503
        assert "again" in busy.text
        with database.transaction() as other:
            other.execute(text("SET LOCAL lock_timeout = '2s'"))
            _leave_all(other, rows.subscriber(other, "ann@example.com"))  # nobody else waits
    assert "Your address is confirmed" in visitor.client.post(link).text


def _leave_all(connection: Connection, person: int) -> None:
    leave.suppress(
        connection,
        subscriber_id=person,
        scope="marketing",
        reason="unsubscribed",
        source=leave.STAFF,
        evidence="test",
        times=clock.read(connection),
    )


def test_an_old_link_gives_no_topic_that_was_given_up_since(house: House) -> None:
    ask(house)
    (old,) = mails(house)
    house.later(minutes=1)
    with house.database.transaction() as connection:
        ((person,),) = connection.execute(text("SELECT id FROM subscriber")).all()
        topic = house.site.forms[0].topic
        consents.add(connection, person, topic, give=False, source="preferences", wording="", at=house.wall)
    press(house, old)
    with house.database.transaction() as connection:
        assert consents.given(connection, person) == []


def test_nobody_who_is_being_erased_can_confirm(house: House) -> None:
    ask(house)
    (mail,) = mails(house)
    house.query("INSERT INTO erasure (subscriber_id, actor) SELECT id, 'subscriber' FROM subscriber RETURNING id")
    assert press(house, mail) is None
    assert house.query("SELECT count(*) FROM consent") == [(0,)]


def test_a_link_that_was_used_says_what_holds_now(visitor: Visitor) -> None:
    visitor.post()
    (link,) = visitor.links()
    assert "Your address is confirmed" in visitor.client.post(link).text
    with visitor.installation.database.transaction() as connection:
        leave.suppress(
            connection,
            subscriber_id=1,
            scope="marketing",
            reason="unsubscribed",
            source=leave.PAGE,
            evidence="test",
            times=clock.read(connection),
        )
    for answer in (visitor.client.get(link), visitor.client.post(link)):
        assert "confirmed" not in answer.text
        assert 'href="/s/series-request"' in answer.text


def test_the_form_promises_nothing_of_its_own(visitor: Visitor) -> None:
    assert "free" not in visitor.client.get("/s/series-request").text


def test_a_network_is_counted_over_sixty_minutes_whenever_the_hour_turns(house: House) -> None:
    house.until(house.wall.replace(minute=59))
    with house.database.transaction() as connection:
        assert all(signup.is_within_limit(connection, "a") for _ in range(signup.PER_NETWORK))
    house.later(minutes=2)
    with house.database.transaction() as connection:
        assert not signup.is_within_limit(connection, "a")
    house.later(minutes=59)
    with house.database.transaction() as connection:
        assert signup.is_within_limit(connection, "a")


def test_above_the_ceiling_nothing_is_mailed_and_the_operator_is_told_once_an_hour(house: House) -> None:
    ask(house)
    with house.database.transaction() as connection:
        told = [signup.room(connection, ceiling=1) for _ in range(2)]
        assert signup.room(connection, ceiling=2).is_left
    assert [(room.is_left, room.is_news) for room in told] == [(False, True), (False, False)]
    house.later(minutes=61)
    with house.database.transaction() as connection:
        assert signup.room(connection, ceiling=1).is_left
