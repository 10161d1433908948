"""The names this installation knows: what a request may say, and what the OpenAPI document lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from dripwell.content.problems import did_you_mean
from dripwell.core.campaign import Site
from dripwell.web.api.problem import Problem
from dripwell.web.api.shapes import EventAsked, SubscriberAsked


def check_subscriber(site: Site, asked: SubscriberAsked) -> None:
    """Raise Problem when the request names a topic, form, field or time zone that there is not."""
    if asked.consent is not None:
        _check("topic", asked.consent.topic, _topics(site), "consent.topic")
    if asked.confirm is not None:
        _check("form", asked.confirm, _forms(site), "confirm")
    for name in asked.fields:
        _check("field", name, site.field_names(), "fields")
    if asked.timezone is not None:
        _check("time zone", asked.timezone, _zones(), "timezone")


def check_event(site: Site, asked: EventAsked) -> None:
    """Raise Problem when there is no such event."""
    _check("event", asked.event, site.event_names(), "event")


def listed(site: Site, schemas: Mapping[str, Any]) -> None:
    """Write every name there is into these schemas of the document."""
    subscriber = schemas["SubscriberAsked"]["properties"]
    subscriber["fields"]["propertyNames"] = {"enum": list(site.field_names())}
    _one_of(subscriber["timezone"], _zones())
    _one_of(subscriber["confirm"], _forms(site))
    _one_of(schemas["Consent"]["properties"]["topic"], _topics(site))
    _one_of(schemas["EventAsked"]["properties"]["event"], site.event_names())


def _one_of(schema: dict[str, Any], names: Sequence[str]) -> None:
    place = next((one for one in schema.get("anyOf", ()) if one.get("type") == "string"), schema)
    place["enum"] = list(names)


def _topics(site: Site) -> tuple[str, ...]:
    return tuple(topic.name for topic in site.topics)


def _forms(site: Site) -> tuple[str, ...]:
    return tuple(form.name for form in site.forms)


@cache
def _zones() -> tuple[str, ...]:
    return tuple(sorted(available_timezones()))


def _check(what: str, name: str, known: Sequence[str], at: str) -> None:
    if name in known:
        return
    guess = did_you_mean(name[:100], known)
    some = ", ".join(known[:20]) + (" …" if len(known) > 20 else "")
    raise Problem(
        422, "unknown_name", f"there is no such {what} here", f"{guess or f'these there are: {some or what}'}", at=[at]
    )
