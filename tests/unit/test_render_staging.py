"""A staged email, filled, equals the email rendered for one person; and no value ever reaches a parser."""

from __future__ import annotations

import html
import re
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dripwell.content.email_source import SERVICE
from dripwell.content.render import (
    MAX_SLOTS,
    SERVICE_EXTRAS,
    Person,
    fill,
    render_step,
    service_campaign,
    step_links,
    substitutions,
)
from dripwell.content.samples import EXTRA, SAMPLES, WORDS
from dripwell.core.errors import ContentError, NotFoundError
from tests.unit.email_sources import campaign, compiled, person, site, small, sources

HOSTILE = [
    "*_<b>&\"'{{7*7}}",
    "</td></table><!--",
    "[x](https://evil.example)",
    "# Title",
    "- item",
    "::: call",
    "{% if x %}",
    "\\\\1 \\g<0> $& %s {0}",
    "&amp;",
    "<mj-raw>",
    "عبد الرحمن",
    "‮evil",
    "👩‍👩‍👧‍👦" * 8,
    "Wolfeschlegelsteinhausenbergerdorff" * 4,
    "--\x20",
    "<![endif]-->",
]

MERGE = """# Hello {{ first_name or "you" }}

Hi {{ first_name or "you" }}, from {{ state or "somewhere" }}. {{ clinic.name }} * {{ clinic_phone }}

- **{{ first_name | upper or "YOU" }}**, part {{ series.n }} of {{ series.of }}

::: call Talk, {{ first_name or "you" }}?
About 15 minutes{{ ", " ~ first_name if first_name else "" }}.
button: Choose a time, {{ first_name or "you" }} -> {{ booking_url }}
:::
"""


def values() -> st.SearchStrategy[str]:
    ordinary = st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]),
        max_size=60,
    )
    return st.one_of(ordinary, st.sampled_from(HOSTILE), st.text("*_<>&\"'{}[]()#`|~:-\\ ", max_size=30))


@pytest.mark.parametrize("key", [email.key for email in campaign().emails])
def test_each_of_the_seven_emails_is_the_same_staged_and_rendered_apart(key: str) -> None:
    skeleton = compiled(sources(), site(), campaign(), key)
    assert skeleton is not None
    for sample in SAMPLES.values():
        assert fill(skeleton, sample) == render_step(sources(), site(), campaign(), key, sample)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values(), values())
def test_staged_and_rendered_apart_are_equal_byte_for_byte(first_name: str, state: str) -> None:
    made, few = small(MERGE, 'A word for {{ first_name or "you" }}', 'Something quiet for {{ state or "somewhere" }}')
    skeleton = compiled(made, site(), few, "small")
    assert skeleton is not None
    somebody = person(first_name, state=state)
    assert fill(skeleton, somebody) == render_step(made, site(), few, "small", somebody)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_stands_in_the_email_as_its_letters_and_nothing_else(name: str) -> None:
    skeleton = compiled(sources(), site(), campaign(), "1-adaptability")
    assert skeleton is not None
    plain, hostile = fill(skeleton, person("Maria")), fill(skeleton, person(name))
    assert hostile.html == plain.html.replace("Maria", html.escape(name.strip()))
    assert hostile.text == plain.text.replace("Maria", name.strip())


def test_nothing_of_the_machinery_is_left_in_a_filled_email() -> None:
    for key in (email.key for email in campaign().emails):
        skeleton = compiled(sources(), site(), campaign(), key)
        assert skeleton is not None
        filled = fill(skeleton, person())
        for part in (filled.subject, filled.html, filled.text):
            assert "{{" not in part
            assert "{%" not in part
            assert "[^" not in part
            assert ":::" not in part
            assert not any(slot.word in part for slot in skeleton.slots)
            assert skeleton.slots[0].word[:9] not in part


def test_every_slot_is_in_the_skeleton_and_has_the_width_the_text_part_counts() -> None:
    skeleton = compiled(sources(), site(), campaign(), "1-adaptability")
    assert skeleton is not None
    assert 0 < len(skeleton.slots) <= MAX_SLOTS
    for slot in skeleton.slots:
        assert re.fullmatch(r"[A-Za-z0-9]{12}", slot.word)
        assert slot.word in skeleton.subject + skeleton.html + skeleton.text
    assert {slot.kind for slot in skeleton.slots} == {"text", "html", "url"}
    assert len({slot.word for slot in skeleton.slots}) == len(skeleton.slots)


