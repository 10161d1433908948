"""What differs between two versions of a campaign, step by step, in words for whoever changes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dripwell.core.campaign import (
    Branch,
    Campaign,
    Email,
    Step,
    Tag,
    Wait,
    WaitClock,
    WaitDate,
    WaitField,
    WaitFor,
)
from dripwell.core.conditions import in_words

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the files and the version that is live. `what`: added, removed, changed."""

    what: str
    key: str
    detail: str = ""


def differences(before: Campaign, after: Campaign, old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    """What is removed, added and changed, never empty: two versions that differ, differ in something.

    `old` and `new` are the sources of each by path: an email's words are compared letter for letter.
    """
    was, will = _by_key(before), _by_key(after)
    found = [Change("removed", key, _said(step)) for key, step in was.items() if key not in will]
    for key, step in will.items():
        if key not in was:
            found.append(Change("added", key, _said(step)))
            continue
        found += [Change("changed", key, detail) for detail in _details(was[key], step)]
        one = was[key]
        if isinstance(one, Email) and isinstance(step, Email):
            paths = (f"campaigns/{before.name}/{one.document}.md", f"campaigns/{after.name}/{step.document}.md")
            if old.get(paths[0]) != new.get(paths[1]):
                found.append(Change("changed", key, "words"))
    if _order(before, will) != _order(after, was):
        found.append(Change("changed", "steps", "order"))
    return found or [Change("changed", "settings", "campaign settings, site or theme")]


def _by_key(campaign: Campaign) -> dict[str, Step]:
    return {step.key: step for step in campaign.walk()}


def _order(campaign: Campaign, other: Mapping[str, Step]) -> list[tuple[str, str]]:
    """Which steps that both versions have stand after each other, and in which arm."""

    def places(steps: tuple[Step, ...], arm: str) -> Iterator[tuple[str, str]]:
        for step in steps:
            if step.key in other:
                yield step.key, arm
            if isinstance(step, Branch):
                yield from places(step.then, f"{step.key}/then")
                yield from places(step.otherwise, f"{step.key}/else")

    return list(places(campaign.steps, ""))


def _details(was: Step, will: Step) -> Iterator[str]:
    if isinstance(was, Email) and isinstance(will, Email):
        if was.subject != will.subject:
            yield f"subject: {was.subject} → {will.subject}"
        if was.preheader != will.preheader:
            yield "preheader"
        if was.window != will.window:
            yield "send window"
        return
    if isinstance(was, Branch) and isinstance(will, Branch):
        if was.when != will.when:
            yield f"asks: {in_words(was.when)} → {in_words(will.when)}"
        return
    if _said(was) != _said(will):
        yield f"{_said(was)} → {_said(will)}"


def _said(step: Step) -> str:
    match step:
        case Email(subject=subject):
            return subject
        case Wait(length=length):
            return str(length)
        case WaitFor(until=until, at_most=at_most):
            return f"until {in_words(until)}, {at_most} at most"
        case WaitClock(day=day, at=at):
            return f"until {_DAYS[day]} {at:%H:%M}"
        case WaitDate(at=at):
            return f"until {at:%Y-%m-%d %H:%M}"
        case WaitField(field=field, by=by, before=before):
            return f"until {by} {'before' if before else 'after'} {field}"
        case Branch(name=name):
            return name
        case Tag(tag=tag, add=add):
            return f"{'tag' if add else 'untag'} {tag}"
