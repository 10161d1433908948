"""The Jinja that marketers' texts are written in: one cage, the names a text may mention, and single expressions.

The cage reaches nothing: an immutable sandbox, strict about missing names, without globals, with eight filters and
twelve tests, and without a loader. What may stand in a text is decided before anything runs (`cage.py`), from the tree
and not from the letters, so an escape or an encoding changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

Fixed = Mapping[str, str | int | Mapping[str, str | int]]
Token = tuple[int, str, str]  # line, kind, what stands there

FILTERS = frozenset({"default", "d", "upper", "lower", "title", "capitalize", "trim", "length"})
TESTS = frozenset({"defined", "undefined", "none", "eq", "ne", "lt", "le", "gt", "ge", "in", "string", "number"})


def _cage() -> ImmutableSandboxedEnvironment:
    # No trim_blocks: it would glue `… {% endif %}` to the line below. No autoescape: every value leaves the template as
    # a mark and is escaped for its place, text or HTML, when the mark is filled.
    env = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    env.globals.clear()
    env.filters = {name: call for name, call in env.filters.items() if name in FILTERS}
    env.tests = {name: call for name, call in env.tests.items() if name in TESTS}
    return env


CAGE = _cage()


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


# -- one expression ----------------------------------------------------------------------------------------------------


def evaluate(expression: str, facts: Mapping[str, Any]) -> str:
    """The value of one personal expression. A field that is not there is empty; ValueError if it cannot be printed."""
    call, names = _compiled(expression)
    try:
        return as_text(call({name: facts.get(name, "") for name in names}))
    except (TemplateError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{{{{ {expression} }}}} has no value: {error}") from error


def may_be_empty(expression: str) -> bool:
    """True when the text itself says that nothing is fine here: `{{ "…" if first_name else "" }}`."""
    return isinstance(_read(expression), nodes.CondExpr)


def as_text(value: object) -> str:
    """A value as it is printed: text and whole numbers only."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be printed")


