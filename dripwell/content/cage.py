"""What may stand in a marketer's text: read it, walk its tree once, and name everything that is not allowed.

Allowed is what is listed here, and nothing else: printing, `if`, `for` over a written list, `set`; names and the parts
of `clinic`, `series` and `step` that are documented; `or`, `and`, `not`, comparisons, `~`, inline `if`, eight filters.
Calls, subscripts, attributes, imports, macros and blocks are other kinds of nodes, so they are refused by kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jinja2 import TemplateSyntaxError, nodes

from dripwell.content.bounds import MAX_DIGITS, MAX_LIST, MAX_LOOPS, too_large, too_much_work
from dripwell.content.expressions import (
    CAGE,
    FILTERS,
    TESTS,
    Names,
    Token,
    asked,
    evaluate,
    mentions,
    names_in,
    odd_one,
    outputs,
    questions,
    spans,
    written,
)
from dripwell.content.problems import Problem, did_you_mean

MAX_SOURCE = 200_000
MAX_TOKENS = 20_000
MAX_PROBLEMS = 50
MAX_NAME = 40

_EXPRESSIONS = (
    nodes.Name, nodes.Const, nodes.TemplateData, nodes.Or, nodes.And, nodes.Not, nodes.CondExpr, nodes.Concat,
    nodes.Compare, nodes.Operand, nodes.List, nodes.Tuple, nodes.Filter, nodes.Test, nodes.Getattr,
)  # fmt: skip
_LOOP_FACTS = frozenset({"index", "index0", "first", "last", "length"})
_INVISIBLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A text that was read and found harmless."""

    text: str
    tree: nodes.Template
    expressions: tuple[str, ...]  # what stands between {{ and }}, in document order
    questions: tuple[str, ...]  # what each {% if %} and {% elif %} asks, in document order
    tainted: frozenset[str]  # names whose value depends on the person
    personal_control: bool  # an if, loop or set depends on the person
    mentioned: frozenset[str]  # facts about the person that stand anywhere in it


