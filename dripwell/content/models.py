"""The campaign language: every key, what it means and what may stand in it.

One source for two readers: `load` validates files with these models, `schema` makes the JSON Schema for editors from
them. Beside its keys a model lists the words other systems use for them (`peers`) and the keys of the full format
that this version cannot run yet (`later`); both are refused by name, never ignored.
"""

from __future__ import annotations

from datetime import time
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from dripwell.content.pacing import DeliveryEntry, WarmUpEntry
from dripwell.content.reading import Choice, Model, one_of, words
from dripwell.content.values import (
    DAYS,
    Address,
    BaseUrl,
    CampaignName,
    Clicked,
    Day,
    Days,
    DaySpan,
    DocumentName,
    EventName,
    EventsKept,
    FieldName,
    FormName,
    Host,
    Hours,
    Key,
    KnownField,
    Language,
    Length,
    Line,
    NewEvent,
    NewField,
    Note,
    OpensOff,
    Preheader,
    QuietKept,
    Rate,
    Reenter,
    ReplyTo,
    SegmentName,
    Sender,
    Subject,
    TagName,
    Title,
    TopicName,
    Values,
    Website,
    WindowZone,
    Zone,
    days_of,
    fail,
)
from dripwell.content.waiting import UntilMoment
from dripwell.core import address
from dripwell.core.campaign import EVENTS_KEPT, Mailbox

# --- shared by campaigns and the site ------------------------------------------


class SendWindow(Model):
    """When emails may go out."""

    what = "a send window"
    later = ("avoid",)
    peers = words(hours="quiet_hours time times", days="day weekdays", timezone="tz zone time_zone")

    days: Days | None = Field(None, description="The days emails may go out: any, weekdays, weekends, or a list.")
    hours: Hours | None = Field(None, description="The time of day emails may go out, as 09:00-18:00.")
    timezone: WindowZone | None = Field(
        None, description="Whose clock counts: subscriber (each person's own, or the clinic's), or a named zone."
    )


class Limits(Model):
    """How much one subscriber may get."""

    what = "limits"
    peers = words(emails="max frequency rate per_week per_day", gap="min_gap interval cooldown")

    emails: Rate | None = Field(None, description="At most so many emails to one subscriber, over all campaigns.")
    gap: Length | None = Field(None, description="At least so much time between two emails to one subscriber.")


class SuppressRule(Model):
    """A reason not to email somebody."""

    what = "a suppress rule"
    peers = words(segment="list", active_in="campaign", emailed_within="sent_within mailed_within")
    choices = one_of("segment", "tag", "active_in", "emailed_within")

    segment: SegmentName | None = Field(None, description="People in this segment: their series ends.")
    tag: TagName | None = Field(None, description="People with this tag: their series ends.")
    active_in: CampaignName | None = Field(
        None, description="People in progress in this other campaign: their emails wait until it ends."
    )
    emailed_within: Length | None = Field(
        None, description="People who got an email this recently: the next one waits."
    )


class Condition(Model):
    """A question about one subscriber. Structured: there is no expression language."""

    what = "a condition"
    peers = words(
        clicked="opened opens open click",
        event="happened did",
        joined="signed_up subscribed created",
        within="in_last last since",
        all="and",
        any="or",
        not_="none",
        topic="list",
        field="property attribute",
        is_="equals eq value",
        segment="in_segment",
        tag="has_tag",
    )
    choices = one_of(
        "all",
        "any",
        "not",
        "segment",
        "tag",
        "topic",
        field=Choice(needs=("is",)),
        clicked=Choice(allows=("within",)),
        event=Choice(allows=("within",)),
        joined=Choice(needs=("within",)),
    )

    all: list[Condition] | None = Field(None, min_length=1, description="True when every one of these is.")
    any: list[Condition] | None = Field(None, min_length=1, description="True when at least one of these is.")
    not_: Condition | None = Field(None, alias="not", description="True when this is not.")
    field: KnownField | None = Field(None, description="A field of the subscriber, to compare with `is`.")
    is_: Values | None = Field(None, alias="is", description="The value the field must have, or a list: any of them.")
    segment: SegmentName | None = Field(None, description="True for people in this segment.")
    tag: TagName | None = Field(None, description="True for people with this tag.")
    topic: TopicName | None = Field(None, description="True for people who agreed to this topic.")
    clicked: Clicked | None = Field(
        None,
        description="True when a person, not a machine, followed a link of this email: campaign/email, or campaign/* "
        "for any of its emails.",
    )
    event: EventName | None = Field(None, description="True when this event has happened to the subscriber.")
    joined: Literal[True] | None = Field(
        None, description="True for people who became subscribers within the time beside it."
    )
    within: Length | None = Field(None, description="Not longer ago than this; a month is 30 days.")