def test_a_version_with_other_words_has_other_slot_words() -> None:
    one, few = small("# One\n\nHi {{ first_name or 'there' }}.\n")
    two, _ = small("# Two\n\nHi {{ first_name or 'there' }}.\n")
    first, second = compiled(one, site(), few, "small"), compiled(two, site(), few, "small")
    assert first is not None
    assert second is not None
    assert not {slot.word for slot in first.slots} & {slot.word for slot in second.slots}


@pytest.mark.parametrize("broken", ["a\nb", "a\rb", "a\0b", "a\x1bb", "a\x85b", "a\u2028b", "a\ud800b"])
def test_a_value_with_a_line_break_or_control_character_is_refused(broken: str) -> None:
    skeleton = compiled(sources(), site(), campaign(), "1-adaptability")
    assert skeleton is not None
    with pytest.raises(ValueError, match="line break or a control character"):
        substitutions(skeleton, person(broken))
    with pytest.raises(ValueError, match="line break or a control character"):
        render_step(sources(), site(), campaign(), "1-adaptability", person(broken))


def test_a_value_that_contains_one_of_the_words_is_refused() -> None:
    skeleton = compiled(sources(), site(), campaign(), "1-adaptability")
    assert skeleton is not None
    for slot in skeleton.slots:
        with pytest.raises(ValueError, match="one of our marks"):
            fill(skeleton, person(f"x{slot.word}x"))


def test_a_person_without_a_signed_word_is_refused() -> None:
    skeleton = compiled(sources(), site(), campaign(), "1-adaptability")
    assert skeleton is not None
    for purpose in ("click", "view", "unsubscribe", "preferences"):
        words = {name: word for name, word in WORDS.items() if name != purpose}
        with pytest.raises(ValueError, match=purpose):
            fill(skeleton, Person({}, words, {}, "October 22, 2026"))
        with pytest.raises(ValueError, match=purpose):
            fill(skeleton, Person({}, {**WORDS, purpose: "a/../b"}, {}, "October 22, 2026"))


def test_a_person_without_the_date_they_asked_on_is_refused() -> None:
    skeleton = compiled(sources(), site(), campaign(), "1-adaptability")
    assert skeleton is not None
    with pytest.raises(ValueError, match="reason_date"):
        fill(skeleton, Person({"first_name": "Maria"}, WORDS))


def test_values_beyond_eight_kilobytes_go_another_way() -> None:
    fields = "\n".join(f"{{{{ first_name ~ '{n}' or 'x' }}}}" for n in range(6))
    made, few = small(f"# Many\n\n{fields}\n")
    skeleton = compiled(made, site(), few, "small")
    assert skeleton is not None
    with pytest.raises(ValueError, match="bytes"):
        substitutions(skeleton, person("&" * 500))
    assert "&amp;" * 500 in render_step(made, site(), few, "small", person("&" * 500)).html


def test_a_name_of_spaces_counts_as_no_name() -> None:
    skeleton = compiled(sources(), site(), campaign(), "1-adaptability")
    assert skeleton is not None
    assert "Hi there," in fill(skeleton, person("   ")).text


@pytest.mark.parametrize(
    "markdown",
    [
        "# T\n\n{% if first_name %}Hi {{ first_name }}{% else %}Hello{% endif %}.\n",
        "# T\n\n{% if clinic.name and state == 'CA' %}Near you.{% endif %}\n",
        "# T\n\n{% set who = first_name or 'you' %}Hi {{ who }}.\n",
        "# T\n\n{% for one in [first_name or 'a', 'b'] %}{{ one }} {% endfor %}\n",
        "# T\n\n" + "".join(f"{{{{ first_name or '{n}' }}}} " for n in range(30)),
    ],
)
def test_what_asks_about_the_person_is_rendered_for_each_apart(markdown: str) -> None:
    made, few = small(markdown)
    assert compiled(made, site(), few, "small") is None
    for sample in SAMPLES.values():
        rendered = render_step(made, site(), few, "small", sample)
        assert "{" not in re.sub(r"\{\{7\*7\}\}|<style.*?</style>", "", rendered.html + rendered.text, flags=re.S)


def test_conditions_choose_words_and_hostile_values_stay_values() -> None:
    made, few = small(
        "# T\n\n{% if state == 'CA' %}\nNear, {{ first_name or 'you' }}.\n{% else %}\nFar.\n{% endif %}\n"
    )
    near = render_step(made, site(), few, "small", person("<b>*x*</b>", state="CA"))
    far = render_step(made, site(), few, "small", person("Maria", state="NV"))
    assert "Near, <b>*x*</b>." in near.text
    assert "Near, &lt;b&gt;*x*&lt;/b&gt;." in near.html
    assert "Far." in far.text
    assert "Near" not in far.text


