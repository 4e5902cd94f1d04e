"""Records out as tables and in from other folders, read back by other libraries."""

import csv
import json
import math
import sys
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.files import OutputError
from bench.records import results
from bench.records.exchange import ExchangeError, export, merge
from bench.records.flat import flatten
from bench.records.record import RunRecord, read_record

RECORDS = Path(__file__).parent / "records"
FIRST, COMPLETE = RECORDS / "version-1.json", RECORDS / "complete-2.json"


@pytest.fixture
def runs() -> list[tuple[str, RunRecord]]:
    """A finished run of three epochs, the second of which lost its way, and one that failed."""
    finished = read_record(FIRST)
    lost = finished.epochs[1].model_copy(update={"loss": float("nan"), "accuracy": float("inf")})
    epochs = [finished.epochs[0], lost, finished.epochs[2]]
    return [("one", finished.model_copy(update={"epochs": epochs})), ("two", read_record(COMPLETE))]


def test_there_is_a_row_per_epoch_and_one_for_a_run_without_a_result(runs) -> None:
    flat = flatten(runs)
    assert [(row["run"], row.get("epoch"), row.get("warmup")) for row in flat.rows] == [
        ("one", 0, True),
        ("one", 1, False),
        ("one", 2, False),
        ("two", None, None),
    ]
    failed = flat.rows[3]
    assert (failed["status"], failed["error_type"]) == ("failed", "StoreError")
    assert failed["error_message"].startswith("Sample 7 differs")
    assert "epoch_s" not in failed


def test_every_single_value_of_a_record_is_there_under_its_name(runs) -> None:
    (row,) = flatten(runs[1:]).rows
    content = json.loads(COMPLETE.read_text())
    expected = {
        "store_size_bytes": content["store"]["size_bytes"],
        "store_lossy_psnr_db": 41.5,
        "option_chunk": content["store"]["options"].get("chunk"),
        "library_zarr": content["environment"]["libraries"]["zarr"],
        "environment_storage_read_ahead_kb": 8192,
        "memory_sampler_cpu_s": 0.2,
        "gpu_energy_j": 812.5,
        "campaign_control": True,
        "ideal_epoch_s": content["ideal"]["epoch_s"],
        "ideal_io_read_calls": content["ideal"]["io"]["read_calls"],
        "order_class_mixing": 1.25,
        "run_open_s": 0.01,
        "data_shape": "3x32x32",
        "data_class_count": 10,
        "warnings": "short-epoch",
        "reader_decoder": "torchcodec",
        "spec_memory_limit_bytes": 2**31,
    }
    assert {key: row.get(key) for key in expected} == expected

    def count(part: object) -> int:
        if isinstance(part, dict):
            return sum(count(value) for value in part.values())
        return int(not isinstance(part, list) and part is not None)

    # What is left out: the epochs of a failed run, options as asked for beside those that were used, lists.
    single = count(content) - count(content["spec"]["options"])
    # What is made here: the name, classes, shape, warnings.
    assert len(row) == single + 4


def test_columns_are_the_same_whatever_is_known(runs) -> None:
    both, first = list(flatten(runs).columns), list(flatten(runs[:1]).columns)
    assert len(set(both)) == len(both)
    assert both[:4] == ["run", "schema_version", "spec_id", "spec_dataset"]
    fixed = [name for name in both if not name.startswith(("option_", "library_", "environment_", "reader_"))]
    assert [name for name in first if name in fixed] == fixed
    assert list(flatten(runs[::-1]).columns) == both