def harmless(value: object) -> bool:
    """Whether a value may enter the cage: text, numbers, yes and no, and lists and mappings of those. No objects."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and harmless(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(harmless(one) for one in value)
    return type(value) in (str, int, bool)


@lru_cache(maxsize=2000)
def _compiled(expression: str) -> tuple[Callable[..., Any], tuple[str, ...]]:
    return CAGE.compile_expression(expression, undefined_to_none=False), tuple(names_in(_read(expression)))


@lru_cache(maxsize=2000)
def _read(expression: str) -> nodes.Node:
    output = CAGE.parse("{{ " + expression + " }}").body[0]
    assert isinstance(output, nodes.Output)
    return next((node for node in output.nodes if not isinstance(node, nodes.TemplateData)), output.nodes[0])


# -- as they are written -----------------------------------------------------------------------------------------------


def written(expression: str, fixed: Fixed) -> str:
    """The expression with fixed names written out, so that it can be evaluated knowing the person alone."""
    return "".join(value for _, value in _known(_tokens(expression), fixed)).strip()


def asked(expression: str, fixed: Fixed) -> str:
    """A condition in one spelling: fixed names written out, one space between words, one kind of quotes."""
    said = ""
    for kind, value in _known(_tokens(expression), fixed):
        if kind != "whitespace":
            close = not said or said.endswith("(") or value in (")", ",")
            said += ("" if close else " ") + (_quoted(_text(value)) if kind == "string" else value)
    return said


def outputs(tree: nodes.Node) -> list[tuple[nodes.Output, int]]:
    """Each `{{ … }}` of a tree in document order: where it stands, and at which position there."""
    return [
        (output, position)
        for output in tree.find_all(nodes.Output)
        for position, node in enumerate(output.nodes)
        if not isinstance(node, nodes.TemplateData)
    ]


def spans(text: str, tokens: Iterable[Token]) -> list[tuple[int, int, str]]:
    """(offset, length, expression) of each {{ … }}, in document order."""
    found: list[tuple[int, int, str]] = []
    cursor = 0
    inside: list[str] | None = None
    for _, kind, value in tokens:
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


def questions(tokens: Iterable[Token]) -> list[str]:
    """What each `{% if … %}` and `{% elif … %}` asks, in document order."""
    found: list[str] = []
    inside: list[tuple[str, str]] | None = None
    for _, kind, value in tokens:
        if kind == "block_begin":
            inside = []
        elif kind == "block_end" and inside is not None:
            words = [n for n, (kind, _) in enumerate(inside) if kind != "whitespace"]
            if words and inside[words[0]][1] in ("if", "elif"):
                found.append("".join(value for _, value in inside[words[0] + 1 :]).strip())
            inside = None
        elif inside is not None:
            inside.append((kind, value))
    return found


_PAIRS = {"if": "endif", "for": "endfor"}


def odd_one(tokens: Iterable[Token]) -> tuple[int, str, str] | None:
    """The first `{% if %}` or `{% for %}` without its end, or the end without one: its line, what is wrong, the help.

    None when all of them stand in pairs.
    """
    opened: list[tuple[int, str]] = []
    begins = False
    for line, kind, value in tokens:
        if kind == "block_begin":
            begins = True
        elif begins and kind == "name":
            begins = False
            if value in _PAIRS:
                opened.append((line, value))
            elif value in _PAIRS.values():
                if not opened or _PAIRS[opened[-1][1]] != value:
                    wanted = value.removeprefix("end")
                    return line, f"this {{% {value} %}} has no {{% {wanted} … %}} before it", "take it out, or add that"
                opened.pop()
    if not opened:
        return None
    line, name = opened[0]
    return line, f"this {{% {name} %}} has no {{% {_PAIRS[name]} %}}", f"write {{% {_PAIRS[name]} %}} where it ends"


def names_in(node: nodes.Node) -> set[str]:
    """Every name an expression mentions."""
    found = {name.name for name in node.find_all(nodes.Name)}
    if isinstance(node, nodes.Name):
        found.add(node.name)
    return found


def compared(expression: str) -> tuple[list[str], list[str | int]]:
    """What a condition is about: the names in it, and the words and numbers they are compared with."""
    read = _read(expression)
    values = [node.value for node in (read, *read.find_all(nodes.Const)) if isinstance(node, nodes.Const)]
    return sorted(names_in(read)), [value for value in values if type(value) in (str, int)]


def mentions(node: nodes.Node, names: frozenset[str]) -> bool:
    """Whether an expression mentions one of these names."""
    return not names.isdisjoint(names_in(node))


def _tokens(expression: str) -> list[tuple[str, str]]:
    return [(kind, value) for _, kind, value in CAGE.lex("{{ " + expression + " }}")][1:-1]


def _known(tokens: list[tuple[str, str]], fixed: Fixed) -> list[tuple[str, str]]:
    """The tokens, each name of a fixed value replaced by the value as a literal."""
    out: list[tuple[str, str]] = []
    index = 0
    while index < len(tokens):
        kind, value = tokens[index]
        known = fixed.get(value) if kind == "name" else None
        if isinstance(known, Mapping):
            following = [n for n in range(index + 1, len(tokens)) if tokens[n][0] != "whitespace"][:2]
            attribute = tokens[following[1]][1] if len(following) == 2 and tokens[following[0]][1] == "." else ""
            if attribute in known:
                out.append(_literal(known[attribute]))
                index = following[1] + 1
                continue
        out.append((kind, value) if known is None or isinstance(known, Mapping) else _literal(known))
        index += 1
    return out


def _literal(value: str | int) -> tuple[str, str]:
    return ("integer", str(value)) if isinstance(value, int) else ("string", _quoted(value))


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _text(literal: str) -> str:
    """What a quoted literal says."""
    read = _read(literal)
    return read.value if isinstance(read, nodes.Const) and isinstance(read.value, str) else literal
