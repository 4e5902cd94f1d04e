"""Records to tables, sentences and warnings."""

from pathlib import Path

import pytest

from bench import checks
from bench.metrics import METRICS, significant
from bench.record import RunRecord, read_record
from bench.report import document, render
from bench.report.tables import Table, comparison_table, run_table
from bench.report.verdict import verdict
from bench.stats import summarise


@pytest.fixture
def record() -> RunRecord:
    return read_record(Path(__file__).parent / "records" / "version-1.json")


def with_epochs(record: RunRecord, *times: tuple[float, float], **changes) -> RunRecord:
    """The record with a warm-up that would spoil every statistic, and epochs of (seconds, seconds waited)."""
    template = record.epochs[0]
    epochs = [
        template.model_copy(
            update={
                "epoch": number,
                "warmup": number == 0,
                "samples": 1000,
                "epoch_s": epoch_s,
                "wait_s": wait_s,
                "copy_s": 0.0,
                "compute_s": epoch_s - wait_s,
                "stall_fraction": wait_s / epoch_s,
            }
        )
        for number, (epoch_s, wait_s) in enumerate([(99.0, 98.0), *times])
    ]
    return record.model_copy(update={"epochs": epochs, **changes})


def test_statistics_leave_warm_ups_out(record: RunRecord) -> None:
    changed = with_epochs(record, (2.0, 0.5), (4.0, 1.0), (3.0, 0.6))
    epoch = METRICS["epoch_s"].of(changed)
    assert (epoch.n, epoch.median, epoch.low, epoch.high) == (3, 3.0, 2.0, 4.0)
    assert METRICS["samples_per_s"].of(changed).median == pytest.approx(1000 / 3)
    assert METRICS["mb_per_s"].of(changed).median == pytest.approx(1000 * record.data.sample_bytes / 1e6 / 3)
    assert METRICS["wait_share"].of(changed).median == pytest.approx(25)


def test_summary_of_nothing_is_nothing() -> None:
    assert summarise([]) is None
    assert summarise([4.0, 1.0]).median == 2.5
    assert summarise([2.0, 4.0, 3.0]).spread == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 3, "0"),
        (1234567.8, 3, "1,234,568"),
        (12.345, 3, "12.3"),
        (0.0012345, 3, "0.00123"),
        (99.96, 3, "100.0"),
        (50000, 0, "50,000"),
        (-4.56, 2, "-4.6"),
    ],
)
def test_numbers_have_significant_digits(value: float, digits: int, text: str) -> None:
    assert significant(value, digits) == text


def test_unknown_is_not_zero(record: RunRecord) -> None:
    unknown = record.model_copy(update={"memory": record.memory.model_copy(update={"peak_pss_bytes": None})})
    assert METRICS["peak_pss_mb"].text(unknown) == "n/a"
    assert ["peak RAM (PSS)", "n/a", "MB"] in run_table(unknown).rows


def test_the_run_table_has_every_promised_figure_with_its_unit(record: RunRecord) -> None:
    table = run_table(record)
    units = {row[0]: row[2] for row in table.rows}
    assert units == {
        "epoch": "s",
        "throughput": "samples/s",
        "decoded data": "MB/s",
        "waiting for data": "% of epoch",
        "copying to the device": "% of epoch",
        "computing": "% of epoch",
        "first batch": "ms",
        "opening": "ms",
        "CPU time": "s per epoch",
        "peak RAM (PSS)": "MB",
        "RAM growth from before opening": "MB",
        "read from storage": "MB per epoch",
        "read by system calls": "MB per epoch",
        "store": "MB",
        "files": "files",
        "preparation": "s",
        "training loss, last epoch": "nats",
        "training accuracy, last epoch": "%",
    }
    assert "…" in {row[0]: row[1] for row in table.rows}["epoch"], "the spread is shown"