# --- campaign.yaml --------------------------------------------------------------


class OneTrigger(Model):
    """One thing that enrolls a subscriber."""

    what = "a trigger"
    later = ("segment",)
    peers = words(form="signup subscribe", event="webhook", manual="api", tag="tag_added", import_="upload csv")
    choices = one_of("form", "tag", "event", "import", "manual")

    form: FormName | None = Field(None, description="A person fills in this sign-up form and confirms by email.")
    tag: TagName | None = Field(None, description="This tag is added to a subscriber.")
    event: EventName | None = Field(None, description="This event arrives for a subscriber.")
    import_: Literal[True] | None = Field(
        None, alias="import", description="A person is imported who agreed to the campaign's topic."
    )
    manual: Literal[True] | None = Field(None, description="Somebody enrolls people by command or in the dashboard.")


class Trigger(OneTrigger):
    """What enrolls a subscriber."""

    choices = OneTrigger.choices | one_of("any")

    any: list[OneTrigger] | None = Field(
        None, min_length=1, description="A list of triggers: the first of these that happens."
    )


class Goal(Model):
    """What counts as success."""

    what = "a goal"
    peers = words(event="conversion metric", within="window deadline", name="title", then="on_reached exit")

    event: EventName = Field(description="The event that counts as success.")
    within: Length | None = Field(None, description="It counts when it happens within this time of joining.")
    name: Title | None = Field(None, description="What your team calls it.")
    then: Literal["exit", "continue"] = Field(
        "exit", description="Whether reaching it ends the series: exit, continue."
    )


class ExitRule(Model):
    """One reason to leave a series early."""

    what = "an exit"
    peers = words(after="timeout max_duration", event="converted", left_segment="leaves_segment")
    choices = one_of("tag", "event", "segment", "left_segment", "after")

    tag: TagName | None = Field(None, description="The subscriber has this tag.")
    event: EventName | None = Field(None, description="This event arrives for the subscriber.")
    segment: SegmentName | None = Field(None, description="The subscriber is in this segment.")
    left_segment: SegmentName | None = Field(None, description="The subscriber is no longer in this segment.")
    after: Length | None = Field(None, description="So much time has passed since joining.")


def _kind_of_wait(value: Any) -> str:
    if not isinstance(value, dict):
        return "<length>"
    return "<condition>" if isinstance(value.get("until"), dict) else "<moment>"


class WaitMoment(Model):
    """A wait for a moment."""

    what = "a wait"
    peers = words(until="for on when")

    until: UntilMoment = Field(
        description="A weekday and time (tuesday 10:00), a date (2026-12-03 09:30), or a time before or after a date "
        "field of the person (3 days before visit)."
    )


class WaitCondition(Model):
    """A wait until something is true of the person."""

    what = "a wait for a condition"
    peers = words(until="for on when", at_most="timeout max max_wait up_to")

    until: Condition = Field(description="What people wait for.")
    at_most: Length = Field(description="The longest that people wait for it: it may never come true.")


WaitEntry = Annotated[
    Annotated[Length, Tag("<length>")]
    | Annotated[WaitMoment, Tag("<moment>")]
    | Annotated[WaitCondition, Tag("<condition>")],
    Discriminator(_kind_of_wait),
]


class BranchEntry(Model):
    """Two ways to go on, chosen once for each person when they reach it. Both lead to the step after the branch."""

    what = "a branch"
    peers = words(name="title label", when="if condition where", then="yes true", else_="otherwise no false")

    name: Title = Field(description="What your team calls it, as a question. Also its lasting key, unless `key` is.")
    when: Condition = Field(description="What is asked about the person when they reach this step.")
    then: list[Step] | None = Field(None, description="The steps for those of whom it is true.")
    else_: list[Step] | None = Field(None, alias="else", description="The steps for all others.")


