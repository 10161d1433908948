"""How fast mail may go out: warm-up curves and mailbox groups (rules 8 and 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta

GROUPS = ("gmail", "outlook", "yahoo", "icloud", "other")
"""Who decides together whether they like our mail. AOL is Yahoo's; a company's own domain is `other`."""

IDLE = timedelta(days=30)
"""After so long without a campaign email a sending domain is cold again, and its curve begins anew (rules 8.1)."""

_DOMAINS: Mapping[str, tuple[str, ...]] = {
    "gmail": ("gmail.com", "googlemail.com"),
    "outlook": ("outlook.com", "hotmail.com", "live.com", "msn.com", "passport.com", "windowslive.com"),
    "yahoo": (
        *("yahoo.com", "ymail.com", "rocketmail.com", "myyahoo.com"),
        *("aol.com", "aim.com", "love.com", "games.com", "wow.com", "verizon.net", "netscape.net", "cs.com"),
    ),
    "icloud": ("icloud.com", "me.com", "mac.com"),
}
_GROUP_OF = {domain: group for group, domains in _DOMAINS.items() for domain in domains}
# Both give every country a domain of its own: outlook.fr, hotmail.co.uk, yahoo.co.jp.
_COUNTRIES = {"outlook": "outlook", "hotmail": "outlook", "live": "outlook", "yahoo": "yahoo", "aol": "yahoo"}
_SECOND_LEVEL = frozenset({"co", "com"})

_NEW_DOMAIN = (50, 75, 112, 169, 253, 380, 570, 854, 1281, 1922, 2883, 4325, 6487, 9731)
_GHOST_DAYS = 41
_SENDGRID_2017_DAILY = (
    *(50, 100, 500, 1_000, 5_000, 10_000, 20_000, 40_000, 70_000, 100_000),
    *(150_000, 250_000, 400_000, 600_000, 1_000_000, 2_000_000, 4_000_000),
)
# Day 12 is off the curve of × 1.4; kept as SendGrid prints it.
_SENDGRID_HOURLY = (
    *(20, 28, 39, 55, 77, 108, 151, 211, 295, 413, 579, 810, 1_000, 1_587, 2_222, 3_111, 4_356, 6_098, 8_583, 11_953),
    *(16_734, 23_427, 32_798, 45_917, 64_284, 89_998, 125_997, 176_395, 246_953, 345_735, 484_029, 677_640, 948_696),
    *(1_328_175, 1_859_444, 2_603_222),
)
PRESETS = ("new-domain", "ghost-42", "sendgrid-2017-daily", "sendgrid-hourly")
HOURLY = frozenset({"sendgrid-hourly"})
"""Presets whose numbers are per hour; the others are per day."""

_MOST = 10**9  # a curve that has grown past this says nothing any more


def group_of(address: str) -> str:
    """The mailbox group of an address, by its domain alone: a company that rents Google's servers is `other`."""
    domain = address.rpartition("@")[2].strip().rstrip(".").lower()
    known = _GROUP_OF.get(domain)
    if known is not None:
        return known
    name, _, rest = domain.partition(".")
    *second, country = rest.split(".")
    is_country = len(country) == 2 and country.isascii() and country.isalpha()
    if name in _COUNTRIES and is_country and (not second or (len(second) == 1 and second[0] in _SECOND_LEVEL)):
        return _COUNTRIES[name]
    return "other"


def domains_of(group: str) -> tuple[str, ...]:
    """The domains of a group that are the same in every country."""
    return _DOMAINS.get(group, ())


def cap(preset: str, day: int) -> int:
    """How many marketing messages may be accepted on `day` (0 is the first) of a preset; per hour if it is in HOURLY.

    Before day 0 it is 0. Past the end of its table a daily curve keeps growing; the hourly one stays at its last
    number. The curves are those of rules 8. Raises KeyError for an unknown preset.
    """
    curve = _CURVES[preset]
    if day < 0:
        return 0
    return min(curve(day), _MOST)


def is_ramp(preset: str, day: int) -> bool:
    """Whether this day is still part of the printed curve: a new sender, not one that has arrived."""
    return 0 <= day < _LENGTHS[preset]


def _grown(table: tuple[int, ...], factor: float, day: int) -> int:
    if day < len(table):
        return table[day]
    beyond = min(day - len(table) + 1, 100)
    return math.floor(min(table[-1] * math.pow(factor, beyond), _MOST))


def _new_domain(day: int) -> int:
    return _grown(_NEW_DOMAIN, 1.5, day)


def _ghost(day: int) -> int:
    return round(200 * math.pow(1_000, min(day, 2 * _GHOST_DAYS) / _GHOST_DAYS))


def _daily_2017(day: int) -> int:
    return _grown(_SENDGRID_2017_DAILY, 2.0, day)


def _hourly(day: int) -> int:
    return _SENDGRID_HOURLY[min(day, len(_SENDGRID_HOURLY) - 1)]


_CURVES: Mapping[str, Callable[[int], int]] = {
    "new-domain": _new_domain,
    "ghost-42": _ghost,
    "sendgrid-2017-daily": _daily_2017,
    "sendgrid-hourly": _hourly,
}
_LENGTHS: Mapping[str, int] = {
    "new-domain": len(_NEW_DOMAIN),
    "ghost-42": _GHOST_DAYS + 1,
    "sendgrid-2017-daily": len(_SENDGRID_2017_DAILY),
    "sendgrid-hourly": len(_SENDGRID_HOURLY),
}


def start_of(first_day: date, mailed: Iterable[date], today: date) -> date:
    """Day 0 of the curve that holds `today`: `first_day`, or the day on which mail began again after IDLE without any.

    `mailed` are days with an accepted marketing message; days before `first_day` do not count. Somebody who is idle now
    begins today.
    """
    start = last = first_day
    for day in sorted(day for day in mailed if first_day <= day < today):
        if day - last > IDLE:
            start = day
        last = day
    return today if today - last > IDLE else start


def day_number(start: date, today: date, frozen: Iterable[tuple[date, date]] = ()) -> int:
    """Days of growth from `start` to `today`: 0 on the first day, negative before it.

    `frozen` are spans of days, the first one inclusive and the last one not, on which the curve stands still; they may
    overlap.
    """
    stood = {start + timedelta(n) for n in range(1, (today - start).days + 1)} if today > start else set()
    still = {day for day in stood if any(first <= day - timedelta(1) < last for first, last in frozen)}
    return (today - start).days - len(still)
