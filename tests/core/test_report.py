"""Records to tables, sentences and warnings."""

import math
from pathlib import Path

import pytest

from bench.contracts.errors import BenchError
from bench.records import checks
from bench.records.groups import equal_runs
from bench.records.metrics import METRICS, significant
from bench.records.record import CacheInfo, OrderInfo, RunRecord, read_record
from bench.report import document, render
from bench.report.tables import Table, comparison_table, run_table, runs_table
from bench.report.verdict import meaning, verdict
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


def test_throughput_is_the_samples_by_the_epoch_that_is_shown(record: RunRecord) -> None:
    # Of an even number of values the median is a mean, and the mean of rates is not the rate of the mean.
    one, other = with_epochs(record, (1.0, 0.1), (3.0, 0.1)), with_epochs(record, (6.0, 0.1), (8.0, 0.1))
    rate, epoch = METRICS["samples_per_s"].of(one), METRICS["epoch_s"].of(one)
    assert (epoch.median, rate.median, rate.low, rate.high) == (2.0, 500, pytest.approx(1000 / 3), 1000)
    both = METRICS["samples_per_s"].over([one, other])
    assert METRICS["epoch_s"].over([one, other]).median == 4.5
    assert (both.n, both.median) == (2, pytest.approx(1000 / 4.5))
    assert METRICS["mb_per_s"].over([one, other]).median == pytest.approx(record.data.sample_bytes / 1e3 / 4.5)


def test_the_first_batch_is_that_of_counted_epochs(record: RunRecord) -> None:
    changed = with_epochs(record, (2.0, 0.5), (4.0, 1.0))
    firsts = zip((0.9, 0.03, 0.05), changed.epochs, strict=True)
    epochs = [epoch.model_copy(update={"first_batch_s": first_s}) for first_s, epoch in firsts]
    found = METRICS["first_batch_ms"].of(changed.model_copy(update={"epochs": epochs}))
    assert (found.low, found.median, found.high) == (30, 40, 50)


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
    assert METRICS["peak_pss_mb"].text([unknown]) == "n/a"
    assert ["peak RAM (PSS)", "n/a", "MB"] in run_table([unknown]).rows


def test_a_store_counts_as_what_it_takes_of_the_disk_where_that_is_known(record: RunRecord) -> None:
    sizes = {"size_bytes": 23_100_000, "allocated_bytes": 41_500_000}
    seen = record.model_copy(update={"store": record.store.model_copy(update=sizes)})
    unseen = record.model_copy(update={"store": seen.store.model_copy(update={"allocated_bytes": None})})
    assert [METRICS["store_mb"].text([one]) for one in (seen, unseen)] == ["41.5", "23.1"]


def test_the_run_table_has_every_promised_figure_with_its_unit(record: RunRecord) -> None:
    table = run_table([record])
    units = {row[0]: row[2] for row in table.rows}
    assert units == {
        "epoch": "s",
        "ceiling: epoch from memory": "s",
        "over the ceiling": "%",
        "throughput": "samples/s",
        "decoded data": "MB/s",
        "waiting for data": "% of epoch",
        "copying to the device": "% of epoch",
        "computing": "% of epoch",
        "wait for a batch, median": "ms",
        "wait for a batch, 90th percentile": "ms",
        "wait for a batch, 99th percentile": "ms",
        "wait for a batch, longest": "ms",
        "opening": "ms",
        "first batch": "ms",
        "epoch after its first batch": "s",
        "CPU time, user": "s per epoch",
        "CPU time, system": "s per epoch",
        "peak RAM (PSS)": "MB",
        "  anonymous part": "MB",
        "  mapped files": "MB",
        "  shared memory": "MB",
        "RAM growth from before opening": "MB",
        "store in the page cache (reclaimable)": "MB",
        "read from storage": "MB per epoch",
        "read from storage, per byte delivered": "bytes",
        "read by system calls": "MB per epoch",
        "read calls": "per epoch",
        "major page faults": "per epoch",
        "store on disk": "MB",
        "files": "files",
        "preparation": "s",
        "training loss, last epoch": "nats",
        "training accuracy, last epoch": "%",
    }
    assert "…" in {row[0]: row[1] for row in table.rows}["epoch"], "the spread is shown"


def with_ceiling(record: RunRecord, ideal_s: float) -> RunRecord:
    times = {"epoch_s": ideal_s, "wait_s": 0.0, "copy_s": 0.0, "compute_s": ideal_s}
    return record.model_copy(update={"ideal": record.epochs[0].model_copy(update=times)})


def with_workers(record: RunRecord) -> RunRecord:
    return record.model_copy(update={"spec": record.spec.model_copy(update={"workers": 2})})