class Step(Model):
    """One thing in a campaign: an email, a wait, a branch, or a tag."""

    what = "a step"
    peers = words(
        wait="delay sleep pause wait_for",
        email="template send message mail body file document",
        subject="title subject_line",
        preheader="preview_text preview preheader_text snippet",
        branch="condition if split",
        tag="add_tag",
        untag="remove_tag",
        key="id name",
    )
    choices = one_of(
        email=Choice(needs=("subject",), allows=("preheader", "key", "send_window")),
        wait=Choice(allows=("key",)),
        branch=Choice(allows=("key",)),
        tag=Choice(allows=("key",)),
        untag=Choice(allows=("key",)),
    )

    email: DocumentName | None = Field(
        None, description="The Markdown file next to this one, without .md. Also the step's lasting key."
    )
    key: Key | None = Field(
        None, description="The step's lasting key, when it should differ from the file's name. History hangs on it."
    )
    subject: Subject | None = Field(None, description="The subject line: 30 to 55 characters, and discreet.")
    preheader: Preheader | None = Field(
        None, description="The grey line after the subject in the inbox: 35 to 110 characters."
    )
    send_window: SendWindow | None = Field(
        None, description="When this email may go out; what is left out counts as in the campaign's window."
    )
    wait: WaitEntry | None = Field(
        None, description="Time to let pass, as 2 days, 4 hours or 1 week; or `until` something, see there."
    )
    branch: BranchEntry | None = Field(None, description="Two ways to go on, by a question about the person.")
    tag: TagName | None = Field(None, description="Gives the person this tag, which starts what the tag triggers.")
    untag: TagName | None = Field(None, description="Takes this tag from the person.")


class CampaignFile(Model):
    """A drip: a series each subscriber starts on their own day."""

    what = "a campaign"
    later = (
        "owner",
        "holdout",
        "launch_at",
        "timezone",
        "archive",
        "email",
        "subject",
        "preheader",
        "key",
    )
    peers = words(
        trigger="entry on start starts_when enroll",
        reenter="re_enter reentry re_entry re_eligibility repeat",
        topic="list lists subscription category",
        steps="emails sequence flow actions nodes",
        name="title",
        send_window="quiet_hours delivery_window schedule",
        limits="frequency_cap cap throttle",
        goal="conversion",
        suppress="exclude suppression",
        audience="filter entry_filter segment who",
        exit="exit_conditions exit_criteria exits",
        approval="reviewer approved_by approver",
        type="kind",
    )

    type: Literal["drip"] = Field(description="drip: a series, started for each subscriber by a trigger.")
    name: Title = Field(description="What your team calls it. Subscribers never see it.")
    description: Note | None = Field(None, description="A note for your team. Subscribers never see it.")
    topic: TopicName = Field(
        description="What people agreed to get (topics in config/site.yaml). No email leaves without this consent."
    )
    approval: Address | None = Field(
        None, description="This person must approve the stored version before it starts. Any later change asks again."
    )
    trigger: Trigger = Field(description="What enrolls a subscriber.")
    audience: Condition | None = Field(
        None, description="Who may join: asked once, when the trigger happens. Left out: everybody it happens to."
    )
    reenter: Reenter | None = Field(
        None,
        description="Whether somebody may go through this series again: never (the default), or after <time>, counted "
        "from when they were last in it.",
    )
    suppress: list[SuppressRule] | None = Field(
        None, description="Checked before every email. Adds to the list in config/site.yaml, never takes away."
    )
    send_window: SendWindow | None = Field(
        None, description="When emails may go out. An email that is due outside the window waits for it to open."
    )
    limits: Limits | None = Field(None, description="Per subscriber. The stricter of this and config/site.yaml holds.")
    goal: Goal | None = Field(
        None, description="What counts as success. Reaching it ends the series, unless `then: continue`."
    )
    exit: list[ExitRule] | None = Field(
        None,
        description="Leave early when any of these is true. Unsubscribing, hard bounces, complaints and deletion "
        "always exit.",
    )
    steps: list[Step] = Field(min_length=1, description="The emails and what lies between them, in order.")


# --- claims.yaml --------------------------------------------------------------------


