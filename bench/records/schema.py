"""The JSON Schema of a record (draft 2020-12), made from its models."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from bench.records.record import SCHEMA_VERSION, RunRecord

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NOT_NUMBERS = ("NaN", "Infinity", "-Infinity")
"""How records write floats that are no numbers: JSON has none of them."""


class _Generator(GenerateJsonSchema):
    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), {"enum": list(NOT_NUMBERS)}]}


def record_schema() -> dict[str, Any]:
    """Return the schema of what this version writes, which records of all older versions meet, too."""
    content = RunRecord.model_json_schema(mode="serialization", schema_generator=_Generator)
    content["title"] = "Record of a run of bench"
    content["properties"]["schema_version"] |= {"minimum": 1, "maximum": SCHEMA_VERSION}
    # Without them nothing says what a record is; all readers rely on the first.
    content["required"] = sorted({"schema_version", *content.get("required", [])})
    return {"$schema": DIALECT, "$id": f"urn:dataset-bench:record:{SCHEMA_VERSION}", **content}


def schema_text() -> str:
    """Return the schema as it is published: JSON text, keys in the order of the models."""
    return json.dumps(record_schema(), indent=1, ensure_ascii=False) + "\n"
