"""Jinja in marketers' texts: what may stand in it, and how a personal value becomes an opaque word.

A value never passes through Markdown, MJML or an HTML parser. Every `{{ expression }}` leaves the template as a *mark*:
a word of 12 letters and digits that means nothing to any of them. Marks of fixed values (the clinic's phone) are
replaced by their escaped values when the email is compiled, marks of personal values when it is filled.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dripwell.content.problems import Problem, did_you_mean
from dripwell.core.errors import ContentError

WIDTH = 12
MAX_OUTPUT = 1_000_000
MAX_SOURCE = 200_000
MAX_LIST = 100
MAX_LOOPS = 2

Fixed = Mapping[str, str | int | Mapping[str, str | int]]

FILTERS = frozenset({"default", "d", "upper", "lower", "title", "capitalize", "trim", "length"})
TESTS = frozenset({"defined", "undefined", "none", "eq", "ne", "lt", "le", "gt", "ge", "in", "string", "number"})

_EXPRESSIONS = (
    nodes.Name, nodes.Const, nodes.TemplateData, nodes.Or, nodes.And, nodes.Not, nodes.CondExpr, nodes.Concat,
    nodes.Compare, nodes.Operand, nodes.List, nodes.Tuple, nodes.Filter, nodes.Test, nodes.Getattr,
)  # fmt: skip
_STATEMENTS = (nodes.Template, nodes.Output, nodes.If, nodes.For, nodes.Assign)
_LOOP_FACTS = frozenset({"index", "index0", "first", "last", "length"})

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _sandbox() -> ImmutableSandboxedEnvironment:
    """A Jinja environment that reaches nothing: strict about missing names, no globals, few filters and tests."""
    # No trim_blocks: it would glue `… {% endif %}` to the line below.
    env = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    env.globals.clear()
    env.filters = {name: call for name, call in env.filters.items() if name in FILTERS}
    env.tests = {name: call for name, call in env.tests.items() if name in TESTS}
    return env


_ENV = _sandbox()


@dataclass(frozen=True, slots=True)
class Names:
    """What a text may mention. `personal`: fields, empty when unknown. `urls`: link targets. `fixed`: known already."""

    personal: frozenset[str]
    urls: frozenset[str]
    fixed: Fixed
    required: frozenset[str] = frozenset()  # of `personal`: always there, so no fallback is asked for

    def all(self) -> list[str]:
        """Every name, as a marketer writes it."""
        dotted = [f"{name}.{key}" for name, value in self.fixed.items() if isinstance(value, Mapping) for key in value]
        plain = [name for name, value in self.fixed.items() if not isinstance(value, Mapping)]
        return sorted([*self.personal, *self.urls, *plain, *dotted])


@dataclass(frozen=True, slots=True)
class Parsed:
    """A template that was read and found harmless."""

    text: str
    tree: nodes.Template
    expressions: tuple[str, ...]  # the texts between {{ and }}, in document order
    tainted: frozenset[str]  # names whose value depends on the person
    personal_control: bool  # an if, loop or set depends on the person


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
        if not any(salt in part for part in parts):
            return salt
    raise ContentError("this text contains every mark we could use")  # pragma: no cover


def parse(text: str, names: Names, path: str, first_line: int = 1) -> tuple[Parsed | None, tuple[Problem, ...]]:
    """Read a template and find everything in it that is not allowed. None when it cannot be rendered.

    `first_line` is the line of the file that the text's first line stands on.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(text) > MAX_SOURCE:
        return None, (
            Problem("D105", "error", path, first_line, 1, 1, f"this text is longer than {MAX_SOURCE:,} letters"),
        )
    try:
        tree = _ENV.parse(text)
        spans = _spans(text)
        _refuse_raw(text)
    except TemplateSyntaxError as error:
        line = min(max(error.lineno, 1), text.count("\n") + 1)
        start, length = _line_span(text, line, "{")
        text = f"this is not readable: {error.message}"
        help = 'write {{ first_name or "there" }}'
        return None, (Problem("D202", "error", path, first_line + line - 1, start, length, text, help),)
    except RecursionError:
        return None, (Problem("D202", "error", path, first_line, 1, 1, "this is nested too deeply"),)
    check = _Check(text, names, path, first_line, tuple(spans))
    check.run(tree)
    problems = tuple(sorted(check.problems, key=lambda p: (p.line, p.column)))
    if any(p.level == "error" for p in problems):
        return None, problems
    tainted, control = _taint(tree, names)
    return Parsed(text, tree, tuple(_folded(span[2], names) for span in spans), tainted, control), problems


