"""How long one person costs once a step is compiled, against rendering that person alone.

Part of figure (a). The ratio of each email is per person / staged, the factor that staging saves; the last line holds
the slowest staged time against the bar: 0.1 ms.
Seven real emails that ask nothing about the person, then the first of them with three conditions in its subject and
body: there, finding the variant is part of the staged time. Each staged person has another name, so that no value is
found again; the median of many.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from ground import line, machine, within

from dripwell.content.files import read_sources
from dripwell.content.load import load
from dripwell.content.render import compile_variant, render_step, substitutions
from dripwell.content.samples import SAMPLES
from dripwell.content.staging import stage_step
from dripwell.core.campaign import Campaign, Site

BAR_MS = 0.1
CAMPAIGN = "seven-benefits"
CONDITIONS = """

{% if state == "CA" %}Close to you, {{ first_name or "there" }}.{% elif state %}From {{ state }}.{% endif %}

{% if not first_name %}We do not know your name.{% else %}Dear {{ first_name }}.{% endif %}
"""


def median_ms(work: Callable[[], object], times: int) -> float:
    """The median duration of one call, in milliseconds."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


def with_conditions(sources: Mapping[str, str], campaign: Campaign) -> tuple[dict[str, str], Campaign]:
    """The series with three conditions on the person in its first email."""
    first = campaign.emails[0]
    path = f"campaigns/{campaign.name}/{first.document}.md"
    subject = f"{{% if state == 'CA' %}}Near you: {{% endif %}}{first.subject}"
    steps = tuple(replace(first, subject=subject) if step is first else step for step in campaign.steps)
    return {**sources, path: sources[path] + CONDITIONS}, replace(campaign, steps=steps)


def measure(sources: Mapping[str, str], site: Site, campaign: Campaign, key: str, name: str) -> float:
    """Print one line; returns the staged time of one person, in milliseconds."""
    person = SAMPLES["ordinary"]
    people = (replace(person, fields={**person.fields, "first_name": f"Maria {n}"}) for n in count())
    staged = stage_step(sources, site, campaign, key)
    answers = staged.answers(staged.variant(person))

    def mailed() -> object:
        somebody = next(people)
        return substitutions(staged.skeleton(staged.variant(somebody)), somebody)

    compiled = median_ms(lambda: compile_variant(sources, site, campaign, key, answers), 5)
    taken = median_ms(mailed, 500)
    alone = median_ms(lambda: render_step(sources, site, campaign, key, person), 5)
    note = f"alone {alone:.2f} ms, compiling {compiled:.0f} ms, {len(staged.tests)} conditions"
    line(f"(a) a person of {name}, of rendering alone", taken, "ms", alone / taken, note=note)
    return taken


def main() -> None:
    """Measure each of the seven emails, and the first with conditions."""
    sources = read_sources(Path.cwd(), CAMPAIGN)
    loaded = load(sources, CAMPAIGN)
    assert loaded.site is not None
    assert loaded.campaign is not None
    site, campaign = loaded.site, loaded.campaign
    print(machine())
    taken = [measure(sources, site, campaign, email.key, email.key) for email in campaign.emails]
    asking, asks = with_conditions(sources, campaign)
    first = campaign.emails[0].key
    taken.append(measure(asking, site, asks, first, f"{first}, asking"))
    worst = max(taken)
    line("(a) a person of the slowest email, staged", worst, "ms", within(BAR_MS, worst), 1.0)


if __name__ == "__main__":
    main()
