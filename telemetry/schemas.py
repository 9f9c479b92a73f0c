"""JSON Schemas of profiles and plant files, so that an editor completes and checks them while they are written.

Made from the models, so they say what the models say: `python -m telemetry.schemas docs/schemas` writes them, a test
holds the committed ones current. They are for editors; `vigil check` finds more (references, addresses, duplicates).
"""

from __future__ import annotations

import copy
import json
import math
import sys
from pathlib import Path
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from telemetry.files import known_profiles
from telemetry.plant import PlantFile
from telemetry.profile import Profile

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
FILES: Final = {"plant": "plant.schema.json", "profile": "profile.schema.json"}
_OVERRIDE: Final = "Override"


def profile_schema() -> Schema:
    """The schema of a profile file."""
    made = _closed(Profile.model_json_schema(by_alias=True, schema_generator=_Generator))
    return {"$schema": DIALECT, **made, "title": "Vigil device profile"}


def plant_schema() -> Schema:
    """The schema of a plant file. Overrides are completed as the profile's points and conditions, nothing required."""
    made = _closed(PlantFile.model_json_schema(by_alias=True, schema_generator=_Generator))
    overrides = {f"{name}{_OVERRIDE}": _optional(each) for name, each in profile_schema()["$defs"].items()}
    made["$defs"] |= _reachable(overrides, f"Point{_OVERRIDE}", f"ConditionAlarm{_OVERRIDE}")
    entry = made["$defs"]["PlantEquipment"]["properties"]
    entry["points"]["additionalProperties"] = _reference("Point")
    entry["conditions"]["additionalProperties"] = {"anyOf": [_reference("ConditionAlarm"), {"type": "null"}]}
    own = {key: entry["profile"].pop(key) for key in ("type", "pattern", "maxLength")}
    entry["profile"]["anyOf"] = [{"enum": known_profiles()}, own]
    return {"$schema": DIALECT, **made, "title": "Vigil plant"}


def write_schemas(folder: Path) -> list[Path]:
    """Writes both schemas into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, schema in (("plant", plant_schema()), ("profile", profile_schema())):
        path = folder / FILES[kind]
        path.write_text(render(schema), encoding="utf-8")
        written.append(path)
    return written


def render(schema: Schema) -> str:
    """A schema as the text of its file; keys sorted, so that a difference reads well."""
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


class _Generator(GenerateJsonSchema):
    """Leaves out defaults that JSON has no number for: no limit is no key."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        made = super().default_schema(schema)
        default = made.get("default")
        if (isinstance(default, float) and not math.isfinite(default)) or default in ({}, [], None):
            made.pop("default", None)
        return _finite(made)


def _finite(made: Schema) -> Schema:
    if isinstance(made.get("default"), dict):
        made["default"] = {k: v for k, v in made["default"].items() if not isinstance(v, float) or math.isfinite(v)}
        if not made["default"]:
            del made["default"]
    return made


def _closed(made: Schema) -> Schema:
    """Mappings with a pattern for their keys take no other keys."""
    for part in _walk(made):
        if "patternProperties" in part:
            part.setdefault("additionalProperties", False)
    return made


def _optional(definition: Schema) -> Schema:
    """A definition as an override: nothing required, no defaults, references to other overrides, null removes."""
    made = copy.deepcopy(definition)
    for part in _walk(made):
        part.pop("required", None)
        part.pop("default", None)
        if "$ref" in part:
            part["$ref"] += _OVERRIDE
    for part in list(_walk(made)):
        for pattern, inside in part.get("patternProperties", {}).items():
            part["patternProperties"][pattern] = {"anyOf": [inside, {"type": "null"}]}
    return made


def _reachable(definitions: dict[str, Schema], *roots: str) -> dict[str, Schema]:
    found: dict[str, Schema] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = definitions[name]
            waiting += [part["$ref"].rpartition("/")[2] for part in _walk(found[name]) if "$ref" in part]
    return found


def _walk(part: Any) -> Any:
    """Every mapping inside, itself too."""
    if isinstance(part, dict):
        yield part
    inside = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for each in inside:
        yield from _walk(each)


def _reference(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}{_OVERRIDE}"}


if __name__ == "__main__":
    for path in write_schemas(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/schemas")):
        sys.stdout.write(f"{path}\n")
