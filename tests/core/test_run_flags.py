"""Flags of `bench run` that say how often, in which state and under which limits."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from running import RUN
from typer.testing import CliRunner

from bench.cli import app
from bench.commands import places
from bench.commands.work import SizeError, size_bytes
from bench.records.record import RunRecord


def test_repeats_are_runs_of_their_own(bench, tmp_path: Path) -> None:
    result = bench(*RUN, "--backend", "toy", "--epochs", "1", "--repeats", "2", "--no-ceiling", "--json")
    assert result.returncode == 0, result.stderr
    decoder, text, records = json.JSONDecoder(), result.stdout.strip(), []
    while text:
        content, end = decoder.raw_decode(text)
        records.append(RunRecord.model_validate(content))
        text = text[end:].strip()
    assert [record.repeat for record in records] == [0, 1]
    assert records[0].spec_id == records[1].spec_id
    assert records[0].started_at < records[1].started_at
    assert [record.ideal for record in records] == [None, None]
    assert [record.epochs[0].batch_loss for record in records] == [records[0].epochs[0].batch_loss] * 2
    assert len(list((tmp_path / "results").glob("*.json"))) == 2
    listed = bench("table", "--each").stdout
    assert "2 runs" in listed


def test_a_memory_limit_holds_or_is_refused_in_one_line(bench) -> None:
    result = bench(*RUN, "--backend", "toy", "--epochs", "1", "--memory-limit", "4G", "--json")
    if result.returncode == 0:
        record = RunRecord.model_validate_json(result.stdout)
        assert record.spec.memory_limit_bytes == 4 * 2**30
        peak_bytes = record.memory.limited_peak_bytes
        assert peak_bytes is None or record.memory.anon_bytes < peak_bytes <= 4 * 2**30
    else:
        assert result.returncode == 1
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith("bench: ")
        assert "cgroup" in last
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--drop-caches",), "--drop-caches goes with --cache cold"),
        (("--cache", "warm", "--drop-caches"), "--drop-caches goes with --cache cold"),
        (("--cache", "warm", "--memory-limit", "1G"), "--memory-limit does not go with --cache warm"),
        (("--memory-limit", "much"), "--memory-limit much: not a size"),
        (("--memory-limit", "0"), "--memory-limit 0: not a size"),
        (("--memory-limit", "-5M"), "not a size"),
        (("--cache", "hot"), "hot"),
        (("--block-samples", "64"), "--block-samples goes with --shuffle block alone"),
        (("--shuffle", "none", "--buffer-blocks", "4"), "--buffer-blocks goes with --shuffle block alone"),
        (("--shuffle", "block", "--block-samples", "0"), "--block-samples '0': input should be greater than or equal"),
        (("--shuffle", "block", "--buffer-blocks", "-1"), "--buffer-blocks '-1': input should be greater than or"),
        (("--shuffle", "blocks"), "blocks"),
        (("--prefetch", "0"), "--prefetch '0': input should be greater than or equal to 1."),
        (("--prefetch", "4"), "--prefetch 4 does nothing without --workers."),
        (("--worker-kind", "thread"), "--worker-kind thread does nothing without --workers."),
        (("--start-method", "spawn"), "--start-method spawn does nothing without --workers."),
        (
            ("--workers", "2", "--worker-kind", "thread", "--start-method", "spawn"),
            "--start-method spawn does nothing where workers are threads.",
        ),
        (("--repeats", "0"), "greater than or equal to 1"),
        (("--timeout", "0"), "greater than or equal to 1"),
        (("--timeout", "inf"), "inf is no finite number"),
        (("--timeout", "nan"), "greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(flags: tuple[str, ...], text: str, tmp_path: Path) -> None:
    arguments = ["run", "--backend", "memmap", "--dataset", "cifar10", "--data-dir", str(tmp_path / "data"), *flags]
    result = CliRunner().invoke(app, arguments, standalone_mode=False)
    assert result.exit_code != 0
    assert text in str(result.exception)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("500M", 500 * 2**20), ("2g", 2 * 2**30), ("1.5G", 3 * 2**29), ("3KiB", 3072), ("1 TB", 2**40)],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "M", "1X", "1e9", "0.0G", "nan", "-1"])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(SizeError, match="Write it like 500M or 2G"):
        size_bytes(text)


def test_a_backend_that_needs_a_gpu_is_unsupported_on_the_cpu(bench) -> None:
    result = bench(*RUN, "--backend", "cupy", "--epochs", "1", "--device", "cpu", "--json")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("bench: unsupported while in phase prepare: cupy: ")
    record = RunRecord.model_validate_json(result.stdout)
    assert record.status == "unsupported"
    assert record.epochs == []
    assert "--device cuda, or --backend memmap" in record.error.message


@pytest.mark.parametrize(
    ("backend", "options", "facts"),
    [("filesystem", ("format=png",), {"decoder"}), ("filesystem", ("format=npy",), set()), ("memmap", (), set())],
)
def test_a_record_says_how_the_reader_reads(bench, backend: str, options: tuple[str, ...], facts: set[str]) -> None:
    chosen = [part for option in options for part in ("--option", option)]
    result = bench(*RUN, "--backend", backend, *chosen, "--model", "none", "--epochs", "1", "--json")
    record = RunRecord.model_validate_json(result.stdout)
    assert set(record.reader) == facts
    assert record.reader.get("decoder", "torchcodec") in {"torchcodec", "Pillow"}
    expected = {"png": "library", "npy": "mapped"}.get(str(record.store.options.get("format")), "mapped")
    assert record.store.options["reader"] == expected


@pytest.mark.parametrize(
    "command", [(*RUN, "--backend", "toy"), ("doctor",), ("prepare", "--backend", "toy", *RUN[1:3])]
)
def test_systems_that_have_no_counters_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "sys", SimpleNamespace(platform="darwin", argv=[]))
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, places.PlatformError)
    assert "runs there alone, not on darwin" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
