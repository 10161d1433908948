"""JSON Schema (draft-07, which editors' YAML servers read) made from the same models that validate the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dripwell.content.models import CampaignFile, SegmentEntry, SiteFile
from dripwell.content.reading import Model
from dripwell.content.values import Key

Schema = dict[str, Any]
FOLDER = "config/schema"


def campaign_schema() -> Schema:
    """Return the schema of campaigns/<name>/campaign.yaml."""
    return _schema(TypeAdapter(CampaignFile), "campaign", "Campaign")


def site_schema() -> Schema:
    """Return the schema of config/site.yaml."""
    return _schema(TypeAdapter(SiteFile), "site", "Site")


def segments_schema() -> Schema:
    """Return the schema of config/segments.yaml."""
    schema = _schema(TypeAdapter(dict[Key, SegmentEntry]), "segments", "Segments")
    return {**schema, "description": "Saved, named filters over subscribers: a name, what it is about, and when."}


def texts() -> dict[str, str]:
    """Return the three schema files: path below the project's folder -> content."""
    return {
        f"{FOLDER}/{schema['$id']}": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for schema in (campaign_schema(), site_schema(), segments_schema())
    }


def write(root: Path) -> list[Path]:
    """Write the three schemas below `root` and return their paths."""
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in texts().items():
        path = root / name
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written


def models() -> dict[str, type[Model]]:
    """Return every model of the language by its class name."""
    found: dict[str, type[Model]] = {}
    waiting: list[type[Model]] = [Model]
    while waiting:
        model = waiting.pop()
        found[model.__name__] = model
        waiting += model.__subclasses__()
    del found[Model.__name__]
    return found


def _schema(adapter: TypeAdapter[Any], name: str, title: str) -> Schema:
    made = adapter.json_schema(by_alias=True, ref_template="#/definitions/{model}")
    definitions = {key: _definition(key, value) for key, value in sorted(made.pop("$defs", {}).items())}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": f"{name}.schema.json",
        "title": title,
        **_tidy(made),
        "definitions": definitions,
    }


def _definition(name: str, schema: Schema) -> Schema:
    tidy = _tidy(schema)
    model = models().get(name)
    if model is not None and model.choices:
        tidy["oneOf"] = [{"required": [key, *choice.needs]} for key, choice in model.choices.items()]
        homes = {
            key: [name for name, choice in model.choices.items() if key in choice.needs + choice.allows]
            for key in model.keys().keys() - model.choices.keys()
        }
        # A key that goes with every choice depends on none of them.
        dependencies = {
            key: home if len(home) == 1 else {"anyOf": [{"required": [name]} for name in home]}
            for key, home in sorted(homes.items())
            if len(home) < len(model.choices)
        }
        tidy |= {"dependencies": dependencies} if dependencies else {}
    return tidy


def _tidy(schema: Schema) -> Schema:
    """Rewrite one schema object: no null (an empty key is an error), no invented titles, no words beside a `$ref`."""
    made: Schema = {}
    for key, value in schema.items():
        if key in ("title", "discriminator") or (key == "default" and value is None):
            continue
        if key == "properties":
            made[key] = {name: _tidy(part) for name, part in value.items()}
        elif key in ("anyOf", "oneOf", "allOf"):
            made[key] = [_tidy(part) for part in value if part != {"type": "null"}]
        elif key in ("items", "additionalProperties", "propertyNames", "not") and isinstance(value, dict):
            made[key] = _tidy(value)
        else:
            made[key] = value
    if "patternProperties" in made:
        made["patternProperties"] = {name: _tidy(part) for name, part in made["patternProperties"].items()}
        made["additionalProperties"] = False
    for key in ("anyOf", "oneOf"):
        if len(made.get(key, ())) == 1:
            (only,) = made.pop(key)
            made = {**only, **made}
    if "$ref" in made and len(made) > 1:  # draft-07 ignores what stands beside a $ref
        made = {"allOf": [{"$ref": made.pop("$ref")}], **made}
    return made