@pytest.mark.parametrize(
    ("wait_s", "text"),
    [
        (
            0.01,
            "Compute-bound: data loading took 0.10 % of the epoch; a faster format cannot gain more than about that.",
        ),
        (
            4.0,
            "Data loading took 40 % of the epoch, 4.00 s of 10.0 s: about what a faster format could save. "
            "A run with --backend memory shows what would be left.",
        ),
    ],
)
def test_the_verdict_says_what_storage_can_gain(record: RunRecord, wait_s: float, text: str) -> None:
    assert verdict(with_epochs(record, (10.0, wait_s))) == text


def test_the_verdict_owns_up_to_workers_on_the_same_cpu(record: RunRecord) -> None:
    busy = record.model_copy(update={"spec": record.spec.model_copy(update={"workers": 2})})
    assert "The workers share the CPU" in verdict(busy)


def test_the_verdict_on_a_failure_is_its_reason(record: RunRecord) -> None:
    from bench.record import ErrorInfo

    failed = record.model_copy(
        update={"status": "failed", "error": ErrorInfo(phase="open", type="X", message="It broke.")}
    )
    assert verdict(failed) == "memmap[library] gives no result: It broke."


def kinds(record: RunRecord) -> set[str]:
    return {warning.kind for warning in checks.warnings_for(record)}


def test_doubts_are_raised_when_there_is_reason(record: RunRecord) -> None:
    good = with_epochs(record, (10.0, 1.0), (10.1, 1.0))
    assert kinds(good) == {"cache-not-controlled"}
    assert "unstable" in kinds(with_epochs(record, (10.0, 1.0), (15.0, 1.0)))
    assert "short-epoch" in kinds(with_epochs(record, (0.2, 0.1), (0.2, 0.1)))
    assert "no-repeats" in kinds(with_epochs(record, (10.0, 1.0)))
    greedy = [
        epoch.model_copy(update={"io": epoch.io.model_copy(update={"read_call_bytes": 5 * 1000 * 3072})})
        for epoch in good.epochs
    ]
    (warning,) = checks.warnings_for(good.model_copy(update={"epochs": greedy}))[:1]
    assert warning.kind == "read-amplification"
    assert "5.0 times the bytes" in warning.message
    synthetic = good.model_copy(update={"data": good.data.model_copy(update={"origin": "synthetic"})})
    assert "synthetic-data" in kinds(synthetic)


TABLE = Table("Title", ["name", "a | b", "x"], [["<script>", "1|2", "3"], ["b", "10", "n/a"]], ["A note."])


def test_markdown_escapes_what_would_break_it() -> None:
    assert render.markdown(TABLE) == (
        "| name | a \\| b | x |\n|---|--:|--:|\n| &lt;script> | 1\\|2 | 3 |\n| b | 10 | n/a |\n\nA note.\n"
    )


def test_the_terminal_table_aligns_numbers_and_keeps_markup_as_text() -> None:
    table = Table("T", ["n", "v"], [["[red]x[/red]", "1"], ["y", "100"]], ["note"])
    assert render.terminal(table, width=60, colour=False) == (
        "T\n\n n                v\n ──────────────────\n [red]x[/red]     1\n y              100\n\nnote"
    )


def test_compared_runs_are_grouped_and_fastest_first(record: RunRecord) -> None:
    slow, fast = with_epochs(record, (3.0, 1.0)), with_epochs(record, (2.0, 1.0))
    failed = record.model_copy(update={"status": "failed"})
    table = comparison_table([slow, failed, fast])
    column = table.columns.index("epoch, s")
    assert [row[column] for row in table.rows] == ["2.00", "3.00"], "one epoch has no spread"
    assert "1 run without a result left out." in table.notes
    assert any(record.environment["cpu"] in note for note in table.notes)


def test_generated_passages_replace_only_what_is_between_their_markers(tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    path.write_text("a\n<!-- t -->\nold\n<!-- /t -->\nz\n")
    document.update(path, "t", "new\n")
    document.update(path, "t", "newer\n")
    assert path.read_text() == "a\n<!-- t -->\nnewer\n<!-- /t -->\nz\n"
    with pytest.raises(document.DocumentError, match="has no <!-- other -->"):
        document.update(path, "other", "x")
    with pytest.raises(document.DocumentError, match="Cannot update"):
        document.update(tmp_path / "missing.md", "t", "x")
