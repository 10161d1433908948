"""Lint says how each email goes out, and looks at every variant that somebody can get."""

from __future__ import annotations

import pytest

from dripwell.content.lint_staging import passages, somebody_for_each
from dripwell.content.staging import stage_step
from tests.unit.email_sources import PATH, PREHEADER, SUBJECT, YAML, campaign, codes, lint, site, small, sources

TITLE = "# A calm title\n\n"


def said(markdown: str, subject: str = SUBJECT) -> str:
    made, few = small(markdown, subject)
    return str(passages(made, site(), few)[0])


def test_each_email_says_how_it_goes_out() -> None:
    first = passages(sources(), site(), campaign())[0]
    assert str(first) == "1-adaptability: 1 variant, 8 slots, 1,000 a call"
    hi = "{% if first_name %}Hi {{ first_name }}{% elif state %}Hi{% else %}Hello{% endif %}."
    assert said(f"{TITLE}{hi}\n") == "small: 3 variants, 7 slots, 1,000 a call"
    loop = "{% for one in [first_name or 'a', 'b'] %}{{ one }} {% endfor %}"
    expected = "small: rendered per person (line 5: a loop over `first_name`): one message a call"
    assert said(f"{TITLE}Words.\n\n{loop}\n") == expected
    subject = "{% set who = first_name or 'you' %}For {{ who }}"
    assert "(subject: `who` is set to a personal value)" in said(f"{TITLE}Words.\n", subject)


def test_an_email_that_cannot_be_rendered_is_left_out_and_the_others_are_not() -> None:
    made, few = small(f"{TITLE}{{{{ nobody }}}}\n")
    assert [one.email for one in passages(made, site(), few)] == ["other"]


def test_variants_are_those_that_somebody_can_get() -> None:
    made, few = small(
        f"{TITLE}{{% if state == 'CA' %}}a{{% endif %}} {{% if state == 'NV' %}}b{{% endif %}} "
        "{% if first_name | length > 7 %}c{% endif %}\n"
    )
    staged = stage_step(made, site(), few, "small")
    assert len(staged.variants) == 8
    found = somebody_for_each(staged)
    assert sorted(found) == [0, 1, 2, 4, 5, 6]  # nobody lives in two states
    for variant, person in found.items():
        assert staged.variant(person) == variant


def test_a_fault_in_one_variant_is_found() -> None:
    broken = f"{TITLE}Words.\n\n{{% if state == 'NV' and first_name %}}\n::: key\n- a\n{{% endif %}}\n"
    assert "never closed" in " ".join(problem.text for problem in lint(broken))
    links = f"{TITLE}[a]({{% if state == 'NV' %}}https://evil.example/{{% else %}}https://kcla.example/{{% endif %}})\n"
    found = lint(links)
    assert codes(found) == ["D505"]
    assert (found[0].line, links.split("\n")[2][found[0].column - 1 :].startswith("https://evil.example/")) == (3, True)
    joined = f"{TITLE}[a](https://kcla.example{{% if state == 'NV' %}}.evil.example/{{% endif %}})\n"
    assert [(problem.code, "kcla.example.evil.example" in problem.text) for problem in lint(joined)] == [("D505", True)]


@pytest.mark.parametrize(
    ("body", "subject", "path", "line", "says"),
    [
        ("Words.\n\n{% set who = first_name or 'you' %}Hi {{ who }}.", SUBJECT, PATH, 5, "`who` is set"),
        ("\n".join(f"{{% if state == '{n}' %}}x{{% endif %}}" for n in range(4)), SUBJECT, PATH, 6, "fourth condition"),
        (" ".join(f"{{{{ first_name or '{n}' }}}}" for n in range(12)), SUBJECT, PATH, 1, "personal values"),
        ("Words.", "{% set who = first_name or 'you' %}For {{ who }} today", YAML, 4, "`who` is set"),
    ],
)
def test_what_is_rendered_per_person_has_its_line_and_its_cost(
    body: str, subject: str, path: str, line: int, says: str
) -> None:
    found = [problem for problem in lint(f"{TITLE}{body}\n", subject) if problem.code == "D410"]
    assert [(problem.path, problem.line) for problem in found] == [(path, line)]
    assert found[0].level == "warning"
    assert says in found[0].text
    assert "one message instead of up to 1,000" in found[0].note


def test_conditions_that_are_staged_pass_without_a_word() -> None:
    body = "{% if state == 'CA' %}Near {{ first_name or 'you' }}{% else %}Far{% endif %} and quiet."
    assert lint(f"{TITLE}{body}\n", "{% if state != 'CA' %}A word{% else %}Some words{% endif %} for this week") == ()
    assert (
        lint(f"{TITLE}{body}\n", SUBJECT, "{% if state %}Dear{% else %}Good{% endif %} friend, " + PREHEADER[:40]) == ()
    )
