"""What may stand after `until`: a weekday and a time, a day of the calendar, or a date of the person."""

from __future__ import annotations

import re
from datetime import datetime, time
from typing import Annotated, Any

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from dripwell.content.problems import nearest
from dripwell.content.values import fail, is_text, known_field
from dripwell.core.campaign import WaitClock, WaitDate, WaitField
from dripwell.core.duration import Duration

Moment = WaitClock | WaitDate | WaitField
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d"
_CLOCK = rf"({'|'.join(WEEKDAYS)}) ({_TIME})"
_DATE = rf"\d{{4}}-\d{{2}}-\d{{2}} {_TIME}"
_LENGTH = r"[1-9]\d{0,3} (?:minute|hour|day|week|month)s?"
_BESIDE = rf"({_LENGTH}) (before|after) ([a-z][a-z0-9_]{{0,59}})"
_HELP = "tuesday 10:00, 2026-12-03 09:30, 3 days before a field of the person, or a condition"


def _moment(value: Any, info: ValidationInfo) -> Moment:
    """One of the three, without its key yet."""
    text = is_text(value)
    clock = re.fullmatch(_CLOCK, text)
    if clock:
        return WaitClock("", WEEKDAYS.index(clock[1]), time.fromisoformat(clock[2]))
    if re.fullmatch(_DATE, text):
        try:
            return WaitDate("", datetime.fromisoformat(text))  # naive on purpose: the person's own clock
        except ValueError:
            fail(f"there is no day `{text[:10]}`", help="year, month, day: 2026-12-03 09:30")
    beside = re.fullmatch(_BESIDE, text)
    if beside:
        length = Duration.parse(beside[1])
        assert length is not None
        return WaitField("", known_field(beside[3], info), length, before=beside[2] == "before")
    fail(f"nobody knows when `{text}` is", label=_guess(text), help=_HELP)


def _guess(text: str) -> str:
    words = re.fullmatch(r"\s*([A-Za-z]+)\.?\s+(?:at\s+)?(\d{1,2})(?::(\d\d))?\s*", text)
    if words is None:
        return ""
    short = [day for day in WEEKDAYS if len(words[1]) >= 2 and day.startswith(words[1].lower())]
    day = short[0] if short else nearest(words[1].lower(), WEEKDAYS)
    guess = f"{day} {int(words[2]):02}:{words[3] or '00'}"
    return f"did you mean `{guess}`?" if day and re.fullmatch(_CLOCK, guess) else ""


UntilMoment = Annotated[
    Moment,
    PlainValidator(_moment),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^({_CLOCK}|{_DATE}|{_BESIDE})$",
            "examples": ["tuesday 10:00", "2026-12-03 09:30", "3 days before visit"],
        }
    ),
]
