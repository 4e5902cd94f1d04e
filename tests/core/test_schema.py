"""The published schema of records, against what is written."""

import json
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.records.record import SCHEMA_VERSION, RunRecord, read_record
from bench.records.schema import NOT_NUMBERS, record_schema

ROOT = Path(__file__).parent.parent.parent
FIXTURES = sorted((Path(__file__).parent / "records").glob("*.json"))
REFERENCE = ROOT / "results" / "reference"
COMMITTED = [
    path for folder in ("", "compare", "gpu", "studies") for path in sorted((REFERENCE / folder).glob("*.json"))
]
PUBLISHED = ROOT / "schema" / "record.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))
COMPLETE = Path(__file__).parent / "records" / "complete-2.json"


def test_what_is_published_is_what_the_command_prints() -> None:
    printed = CliRunner().invoke(app, ["schema"])
    assert printed.exit_code == 0
    assert printed.stdout == PUBLISHED.read_text(), "run `bench schema > schema/record.schema.json`"


def test_it_is_a_schema_of_the_draft_that_it_names() -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)
    assert VALIDATOR.schema["$schema"].endswith("2020-12/schema")
    assert VALIDATOR.schema["$id"].endswith(f":{SCHEMA_VERSION}")


def test_committed_records_and_those_of_every_version_meet_it() -> None:
    assert len(COMMITTED) > 100
    for path in (*FIXTURES, *COMMITTED):
        VALIDATOR.validate(json.loads(path.read_text()))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_what_is_written_today_meets_it(path: Path) -> None:
    written = json.loads(read_record(path).to_json())
    VALIDATOR.validate(written)
    unknown = [field for field in written if field not in VALIDATOR.schema["properties"]]
    assert unknown == []


def test_the_complete_record_has_every_optional_part() -> None:
    content = json.loads(COMPLETE.read_text())
    assert {name for name in RunRecord.model_fields if content.get(name) in (None, [], {})} == set()
    parts = "data store cache memory gpu order campaign ideal error training test fold"
    for part in parts.split():
        empty = {key for key, value in content[part].items() if value is None}
        assert empty == set(), part
    assert RunRecord.model_validate(content) == read_record(COMPLETE)


def test_floats_that_are_no_numbers_are_allowed_as_records_write_them() -> None:
    record = read_record(COMPLETE)
    odd = [float("nan"), float("inf"), float("-inf")]
    epoch = record.epochs[0].model_copy(update={"loss": odd[0], "batch_loss": odd})
    content = json.loads(record.model_copy(update={"epochs": [epoch]}).to_json())
    assert content["epochs"][0]["batch_loss"] == list(NOT_NUMBERS)
    VALIDATOR.validate(content)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("", "status", "perhaps"),
        ("", "schema_version", SCHEMA_VERSION + 1),
        ("", "spec_id", None),
        ("spec", "epochs", 0),
        ("spec", "colour", "red"),
        ("store", "size_bytes", "many"),
        ("store", "prepare_s", "nan"),
        ("epochs", "epoch_s", 0),
    ],
)
def test_what_is_no_record_is_refused(part: str, key: str, value: object) -> None:
    content = json.loads(COMPLETE.read_text())
    place = content if not part else content[part][0] if part == "epochs" else content[part]
    if value is None:
        del place[key]
    else:
        place[key] = value
    assert not VALIDATOR.is_valid(content)


def test_every_field_of_the_models_is_in_it() -> None:
    definitions = record_schema()["$defs"]
    assert set(record_schema()["properties"]) == set(RunRecord.model_fields)
    for name in ("EpochInfo", "RunSpec", "DataInfo", "StoreInfo", "GpuInfo", "CampaignInfo", "OrderInfo", "MemoryInfo"):
        assert definitions[name]["properties"]
