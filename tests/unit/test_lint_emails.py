"""Lint of whole campaigns: each rule fires where it should, at the right place, and stays quiet where it should."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date

import pytest

from dripwell.content.email_source import SERVICE
from dripwell.content.files import read_sources
from dripwell.content.lint import contrast, lint_documents, lint_emails
from dripwell.content.lint_catalog import CATALOG, explain
from dripwell.content.load import Claim, load
from dripwell.content.render import service_campaign
from dripwell.content.theme import BASE, BLOCKS, TOKENS
from dripwell.core.campaign import Form, Mailbox, Segment, Topic
from dripwell.core.conditions import All, FieldIs, HasTag, Not
from tests.unit.email_sources import (
    PATH,
    PREHEADER,
    ROOT,
    SUBJECT,
    YAML,
    campaign,
    claims,
    codes,
    lint,
    site,
    small,
    sources,
)

RISKS = "\n::: risks What to weigh\nThis use is **off-label**. Risks include misuse.[^fda-2023]\n:::\n"
CALL = (
    "\n::: call Talk?\nAbout 15 minutes. It is free. It is not a treatment, and you don’t have to decide anything.\n"
    "button: Book a free phone consultation -> {{ booking_url }}\n:::\n"
)
CLEAN = f"# A title\n\nHi {{{{ first_name or 'there' }}}},\n\nSome quiet words.\n{CALL}"


def test_the_seven_emails_have_no_problem() -> None:
    assert lint_emails(sources(), site(), campaign(), claims()) == ()


@pytest.mark.parametrize("name", sorted(SERVICE))
def test_the_system_emails_have_no_problem(name: str) -> None:
    assert lint_emails(sources(), site(), service_campaign(sources(), name), {}) == ()


def test_a_small_clean_email_has_no_problem() -> None:
    assert lint(CLEAN) == ()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("D202", "Hi {{ first_name }}."),
        ("D202", "Hi {{ nobody or 'x' }}."),
        ("D201", "::: kay\nx\n:::"),
        ("D302", "[x](https://kcla.example/depression-help)"),
        ("D302", "[x](https://kcla.example/a?topic=ptsd)"),
        ("D303", "Ketamine has been used since 1970."),
        ("D303", "People look for relief."),
        ("D305", "It is a cure."),
        ("D305", "There are no known long-term side effects."),
        ("D307", "About 80% of people agree."),
        ("D307", "Words.[^nobody]"),
        ("D308", "We offer a free phone consultation."),
        ("D309", "“I felt like myself again after years of trying.”"),
        ("D316", "Hurry, only 2 slots left."),
        ("D315", "::: button\nbutton: More -> https://kcla.example/more\n:::"),
        ("D409", "Words <b>bold</b>."),
        ("D409", "![x](https://kcla.example/x.png)"),
        ("D505", "[x](https://evil.example/a)"),
        ("D505", "[x](http://kcla.example/a)"),
        ("D505", "[x](https://bit.ly/a)"),
        ("D505", "[x](https://192.0.2.1/a)"),
        ("D505", "[x](https://notkcla.example/a)"),
        ("D505", "[kcla.example](https://www.kcla.example/a)"),
        ("D506", "No prescription is required to book."),
        ("D506", "We never sell medications online."),
        ("D507", "Some people take Xanax."),
        ("D410", "{% set who = first_name or 'you' %}Hi {{ who }}."),
    ],
)
def test_a_rule_fires_at_the_words_that_break_it(code: str, words: str) -> None:
    found = [problem for problem in lint(f"{CLEAN}\n{words}\n") if problem.path == PATH]
    assert code in codes(tuple(found))
    problem = next(one for one in found if one.code == code)
    lines = f"{CLEAN}\n{words}\n".split("\n")
    assert problem.line > CLEAN.count("\n")
    assert problem.column + problem.length - 1 <= len(lines[problem.line - 1])


@pytest.mark.parametrize(
    "words",
    [
        "Feel free to ask. Keep that day free.",
        "Nothing here is guaranteed, and nobody can promise a cure.",
        "When is it safe to drive?",
        "It has not been proven.",
        "[x](https://www.kcla.example/a) and [y](https://kcla.example) and [z](mailto:care@kcla.example)",
        "[Choose a time]({{ booking_url }})",
        "Results are not permanent.",
    ],
)
def test_honest_words_pass(words: str) -> None:
    assert lint(f"{CLEAN}\n{words}\n") == ()


def test_a_claim_with_a_source_passes_in_its_section() -> None:
    assert (
        lint(f"{CLEAN}{RISKS}\n## Figures\n\nOur clinic reports this.\n\nIt comes from 2021.[^clinic-article-5]\n")
        == ()
    )
    found = lint(
        f"{CLEAN}{RISKS}\n## Figures\n\nOur clinic reports this.\n\n## Source\n\nFrom 2021.[^clinic-article-5]\n"
    )
    assert codes(found) == ["D307"]


def test_a_claim_nobody_reviewed_is_no_source() -> None:
    made, few = small(f"{CLEAN}{RISKS}\n## Figures\n\nIt is 80%.[^x]\n")
    claim = Claim("x", "Something.", "A source", "", date(2026, 1, 1))
    found = [p for p in lint_emails(made, site(), few, {**claims(), "x": claim}) if p.path == PATH]
    assert [problem.code for problem in found] == ["D307", "D307"]
    assert "has no source or reviewer" in found[1].text


def test_a_banned_sentence_passes_when_the_register_answers_it() -> None:
    said = "There are no known long-term side effects."
    words = f"{CLEAN}{RISKS}\nSome pages say: {said}\n"
    assert codes(lint(words)) == ["D305"]
    made, few = small(f"{CLEAN}{RISKS}\n{said}\n")
    claim = Claim("answered", said, "The article, and why we do not repeat it", "A clinician", date(2026, 1, 1))
    assert [p for p in lint_emails(made, site(), few, {**claims(), "answered": claim}) if p.path == PATH] == []


@pytest.mark.parametrize(
    ("sentence", "fires"),
    [
        ("Ketamine is FDA-approved for this.", True),
        ("Ketamine is approved by the FDA.", True),
        ("Ketamine is approved by the FDA as an anesthetic.", False),
        ("The FDA has not approved it. Ketamine is not FDA-approved for depression.", False),
        ("Esketamine is FDA-approved for some depression.", False),
    ],
)
def test_approval_is_said_of_the_right_medicine(sentence: str, fires: bool) -> None:
    found = codes(lint(f"{CLEAN}{RISKS}\n{sentence}\n"))
    assert ("D306" in found) is fires


def test_a_subject_that_tells_too_much_is_pointed_at() -> None:
    found = lint(CLEAN, subject="Is ketamine right for your depression?")
    assert [(p.code, p.level, p.path, p.line) for p in found] == [("D301", "warning", YAML, 4)] * 2
    line = "    subject: Is ketamine right for your depression?"
    assert line[found[0].column - 1 :][: found[0].length] == "ketamine"
    assert line[found[1].column - 1 :][: found[1].length] == "depression"
    assert lint(CLEAN, subject="Is ketamine right for your depression?", discreet=False) == ()


def test_an_installation_adds_discreet_words() -> None:
    assert codes(lint(CLEAN, subject="News about dragons", discreet_words=("dragons",))) == ["D301"]


@pytest.mark.parametrize(
    ("code", "subject", "preheader"),
    [
        ("D312", "A subject that goes on and on and says far too much for any phone", PREHEADER),
        ("D312", "Hello you!", PREHEADER),
        ("D312", "READ THIS NOW", PREHEADER),
        ("D305", "This cures the blues", PREHEADER),
        ("D305", SUBJECT, "What it is, and why it is guaranteed to help you."),
        ("D306", "Ketamine is FDA-approved for the blues", PREHEADER),
        ("D313", SUBJECT, ""),
        ("D313", SUBJECT, "Too short."),
        ("D313", SUBJECT, "x " * 60),
        ("D313", SUBJECT, SUBJECT),
        ("D314", "Another one", PREHEADER),
        ("D316", "Last chance to read this", PREHEADER),
        ("D202", "Hi {{ first_name }}", PREHEADER),
        ("D202", "Hi {{ frist_name or 'you' }}", PREHEADER),
    ],
)
def test_subjects_and_preheaders_are_linted_in_the_campaign_file(code: str, subject: str, preheader: str) -> None:
    found = [problem for problem in lint(CLEAN, subject, preheader) if problem.code == code]
    assert found
    assert all(problem.path == YAML and problem.line in (4, 5, 8) for problem in found)


def test_a_subject_with_a_line_break_is_an_error() -> None:
    made, few = small(CLEAN)
    broken = replace(few, steps=(replace(few.emails[0], subject="A\nBcc: x"), few.emails[1]))
    assert "D514" in [problem.code for problem in lint_emails(made, site(), broken, claims())]


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("D302", {"sender": Mailbox("Ketamine news", "hello@mail.kcla.example")}),
        ("D302", {"topics": (Topic("depression-series", "Series", "Seven emails."),)}),
        ("D302", {"forms": (Form("depression-guide", "t", "I agree."),)}),
        ("D310", {"forms": (Form("f", "t", "I agree.", (("diagnosis", False),)),)}),
        ("D503", {"base_url": "http://mail.kcla.example"}),
        ("D503", {"base_url": "https://a-rather-long-host-name-for-email.kcla.example"}),
        ("D504", {"sender": Mailbox("KCLA", "noreply@mail.kcla.example")}),
        ("D504", {"reply_to": "no-reply@kcla.example"}),
        ("D504", {"service_sender": Mailbox("KCLA", "hello@mail.kcla.example")}),
        ("D514", {"sender": Mailbox("Clínica", "hello@mail.kcla.example")}),
    ],
)
def test_the_site_is_linted_too(code: str, changes: dict[str, object]) -> None:
    assert code in codes(lint(CLEAN, **changes))


def test_a_segment_built_on_a_condition_is_refused() -> None:
    when = All((HasTag("asked"), Not(FieldIs("state", ("CA",))), HasTag("has/depression")))
    made, few = small(CLEAN)
    found = lint_emails(made, replace(site(), segments=(Segment("s", "about", when),)), few, claims())
    assert [problem.code for problem in found] == ["D310"]


def test_a_loopback_address_may_be_without_encryption() -> None:
    assert lint(CLEAN, base_url="http://127.0.0.1:8000") == ()


def test_an_email_over_the_limits_is_reported() -> None:
    words = "Quiet words about nothing much. " * 20
    assert "D402" in codes(lint(CLEAN + f"\n{words}\n" * 70))
    assert "D401" in codes(lint(CLEAN + f"\n{words}\n" * 120))


def test_hard_words_are_told_their_grade() -> None:
    hard = "Notwithstanding considerable institutional heterogeneity, interdisciplinary collaboration facilitates " * 12
    assert "D311" in codes(lint(f"{CLEAN}\n{hard}.\n"))


def test_a_theme_that_leaves_something_out_is_caught() -> None:
    made = sources()
    base = made[BASE]

    def without(pattern: str) -> list[str]:
        changed = made | {BASE: re.sub(pattern, "", base, count=1, flags=re.S)}
        assert changed[BASE] != base
        return [p.code for p in lint_emails(changed, site(), campaign(), claims())]

    assert {"D501", "D403"} & set(without(r"\{% for line in identity %\}.*?\{% endfor %\}"))
    found = without(r"\{% for line in notes %\}.*?\{% endfor %\}")
    assert {"D303", "D304", "D403"} <= set(found)


def test_a_theme_with_tricks_is_caught() -> None:
    made = sources()
    cases = {
        "D404": '<mj-raw><img src="https://mail.kcla.example/art/x.jpg"></mj-raw>',
        "D408": '<mj-raw><div style="display:none">buy now</div></mj-raw>',
        "D409": '<mj-raw><form action="x"></form></mj-raw>',
        "D302": '<mj-raw><img src="https://mail.kcla.example/art/depression.jpg" alt=""></mj-raw>',
    }
    for code, raw in cases.items():
        changed = made | {BASE: made[BASE].replace("</mj-wrapper>", f"</mj-wrapper>{raw}")}
        assert code in {p.code for p in lint_emails(changed, site(), campaign(), claims())}, code


def test_white_words_on_white_are_hidden_words() -> None:
    made = sources()
    raw = '<mj-raw><div style="background-color:#ffffff;color:#FFFFFF">psst</div></mj-raw>'
    changed = made | {BASE: made[BASE].replace("</mj-wrapper>", f"</mj-wrapper>{raw}")}
    assert "D408" in {p.code for p in lint_emails(changed, site(), campaign(), claims())}


def test_a_small_button_is_told_its_height() -> None:
    made = sources()
    changed = made | {BASE: made[BASE].replace('inner-padding="15px 28px"', 'inner-padding="6px 28px"')}
    found = [p for p in lint_emails(changed, site(), campaign(), claims()) if p.code == "D406"]
    assert found
    assert "34 px" in found[0].text


def test_pale_colors_are_told_their_contrast() -> None:
    made = sources()
    changed = made | {TOKENS: made[TOKENS].replace('muted: "#55625E"', 'muted: "#AAB5B1"')}
    found = [p for p in lint_emails(changed, site(), campaign(), claims()) if p.code == "D405"]
    assert found
    assert found[0].path == TOKENS


def test_a_theme_that_cannot_be_read_is_a_problem_and_not_a_crash() -> None:
    made = sources()
    for path in (BASE, BLOCKS, TOKENS):
        for broken in ("{% if", "", "<mjml>"):
            found = lint_emails(made | {path: broken}, site(), campaign(), claims())
            assert any(problem.level == "error" for problem in found)


def test_a_missing_file_is_left_to_the_campaign_file() -> None:
    made = sources()
    del made["campaigns/seven-benefits/3-blocking-pain-signals.md"]
    assert lint_emails(made, site(), campaign(), claims()) == ()


def test_placeholders_refuse_a_live_start_only() -> None:
    found = lint_emails(sources(), site(), campaign(), claims(), live=True)
    assert found
    assert {problem.code for problem in found} == {"D513"}
    assert {problem.level for problem in found} == {"error"}
    said = " ".join(problem.text for problem in found)
    for fact in ("Placeholder Street", "(555) 010-0142", "kcla.example", "clinical-review@kcla.example", "fda-2023"):
        assert fact in said


def test_problems_stand_in_file_order_and_lie_inside_their_files() -> None:
    made, few = small("# T\n\nHurry. It is a cure. {{ first_name }}\n\n[x](https://evil.example)\n", subject="Pain!")
    found = lint_emails(made, site(), few, claims())
    assert [p.path for p in found] == sorted((p.path for p in found), key=[YAML, PATH].index)
    for problem in found:
        lines = made[problem.path].split("\n")
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= max(len(lines[problem.line - 1]), 1)


def test_every_code_is_explained() -> None:
    for code, text in CATALOG.items():
        assert re.fullmatch(r"D[1-5]\d\d", code)
        assert len(text) > 60
        assert explain(code.lower()) == text
    assert explain("D999") == ""


def test_every_code_the_program_uses_is_explained() -> None:
    used = {
        code
        for path in (ROOT / "dripwell" / "content").glob("*.py")
        for code in re.findall(r"\bD[1-5]\d\d\b", path.read_text(encoding="utf-8"))
    }
    assert used <= set(CATALOG)


def test_contrast_is_the_one_of_the_standard() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


def test_a_broken_campaign_file_does_not_hide_what_is_wrong_in_the_emails() -> None:
    """All errors in one run: the Markdown is judged even when campaign.yaml cannot be read."""
    sources = dict(read_sources(ROOT, "seven-benefits"))
    path = "campaigns/seven-benefits/3-blocking-pain-signals.md"
    sources[path] = sources[path].replace("{{ first_name or", "{{ frist_name or")
    sources["campaigns/seven-benefits/campaign.yaml"] = "type: drip\n\ttabs: no\n"
    sources["campaigns/seven-benefits/4-mental-breakthroughs.md"] = "# Bytes \udcff {{ nothing }}"
    sources["campaigns/seven-benefits/5-minimal-side-effects.md"] = ""
    loaded = load(sources, "seven-benefits")
    assert loaded.campaign is None
    assert loaded.site is not None
    found = lint_documents(sources, loaded.site, "seven-benefits")
    assert [(problem.code, problem.path, problem.line) for problem in found if problem.path == path] == [
        ("D202", path, 3)
    ]
    assert all("4-mental" not in problem.path for problem in found)
