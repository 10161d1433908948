"""Render once, mail many: the variants of a step, each compiled once, and which of them a person gets.

Every condition on the person is a *test*, and equal ones share one. A *variant* is one set of answers: bit `i` says
whether `tests[i]` held; a test that a person's way through the text never meets counts as no. People of one variant go
out in one call. What cannot be staged says why, and is rendered for each person by `render.render_step`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from jinja2 import nodes

from dripwell.content import slots, theme
from dripwell.content.cage import Parsed
from dripwell.content.email_source import Source, Sources, parse_source, source_of
from dripwell.content.expressions import Names, mentions, names_in, outputs
from dripwell.content.render import (
    MAX_SLOTS,
    MAX_TESTS,
    Person,
    Skeleton,
    compile_variant,
    facts_of,
    filled,
    mentioned_in,
    render_step,
)
from dripwell.core.campaign import Campaign, Site
from dripwell.core.errors import ContentError

T = TypeVar("T")
Part = Literal["subject", "preheader", "body"]
PARTS: tuple[Part, ...] = ("subject", "preheader", "body")

COMPARED = 16
"""Every so many calls of a variant some people are compared with the reference."""
_LINK_SLOTS = 5  # click, view, unsubscribe, preferences, book: no email has more kinds of signed words


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a step is rendered for each person. `line` counts from 1 in the file; 0 is the email as a whole."""

    text: str
    part: Part = "body"
    line: int = 0

    def __str__(self) -> str:
        """As a person reads it: `line 12: a loop over a personal value`."""
        if not self.line:
            return self.text
        return f"line {self.line}: {self.text}" if self.part == "body" else f"{self.part}: {self.text}"


@dataclass(frozen=True, slots=True, eq=False)
class Staged:
    """One step of one version, staged: its variants are compiled when they are first met, and kept.

    May be shared by threads: two that meet a variant at once compile it twice, with the same result.
    """

    sources: Sources
    site: Site
    campaign: Campaign
    key: str
    tests: tuple[str, ...]  # conditions on the person, three at most; bit i of a variant answers tests[i]
    why_not: Reason | None  # rendered for each person, one message a call
    variants: tuple[int, ...]  # sets of answers that some way through the text can give
    mentioned: frozenset[str] = frozenset()  # facts the step mentions, in any branch
    _questions: tuple[slots.Questions, ...] = ()
    _skeletons: dict[int, Skeleton] = field(default_factory=dict)
    _mailed: Counter[int] = field(default_factory=Counter)

    def variant(self, person: Person) -> int:
        """Which variant this person gets. Needs their fields and extras; link words are not looked at.

        Raises ValueError when a condition has no answer for them: that row is rejected, as rendering it would be.
        """
        if not self._questions:
            return 0
        facts = facts_of(person, self.mentioned)
        variant = 0

        def answer(said: str, value: object) -> bool:
            nonlocal variant
            if value:
                variant |= 1 << self.tests.index(said)
                return True
            return False

        for questions in self._questions:
            questions.ask(facts, answer)
        return variant

    def skeleton(self, variant: int) -> Skeleton:
        """The skeleton of one variant, about 10 ms when it is first met.

        Raises ContentError when it cannot be rendered, or when this step is rendered for each person.
        """
        if self.why_not is not None:
            raise ContentError(f"{self.key} is rendered for each person: {self.why_not}")
        found = self._skeletons.get(variant)
        if found is None:
            found = compile_variant(self.sources, self.site, self.campaign, self.key, self.answers(variant))
            self._skeletons[variant] = found
        return found

    def is_time_to_compare(self, variant: int) -> bool:
        """Count a call of this variant; True for the first and then for every sixteenth.

        What may differ from the reference hangs on the variant, and comparing costs as much as rendering a thousand.
        """
        self._mailed[variant] += 1
        return self._mailed[variant] % COMPARED == 1

    def answers(self, variant: int) -> dict[str, bool]:
        """What holds in a variant, test by test."""
        return {test: bool(variant >> bit & 1) for bit, test in enumerate(self.tests)}


def stage_step(sources: Sources, site: Site, campaign: Campaign, key: str) -> Staged:
    """Find a step's variants, or why it has none. Raises ContentError when it cannot be rendered at all."""
    source = source_of(sources, site, campaign, key)
    parsed = parse_source(source)
    theme.theme_of(sources)
    names = source.names
    texts = tuple(zip(PARTS, parsed, strict=True))
    why = next((reason for part, one in texts for reason in _reasons(part, one, source)), None)
    tests: list[str] = []
    for part, one in texts:
        for question in slots.personal_tests(one.tree, one):
            if question.said not in tests:
                tests.append(question.said)
                if len(tests) == MAX_TESTS + 1 and why is None:
                    many = f"the fourth condition on the person ({MAX_TESTS} at most)"
                    why = Reason(many, part, _line(part, question.line, source))
    if why is not None:
        return Staged(sources, site, campaign, key, (), why, ())
    asked = tuple(found for one in parsed if (found := slots.questions_of(one, names)) is not None)
    blank = [found for one in parsed if (found := slots.questions_of(one, names, evaluate=False)) is not None]
    variants = tuple(_ways(tests, blank))
    if not variants:
        raise ContentError(f"{source.path}: the conditions of this text cannot be worked out")
    staged = Staged(sources, site, campaign, key, tuple(tests), None, variants, mentioned_in(parsed), asked)
    few = _most_slots(parsed, names) <= MAX_SLOTS
    most = max(len(skeleton.slots) for skeleton in _compiled(staged, stop_at_first=few))
    if most > MAX_SLOTS:
        why = Reason(f"{most} personal values to fill in ({MAX_SLOTS} at most)")
        return Staged(sources, site, campaign, key, (), why, ())
    return staged