@pytest.mark.parametrize(
    ("epoch_s", "wait_s", "ideal_s", "text"),
    [
        (
            11.2,
            1.1,
            10.0,
            "memmap[library] costs 12 % over the ceiling (11.2 s instead of 10.0 s per epoch from memory): 11 % of "
            "the epoch, and storage cannot gain you more than that. Waiting for data took 9.8 % of the epoch.",
        ),
        (
            10.4,
            0.1,
            10.0,
            "memmap[library] costs 4.0 % over the ceiling (10.4 s instead of 10.0 s per epoch from memory): 3.8 % of "
            "the epoch, and storage cannot gain you more than that. Waiting for data took 0.96 % of the epoch.",
        ),
        (
            25.0,
            15.0,
            10.0,
            "memmap[library] costs 150 % over the ceiling (25.0 s instead of 10.0 s per epoch from memory). Waiting "
            "for data took 60 % of the epoch, and storage cannot gain you more than that.",
        ),
        (
            10.1,
            0.4,
            10.0,
            "memmap[library] costs 1.0 % over the ceiling (10.1 s instead of 10.0 s per epoch from memory). Waiting "
            "for data took 4.0 % of the epoch, and storage cannot gain you more than that.",
        ),
        (
            10.1,
            0.05,
            10.0,
            "Compute-bound: the format does not matter here. Training from memory takes 10.0 s per epoch, and "
            "memmap[library] 10.1 s. Waiting for data took 0.50 % of the epoch.",
        ),
        (
            55.4,
            0.17,
            10.0,
            "Waiting for data took 0.31 % of the epoch from memmap[library]: storage cannot gain you more than that. "
            "The same computing took 5.52 times as long as in the ceiling's run, so the machine changed its speed "
            "between the two, and their difference (55.4 s per epoch, from memory 10.0 s) says nothing about storage.",
        ),
        (
            8.0,
            0.05,
            10.0,
            "Waiting for data took 0.62 % of the epoch from memmap[library]: storage cannot gain you more than that. "
            "The same computing took 0.795 times as long as in the ceiling's run, so the machine changed its speed "
            "between the two, and their difference (8.00 s per epoch, from memory 10.0 s) says nothing about storage.",
        ),
    ],
)
def test_the_verdict_follows_from_the_ceiling(
    record: RunRecord, epoch_s: float, wait_s: float, ideal_s: float, text: str
) -> None:
    assert verdict([with_ceiling(with_epochs(record, (epoch_s, wait_s)), ideal_s)]) == text


@pytest.mark.parametrize(
    ("epoch_s", "wait_s", "text"),
    [
        (
            15.0,
            1.5,
            "memmap[library] costs 50 % over the ceiling (15.0 s instead of 10.0 s per epoch from memory): 33 % of "
            "the epoch, and storage cannot gain you more than that. Waiting for data took 10 % of the epoch; the rest "
            "is computing, which was slower beside the loading.",
        ),
        (
            8.0,
            0.05,
            "No verdict: an epoch from memmap[library] took 8.00 s, and from memory, which cannot be slower, 10.0 s. "
            "The machine is too noisy for this short a run. Waiting for data took 0.62 % of the epoch.",
        ),
    ],
)
def test_with_workers_computing_may_be_slower_beside_the_loading(
    record: RunRecord, epoch_s: float, wait_s: float, text: str
) -> None:
    found = verdict([with_ceiling(with_workers(with_epochs(record, (epoch_s, wait_s))), 10.0)])
    assert found.startswith(f"{text} The workers share the CPU with the training")


def test_without_a_ceiling_the_verdict_claims_no_limit(record: RunRecord) -> None:
    text = verdict([with_epochs(record, (10.0, 4.0))])
    assert text.startswith("Waiting for data took 40 % of the epoch, 4.00 s of 10.0 s: about what a faster format")
    assert text.endswith("The ceiling was not measured, so this is no hard limit.")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"shuffle": "block", "block_samples": 256, "buffer_blocks": 16}, "block shuffle 256 x 16"),
        ({"shuffle": "none"}, "no shuffle"),
    ],
    ids=["block", "none"],
)
def test_a_shuffle_that_is_not_full_is_named_wherever_a_run_is_described(
    record: RunRecord, fields: dict, text: str
) -> None:
    other = record.model_copy(update={"spec": record.spec.model_copy(update=fields), "spec_id": "other"})
    ours = "memmap[library]"
    assert run_table([other]).title.startswith(f"{ours} on cifar10 (local), {text}: training cnn")
    assert f"{ours} ({text}) " in verdict([with_ceiling(other, 0.1)])
    assert runs_table(["a"], [other]).rows[0][1:4] == [f"cifar10 (local), {text}", "cnn", ours]
    rows = comparison_table([other, record]).rows
    assert sorted(row[0] for row in rows) == ["cifar10 (local)", f"cifar10 (local), {text}"]
    assert "shuffle" not in f"{run_table([record])} {verdict([record])} {runs_table(['a'], [record])}"


