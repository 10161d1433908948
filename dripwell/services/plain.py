"""What we keep about a person, in words: the record's rows become short lists of facts under headings.

The person's page and `dripwell subscribers data` say the same words, which are for the person to read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from dripwell.core.address import masked
from dripwell.core.campaign import Site
from dripwell.services.versions import SERVICE_LANES

MOST = 25
"""How many entries of a section a page shows, the newest; the download has them all."""
Row = Mapping[str, Any]
Titles = Mapping[tuple[str, str], str]
"""What a campaign (its name, and "") and an email (both names) are called; see `services.mine.titles`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing we know: what it is, and facts about it as (label, value)."""

    title: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Things of one kind, newest first; `more` are in the download only."""

    title: str
    entries: tuple[Entry, ...]
    more: int = 0


_SECTIONS: Mapping[str, str] = {
    "consents": "What you agreed to",
    "requests": "Forms you sent",
    "series": "Series you are or were in",
    "emails": "Emails made for you",
    "provider_events": "What our email provider reported",
    "clicks": "Links you followed",
    "calls": "Phone calls you booked",
    "call_wishes": "Times you asked us to call",
    "suppressions": "Our do-not-email list",
    "provider_lists": "Our email provider’s do-not-email lists",
    "happenings": "Other things that happened",
    "questions": "When we asked whether to go on",
    "notes": "Notes",
}
_LABELS: Mapping[str, str] = {
    "relationship": "You are",
    "word": "Status",
    "recorded_at": "Noted",
    "asked_at": "Asked for",
    "confirmed_at": "Confirmed",
    "source": "How",
    "wording": "In these words",
    "given_at": "When",
    "at": "When",
    "page": "On the page",
    "network": "From the network",
    "due_at": "Planned for",
    "accepted_at": "Left us",
    "joined_at": "Since",
    "waits_for": "Waits for",
    "ended_reason": "Ended because",
    "reason": "Because",
    "ask_for": "We ask for",
    "address_hash": "Code for your address",
    "paused_until": "Paused until",
    "pace": "How often",
    "timezone": "Time zone",
    "sender_id": "Its number there",
    "scope": "Concerns",
}
_HIDDEN = frozenset({"log", "round"})
_UNTOLD = frozenset({"processed"})
"""Events of the provider that say no more than that it began."""
_STATUS: Mapping[str, str] = {
    "active": "you get our emails",
    "unconfirmed": "you have not confirmed your address",
    "unsubscribed": "you unsubscribed",
    "undeliverable": "your address could not be reached",
}
_RELATIONSHIPS: Mapping[str, str] = {"patient": "a patient of ours"}
"""Everybody else only asked for emails, which the rest of the page says."""
_WAITS: Mapping[str, str] = {
    "paused": "the end of your pause",
    "wait": "the day of the next email",
    "until": "something you may do, or some days to pass",
    "window": "the next time of day at which we email",
    "gap": "some time between two emails",
    "goal": "a call you may book",
    "unreadable_version": "us to mend the series",
    "undecided": "us to mend the series",
}
_EVENTS: Mapping[str, str] = {
    "deferred": "was delayed on its way",
    "delivered": "arrived",
    "dropped": "was not mailed",
    "bounced": "came back",
    "complained": "was marked as spam",
}
_SERVICE: Mapping[str, str] = {
    "confirm": "Confirming your address",
    "booking": "Your phone call",
    "notice": "Notice to our staff",
    "keep": "Whether to go on",
}
"""Details that only the download shows."""
_WORDS: Mapping[str, str] = {
    "unsubscribed": "you unsubscribed",
    "undeliverable": "the address could not be reached",
    "complained": "an email was marked as spam",
    "goal": "you booked a call",
    "exit": "the series was over for you",
    "segment": "the series is not meant for you",
    "tag": "the series is not meant for you",
    "no_consent": "you have not agreed to it, or took it back",
    "stopped": "the series was stopped",
    "stopped_series": "you stopped this series",
    "taken_out": "somebody at the clinic took you out",
    "step_removed": "this email was taken out of the series",
    "expired": "it came too late to be of use",
    "planned": "as planned",
    "weekly": "at most one a week",
    "one-click": "the unsubscribe button of your mail program",
    "preferences": "the preferences page",
    "all": "every email",
    "marketing": "series and newsletters",
}
_STATES: Mapping[str, str] = {
    "ACCEPTED": "went out",
    "PLANNED": "is planned",
    "IN_BATCH": "is on its way",
    "SUPPRESSED": "was not made",
    "SKIPPED": "was not made",
    "REJECTED": "could not be made",
    "HELD": "waits for a person to look at it",
}


@dataclass(frozen=True, slots=True)
class _Way:
    """How it is told: times in `zone`, campaigns and emails by their titles."""

    site: Site
    zone: ZoneInfo
    titles: Titles

    def series(self, row: Row) -> str:
        name = str(row["campaign"])
        return _SERVICE.get(name) or self.titles.get((name, ""), name)

    def email(self, row: Row) -> str:
        name, email = str(row["campaign"]), str(row["email"])
        title = self.titles.get((name, email))
        if name in _SERVICE:
            return _SERVICE[name]
        return f"{self.series(row)}, {email}" if title is None else f"{self.series(row)}, “{title}”"


