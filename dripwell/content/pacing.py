"""The part of `config/site.yaml` that says how fast emails go out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dripwell.content.reading import Model, words
from dripwell.content.values import Day, MailboxGroup, Preset, Throughput


class WarmUpEntry(Model):
    """How a new sending domain starts small."""

    what = "`warm_up`"
    peers = words(preset="schedule curve", first_day="start starts_on since")

    preset: Preset = Field(
        "new-domain", description="How the number of campaign emails a day grows. Service emails are never capped."
    )
    first_day: Day = Field(description="The first day of the curve, in the clinic's time.")


class DeliveryEntry(Model):
    """How fast emails go out."""

    what = "`delivery`"
    peers = words(on_unknown="unknown", rate="throttle speed max_rate", pace="per_provider per_domain")

    on_unknown: Literal["hold", "resend"] | None = Field(
        None,
        description="When nobody can say whether the provider took a call. hold: a person decides. resend: it goes out "
        "again once the provider's own record shows that it was never taken.",
    )
    rate: Throughput | None = Field(
        None, description="At most so many emails over all workers: 2000 per second, if left out."
    )
    pace: dict[MailboxGroup, Throughput] = Field(
        {}, description="At most so many campaign emails to a mailbox group: {gmail: 3000 per hour}."
    )