def test_how_well_samples_were_shuffled_is_shown(record: RunRecord) -> None:
    order = OrderInfo(kind="block", block_samples=8, buffer_blocks=4, mean_displacement=0.97, class_mixing=4.25)
    rows = run_table([record.model_copy(update={"order": order})]).rows
    assert ["mean displacement of samples", "0.970", "of a uniform shuffle"] in rows
    assert ["variation of classes between batches", "4.25", "of a uniform shuffle"] in rows


def test_several_runs_count_once_each(record: RunRecord) -> None:
    """Many epochs of one process weigh no more than a single one of another."""
    runs = [with_epochs(record, *[(1.0, 0.0)] * 9), with_epochs(record, (2.0, 0.0)), with_epochs(record, (3.0, 0.0))]
    epoch = METRICS["epoch_s"].over(runs)
    assert (epoch.n, epoch.median, epoch.low, epoch.high) == (3, 2.0, 1.0, 3.0)
    table = run_table(runs)
    assert ["epoch", "2.00 (1.00…3.00, n=3)", "s"] in table.rows
    assert table.notes[0].startswith("Median (lowest…highest) of 3 runs in fresh processes")
    noted = [run.model_copy(update={"warnings": checks.warnings_for(run)}) for run in runs]
    assert "no-repeats" in meaning(noted[1:2])
    assert "no-repeats" not in meaning(noted)
    assert meaning(noted).count("cache-state") == 1


def test_a_run_that_lacks_a_figure_leaves_none_for_the_group(record: RunRecord) -> None:
    assert METRICS["over_ceiling"].over([with_ceiling(record, 1.0), record]) is None


@pytest.mark.parametrize(
    ("batches", "shown"), [(9, set()), (10, {50}), (99, {50}), (100, {50, 90}), (1000, {50, 90, 99})]
)
def test_percentiles_of_waits_are_exact_and_need_enough_batches(
    record: RunRecord, batches: int, shown: set[int]
) -> None:
    waits = [number / 1000 for number in range(batches, 0, -1)]
    warm = record.epochs[0].model_copy(update={"warmup": True, "batch_wait_s": [99.0] * 1000})
    counted = record.epochs[0].model_copy(update={"warmup": False, "batch_wait_s": waits})
    changed = record.model_copy(update={"epochs": [warm, counted]})
    for q in (50, 90, 99):
        value = METRICS[f"wait_p{q}_ms"].of(changed)
        if q in shown:
            assert value.median == pytest.approx(math.ceil(batches * q / 100))
        else:
            assert value is None
    assert METRICS["wait_max_ms"].of(changed).median == pytest.approx(batches)
    note = f"Waits of {batches:,} batches: the median takes 10 of them, the 90th percentile 100, the 99th 1,000"
    assert any(note in text for text in run_table([changed]).notes) == (batches < 1000)


@pytest.mark.parametrize(
    ("cache", "text"),
    [
        ({"asked": "cold", "achieved": "verified"}, "cold: verified"),
        ({"asked": "cold", "achieved": "not-achieved"}, "cold: NOT achieved"),
        ({"asked": "warm", "achieved": "unverifiable"}, "warm: unverifiable"),
        ({"asked": "cold", "achieved": "impossible"}, "cold: impossible"),
        ({"asked": "as-is", "resident_before": 0.42}, "as-is (42% in memory)"),
        ({"asked": "as-is"}, "as-is"),
    ],
)
def test_every_table_says_what_became_of_the_cache(record: RunRecord, cache: dict, text: str) -> None:
    changed = record.model_copy(update={"cache": CacheInfo(**cache)})
    assert any(note.startswith(f"Page cache: {text}") for note in run_table([changed]).notes)
    table = comparison_table([changed])
    assert table.rows[0][table.columns.index("cache")] == text


@pytest.mark.parametrize(
    ("resident", "text"),
    [
        ((0.0, 1.0, 0.4), "as-is (0…100% in memory)"),
        ((1.0, 1.0), "as-is (100% in memory)"),
        ((1.0, None), "as-is (100% in memory, unknown of 1 run)"),
        ((0.25, None, 0.5, None), "as-is (25…50% in memory, unknown of 2 runs)"),
        ((None, None), "as-is"),
    ],
)
def test_runs_that_found_another_share_in_memory_are_told_as_a_range(
    record: RunRecord, resident: tuple[float | None, ...], text: str
) -> None:
    caches = [CacheInfo(asked="as-is", resident_before=share, proof=f"saw {share}") for share in resident]
    runs = [record.model_copy(update={"cache": cache}) for cache in caches]
    assert f"Page cache: {text}." in run_table(runs).notes
    table = comparison_table(runs)
    assert table.rows[0][table.columns.index("cache")] == text