def stage(parsed: Parsed, names: Names, marks: Marks, person: Mapping[str, str] | None) -> str:
    """Run the template and return its text with a mark for every value.

    With `person`, personal expressions are evaluated as they are met, so conditions and loops over personal values
    work; without, they are only named (and `parsed.personal_control` must be false).
    """
    return _run(_ENV.parse(parsed.text), parsed, names, marks, person)


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
                out += item.body if _mentions(item.iter, parsed.tainted) else [item]
                out += open_up(item.else_)
            else:
                out.append(item)
        return out

    tree = _ENV.parse(parsed.text)
    tree.body = open_up(tree.body)
    return _run(tree, parsed, names, marks, None)


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
    context: dict[str, object] = {**names.fixed, **dict.fromkeys(names.personal, "")}
    if person is not None:
        context |= {name: value for name, value in person.items() if name in names.personal}
    context |= {"_fixed": mark_fixed, "_personal": mark_personal, "_url": mark_url}
    pieces: list[str] = []
    size = 0
    try:
        for piece in _ENV.from_string(tree).generate(context):
            size += len(piece)
            if size > MAX_OUTPUT:
                raise ContentError(f"this email is longer than {MAX_OUTPUT:,} letters")
            pieces.append(piece)
    except (TemplateError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise ContentError(f"this text cannot be filled: {error}") from error
    return "".join(pieces)


def evaluate(expression: str, facts: Mapping[str, Any]) -> str:
    """The value of one personal expression. A field that is not there is empty; ValueError if it cannot be printed."""
    call, names = _expression(expression)
    try:
        return as_text(call({name: facts.get(name, "") for name in names}))
    except (TemplateError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{{{{ {expression} }}}} has no value: {error}") from error


def may_be_empty(expression: str) -> bool:
    """True when the text itself says that nothing is fine here: `{{ "…" if first_name else "" }}`."""
    return isinstance(_parse_expression(expression), nodes.CondExpr)


def as_text(value: object) -> str:
    """A value as it is printed: text and whole numbers only."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be printed")


@lru_cache(maxsize=2000)
def _expression(expression: str) -> tuple[Callable[..., Any], tuple[str, ...]]:
    return _ENV.compile_expression(expression, undefined_to_none=False), tuple(_names(_parse_expression(expression)))


def _folded(expression: str, names: Names) -> str:
    """The expression with fixed names written out, so that it can be evaluated knowing the person alone."""
    out: list[str] = []
    tokens = [(kind, value) for _, kind, value in _ENV.lex("{{ " + expression + " }}")][1:-1]
    index = 0
    while index < len(tokens):
        kind, value = tokens[index]
        fixed = names.fixed.get(value) if kind == "name" else None
        if isinstance(fixed, Mapping):
            following = [n for n in range(index + 1, len(tokens)) if tokens[n][0] != "whitespace"][:2]
            attribute = tokens[following[1]][1] if len(following) == 2 and tokens[following[0]][1] == "." else ""
            if attribute in fixed:
                out.append(_literal(fixed[attribute]))
                index = following[1] + 1
                continue
        out.append(value if fixed is None or isinstance(fixed, Mapping) else _literal(fixed))
        index += 1
    return "".join(out).strip()


def _literal(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


@lru_cache(maxsize=2000)
def _parse_expression(expression: str) -> nodes.Node:
    output = _ENV.parse("{{ " + expression + " }}").body[0]
    assert isinstance(output, nodes.Output)
    return next((node for node in output.nodes if not isinstance(node, nodes.TemplateData)), output.nodes[0])


def _outputs(tree: nodes.Node) -> list[tuple[nodes.Output, int]]:
    return [
        (output, position)
        for output in tree.find_all(nodes.Output)
        for position, node in enumerate(output.nodes)
        if not isinstance(node, nodes.TemplateData)
    ]


def _replace_outputs(tree: nodes.Template, parsed: Parsed, names: Names, *, evaluate: bool) -> None:
    for index, (output, position) in enumerate(_outputs(tree)):
        node = output.nodes[position]
        line = node.lineno
        argument: nodes.Expr
        if isinstance(node, nodes.Name) and node.name in names.urls:
            call = "_url"
            argument = nodes.Const(node.name)
        elif _mentions(node, parsed.tainted):
            call = "_personal"
            argument = node if evaluate else nodes.Const("")
        else:
            call = "_fixed"
            argument = node
        new = nodes.Call(nodes.Name(call, "load"), [nodes.Const(index), argument], [], None, None)
        new.set_lineno(line, override=True)
        output.nodes[position] = new


def _names(node: nodes.Node) -> set[str]:
    found = {name.name for name in node.find_all(nodes.Name)}
    if isinstance(node, nodes.Name):
        found.add(node.name)
    return found


def _mentions(node: nodes.Node, names: frozenset[str]) -> bool:
    return not names.isdisjoint(_names(node))


def _taint(tree: nodes.Template, names: Names) -> tuple[frozenset[str], bool]:
    tainted = set(names.personal)
    while True:
        before = len(tainted)
        for assign in tree.find_all(nodes.Assign):
            if _mentions(assign.node, frozenset(tainted)):
                tainted |= _names(assign.target)
        for loop in tree.find_all(nodes.For):
            if _mentions(loop.iter, frozenset(tainted)) or (loop.test and _mentions(loop.test, frozenset(tainted))):
                tainted |= _names(loop.target) | {"loop"}
        for test in tree.find_all(nodes.If):
            # What is set inside a personal condition depends on the person, whatever it is set to.
            if _mentions(test.test, frozenset(tainted)) or any(
                _mentions(o.test, frozenset(tainted)) for o in test.elif_
            ):
                for assign in test.find_all(nodes.Assign):
                    tainted |= _names(assign.target)
        if len(tainted) == before:
            break
    sealed = frozenset(tainted)
    parts: list[nodes.Node] = [test.test for test in tree.find_all(nodes.If)]
    parts += [loop.iter for loop in tree.find_all(nodes.For)]
    parts += [loop.test for loop in tree.find_all(nodes.For) if loop.test is not None]
    parts += [assign.node for assign in tree.find_all(nodes.Assign)]
    control = any(_mentions(part, sealed) for part in parts)
    return sealed, control


def _refuse_raw(text: str) -> None:
    for line, kind, _ in _ENV.lex(text):
        if kind == "raw_begin":
            raise TemplateSyntaxError("`raw` cannot be used in an email", line)


def _spans(text: str) -> list[tuple[int, int, str]]:
    """(offset, length, expression) of each {{ … }}, in order."""
    found: list[tuple[int, int, str]] = []
    cursor = 0
    inside: list[str] | None = None
    for _, kind, value in _ENV.lex(text):
        if kind == "variable_begin":
            inside = []
        elif kind == "variable_end" and inside is not None:
            raw = "".join(inside)
            start = text.find(raw, cursor)
            cursor = start + len(raw) if start >= 0 else cursor
            stripped = raw.strip()
            found.append((start + len(raw) - len(raw.lstrip()), max(len(stripped), 1), stripped))
            inside = None
        elif inside is not None:
            inside.append(value)
    return found


def _line_span(text: str, line: int, needle: str) -> tuple[int, int]:
    lines = text.split("\n")
    content = lines[line - 1] if 0 < line <= len(lines) else ""
    at = content.find(needle)
    return (at + 1, max(len(content.rstrip()) - at, 1)) if at >= 0 else (1, max(len(content), 1))


class _Check:
    """Walks a template once and collects what is not allowed in it."""

    def __init__(
        self, text: str, names: Names, path: str, first_line: int, spans: tuple[tuple[int, int, str], ...]
    ) -> None:
        self.text, self.names, self.path, self.first_line, self.spans = text, names, path, first_line, spans
        self.problems: list[Problem] = []
        self._guarded: set[int] = set()

    def run(self, tree: nodes.Template) -> None:
        self._statements(tree.body, frozenset(), frozenset(), 0)
        for index, (output, position) in enumerate(_outputs(tree)):
            if index < len(self.spans):
                self._fallback(output.nodes[position], self.spans[index])

    def _problem(self, node: nodes.Node, needle: str, text: str, help: str = "", note: str = "") -> None:
        lines = self.text.split("\n")
        line = node.lineno or 1  # some statements carry no line
        content = lines[line - 1] if 0 < line <= len(lines) else ""
        found = re.search(rf"(?<![\w.]){re.escape(needle)}(?!\w)", content) if needle else None
        column, length = (found.start() + 1, len(needle)) if found else _line_span(self.text, line, "{")
        label = help if help.startswith("did you mean") else ""
        help = "" if label else help
        at = self.first_line + line - 1
        problem = Problem("D202", "error", self.path, at, column, length, text, help, note, label)
        if problem not in self.problems:
            self.problems.append(problem)

    def _statements(
        self, items: Iterable[nodes.Node], local: frozenset[str], guarded: frozenset[str], loops: int
    ) -> frozenset[str]:
        for item in items:
            if isinstance(item, nodes.Output):
                for node in item.nodes:
                    if not isinstance(node, nodes.TemplateData):
                        self._output(node, local)
                        if guarded & _names(node):
                            self._guarded.add(id(node))
            elif isinstance(item, nodes.If):
                tests = [item.test, *(other.test for other in item.elif_)]
                for test in tests:
                    self._expression(test, local)
                inner = guarded | frozenset(name for test in tests for name in _names(test))
                self._statements(item.body, local, inner, loops)
                for other in item.elif_:
                    self._statements(other.body, local, inner, loops)
                self._statements(item.else_, local, inner, loops)
                local |= frozenset(name for assign in item.find_all(nodes.Assign) for name in _names(assign.target))
            elif isinstance(item, nodes.For):
                if loops >= MAX_LOOPS:
                    self._problem(item, "", f"loops stand at most {MAX_LOOPS} deep")
                if item.recursive:
                    self._problem(item, "recursive", "a loop cannot call itself")
                self._expression(item.iter, local)
                inner_names = local | frozenset(_names(item.target)) | {"loop"}
                self._target(item.target)
                if item.test is not None:
                    self._expression(item.test, inner_names)
                self._statements(item.body, inner_names, guarded, loops + 1)
                self._statements(item.else_, local, guarded, loops)
            elif isinstance(item, nodes.Assign):
                self._expression(item.node, local)
                self._target(item.target)
                local |= frozenset(_names(item.target))
            else:
                word = type(item).__name__.lower()
                self._problem(
                    item, "", f"`{word}` cannot be used in an email", "use {{ … }}, {% if %}, {% for %} and {% set %}"
                )
        return local

    def _target(self, node: nodes.Node) -> None:
        if not isinstance(node, nodes.Name):
            self._problem(node, "", "set one simple name at a time")
            return
        taken = node.name in self.names.personal | self.names.urls | set(self.names.fixed)
        if node.name.startswith("_") or taken or node.name == "loop":
            self._problem(node, node.name, f"`{node.name}` cannot be given another value")

    def _output(self, node: nodes.Node, local: frozenset[str]) -> None:
        if isinstance(node, nodes.Name) and node.name in self.names.urls:
            return
        self._expression(node, local)

    def _expression(self, node: nodes.Node, local: frozenset[str]) -> None:
        if not isinstance(node, _EXPRESSIONS):
            what = {"Call": "a call", "Getitem": "[…]", "Mul": "*", "Pow": "**", "Add": "+"}.get(type(node).__name__)
            self._problem(
                node,
                "",
                f"{what or type(node).__name__.lower()} cannot be used in an email",
                "write a name, a filter such as `| title`, `or`, or `… if … else …`",
            )
            return
        if isinstance(node, nodes.Name):
            self._name(node, local)
            return
        if isinstance(node, nodes.Getattr):
            self._attribute(node, local)
            return
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            self._problem(node, node.name, f"there is no filter `{node.name}`", did_you_mean(node.name, FILTERS))
            return
        if isinstance(node, nodes.Test) and node.name not in TESTS:
            self._problem(node, node.name, f"there is no test `{node.name}`", did_you_mean(node.name, TESTS))
            return
        if isinstance(node, nodes.List | nodes.Tuple) and len(node.items) > MAX_LIST:
            self._problem(node, "", f"a list has at most {MAX_LIST} entries")
        for child in node.iter_child_nodes():
            self._expression(child, local)

    def _name(self, node: nodes.Name, local: frozenset[str]) -> None:
        name = node.name
        if name in local or name in self.names.personal:
            return
        if name in self.names.urls:
            self._problem(node, name, f"`{name}` is a link and stands alone", f"write [words]({{{{ {name} }}}})")
            return
        value = self.names.fixed.get(name)
        if isinstance(value, Mapping):
            self._problem(node, name, f"`{name}` has parts", f"write {name}.{next(iter(value))}")
        elif value is None:
            self._problem(
                node,
                name,
                f"nothing here is called `{name}`",
                did_you_mean(name, self.names.all()),
                "names you can use: " + ", ".join(self.names.all()),
            )

    def _attribute(self, node: nodes.Getattr, local: frozenset[str]) -> None:
        owner = node.node
        if not isinstance(owner, nodes.Name):
            self._problem(node, node.attr, f"`.{node.attr}` cannot be used here")
            return
        if owner.name == "loop" and "loop" in local and node.attr in _LOOP_FACTS:
            return
        value = self.names.fixed.get(owner.name)
        written = f"{owner.name}.{node.attr}"
        if not isinstance(value, Mapping) or node.attr not in value:
            self._problem(
                node,
                written,
                f"nothing here is called `{written}`",
                did_you_mean(written, self.names.all()),
                "names you can use: " + ", ".join(self.names.all()),
            )

    def _fallback(self, node: nodes.Node, span: tuple[int, int, str]) -> None:
        """D202: a value that may be empty, printed without a fallback."""
        offset, length, expression = span
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        if not self.problems and not (_names(node) - self.names.personal - set(self.names.fixed)):
            try:
                evaluate(expression, {**self.names.fixed, **dict.fromkeys(self.names.personal, "x")})
            except ValueError:
                place = (self.path, self.first_line + line - 1, column, length)
                help = "print a name, or words in quotes"
                self.problems.append(Problem("D202", "error", *place, "this cannot be printed", help))
                return
        used = _names(node) & (self.names.personal - self.names.required)
        if not used or id(node) in self._guarded or isinstance(node, nodes.CondExpr):
            return
        try:
            shown = evaluate(expression, self.names.fixed)
        except (ValueError, TemplateSyntaxError):
            return  # it names something that is not there: reported by name
        if shown.strip():
            return
        name = sorted(used)[0]
        self.problems.append(
            Problem(
                "D202",
                "error",
                self.path,
                self.first_line + line - 1,
                column,
                length,
                f"`{name}` may be empty, and nothing is said for then",
                f'write {{{{ {name} or "there" }}}}',
            )
        )
