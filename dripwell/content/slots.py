"""How a personal value becomes an opaque word: marks, and running a text with a mark for every value.

A value never passes through Markdown, MJML or an HTML parser. Every `{{ expression }}` leaves the template as a *mark*:
a word of 12 letters and digits that means nothing to any of them. Marks of fixed values (the clinic's phone) are
replaced by their escaped values when the email is compiled, marks of personal values when it is filled.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError

from dripwell.content.bounds import MAX_OUTPUT
from dripwell.content.cage import Parsed
from dripwell.content.expressions import CAGE, Names, as_text, harmless, mentions, outputs
from dripwell.core.errors import ContentError

WIDTH = 12

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_FAILS = (TemplateError, TypeError, ValueError, ArithmeticError, RecursionError)


@dataclass(slots=True)
class Marks:
    """Hands out words and remembers what each stands for. One per rendering of one email."""

    salt: str
    personal: dict[str, str] = field(default_factory=dict)  # word -> expression
    values: dict[str, str] = field(default_factory=dict)  # word -> value, when rendered for one person
    fixed: dict[str, str] = field(default_factory=dict)  # word -> value
    urls: dict[str, str] = field(default_factory=dict)  # word -> name
    links: dict[str, str] = field(default_factory=dict)  # word -> purpose
    _known: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def word(self, kind: str, name: str, value: str = "") -> str:
        """The word for this, the same when asked again. Kinds: p(ersonal), h(tml twin), f(ixed), u(rl), l(ink word)."""
        known = self._known.get((kind, name, value))
        if known is not None:
            return known
        number = len(self._known)
        if number >= len(_DIGITS) ** 3:
            raise ContentError("this email has too many {{ … }} values")
        tail = "".join(_DIGITS[number // 36**power % 36] for power in (2, 1, 0))
        # One capital at the start and none after it: two words side by side never spell a third.
        word = f"Q{self.salt}{tail}"
        self._known[kind, name, value] = word
        return word

    def any_word(self) -> re.Pattern[str]:
        """Matches every word of this email."""
        return re.compile(f"Q{self.salt}[0-9a-z]{{3}}")


def salt_of(parts: Iterable[str]) -> str:
    """Eight letters and digits that depend on `parts` and occur in none of them."""
    parts = list(parts)
    for attempt in range(100):
        digest = hashlib.sha256("\0".join([str(attempt), *parts]).encode("utf-8", "surrogatepass")).digest()
        number = int.from_bytes(digest, "big")
        salt = "".join(_DIGITS[number // 36**power % 36] for power in range(8))
        if not any(salt in part.lower() for part in parts):
            return salt
    raise ContentError("this text contains every mark we could use")  # pragma: no cover


# -- running a text ----------------------------------------------------------------------------------------------------


def stage(
    parsed: Parsed,
    names: Names,
    marks: Marks,
    person: Mapping[str, str] | None,
    answers: Mapping[str, bool] | None = None,
) -> str:
    """Run the template and return its text with a mark for every value.

    With `person`, conditions, loops and values are worked out natively, as they are met: the reference. Without,
    personal values are only named, and `answers` says for each personal condition, by `Parsed.questions`, what holds.
    Raises ContentError.
    """
    tree = CAGE.parse(parsed.text)
    if answers:
        for question in personal_tests(tree, parsed):
            question.put(nodes.Const(answers[question.said], lineno=question.line))
    return _run(tree, parsed, names, marks, person)


def flatten(parsed: Parsed, names: Names, marks: Marks) -> str:
    """The text with every branch of every condition: for finding all links an email can have."""

    def open_up(items: Iterable[nodes.Node]) -> list[nodes.Node]:
        out: list[nodes.Node] = []
        for item in items:
            if isinstance(item, nodes.If):
                branches = [item.body, *(other.body for other in item.elif_), item.else_]
                out += [node for branch in branches for node in open_up(branch)]
            elif isinstance(item, nodes.For):
                item.body = open_up(item.body)
                out += item.body if mentions(item.iter, parsed.tainted) else [item]
                out += open_up(item.else_)
            else:
                out.append(item)
        return out

    tree = CAGE.parse(parsed.text)
    tree.body = open_up(tree.body)
    return _run(tree, parsed, names, marks, None)


@dataclass(frozen=True, slots=True)
class Question:
    """One condition on the person in a tree: what it says, and where it hangs."""

    said: str
    line: int
    test: nodes.Node
    branch: nodes.If
    holder: nodes.If | nodes.Not

    def put(self, other: nodes.Expr) -> None:
        """Put another expression in its place."""
        if isinstance(self.holder, nodes.If):
            self.holder.test = other
        else:
            self.holder.node = other


def personal_tests(tree: nodes.Template, parsed: Parsed) -> list[Question]:
    """Each `if` and `elif` of a tree of this text that asks about the person, in document order.

    `not first_name` is the question `first_name`, answered the other way.
    """
    found: list[Question] = []
    for branch, said in zip(tree.find_all(nodes.If), parsed.questions, strict=True):
        if not mentions(branch.test, parsed.tainted):
            continue
        holder: nodes.If | nodes.Not = branch
        test = branch.test
        while isinstance(test, nodes.Not) and said.startswith("not "):
            holder, test, said = test, test.node, said[4:]
        found.append(Question(said, branch.lineno, test, branch, holder))
    return found


def _run(tree: nodes.Template, parsed: Parsed, names: Names, marks: Marks, person: Mapping[str, str] | None) -> str:
    def mark_fixed(index: int, value: object) -> str:
        shown = as_text(value)
        word = marks.word("f", shown)
        marks.fixed[word] = shown
        return word

    def mark_personal(index: int, value: object) -> str:
        expression = parsed.expressions[index]
        if person is None:
            word = marks.word("p", expression)
        else:
            shown = as_text(value)
            word = marks.word("p", expression, shown if parsed.personal_control else "")
            marks.values[word] = shown
        marks.personal[word] = expression
        return word

    def mark_url(index: int, name: object) -> str:
        word = marks.word("u", str(name))
        marks.urls[word] = str(name)
        return word

    _replace_outputs(tree, parsed, names, evaluate=person is not None)
    context = _context(names, person) | {"_fixed": mark_fixed, "_personal": mark_personal, "_url": mark_url}
    pieces: list[str] = []
    size = 0
    try:
        for piece in CAGE.from_string(tree).generate(context):
            size += len(piece)
            if size > MAX_OUTPUT:
                raise ContentError(f"this email is longer than {MAX_OUTPUT:,} letters")
            pieces.append(piece)
    except _FAILS as error:
        raise ContentError(f"this text cannot be filled: {error}") from error
    return "".join(pieces)


def _context(names: Names, person: Mapping[str, str] | None) -> dict[str, object]:
    """Everything a text can see. Text, numbers and mappings of them; a marketer's text cannot call, nor name `_…`."""
    context: dict[str, object] = {**names.fixed, **dict.fromkeys(names.personal, "")}
    if person is not None:
        context |= {name: value for name, value in person.items() if name in names.personal}
    if not all(harmless(value) for value in context.values()):
        raise ContentError("only text and numbers may enter an email")
    return context


