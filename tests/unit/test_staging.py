"""Variants: what the conditions of an email choose between, and that mailing them in one call changes no byte."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dripwell.content.render import MAX_SLOTS, Person, Rendered, fill, render_step, step_links, substitutions
from dripwell.content.samples import SAMPLES, WORDS
from dripwell.content.staging import (
    Staged,
    content_key,
    first_last_and_one_more,
    same_as_reference,
    stage_step,
)
from dripwell.core.errors import ContentError
from dripwell.services.versions import Published, Versions
from tests.unit.email_sources import PATH, PREHEADER, SUBJECT, campaign, person, site, small, sources

HOSTILE = [
    "*_<b>&\"'{{7*7}}",
    "{% if x %}{% endif %}{# #}",
    "</td></table><!--",
    "<mj-raw>&amp;</mj-raw>",
    "[x](https://evil.example)",
    "# Title\\",
    "- ::: call",
    "\\1 \\g<0> $& %s {0} {x}",
    "عبد الرحمن",
    "‮evil‬",
    "👩‍👩‍👧‍👦",
    "ﬁ İ ß ŉ",
    'O\'Brien "Bob" `x`',
    "<![endif]-->",
    "a" * 400,
]


def staged(markdown: str, subject: str = SUBJECT, preheader: str = PREHEADER) -> Staged:
    made, few = small(markdown, subject, preheader)
    return stage_step(made, site(), few, "small")


def in_a_call(one: Staged, somebody: Person) -> Rendered:
    return fill(one.skeleton(one.variant(somebody)), somebody)


def alone(one: Staged, somebody: Person) -> Rendered:
    return render_step(one.sources, one.site, one.campaign, one.key, somebody)


def outcome(work: Callable[[], Rendered]) -> Rendered | str:
    try:
        return work()
    except (ValueError, ContentError):
        return "rejected"


# -- any template, anybody ---------------------------------------------------------------------------------------------

NAMES = ("first_name", "last_name", "state", "email")
ASKED = st.one_of(
    st.sampled_from(NAMES),
    st.builds(
        "{} {} {}".format, st.sampled_from(NAMES), st.sampled_from(["==", "!="]), st.sampled_from(["'CA'", '""'])
    ),
    st.builds("{} {} ['CA', \"Maria\"]".format, st.sampled_from(NAMES), st.sampled_from(["in", "not in"])),
    st.builds("{} | length {} {}".format, st.sampled_from(NAMES), st.sampled_from("<>"), st.integers(0, 9)),
    st.builds("{} | lower == 'maria'".format, st.sampled_from(NAMES)),
    st.builds("{} is {}".format, st.sampled_from(NAMES), st.sampled_from(["string", "defined", "not none"])),
    st.builds("clinic.name and {}".format, st.sampled_from(NAMES)),
    st.builds("{} == clinic.name".format, st.sampled_from(NAMES)),
    st.just("first_name < 3"),  # has no answer: whoever is asked is rejected
)
CONDITION = st.recursive(
    ASKED,
    lambda inner: st.one_of(
        st.builds("not {}".format, inner),
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({})".format, inner, inner),
    ),
    max_leaves=3,
)
WORDS_ONLY = st.sampled_from(["Some words.", "A *star* and _more_", "Line of text, with & sign", "Cost: 5 < 6", "…"])
PRINTED = st.one_of(
    st.builds('{{{{ {} or "you" }}}}'.format, st.sampled_from(NAMES)),
    st.builds(
        '{{{{ ({} or "here & <now>") | {} }}}}'.format, st.sampled_from(NAMES), st.sampled_from(["upper", "title"])
    ),
    st.builds(
        '{{{{ {} | default("x", true) | {} }}}}'.format, st.sampled_from(NAMES), st.sampled_from(["trim", "lower"])
    ),
    st.builds("{{{{ ', ' ~ {0} if {0} else '' }}}}".format, st.sampled_from(NAMES)),
    st.builds("{{{{ 'near' if {} == 'CA' else {} or 'far' }}}}".format, st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.builds("{{{{ series.n ~ {} }}}}".format, st.sampled_from(NAMES)),
    st.sampled_from(["{{ clinic.name }}", "{{ series.n }}", "{# a note #}"]),
)


@st.composite
def templates(draw: st.DrawFn) -> tuple[str, str, str]:
    """Markdown, subject and preheader that share up to three conditions."""
    asked = draw(st.lists(CONDITION, min_size=1, max_size=3))

    def choice(part: Callable[[int], str], depth: int, gap: str = "") -> str:
        said = f"{{% if {draw(st.sampled_from(asked))} %}}{gap}{part(depth + 1)}{gap}"
        if draw(st.booleans()):
            said += f"{{% elif {draw(st.sampled_from(asked))} %}}{gap}{part(depth + 1)}{gap}"
        if draw(st.booleans()):
            said += f"{{% else %}}{gap}{part(depth + 1)}{gap}"
        return said + "{% endif %}"

    def plain(depth: int = 0) -> str:
        kinds = ["words", "printed", "two"] + ["choice"] * 2 * (depth < 3)
        match draw(st.sampled_from(kinds)):
            case "words":
                return draw(WORDS_ONLY)
            case "printed":
                return draw(PRINTED)
            case "two" if depth < 3:
                return f"{plain(depth + 1)} {plain(depth + 1)}"
            case "choice":
                return choice(plain, depth)
            case _:
                return "words"

    def line(depth: int = 0) -> str:
        match draw(st.sampled_from(["plain", "strong", "link", "chosen link", "choice"])) if depth < 3 else "":
            case "strong":
                return f"**{plain(depth + 1)}** and *{draw(PRINTED)}*"
            case "link":
                return f"[{plain(depth + 1)}]({draw(st.sampled_from(['https://kcla.example/a', '{{ booking_url }}']))})"
            case "chosen link":
                asks = draw(st.sampled_from(asked))
                return f"[words]({{% if {asks} %}}https://kcla.example/b{{% else %}}{{{{ booking_url }}}}{{% endif %}})"
            case "choice":
                return choice(line, depth)
            case _:
                return plain(depth)

    def section(depth: int = 0) -> str:
        kinds = ["line", "heading", "list", "key", "call", "facts", "loop"] + ["choice"] * 3 * (depth < 2)
        match draw(st.sampled_from(kinds)):
            case "heading":
                return f"## {line(1)} heading"
            case "list":
                return f"- {line(1)}\n- {line(1)}"
            case "key":
                return f"::: key In short, {draw(PRINTED)}\n{line(1)}\n:::"
            case "call":
                return f"::: call Talk? {plain(2)}\n{line(1)}\nbutton: Go, {plain(2)} -> {{{{ booking_url }}}}\n:::"
            case "facts":
                return f"::: facts\nWho: {draw(PRINTED)}\nWhere: {plain(2)}\n:::"
            case "loop":
                return (
                    "{% for day in ['Monday', 'Friday'] %}\n\n{{ day }} {{ loop.index }} " + line(2) + "\n{% endfor %}"
                )
            case "choice":
                return choice(section, depth, "\n\n")
            case _:
                return line()

    body = "\n\n".join(section() for _ in range(draw(st.integers(1, 4))))
    body = "{% set where = clinic.short_name %}\n\n" + body + "\n\nAt {{ where }}." if draw(st.booleans()) else body
    return f"# Title {draw(PRINTED)}\n\n{body}\n", f"Subject {plain()}", f"Preheader {plain()}"


def people() -> st.SearchStrategy[Person]:
    ordinary = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)
    value = st.one_of(
        st.sampled_from(["", "Maria", "maria", "CA", "NV", "  "]), st.sampled_from(HOSTILE), ordinary,
        st.text("*_<>&\"'{}[]()#`|~:-\\% ", max_size=30),
    )  # fmt: skip
    fields = st.dictionaries(st.sampled_from(NAMES), value)
    return fields.map(lambda found: Person(found, WORDS, {}, "October 22, 2026"))


@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(templates(), st.lists(people(), min_size=3, max_size=3))
def test_any_email_is_the_same_in_a_call_and_alone_byte_for_byte(
    template: tuple[str, str, str], everybody: list[Person]
) -> None:
    made, few = small(*template)
    try:
        one = stage_step(made, site(), few, "small")
    except ContentError:
        event("refused")
        for somebody in everybody:
            with pytest.raises((ContentError, ValueError)):
                render_step(made, site(), few, "small", somebody)
        return
    event(f"{len(one.variants)} variants" if one.why_not is None else "per person")
    if one.why_not is not None:
        assert "personal values" in one.why_not.text
        return
    assert len(one.tests) <= 3
    for somebody in everybody:
        expected = outcome(lambda: alone(one, somebody))  # noqa: B023
        assert outcome(lambda: in_a_call(one, somebody)) == expected  # noqa: B023
        if isinstance(expected, str):
            event("rejected")
        else:
            assert one.variant(somebody) in one.variants


# -- tests and variants ------------------------------------------------------------------------------------------------


def test_equal_conditions_share_a_bit_however_they_are_spelled() -> None:
    one = staged(
        "# T\n\n{% if state=='CA' %}a{% endif %} {% if not state == \"CA\" %}b{% endif %} "
        "{% if first_name %}c{% endif %}\n",
        "{% if state  ==  'CA' %}Near{% else %}Far{% endif %} you",
    )
    assert one.tests == ('state == "CA"', "first_name")
    assert (one.variant(person("", state="CA")), one.variant(person("Maria", state="NV"))) == (1, 2)
    assert "Near you" in in_a_call(one, person("", state="CA")).subject
    assert sorted(one.variants) == [0, 1, 2, 3]


def test_an_answer_nobody_asks_for_makes_no_variant() -> None:
    one = staged("# T\n\n{% if state == 'CA' %}a{% elif state == 'NV' %}b{% else %}c{% endif %}\n")
    assert len(one.tests) == 2
    assert sorted(one.variants) == [0, 1, 2]
    one = staged(
        "# T\n\n{% if first_name %}{% if state %}a{% endif %}{% endif %}x"
        "{% if '' %}{% if email %}b{% endif %}{% endif %}\n"
    )
    assert sorted(one.variants) == [0, 1, 3]
    assert one.variant(person("", state="CA", email="a@b.example")) == 0


def test_a_variant_is_compiled_when_it_is_met_and_once() -> None:
    one = staged("# T\n\n{% if first_name %}Hi {{ first_name }}{% else %}Hello{% endif %}.\n")
    assert one.variants == (1, 0)
    assert one.skeleton(0) is one.skeleton(0)
    assert one.skeleton(1) is not one.skeleton(0)
    assert "Hello." in one.skeleton(0).text
    assert [slot.expression for slot in one.skeleton(1).slots].count("first_name") == 2
    assert "first_name" not in [slot.expression for slot in one.skeleton(0).slots]


def test_a_condition_without_an_answer_rejects_those_who_are_asked_and_nobody_else() -> None:
    one = staged("# T\n\n{% if state %}{% if first_name < 3 %}a{% endif %}{% endif %}Words.\n")
    with pytest.raises(ValueError, match="has no answer"):
        one.variant(person("Maria", state="CA"))
    with pytest.raises(ContentError, match="cannot be filled"):
        alone(one, person("Maria", state="CA"))
    assert in_a_call(one, person("Maria")) == alone(one, person("Maria"))


def test_a_fact_of_a_page_is_refused_where_it_is_mentioned_and_only_there() -> None:
    one = staged("# T\n\n{% if state %}a{% endif %}b\n")
    with pytest.raises(ValueError, match="longer than 4,000"):
        one.variant(person(state="x" * 4001))
    assert in_a_call(one, person("x" * 4001, state="x" * 4000)) == alone(one, person("x" * 4001, state="x" * 4000))


def test_conditions_stand_in_every_part_and_around_blocks() -> None:
    one = staged(
        "# T\n\n{% if state == 'CA' %}\n::: key Near\nThree minutes.\n:::\n"
        "{% else %}\n## Far\n\nFar away.\n{% endif %}\n",
        "{% if first_name %}{{ first_name }}, a word{% else %}A word{% endif %}",
        "{% if last_name %}Dear {{ last_name }}{% endif %}, some quiet words about what comes.",
    )
    assert one.tests == ("first_name", "last_name", 'state == "CA"')
    assert len(one.variants) == 8
    for first_name in ("", "<b>"):
        for last_name in ("", "O'Neil"):
            for state in ("", "CA"):
                somebody = person(first_name, last_name=last_name, state=state)
                assert in_a_call(one, somebody) == alone(one, somebody)


def test_a_condition_chooses_where_a_link_leads() -> None:
    target = (
        "{% if state == 'CA' %}https://kcla.example/{% if email %}x{% endif %}{% else %}{{ booking_url }}{% endif %}"
    )
    one = staged(f"# T\n\n[go]({target}) [more](https://kcla.example/z)\n")
    links = step_links(one.sources, one.site, one.campaign, "small")
    assert set(links) == {"https://kcla.example/", "https://kcla.example/x", "https://kcla.example/z", "book"}
    for somebody, leads in (
        (person(state="CA"), "https://kcla.example/"),
        (person(state="CA", email="a@b.example"), "https://kcla.example/x"),
        (person(state="NV"), "book"),
    ):
        mailed = in_a_call(one, somebody)
        assert mailed == alone(one, somebody)
        assert f"/c/{WORDS['click']}-{links.index(leads)}" in mailed.text
        assert one.skeleton(one.variant(somebody)).links == links
    direct = stage_step(one.sources, replace(site(), track_clicks=False), one.campaign, "small")
    assert 'href="https://kcla.example/x"' in in_a_call(direct, person(state="CA", email="a@b.example")).html


def test_many_conditions_may_choose_addresses_when_each_person_is_rendered_apart() -> None:
    letters = ("a", "b", "c", "d")
    links = "\n\n".join(
        f"[{one}](https://kcla.example/{{% if state == '{one}' %}}{one}{{% else %}}not-{one}{{% endif %}})"
        for one in letters
    )
    one = staged(f"# T\n\n{links}\n")
    assert one.why_not is not None
    assert set(step_links(one.sources, one.site, one.campaign, "small")) == {
        f"https://kcla.example/{no}{letter}" for letter in letters for no in ("", "not-")
    }
    assert alone(one, person(state="b")).html.count("/c/") == 4


# -- what is rendered for each person ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("Words.\n\n{% for one in [first_name or 'a', 'b'] %}{{ one }} {% endfor %}", 5, "a loop over `first_name`"),
        ("{% for one in ['a'] if state == one %}{{ one }} {% endfor %}", 3, "a loop over"),
        ("A\n\nB\n\n{% set who = first_name or 'you' %}Hi {{ who }}", 7, "`who` is set to a personal value"),
        ("{% if state %}{% set who = 'you' %}{% endif %}Hi", 3, "`who` is set inside a condition on the person"),
        (
            "{% set hi = 'Hi' %}\n{{ hi ~ (first_name or 'you') }}",
            4,
            "`hi`, which is set in the text, beside a personal value",
        ),
        ("{% for a in ['CA'] %}{% if state == a %}x{% endif %}{% endfor %}", 3, "`a`, which is set in the text"),
        ("{% for a in ['CA'] %}{{ loop.index ~ first_name }}{% endfor %}", 3, "`loop`, which is set"),
        ("\n".join(f"{{% if state == '{n}' %}}x{{% endif %}}" for n in range(4)), 6, "the fourth condition"),
        (" ".join(f"{{{{ first_name or '{n}' }}}}" for n in range(30)), 0, "personal values to fill in (20 at most)"),
    ],
)
def test_what_cannot_be_staged_says_where_and_why(body: str, line: int, says: str) -> None:
    one = staged(f"# T\n\n{body}\n")
    assert one.why_not is not None
    assert says in one.why_not.text
    assert one.why_not.line == line
    assert str(one.why_not).startswith(f"line {line}: " if line else "")
    assert (one.tests, one.variants, one.variant(person())) == ((), (), 0)
    with pytest.raises(ContentError, match="rendered for each person"):
        one.skeleton(0)
    for somebody in SAMPLES.values():
        assert alone(one, somebody).text.startswith(site().clinic.short_name)


def test_a_reason_in_the_subject_names_it() -> None:
    one = staged("# T\n\nWords.\n", "{% set who = first_name or 'you' %}For {{ who }}")
    assert str(one.why_not) == "subject: `who` is set to a personal value"


def test_slots_are_counted_by_variant() -> None:
    half = " ".join(f"{{{{ first_name or '{n}' }}}}" for n in range(6))
    other = " ".join(f"{{{{ last_name or '{n}' }}}}" for n in range(6))
    one = staged(f"# T\n\n{{% if state %}}{half}{{% else %}}{other}{{% endif %}}\n")
    assert one.why_not is None
    assert max(len(one.skeleton(variant).slots) for variant in one.variants) <= MAX_SLOTS
    assert staged(f"# T\n\n{half} {other}\n").why_not is not None


def test_a_variant_that_cannot_be_read_stops_nobody_else_and_an_email_that_cannot_is_refused() -> None:
    one = staged("# T\n\nWords.\n{% if state == 'CA' %}\n::: key\n- a\n{% endif %}\n")
    assert "Words." in in_a_call(one, person(state="NV")).text
    for get in (in_a_call, alone):
        with pytest.raises(ContentError, match="never closed"):
            get(one, person(state="CA"))
    with pytest.raises(ContentError, match="never closed"):
        staged("# T\n\n{% if state == 'CA' %}a{% endif %}\n\n::: key\n- a\n")
    many = " ".join(f"{{{{ first_name or '{n}' }}}}" for n in range(6))
    one = staged(f"# T\n\n{many}\n{{% if state == 'CA' %}}\n::: key\n- a\n{{% endif %}}\n")
    assert in_a_call(one, person(state="NV")) == alone(one, person(state="NV"))
    with pytest.raises(ContentError, match="cannot be worked out"):
        staged("# T\n\n{% set a = clinic.name < 3 %}{% if state == 'CA' %}a{% endif %}\n")


# -- before a call -----------------------------------------------------------------------------------------------------


def test_what_differs_from_the_reference_is_found() -> None:
    one = staged("# T\n\n{% if state %}Hi {{ first_name or 'you' }}{% else %}Hello{% endif %}.\n")
    maria = person("Maria", state="CA")
    values = substitutions(one.skeleton(1), maria)
    assert same_as_reference(one, 1, values, maria)
    assert not same_as_reference(one, 0, substitutions(one.skeleton(0), maria), maria)  # the wrong variant
    assert not same_as_reference(one, 1, values, person("Ana", state="CA"))  # somebody else's values
    for word in values:
        assert not same_as_reference(one, 1, {**values, word: "<b>"}, maria)
        assert not same_as_reference(one, 1, {**values, word: word}, maria)
        assert not same_as_reference(one, 1, {other: value for other, value in values.items() if other != word}, maria)
    assert not same_as_reference(one, 1, values, person("a\nb", state="CA"))


def test_three_rows_of_a_batch_are_compared() -> None:
    assert first_last_and_one_more([]) == ()
    assert first_last_and_one_more([1]) == (1,)
    assert first_last_and_one_more([1, 2]) == (1, 2)
    assert first_last_and_one_more(range(1000)) == (0, 500, 999)


# -- kept --------------------------------------------------------------------------------------------------------------


def published(markdown: str, version_id: int = 1) -> Published:
    made, few = small(markdown)
    return Published(version_id, 1, UUID(int=1), version_id, site(), few, made)


def test_versions_with_the_same_words_share_what_was_compiled() -> None:
    versions = Versions()
    first = published("# T\n\n{% if state %}a{% endif %}\n")
    second = replace(first, version_id=2, sources={**first.sources, PATH.replace("small", "other"): "# New\n\nNew.\n"})
    assert versions.staged(first, "small") is versions.staged(second, "small")
    assert versions.staged(first, "other") is not versions.staged(second, "other")
    third = published("# T\n\n{% if state %}b{% endif %}\n", 3)
    assert versions.staged(third, "small") is not versions.staged(first, "small")
    fourth = replace(first, version_id=4, site=replace(site(), base_url="https://other.example"))
    assert content_key(first.sources, first.site, first.campaign, "small") != content_key(
        fourth.sources, fourth.site, fourth.campaign, "small"
    )


def test_threads_that_meet_an_email_at_once_get_the_same_one() -> None:
    versions = Versions()
    one = published("# T\n\n{% if state %}Near{% else %}Far{% endif %}\n")
    found: list[Staged] = []
    threads = [threading.Thread(target=lambda: found.append(versions.staged(one, "small"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({id(each) for each in found}) == 1


def test_the_seven_emails_go_out_in_one_variant() -> None:
    for email in campaign().emails:
        one = stage_step(sources(), site(), campaign(), email.key)
        assert (one.tests, one.why_not, one.variants) == ((), None, (0,))