def sections(
    found: Row, site: Site, zone: ZoneInfo, titles: Titles, *, whole: bool = False, most: int | None = MOST
) -> tuple[Section, ...]:
    """Everything in `found` (see `services.mine.everything`); times are told in `zone`.

    The address is masked unless `whole`; of each kind the newest `most` are told, or all.
    """
    way = _Way(site, zone, titles)
    told = [_who(found["subscriber"], zone, whole)]
    for name, rows in found.items():
        if isinstance(rows, list):
            title = _SECTIONS.get(name, name.replace("_", " ").capitalize())
            shown = [row for row in rows if _is_told(name, row)]
            entries = tuple(_entry(name, row, way) for row in shown[::-1][:most])
            told.append(Section(title, entries, len(shown) - len(entries)))
    return tuple(told)


def _is_told(name: str, row: Row) -> bool:
    """Whether it says anything to a person. The download has all."""
    if name == "series":
        return row["campaign"] not in SERVICE_LANES
    return name != "provider_events" or row.get("kind") not in _UNTOLD


def _who(row: Row, zone: ZoneInfo, whole: bool) -> Section:
    rest = {name: value for name, value in row.items() if name not in ("address", "fields", "state", "relationship")}
    rest["word"] = _STATUS.get(str(row.get("state")), row.get("state"))
    rest["relationship"] = _RELATIONSHIPS.get(str(row.get("relationship")))
    address = str(row["address"])
    facts = [("Address", address if whole else masked(address))]
    facts += _facts(dict(row.get("fields") or {}), zone) + _facts(rest, zone)
    return Section("Who you are", (Entry("", tuple(facts)),))


def _entry(name: str, row: Row, way: _Way) -> Entry:
    zone = way.zone
    title_of = _TITLES.get(name)
    used, title = title_of(row, way) if title_of is not None else ((), "")
    rest = {key: value for key, value in row.items() if key not in used}
    return Entry(title, tuple(_facts(rest, zone)))


def _facts(row: Row, zone: ZoneInfo) -> list[tuple[str, str]]:
    return [
        (_LABELS.get(name, name.replace("_", " ").capitalize()), said)
        for name, value in row.items()
        if name not in _HIDDEN and (said := _fact(name, value, zone))
    ]


def _fact(name: str, value: Any, zone: ZoneInfo) -> str:
    return _said(_WAITS.get(str(value), value) if name == "waits_for" else value, zone)


def _said(value: Any, zone: ZoneInfo) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case Mapping():
            return "; ".join(f"{name}: {said}" for name, one in value.items() if (said := _said(one, zone)))
        case Sequence() if not isinstance(value, str):
            return ", ".join(said for one in value if (said := _said(one, zone)))
        case str():
            moment = _moment(value)
            return _WORDS.get(value, value) if moment is None else _when(moment, zone)
    return str(value)


def _moment(text: str) -> datetime | None:
    if len(text) < 19 or text[10] != "T":
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _when(moment: datetime, zone: ZoneInfo) -> str:
    local = moment.astimezone(zone)
    half = "AM" if local.hour < 12 else "PM"
    return f"{local:%B} {local.day}, {local.year}, {local.hour % 12 or 12}:{local:%M}\N{NO-BREAK SPACE}{half}"


def _topic(site: Site, name: object) -> str:
    topic = site.topic(str(name))
    return topic.title if topic is not None else str(name)


def _consent(row: Row, way: _Way) -> tuple[Sequence[str], str]:
    word = "Yes to" if row["action"] == "give" else "No more"
    return ("action", "topic"), f"{word} “{_topic(way.site, row['topic'])}”"


def _email(row: Row, way: _Way) -> tuple[Sequence[str], str]:
    state = _STATES.get(str(row["state"]), str(row["state"]))
    return ("campaign", "email", "state", "delivery"), f"{way.email(row)}: {state}"


def _click(row: Row, way: _Way) -> tuple[Sequence[str], str]:
    return ("campaign", "email"), way.email(row)


def _event(row: Row, way: _Way) -> tuple[Sequence[str], str]:
    kind = str(row["kind"])
    return ("campaign", "email", "kind"), f"{way.email(row)}: {_EVENTS.get(kind, kind)}"


def _series(row: Row, way: _Way) -> tuple[Sequence[str], str]:
    state = {"waiting": "goes on", "mailing": "goes on", "finished": "finished", "exited": "ended"}
    return ("campaign", "topic", "state"), f"{way.series(row)}: {state.get(str(row['state']), row['state'])}"


def _call(row: Row, way: _Way) -> tuple[Sequence[str], str]:
    return ("starts_at", "state"), f"{_said(row['starts_at'], way.zone)}: {row['state']}"


def _suppression(row: Row, way: _Way) -> tuple[Sequence[str], str]:
    return ("action",), "Put on the list" if row["action"] == "suppress" else "Taken off the list"


_TITLES: Mapping[str, Callable[[Row, _Way], tuple[Sequence[str], str]]] = {
    "consents": _consent,
    "emails": _email,
    "clicks": _click,
    "provider_events": _event,
    "series": _series,
    "calls": _call,
    "suppressions": _suppression,
}