class Reviewed(Model):
    """Who checked a claim, and when."""

    what = "`reviewed`"
    missing_code = "D307"

    by: Line = Field(description="The person who checked the claim against its source.")
    date: Day = Field(description="The day they did.")


class ClaimEntry(Model):
    """One claim, and what it rests on."""

    what = "a claim"
    missing_code = "D307"
    peers = words(says="claim text", source="citation reference", reviewed="reviewer")

    says: Note = Field(description="The claim, in one sentence.")
    source: Note = Field(description="Where it stands: author, title, date, section.")
    reviewed: Reviewed = Field(description="Who checked it against the source, and when.")


# --- segments.yaml ------------------------------------------------------------------


class SegmentEntry(Model):
    """A saved, named filter over subscribers."""

    what = "a segment"
    peers = words(about="description", when="if where filter conditions")

    about: Note = Field(description="Who is in it, as your team says it.")
    when: Condition = Field(description="What is true of everybody in it.")


# --- site.yaml -------------------------------------------------------------------------


class ClinicEntry(Model):
    """The clinic's facts, as they stand in emails and pages."""

    what = "the clinic"
    peers = words(
        postal_address="address street",
        website="url",
        timezone="tz time_zone",
        language="lang locale",
        phone="telephone",
    )

    name: Line = Field(description="The full name, for the body and footer of emails.")
    short_name: Title = Field(description="For sender lines, page titles and calendar entries: it names no treatment.")
    legal_name: Line = Field(description="The name of the legal person, for the footer.")
    postal_address: Note = Field(description="The postal address: the law asks for it in every email.")
    phone: Line = Field(description="The number people may call.")
    website: Website = Field(description="The clinic's own site.")
    timezone: Zone = Field(description="The clinic's time zone: counts where a subscriber's is unknown.")
    language: Language = Field("en-US", description="The language of emails and pages.")
    safety_note: Literal["us-988"] = Field(
        "us-988", description="The crisis line in every footer. No template can remove it."
    )


class SenderEntry(Model):
    """Whom emails come from."""

    what = "the sender"
    peers = words(from_="from_email from_address", reply_to="reply replyto")

    from_: Sender = Field(alias="from", description="The sender of campaigns, as KCLA <hello@mail.example.com>.")
    service_from: Sender = Field(description="The sender of confirmations and booked calls, kept apart from campaigns.")
    reply_to: ReplyTo = Field(description="Where answers go. A person reads it.")

    @field_validator("service_from")
    @classmethod
    def _apart(cls, service: Mailbox, info: ValidationInfo) -> Mailbox:
        campaigns = info.data.get("from_")
        if campaigns and address.canonical(campaigns.address) == address.canonical(service.address):
            fail(
                "`from` and `service_from` are the same address",
                code="D504",
                help="keep confirmations and booked calls apart, so that campaigns cannot harm them",
            )
        return service


class LinksEntry(Model):
    """Where links in emails may lead."""

    what = "`links`"
    peers = words(base_url="domain url host", allow="allowed hosts")

    base_url: BaseUrl = Field(description="Every link of ours in an email starts with this: https and a host.")
    allow: list[Host] = Field([], description="The hosts a link may lead to. Others are refused.")


class PrivacyEntry(Model):
    """What is counted, and what a lock screen may show."""

    what = "`privacy`"
    peers = words(track_opens="open_tracking opens", track_clicks="click_tracking clicks")

    track_opens: OpensOff = Field(False, description="Always false: there is no tracking pixel.")
    track_clicks: bool = Field(True, description="Whether links in campaigns pass through this site and are counted.")
    discreet: bool = Field(True, description="Whether a subject that names a treatment or condition is reported.")
    discreet_words: list[Line] = Field([], description="Words to report besides the built-in ones.")
    keep_events: EventsKept = Field(EVENTS_KEPT, description="How long events and clicks are kept; 60 days at least.")
    keep_quiet_subscribers: QuietKept | None = Field(
        None, description="After so long without a sign of them people are asked, and erased without an answer."
    )


class TopicEntry(Model):
    """What a subscriber can agree to get."""

    what = "a topic"
    peers = words(title="name", about="description")

    title: Title = Field(description="Its name on the preferences page.")
    about: Note = Field(description="What comes and how often, in one sentence.")


