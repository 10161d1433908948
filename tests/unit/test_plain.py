"""What the page of one's own data says: every row in words, nothing of it dropped without saying so."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from dripwell.services import plain
from tests.unit.test_journey import SITE

ZONE = ZoneInfo("America/Los_Angeles")
TITLES = {("seven", ""): "Seven parts", ("seven", "2-second"): "Part two"}
PERSON = {"address": "maria@example.com", "fields": {"first_name": "Maria"}, "state": "active", "pace": "weekly"}


def _told(**rows: object) -> dict[str, plain.Section]:
    found = {"format": 1, "subscriber": PERSON, **rows}
    return {section.title: section for section in plain.sections(found, SITE, ZONE, TITLES)}


def test_the_address_is_masked_and_the_rest_is_told() -> None:
    (who,) = _told()["Who you are"].entries
    assert dict(who.facts) == {
        "Address": "m•••a@example.com",
        "First name": "Maria",
        "Status": "you get our emails",
        "How often": "at most one a week",
    }


def test_a_consent_shows_its_words_its_source_its_page_its_network_and_its_time() -> None:
    row = {
        "topic": "notes",
        "action": "give",
        "source": "form",
        "wording": "Email me.",
        "given_at": "2026-11-03T05:30:00+00:00",
        "page": "https://mail.kcla.example/s/notes",
        "network": "198.51.100.0/24",
        "confirmed_at": None,
    }
    (consent,) = _told(consents=[row])["What you agreed to"].entries
    assert consent.title == "Yes to “notes”"
    assert consent.facts == (
        ("How", "form"),
        ("In these words", "Email me."),
        ("When", "November 2, 2026, 9:30\N{NO-BREAK SPACE}PM"),
        ("On the page", "https://mail.kcla.example/s/notes"),
        ("From the network", "198.51.100.0/24"),
    )
    taken_back = _told(consents=[{**row, "action": "withdraw"}])["What you agreed to"].entries[0]
    assert taken_back.title == "No more “notes”"


def test_an_email_that_was_not_made_says_why() -> None:
    row = {"campaign": "seven", "email": "2-second", "state": "SUPPRESSED", "reason": "unsubscribed", "log": [{"x": 1}]}
    (email,) = _told(emails=[row])["Emails made for you"].entries
    assert email == plain.Entry("Seven parts, “Part two”: was not made", (("Because", "you unsubscribed"),))


def test_a_kind_of_row_that_this_page_does_not_know_is_shown_all_the_same() -> None:
    told = _told(new_kind=[{"some_thing": True, "many": ["a", "b"], "deep": {"x": 1}, "empty": ""}])
    assert told["New kind"].entries == (plain.Entry("", (("Some thing", "yes"), ("Many", "a, b"), ("Deep", "x: 1"))),)


def test_the_newest_come_first_and_what_is_left_out_is_counted() -> None:
    section = _told(clicks=[{"campaign": "c", "email": str(number), "link": 0} for number in range(60)])[
        "Links you followed"
    ]
    assert [entry.title for entry in section.entries[:2]] == ["c, 59", "c, 58"]
    assert len(section.entries) + section.more == 60


def test_words_that_only_look_like_a_time_stay_as_they_are() -> None:
    told = _told(notes=[{"about": "2026-13-45T99:99:99Z and more"}])
    assert told["Notes"].entries[0].facts == (("About", "2026-13-45T99:99:99Z and more"),)


def test_a_series_is_told_by_its_title_and_a_confirmation_is_none() -> None:
    row = {"campaign": "seven", "topic": "notes", "state": "waiting", "waits_for": "gap", "joined_at": None}
    told = _told(series=[{**row, "campaign": "confirm", "state": "exited"}, row, {**row, "campaign": "gone"}])
    assert told["Series you are or were in"].entries == (
        plain.Entry("gone: goes on", (("Waits for", "some time between two emails"),)),
        plain.Entry("Seven parts: goes on", (("Waits for", "some time between two emails"),)),
    )
    assert told["Series you are or were in"].more == 0


def test_what_a_series_waits_for_is_said_in_words_for_every_reason_there_is() -> None:
    for waits_for in ("paused", "wait", "window", "gap", "goal", "unreadable_version", "undecided"):
        row = {"campaign": "seven", "topic": "notes", "state": "waiting", "waits_for": waits_for}
        ((_, said),) = _told(series=[row])["Series you are or were in"].entries[0].facts
        assert " " in said, waits_for


def test_of_the_providers_events_those_that_say_something_are_told_in_words() -> None:
    events = [
        {"campaign": "seven", "email": "2-second", "kind": kind, "at": "2026-11-03T05:30:00+00:00"}
        for kind in ("processed", "deferred", "delivered")
    ]
    section = _told(provider_events=events)["What our email provider reported"]
    assert [entry.title for entry in section.entries] == [
        "Seven parts, “Part two”: arrived",
        "Seven parts, “Part two”: was delayed on its way",
    ]
    assert section.more == 0


def test_a_prospect_is_not_called_one_and_a_patient_is() -> None:
    for relationship, facts in (("prospect", {}), ("unknown", {}), ("patient", {"You are": "a patient of ours"})):
        found = {"subscriber": {"address": "maria@example.com", "relationship": relationship, "state": "active"}}
        ((who,),) = (section.entries for section in plain.sections(found, SITE, ZONE, {}))
        assert dict(who.facts) == {
            "Address": "m•••a@example.com",
            "Status": "you get our emails",
            **facts,
        }


def test_the_clinics_own_eyes_see_the_address_and_everything() -> None:
    clicks = [{"campaign": "c", "email": str(number), "link": 0} for number in range(60)]
    who, section = plain.sections({"subscriber": PERSON, "clicks": clicks}, SITE, ZONE, {}, whole=True, most=None)
    assert dict(who.entries[0].facts)["Address"] == "maria@example.com"
    assert (len(section.entries), section.more) == (60, 0)
