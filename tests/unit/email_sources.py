"""The repository's own campaign as values, and small emails made on the spot."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from dripwell.content.files import read_sources
from dripwell.content.lint import lint_emails
from dripwell.content.load import Claim, load
from dripwell.content.problems import Problem
from dripwell.content.render import Person, Skeleton
from dripwell.content.samples import EXTRA, WORDS
from dripwell.content.staging import stage_step
from dripwell.core.campaign import Campaign, Email, Site

ROOT = Path(__file__).parents[2]
NAME = "seven-benefits"
PATH = f"campaigns/{NAME}/small.md"
YAML = f"campaigns/{NAME}/campaign.yaml"

SUBJECT = "What to expect this week"
PREHEADER = "A few quiet words about what comes next, and when."


@lru_cache(maxsize=1)
def _loaded() -> tuple[dict[str, str], Site, Campaign, dict[str, Claim]]:
    sources = read_sources(ROOT, NAME)
    loaded = load(sources, NAME)
    assert loaded.site is not None
    assert loaded.campaign is not None
    return sources, loaded.site, loaded.campaign, dict(loaded.claims)


def sources() -> dict[str, str]:
    """Every source of the seven-part series, to change."""
    return dict(_loaded()[0])


def site() -> Site:
    """The repository's site."""
    return _loaded()[1]


def campaign() -> Campaign:
    """The seven-part series."""
    return _loaded()[2]


def claims() -> dict[str, Claim]:
    """Its claim register."""
    return dict(_loaded()[3])


def small(markdown: str, subject: str = SUBJECT, preheader: str = PREHEADER) -> tuple[dict[str, str], Campaign]:
    """A campaign of two emails, the first with these words."""
    made = sources()
    made[PATH] = markdown
    made[PATH.replace("small", "other")] = "# Another one\n\nSome words.\n"
    emails = (Email("small", "small", subject, preheader), Email("other", "other", "Another one", PREHEADER))
    made[YAML] = (
        f"type: drip\nsteps:\n  - email: small\n    subject: {subject}\n    preheader: {preheader}\n  - wait: 2 days\n"
        f"  - email: other\n    subject: Another one\n    preheader: {PREHEADER}\n"
    )
    return made, replace(campaign(), steps=emails)


def compiled(sources: dict[str, str], site: Site, campaign: Campaign, key: str) -> Skeleton | None:
    """The skeleton that everybody gets. None when people get different ones, or each their own."""
    staged = stage_step(sources, site, campaign, key)
    return None if staged.tests or staged.why_not else staged.skeleton(0)


def person(first_name: str = "Maria", **fields: str) -> Person:
    """Somebody with signed words and every extra."""
    return Person({"first_name": first_name, **fields}, WORDS, EXTRA, "October 22, 2026")


def lint(markdown: str, subject: str = SUBJECT, preheader: str = PREHEADER, **changes: object) -> tuple[Problem, ...]:
    """What lint says about the first email's words, subject and preheader."""
    made, small_campaign = small(markdown, subject, preheader)
    found = lint_emails(made, replace(site(), **changes), small_campaign, claims())  # type: ignore[arg-type]
    return tuple(problem for problem in found if problem.path in (PATH, YAML, "config/site.yaml"))


def codes(found: tuple[Problem, ...]) -> list[str]:
    """Their codes, in order."""
    return [problem.code for problem in found]