class FormEntry(Model):
    """A sign-up form. Every answer keeps the wording it was given to."""

    what = "a form"
    peers = words(topic="list", asks="fields", consent="wording checkbox", also="topics offers")

    topic: TopicName = Field(description="The topic a person agrees to.")
    asks: dict[FieldName, Literal["required", "optional"]] = Field(
        {"email": "required"}, description="What the form asks for: each field required or optional. Email always is."
    )
    consent: Note = Field(description="The exact words a person agrees to.")
    also: list[TopicName] = Field([], description="Further topics the form offers, each with an unticked box.")

    @field_validator("also")
    @classmethod
    def _other_topics_once(cls, also: list[str], info: ValidationInfo) -> list[str]:
        if info.data.get("topic") in also:
            fail(f"`{info.data['topic']}` is the form's own topic", help="name other topics here, or leave `also` out")
        twice = sorted({name for name in also if also.count(name) > 1})
        if twice:
            fail(f"the topic `{twice[0]}` is offered twice", help="name each topic once")
        return also

    @field_validator("asks")
    @classmethod
    def _asks_for_the_address(cls, asks: dict[str, str]) -> dict[str, str]:
        if asks.get("email") != "required":
            fail("a form must ask for `email`, required", help="write {email: required, …}")
        return asks


class ConsultationEntry(Model):
    """The free phone call people can book."""

    what = "the consultation"
    peers = words(length="duration", title="name", hours="opening_hours slots", notify="email")

    title: Title = Field(description="For calendar entries and subjects. Never the treatment.")
    length: Length = Field(description="How long a call takes.")
    hours: dict[DaySpan, Hours] = Field(
        min_length=1, description="When calls can be booked, in the clinic's time: {mon-fri: 09:00-17:00}."
    )
    hold: Length = Field(description="How long a chosen time waits for the rest of the form.")
    caller_id: Line = Field(description="The number the call comes from, shown before booking.")
    notify: Address = Field(description="Who is told that a request is waiting, never who or why.")

    @field_validator("hours")
    @classmethod
    def _each_day_once(cls, hours: dict[str, tuple[time, time]]) -> dict[str, tuple[time, time]]:
        named = [day for span in hours for day in days_of(span)]
        twice = sorted({day for day in named if named.count(day) > 1})
        if twice:
            fail(f"the hours of `{DAYS[twice[0]]}` are given twice", help="name each day once")
        return hours


class SiteFile(Model):
    """This installation: true for every campaign unless a campaign is stricter. No secrets here."""

    what = "config/site.yaml"
    later = ("settled",)
    peers = words(
        clinic="company organization",
        sender="from",
        send_window="quiet_hours",
        limits="frequency_cap",
        topics="lists",
        consultation="call booking",
        suppress="exclude",
        warm_up="warmup ramp_up",
        delivery="sending",
    )

    version: Literal[1] = Field(description="The version of this file's format: 1.")
    clinic: ClinicEntry = Field(description="The clinic's facts, as they stand in emails and pages.")
    sender: SenderEntry = Field(description="Whom emails come from, and who reads the answers.")
    links: LinksEntry = Field(description="Where links in emails start and where they may lead.")
    send_window: SendWindow | None = Field(
        None, description="When emails may go out, unless a campaign says otherwise."
    )
    limits: Limits | None = Field(None, description="Per subscriber, over all campaigns.")
    suppress: list[SuppressRule] | None = Field(
        None, description="For every campaign. A campaign can add to this, never take away."
    )
    warm_up: WarmUpEntry | None = Field(
        None, description="A new sending domain starts small. Left out: the domain is warm, and nothing is capped."
    )
    delivery: DeliveryEntry | None = Field(None, description="How fast emails go out.")
    privacy: PrivacyEntry | None = Field(None, description="What is counted, and what a lock screen may show.")
    topics: dict[Key, TopicEntry] = Field(min_length=1, description="What people can agree to get.")
    forms: dict[Key, FormEntry] = Field({}, description="The sign-up forms.")
    fields: dict[NewField, Note] = Field(
        {}, description="What is kept of people beside the answers to forms: a name, and what it is."
    )
    events: dict[NewEvent, Note] = Field(
        {}, description="What other systems report about people: a name, and what it is."
    )
    consultation: ConsultationEntry = Field(description="The free phone call people can book.")
