"""What requests and answers look like. The OpenAPI document is made from these, so they say all that is checked."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

_WORD = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ADDRESS = rf"^{_WORD}(\.{_WORD})*@({_LABEL}\.)+[A-Za-z]([A-Za-z0-9-]{{0,61}}[A-Za-z])$"
"""An email address as programs exchange them: ASCII, a domain of other scripts in its `xn--` form."""
_DAY = r"((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
_DATE = rf"(20[0-9][0-9]-{_DAY}|20([02468][048]|[13579][26])-02-29)"
MOMENT = rf"^{_DATE}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{{1,6}})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$"
"""RFC 3339 with its offset, of this century; exact for months and leap years, so that whatever matches is a time."""
LINE = r"^[^\x00-\x20\x7f-\xa0][^\x00-\x1f\x7f-\x9f]*$"
"""Words in one line, not beginning with a blank."""
TAG = r"^[A-Za-z0-9][A-Za-z0-9/_.:-]{0,99}$"
CAMPAIGN = r"^[a-z0-9][a-z0-9-]{0,79}$"
REPEAT_KEY = r"^[!-~]{1,255}$"

Address = Annotated[
    str,
    Field(
        min_length=6,
        max_length=254,
        pattern=ADDRESS,
        description="An email address.",
        examples=["m@kcla.example"],
        # What one pattern cannot say; `core.address.check` refuses the same.
        json_schema_extra={
            "allOf": [{"pattern": r"^[^@]{1,64}@"}, {"not": {"pattern": r"@(.*\.)?([^xX.].|[xX][^nN.])--"}}],
        },
    ),
]
Moment = Annotated[str, Field(pattern=MOMENT, max_length=40, examples=["2026-11-02T09:30:00-08:00"])]
Tag = Annotated[str, Field(pattern=TAG, max_length=100)]


class Asked(BaseModel):
    """A request: what it does not know, it refuses."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Consent(Asked):
    """How you know that this person agreed."""

    topic: str = Field(description="What they agreed to get: a topic of config/site.yaml.")
    source: str = Field(
        min_length=1, max_length=200, pattern=LINE, description="Where they agreed: a form, a paper, a page."
    )
    wording: str = Field(
        min_length=1, max_length=2000, pattern=LINE, description="The very words they agreed to, in one line."
    )
    given_at: Moment = Field(description="When they agreed.")


def _not_both(schema: dict[str, Any]) -> None:
    given = {"consent": {"type": "object"}, "confirm": {"type": "string"}}
    schema["not"] = {"required": list(given), "properties": given}


class SubscriberAsked(Asked):
    """A person to add, or to amend when the address is known. What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_not_both)

    address: Address
    timezone: str | None = Field(None, description="An IANA name, as America/Los_Angeles.")
    fields: dict[str, Annotated[str, Field(min_length=1, max_length=200, pattern=LINE)]] = Field(
        default_factory=dict, max_length=30, description="Fields that forms ask for or config/site.yaml declares."
    )
    tags: list[Tag] = Field(
        default_factory=list, max_length=50, description="Tags to add. Each starts the campaigns that it triggers."
    )
    relationship: Literal["prospect", "patient", "unknown"] | None = Field(
        None, description="What they are to the clinic. A patient stays one."
    )
    consent: Consent | None = Field(
        None, description="With it they are active at once. It lifts no suppression. Not together with `confirm`."
    )
    confirm: str | None = Field(
        None, description="The name of a sign-up form: they are mailed its confirmation. Not together with `consent`."
    )


class FindAsked(Asked):
    """Whom to look up. In a body, so that no address stands in a URL."""

    address: Address


class EventAsked(Asked):
    """What happened to a subscriber."""

    address: Address
    event: str = Field(description="One of ours, or one that config/site.yaml declares.")
    id: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Your own id of it: told again under the same id, it is the same event.",
    )
    occurred_at: Moment | None = Field(None, description="When it happened; left out: now.")


class EnrollmentAsked(Asked):
    """Who is to join."""

    address: Address


class SubscriberAnswer(BaseModel):
    """What became of the request."""

    id: UUID
    added: bool = Field(description="Whether the address was new.")
    state: Literal["unconfirmed", "active", "unsubscribed", "undeliverable", "erased"]
    consent: Literal["recorded", "known", "withdrawn_since"] | None = Field(
        description="withdrawn_since: the person said no later than `given_at`, and that stands."
    )
    confirming: bool = Field(description="Whether a confirmation is mailed.")
    joined: list[str] = Field(description="The campaigns that a tag has started.")
    suppressed: dict[str, str] = Field(description="What must not be mailed to them, and why. Empty: nothing.")


class SubscriberFound(BaseModel):
    """What is kept of a subscriber."""

    id: UUID
    state: Literal["unconfirmed", "active", "unsubscribed", "undeliverable", "erased"]
    relationship: Literal["prospect", "patient", "unknown"]
    timezone: str | None
    fields: dict[str, Any]
    tags: list[str]
    topics: list[str] = Field(description="What they agree to get now.")
    suppressed: dict[str, str] = Field(description="What must not be mailed to them, and why. Empty: nothing.")
    joined_at: datetime


class EventAnswer(BaseModel):
    """What became of the event."""

    subscriber: UUID
    event: str
    recorded: bool = Field(description="False: you told of it before under the same `id`, and nothing happened again.")


class EnrollmentAnswer(BaseModel):
    """Whether the person joined, and if not, why."""

    subscriber: UUID
    campaign: str
    joined: bool
    why_not: (
        Literal[
            "unknown", "unconfirmed", "suppressed", "no_consent", "not_in_audience", "in_it", "been_in_it", "too_soon"
        ]
        | None
    )


class Step(BaseModel):
    """One email of the series, in messages, and what people did after it."""

    key: str
    planned: int
    accepted: int
    delivered: int
    bounced: int
    clicked: int
    booked: int
    unsubscribed: int


class ReportAnswer(BaseModel):
    """A campaign in numbers. `people` add up to `joined`, `messages` to `planned`."""

    campaign: str
    title: str
    state: Literal["draft", "running", "paused", "stopped", "archived"]
    version: int
    joined: int
    planned: int
    people: dict[str, int]
    messages: dict[str, int]
    steps: list[Step]
    clicked: int
    adds_up: bool


class Error(BaseModel):
    """What went wrong. Nothing was changed."""

    code: str = Field(description="For programs; it lasts.")
    problem: str = Field(description="What is wrong, in a sentence.")
    who: Literal["sender", "operator", "nobody"] = Field(description="Who must act; nobody: only time must pass.")
    next: str = Field(description="What to do next.")
    at: list[str] = Field(description="The fields concerned, as consent.given_at.")


class ErrorAnswer(BaseModel):
    """Every answer that is not a success."""

    error: Error