def test_equal_runs_share_a_row_and_others_never_do(record: RunRecord) -> None:
    other_versions = {**record.environment, "libraries": {**record.environment["libraries"], "torch": "9.9"}}
    cold = CacheInfo(asked="cold", achieved="verified")
    runs = [
        record,
        record.model_copy(update={"started_at": "2030"}),
        record.model_copy(update={"environment": other_versions}),
        record.model_copy(update={"cache": cold}),
        record.model_copy(update={"data": record.data.model_copy(update={"digest": "0" * 32})}),
    ]
    assert [len(group.records) for group in equal_runs(runs)] == [2, 1, 1, 1]
    rows = comparison_table(runs).rows
    assert len(rows) == 4
    assert sum("2 runs" in row[5] for row in rows) == 1


def test_the_verdict_owns_up_to_workers_on_the_same_cpu(record: RunRecord) -> None:
    busy = record.model_copy(update={"spec": record.spec.model_copy(update={"workers": 2})})
    assert "The workers share the CPU" in verdict([busy])


def test_the_verdict_on_a_failure_is_its_reason(record: RunRecord) -> None:
    from bench.records.record import ErrorInfo

    failed = record.model_copy(
        update={"status": "failed", "error": ErrorInfo(phase="open", type="X", message="It broke.")}
    )
    assert verdict([failed]) == "memmap[library] gives no result: It broke."


def kinds(record: RunRecord) -> set[str]:
    return {warning.kind for warning in checks.warnings_for(record)}


def test_doubts_are_raised_when_there_is_reason(record: RunRecord) -> None:
    good = with_epochs(record, (10.0, 1.0), (10.1, 1.0))
    assert kinds(good) == {"cache-state"}
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


@pytest.mark.parametrize(
    ("read_bytes", "told"),
    [
        ((20e6, 400, 400), True),
        ((20e6, 9e6, 9e6), True),
        ((20e6, 20e6, 20e6), False),
        # Mapped: what libraries read while they are imported is no part of the store.
        ((3e6, 0, 0), False),
        ((0, 0, 0), False),
        ((None, None, None), False),
    ],
)
def test_samples_that_were_kept_between_epochs_are_told(
    record: RunRecord, read_bytes: tuple[float | None, ...], told: bool
) -> None:
    epochs = [
        record.epochs[0].model_copy(
            update={
                "epoch": number,
                "warmup": number == 0,
                "io": record.epochs[0].io.model_copy(update={"read_call_bytes": read and int(read)}),
            }
        )
        for number, read in enumerate(read_bytes)
    ]
    store = record.store.model_copy(update={"size_bytes": 15_000_000})
    made = record.model_copy(update={"epochs": epochs, "store": store})
    assert ("kept-samples" in kinds(made)) == told
    compiled = made.model_copy(update={"spec": made.spec.model_copy(update={"compile": True})})
    assert "kept-samples" not in kinds(compiled)


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
    another = record.spec.model_copy(update={"seed": 9})
    slow, fast = with_epochs(record, (3.0, 1.0), spec=another), with_epochs(record, (2.0, 1.0))
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


def test_a_document_keeps_its_line_ends_its_permissions_and_its_link(tmp_path: Path) -> None:
    path, link = tmp_path / "doc.md", tmp_path / "link.md"
    path.write_bytes(b"a\r\n<!-- t -->\r\nold\r\n<!-- /t -->\r\nz\r\nlone\nend\r\n")
    path.chmod(0o640)
    link.symlink_to("doc.md")
    document.update(link, "t", "new\n\nÄ\n")
    assert path.read_bytes() == (b"a\r\n<!-- t -->\r\nnew\r\n\r\n\xc3\x84\r\n<!-- /t -->\r\nz\r\nlone\nend\r\n")
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_document_that_is_no_utf_8_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    content = "ä\n<!-- t -->\n<!-- /t -->\n".encode("latin-1")
    path.write_bytes(content)
    with pytest.raises(document.DocumentError, match=r"^Cannot update .*doc\.md: it is not UTF-8\."):
        document.update(path, "t", "x")
    assert path.read_bytes() == content


def test_a_document_that_cannot_be_written_whole_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "doc.md"
    path.write_text("a\n<!-- t -->\nold\n<!-- /t -->\nz\n")
    written = Path.write_text

    def full(self: Path, text: str, **named: str) -> None:
        written(self, text[:5], **named)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(BenchError, match=r"doc\.md: No space left on device"):
        document.update(path, "t", "new")
    assert path.read_text() == "a\n<!-- t -->\nold\n<!-- /t -->\nz\n"
    assert list(tmp_path.iterdir()) == [path]
