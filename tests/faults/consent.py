"""What a person has agreed to, by the rules alone: the judge's own small model, which never looks into our tables.

A world is what may be true of one person. An action that was answered moves every world; one that crashed without an
answer may or may not have happened, so the worlds before and after it both stay. Mail is wrong when no world allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

UNDO_WITHIN = timedelta(hours=24)
WEEK = timedelta(days=7)
MARKETING = "marketing"
ALL = "all"
OLD_REQUESTS_LIFT = False
"""Whether a button pressed for the first time may take back an unsubscribe that is newer than its request. SENDING 9
asks for a fresh opt-in; the program takes any that was not pressed before. False: then it must be a newer request."""


@dataclass(frozen=True, slots=True)
class Moment:
    """`order` counts everything that happens; `wall` and `now` are the two clocks, which stand still within a turn."""

    order: int
    wall: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class Left:
    """Something that forbids mail in a scope. `own`: the person pressed a button of ours, and may take it back."""

    scope: str
    own: bool
    order: int
    wall: datetime


@dataclass(frozen=True, slots=True)
class World:
    """What may be true of one person. Pairs are (topic, order of the newest)."""

    topics: frozenset[str] = frozenset()
    stated: bool = False  # confirmed by a double opt-in, or stated by an operator
    asked: frozenset[tuple[str, int]] = frozenset()
    given_up: frozenset[tuple[str, int]] = frozenset()
    left: frozenset[Left] = frozenset()
    paused_until: datetime | None = None
    weekly: bool = False
    pressed: frozenset[str] = frozenset()  # the words of confirmations whose button was pressed
    heard: frozenset[str] = frozenset()  # events about them; a copy of one says nothing new
    over: frozenset[str] = frozenset()  # campaigns that must not go on, whatever is lifted later
    erased: bool = False  # and not come back by a new double opt-in
    lives: int = 0  # how often they were erased


Change = Callable[[World], World]


# What people do


def ask(world: World, topic: str, at: Moment) -> World:
    """Somebody typed the address into a form: that alone gives nothing."""
    return replace(world, asked=_newest(world.asked, topic, at))


def press(world: World, word: str, topic: str, campaigns: Iterable[str], *, strict: bool = True) -> World:
    """The button of a confirmation. Only a request made after the last word against it is fresh (SENDING 9).

    It takes back every unsubscribe but one of scope `all`, and lets them into the campaigns of its form again. Of what
    they had before leaving everything, it brings back the topic asked for and no other.
    """
    if word in world.pressed:
        return world
    world = replace(world, pressed=world.pressed | {word})
    asked = dict(world.asked).get(topic)
    scopes = {MARKETING, f"topic:{topic}", *(f"campaign:{name}" for name in campaigns)}
    against = [left.order for left in world.left if left.scope in scopes]
    against += [order for name, order in world.given_up if name == topic]
    if asked is None or (strict and any(order > asked for order in against)):
        return world
    topics, given_up = world.topics, world.given_up
    left_everything = [left.order for left in world.left if left.scope == MARKETING]
    if left_everything:
        given_up |= {(other, max(left_everything)) for other in topics}  # said when they left
        topics = frozenset()
    return replace(
        world,
        topics=topics | {topic},
        stated=True,
        erased=False,
        given_up=frozenset(pair for pair in given_up if pair[0] != topic),
        left=frozenset(left for left in world.left if left.scope not in scopes),
        over=world.over - set(campaigns),
    )


def leave(world: World, scope: str, at: Moment, *, own: bool, begun: Iterable[str]) -> World:
    """An unsubscribe, a complaint, a dead address. `begun`: the campaigns they have had email of, which are over."""
    left = world.left
    # Pressing again what was pressed already is the same word as before.
    if not any(one.scope == scope and one.own == own for one in left):
        left = left | {Left(scope, own, at.order, at.wall)}
    else:
        left = frozenset(replace(one, order=at.order) if (one.scope, one.own) == (scope, own) else one for one in left)
    return replace(world, left=left, over=world.over | set(begun))


def can_undo(world: World, at: Moment) -> bool:
    """Whether all that stands against marketing is their own press of a button, 24 hours old at most."""
    if any(left.scope == ALL for left in world.left):
        return False
    standing = [left for left in world.left if left.scope == MARKETING]
    return bool(standing) and all(left.own and at.wall - left.wall <= UNDO_WITHIN for left in standing)


def undo(world: World, at: Moment) -> World:
    """Take an unsubscribe back, if the rule lets them; it brings no series back."""
    if not can_undo(world, at):
        return world
    return replace(world, left=frozenset(left for left in world.left if left.scope != MARKETING))


def choose(
    world: World,
    topics: frozenset[str],
    at: Moment,
    *,
    paused_until: datetime | None,
    weekly: bool,
    begun: Mapping[str, str],
) -> World:
    """Preferences. A topic given up ends its series (`begun`: campaign -> topic); one taken on starts none."""
    gone = world.topics - topics
    given_up = world.given_up
    for topic in sorted(gone):
        given_up = _newest(given_up, topic, at)
    return replace(
        world,
        topics=topics,
        given_up=frozenset(pair for pair in given_up if pair[0] not in topics),
        paused_until=paused_until,
        weekly=weekly,
        over=world.over | {campaign for campaign, topic in begun.items() if topic in gone},
    )


def resume(world: World) -> World:
    """The pause is over."""
    return replace(world, paused_until=None)


def stop(world: World, campaign: str) -> World:
    """One series less."""
    return replace(world, over=world.over | {campaign})


def state(world: World, topic: str, *, in_a_file: bool) -> World:
    """An operator says that they agreed, of one person or of a whole file; it lifts no unsubscribe.

    What is said of one person counts afresh for a topic they had given up. A file does not know what they said since.
    """
    given_up = frozenset(pair for pair in world.given_up if pair[0] != topic)
    if in_a_file and (world.erased or given_up != world.given_up):
        return world
    return replace(world, topics=world.topics | {topic}, given_up=given_up, stated=True)


def erase(world: World, at: Moment, *, begun: Iterable[str]) -> World:
    """Only the hash stays, and what it was suppressed for: marketing, unless they come back by themselves."""
    gone = leave(world, MARKETING, at, own=False, begun=begun)
    return World(left=gone.left, over=gone.over, erased=True, lives=world.lives + 1)


def _newest(pairs: frozenset[tuple[str, int]], topic: str, at: Moment) -> frozenset[tuple[str, int]]:
    return frozenset(pair for pair in pairs if pair[0] != topic) | {(topic, at.order)}


# What may be mailed


def against(world: World, campaign: str, topic: str, at: Moment, last_mailed: datetime | None) -> str | None:
    """Why this world forbids a marketing email at this moment, in words; None: it does not."""
    scopes = {ALL, MARKETING, f"topic:{topic}", f"campaign:{campaign}"}
    standing = sorted(left.scope for left in world.left if left.scope in scopes)
    if standing:
        return f"suppressed ({', '.join(standing)})"
    if world.erased:
        return "erased"
    if not world.stated:
        return "never confirmed"
    if topic not in world.topics:
        return f"no consent to {topic}"
    if campaign in world.over:
        return f"{campaign} was over"
    if world.paused_until is not None and world.paused_until > at.now:
        return f"paused until {world.paused_until:%m-%d %H:%M}"
    if world.weekly and last_mailed is not None and at.now - last_mailed < WEEK:
        return "had one this week, and wants no more"
    return None


def against_service(world: World) -> str | None:
    """The same for a confirmation: somebody must have asked for it, and `all` forbids it."""
    if any(left.scope == ALL for left in world.left):
        return "suppressed (all)"
    return None if world.asked else "nobody asked for it"


@dataclass(slots=True)
class Belief:
    """All that may be true of one person, what they got, and what they must get by the end.

    `due` are the campaigns they certainly joined and nothing has ended since.
    """

    worlds: frozenset[World] = frozenset({World()})
    due: set[str] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)
    pressed: set[str] = field(default_factory=set)
    got: list[tuple[str, str]] = field(default_factory=list)  # (campaign, step) of every marketing email
    last_mailed: datetime | None = None

    def happened(self, change: Change) -> None:
        """It was answered: it is so in every world."""
        self.worlds = frozenset(map(change, self.worlds))

    def may_have_happened(self, change: Change) -> None:
        """It crashed without an answer."""
        self.worlds |= frozenset(map(change, self.worlds))

    def certainly(self, claim: Callable[[World], bool]) -> bool:
        """Whether it is so in every world."""
        return all(map(claim, self.worlds))

    def begun(self) -> frozenset[str]:
        """The campaigns they have had email of."""
        return frozenset(campaign for campaign, _ in self.got)
