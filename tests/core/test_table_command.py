"""Command ``bench table``: from a folder of records to a table in any syntax."""

import csv
import io
import json
import re
import statistics
from pathlib import Path

import pytest
from click.testing import Result
from tabled import BASE, campaign, failed, run
from typer.testing import CliRunner

from bench.cli import app
from bench.records import results
from bench.records.record import RunRecord

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "matrix"


def table(folder: Path, *flags: str) -> Result:
    return CliRunner().invoke(app, ["table", "--results", str(folder), *flags])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Runs of three backends in blocks on one data set, of two on another, one of which failed once."""
    place = tmp_path / "results"
    other = {"dataset": "esc50", "batch_size": 16, "data": {"digest": "e" * 32}}
    for record in [
        *campaign(zarr=BASE, hdf5=[2 * base for base in BASE], memmap=[3 * base for base in BASE]),
        run("zarr", 5.0, **other),
        run("hdf5", 6.0, changes={"device": "cuda:0"}, **other),
        failed("memmap", "No <space> left.", dataset="esc50", batch_size=16),
    ]:
        results.write(record, place)
    return place


def test_the_default_answers_the_question_of_the_study(folder: Path) -> None:
    done = table(folder, "--format", "markdown", "--where", "device=cpu")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "**Epoch, s: method by dataset**"
    assert lines[2] == "| method | cifar10 <sup>a</sup> | esc50 <sup>b</sup> |"
    # Eight runs each, that is: the control's are none of them.
    assert lines[4:7] == [
        "| hdf5 | 2.70 [2.00, 3.40] | n/a <sup>c</sup> |",
        "| memmap | 4.05 [3.00, 5.10] | n/a <sup>d</sup> |",
        "| zarr | **1.35 [1.00, 1.70]** | 5.00 |",
    ]
    assert "- (c) Never measured under these circumstances." in lines
    assert "- (d) Failed: No &lt;space> left." in lines


def test_devices_stand_in_tables_of_their_own(folder: Path) -> None:
    text = table(folder).stdout
    assert "Alone under their circumstances" in text
    assert "device cuda:0" in text
    assert "cuda" not in table(folder, "--where", "device!=cuda").stdout


@pytest.mark.parametrize("format", ["terminal", "markdown", "csv", "latex", "json", "html"])
@pytest.mark.parametrize("each", [False, True], ids=["pivot", "each"])
def test_every_format_holds_the_values(folder: Path, format: str, each: bool) -> None:
    done = table(folder, "--format", format, *(["--each"] if each else ["--baseline", "zarr"]))
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    if format == "csv":
        lines = list(csv.DictReader(io.StringIO(done.stdout)))
        values = [line["epoch_s.median [s]"] for line in lines]
    elif format == "json":
        values = [str(cell["values"]["epoch_s"]["median"]) for cell in json.loads(done.stdout)["cells"]]
    else:
        assert {"2.70", "4.05", "5.00"} <= set(re.split(r"[\s|<>{}\\]+", done.stdout))
        return
    assert {"5.0", "6.0"} <= set(values)
    assert len(values) == 6


def test_rows_columns_metrics_and_baseline_are_of_choice(folder: Path) -> None:
    asked = ["--rows", "dataset", "--columns", "backend", "--metric", "epoch_s,files", "--baseline", "hdf5"]
    lines = table(folder, *asked, "--format", "markdown", "--where", "dataset=cifar10").stdout.splitlines()
    assert lines[0] == "**Dataset by backend**"
    heading = [text.strip() for text in lines[2].split("|")[1:-1]]
    assert heading[:3] == ["dataset", "hdf5: epoch, s", "hdf5: epoch, s: ratio to hdf5"]
    row = [text.strip() for text in lines[4].split("|")[1:-1]]
    cells = dict(zip(heading, row, strict=True))
    assert cells["hdf5: epoch, s: ratio to hdf5"] == "1"
    assert cells["memmap: epoch, s: ratio to hdf5"] == "1.50x [1.50, 1.50]"
    assert cells["zarr: files"] == cells["hdf5: files"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rows", "backnd"], "There is nothing called 'backnd'"),
        (["--columns", "method"], "method cannot be both a row and a column"),
        (["--metric", "speed"], "--metric speed: there is no such metric. Choose from:"),
        (["--where", "device"], "neither KEY=VALUE nor KEY!=VALUE"),
        (["--where", "device=tpu"], "device is here one of: cpu, cuda:0."),
        (["--where", "status=failed"], "None of the 1 runs chosen gave a result"),
        (["--baseline", "parquet"], "--baseline parquet: there is no such method."),
        (["--baseline", "ceiling", "--metric", "files"], "goes with --metric epoch_s alone"),
        (["--each", "--rows", "backend"], "--each has rows and columns of its own"),
        (["--into", "x.md", "--format", "latex"], "--into writes Markdown, not latex"),
        (["--into", "missing.md"], "Cannot update missing.md"),
        (["--passage", "front"], "--passage front says where in a file"),
    ],
)
def test_flags_that_make_no_sense_are_refused_in_a_line(folder: Path, flags: list[str], said: str) -> None:
    done = table(folder, *flags)
    assert done.exit_code == 1
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)
    assert done.stdout == ""


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    done = table(tmp_path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert str(done.exception).startswith(f"No records in {tmp_path}.")


def test_a_record_that_cannot_be_read_is_named_and_left_out(folder: Path) -> None:
    (folder / "broken.json").write_text("{")
    done = table(folder)
    assert done.exit_code == 0
    assert "broken.json is not a readable record" in done.stderr
    assert "broken" not in done.stdout


def test_the_table_goes_into_a_document(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    path.write_text("a\n<!-- bench table -->\nold\n<!-- /bench table -->\nz\n")
    assert table(folder, "--into", str(path)).exit_code == 0
    printed = table(folder, "--format", "markdown").stdout
    assert path.read_text() == f"a\n<!-- bench table -->\n{printed.strip()}\n<!-- /bench table -->\nz\n"


def test_a_document_may_hold_several_tables(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    other = "<!-- bench table -->\nold\n<!-- /bench table -->\n"
    path.write_text(f"{other}<!-- bench table b -->\n<!-- /bench table b -->\n")
    assert table(folder, "--into", str(path), "--passage", "b").exit_code == 0
    first, _, second = path.read_text().partition("<!-- bench table b -->\n")
    assert first == other
    printed = table(folder, "--format", "markdown").stdout
    assert second == f"{printed.strip()}\n<!-- /bench table b -->\n"
    refused = table(folder, "--into", str(path), "--passage", "c")
    assert "has no <!-- bench table c -->" in str(refused.exception)


def test_the_real_records_make_one_readable_table(capsys: pytest.CaptureFixture[str]) -> None:
    done = table(REFERENCE, "--format", "json")
    cells = json.loads(done.stdout)["cells"]
    every = [record for _, record in results.read_all(REFERENCE)[0]]
    found = [record for record in every if not (record.campaign and record.campaign.control)]
    assert sum(cell["runs"] for cell in cells) == len(found)
    largest = [cell for cell in cells if cell["table"] == 1]
    assert {cell["facts"]["dataset"] for cell in largest} == {"cifar10", "tiny-imagenet", "masks", "esc50"}

    # Each median is that of the medians of a cell's runs.
    def median(record: RunRecord) -> float:
        return statistics.median(epoch.epoch_s for epoch in record.epochs if not epoch.warmup)

    runs: dict[str, list[float]] = {}
    for record in found:
        runs.setdefault(record.spec_id, []).append(median(record))
    shown = sorted(cell["values"]["epoch_s"]["median"] for cell in cells)
    assert shown == pytest.approx(sorted(map(statistics.median, runs.values())))
    assert not any(cell["values"]["epoch_s"]["best_shown"] for cell in cells), "two blocks show nothing"
    assert capsys.readouterr().err == ""
