"""Validates a tree against the language and says what is wrong in our own words, never the validator's."""

from __future__ import annotations

import re
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from dripwell.content.problems import Problem, did_you_mean
from dripwell.content.reading import Model, Reading, either
from dripwell.content.yaml_source import Items, Keys, Node, Scalar, plain


def judge(adapter: TypeAdapter[Any], root: Node, reading: Reading, what: str) -> Any:
    """Validate the tree; None, with the reasons kept in `reading`, when it is not what the language asks for."""
    try:
        return adapter.validate_python(plain(root), context=reading)
    except ValidationError as error:
        for details in error.errors(include_url=False, include_input=False):
            _explain(details, root, reading, what)
        return None


def _explain(details: ErrorDetails, root: Node, reading: Reading, what: str) -> None:
    node, spot, name, owner = _place(root, details["loc"])
    at = node if isinstance(node, Scalar) else spot
    kind = details["type"]
    context: dict[str, Any] = details.get("ctx", {})
    called = f"`{name}`" if name else what if node is root else "this"
    if name and details["loc"] and isinstance(details["loc"][-1], int):
        called = f"an entry of `{name}`"
    if kind == "missing":
        missing = str(details["loc"][-1])
        model: type[Model] | None = node.owner if isinstance(node, Keys) else None
        reading.refuse(
            model.missing_code if model else "D101",
            _first_key(node),
            f"`{missing}` is missing in {model.what if model else called}",
            help=model.keys().get(missing, "") if model else "",
        )
    elif isinstance(node, Scalar) and node.value is None:
        reading.refuse("D101", spot, f"{called} has no value", help="write one, or remove the line")
    elif type(node) is Node:
        return  # already refused while it was read
    elif kind.startswith("D"):
        text = re.sub(r"^this(?= (must|is) )", called, str(context["text"]))
        reading.refuse(kind, at, text, help=context["help"], label=context["label"], note=context["note"])
    elif kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"]) or [context["expected"].lower()]
        raw = node.raw if isinstance(node, Scalar) else "this"
        reading.refuse(
            "D101", at, f"{called} cannot be `{raw}`", label=did_you_mean(raw, allowed), help=f"write {either(allowed)}"
        )
    elif kind in ("list_type", "model_type", "model_attributes_type", "dict_type", "bool_type", "too_short"):
        shape, advice = _SHAPES[kind]
        fields = _fields_of(context.get("class_name"))
        reading.refuse("D101", at, f"{called} {shape}", help=fields or advice)
    else:
        reading.refuse("D101", at, f"{called} cannot have this value", help=owner.keys().get(name, "") if owner else "")


_SHAPES = {
    "list_type": ("must be a list", "each entry on a line of its own, after `- `"),
    "model_type": ("needs keys of its own", "write `key: value` on the lines below it"),
    "model_attributes_type": ("needs keys of its own", "write `key: value` on the lines below it"),
    "dict_type": ("needs keys of its own", "write `name: value` on the lines below it"),
    "bool_type": ("must be true or false", "without quotes; `yes` and `on` are text"),
    "too_short": ("is empty", "write at least one entry"),
}


def _fields_of(class_name: str | None) -> str:
    models = [Model]
    while models:
        model = models.pop()
        if model.__name__ == class_name:
            return f"keys you can use: {', '.join(model.keys())}"
        models += model.__subclasses__()
    return ""


def _place(root: Node, loc: tuple[int | str, ...]) -> tuple[Node, Node, str, type[Model] | None]:
    """Follow an error's path: the node it is about, the key above it to point at, that key's name, and its model."""
    node: Node = root
    spot: Node = _first_key(root)
    name, owner = "", None
    for part in loc:
        if part == "[key]":
            return spot, spot, "", owner
        if isinstance(node, Keys) and part in node.values and isinstance(part, str):
            owner, spot, name, node = node.owner, node.spots[part], part, node.values[part]
        elif isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            spot = _first_key(node)
        # else: the tag of a union, which stands in no file
    return node, spot, name, owner


def _first_key(node: Node) -> Node:
    return next(iter(node.spots.values()), node) if isinstance(node, Keys) else node


def in_order(problems: list[Problem]) -> list[Problem]:
    """Sort by place and keep one problem for each stretch of text."""
    seen: dict[tuple[int, int, int], Problem] = {}
    for problem in problems:
        seen.setdefault((problem.line, problem.column, problem.length), problem)
    return sorted(seen.values(), key=lambda problem: (problem.line, problem.column))
