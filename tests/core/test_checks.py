"""Doubts about a run: each raised when there is reason, silent when there is none."""

from pathlib import Path
from typing import Any

import pytest

from bench.records import checks
from bench.records.record import CacheInfo, EpochInfo, GpuInfo, MemoryInfo, RunRecord, SamplerInfo, read_record


@pytest.fixture
def quiet() -> RunRecord:
    """A long, steady run of which nothing is in doubt."""
    record = read_record(Path(__file__).parent / "records" / "version-1.json")
    epoch = record.epochs[0].model_copy(
        update={"samples": 1000, "epoch_s": 10.0, "wait_s": 1.0, "cpu_user_s": 15.0, "cpu_system_s": 1.0}
    )
    io = epoch.io.model_copy(update={"storage_read_bytes": 0, "read_call_bytes": 0})
    epochs = [epoch.model_copy(update={"epoch": n, "warmup": n == 0, "io": io}) for n in range(4)]
    quiet_facts = {
        "canary_s": [0.050, 0.051],
        "steal_share": 0.001,
        "cpu_busy_s": 66.0,
        "cpu_total_s": 82.0,
        "memory_some_share": 0.0,
        "swapped_in_bytes": 0,
        "device_read_bytes": 1000,
    }
    return record.model_copy(
        update={
            "epochs": epochs,
            "ideal": epoch.model_copy(update={"epoch_s": 9.0}),
            "cache": CacheInfo(asked="warm", achieved="verified", resident_before=1.0, proof="seen"),
            "environment": {**record.environment, "disturbance": quiet_facts, "cpu_governor": "performance"},
            "memory": MemoryInfo(sampler=SamplerInfo(samples=40, cpu_s=0.2, duration_s=40.0)),
        }
    )


def kinds(record: RunRecord) -> list[str]:
    return [warning.kind for warning in checks.warnings_for(record)]


def disturbed(record: RunRecord, **facts: Any) -> RunRecord:
    disturbance = {**record.environment["disturbance"], **facts}
    return record.model_copy(update={"environment": {**record.environment, "disturbance": disturbance}})


def test_a_quiet_run_raises_no_doubt(quiet: RunRecord) -> None:
    assert kinds(quiet) == []


def test_what_was_not_measured_raises_no_doubt(quiet: RunRecord) -> None:
    blind = dict.fromkeys(quiet.environment["disturbance"])
    assert kinds(disturbed(quiet, **blind)) == []
    assert kinds(quiet.model_copy(update={"environment": {}, "memory": MemoryInfo(), "ideal": None})) == []


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("cpu-speed", {"canary_s": [0.050, 0.054]}),
        ("cpu-speed", {"canary_s": [0.054, 0.050]}),
        ("cpu-steal", {"steal_share": 0.02}),
        ("other-processes", {"cpu_busy_s": 75.0}),
        ("memory-pressure", {"memory_some_share": 0.2}),
        ("memory-pressure", {"swapped_in_bytes": 4096}),
        ("foreign-reads", {"device_read_bytes": 10**9}),
    ],
)
def test_what_others_did_meanwhile_is_told(quiet: RunRecord, kind: str, facts: dict[str, Any]) -> None:
    assert kinds(disturbed(quiet, **facts)) == [kind]


def test_a_run_that_stood_still_is_told(quiet: RunRecord) -> None:
    stopped = quiet.model_copy(update={"environment": {**quiet.environment, "stopped_s": 7.04}})
    assert kinds(stopped) == ["stood-still"]
    assert checks.warnings_for(stopped)[0].message.startswith("bench stood still for 7.0 s, as by Ctrl-Z")


@pytest.mark.parametrize(
    ("cache", "doubted"),
    [
        (CacheInfo(asked="cold", achieved="not-achieved", proof="half stayed"), True),
        (CacheInfo(asked="cold", achieved="unverifiable", proof="no probe"), True),
        (CacheInfo(asked="cold", achieved="impossible", proof="tmpfs"), True),
        (CacheInfo(asked="cold", achieved="verified"), False),
        (CacheInfo(resident_before=0.5), True),
        (CacheInfo(resident_before=None), True),
        (CacheInfo(resident_before=1.0), False),
        (CacheInfo(resident_before=0.0), False),
    ],
)
def test_a_cache_that_is_neither_here_nor_there_is_told(quiet: RunRecord, cache: CacheInfo, doubted: bool) -> None:
    assert kinds(quiet.model_copy(update={"cache": cache})) == (["cache-state"] if doubted else [])


def test_an_epoch_cannot_beat_its_ceiling(quiet: RunRecord) -> None:
    slow = quiet.ideal.model_copy(update={"epoch_s": 11.0})
    assert kinds(quiet.model_copy(update={"ideal": slow})) == ["faster-than-ceiling"]


@pytest.mark.parametrize(
    ("governor", "driver", "doubted"),
    [
        ("powersave", "acpi-cpufreq", True),
        ("performance powersave", "acpi-cpufreq", True),
        # There it only names a policy, under which clocks rise with the load.
        ("powersave", "intel_pstate", False),
        ("schedutil", "acpi-cpufreq", False),
        (None, None, False),
    ],
)
def test_a_slow_governor_is_told(quiet: RunRecord, governor: str | None, driver: str | None, doubted: bool) -> None:
    environment = {**quiet.environment, "cpu_governor": governor, "cpu_scaling_driver": driver}
    assert kinds(quiet.model_copy(update={"environment": environment})) == (["cpu-governor"] if doubted else [])


