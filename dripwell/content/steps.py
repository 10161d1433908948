"""Steps of a file -> values of `core`, with the keys that history hangs on, and what no step can know of itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from dripwell.content.conditions import condition
from dripwell.content.models import SendWindow, Step, WaitCondition, WaitMoment
from dripwell.content.reading import Reading
from dripwell.content.yaml_source import Items, Keys, Node, Scalar, find
from dripwell.core import campaign as core
from dripwell.core.duration import Duration

KINDS = ("email", "wait", "branch", "tag", "untag")
ARMS = ("then", "else")


def steps_of(
    steps: Sequence[Step], window: Callable[[SendWindow], core.Window], before: str = ""
) -> tuple[core.Step, ...]:
    """Return the tree; `window` completes a step's own send window. `before` is the key of the step before these."""
    made: list[core.Step] = []
    for step in steps:
        if step.email is not None:
            before = step.key or step.email
            own = None if step.send_window is None else window(step.send_window)
            made.append(core.Email(before, step.email, step.subject or "", step.preheader or "", own))
        elif step.branch is not None:
            branch = step.branch
            before = step.key or branch_key(branch.name)
            made.append(
                core.Branch(
                    before,
                    branch.name,
                    condition(branch.when),
                    steps_of(branch.then or (), window, f"{before}-then"),
                    steps_of(branch.else_ or (), window, f"{before}-else"),
                )
            )
        elif step.tag is not None or step.untag is not None:
            name = step.tag or step.untag or ""
            before = step.key or tag_key(name, add=step.tag is not None)
            made.append(core.Tag(before, name, add=step.tag is not None))
        elif step.wait is not None:
            before = step.key or wait_key(before)
            made.append(_wait(before, step.wait))
    return tuple(made)


def _wait(key: str, wait: Duration | WaitMoment | WaitCondition) -> core.AnyWait:
    if isinstance(wait, Duration):
        return core.Wait(key, wait)
    if isinstance(wait, WaitMoment):
        return replace(wait.until, key=key)
    return core.WaitFor(key, condition(wait.until), wait.at_most)


def wait_key(before: str) -> str:
    """The key of a wait that has none of its own."""
    return f"wait-after-{before}" if before else "wait-at-start"


def branch_key(name: str) -> str:
    """The key of a branch that has none of its own."""
    return f"branch-{_plain(name)}"


def tag_key(tag: str, *, add: bool) -> str:
    """The key of a step that gives or takes a tag and has no key of its own."""
    return f"{'tag' if add else 'untag'}-{_plain(tag)}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def emails_in(steps: Node | None) -> Iterator[Keys]:
    """Every entry with an email, in all arms, in file order, as far as the file can be read."""
    for step in steps.items if isinstance(steps, Items) else ():
        if not isinstance(step, Keys):
            continue
        if "email" in step.values:
            yield step
        for arm in ARMS:
            yield from emails_in(find(step, "branch", arm))


def keys_of_emails(root: Node | None) -> tuple[str, ...]:
    """The keys of a campaign's emails, as far as its file can be read."""
    given = [find(step, "key") or find(step, "email") for step in emails_in(find(root, "steps"))]
    return tuple(key.raw for key in given if isinstance(key, Scalar))


@dataclass
class _Judged:
    reading: Reading
    taken: dict[str, Node] = field(default_factory=dict)
    emails: int = 0
    unknown: bool = False  # a step of no kind: said elsewhere


def judge_steps(steps: Items, reading: Reading) -> None:
    """Check what no step can know of itself: keys that repeat, waits that lead nowhere, a series without emails."""
    judged = _Judged(reading)
    _judge_list(steps, judged, before="", follows=False)
    if steps.items and not judged.emails and not judged.unknown:
        first = steps.items[0]
        reading.refuse(
            "D101",
            next(iter(first.spots.values()), first) if isinstance(first, Keys) else steps,
            "there is no email in this campaign",
            help="add a step: `- email: 1-welcome`, with its subject",
        )


def _judge_list(steps: Items, judged: _Judged, *, before: str, follows: bool) -> None:
    """`follows`: something comes after these steps."""
    last_wait: Node | None = None
    for number, step in enumerate(steps.items, 1):
        kind = next((key for key in KINDS if key in step.values), None) if isinstance(step, Keys) else None
        if not isinstance(step, Keys) or kind is None:
            judged.unknown = True
            last_wait = None
            continue
        given = find(step, "key") or (find(step, "email") if kind == "email" else None)
        key = given.raw if isinstance(given, Scalar) else _key_of(step, kind, before)
        if kind == "wait":
            _judge_wait(step, judged.reading, last_wait)
            last_wait = step.spots["wait"]
        else:
            judged.emails += kind == "email"
            last_wait = None
        if key and not (kind == "wait" and given is None):  # of another step's key, so another's fault
            _take(key, given or step.spots[kind], judged)
        before = key
        if kind == "branch":
            _judge_branch(step, key, judged, follows=follows or number < len(steps.items))
    if last_wait is not None and not follows and judged.emails:
        judged.reading.refuse(
            "D101",
            last_wait,
            "nothing comes after this wait",
            help="remove it, or add the email that should follow",
        )


def _key_of(step: Keys, kind: str, before: str) -> str:
    if kind == "wait":
        return wait_key(before)
    if kind == "branch":
        name = find(step, "branch", "name")
        return branch_key(name.raw) if isinstance(name, Scalar) else ""
    named = find(step, kind)
    return tag_key(named.raw, add=kind == "tag") if isinstance(named, Scalar) and kind in ("tag", "untag") else ""


def _judge_wait(step: Keys, reading: Reading, last_wait: Node | None) -> None:
    wait = find(step, "wait")
    if last_wait is not None and not isinstance(wait, Keys):
        reading.refuse(
            "D101",
            step.spots["wait"],
            "two waits in a row",
            label="the step before is a wait, too",
            help="write one wait that is as long as both",
        )


def _judge_branch(step: Keys, key: str, judged: _Judged, *, follows: bool) -> None:
    arms = [arm for name in ARMS if isinstance(arm := find(step, "branch", name), Items)]
    for name in ARMS:
        arm = find(step, "branch", name)
        if isinstance(arm, Items):
            _judge_list(arm, judged, before=f"{key}-{name}", follows=follows)
    if isinstance(find(step, "branch"), Keys) and not any(arm.items for arm in arms):
        judged.reading.refuse(
            "D101",
            step.spots["branch"],
            "this branch leads nowhere",
            label="`then` and `else` are both empty",
            help="write the steps for those of whom it is true below `then`, and for the others below `else`",
        )


def _take(key: str, spot: Node, judged: _Judged) -> None:
    if key not in judged.taken:
        judged.taken[key] = spot
        return
    first = judged.taken[key]
    line = judged.reading.source.place(first.start, first.end)[0]
    judged.reading.refuse(
        "D104",
        spot,
        f"two steps have the key `{key}`",
        label=f"first on line {line}",
        help="give one of them a `key:` of its own; history and the never-twice rule hang on it",
    )
