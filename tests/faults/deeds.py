"""What one person does next, and what the judge believes afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from dripwell.delivery.provider import ProviderEvent
from tests.faults import consent
from tests.faults.consent import ALL, MARKETING, Moment, World
from tests.faults.doors import Answer, Trouble

if TYPE_CHECKING:
    from tests.faults.town import Letter, Person, Town

AWAY = 0.05
BREAKS = 0.12
EVENTS = {"complained": ALL, "unsubscribed": MARKETING, "bounced": ALL, "soft": "", "resubscribed": ""}
"""What the provider may tell of an email, and the scope in which that forbids more."""


def act(town: Town, person: Person, chance: Random, where: str) -> None:
    """One thing that this person can do now."""
    names, weights = zip(*_possible(town, person).items(), strict=True)
    name = chance.choices(names, weights)[0]
    if where != "own time" and chance.random() < 0.5 and "one_click" in names:
        name = chance.choice(("one_click", "unsubscribe", "pause", "choose", "erase"))
    DEEDS[name](town, person, chance, where)


def _possible(town: Town, person: Person) -> dict[str, float]:
    """Each possible deed with its weight."""
    letters = person.letters
    found = {"ask": 3.0 if letters else 12.0, "add": 0.5, "suppress": 0.15}
    if letters:
        found["erase"] = 0.5
    if any("k" in letter.words for letter in letters):
        found["press"] = 7.0
    if any("u" in letter.words for letter in letters):
        left = any(world.left for world in person.belief.worlds)
        found |= {"one_click": 1.5, "unsubscribe": 1.0, "undo": 4.0 if left else 0.3, "event": 1.6}
    if any("p" in letter.words for letter in letters):
        found |= {"leave": 0.6, "pause": 1.6, "choose": 2.5, "weekly": 0.8, "stop": 1.0}
        if any(world.paused_until for world in person.belief.worlds):
            found["resume"] = 2.0
    return found


def _try(town: Town, chance: Random, door: Callable[[], Answer]) -> Answer:
    """Knock; PostgreSQL may be away, or break off in the middle."""
    trouble: Trouble = town.trouble_of_people
    town.doors.is_away = chance.random() < AWAY
    town.break_something(trouble, chance, BREAKS)
    try:
        return door()
    finally:
        town.doors.is_away = False
        trouble.clear()


def _do(
    town: Town,
    person: Person,
    chance: Random,
    what: str,
    door: Callable[[], Answer],
    change: Callable[[World, Moment], World],
    then: Callable[[], None] = lambda: None,
) -> Answer:
    """Knock, believe the answer, and perhaps knock again when there was none.

    `then` follows each knock after which it may have happened.
    """
    for attempt in range(2):
        answer = _try(town, chance, door)
        at = town.moment()
        town.tell(person, f"{what}: {answer.value}")
        if answer is Answer.DONE:
            person.belief.happened(partial(_at, change, at))
        elif answer is Answer.NONE:
            person.belief.may_have_happened(partial(_at, change, at))
        if answer is not Answer.REFUSED:
            then()
        if answer is not Answer.NONE or (attempt == 0 and chance.random() < 0.5):
            break
    return answer


def _at(change: Callable[[World, Moment], World], at: Moment, world: World) -> World:
    return change(world, at)


def _typed(person: Person, chance: Random) -> str:
    if chance.random() < 0.2:
        return person.address.replace("person", "Person").replace("example.com", "Example.COM")
    return person.address


def _letter(person: Person, chance: Random, door: str) -> Letter:
    """An email that has such a link: mostly a new one."""
    found = [letter for letter in person.letters if door in letter.words]
    return found[-1] if chance.random() < 0.6 else chance.choice(found)


# Coming


def ask(town: Town, person: Person, chance: Random, where: str) -> None:
    form = chance.choice(sorted(town.forms))
    address = _typed(person, chance)
    _do(
        town,
        person,
        chance,
        f"asks by the form {form}, {where}",
        lambda: town.doors.ask(address, form),
        lambda world, at: consent.ask(world, town.forms[form], at),
    )


def press(town: Town, person: Person, chance: Random, where: str) -> None:
    letter = _letter(person, chance, "k")
    topic = letter.topic
    series = [town.series_of[topic]]
    belief = person.belief

    def changes(world: World) -> bool:
        pressed = consent.press(world, letter.words["k"], topic, series)
        free = Moment(0, town.wall, datetime.max.replace(tzinfo=UTC))  # a pause keeps the place
        return consent.against(pressed, series[0], topic, free, None) is None

    was_new = letter.words["k"] not in belief.pressed and not belief.joined & set(series)
    expects = was_new and belief.certainly(changes)
    belief.pressed.add(letter.words["k"])
    before_press = belief.worlds
    answer = _do(
        town,
        person,
        chance,
        f"confirms {topic}, {where}",
        lambda: town.doors.press(letter.words["k"]),
        lambda world, at: consent.press(world, letter.words["k"], topic, series),
        lambda: belief.joined.update(series),
    )
    if answer is Answer.DONE and expects:
        belief.due.update(series)
    elif consent.OLD_REQUESTS_LIFT and answer is not Answer.REFUSED:
        old = (consent.press(w, letter.words["k"], topic, series, strict=False) for w in before_press)
        belief.worlds |= frozenset(old)


def add(town: Town, person: Person, chance: Random, where: str) -> None:
    topic = chance.choice(sorted(town.series_of))
    address = _typed(person, chance)
    _do(
        town,
        person,
        chance,
        f"staff add them with consent to {topic}, {where}",
        lambda: town.doors.add(address, topic),
        lambda world, at: consent.state(world, topic, in_a_file=False),
    )


def bring_in(town: Town, chance: Random) -> None:
    """Staff import a list of anybody."""
    people = chance.sample(sorted(town.people), min(len(town.people), 12))
    people = [number for number in people if town.may_do(number)]
    if not people:
        return
    topic = chance.choice(sorted(town.series_of))
    given_at = chance.choice([None, town.wall + town.ahead - timedelta(days=chance.randint(1, 60))])
    addresses = [_typed(town.people[number], chance) for number in people]
    answer = _try(town, chance, lambda: town.doors.bring_in(addresses, topic, given_at))
    town.moment()
    for number in people:
        person = town.people[number]
        town.tell(person, f"stands in an imported file for {topic}: {answer.value}")
        change = partial(consent.state, topic=topic, in_a_file=True)
        (person.belief.happened if answer is Answer.DONE else person.belief.may_have_happened)(change)


# Leaving, and back


def _leave(town: Town, person: Person, chance: Random, what: str, letter: Letter, door: Callable[[], Answer]) -> None:
    begun = person.belief.begun()

    def change(world: World, at: Moment) -> World:
        # An email from before they were erased names nobody any more.
        return consent.leave(world, MARKETING, at, own=True, begun=begun) if world.lives == letter.life else world

    _do(town, person, chance, what, door, change, person.belief.due.clear)


def one_click(town: Town, person: Person, chance: Random, where: str) -> None:
    letter = _letter(person, chance, "u")
    door = partial(town.doors.one_click, letter.words["u"])
    _leave(town, person, chance, f"unsubscribes with one click, {where}", letter, door)


def unsubscribe(town: Town, person: Person, chance: Random, where: str) -> None:
    letter = _letter(person, chance, "u")
    door = partial(town.doors.unsubscribe, letter.words["u"])
    _leave(town, person, chance, f"unsubscribes on the page, {where}", letter, door)


def leave(town: Town, person: Person, chance: Random, where: str) -> None:
    letter = _letter(person, chance, "p")
    door = partial(town.doors.leave, letter.words["p"])
    _leave(town, person, chance, f"leaves by the preferences page, {where}", letter, door)


def suppress(town: Town, person: Person, chance: Random, where: str) -> None:
    begun = person.belief.begun()
    _do(
        town,
        person,
        chance,
        f"staff suppress them for good, {where}",
        partial(town.doors.suppress, person.address),
        lambda world, at: consent.leave(world, ALL, at, own=False, begun=begun),
        person.belief.due.clear,
    )


def undo(town: Town, person: Person, chance: Random, where: str) -> None:
    word = _letter(person, chance, "u").words["u"]
    _do(town, person, chance, f"takes it back, {where}", partial(town.doors.undo, word), consent.undo)


def erase(town: Town, person: Person, chance: Random, where: str) -> None:
    begun = person.belief.begun()
    what, door, life = f"is erased by staff, {where}", partial(town.doors.erase, person.address), None
    if any("p" in letter.words for letter in person.letters) and chance.random() < 0.5:
        letter = _letter(person, chance, "p")
        what, door = f"erases everything, {where}", partial(town.doors.erase_page, letter.words["p"])
        life = letter.life

    def change(world: World, at: Moment) -> World:
        return consent.erase(world, at, begun=begun) if life in (None, world.lives) else world

    def then() -> None:
        # Who comes back is somebody new: nothing is expected of that, and what they got before does not count.
        person.belief.due.clear()
        person.belief.joined.update(town.topic_of)
        person.belief.got.clear()

    _do(town, person, chance, what, door, change, then)


def event(town: Town, person: Person, chance: Random, where: str) -> None:
    """The provider will tell something about an email of theirs: late, twice, or behind what came after it."""
    letter = _letter(person, chance, "u")
    kind = chance.choices(list(EVENTS), (0.5, 1.0, 0.5, 1.5, 1.0))[0]
    told = ProviderEvent(
        kind={"soft": "bounced", "resubscribed": "unknown"}.get(kind, kind),
        at=town.wall,
        dedupe=f"{kind}/{letter.message}/{town.order}",
        message=letter.message,
        batch=letter.mailing.batch,
        address=person.address,
        hard=kind == "bounced",
    )
    begun, scope = person.belief.begun(), EVENTS[kind]

    def change(world: World, at: Moment) -> World:
        if not scope or told.dedupe in world.heard:
            return world
        # An email from before an erasure: the event names the address, so it counts for whoever has it now.
        ended = begun if world.lives == letter.life else ()
        left = consent.leave(world, scope, at, own=False, begun=ended)
        return replace(left, heard=world.heard | {told.dedupe})

    for _ in range(chance.choice((1, 1, 2))):
        town.coming.append((town.turn + chance.randint(0, 4), [told], [(person.number, change)]))
    town.tell(person, f"the provider will tell of {letter.campaign}/{letter.step}: {kind}, {where}")


# Preferences


def _save(
    town: Town, person: Person, chance: Random, what: str, topics: frozenset[str], pace: str, until: datetime | None
) -> None:
    word = _letter(person, chance, "p").words["p"]
    begun = {name: town.topic_of[name] for name in person.belief.begun()}
    day = None if until is None else until.date()
    _do(
        town,
        person,
        chance,
        what,
        lambda: town.doors.choose(word, sorted(topics), pace, day),
        lambda world, at: consent.choose(world, topics, at, paused_until=until, weekly=pace == "weekly", begun=begun),
        lambda: person.belief.due.intersection_update(
            {name for name in town.topic_of if town.topic_of[name] in topics}
        ),
    )


def _topics_now(person: Person) -> frozenset[str]:
    return frozenset.union(*(world.topics for world in person.belief.worlds))


def pause(town: Town, person: Person, chance: Random, where: str) -> None:
    local = (town.wall + town.ahead).astimezone(town.home)
    until = datetime.combine(local.date() + timedelta(days=chance.randint(1, 9)), time(), town.home)
    topics = _topics_now(person)
    _save(town, person, chance, f"pauses until {until:%m-%d}, {where}", topics, "pause", until)


def choose(town: Town, person: Person, chance: Random, where: str) -> None:
    topics = frozenset(topic for topic in sorted(town.series_of) if chance.random() < 0.6)
    what = f"chooses {', '.join(sorted(topics)) or 'no topic'}, {where}"
    _save(town, person, chance, what, topics, "planned", None)


def weekly(town: Town, person: Person, chance: Random, where: str) -> None:
    _save(town, person, chance, f"wants one a week, {where}", _topics_now(person), "weekly", None)


def resume(town: Town, person: Person, chance: Random, where: str) -> None:
    word = _letter(person, chance, "p").words["p"]
    door = partial(town.doors.resume, word)
    _do(town, person, chance, f"ends the pause, {where}", door, lambda world, at: consent.resume(world))


def stop(town: Town, person: Person, chance: Random, where: str) -> None:
    open_now = town.query(
        "SELECT enrollment.id, campaign.name FROM enrollment JOIN campaign ON campaign.id = campaign_id"
        " JOIN subscriber ON subscriber.id = subscriber_id"
        " WHERE address = :address AND enrollment.state IN ('waiting', 'mailing') AND campaign.kind = 'drip'"
        " ORDER BY enrollment.id",
        address=person.address,
    )
    if not open_now:
        return
    enrollment, campaign = chance.choice(open_now)
    word = _letter(person, chance, "p").words["p"]
    _do(
        town,
        person,
        chance,
        f"stops {campaign}, {where}",
        lambda: town.doors.stop(word, enrollment),
        lambda world, at: consent.stop(world, campaign),
        lambda: person.belief.due.discard(campaign),
    )


DEEDS: dict[str, Callable[[Town, Person, Random, str], None]] = {
    deed.__name__: deed
    for deed in (
        ask,
        press,
        add,
        one_click,
        unsubscribe,
        leave,
        suppress,
        undo,
        erase,
        event,
        pause,
        choose,
        weekly,
        resume,
        stop,
    )
}
