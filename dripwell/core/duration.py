"""Lengths of time as a marketer writes them: `2 days` is local-date arithmetic, not 48 hours."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Unit = Literal["minute", "hour", "day", "week", "month"]
UNITS: tuple[Unit, ...] = ("minute", "hour", "day", "week", "month")
_PATTERN = re.compile(r"(\d{1,4}) (minute|hour|day|week|month)s?")


@dataclass(frozen=True, slots=True)
class Duration:
    """A number and a unit. Minutes and hours are exact; days, weeks and months keep the local time of day."""

    amount: int
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Duration | None:
        """Read `2 days`, `4 hours`, `1 week`; None when the text is not a length of time."""
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            return None
        return cls(int(match[1]), match[2])  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}{'' if self.amount == 1 else 's'}"

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """Return the aware UTC moment this long after `moment`, counting days and months on the calendar of `zone`.

        A local time that a clock change skips moves forward by the gap; of a doubled one the first counts
        (fold=0, rules 9.1). A month's last days are clamped: January 31 + 1 month is the end of February.
        """
        if self.unit in ("minute", "hour"):
            return moment + self.at_most()
        local = moment.astimezone(zone)
        day = _add_days(local.date(), self)
        return resolve(datetime.combine(day, local.time()), zone)

    def ago(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """Return the aware UTC moment this long before `moment`, counted as in `after`."""
        if self.unit in ("minute", "hour"):
            return moment - self.at_most()
        local = moment.astimezone(zone)
        back = Duration(-self.amount, self.unit)
        return resolve(datetime.combine(_add_days(local.date(), back), local.time()), zone)

    def at_most(self) -> timedelta:
        """The length as a plain span, a month as 30 days: for looking back over rows, never for due times."""
        days = {"day": 1, "week": 7, "month": 30}
        if self.unit in days:
            return timedelta(days=days[self.unit] * self.amount)
        return timedelta(**{f"{self.unit}s": self.amount})


def _add_days(day: date, duration: Duration) -> date:
    if duration.unit == "month":
        months = day.year * 12 + day.month - 1 + duration.amount
        year, month = divmod(months, 12)
        return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
    return day + timedelta(days=duration.amount * (7 if duration.unit == "week" else 1))


def resolve(local: datetime, zone: ZoneInfo) -> datetime:
    """Turn a naive local time into the UTC moment it means in `zone` (missing: forward by the gap; doubled: first)."""
    utc = ZoneInfo("UTC")
    return local.replace(tzinfo=zone, fold=0).astimezone(utc)