def same_as_reference(staged: Staged, variant: int, values: Mapping[str, str], person: Person) -> bool:
    """Whether what is about to be mailed is what rendering for this person alone gives, byte for byte.

    `values` are the substitutions that go into the call. About 10 ms. False too when the reference cannot be rendered,
    a value is missing, or a word is left over. A call with a person for whom this is false must not be made.
    """
    skeleton = staged.skeleton(variant)
    try:
        mailed = filled(skeleton, values)
        alone = render_step(staged.sources, staged.site, staged.campaign, staged.key, person)
    except (ValueError, KeyError, ContentError):
        return False
    left = any(slot.word[:-3] in part for slot in skeleton.slots for part in (mailed.subject, mailed.html, mailed.text))
    return mailed == alone and not left


def first_last_and_one_more(rows: Sequence[T]) -> tuple[T, ...]:
    """The rows of a batch that are compared with the reference: the first, the middle one and the last."""
    places = sorted({0, len(rows) // 2, len(rows) - 1}) if rows else []
    return tuple(rows[place] for place in places)


def content_key(sources: Sources, site: Site, campaign: Campaign, key: str) -> str:
    """What a staged step depends on, as a hash: equal for two versions that differ elsewhere only."""
    source = source_of(sources, site, campaign, key)
    look = [sources.get(path, "") for path in (theme.BASE, theme.BLOCKS, theme.TOKENS)]
    parts = [repr(site), repr(campaign), key, source.path, source.markdown, *look]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


# -- what can be staged ------------------------------------------------------------------------------------------------


def _reasons(part: Part, parsed: Parsed, source: Source) -> Iterator[Reason]:
    """What in one text asks for each person apart, in reading order."""
    found: list[tuple[int, str]] = []
    known = source.names.personal | source.names.fixed.keys()
    personal_branches = [question.branch for question in slots.personal_tests(parsed.tree, parsed)]
    inside = {id(one) for branch in personal_branches for one in branch.find_all(nodes.Assign)}
    for loop in parsed.tree.find_all(nodes.For):
        over = [loop.iter] if loop.test is None else [loop.iter, loop.test]
        if any(mentions(one, parsed.tainted) for one in over):
            names = sorted(names_in(loop.iter) & parsed.tainted) or sorted(names_in(over[-1]) & parsed.tainted)
            found.append((loop.lineno, f"a loop over `{names[0]}`"))
    for assign in parsed.tree.find_all(nodes.Assign):
        name = min(names_in(assign.target))
        if mentions(assign.node, parsed.tainted):
            found.append((assign.lineno, f"`{name}` is set to a personal value"))
        elif id(assign) in inside:
            found.append((assign.lineno, f"`{name}` is set inside a condition on the person"))
    asked = [(one.test, one.line) for one in slots.personal_tests(parsed.tree, parsed)]
    printed = [(output.nodes[position], output.nodes[position].lineno) for output, position in outputs(parsed.tree)]
    for node, line in (*asked, *printed):
        mixed = sorted(names_in(node) - known - source.names.urls)
        if mixed and mentions(node, parsed.tainted):
            found.append((line, f"`{mixed[0]}`, which is set in the text, beside a personal value"))
    yield from (Reason(text, part, _line(part, line, source)) for line, text in sorted(found, key=lambda one: one[0]))


def _line(part: Part, line: int, source: Source) -> int:
    return source.first_line + line - 1 if part == "body" else 1


def _ways(tests: Sequence[str], questions: Sequence[slots.Questions]) -> Iterator[int]:
    """Every set of answers that can be given: what is not asked on the way is no. All yes comes first."""
    seen: set[int] = set()
    for number in reversed(range(2 ** len(tests))):
        met = 0

        def answer(said: str, value: object, number: int = number) -> bool:
            nonlocal met
            bit = 1 << tests.index(said)
            met |= number & bit
            return bool(number & bit)

        try:
            for one in questions:
                one.ask(None, answer)
        except ValueError:
            continue  # nobody gets through the text this way: asking a person fails too
        if met not in seen:
            seen.add(met)
            yield met


def _most_slots(parsed: Sequence[Parsed], names: Names) -> int:
    """No variant has more slots: each personal value once as text and once as HTML, the date, and the signed words."""
    marks = slots.Marks("x" * 8)
    for one in parsed:
        slots.flatten(one, names, marks)
    return 2 * (len(marks.personal) + 1) + _LINK_SLOTS


def _compiled(staged: Staged, *, stop_at_first: bool) -> list[Skeleton]:
    """The variants that can be compiled; one that cannot stops nobody else. If none can, that is told at once."""
    found: list[Skeleton] = []
    refusal: ContentError | None = None
    for variant in staged.variants:
        try:
            found.append(staged.skeleton(variant))
        except ContentError as error:
            refusal = refusal or error
        if found and stop_at_first:
            break
    if refusal is not None and not found:
        raise refusal
    return found