def parse(text: str, names: Names, path: str, first_line: int = 1) -> tuple[Parsed | None, tuple[Problem, ...]]:
    """Read a template and find everything in it that is not allowed. None when it cannot be rendered.

    `first_line` is the line of the file that the text's first line stands on.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")

    def whole(said: str, code: str = "D202") -> tuple[None, tuple[Problem, ...]]:
        return None, (Problem(code, "error", path, first_line, 1, 1, said),)

    if len(text) > MAX_SOURCE:
        return whole(f"this text is longer than {MAX_SOURCE:,} letters", "D105")
    tokens: list[Token] = []
    read_to_the_end = False
    try:
        for token in CAGE.lex(text):
            if token[1] == "raw_begin":
                raise TemplateSyntaxError("`raw` cannot be used in an email", token[0])
            tokens.append(token)
            if len(tokens) > MAX_TOKENS:
                return whole("this text has too much between {{ and }}")
        read_to_the_end = True
        tree = CAGE.parse(text)
    except TemplateSyntaxError as error:
        line = min(max(error.lineno, 1), text.count("\n") + 1)
        said = f"this is not readable: {error.message}"
        help = 'write {{ first_name or "there" }}'
        odd = odd_one(tokens) if read_to_the_end else None
        if odd is not None:
            line, said, help = odd
        start, length = _line_span(text, line, "{%" if odd else "{")
        return None, (Problem("D202", "error", path, first_line + line - 1, start, length, said, help),)
    except RecursionError:
        return whole("this is nested too deeply")
    except (ValueError, OverflowError):  # of a number with thousands of digits
        return whole("this text holds a number that is too long")
    if said := too_large(tree):
        return whole(said)
    found = tuple(spans(text, tokens))
    check = _Check(text, names, path, first_line, found)
    check.run(tree)
    problems = tuple(sorted(check.problems, key=lambda p: (p.line, p.column)))
    if any(p.level == "error" for p in problems):
        return None, problems
    tainted, control = _taint(tree, names)
    parsed = Parsed(
        text,
        tree,
        tuple(written(span[2], names.fixed) for span in found),
        tuple(asked(one, names.fixed) for one in questions(tokens)),
        tainted,
        control,
        frozenset(names_in(tree) & names.personal),
    )
    return parsed, problems


def _line_span(text: str, line: int, needle: str) -> tuple[int, int]:
    lines = text.split("\n")
    content = lines[line - 1] if 0 < line <= len(lines) else ""
    at = content.find(needle)
    return (at + 1, max(len(content.rstrip()) - at, 1)) if at >= 0 else (1, max(len(content), 1))


def _taint(tree: nodes.Template, names: Names) -> tuple[frozenset[str], bool]:
    """Which names depend on the person, those that are set included; and whether any if, loop or set does."""
    tainted = set(names.personal)
    while True:
        before = len(tainted)
        for assign in tree.find_all(nodes.Assign):
            if mentions(assign.node, frozenset(tainted)):
                tainted |= names_in(assign.target)
        for loop in tree.find_all(nodes.For):
            if mentions(loop.iter, frozenset(tainted)) or (loop.test and mentions(loop.test, frozenset(tainted))):
                tainted |= names_in(loop.target) | {"loop"}
        for test in tree.find_all(nodes.If):
            # What is set inside a personal condition depends on the person, whatever it is set to.
            if mentions(test.test, frozenset(tainted)) or any(mentions(o.test, frozenset(tainted)) for o in test.elif_):
                for assign in test.find_all(nodes.Assign):
                    tainted |= names_in(assign.target)
        if len(tainted) == before:
            break
    sealed = frozenset(tainted)
    parts: list[nodes.Node] = [test.test for test in tree.find_all(nodes.If)]
    parts += [loop.iter for loop in tree.find_all(nodes.For)]
    parts += [loop.test for loop in tree.find_all(nodes.For) if loop.test is not None]
    parts += [assign.node for assign in tree.find_all(nodes.Assign)]
    return sealed, any(mentions(part, sealed) for part in parts)


class _Check:
    """Walks a template once and collects what is not allowed in it."""

    def __init__(
        self, text: str, names: Names, path: str, first_line: int, spans: tuple[tuple[int, int, str], ...]
    ) -> None:
        self.text, self.names, self.path, self.first_line, self.spans = text, names, path, first_line, spans
        self.lines = text.split("\n")
        self.problems: list[Problem] = []
        self._guarded: set[int] = set()
        self._refused: set[int] = set()  # what is printed and must not run, not even to see what it says
        self._printing: nodes.Node | None = None

    def run(self, tree: nodes.Template) -> None:
        self._statements(tree.body, frozenset(), frozenset(), 0)
        heavy = list(too_much_work(tree, self.names))
        for node, said in heavy:
            self._problem(node, "", said)
        if heavy:
            return
        for index, (output, position) in enumerate(outputs(tree)):
            node = output.nodes[position]
            if index < len(self.spans) and len(self.problems) < MAX_PROBLEMS and id(node) not in self._refused:
                self._fallback(node, self.spans[index])

    def _problem(self, node: nodes.Node, needle: str, text: str, help: str = "", note: str = "") -> None:
        if self._printing is not None:
            self._refused.add(id(self._printing))
        if len(self.problems) >= MAX_PROBLEMS:
            return
        line = node.lineno or 1  # some statements carry no line
        content = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
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
                        self._printing = node
                        self._output(node, local)
                        self._printing = None
                        if guarded & names_in(node):
                            self._guarded.add(id(node))
            elif isinstance(item, nodes.If):
                tests = [item.test, *(other.test for other in item.elif_)]
                for test in tests:
                    self._expression(test, local)
                inner = guarded | frozenset(name for test in tests for name in names_in(test))
                self._statements(item.body, local, inner, loops)
                for other in item.elif_:
                    self._statements(other.body, local, inner, loops)
                self._statements(item.else_, local, inner, loops)
                local |= frozenset(name for assign in item.find_all(nodes.Assign) for name in names_in(assign.target))
            elif isinstance(item, nodes.For):
                self._loop(item, local, guarded, loops)
            elif isinstance(item, nodes.Assign):
                self._expression(item.node, local)
                self._target(item.target)
                local |= frozenset(names_in(item.target))
            else:
                word = type(item).__name__.lower()
                self._problem(
                    item, "", f"`{word}` cannot be used in an email", "use {{ … }}, {% if %}, {% for %} and {% set %}"
                )
        return local

    def _loop(self, item: nodes.For, local: frozenset[str], guarded: frozenset[str], loops: int) -> None:
        if loops >= MAX_LOOPS:
            self._problem(item, "", f"loops stand at most {MAX_LOOPS} deep")
        if item.recursive:
            self._problem(item, "recursive", "a loop cannot call itself")
        self._expression(item.iter, local)
        inner = local | frozenset(names_in(item.target)) | {"loop"}
        self._target(item.target)
        if item.test is not None:
            self._expression(item.test, inner)
        self._statements(item.body, inner, guarded, loops + 1)
        self._statements(item.else_, local, guarded, loops)

    def _target(self, node: nodes.Node) -> None:
        if not isinstance(node, nodes.Name):
            self._problem(node, "", "set one simple name at a time")
            return
        taken = node.name in self.names.personal | self.names.urls | set(self.names.fixed)
        # Python reads letters that look alike as one name, so only plain ones may be given.
        plain = node.name.isascii() and len(node.name) <= MAX_NAME
        if not plain or node.name.startswith("_") or "__" in node.name or taken or node.name == "loop":
            self._problem(node, node.name, f"`{node.name[:MAX_NAME]}` cannot be given another value")

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
        match node:
            case nodes.Name():
                self._name(node, local)
                return
            case nodes.Getattr():
                self._attribute(node, local)
                return
            case nodes.Const():
                self._constant(node)
                return
            case nodes.Filter() if node.name not in FILTERS:
                self._problem(node, node.name, f"there is no filter `{node.name}`", did_you_mean(node.name, FILTERS))
                return
            case nodes.Test() if node.name not in TESTS:
                self._problem(node, node.name, f"there is no test `{node.name}`", did_you_mean(node.name, TESTS))
                return
            case nodes.Filter() | nodes.Test() if node.kwargs or node.dyn_args or node.dyn_kwargs:
                self._problem(node, node.name, f"`{node.name}` takes plain values only", "write default('there', true)")
                return
            case nodes.List() | nodes.Tuple() if len(node.items) > MAX_LIST:
                self._problem(node, "", f"a list has at most {MAX_LIST} entries")
        for child in node.iter_child_nodes():
            self._expression(child, local)

    def _constant(self, node: nodes.Const) -> None:
        value = node.value
        if isinstance(value, str) and "__" in value:
            self._problem(node, "", "`__` cannot be used in an email")
        elif isinstance(value, str) and _INVISIBLE.search(value):
            self._problem(node, "", "words in quotes stand on one line, without invisible characters")
        elif isinstance(value, float | complex):
            self._problem(node, "", "only whole numbers can be used in an email")
        elif isinstance(value, int) and value >= 10**MAX_DIGITS:
            self._problem(node, "", f"a number has at most {MAX_DIGITS} digits")

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
            self._unknown(node, name)

    def _attribute(self, node: nodes.Getattr, local: frozenset[str]) -> None:
        owner = node.node
        if not isinstance(owner, nodes.Name):
            self._problem(node, node.attr, f"`.{node.attr}` cannot be used here")
            return
        if owner.name == "loop" and "loop" in local and node.attr in _LOOP_FACTS:
            return
        value = self.names.fixed.get(owner.name)
        if not isinstance(value, Mapping) or node.attr not in value:
            self._unknown(node, f"{owner.name}.{node.attr}")

    def _unknown(self, node: nodes.Node, name: str) -> None:
        known = self.names.all()
        # Looking for the nearest name is the slow part.
        guess = did_you_mean(name[:MAX_NAME], known) if len(self.problems) < MAX_PROBLEMS else ""
        note = "names you can use: " + ", ".join(known)
        self._problem(node, name, f"nothing here is called `{name[:MAX_NAME]}`", guess, note)

    def _fallback(self, node: nodes.Node, span: tuple[int, int, str]) -> None:
        """D202: a value that may be empty, printed without a fallback."""
        offset, length, expression = span
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        place = (self.path, self.first_line + line - 1, column, length)
        if not self.problems and not (names_in(node) - self.names.personal - set(self.names.fixed)):
            try:
                evaluate(expression, {**self.names.fixed, **dict.fromkeys(self.names.personal, "x")})
            except ValueError:
                help = "print a name, or words in quotes"
                self.problems.append(Problem("D202", "error", *place, "this cannot be printed", help))
                return
        used = names_in(node) & (self.names.personal - self.names.required)
        if not used or id(node) in self._guarded or isinstance(node, nodes.CondExpr):
            return
        try:
            shown = evaluate(expression, self.names.fixed)
        except (ValueError, TemplateSyntaxError):
            return  # it names something that is not there: reported by name
        if shown.strip():
            return
        name = sorted(used)[0]
        said, help = f"`{name}` may be empty, and nothing is said for then", f'write {{{{ {name} or "there" }}}}'
        self.problems.append(Problem("D202", "error", *place, said, help))
