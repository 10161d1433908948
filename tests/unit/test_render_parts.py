"""What stands in an email: both parts, the frame around the words, and nothing that mail programs choke on."""

from __future__ import annotations

import email.message
import email.policy
import re
from collections import Counter
from dataclasses import replace

import pytest

from dripwell.content.blocks import BLOCKS
from dripwell.content.headers import common_headers, person_headers
from dripwell.content.page import read_page
from dripwell.content.render import Rendered, fill, service_campaign
from dripwell.content.samples import SAMPLES, WORDS
from dripwell.content.staging import stage_step
from dripwell.core.campaign import Branch
from dripwell.core.conditions import HasTag
from dripwell.core.errors import ContentError
from tests.unit.email_sources import ROOT, campaign, compiled, person, site, small, sources

KEYS = [one.key for one in campaign().emails]


def one(key: str, first_name: str = "Maria") -> Rendered:
    skeleton = compiled(sources(), site(), campaign(), key)
    assert skeleton is not None
    return fill(skeleton, person(first_name))


def service(name: str, key: str) -> Rendered:
    skeleton = compiled(sources(), site(), service_campaign(sources(), name), key)
    assert skeleton is not None
    return fill(skeleton, person())


def words(part: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", re.sub(r"https?://\S+", " ", part).lower()))


@pytest.mark.parametrize("key", KEYS)
def test_an_email_stays_well_under_what_gmail_cuts_off(key: str) -> None:
    assert len(one(key, "Wolfeschlegelsteinhausen" * 4).html.encode()) < 60_000


@pytest.mark.parametrize("key", KEYS)
def test_both_parts_have_the_same_words_and_links(key: str) -> None:
    skeleton = compiled(sources(), site(), campaign(), key)
    assert skeleton is not None
    for sample in SAMPLES.values():
        rendered = fill(skeleton, sample)
        page = read_page(rendered.html)
        assert words(page.words) == words(rendered.text)
        links = {anchor.href for anchor in page.anchors if anchor.href.startswith("http")}
        assert links == set(re.findall(r"https?://\S+", rendered.text))


@pytest.mark.parametrize("key", KEYS)
def test_every_email_has_its_frame_in_both_parts(key: str) -> None:
    rendered = one(key)
    page = read_page(rendered.html)
    clinic = site().clinic
    for said in (clinic.legal_name, clinic.postal_address, clinic.phone, "October 22, 2026", "988", "off-label"):
        assert said in page.words
        assert said in " ".join(rendered.text.split())
    base = site().base_url
    unsubscribe, preferences = f"{base}/u/{WORDS['unsubscribe']}", f"{base}/p/{WORDS['preferences']}"
    hrefs = [anchor.href for anchor in page.anchors]
    assert hrefs.count(unsubscribe) == 2  # near the top too, where a long email is not cut off
    for url in (
        f"{base}/v/{WORDS['view']}",
        preferences,
        f"{preferences}?show=pause",
        f"{preferences}?show=fewer",
        f"{preferences}?show=stop",
        f"{base}/privacy",
    ):
        assert url in hrefs
        assert f"\n{url}\n" in rendered.text


def test_part_and_reading_time_are_computed() -> None:
    for number, key in enumerate(KEYS, 1):
        said = re.search(r"Part (\d) of (\d) · (\d) minute read", one(key).text)
        assert said is not None
        assert (int(said[1]), int(said[2])) == (number, 7)
        assert 1 <= int(said[3]) <= 6


def test_an_email_of_a_series_with_branches_promises_no_number_of_parts() -> None:
    first, *others = campaign().emails
    arms = Branch("branch-tag", "Tag?", HasTag("tag"), tuple(others[:3]), tuple(others[3:]))
    skeleton = compiled(sources(), site(), replace(campaign(), steps=(first, arms)), first.key)
    assert skeleton is not None
    said = fill(skeleton, person()).text
    assert not re.search(r"Part \d|7-part", said)
    assert "October 22, 2026" in said
    assert "7-part" in one(first.key).text


def test_the_text_part_is_wrapped_and_each_link_has_a_line() -> None:
    for key in KEYS:
        for line in one(key).text.split("\n"):
            assert len(line) <= 76 or line.startswith("https://")
            if "https://" in line:
                assert line.strip().startswith("https://")
                assert " " not in line.strip()


def test_a_picture_stands_only_where_the_words_carry_it() -> None:
    for number, key in enumerate(KEYS, 1):
        page = read_page(one(key).html)
        assert [image["src"] for image in page.images] == [f"{site().base_url}/art/shore-{number}.jpg"]
        assert page.images[0]["alt"] == ""
        assert len(page.words.encode()) >= 3200
    made, few = small("# Short\n\nA few words.\n")
    skeleton = compiled(made, site(), few, "small")
    assert skeleton is not None
    assert not read_page(skeleton.html).images


def test_dark_rules_stand_in_style_tags_of_their_own() -> None:
    styles = re.findall(r"<style[^>]*>(.*?)</style>", one(KEYS[0]).html, re.S)
    dark = [style for style in styles if "prefers-color-scheme" in style]
    outlook = [style for style in styles if "data-ogsc" in style]
    assert len(dark) == len(outlook) == 1
    assert dark[0].strip().startswith("@media (prefers-color-scheme: dark)")
    assert "data-ogsc" not in dark[0]
    assert "prefers" not in outlook[0]
    assert sum(len(style) for style in styles) < 12_000


def test_nothing_is_fetched_from_elsewhere() -> None:
    for rendered in (*(one(key) for key in KEYS), service("booking", "booked"), service("confirm", "confirm")):
        assert "fonts.googleapis" not in rendered.html
        assert "@import" not in rendered.html
        assert "<link" not in rendered.html
        assert not read_page(rendered.html).forbidden
        fetched = re.findall(r'(?:src|background)="(https?://[^"]+)"', rendered.html)
        assert all(url.startswith(f"{site().base_url}/art/") for url in fetched)


def test_the_language_and_roles_are_said() -> None:
    rendered = one(KEYS[0])
    assert re.search(r'<html[^>]*lang="en-US"', rendered.html)
    assert rendered.html.count("<h1") == 1
    tables = re.findall(r"<table\b[^>]*>", re.sub(r"<!--.*?-->", "", rendered.html, flags=re.S))
    assert tables
    assert all('role="presentation"' in table for table in tables)


def test_service_emails_have_no_marketing_around_them() -> None:
    for name, key in (("confirm", "confirm"), ("booking", "booked"), ("booking", "changed"), ("booking", "canceled")):
        rendered = service(name, key)
        for part in (rendered.html, rendered.text):
            assert "Unsubscribe" not in part
            assert "/u/" not in part
            assert "/c/" not in part
            assert "Pause" not in part
            assert "Ketamine is" not in part
            assert "Part 1" not in part
        assert site().clinic.postal_address in " ".join(rendered.text.split())
        assert "988" in rendered.text


def test_a_booked_call_can_be_changed_canceled_and_put_in_a_calendar() -> None:
    rendered = service("booking", "booked")
    call = f"{site().base_url}/b/call/{WORDS['call']}"
    for url in (f"{call}/calendar.ics", f"{call}/change", f"{call}/cancel"):
        assert f'href="{url}"' in rendered.html
        assert url in rendered.text
    assert rendered.subject == "Your call is booked for Tuesday, November 3 at 2:30 PM"


def test_the_staff_notice_names_nobody() -> None:
    rendered = service("notice", "notice")
    assert rendered.subject == "A new request is waiting"
    for secret in ("Maria", "010-0199", "November", "Seven-part"):
        assert secret not in rendered.html + rendered.text
    assert "dripwell calls list" in rendered.text


def test_the_confirmation_leads_to_one_page() -> None:
    rendered = service("confirm", "confirm")
    links = set(re.findall(r"https?://\S+", rendered.text))
    assert links == {f"{site().base_url}/k/{WORDS['confirm']}", f"{site().base_url}/privacy"}


def test_every_block_has_its_words_in_both_parts() -> None:
    made, few = small(
        "# Title\n\nHi.\n\n::: key In short\n- Point one\n- Point two\n:::\n\n## A heading\n\n"
        "::: steps\n- **First.** Do this.\n- **Second.** Do that.\n:::\n\n"
        "::: risks What to weigh\nRisky words.\n:::\n\n"
        "::: facts\nWhen: Tuesday\nWhere: At home\n:::\n\n"
        "::: article Kicker, 2 minutes | Story\nStory words.\nlink: Read on -> https://kcla.example/story\n:::\n\n"
        "::: button\nbutton: Press -> {{ booking_url }}\nalso: Side door -> {{ preferences_url }}\n"
        "under: Small words.\n:::\n\n"
        "1. Numbered\n2. Entries\n\n> Quoted words\n\n---\n\n"
        "A [worded *link*](https://kcla.example/x) and a\\\nbreak.\n\n"
        "::: signature\nname: The team\nrole: The clinic\n:::\n\n::: next\n**Next:** more.\n:::\n"
    )
    skeleton = compiled(made, site(), few, "small")
    assert skeleton is not None
    rendered = fill(skeleton, person())
    page = read_page(rendered.html)
    assert words(page.words) == words(re.sub(r"^(\d)\. (?=Numbered|Entries)", "", rendered.text, flags=re.M))
    for said in (
        "Point two",
        "First.",
        "Risky words.",
        "At home",
        "Story words.",
        "Side door",
        "Quoted words",
        "Take care,",
    ):
        assert said in page.words
        assert said in rendered.text


def test_risks_are_set_like_the_body() -> None:
    rendered = one("5-minimal-side-effects")
    body = re.search(r'<div style="([^"]*)"><p[^>]*>Hi ', rendered.html)
    risks = re.search(r'<div style="([^"]*)"><p[^>]*>Ketamine is approved', rendered.html)
    assert body is not None
    assert risks is not None
    assert body[1] == risks[1]


def test_one_click_headers_survive_python_on_the_wire() -> None:
    headers = person_headers(site(), WORDS)
    message = email.message.EmailMessage(policy=email.policy.SMTP.clone(max_line_length=998))
    for name, value in (headers | common_headers(site(), campaign(), site().topic(campaign().topic))).items():
        message[name] = value
    message.set_content("x")
    wire = message.as_bytes().decode("ascii")
    assert f"List-Unsubscribe: <{site().base_url}/u/{WORDS['unsubscribe']}>\r\n" in wire
    assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in wire
    assert "List-ID: <seven-part-series.mail.kcla.example>\r\n" in wire


def test_a_host_too_long_for_the_header_is_refused() -> None:
    long = replace(site(), base_url="https://a-rather-long-host-name-for-mail.kcla.example")
    with pytest.raises(ContentError, match="75 at most"):
        person_headers(long, WORDS)


def test_a_person_without_an_unsubscribe_word_gets_no_header() -> None:
    with pytest.raises(ValueError, match="unsubscribe"):
        person_headers(site(), {})
    with pytest.raises(ValueError, match="unsubscribe"):
        person_headers(site(), {"unsubscribe": "x\r\nBcc: y"})


def test_service_emails_say_that_a_program_sent_them() -> None:
    booking = service_campaign(sources(), "booking")
    assert common_headers(site(), booking, None) == {"Auto-Submitted": "auto-generated"}
    assert "Auto-Submitted" not in common_headers(site(), campaign(), site().topic(campaign().topic))


def test_every_example_of_the_reference_page_can_be_mailed() -> None:
    page = (ROOT / "docs" / "reference" / "blocks.md").read_text(encoding="utf-8")
    examples = re.findall(r"```markdown\n(.*?)```", page, re.S)
    assert len(examples) == 2 + len(BLOCKS)
    assert {name for example in examples for name in re.findall(r"^::: (\w+)", example, re.M)} == set(BLOCKS)
    made, few = small("\n".join(examples))
    staged = stage_step(made, site(), few, "small")
    assert staged.tests == ('state == "CA"', "state")
    for state, says in (("CA", "Close to you"), ("Nevada", "From Nevada"), ("", "Hi Maria,")):
        somebody = person(state=state)
        text = fill(staged.skeleton(staged.variant(somebody)), somebody).text
        assert "Would it help to ask someone?" in text
        assert says in text
        assert [one for one in ("Close to you", "From Nevada") if one in text] == [says] * (says != "Hi Maria,")