def test_fixed_conditions_and_loops_are_staged() -> None:
    made, few = small(
        "# T\n\n{% if series.n == 1 %}First of {{ series.of }}.{% else %}Later.{% endif %}\n"
        "{% for one in ['a', 'b'] %}{{ loop.index }}{{ one }} {% endfor %}\n"
    )
    skeleton = compiled(made, site(), few, "small")
    assert skeleton is not None
    assert "First of 2. 1a 2b" in " ".join(fill(skeleton, person()).text.split())


def test_a_fixed_value_is_never_read_as_markdown_or_html() -> None:
    clinic = replace(site().clinic, name="A*B*C <i> & [x](y) {{ z }}", phone='555 "0" <142>')
    made, few = small(
        "# At {{ clinic.name }}\n\n**{{ clinic.name }}** {{ first_name or clinic.name }} {{ clinic_phone }}\n"
    )
    skeleton = compiled(made, replace(site(), clinic=clinic), few, "small")
    assert skeleton is not None
    filled = fill(skeleton, person(""))
    assert filled.text.count("A*B*C <i> & [x](y) {{ z }}") == 3
    assert filled.html.count("A*B*C &lt;i&gt; &amp; [x](y) {{ z }}") == 3
    assert filled == render_step(made, replace(site(), clinic=clinic), few, "small", person(""))


def test_links_have_the_same_numbers_in_every_branch() -> None:
    made, few = small(
        "# T\n\n{% if state == 'CA' %}[a](https://kcla.example/a){% else %}[b](https://kcla.example/b){% endif %}\n\n"
        "[c]({{ booking_url }}) and [again](https://kcla.example/a)\n"
    )
    links = step_links(made, site(), few, "small")
    assert links == ("https://kcla.example/a", "https://kcla.example/b", "book")
    click = f"{site().base_url}/c/{WORDS['click']}"
    far = render_step(made, site(), few, "small", person(state="NV"))
    assert {f"{click}-1", f"{click}-2", f"{click}-0"} == set(re.findall(rf"{re.escape(click)}-\d+", far.html))
    assert "kcla.example/a" not in far.html


def test_without_click_tracking_links_lead_straight_there() -> None:
    plain_site = replace(site(), track_clicks=False)
    made, few = small("# T\n\n[a](https://kcla.example/a?x=1&y=2) [b]({{ booking_url }})\n")
    skeleton = compiled(made, plain_site, few, "small")
    assert skeleton is not None
    assert skeleton.links == ()
    filled = fill(skeleton, person())
    assert 'href="https://kcla.example/a?x=1&amp;y=2"' in filled.html
    assert "https://kcla.example/a?x=1&y=2" in filled.text
    assert f"{site().base_url}/b/{WORDS['book']}" in filled.html
    assert "/c/" not in filled.html


def test_an_email_the_campaign_does_not_have_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="it has 1-adaptability"):
        compiled(sources(), site(), campaign(), "8-more")


def test_an_email_without_its_file_names_the_file() -> None:
    made = sources()
    del made["campaigns/seven-benefits/1-adaptability.md"]
    with pytest.raises(ContentError, match=r"1-adaptability\.md is missing"):
        compiled(made, site(), campaign(), "1-adaptability")


def test_compiling_and_filling_are_quick() -> None:
    compiled(sources(), site(), campaign(), "1-adaptability")
    start = time.perf_counter()
    for _ in range(5):
        skeleton = compiled(sources(), site(), campaign(), "1-adaptability")
    compiling = (time.perf_counter() - start) / 5
    assert skeleton is not None
    start = time.perf_counter()
    for _ in range(500):
        substitutions(skeleton, person())
    filling = (time.perf_counter() - start) / 500
    assert compiling < 0.2  # about 0.012 on an idle machine
    assert filling < 0.002  # about 0.00005


def test_service_emails_have_every_extra_they_need() -> None:
    for name, keys in SERVICE.items():
        built_in = service_campaign(sources(), name)
        assert built_in.kind == "service"
        assert tuple(email.key for email in built_in.emails) == keys
        for key in keys:
            skeleton = compiled(sources(), site(), built_in, key)
            assert skeleton is not None
            extra = {wanted: EXTRA[wanted] for wanted in SERVICE_EXTRAS[key]}
            somebody = Person({"first_name": "<i>"}, WORDS, extra)
            assert fill(skeleton, somebody) == render_step(sources(), site(), built_in, key, somebody)
            for wanted in SERVICE_EXTRAS[key]:
                if any(wanted in slot.expression for slot in skeleton.slots):
                    without = {other: value for other, value in extra.items() if other != wanted}
                    with pytest.raises(ValueError, match=wanted):
                        fill(skeleton, Person({}, WORDS, without))
