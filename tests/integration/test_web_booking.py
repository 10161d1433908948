"""Booking a call: three steps that book nothing, one POST that does, and nobody gets a time twice."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from html import unescape

import pytest
from icalendar import Calendar
from sqlalchemy import text
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation
from dripwell.core.tokens import Purpose
from dripwell.services import book
from dripwell.services.book import Answers, Booked, Diary, Gone
from dripwell.storage import bookings
from dripwell.storage.database import Database
from tests.integration import rows
from tests.integration.conftest import Mailed

NINE = "2026-11-02T17:00:00Z"  # Monday, 9 in the morning in Los Angeles
TEN_THIRTY = 29_894_070  # that day, 10:30: the minute since 1970
WORD = re.compile(r"/b/call/([A-Za-z0-9_-]+)")


@pytest.fixture
def monday(database: Database) -> Iterator[Database]:
    """The database, on a Monday morning that does not pass."""
    fixed = Database(database.dsn, session=f"-c dripwell.wall={NINE}")
    yield fixed
    fixed.close()


@pytest.fixture
def desk(clientele: Callable[..., TestClient], monday: Database) -> TestClient:
    return clientele(database=monday)


@pytest.fixture
def path(mailed: Mailed) -> str:
    return f"/b/{mailed.link(Purpose.BOOK)}"


def _answers(**changes: str) -> dict[str, str]:
    return {
        "step": "book",
        "t": str(TEN_THIRTY),
        "zone": "America/Los_Angeles",
        "phone": "(555) 010-0199",
        "ask_for": "Maria",
        "consent": "yes",
        **changes,
    }


def _hidden(page: str) -> dict[str, str]:
    """The fields of the form whose button books or continues."""
    forms = re.findall(r"<form.*?</form>", page, re.S)
    form = next(form for form in forms if 'class="btn"' in form)
    fields = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', form)
    return {name: unescape(value) for name, value in fields}


def _bookings(database: Database) -> list[tuple[int, str, int]]:
    with database.transaction() as connection:
        found = connection.execute(text("SELECT start_minute, state, revision FROM booking ORDER BY id"))
        return [tuple(row) for row in found]


def _steps(database: Database, campaign: str) -> list[tuple[str, str]]:
    with database.transaction() as connection:
        found = connection.execute(
            text(
                "SELECT m.step_key, m.state FROM message m JOIN campaign c ON c.id = m.campaign_id"
                " WHERE c.name = :name ORDER BY m.id"
            ),
            {"name": campaign},
        )
        return [tuple(row) for row in found]


def test_three_steps_lead_to_a_booked_call(desk: TestClient, mailed: Mailed, path: str, monday: Database) -> None:
    times = desk.get(path)
    assert "Monday, November 2" in times.text
    assert "Nothing is booked yet" in times.text
    assert "Times are Pacific time." in times.text
    offered = re.findall(r'name="t" value="(\d+)"', times.text)
    assert str(TEN_THIRTY - 30) in offered  # 10:00, an hour from now
    details = desk.post(path, data={**_hidden(times.text), "step": "time", "t": offered[1]})
    assert "Where should we call?" in details.text
    assert "Nothing is booked yet" in details.text
    filled = {**_hidden(details.text), "phone": " (555)  010-0199 ", "ask_for": "Maria", "consent": "yes"}
    check = desk.post(path, data={**filled, "step": "details", "voicemail": "no"})
    assert "Check, then book" in check.text
    assert "Don’t leave one" in check.text
    assert "The caller ID doesn’t show our name" in check.text
    assert _bookings(monday) == []
    booked = desk.post(path, data={**_hidden(check.text), "step": "book"})
    assert booked.status_code == 303
    page = desk.get(booked.headers["location"])
    assert "Your call is booked" in page.text
    assert "Caller ID" in page.text
    assert "(555) 010-0199" in page.text
    assert _bookings(monday) == [(int(offered[1]), "booked", 1)]
    assert _steps(monday, "booking") == [("booked", "PLANNED")]
    assert _steps(monday, "notice") == [("notice", "PLANNED")]


def test_booking_reaches_the_goal_and_rings_the_lane(
    desk: TestClient, mailed: Mailed, path: str, monday: Database
) -> None:
    heard: list[str | None] = []
    listening = threading.Event()

    def listen() -> None:
        for note in monday.listen("dripwell", timeout=0.2):
            heard.append(note)
            listening.set()
            if "booking" in heard or len(heard) > 60:
                return

    listener = threading.Thread(target=listen)
    listener.start()
    assert listening.wait(10)
    assert desk.post(path, data=_answers()).status_code == 303
    listener.join(20)
    assert "booking" in heard
    with monday.transaction() as connection:
        state = connection.execute(
            text("SELECT state, ended_reason FROM enrollment WHERE id = :id"), {"id": mailed.enrollment}
        ).one()
        events = connection.execute(text("SELECT event FROM happening")).scalars().all()
        origin = connection.execute(text("SELECT message_id, wording FROM booking")).one()
    assert tuple(state) == ("exited", "goal")
    assert events == ["consultation.booked"]
    assert tuple(origin) == (mailed.message, "Call me at this number for this consultation.")


def test_booking_twice_is_booking_once(desk: TestClient, path: str, monday: Database) -> None:
    first = desk.post(path, data=_answers())
    again = desk.post(path, data=_answers())
    assert first.headers["location"] == again.headers["location"]
    other = desk.post(path, data=_answers(t=str(TEN_THIRTY + 60)))
    assert "You have a call booked" in other.text
    assert "You have a call booked" in desk.get(path).text
    assert _bookings(monday) == [(TEN_THIRTY, "booked", 1)]
    assert _steps(monday, "booking") == [("booked", "PLANNED")]


def test_a_time_that_went_keeps_the_answers_and_offers_the_nearest_three(
    desk: TestClient, mailed: Mailed, path: str, monday: Database
) -> None:
    with monday.transaction() as connection:
        other = rows.subscriber(connection, "other@example.com", pepper=mailed.installation.pepper)
        bookings.add(
            connection,
            subscriber_id=other,
            message_id=None,
            start_minute=TEN_THIRTY,
            minutes=15,
            ask_for="x",
            phone="555 010 0100",
            voicemail=False,
            timezone="America/Los_Angeles",
            wording="",
            now=rows.START,
        )
    answer = desk.post(path, data=_answers(voicemail="yes"))
    assert answer.status_code == 409
    assert re.findall(r'name="t" value="(\d+)"', answer.text) == [
        str(TEN_THIRTY - 30),
        str(TEN_THIRTY - 15),
        str(TEN_THIRTY + 15),
    ]
    kept = _hidden(answer.text)
    assert (kept["phone"], kept["ask_for"], kept["voicemail"]) == ("(555) 010-0199", "Maria", "yes")
    check = desk.post(path, data={**kept, "step": "time", "t": str(TEN_THIRTY + 15)})
    assert "Check, then book" in check.text


def test_a_time_that_somebody_is_filling_the_form_for_is_not_offered(
    desk: TestClient, mailed: Mailed, path: str
) -> None:
    mailed.installation.fast.hold(f"1:{TEN_THIRTY}", "another", mailed.installation.site.consultation.hold.at_most())
    everything = desk.post(path, data={"step": "more", "show": "more"})
    assert f'value="{TEN_THIRTY}"' not in everything.text
    assert f'value="{TEN_THIRTY + 15}"' in everything.text
    assert desk.post(path, data={"step": "time", "t": str(TEN_THIRTY)}).status_code == 409


def test_choosing_a_time_holds_it(desk: TestClient, mailed: Mailed, path: str) -> None:
    desk.post(path, data={"step": "time", "t": str(TEN_THIRTY)})
    assert mailed.installation.fast.held([f"1:{TEN_THIRTY}"], "another") == {f"1:{TEN_THIRTY}"}
    assert "Check, then book" in desk.post(path, data=_answers(step="time")).text


@pytest.mark.parametrize(
    "changes",
    [
        {"t": ""},
        {"t": "abc"},
        {"t": "²"},
        {"t": str(TEN_THIRTY + 1)},
        {"t": str(TEN_THIRTY - 10_000)},
        {"t": str(TEN_THIRTY + 100_000)},
        {"t": "9" * 40},
        {"phone": "call me"},
        {"phone": "12"},
        {"phone": "5" * 40},
        {"ask_for": " \t "},
        {"consent": ""},
        {"consent": "no"},
    ],
    ids=repr,
)
def test_what_is_missing_or_wrong_books_nothing(
    desk: TestClient, path: str, monday: Database, changes: dict[str, str]
) -> None:
    answer = desk.post(path, data=_answers(**changes))
    assert answer.status_code in (409, 422)
    assert 'role="alert"' in answer.text
    assert _bookings(monday) == []


def test_a_time_zone_that_is_not_offered_falls_back(desk: TestClient, path: str) -> None:
    for zone in ("../../etc/passwd", "Mars/Olympus", "<b>", ""):
        assert "Times are Pacific time." in desk.post(path, data={"step": "zone", "zone": zone}).text
    eastern = desk.post(path, data={"step": "zone", "zone": "America/New_York"})
    assert "Times are Eastern time." in eastern.text


def test_two_people_and_one_time_make_one_booking(installation: Installation, mailed: Mailed, monday: Database) -> None:
    diary = Diary(installation.site, installation.versions, installation.pepper, installation.new_id)
    answers = Answers("(555) 010-0199", "Maria", False, "America/Los_Angeles", "yes")
    with monday.transaction() as connection:
        people = [
            rows.subscriber(connection, f"p{number}@example.com", pepper=installation.pepper) for number in range(6)
        ]
    results: list[Booked | Gone] = []
    gate = threading.Barrier(len(people))

    def run(person: int) -> None:
        gate.wait()
        results.append(
            monday.retrying(
                lambda connection: book.book(
                    connection, diary, subscriber_id=person, message_id=None, start=TEN_THIRTY, answers=answers
                )
            )
        )

    threads = [threading.Thread(target=run, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(result, Booked) for result in results) == 1
    gone = [result for result in results if isinstance(result, Gone)]
    assert len(gone) == 5
    assert all(len(result.nearest) == 3 for result in gone)
    assert _bookings(monday) == [(TEN_THIRTY, "booked", 1)]


def test_the_constraint_holds_even_for_those_who_ask_nobody(mailed: Mailed, monday: Database) -> None:
    def add(start: int) -> int | None:
        with monday.transaction() as connection:
            return bookings.add(
                connection,
                subscriber_id=mailed.subscriber,
                message_id=None,
                start_minute=start,
                minutes=15,
                ask_for="",
                phone="1",
                voicemail=False,
                timezone="UTC",
                wording="",
                now=rows.START,
            )

    assert add(TEN_THIRTY) is not None
    assert add(TEN_THIRTY + 14) is None
    assert add(TEN_THIRTY - 14) is None
    assert add(TEN_THIRTY + 15) is not None


@pytest.fixture
def call(desk: TestClient, path: str) -> str:
    """The page of a call that is booked for 10:30."""
    return str(desk.post(path, data=_answers()).headers["location"])


def test_a_call_can_be_moved_after_a_check(desk: TestClient, call: str, monday: Database) -> None:
    choose = desk.get(f"{call}/change")
    assert "It stands until you confirm" in choose.text
    later = TEN_THIRTY + 1440
    check = desk.post(f"{call}/change", data={"step": "time", "t": str(later), "zone": "America/Los_Angeles"})
    assert "Your call has not moved yet" in check.text
    assert _bookings(monday) == [(TEN_THIRTY, "booked", 1)]
    moved = desk.post(f"{call}/change", data={**_hidden(check.text), "step": "change"})
    assert moved.headers["location"] == call
    assert "Tuesday, November 3" in desk.get(call).text
    assert _bookings(monday) == [(later, "booked", 2)]
    assert _steps(monday, "booking") == [("booked", "SKIPPED"), ("changed", "PLANNED")]
    assert len(_steps(monday, "notice")) == 2
    assert desk.post(f"{call}/change", data={"step": "change", "t": str(later)}).status_code == 303
    assert _bookings(monday) == [(later, "booked", 2)]


def test_a_call_can_be_canceled_without_a_reason_and_its_time_is_free_again(
    desk: TestClient, call: str, path: str, monday: Database
) -> None:
    assert desk.get(f"{call}/cancel").text.count("<button") == 1
    assert _bookings(monday) == [(TEN_THIRTY, "booked", 1)]
    for _ in range(2):
        assert desk.post(f"{call}/cancel").headers["location"] == call
    assert _bookings(monday) == [(TEN_THIRTY, "canceled", 2)]
    assert _steps(monday, "booking") == [("booked", "SKIPPED"), ("canceled", "PLANNED")]
    assert "This call is canceled" in desk.get(call).text
    assert "This call is canceled" in desk.get(f"{call}/change").text
    assert "This call is canceled" in desk.post(f"{call}/change", data={"step": "change", "t": str(TEN_THIRTY)}).text
    assert desk.post(path, data=_answers()).status_code == 303


def test_change_and_cancel_end_when_the_call_starts(
    clientele: Callable[..., TestClient], call: str, database: Database
) -> None:
    late = Database(database.dsn, session="-c dripwell.wall=2026-11-02T18:30:00Z")
    client = clientele(database=late)
    assert "This call is over" in client.get(call).text
    assert "This call is over" in client.get(f"{call}/cancel").text
    client.post(f"{call}/cancel")
    client.post(f"{call}/change", data={"step": "change", "t": str(TEN_THIRTY + 1440)})
    assert _bookings(late) == [(TEN_THIRTY, "booked", 1)]
    late.close()


def test_the_calendar_entry_says_phone_call_and_no_more(desk: TestClient, call: str) -> None:
    answer = desk.get(f"{call}/calendar.ics")
    assert answer.headers["content-type"].startswith("text/calendar")
    (event,) = Calendar.from_ical(answer.content).walk("VEVENT")
    assert str(event["summary"]) == "Phone call"
    assert event["dtstart"].dt.timestamp() == TEN_THIRTY * 60
    assert (event["dtend"].dt - event["dtstart"].dt).total_seconds() == 900
    lower = answer.text.lower()
    assert not [
        word
        for word in ("ketamine", "kcla.", "clinic", "maria", "0199")
        if word in lower.replace("@mail.kcla.example", "")
    ]
    first_uid = str(event["uid"])
    desk.post(f"{call}/cancel")
    (after,) = Calendar.from_ical(desk.get(f"{call}/calendar.ics").content).walk("VEVENT")
    assert (str(after["uid"]), str(after["status"]), int(after["sequence"])) == (first_uid, "CANCELLED", 1)


def test_phone_and_name_stand_in_no_address(desk: TestClient, path: str) -> None:
    answer = desk.post(path, data=_answers())
    assert "0199" not in answer.headers["location"]
    assert WORD.fullmatch(answer.headers["location"])


def test_a_wish_reaches_the_front_desk_three_times_a_day_at_most(desk: TestClient, path: str, monday: Database) -> None:
    assert "Tell us when suits you" in desk.post(path, data={"step": "wish-form"}).text
    assert desk.post(path, data={"step": "wish", "phone": "no", "words": ""}).status_code == 422
    for number in range(5):
        answer = desk.post(path, data={"step": "wish", "phone": "555 010 0100", "words": f"Mondays {number}"})
        assert "Thank you" in answer.text
    with monday.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM call_wish")).scalar() == 3
    assert _steps(monday, "notice") == [("notice", "PLANNED")] * 3
    assert _bookings(monday) == []


def test_without_redis_a_call_is_booked_all_the_same(
    clientele: Callable[..., TestClient], path: str, monday: Database
) -> None:
    from dripwell.storage.fast import Fast

    gone = Fast("redis://127.0.0.1:1/0")
    client = clientele(database=monday, fast=gone)
    assert client.get(path).status_code == 200
    assert "Where should we call?" in client.post(path, data={"step": "time", "t": str(TEN_THIRTY)}).text
    assert client.post(path, data=_answers()).status_code == 303
    gone.close()
    assert _bookings(monday) == [(TEN_THIRTY, "booked", 1)]
