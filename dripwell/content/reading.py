"""How one mapping of a file is read: whose keys it has, which belong to it, and what is said about the others."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationInfo, model_validator

from dripwell.content.problems import Problem, SourceText, nearest
from dripwell.content.yaml_source import Keys, Mapping, Node


@dataclass(frozen=True)
class Names:
    """The names a file may refer to. None: unknown here, so references are not checked."""

    topics: tuple[str, ...] | None = None
    segments: tuple[str, ...] | None = None
    forms: tuple[str, ...] | None = None
    documents: tuple[str, ...] | None = None
    campaigns: tuple[str, ...] | None = None
    campaign: str = ""  # the one being read
    fields: tuple[str, ...] | None = None
    events: tuple[str, ...] | None = None
    emails: MappingType[str, tuple[str, ...]] = field(default_factory=dict)  # keys by campaign, of those that are known
    tracks_clicks: bool = True


@dataclass
class Reading:
    """One file being read: what it may refer to, and what was found wrong with its keys so far."""

    source: SourceText
    names: Names
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, code: str, node: Node, text: str, *, help: str = "", note: str = "", label: str = "") -> None:
        """Keep a problem with the key or value at `node`."""
        self.problems.append(self.source.problem(code, node.start, node.end, text, help=help, note=note, label=label))


@dataclass(frozen=True)
class Choice:
    """What must and what may stand beside the one key that says which kind of thing this is."""

    needs: tuple[str, ...] = ()
    allows: tuple[str, ...] = ()


def words(**theirs: str) -> MappingType[str, str]:
    """Return their words -> ours, from `wait="delay sleep"`; a last underscore frees Python's own words."""
    return {their: ours.removesuffix("_") for ours, several in theirs.items() for their in several.split()}


def one_of(*alone: str, **together: Choice) -> dict[str, Choice]:
    """Return the deciding keys of a mapping: those that stand alone, and those with others beside them."""
    return {**{key: Choice() for key in alone}, **together}


OPENS_ARE_NOT_TRACKED = (
    "Opens are not tracked: mail apps fetch images by themselves, so an open does not mean a person read it."
)


class Model(BaseModel):
    """A mapping of the language. Key errors are found here, where the file's nodes are at hand."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    what: ClassVar[str] = "this"
    peers: ClassVar[MappingType[str, str]] = {}
    later: ClassVar[tuple[str, ...]] = ()
    choices: ClassVar[dict[str, Choice]] = {}
    missing_code: ClassVar[str] = "D101"

    @classmethod
    def keys(cls) -> dict[str, str]:
        """Return each key as it stands in a file, with its description."""
        return {info.alias or name: info.description or "" for name, info in cls.model_fields.items()}

    @model_validator(mode="wrap")
    @classmethod
    def _read_keys(cls, given: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if isinstance(given, Mapping) and isinstance(info.context, Reading):
            given = judge_keys(cls, given.node, info.context)
        return handler(given)


def judge_keys(model: type[Model], node: Keys, reading: Reading) -> Mapping:
    """Refuse every key the model does not have; let a word we recognize stand for ours, so its value is read too."""
    if node.owner is model:  # pydantic runs the validator of a model that contains itself twice
        return Mapping(node)
    node.owner = model
    known = model.keys()
    before = len(reading.problems)
    for key, spot in list(node.spots.items()):
        if key in known:
            continue
        ours = _refuse_key(model, key, spot, reading, silent=len(reading.problems) > before)
        if ours and ours not in node.values:
            node.rename(key, ours)
        else:
            del node.values[key], node.spots[key]
    if model.choices:
        _judge_choice(model, node, reading, silent=len(reading.problems) > before)
    return Mapping(node)


def _refuse_key(model: type[Model], key: str, spot: Node, reading: Reading, *, silent: bool) -> str:
    known = model.keys()
    word = key.lower().replace("-", "_")
    if key in model.later:
        if not (model.choices and silent):  # in such a mapping the first says enough: the rest belongs to it
            refuse_later(reading, spot, f"`{key}` in {model.what}" if model.choices else f"`{key}`")
        return ""
    if word in model.peers:
        ours = model.peers[word]
        reading.refuse(
            "D102",
            spot,
            f"`{key}` is called `{ours}` here",
            label="" if ours in model.later else f"use `{ours}`",
            help=known.get(ours) or later_text(f"`{ours}`"),
            note=OPENS_ARE_NOT_TRACKED if word.startswith("open") else "",
        )
        return ours if ours in known else ""
    guess = nearest(key, [*known, *model.later])
    reading.refuse(
        "D101",
        spot,
        f"there is no key `{key}` in {model.what}",
        label=f"did you mean `{guess}`?" if guess else "",
        help=f"keys you can use: {', '.join(known)}",
    )
    return guess if guess in known else ""


def either(names: list[str]) -> str:
    """Return the names as `a`, `b` or `c`."""
    quoted = [f"`{name}`" for name in names]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def refuse_later(reading: Reading, spot: Node, what: str) -> None:
    """Refuse a part of the full format that this version does not run."""
    reading.refuse("D106", spot, later_text(what), help="remove it")


def later_text(what: str) -> str:
    """Say that a part of the format is not built yet."""
    return f"{what} is part of the format, but this version of Dripwell can’t run it yet"


def _judge_choice(model: type[Model], node: Keys, reading: Reading, *, silent: bool) -> None:
    """See that exactly one of the model's deciding keys is there, with what belongs beside it and nothing else."""
    present = [key for key in node.spots if key in model.choices]
    if not present:
        spot: Node = next(iter(node.spots.values()), node)
        if not silent:
            reading.refuse("D101", spot, f"{model.what} needs {either(list(model.choices))}")
        return
    deciding, *others = present
    choice = model.choices[deciding]
    for other in others:
        if other not in choice.needs + choice.allows:
            reading.refuse(
                "D101",
                node.spots[other],
                f"`{deciding}` and `{other}` cannot stand together in {model.what}",
                label="one too many",
                help="give each an entry of its own",
            )
    for key, spot in node.spots.items():
        if key not in model.choices and key not in choice.needs + choice.allows:
            homes = [name for name, other in model.choices.items() if key in other.needs + other.allows]
            if not any(home in present for home in homes):
                belongs = " or ".join(f"`{home}`" for home in homes)
                reading.refuse("D101", spot, f"`{key}` belongs to {belongs}, not to `{deciding}`")
    for key in choice.needs:
        if key not in node.spots and not silent:
            reading.refuse(
                model.missing_code,
                node.spots[deciding],
                f"`{key}` is missing beside `{deciding}`",
                help=model.keys().get(key, ""),
            )