def test_csv_reads_back_exactly(tmp_path: Path, runs) -> None:
    export(runs, tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", ""]
    assert [float(row["epoch_s"]) for row in rows[:3]] == [epoch.epoch_s for epoch in runs[0][1].epochs]
    assert rows[3]["error_message"] == 'Sample 7 differs, "quoted", and\nbroken.'
    assert (rows[0]["warmup"], rows[0]["spec_prefetch"]) == ("true", "2")
    assert math.isnan(float(rows[1]["loss"]))
    assert float(rows[1]["accuracy"]) == math.inf


def test_parquet_has_types_and_the_same_content(tmp_path: Path, runs) -> None:
    export(runs, tmp_path / "runs.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "runs.parquet")
    flat = flatten(runs)
    assert table.column_names == list(flat.columns)
    kinds = {name: str(table.schema.field(name).type) for name in ("epoch", "epoch_s", "warmup", "spec_backend")}
    assert kinds == {"epoch": "int64", "epoch_s": "double", "warmup": "bool", "spec_backend": "string"}
    assert str(table.schema.field("gpu_energy_j").type) == "double"
    rows = table.to_pylist()
    assert math.isnan(rows[1]["loss"])
    del rows[1]["loss"], flat.rows[1]["loss"]
    assert [{key: value for key, value in row.items() if value is not None} for row in rows] == flat.rows


def test_both_formats_say_the_same(tmp_path: Path, runs) -> None:
    for name in ("runs.csv", "runs.parquet"):
        export(runs, tmp_path / name)
    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    text = pyarrow.csv.read_csv(tmp_path / "runs.csv", parse_options=options)
    typed = pyarrow.parquet.read_table(tmp_path / "runs.parquet")
    for name in ("epoch_s", "epoch", "warmup", "spec_backend", "store_size_bytes"):
        assert text[name].to_pylist() == [None if v is None else v for v in typed[name].to_pylist()], name


def test_kinds_that_differ_between_runs_become_text(runs) -> None:
    def with_chunk(record: RunRecord, chunk: object) -> RunRecord:
        return record.model_copy(update={"store": record.store.model_copy(update={"options": {"chunk": chunk}})})

    one, two = runs[0][1], runs[1][1]
    flat = flatten([("a", with_chunk(one, 4)), ("b", with_chunk(two, "auto"))])
    assert flat.columns["option_chunk"] == "text"
    assert {row["option_chunk"] for row in flat.rows} == {"4", "auto"}
    flat = flatten([("a", with_chunk(one, 4)), ("b", with_chunk(two, 0.5))])
    assert flat.columns["option_chunk"] == "float"


def test_a_file_is_replaced_only_by_a_complete_one(tmp_path: Path, runs, monkeypatch) -> None:
    target = tmp_path / "runs.csv"
    target.write_text("before")

    def fail(*arguments) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.records.exchange._write_csv", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        export(runs, target)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("runs.xlsx", "must end in .csv or .parquet"), ("no/runs.csv", "does not exist"), (".csv", "must end in")],
)
def test_what_cannot_be_written_is_refused_first(tmp_path: Path, monkeypatch, name: str, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", "-o", name], standalone_mode=False)
    assert text in str(result.exception)


def test_parquet_without_pyarrow_is_one_line(tmp_path: Path, runs, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ExchangeError, match=r"pip install pyarrow, or write \.csv"):
        export(runs, tmp_path / "runs.parquet")


def test_export_says_what_it_wrote_and_what_it_could_not_read(tmp_path: Path, runs, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    empty = CliRunner().invoke(app, ["export", "-o", "runs.csv"], standalone_mode=False)
    assert "No records in results" in str(empty.exception)
    results.write(runs[0][1], Path("results"))
    Path("results/bad.json").write_text("nonsense")
    result = CliRunner().invoke(app, ["export", "-o", "runs.csv"])
    assert result.exit_code == 0
    assert "runs.csv: 3 rows" in result.stderr
    assert "bad.json is not a readable record" in result.stderr


def folder(tmp_path: Path, name: str, **files: str) -> Path:
    place = tmp_path / name
    place.mkdir()
    for stem, content in files.items():
        (place / f"{stem}.json").write_text(content)
    return place


def test_import_takes_each_record_once_and_keeps_names_apart(tmp_path: Path) -> None:
    one, other = FIRST.read_text(), COMPLETE.read_text()
    reformatted = json.dumps(json.loads(one), indent=4, sort_keys=True)
    laptop = folder(tmp_path, "laptop", a=one, b=other)
    server = folder(tmp_path, "server", a=other.replace("H200", "H100"), c=reformatted, bad="{}")
    into = tmp_path / "all"
    done = merge([laptop, server], into)
    assert sorted(path.name for path in into.iterdir()) == ["a-2.json", "a.json", "b.json"]
    assert (len(done.new), done.known) == (3, 1)
    assert [path.name for path in done.renamed] == ["a-2.json"]
    assert [str(error) for error in done.unreadable] == [str(error) for error in results.read_all(server)[1]]
    assert (server / "bad.json").exists()
    assert (into / "a.json").read_bytes() == FIRST.read_bytes(), "an old record stays as it was written"
    assert read_record(into / "a-2.json").gpu.name == "H100"
    again = merge([laptop, server, into], into)
    assert (again.new, again.known) == ([], 2 + 2 + 3)


def test_import_leaves_nothing_half_copied(tmp_path: Path, monkeypatch) -> None:
    laptop = folder(tmp_path, "laptop", a=FIRST.read_text())
    into = tmp_path / "all"

    def fail(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.records.results.os.fsync", fail)
    with pytest.raises(results.ResultsError, match="No space left on device"):
        merge([laptop], into)
    assert list(into.iterdir()) == []


def test_import_says_what_it_did_and_tells_machines_apart(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = read_record(FIRST)
    other = one.model_copy(update={"environment": {**one.environment, "cpu": "Another CPU"}})
    folder(tmp_path, "laptop", a=one.to_json(), b="nonsense")
    folder(tmp_path, "server", a=other.to_json())
    result = CliRunner().invoke(app, ["import", "laptop", "server"])
    assert result.exit_code == 0, result.exception
    lines = result.stdout.splitlines()
    assert lines[0] == "2 new records in results, 0 there already, 1 could not be read."
    assert {line[:16] for line in lines[1:]} == {"1 of Intel(R) Xe", "1 of Another CPU"}
    assert "left where it is: laptop/b.json" in result.stderr
    assert "called a-2.json now" in result.stderr
    missing = CliRunner().invoke(app, ["import", "nowhere"], standalone_mode=False)
    assert "nowhere is not a folder" in str(missing.exception)
    (tmp_path / "photos").mkdir()
    wrong = CliRunner().invoke(app, ["import", "photos"], standalone_mode=False)
    assert str(wrong.exception) == "No records in photos. `bench run` writes them to its --results."
