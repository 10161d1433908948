"""How each email goes out: in how many variants, or to each person apart; and somebody who gets each variant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product

from dripwell.content.email_source import Source, Sources
from dripwell.content.expressions import compared
from dripwell.content.places import Place, at_top
from dripwell.content.problems import Problem
from dripwell.content.render import Person, Rendered, fill, render_step
from dripwell.content.samples import EXTRA, SAMPLES
from dripwell.content.staging import Staged, stage_step
from dripwell.core.campaign import Campaign, Email, Site
from dripwell.core.errors import ContentError

A_CALL = 1000
"""People in one call to the provider, when an email is staged."""
TRIES = 2000
"""Invented people at most, looking for one who gets a variant."""


@dataclass(frozen=True, slots=True)
class Passage:
    """How one email goes out. `a_call`: people in one call to the provider. `why_not`, `line`: of one a call."""

    email: str
    variants: int
    slots: int
    a_call: int
    tests: tuple[str, ...] = ()
    why_not: str = ""
    line: int = 0

    def __str__(self) -> str:
        """One line, as `dripwell lint --verbose` prints it."""
        if self.why_not:
            return f"{self.email}: rendered per person ({self.why_not}): one message a call"
        variants = "1 variant" if self.variants == 1 else f"{self.variants} variants"
        slots = "1 slot" if self.slots == 1 else f"{self.slots} slots"
        return f"{self.email}: {variants}, {slots}, {self.a_call:,} a call"


def passages(sources: Sources, site: Site, campaign: Campaign) -> tuple[Passage, ...]:
    """How each email of a campaign goes out. One that cannot be rendered is left out: the lint says why."""
    return tuple(passage for email in campaign.emails for passage in _passage(sources, site, campaign, email.key))


def _passage(sources: Sources, site: Site, campaign: Campaign, key: str) -> Iterator[Passage]:
    try:
        staged = stage_step(sources, site, campaign, key)
        if staged.why_not is not None:
            yield Passage(key, 0, 0, 1, (), str(staged.why_not), staged.why_not.line)
            return
        met = [staged.skeleton(variant) for variant in somebody_for_each(staged)]
    except ContentError:
        return
    yield Passage(key, len(met), max(len(one.slots) for one in met), A_CALL, staged.tests)


def as_people_get_it(staged: Staged) -> dict[str, Rendered]:
    """The email as the sample people get it, and somebody for each variant that none of them gets.

    Raises ContentError or ValueError for the first who cannot get it.
    """
    people = dict(SAMPLES)
    if staged.why_not is not None:
        return {
            name: render_step(staged.sources, staged.site, staged.campaign, staged.key, person)
            for name, person in people.items()
        }
    covered = {staged.variant(person) for person in people.values()}
    people |= {
        _named(staged, variant): person
        for variant, person in somebody_for_each(staged).items()
        if variant not in covered
    }
    return {name: fill(staged.skeleton(staged.variant(person)), person) for name, person in people.items()}


def somebody_for_each(staged: Staged) -> dict[int, Person]:
    """For each variant that somebody can get, one who gets it: found by trying what the conditions compare with.

    A variant that needs two values at once, `state == "CA"` and `state == "NV"`, has nobody.
    """
    found: dict[int, Person] = {}
    for person in islice(_people(staged.tests), TRIES):
        try:
            variant = staged.variant(person)
        except ValueError:
            continue  # a condition that has no answer for this one; the samples find out whether for everybody
        found.setdefault(variant, person)
        if len(found) == len(staged.variants):
            break
    return found


def _people(tests: tuple[str, ...]) -> Iterator[Person]:
    yield from SAMPLES.values()
    names: dict[str, None] = {}
    values: dict[str, None] = {"x": None, "": None}
    for test in tests:
        mentioned, constants = compared(test)
        names |= dict.fromkeys(mentioned)
        for value in constants:
            if isinstance(value, str):
                values |= dict.fromkeys((value, value + "x", value.lower(), value.upper()))
            elif 0 <= value < 200:  # a length, most likely
                values |= dict.fromkeys(("x" * value, "x" * (value + 1)))
    like = SAMPLES["ordinary"]
    for chosen in product(values, repeat=len(names)):
        facts = dict(zip(names, chosen, strict=True))
        extra = {name: facts.pop(name) for name in EXTRA if name in facts}
        yield replace(like, fields={**like.fields, **facts}, extra={**like.extra, **extra})


def _named(staged: Staged, variant: int) -> str:
    said: Mapping[str, bool] = staged.answers(variant)
    return "somebody with " + ", ".join(f"{'' if holds else 'not '}{test}" for test, holds in said.items())


def costs(sources: Sources, campaign: Campaign, source: Source, email: Email, staged: Staged) -> Iterator[Problem]:
    """D410: this email is rendered for each person, where it says so, and what that costs."""
    why = staged.why_not
    if why is None:
        return
    said = f"this is rendered for each person apart: {why.text}"
    help = "use {{ … or … }}, {{ … if … else … }} or {% if %} if the words allow it"
    note = f"One call then carries one message instead of up to {A_CALL:,}, about 10 ms each."
    if why.part != "body":
        content = email.subject if why.part == "subject" else email.preheader
        place = Place.of(sources, campaign, email, why.part, content)
        yield replace(place.whole("D410", "warning", said, help), note=note)
    elif not why.line:
        yield replace(at_top(source, "D410", "warning", said, help), note=note)
    else:
        content = source.markdown.split("\n")[why.line - source.first_line]
        at = re.search(r"\{[%{].*?[%}]\}", content)
        start, length = (at.start(), len(at[0])) if at else (0, max(len(content), 1))
        yield Problem("D410", "warning", source.path, why.line, start + 1, length, said, help, note)
