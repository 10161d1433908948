"""How much work a marketer's text can be, found before it runs: depth, size of values, rounds of loops, steps.

The language has no recursion, no calls and no arithmetic, and a loop goes over a list that is written out. So what a
text can cost is a sum over its tree, computed here from above:

- *nodes and depth*: at most 5,000 of them and 40 levels, so reading and compiling are bounded, and neither Python's
  recursion nor its compiler's nesting limits are met;
- *size*: each expression's value is at most a number of letters of its own plus a number of copies of the longest fact
  (`MAX_FACT`). `~` adds, changing case makes at most three letters of one, `or` and `if` take the longer, a list is the
  sum of its entries. A name that is set holds the most it was ever set to; reading a loop's name starts from outside of
  the loop in each round, so rounds never multiply sizes. `{% set a = a ~ a %}` thirty times over is found here;
- *steps*: each node counts one step for each round it runs in, more when its value is large. A step takes about a
  microsecond, so 200,000 of them stay well below a second; what is printed stays below a megabyte.

Every branch of every condition is counted, so the sum holds for everybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import nodes

from dripwell.content.expressions import Names, names_in

MAX_OUTPUT = 1_000_000
MAX_LIST = 100
MAX_LOOPS = 2
MAX_NODES = 5_000
MAX_DEPTH = 40
MAX_BRANCHES = 20
MAX_VALUE_SIZE = 100_000  # letters a value has of its own
MAX_COPIES = 300  # times a fact may stand in one value
MAX_FACT = 4_000  # letters of one fact; longer ones are refused before they enter a text
MAX_STEPS = 200_000
MAX_DIGITS = 18

Found = tuple[nodes.Node, str]


@dataclass(frozen=True, slots=True)
class Size:
    """At most so many letters of its own, and so many copies of facts. `entries`: of a list; None for anything else."""

    own: int
    facts: int = 0
    entries: int | None = None

    def larger(self, other: Size) -> Size:
        """What holds whichever of the two it is."""
        both = self.entries is not None and other.entries is not None
        entries = max(self.entries or 0, other.entries or 0) if both else None
        return Size(max(self.own, other.own), max(self.facts, other.facts), entries)

    @property
    def letters(self) -> int:
        """The most letters it can be."""
        return self.own + self.facts * MAX_FACT


def too_large(tree: nodes.Template) -> str:
    """Why a tree must not even be walked: it is too large or too deep. Empty when it may be."""
    waiting: list[tuple[nodes.Node, int]] = [(tree, 0)]
    count = 0
    while waiting:  # no recursion: a chain of `or` is as deep as it is long
        node, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH:
            return "this is nested too deeply"
        if count > MAX_NODES:
            return "this text has too much between {{ and }}"
        if isinstance(node, nodes.If) and len(node.elif_) > MAX_BRANCHES:
            return f"a condition has at most {MAX_BRANCHES} branches"
        waiting += [(child, depth + 1) for child in node.iter_child_nodes()]
    return ""


def too_much_work(tree: nodes.Template, names: Names) -> Iterator[Found]:
    """What would take too long or become too large, with what to say about it. The tree holds allowed nodes only."""
    fixed = {name: _size_of(value) for name, value in names.fixed.items()}
    meter = _Meter(fixed | dict.fromkeys(names.personal, _FACT))
    meter.statements(tree.body, 1)
    yield from meter.found
    if meter.steps > MAX_STEPS:
        yield tree, f"this text takes {meter.steps:,} steps to fill, {MAX_STEPS:,} at most: shorten its loops"
    if meter.printed > MAX_OUTPUT:
        yield tree, f"this email is longer than {MAX_OUTPUT:,} letters"


_FACT = Size(0, 1)
_SMALL = Size(20)


def _size_of(value: str | int | Mapping[str, str | int]) -> Size:
    if isinstance(value, Mapping):
        return Size(max((len(str(one)) for one in value.values()), default=0))
    return Size(len(str(value)))


class _Meter:
    def __init__(self, known: dict[str, Size]) -> None:
        self.known = known
        self.found: list[Found] = []
        self.steps = 0
        self.printed = 0

    def statements(self, items: Sequence[nodes.Node], rounds: int) -> None:
        for item in items:
            match item:
                case nodes.Output():
                    for node in item.nodes:
                        if isinstance(node, nodes.TemplateData):
                            self.steps += rounds
                            self.printed += rounds * len(node.data)
                        else:
                            size = self.value(node, rounds)
                            self.steps += 4 * rounds  # the mark
                            self.printed += rounds * max(size.own, 12)
                case nodes.If():
                    self.value(item.test, rounds)
                    self.statements(item.body, rounds)
                    self.statements(item.elif_, rounds)
                    self.statements(item.else_, rounds)
                case nodes.Assign():
                    self._set(item.target, self.value(item.node, rounds))
                case nodes.For():
                    self._loop(item, rounds)

    def _loop(self, item: nodes.For, rounds: int) -> None:
        over = self.value(item.iter, rounds)
        if over.entries is None:
            self.found.append((item, "a loop goes over a list that is written out, such as ['Monday', 'Friday']"))
            return
        inner = rounds * over.entries
        self._set(item.target, Size(over.own, over.facts))
        self.known.setdefault("loop", _SMALL)
        if item.test is not None:
            self.value(item.test, inner)
        self.statements(item.body, inner)
        self.statements(item.else_, rounds)

    def _set(self, target: nodes.Node, size: Size) -> None:
        for name in names_in(target):
            self.known[name] = self.known[name].larger(size) if name in self.known else size

    def value(self, node: nodes.Node, rounds: int) -> Size:
        size = self._value(node, rounds)
        # Saturated, so that a chain of doublings cannot make numbers that are themselves work.
        size = Size(min(size.own, 10**9), min(size.facts, 10**9), size.entries)
        if size.own > MAX_VALUE_SIZE or size.facts > MAX_COPIES:
            if not any("too long a value" in text for _, text in self.found):
                self.found.append((node, "this makes too long a value"))
            size = Size(0, 0, size.entries)
        self.steps += rounds * (1 + size.letters // 1000)
        return size

    def _value(self, node: nodes.Node, rounds: int) -> Size:
        match node:
            case nodes.Const():
                return Size(len(node.value)) if isinstance(node.value, str) else _SMALL
            case nodes.Name():
                return self.known.get(node.name, _SMALL)
            case nodes.Getattr():
                return self.value(node.node, rounds)
            case nodes.List() | nodes.Tuple():
                parts = [self.value(one, rounds) for one in node.items]
                # As letters, a list shows each entry in quotes, with at most ten letters for one.
                own = sum(10 * part.own + 4 for part in parts)
                return Size(own, sum(10 * part.facts for part in parts), len(parts))
            case nodes.Concat():
                parts = [self.value(one, rounds) for one in node.nodes]
                return Size(sum(part.own for part in parts), sum(part.facts for part in parts))
            case nodes.Filter():
                inner = self.value(node.node, rounds) if node.node is not None else _SMALL
                given = [self.value(one, rounds) for one in node.args]
                if node.name in ("upper", "lower", "title", "capitalize"):
                    self.steps += rounds * (inner.letters // 250)  # letter by letter
                    return Size(3 * inner.own, 3 * inner.facts)
                if node.name in ("default", "d"):
                    return inner.larger(given[0]) if given else inner
                return Size(inner.own, inner.facts) if node.name == "trim" else _SMALL
            case nodes.And() | nodes.Or():
                return self.value(node.left, rounds).larger(self.value(node.right, rounds))
            case nodes.CondExpr():
                self.value(node.test, rounds)
                one = self.value(node.expr1, rounds)
                return one.larger(self.value(node.expr2, rounds)) if node.expr2 is not None else one
            case _:  # comparisons, tests, not: yes or no
                for child in node.iter_child_nodes():
                    self.value(child, rounds)
                return _SMALL
