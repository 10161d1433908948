"""What the page of one's own data says: every row in words, nothing of it dropped without saying so."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from dripwell.web import plain
from tests.unit.test_journey import SITE

ZONE = ZoneInfo("America/Los_Angeles")
PERSON = {"address": "maria@example.com", "fields": {"first_name": "Maria"}, "state": "active", "pace": "weekly"}


def _told(**rows: object) -> dict[str, plain.Section]:
    found = {"format": 1, "subscriber": PERSON, **rows}
    return {section.title: section for section in plain.sections(found, SITE, ZONE)}


def test_the_address_is_masked_and_the_rest_is_told() -> None:
    (who,) = _told()["Who you are"].entries
    assert dict(who.facts) == {
        "Address": "m•••a@example.com",
        "First name": "Maria",
        "State": "active",
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
    assert email == plain.Entry("seven, 2-second: was not made", (("Because", "you unsubscribed"),))


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
