"""The schema editors read and the models that validate are one thing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from dripwell.content import schema
from dripwell.content.load import load
from dripwell.content.models import CampaignFile, Condition, SegmentEntry, SiteFile, Step, Trigger
from dripwell.content.problems import SourceText
from dripwell.content.yaml_source import Items, Keys, Node, Scalar, read_yaml
from tests.unit.language_sources import CAMPAIGN, CASES, SEGMENTS, SITE, valid_sources

ROOT = Path(__file__).parent.parent.parent
MADE = {CAMPAIGN: schema.campaign_schema(), SITE: schema.site_schema(), SEGMENTS: schema.segments_schema()}


def as_an_editor_reads(path: str, text: str) -> object:
    """Return the plain data of a file with an empty value as null."""
    root, _ = read_yaml(SourceText(path, text))

    def plain(node: Node | None) -> object:
        match node:
            case Keys(values=values):
                return {key: plain(value) for key, value in values.items()}
            case Items(items=items):
                return [plain(item) for item in items]
            case Scalar(value=value):
                return value
        return None

    return plain(root)


def accepts(path: str, text: str) -> bool:
    """Say whether the schema for `path` finds nothing wrong with `text`."""
    return Draft7Validator(MADE[path]).is_valid(as_an_editor_reads(path, text))


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """Return every object schema that lists properties."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


@pytest.mark.parametrize("path", sorted(MADE))
def test_a_schema_is_correct_draft_07_and_accepts_the_valid_file(path: str) -> None:
    Draft7Validator.check_schema(MADE[path])
    assert MADE[path]["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert accepts(path, valid_sources()[path])


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("config/site.yaml", SITE),
        ("config/segments.yaml", SEGMENTS),
        ("campaigns/seven-benefits/campaign.yaml", CAMPAIGN),
    ],
)
def test_a_schema_accepts_the_files_of_this_repository(path: str, kind: str) -> None:
    assert accepts(kind, (ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.seen))
def test_a_schema_refuses_every_wrong_shape_that_the_models_refuse(name: str) -> None:
    case = CASES[name]
    assert case.path in MADE
    assert load(case.sources(), "welcome").problems
    assert not accepts(case.path, case.sources()[case.path])


@pytest.mark.parametrize(
    "name", sorted(name for name, case in CASES.items() if not case.seen and case.path in MADE and case.old)
)
def test_a_schema_is_never_stricter_than_the_models(name: str) -> None:
    case = CASES[name]
    text = case.sources()[case.path]
    if as_an_editor_reads(case.path, text) is not None and not accepts(case.path, text):
        assert load(case.sources(), "welcome").problems


@pytest.mark.parametrize("path", sorted(MADE))
def test_every_key_of_a_schema_is_described_and_no_other_key_is_accepted(path: str) -> None:
    definitions = MADE[path].get("definitions", {})
    found = list(objects(MADE[path]))
    assert found
    for one in found:
        assert one["additionalProperties"] is False
        for key, value in one["properties"].items():
            target = definitions[value["$ref"].rpartition("/")[2]] if "$ref" in value else value
            assert target.get("description"), f"{key} has no description"


@pytest.mark.parametrize("path", sorted(MADE))
def test_a_schema_has_no_null_and_nothing_beside_a_reference(path: str) -> None:
    text = json.dumps(MADE[path])
    assert '"null"' not in text
    assert "$defs" not in text

    def look(node: Any) -> None:
        if isinstance(node, dict):
            assert "$ref" not in node or set(node) == {"$ref"}
            for value in node.values():
                look(value)
        elif isinstance(node, list):
            for value in node:
                look(value)

    look(MADE[path])


@pytest.mark.parametrize(
    ("model", "properties"),
    [
        (CampaignFile, MADE[CAMPAIGN]["properties"]),
        (SiteFile, MADE[SITE]["properties"]),
        (Step, MADE[CAMPAIGN]["definitions"]["Step"]["properties"]),
        (Trigger, MADE[CAMPAIGN]["definitions"]["Trigger"]["properties"]),
        (SegmentEntry, MADE[SEGMENTS]["definitions"]["SegmentEntry"]["properties"]),
        (Condition, MADE[SEGMENTS]["definitions"]["Condition"]["properties"]),
    ],
)
def test_schema_and_model_have_the_same_keys(model: type[Any], properties: dict[str, Any]) -> None:
    assert list(properties) == list(model.keys())


def test_enums_are_complete() -> None:
    definitions = MADE[CAMPAIGN]["definitions"]
    assert definitions["Goal"]["properties"]["then"]["enum"] == ["exit", "continue"]
    days = definitions["SendWindow"]["properties"]["days"]["oneOf"]
    assert days[0]["enum"] == ["any", "weekdays", "weekends"]
    assert days[1]["items"]["enum"] == ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def test_the_schemas_in_the_repository_are_up_to_date(tmp_path: Path) -> None:
    written = schema.write(tmp_path)
    assert [path.name for path in written] == ["campaign.schema.json", "site.schema.json", "segments.schema.json"]
    for path in written:
        kept = ROOT / path.relative_to(tmp_path)
        assert kept.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(path for path in valid_sources() if path in MADE))
def test_a_key_that_is_lost_is_missed_by_both_or_by_neither(path: str) -> None:
    """Drop each key of the valid file in turn: schema and models agree on whether it may be missing."""
    data = as_an_editor_reads(path, valid_sources()[path])

    def places(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            yield (*at, key)
            yield from places(value, (*at, key))

    for place in places(data):
        copy = json.loads(json.dumps(data))
        parent = copy
        for key in place[:-1]:
            parent = parent[key]
        del parent[place[-1]]
        text = json.dumps(copy, ensure_ascii=False)  # JSON is YAML
        problems = load({**valid_sources(), path: text}, "welcome").problems
        shape = [p for p in problems if p.path == path and p.code == "D101" and "email, required" not in p.text]
        lasting = [p for p in shape if not p.text.startswith(("a form must", "two waits", "nothing comes"))]
        assert (not lasting) == Draft7Validator(MADE[path]).is_valid(copy), (place, problems)