def test_a_store_on_a_network_is_told(quiet: RunRecord) -> None:
    environment = {**quiet.environment, "storage": {"network": True, "file_system": "nfs4"}}
    found = quiet.model_copy(update={"environment": environment})
    assert kinds(found) == ["network-storage"]
    assert "nfs4" in checks.warnings_for(found)[0].message


def test_a_hot_or_shared_gpu_is_told(quiet: RunRecord) -> None:
    hot = GpuInfo(name="X", throttled=True, throttle_reasons=["HwThermalSlowdown"])
    assert kinds(quiet.model_copy(update={"gpu": hot})) == ["gpu-throttled"]
    assert kinds(quiet.model_copy(update={"gpu": GpuInfo(name="X", shared=True)})) == ["gpu-shared"]
    assert kinds(quiet.model_copy(update={"gpu": GpuInfo(name="X", throttled=False, shared=False)})) == []


def test_a_costly_sampler_is_told(quiet: RunRecord) -> None:
    memory = MemoryInfo(sampler=SamplerInfo(samples=400, cpu_s=2.0, duration_s=40.0))
    assert kinds(quiet.model_copy(update={"memory": memory})) == ["sampler-cost"]


def test_every_doubt_says_what_to_do(quiet: RunRecord) -> None:
    worst = disturbed(quiet, canary_s=[1.0, 2.0], steal_share=0.5, cpu_busy_s=80.0, swapped_in_bytes=1)
    for warning in checks.warnings_for(worst):
        assert any(word in warning.message.lower() for word in ("run again", "close", "free", "use")), warning.kind


def test_a_training_that_diverged_says_so_unless_the_data_is_to_blame(quiet: RunRecord) -> None:
    lost = [epoch.model_copy(update={"loss": float("nan") if n else 1.0}) for n, epoch in enumerate(quiet.epochs)]
    diverged = quiet.model_copy(update={"epochs": lost})
    (warning,) = checks.warnings_for(diverged)
    assert warning.kind == "diverged"
    assert "from epoch 1 on" in warning.message
    odd = diverged.model_copy(update={"data": quiet.data.model_copy(update={"not_finite": 3})})
    assert kinds(odd) == ["not-finite-values"]


BY_EACH = "Each of the {} worker processes keeps its own, so each chunk is read and decoded by every one of them"


@pytest.mark.parametrize(
    ("options", "spec", "times", "text"),
    [
        ({"chunk": 16}, {}, 9, "in chunks of 16 samples. Smaller chunks, or --shuffle block, make an epoch cheaper."),
        ({"chunk": 16}, {"shuffle": "block"}, 9, "in chunks of 16 samples. Smaller chunks make an epoch cheaper."),
        ({"chunk": 16, "reader": "naive"}, {}, 16, "in chunks of 16 samples. Another reader, library or mapped, reads"),
        ({"layout": "contiguous", "chunk": None, "reader": "naive"}, {}, 20.7, "Another reader, library or mapped,"),
        ({"chunk": 1, "reader": "naive"}, {}, 3, "than a sample. Another reader, library or mapped, reads less."),
        ({"reader": "mapped"}, {}, 3, "pieces larger than a sample."),
        ({}, {}, 3, "pieces larger than a sample."),
        ({"chunk": 16}, {"workers": 2}, 2.02, BY_EACH.format(2) + ": --worker-kind thread shares them."),
        ({"chunk": 16}, {"workers": 4}, 3.1, BY_EACH.format(4)),
        ({"chunk": 16}, {"workers": 2}, 9, "in chunks of 16 samples. Smaller chunks, or --shuffle block, make"),
        ({"chunk": 16}, {"workers": 2, "worker_kind": "thread"}, 2.02, "Smaller chunks, or --shuffle block, make"),
        ({"chunk": 16}, {"workers": 1}, 2.02, "Smaller chunks, or --shuffle block, make"),
        ({"chunk": 16, "reader": "naive"}, {"workers": 2}, 2.02, "Another reader, library or mapped, reads each once"),
    ],
)
def test_the_remedy_for_reading_too_much_fits_what_reads_it(quiet: RunRecord, options, spec, times, text: str) -> None:
    def greedy(epoch: EpochInfo) -> EpochInfo:
        read = int(times * epoch.samples * quiet.data.sample_bytes)
        return epoch.model_copy(update={"io": epoch.io.model_copy(update={"read_call_bytes": read})})

    record = quiet.model_copy(
        update={
            "epochs": [greedy(epoch) for epoch in quiet.epochs],
            "spec": quiet.spec.model_copy(update=spec),
            "store": quiet.store.model_copy(update={"options": options}),
        }
    )
    (warning,) = checks.warnings_for(record)
    assert warning.kind == "read-amplification"
    assert warning.message.startswith(f"Read calls moved {times:.1f} times the bytes that were delivered: ")
    assert text in warning.message
    assert ("chunks" in warning.message) == ((options.get("chunk") or 1) > 1)
