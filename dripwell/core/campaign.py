"""A campaign as values: what the YAML means once it has been read and found right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from enum import StrEnum
from typing import Literal

from dripwell.core.conditions import Condition
from dripwell.core.duration import Duration


class Lane(StrEnum):
    """Priority class of messages; each is a Celery queue of its own."""

    CONFIRM = "confirm"
    BOOKING = "booking"
    DRIP = "drip"
    NEWSLETTER = "newsletter"


OUR_EVENTS = ("consultation.booked", "consultation.canceled")
"""The events that Dripwell itself tells of. Others are declared in config/site.yaml and arrive through the API."""
ALWAYS_FIELDS = ("first_name", "state")
"""The fields that may be kept of anybody, whether a form asks for them or not."""
MARKETING_LANES = frozenset({Lane.DRIP, Lane.NEWSLETTER})
SERVICE_LANES = frozenset({Lane.CONFIRM, Lane.BOOKING})


@dataclass(frozen=True, slots=True)
class Window:
    """When emails may go out. `days` counts from Monday = 0; `closes` is exclusive and may be 00:00 for midnight."""

    days: frozenset[int] = frozenset(range(7))
    opens: time = time(0, 0)
    closes: time = time(0, 0)
    zone: str = "subscriber"  # or an IANA name


@dataclass(frozen=True, slots=True)
class Limits:
    """Per subscriber, over all campaigns: at most `emails` in `per`, and `gap` between two. None = no limit."""

    emails: int | None = None
    per: Duration | None = None
    gap: Duration | None = None


@dataclass(frozen=True, slots=True)
class Email:
    """A step that makes one message. `key` is lasting: the ledger's "never twice" hangs on it."""

    key: str
    document: str  # the Markdown file's stem
    subject: str
    preheader: str = ""
    window: Window | None = None  # this email's own send window; None: the campaign's


@dataclass(frozen=True, slots=True)
class Wait:
    """A step that lets time pass, counted from when the step before it was passed (an email: accepted)."""

    key: str
    length: Duration


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Wait until this is true of the person, but never longer than `at_most`."""

    key: str
    until: Condition
    at_most: Duration


@dataclass(frozen=True, slots=True)
class WaitClock:
    """Wait for the next such weekday (Monday = 0) and local time of the person; a moment that is one does not count."""

    key: str
    day: int
    at: time


@dataclass(frozen=True, slots=True)
class WaitDate:
    """Wait for this local time of the person (naive). Once it is past there is no wait."""

    key: str
    at: datetime


@dataclass(frozen=True, slots=True)
class WaitField:
    """Wait until `by` before or after the date in a field of the person. A time that is past is no wait.

    Without a date that can be read, what stands between this wait and the next wait of its list is left out: an email
    about a visit is for nobody who has none.
    """

    key: str
    field: str
    by: Duration
    before: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """Decided once, when it is reached. Behind either arm, which may be empty, the steps after the branch go on."""

    key: str
    name: str
    when: Condition
    then: tuple[Step, ...] = ()
    otherwise: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Tag:
    """Gives the person a tag, or takes it away."""

    key: str
    tag: str
    add: bool = True


AnyWait = Wait | WaitFor | WaitClock | WaitDate | WaitField
Step = Email | AnyWait | Branch | Tag


def walk(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Every step of the tree in file order: a branch, then what is in its arms."""
    for step in steps:
        yield step
        if isinstance(step, Branch):
            yield from walk(step.then)
            yield from walk(step.otherwise)


@dataclass(frozen=True, slots=True)
class Trigger:
    """What enrolls a subscriber. `name` is empty for `import` and `manual`."""

    kind: Literal["form", "tag", "event", "import", "manual"]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Goal:
    """What counts as success, within so long after joining. `exits`: reaching it ends the series."""

    event: str
    within: Duration | None = None
    name: str = ""
    exits: bool = True


@dataclass(frozen=True, slots=True)
class Exit:
    """Leave early when this is true: `value` is a tag, an event, a segment or a Duration."""

    kind: Literal["tag", "event", "segment", "left_segment", "after"]
    value: str | Duration


@dataclass(frozen=True, slots=True)
class Suppress:
    """Checked before every email. segment, tag: ends the series. active_in, emailed_within: postpones it."""

    kind: Literal["segment", "tag", "active_in", "emailed_within"]
    value: str | Duration