def _replace_outputs(tree: nodes.Template, parsed: Parsed, names: Names, *, evaluate: bool) -> None:
    for index, (output, position) in enumerate(outputs(tree)):
        node = output.nodes[position]
        argument: nodes.Node
        if isinstance(node, nodes.Name) and node.name in names.urls:
            call = "_url"
            argument = nodes.Const(node.name)
        elif mentions(node, parsed.tainted):
            call = "_personal"
            argument = node if evaluate else nodes.Const("")
        else:
            call = "_fixed"
            argument = node
        output.nodes[position] = _call(call, index, argument, node.lineno)


def _call(name: str, index: int, argument: nodes.Node, line: int) -> nodes.Call:
    call = nodes.Call(nodes.Name(name, "load"), [nodes.Const(index), argument], [], None, None)
    call.set_lineno(line, override=True)
    return call


# -- asking a text's conditions alone ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Questions:
    """The conditions of one text, ready to be asked: its template without a word in it.

    They are asked natively and in the text's own order, so a condition in a branch that is not taken is not asked.
    """

    template: Template
    names: Names
    said: tuple[str, ...]  # by position in the text

    def ask(self, person: Mapping[str, str] | None, answer: Callable[[str, object], bool]) -> None:
        """Ask what this person's passage through the text asks. `answer` gets each question and its value.

        Raises ValueError when a condition has no answer.
        """

        def asking(index: int, value: object) -> bool:
            return answer(self.said[index], value)

        try:
            for _ in self.template.generate(_context(self.names, person) | {"_asked": asking}):
                pass
        except _FAILS as error:
            raise ValueError(f"a condition of this text has no answer: {error}") from error


def questions_of(parsed: Parsed, names: Names, *, evaluate: bool = True) -> Questions | None:
    """The personal conditions of a text, None when it has none. Without `evaluate`, their values are not worked out."""
    tree = CAGE.parse(parsed.text)
    tests = personal_tests(tree, parsed)
    if not tests:
        return None
    for index, test in enumerate(tests):
        test.put(_call("_asked", index, test.test if evaluate else nodes.Const(""), test.line))
    tree.body = _silent(tree.body, frozenset(id(test.branch) for test in tests))
    return Questions(CAGE.from_string(tree), names, tuple(test.said for test in tests))


def _silent(items: Iterable[nodes.Node], personal: frozenset[int]) -> list[nodes.Node]:
    """Statements without what they print, and without loops and conditions that ask nothing and set nothing."""
    out: list[nodes.Node] = []
    for item in items:
        if isinstance(item, nodes.Assign):
            out.append(item)
        elif isinstance(item, nodes.If | nodes.For):
            item.body, item.else_ = _silent(item.body, personal), _silent(item.else_, personal)
            if isinstance(item, nodes.If):
                for other in item.elif_:
                    other.body = _silent(other.body, personal)
            asks = isinstance(item, nodes.If) and not personal.isdisjoint(map(id, (item, *item.elif_)))
            inner = item.elif_ if isinstance(item, nodes.If) else []
            if asks or item.body or item.else_ or any(other.body for other in inner):
                out.append(item)
    return out
