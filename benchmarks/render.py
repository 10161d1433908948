"""How long one person costs once a step is compiled, against rendering that person alone.

Prints `ratio = per person / staged`, the factor that staging saves, and holds the staged time against the bar: 0.1 ms.
Seven real emails, one invented person, the median of many.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from dripwell.content.files import read_sources
from dripwell.content.load import load
from dripwell.content.render import compile_step, render_step, substitutions
from dripwell.content.samples import SAMPLES

BAR_MS = 0.1
CAMPAIGN = "seven-benefits"


def median_ms(work: Callable[[], object], times: int) -> float:
    """The median duration of one call, in milliseconds."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


def main() -> None:
    """Measure each of the seven emails."""
    sources = read_sources(Path.cwd(), CAMPAIGN)
    loaded = load(sources, CAMPAIGN)
    assert loaded.site is not None
    assert loaded.campaign is not None
    site, campaign = loaded.site, loaded.campaign
    person = SAMPLES["ordinary"]
    print(f"{'email':26} {'compile ms':>10} {'staged ms':>10} {'per person ms':>14} {'ratio':>7}")
    worst = 0.0
    for email in campaign.emails:
        compiled = median_ms(lambda key=email.key: compile_step(sources, site, campaign, key), 5)  # type: ignore[misc]
        skeleton = compile_step(sources, site, campaign, email.key)
        assert skeleton is not None
        staged = median_ms(lambda: substitutions(skeleton, person), 500)  # noqa: B023
        alone = median_ms(lambda key=email.key: render_step(sources, site, campaign, key, person), 5)  # type: ignore[misc]
        worst = max(worst, staged)
        print(f"{email.key:26} {compiled:10.2f} {staged:10.4f} {alone:14.2f} {alone / staged:7.0f}")
    print(f"staged, worst: {worst:.4f} ms a person, {worst / BAR_MS:.2f} of the bar of {BAR_MS} ms (below 1 is good)")


if __name__ == "__main__":
    main()
