"""What may stand as one value in a campaign file: each kind with its check, its own words, and its schema."""

from __future__ import annotations

import re
from datetime import date, time
from typing import Annotated, Any, Literal, NoReturn
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BeforeValidator, Discriminator, Field, PlainValidator, Tag, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from dripwell.content.problems import did_you_mean, nearest
from dripwell.content.reading import OPENS_ARE_NOT_TRACKED, Names, Reading, later_text
from dripwell.core import address
from dripwell.core.campaign import OUR_EVENTS, Mailbox
from dripwell.core.duration import UNITS, Duration
from dripwell.core.pace import GROUPS, PRESETS

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DayName = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def fail(text: str, *, code: str = "D101", help: str = "", label: str = "", note: str = "") -> NoReturn:
    """Refuse the value being validated, in our own words."""
    raise PydanticCustomError(
        code,
        "{text}",
        {"text": text, "help": help, "label": label, "note": note},
    )


def is_text(value: Any) -> str:
    """Return the value if it is text; numbers and truth values need quotes to be text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        fail("this must be text", label="put it in quotes")
    fail(f"this must be text, not {'a list' if isinstance(value, list) else 'keys of its own'}")


def _length(value: Any) -> Duration:
    if isinstance(value, dict):
        fail("this must be a length of time", help="a number and a unit: 2 days, 4 hours, 1 week")
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else is_text(value)
    parsed = Duration.parse(text) if re.match("[1-9]", text) and text == text.rstrip() else None
    if parsed is None:
        guess = _nearest_length(text)
        fail(
            f"`{text}` is not a length of time",
            label=f"did you mean `{guess}`?" if guess else "",
            help="a number and a unit: 2 days, 4 hours, 1 week",
        )
    return parsed


_SHORT_UNITS = {"m": "minute", "min": "minute", "h": "hour", "hr": "hour", "d": "day", "w": "week", "mo": "month"}
_NUMBER_WORDS = {"a": "1", "an": "1", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}


def _nearest_length(text: str) -> str:
    match = re.fullmatch(r"\s*(\d{1,4}|[a-z]+)?\s*([A-Za-z]+)?\.?\s*", text.lower())
    if match is None or not match[1]:
        return ""
    amount, word = match[1], match[2] or ""
    if not amount.isdigit():
        amount = _NUMBER_WORDS.get(amount, "")
    singular = word.removesuffix("s")
    unit = _SHORT_UNITS.get(singular) or nearest(singular, UNITS, cutoff=0.6) or ("day" if not word else "")
    if not amount or not unit or int(amount) == 0:
        return ""
    return f"{int(amount)} {unit}{'' if int(amount) == 1 else 's'}"


Length = Annotated[
    Duration,
    PlainValidator(_length),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[1-9]\d{0,3} (minute|hour|day|week|month)s?$",
            "examples": ["2 days", "4 hours", "1 week"],
        }
    ),
]


def _at_least(days: int, why: str) -> PlainValidator:
    def length(value: Any) -> Duration:
        found = _length(value)
        if found.at_most().days < days:
            fail(f"`{found}` is too short", label=f"{days} days at least", help=why)
        return found

    return PlainValidator(length)


_LENGTH_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": r"^[1-9]\d{0,3} (day|week|month)s?$", "examples": ["400 days", "12 months"]}
)
EventsKept = Annotated[
    Duration, _at_least(60, "warm-up, breakers and the settling of calls look back over weeks"), _LENGTH_SCHEMA
]
QuietKept = Annotated[
    Duration, _at_least(90, "whoever asked for one email a month is silent for months"), _LENGTH_SCHEMA
]


_REENTER = r"never|after [1-9]\d{0,3} (day|week|month)s?"


def _reenter(value: Any) -> Duration | None:
    text = is_text(value)
    if not re.fullmatch(_REENTER, text):
        guess = _nearest_length(text.removeprefix("after").strip())
        whole = guess.rpartition(" ")[2].removesuffix("s") in ("day", "week", "month")
        fail(
            f"`{text}` does not say whether somebody may go through the series again",
            label=f"did you mean `after {guess}`?" if whole else "",
            help="never, or after a time in days, weeks or months: after 180 days",
        )
    return Duration.parse(text.removeprefix("after "))


Reenter = Annotated[
    Duration | None,
    PlainValidator(_reenter),
    WithJsonSchema({"type": "string", "pattern": f"^({_REENTER})$", "examples": ["never", "after 180 days"]}),
]


def _subject(value: Any) -> Any:
    if isinstance(value, dict) and "test" in value:
        fail(later_text("a subject test"), code="D106", help="write one subject")
    return _line(value)


def _line(value: Any) -> str:
    text = is_text(value)
    if re.search(r"[\x00-\x1f\x7f\u2028\u2029]", text):
        fail("this must be one line, without control characters", code="D514")
    if not text.strip():
        fail("this is empty text", help="write something, or remove the key")
    return text


def _longest(limit: int) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, str) and len(value) > limit:
            fail(f"this is {len(value)} characters long; {limit} is the most")
        return value

    return BeforeValidator(check)


_LINE_SCHEMA: dict[str, Any] = {"type": "string", "pattern": r"^[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f\s][^\x00-\x1f\x7f]*$"}

Line = Annotated[str, BeforeValidator(_line), WithJsonSchema(_LINE_SCHEMA)]
Title = Annotated[str, _longest(80), BeforeValidator(_line), WithJsonSchema({**_LINE_SCHEMA, "maxLength": 80})]
Subject = Annotated[str, _longest(90), BeforeValidator(_subject), WithJsonSchema({**_LINE_SCHEMA, "maxLength": 90})]
Preheader = Annotated[str, _longest(200), BeforeValidator(_line), WithJsonSchema({**_LINE_SCHEMA, "maxLength": 200})]


def _note(value: Any) -> str:
    text = is_text(value)
    if not text.strip():
        fail("this is empty text", help="write something, or remove the key")
    return text


Note = Annotated[str, BeforeValidator(_note), WithJsonSchema({"type": "string", "pattern": r"\S"})]

_KEY = r"[a-z0-9][a-z0-9-]{0,79}"


def _key(value: Any) -> str:
    text = is_text(value)
    if not re.fullmatch(_KEY, text):
        guess = re.sub(r"[^a-z0-9]+", "-", text.removesuffix(".md").lower()).strip("-")
        fail(
            f"`{text}` cannot be a name here",
            label=f"did you mean `{guess}`?" if re.fullmatch(_KEY, guess) else "",
            help="small letters, digits and hyphens, as in 1-adaptability",
        )
    return text


Key = Annotated[str, BeforeValidator(_key), WithJsonSchema({"type": "string", "pattern": f"^{_KEY}$"})]

_EVENT = r"[a-z][a-z0-9_]*([.-][a-z0-9_]+)*"


_EVENT_SCHEMA = WithJsonSchema({"type": "string", "pattern": f"^{_EVENT}$", "examples": ["consultation.booked"]})


def _new_event(value: Any) -> str:
    text = is_text(value)
    if not re.fullmatch(_EVENT, text):
        fail(f"`{text}` is not the name of an event", help="as in consultation.booked")
    return text


def _declared_event(value: Any) -> str:
    text = _new_event(value)
    if text in OUR_EVENTS:
        fail(f"`{text}` is an event that Dripwell tells of itself", label="remove this line")
    return text


def _event(value: Any, info: ValidationInfo) -> str:
    text = _new_event(value)
    known = _names(info).events
    if known is not None and text not in known:
        fail(
            f"no event is named `{text}`",
            code="D201",
            label=did_you_mean(text, known),
            help=f"events you have: {listed(known)}",
            note="one that another system reports is declared under `events` in config/site.yaml",
        )
    return text


NewEvent = Annotated[str, BeforeValidator(_declared_event), _EVENT_SCHEMA]
EventName = Annotated[str, BeforeValidator(_event), _EVENT_SCHEMA]

_TAG = r"[A-Za-z0-9][A-Za-z0-9/_.:-]{0,99}"


def _tag(value: Any) -> str:
    text = is_text(value)
    if not re.fullmatch(_TAG, text):
        fail(f"`{text}` cannot be a tag", help="letters, digits, hyphens and slashes, as in asked-for/sleep-guide")
    return text


TagName = Annotated[str, BeforeValidator(_tag), WithJsonSchema({"type": "string", "pattern": f"^{_TAG}$"})]

_FIELD = r"[a-z][a-z0-9_]{0,59}"


def _field(value: Any) -> str:
    text = is_text(value)
    if not re.fullmatch(_FIELD, text):
        fail(f"`{text}` cannot be the name of a field", help="small letters, digits and underscores, as in first_name")
    return text


def known_field(value: Any, info: ValidationInfo) -> str:
    """Return the name of a field that this installation knows, or refuse it."""
    text = _field(value)
    if text == "email":
        fail("a condition cannot ask for the address", help="ask for a tag, a topic or another field")
    known = _names(info).fields
    if known is not None and text not in known:
        fail(
            f"no field is named `{text}`",
            code="D201",
            label=did_you_mean(text, known),
            help=f"fields you have: {listed(known)}",
            note="one that comes with an import or through the API is declared under `fields` in config/site.yaml",
        )
    return text


def _declared_field(value: Any) -> str:
    text = _field(value)
    if text == "email":
        fail("`email` is no field: it is who somebody is", label="remove this line")
    return text


FieldName = Annotated[str, BeforeValidator(_field), WithJsonSchema({"type": "string", "pattern": f"^{_FIELD}$"})]


KnownField = Annotated[
    str, BeforeValidator(known_field), WithJsonSchema({"type": "string", "pattern": f"^(?!email$){_FIELD}$"})
]
NewField = Annotated[
    str, BeforeValidator(_declared_field), WithJsonSchema({"type": "string", "pattern": f"^(?!email$){_FIELD}$"})
]


def listed(names: tuple[str, ...]) -> str:
    """Return the names with commas, cut short when there are many."""
    return ", ".join(names[:12]) + (" …" if len(names) > 12 else "")


def _refer(value: Any, kind: str, known: tuple[str, ...] | None) -> str:
    text = is_text(value)
    if known is not None and text not in known:
        fail(
            f"no {kind} is named `{text}`",
            code="D201",
            label=did_you_mean(text, known),
            help=f"{kind}s you have: {listed(known)}" if known else f"you have no {kind}s yet",
        )
    return text


def _names(info: ValidationInfo) -> Names:
    return info.context.names if isinstance(info.context, Reading) else Names()


def _topic(value: Any, info: ValidationInfo) -> str:
    return _refer(value, "topic", _names(info).topics)


def _segment(value: Any, info: ValidationInfo) -> str:
    return _refer(value, "segment", _names(info).segments)


def _form(value: Any, info: ValidationInfo) -> str:
    return _refer(value, "form", _names(info).forms)


def _other_campaign(value: Any, info: ValidationInfo) -> str:
    text = _key(value)
    names = _names(info)
    if names.campaign and text == names.campaign:
        fail("a campaign cannot wait for itself", code="D201", help="name another campaign")
    return _refer(text, "campaign", names.campaigns)


def _document(value: Any, info: ValidationInfo) -> str:
    text = _key(value)
    known = _names(info).documents
    if known is not None and text not in known:
        fail(
            f"there is no file `{text}.md` next to this one",
            code="D201",
            label=did_you_mean(text, known),
            help=f"files you have: {listed(known)}" if known else f"write {text}.md",
        )
    return text


_CLICKED = rf"({_KEY}/)?{_KEY}|{_KEY}/\*"


def _clicked(value: Any, info: ValidationInfo) -> tuple[str, str | None]:
    text = is_text(value)
    names = _names(info)
    if not re.fullmatch(_CLICKED, text):
        fail(
            f"`{text}` does not name an email",
            help="a campaign and one of its emails, or all of them: seven-benefits/1-adaptability, seven-benefits/*",
        )
    if not names.tracks_clicks:
        fail(
            "nobody knows who clicked: `privacy.track_clicks` is false",
            code="D204",
            help="ask for something else, or turn click tracking on in config/site.yaml",
        )
    campaign, slash, step = text.rpartition("/")
    if not slash:
        if not names.campaign:
            homes = [name for name, keys in names.emails.items() if step in keys]
            guess = f"{homes[0]}/{step}" if len(homes) == 1 else ""
            fail(
                f"`{step}` does not say which campaign’s email",
                label=f"did you mean `{guess}`?" if guess else "",
                help=f"write the campaign before it: CAMPAIGN/{step}",
            )
        campaign = names.campaign
    if campaign != names.campaign:
        _refer(campaign, "campaign", names.campaigns)
    known = names.emails.get(campaign)
    if step != "*" and known is not None and step not in known:
        fail(
            f"no email of {campaign} has the key `{step}`",
            code="D201",
            label=did_you_mean(step, known),
            help=f"its emails: {listed(known)}" if known else "it has no emails yet",
        )
    return campaign, None if step == "*" else step


Clicked = Annotated[
    tuple[str, str | None],
    PlainValidator(_clicked),
    WithJsonSchema({"type": "string", "pattern": f"^({_CLICKED})$", "examples": ["seven-benefits/*"]}),
]
_NAME_SCHEMA = WithJsonSchema({"type": "string", "minLength": 1})
TopicName = Annotated[str, BeforeValidator(_topic), _NAME_SCHEMA]
SegmentName = Annotated[str, BeforeValidator(_segment), _NAME_SCHEMA]
FormName = Annotated[str, BeforeValidator(_form), _NAME_SCHEMA]
CampaignName = Annotated[
    str, BeforeValidator(_other_campaign), WithJsonSchema({"type": "string", "pattern": f"^{_KEY}$"})
]
DocumentName = Annotated[str, BeforeValidator(_document), WithJsonSchema({"type": "string", "pattern": f"^{_KEY}$"})]


def _address(value: Any) -> str:
    text = is_text(value)
    try:
        return address.check(text)
    except ValueError as error:
        reason = str(error).rstrip(".")
        fail(f"`{text}` is not an email address", note=f"{reason[:1].lower()}{reason[1:]}")


_ADDRESS = r"[^@\s<>]+@[^@\s<>]+\.[^@\s<>]+"
Address = Annotated[str, BeforeValidator(_address), WithJsonSchema({"type": "string", "pattern": f"^{_ADDRESS}$"})]

_NOBODY = re.compile(r"(no|do-?not|dont)[-_.]?reply", re.IGNORECASE)


def _refuse_nobody(mail: str) -> None:
    if _NOBODY.match(mail.partition("@")[0]):
        fail(
            "nobody reads a `noreply` address",
            code="D504",
            help="use an address a person reads; people answer emails like these",
        )


def _reply_to(value: Any) -> str:
    mail = _address(value)
    _refuse_nobody(mail)
    return mail


ReplyTo = Annotated[str, BeforeValidator(_reply_to), WithJsonSchema({"type": "string", "pattern": f"^{_ADDRESS}$"})]


def _mailbox(value: Any) -> Mailbox:
    text = is_text(value)
    match = re.fullmatch(r"([^<>\"\x00-\x1f\x7f]*\S)\s*<([^<>]+)>", text)
    if match is None:
        fail(f"`{text}` is not a sender", help="a name and an address: KCLA <hello@mail.example.com>")
    name = match[1].strip()
    if not name.isascii():
        fail(
            "the sender's name may hold plain letters only", code="D514", help="some mail apps show others as gibberish"
        )
    mail = _address(match[2].strip())
    _refuse_nobody(mail)
    return Mailbox(name, mail)


Sender = Annotated[
    Mailbox,
    PlainValidator(_mailbox),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[^<>\"]*[^<>\"\s]\s*<\s*" + _ADDRESS + r"\s*>$",
            "examples": ["KCLA <hello@mail.example.com>"],
        }
    ),
]

_SPAN = r"(?:[01]\d|2[0-3]):[0-5]\d-(?:(?:[01]\d|2[0-3]):[0-5]\d|24:00)"


def _hours(value: Any) -> tuple[time, time]:
    text = is_text(value)
    if not re.fullmatch(_SPAN, text):
        numbers = re.fullmatch(r"\s*(\d{1,2})(?::(\d\d))?\s*(?:-|–|to)\s*(\d{1,2})(?::(\d\d))?\s*", text)
        guess = ""
        if numbers:
            guess = f"{int(numbers[1]):02}:{numbers[2] or '00'}-{int(numbers[3]):02}:{numbers[4] or '00'}"
        fail(
            f"`{text}` is not a span of the day",
            label=f"did you mean `{guess}`?" if guess != text and re.fullmatch(_SPAN, guess) else "",
            help="two times of 24 hours with a hyphen: 09:00-18:00",
        )
    opens, closes = (_clock(part) for part in text.split("-"))
    if text.split("-")[0] >= text.split("-")[1]:
        fail(
            f"`{text}` closes before it opens",
            help="a window cannot run past midnight; 24:00 is the end of the day",
        )
    return opens, closes


def _clock(text: str) -> time:
    hour, minute = (int(part) for part in text.split(":"))
    return time(hour % 24, minute)  # 24:00 is midnight: 00:00 as an end


Hours = Annotated[
    tuple[time, time],
    PlainValidator(_hours),
    WithJsonSchema({"type": "string", "pattern": f"^{_SPAN}$", "examples": ["09:00-18:00"]}),
]


def _days(value: Any) -> frozenset[int]:
    words = {"any": range(7), "weekdays": range(5), "weekends": range(5, 7)}
    text = is_text(value)
    if text not in words:
        fail(
            f"`{text}` does not name days",
            label=did_you_mean(text, [*words, *(f"[{day}]" for day in DAYS)]),
            help="any, weekdays, weekends, or a list: [tue, wed, thu]",
        )
    return frozenset(words[text])


def _is_list(value: Any) -> str:
    return "<list>" if isinstance(value, list) else "<one>"


Days = Annotated[
    Annotated[
        frozenset[int],
        PlainValidator(_days),
        WithJsonSchema({"type": "string", "enum": ["any", "weekdays", "weekends"]}),
        Tag("<one>"),
    ]
    | Annotated[list[DayName], Field(min_length=1), Tag("<list>")],
    Discriminator(_is_list),
]


def _zone(value: Any) -> str:
    text = is_text(value)
    try:
        ZoneInfo(text)
    except (ValueError, OSError, LookupError):  # ZoneInfo raises each of them for some kind of nonsense
        zones = available_timezones()
        tails = {zone.rpartition("/")[2].lower(): zone for zone in sorted(zones, reverse=True)}
        words = text.replace(" ", "_")
        guess = nearest(words, zones) or tails.get(nearest(words.rpartition("/")[2].lower(), tails), "")
        fail(
            f"there is no time zone `{text}`",
            label=f"did you mean `{guess}`?" if guess else "",
            help="a name such as America/Los_Angeles",
        )
    return text


def _window_zone(value: Any) -> str:
    return "subscriber" if value == "subscriber" else _zone(value)


Zone = Annotated[
    str, BeforeValidator(_zone), WithJsonSchema({"type": "string", "minLength": 1, "examples": ["America/Los_Angeles"]})
]
WindowZone = Annotated[
    str,
    BeforeValidator(_window_zone),
    WithJsonSchema({"type": "string", "minLength": 1, "examples": ["subscriber", "America/Los_Angeles"]}),
]


def _rate(value: Any) -> tuple[int, Duration]:
    text = is_text(value) if not isinstance(value, int) or isinstance(value, bool) else str(value)
    match = re.fullmatch(r"([1-9]\d{0,2}) per (day|week|month)", text)
    if match is None:
        amount = re.match(r"\s*([1-9]\d{0,2})\b", text)
        unit = next((unit for unit in ("day", "week", "month") if unit[:3] in text.lower()), "week")
        fail(
            f"`{text}` is not a limit",
            label=f"did you mean `{amount[1]} per {unit}`?" if amount else "",
            help="a number per day, week or month: 3 per week",
        )
    return int(match[1]), Duration(1, match[2])  # type: ignore[arg-type]


Rate = Annotated[
    tuple[int, Duration],
    PlainValidator(_rate),
    WithJsonSchema({"type": "string", "pattern": r"^[1-9]\d{0,2} per (day|week|month)$", "examples": ["3 per week"]}),
]


_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


def _throughput(value: Any) -> float:
    text = is_text(value) if not isinstance(value, int) or isinstance(value, bool) else str(value)
    match = re.fullmatch(r"([1-9]\d{0,6}) per (second|minute|hour|day)", text)
    if match is None:
        amount = re.match(r"\s*([1-9]\d{0,6})\b", text)
        span = re.search(r"(?:/|per|an?)\s*([a-z]+?)s?\s*$", text.lower())
        # A week or nothing at all gets no suggestion: to guess `second` would mean a million times too fast.
        unit = span and next((unit for unit in _SECONDS if unit.startswith(span[1]) or unit[:3] == span[1][:3]), None)
        fail(
            f"`{text}` is not a pace",
            label=f"did you mean `{amount[1]} per {unit}`?" if amount and unit else "",
            help="a number per second, minute, hour or day: 3000 per hour",
        )
    return int(match[1]) / _SECONDS[match[2]]


Throughput = Annotated[
    float,
    PlainValidator(_throughput),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[1-9]\d{0,6} per (second|minute|hour|day)$",
            "examples": ["2000 per second", "3000 per hour"],
        }
    ),
]


def _preset(value: Any) -> str:
    text = is_text(value)
    if text not in PRESETS:
        fail(f"there is no warm-up `{text}`", label=did_you_mean(text, PRESETS), help=f"there are: {listed(PRESETS)}")
    return text


def _group(value: Any) -> str:
    text = is_text(value)
    if text not in GROUPS:
        fail(
            f"there is no mailbox group `{text}`", label=did_you_mean(text, GROUPS), help=f"there are: {listed(GROUPS)}"
        )
    return text


Preset = Annotated[str, BeforeValidator(_preset), WithJsonSchema({"type": "string", "enum": list(PRESETS)})]
MailboxGroup = Annotated[
    str, BeforeValidator(_group), WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(GROUPS)})$"})
]


def _base_url(value: Any) -> str:
    text = is_text(value)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        fail(f"`{text}` is not a web address", help="as in https://mail.example.com")
    del port
    if parts.scheme not in ("http", "https") or not host:
        fail(f"`{text}` is not a web address", help="as in https://mail.example.com")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc or re.search(r"\s", text):
        fail("a base URL is only https:// and a host", help=f"as in https://{host}")
    if parts.scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        fail(
            "links in emails must be https",
            label=f"use `https://{host}`",
            help="http is accepted for this machine only (localhost)",
        )
    return text.rstrip("/")


BaseUrl = Annotated[
    str,
    BeforeValidator(_base_url),
    WithJsonSchema({"type": "string", "pattern": r"^https?://[^/\s?#@]+/?$", "examples": ["https://mail.example.com"]}),
]


def _website(value: Any) -> str:
    text = is_text(value)
    if not re.fullmatch(r"https://[^/\s?#@]+(/\S*)?", text):
        fail(f"`{text}` is not an https address", help="as in https://example.com")
    return text


Website = Annotated[
    str, BeforeValidator(_website), WithJsonSchema({"type": "string", "pattern": r"^https://[^/\s?#@]+(/\S*)?$"})
]

_HOST = r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"


def _host(value: Any) -> str:
    text = is_text(value)
    if not re.fullmatch(_HOST, text):
        fail(f"`{text}` is not a host", help="only the name, in small letters: example.com")
    return text


Host = Annotated[str, BeforeValidator(_host), WithJsonSchema({"type": "string", "pattern": f"^{_HOST}$"})]


def _language(value: Any) -> str:
    text = is_text(value)
    if not re.fullmatch(r"[a-z]{2,3}(-[A-Z]{2})?", text):
        fail(f"`{text}` is not a language", help="as in en-US")
    return text


Language = Annotated[
    str, BeforeValidator(_language), WithJsonSchema({"type": "string", "pattern": "^[a-z]{2,3}(-[A-Z]{2})?$"})
]

_DAY_SPAN = f"({'|'.join(DAYS)})(?:-({'|'.join(DAYS)}))?"


def _day_span(value: Any) -> str:
    match = re.fullmatch(_DAY_SPAN, value) if isinstance(value, str) else None
    if match is None or (match[2] and DAYS.index(match[1]) >= DAYS.index(match[2])):
        fail(f"`{value}` does not name days", help="a day or a span of days: sat, mon-fri")
    return str(value)


def days_of(span: str) -> range:
    """Return the weekdays (Monday = 0) that `sat` or `mon-fri` names."""
    first, _, last = span.partition("-")
    return range(DAYS.index(first), DAYS.index(last or first) + 1)


DaySpan = Annotated[str, BeforeValidator(_day_span), WithJsonSchema({"type": "string", "pattern": f"^{_DAY_SPAN}$"})]


def _day(value: Any) -> date:
    text = is_text(value)
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError:
        fail(f"`{text}` is not a date", help="year, month, day: 2026-10-01")


Day = Annotated[date, PlainValidator(_day), WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"})]


def _opens_off(value: Any) -> bool:
    if value is True:
        fail(later_text("`track_opens: true`"), code="D106", help="write false", note=OPENS_ARE_NOT_TRACKED)
    if value is not False:
        fail("this must be false")
    return False


OpensOff = Annotated[bool, BeforeValidator(_opens_off), WithJsonSchema({"type": "boolean", "const": False})]
Scalar = str | int | float | bool


def _scalar(value: Any) -> Scalar:
    if not isinstance(value, str | int | float | bool):
        fail("this must be one value, or a list of values")
    if isinstance(value, str) and re.search(r"[\x00-\x08\x0e-\x1f\x7f]", value):
        fail("this must be without control characters: no field holds them", code="D514")
    if isinstance(value, int | float) and not abs(value) < 10**15:
        fail("this number is too large to be told from its neighbors", help="if it is a code, put it in quotes")
    return value


OneValue = Annotated[
    Scalar, PlainValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]}), Tag("<one>")
]
Values = Annotated[
    OneValue
    | Annotated[
        list[Annotated[Scalar, PlainValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]})]],
        Field(min_length=1),
        Tag("<list>"),
    ],
    Discriminator(_is_list),
]