@dataclass(frozen=True, slots=True)
class Campaign:
    """A series per person (`drip`) or a built-in service campaign. `name` is the folder's name, its lasting id."""

    name: str
    title: str
    kind: Literal["drip", "service"]
    topic: str
    steps: tuple[Step, ...]
    triggers: tuple[Trigger, ...] = ()
    approval: str | None = None  # the address of the person who must approve each version
    goal: Goal | None = None
    exits: tuple[Exit, ...] = ()
    suppress: tuple[Suppress, ...] = ()
    audience: Condition | None = None  # who may join: asked once, at the trigger; None: everybody
    window: Window | None = None  # None: the site's
    limits: Limits | None = None  # the stricter of this and the site's holds
    description: str = ""
    reenter: Duration | None = None  # so long after a round ended the next may begin; None: never

    @property
    def emails(self) -> tuple[Email, ...]:
        """The emails of all arms in file order."""
        return tuple(step for step in walk(self.steps) if isinstance(step, Email))

    @property
    def straight(self) -> bool:
        """Whether everybody who stays gets every email: "part 2 of 7" can be said to no one else."""
        return not any(isinstance(step, Branch | WaitField) for step in walk(self.steps))

    def walk(self) -> Iterator[Step]:
        """Every step of the tree in file order: a branch, then what is in its arms."""
        return walk(self.steps)

    def conditions(self) -> tuple[Condition, ...]:
        """What its steps ask about people."""
        return tuple(
            step.until if isinstance(step, WaitFor) else step.when
            for step in walk(self.steps)
            if isinstance(step, WaitFor | Branch)
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """A saved, named filter over subscribers."""

    name: str
    about: str
    when: Condition


@dataclass(frozen=True, slots=True)
class Clinic:
    """The clinic's facts, as they stand in emails and pages. A placeholder in one refuses a live start."""

    name: str
    short_name: str
    legal_name: str
    postal_address: str
    phone: str
    website: str
    timezone: str
    language: str = "en-US"
    safety_note: str = "us-988"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A sender: display name and address."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Topic:
    """What a subscriber can agree to get."""

    name: str
    title: str
    about: str


@dataclass(frozen=True, slots=True)
class Form:
    """A sign-up form: the topic it asks consent for, and the exact wording."""

    name: str
    topic: str
    consent: str
    asks: tuple[tuple[str, bool], ...] = ()  # (field, required)
    also: tuple[str, ...] = ()  # further topics it offers, each with a box of its own


@dataclass(frozen=True, slots=True)
class Declared:
    """An event or a field that this installation knows: its name, and in a sentence what it is."""

    name: str
    about: str


@dataclass(frozen=True, slots=True)
class Consultation:
    """The free phone call: when it may be, how long, who is told. `hours` maps weekday (Monday = 0) to open spans."""

    title: str
    length: Duration
    hours: tuple[tuple[int, time, time], ...]
    hold: Duration
    caller_id: str
    notify: str


@dataclass(frozen=True, slots=True)
class WarmUp:
    """A new sending domain starts small: `preset` names a curve of `core.pace`, `first_day` is its day 0."""

    preset: str
    first_day: date  # in the clinic's zone


@dataclass(frozen=True, slots=True)
class Delivery:
    """How fast emails go out, and what happens to a call whose end nobody knows. Rates are messages a second.

    `on_unknown` None: as the provider's means of proof allow. `pace` maps a mailbox group to its rate; a group that is
    not in it is only bound by `rate`.
    """

    on_unknown: Literal["hold", "resend"] | None = None
    rate: float = 2000.0
    pace: Mapping[str, float] = field(default_factory=dict, hash=False)


EVENTS_KEPT = Duration(400, "day")
"""Unless `privacy.keep_events` says otherwise (rules 5)."""


@dataclass(frozen=True, slots=True)
class Site:
    """`config/site.yaml` as values: true for every campaign unless a campaign is stricter."""

    clinic: Clinic
    sender: Mailbox
    service_sender: Mailbox
    reply_to: str
    base_url: str
    link_hosts: tuple[str, ...]
    window: Window
    limits: Limits
    suppress: tuple[Suppress, ...]
    topics: tuple[Topic, ...]
    forms: tuple[Form, ...]
    consultation: Consultation
    track_clicks: bool = True
    discreet: bool = True
    discreet_words: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = field(default=())
    warm_up: WarmUp | None = None  # None: the sending domain is warm
    delivery: Delivery = field(default_factory=Delivery)
    keep_events: Duration = EVENTS_KEPT
    keep_quiet_subscribers: Duration | None = None  # None: nobody is asked, or erased, for being silent
    events: tuple[Declared, ...] = ()  # beside OUR_EVENTS
    fields: tuple[Declared, ...] = ()  # beside those that forms ask for

    def event_names(self) -> tuple[str, ...]:
        """Every event that may happen to somebody: ours, then those of config/site.yaml."""
        return (*OUR_EVENTS, *(event.name for event in self.events))

    def field_names(self) -> tuple[str, ...]:
        """Every field that may be kept of somebody, by name: what forms ask for, and those of config/site.yaml."""
        asked = {name for form in self.forms for name, _ in form.asks} - {"email"}
        return tuple(sorted({*ALWAYS_FIELDS, *asked, *(field.name for field in self.fields)}))

    def topic(self, name: str) -> Topic | None:
        """The topic of that name, or None."""
        return next((topic for topic in self.topics if topic.name == name), None)

    def segment(self, name: str) -> Segment | None:
        """The segment of that name, or None."""
        return next((segment for segment in self.segments if segment.name == name), None)
