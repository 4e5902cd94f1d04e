"""What doctor says of machines that are known, how it measures ceilings, and what it leaves behind: nothing."""

import functools
import json
import os
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from bench import doctor
from bench.commands.doctor import doctor as command
from bench.measure import ceilings, gpu
from bench.measure.ceilings import ReadSpeed
from bench.measure.cgroup import MemoryLimitError
from bench.measure.disturbance import CpuTime, Snapshot
from bench.measure.storage_device import storage_facts
from bench.report import render

MB = 2**20
GOOD_MACHINE = {
    "cpu_count": 4,
    "cpu_quota_cores": None,
    "shm_bytes": 8 * 10**9,
    "cpu_governor": "performance",
    "virtual_machine": False,
    "memory_bytes": 16 * 10**9,
    "memory_limit_bytes": None,
}
GOOD_STORAGE = {"file_system": "ext4", "network": False, "memory": False}
QUIET = Snapshot(0.0, CpuTime(10, 0.0, 100), load_1m=0.3)


def speeds(first_s: float, second_s: float, method: ceilings.Method = "O_DIRECT") -> doctor.Speeds:
    sequential = ReadSpeed(MB, 100, first_s), ReadSpeed(MB, 100, second_s)
    storage = ceilings.StorageCeiling(method, 100 * MB, sequential, ())
    return doctor.Speeds(storage, None, ceilings.CopyCeiling(5.0, None, None, "no GPU"))


def tmpfs() -> Path:
    place = Path("/dev/shm")
    if not storage_facts(place)["memory"]:
        pytest.skip("/dev/shm is not in memory")
    return place


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, copies = ceilings.storage, ceilings.copies
    monkeypatch.setattr(ceilings, "storage", functools.partial(storage, file_bytes=16 * MB, limit_s=0.2))
    monkeypatch.setattr(ceilings, "copies", functools.partial(copies, size_bytes=MB))


def test_a_quiet_machine_raises_no_doubt() -> None:
    assert doctor.doubts(GOOD_MACHINE, GOOD_STORAGE, QUIET, speeds(1.0, 0.8)) == []


@pytest.mark.parametrize(
    ("machine", "storage", "words"),
    [
        ({"virtual_machine": True}, {}, "Virtual machine"),
        ({"cpu_governor": "performance,powersave"}, {}, "powersave"),
        ({"cpu_quota_cores": 1.5}, {}, "1.5 cores"),
        ({"memory_limit_bytes": 2 * 10**9}, {}, "2.0 GB"),
        ({"shm_bytes": 64 * 10**6}, {}, "64 MB"),
        ({"proactive_reclaim": True}, {}, "DAMON"),
        ({}, {"network": True, "file_system": "nfs4"}, "nfs4"),
        ({}, {"memory": True}, "in memory"),
    ],
)
def test_each_thing_that_puts_numbers_in_doubt_is_named_alone(machine, storage, words: str) -> None:
    found = doctor.doubts({**GOOD_MACHINE, **machine}, {**GOOD_STORAGE, **storage}, QUIET)
    assert len(found) == 1
    assert words in found[0]


def test_steal_and_load_are_doubted_above_their_limits() -> None:
    busy = Snapshot(0.0, CpuTime(10, 2.0, 100), load_1m=2.5)
    steal, load = doctor.doubts(GOOD_MACHINE, GOOD_STORAGE, busy)
    assert "2.0 %" in steal
    assert "2.5 on 4 cores" in load


def test_a_machine_that_tells_nothing_can_still_be_judged() -> None:
    unknown = {**dict.fromkeys(GOOD_MACHINE), "cpu_count": 4}
    assert doctor.doubts(unknown, dict.fromkeys(GOOD_STORAGE), Snapshot(0.0, None)) == []


@pytest.mark.parametrize(
    ("second_s", "method", "suspected"), [(0.77, "O_DIRECT", False), (0.76, "O_DIRECT", True), (0.5, "memory", False)]
)
def test_a_much_faster_second_pass_means_another_cache(second_s: float, method, suspected: bool) -> None:
    found = speeds(1.0, second_s, method)
    assert found.storage.host_cache_suspected is suspected
    assert bool(doctor.doubts(GOOD_MACHINE, GOOD_STORAGE, QUIET, found)) is suspected


def test_speeds_are_megabytes_of_a_million_and_reads_per_second() -> None:
    speed = ReadSpeed(block_bytes=4096, reads=1000, duration_s=2.0)
    assert speed.reads_per_s == 500
    assert speed.mb_per_s == pytest.approx(2.048)


def storage_read_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


@pytest.mark.parametrize("direct", [True, False])
def test_what_is_measured_really_comes_from_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    if storage_facts(tmp_path)["device"] is None:
        pytest.skip("no block device below the temporary folder")
    if not direct:
        monkeypatch.setattr(ceilings, "_readable", lambda descriptor: False)
    before = storage_read_bytes()
    found = ceilings.storage(tmp_path, file_bytes=16 * MB, limit_s=1.0)
    from_device = storage_read_bytes() - before
    asked = sum(speed.block_bytes * speed.reads for speed in (*found.sequential, *found.random))
    assert found.method == ("O_DIRECT" if direct else "evicted")
    assert found.file_bytes == 16 * MB
    assert found.sequential[0].reads == found.sequential[1].reads >= 1
    assert asked <= from_device <= 1.1 * asked + 2 * MB
    assert list(tmp_path.iterdir()) == []


def test_random_reads_fetch_no_more_than_was_asked_for(tmp_path: Path) -> None:
    if storage_facts(tmp_path)["device"] is None:
        pytest.skip("no block device below the temporary folder")
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(bytes(4 * MB))
        os.fsync(file.fileno())
        before = storage_read_bytes()
        ceilings._read(file.fileno(), "evicted", [0], 4096, limit_s=1.0)
        assert storage_read_bytes() - before == 4096


def test_the_second_pass_reads_what_the_first_had_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def read(descriptor: int, method: str, offsets, block_bytes: int, limit_s: float) -> ReadSpeed:
        passes.append(list(offsets))
        return ReadSpeed(block_bytes, reads=3, duration_s=1.0)

    monkeypatch.setattr(ceilings, "_read", read)
    ceilings._read_all(0, "O_DIRECT", 8 * MB, 1.0)
    assert passes[1] == passes[0][:3]
    assert sorted(passes[2]) == list(range(0, 8 * MB, 4096)) != passes[2]


def test_a_file_system_in_memory_is_named_for_what_it_is() -> None:
    found = ceilings.storage(tmpfs(), file_bytes=2 * MB, limit_s=0.1)
    assert found.method == "memory"
    assert [speed.block_bytes for speed in found.random] == list(ceilings.RANDOM_BYTES)


def test_the_time_limit_ends_a_pass_and_the_second_reads_no_more(tmp_path: Path) -> None:
    found = ceilings.storage(tmp_path, file_bytes=20 * MB, limit_s=0.0)
    assert [speed.reads for speed in (*found.sequential, *found.random)] == [1, 1, 1, 1]
    assert found.file_bytes == 16 * MB


def test_while_measured_the_file_has_no_name_that_could_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        assert list(tmp_path.iterdir()) == []
        raise KeyboardInterrupt

    monkeypatch.setattr(ceilings, "_fill", interrupted)
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    with pytest.raises(KeyboardInterrupt):
        ceilings.storage(tmp_path, file_bytes=MB)
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


def test_too_little_room_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ceilings.CeilingError, match=r"MB free, and measuring it takes .* --data-dir") as error:
        ceilings.storage(tmp_path, file_bytes=2**60)
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_a_row_and_a_note(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(ceilings.tempfile, "mkstemp", refuse)
    monkeypatch.setattr(doctor.tempfile, "TemporaryDirectory", refuse)
    found = doctor.examine(tmp_path, measure_ceilings=True)
    cold = next(ability for ability in found.abilities if ability.what == "proof of a cold cache")
    assert not cold.usable
    assert "Read-only file system" in cold.advice
    assert found.facts()["ceilings"]["storage"] is None
    assert "Read-only file system" in render.terminal(found.tables()[1], width=1000, colour=False)


def test_copying_is_measured_where_it_can_be() -> None:
    found = ceilings.copies(size_bytes=MB)
    assert found.memory_gb_per_s > 0
    assert (found.pinned_gb_per_s is None) == (found.pageable_gb_per_s is None) == (found.reason is not None)
    assert (found.reason is None) == torch.cuda.is_available()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu_is_found_by_what_torch_says_of_it() -> None:
    sensor = gpu.GpuSensor(gpu.cuda_identity(torch.cuda.get_device_properties(0)))
    before = sensor.sample()
    block = torch.ones(500_000_000, dtype=torch.uint8, device="cuda:0")
    torch.cuda.synchronize()
    assert sensor.sample().used_bytes - before.used_bytes >= block.numel()


def test_doctor_fits_one_screen_and_leaves_nothing(tmp_path: Path, quick: None) -> None:
    data_dir = tmp_path / "not" / "yet"
    found = doctor.examine(data_dir, measure_ceilings=True)
    text = "\n".join(render.terminal(table, width=100, colour=False) for table in found.tables())
    assert len(text.splitlines()) <= 45
    assert "MB/s" in text
    assert list(tmp_path.iterdir()) == []
    assert found.facts()["ceilings"]["storage"]["file_bytes"] == 16 * MB


def test_abilities_are_told_as_the_system_gives_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("io", "smaps_rollup"):
        (tmp_path / "self").mkdir(exist_ok=True)
        (tmp_path / "self" / name).write_text("x: 1")
    monkeypatch.setattr(doctor, "PROC", tmp_path)
    told = {"stalled_us": {("cpu", "some"): 1}, "throttle_events": 7}
    offered = {ability.what: ability for ability in doctor._counters(Snapshot(0.0, CpuTime(1, 3, 100), **told))}
    assert all(ability.usable for ability in offered.values())
    assert offered["stolen CPU time"].here == "3.0 % since boot"
    assert offered["thermal throttling"].here == "7 times since boot"
    monkeypatch.setattr(doctor, "PROC", tmp_path / "nothing")
    missing = doctor._counters(Snapshot(0.0, None))
    assert not any(ability.usable for ability in missing)
    assert all(ability.here == "no" and ability.advice for ability in missing)


def test_the_memory_limit_is_tried_and_its_refusal_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    class Limit:
        def __init__(self, limit_bytes: int) -> None:
            self.limit_bytes = limit_bytes

        def __enter__(self) -> None:
            if not self.limit_bytes:
                raise MemoryLimitError("cannot limit memory: for a reason")

        def __exit__(self, *_: object) -> None:
            ended.append(self.limit_bytes)

    monkeypatch.setattr(doctor, "MemoryLimit", Limit)
    assert doctor._memory_limit().usable
    assert len(ended) == 1
    monkeypatch.setattr(doctor, "_TRIED_LIMIT_BYTES", 0)
    assert (doctor._memory_limit().usable, doctor._memory_limit().advice) == (False, "for a reason")


def test_a_gpu_is_told_with_what_it_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sensor:
        reason = None

        def __init__(self, identity: str) -> None:
            assert identity == "GPU-1"

        def sample(self) -> gpu.GpuSample:
            readings = {"memory_api": "v2", "sm_mhz": 2, "memory_mhz": 3, "temperature_c": 4, "utilisation": 0.5}
            return gpu.GpuSample(0.0, used_bytes=1, p_state=0, reasons=(), **readings)

    monkeypatch.setattr(gpu, "identities", lambda: (["GPU-1", "GPU-2"], None))
    monkeypatch.setattr(gpu, "GpuSensor", Sensor)
    sensors, energy = doctor._gpu()
    assert (sensors.usable, sensors.here, sensors.advice) == (True, "yes, 2 GPU", "without energy_mj")
    assert not energy.usable


def test_the_command_prints_tables_or_the_same_facts_as_json(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    arguments = ["--data-dir", str(tmp_path), "--no-ceilings"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "What can be measured here" in shown.output
    assert "Ceilings" not in shown.output
    facts = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert facts["ceilings"] is None
    assert {ability["what"] for ability in facts["abilities"]} >= {"proof of a cold cache", "CPU frequency"}
    assert all(ability["what"] in shown.output for ability in facts["abilities"])
    assert facts["machine"]["memory_bytes"] > 10**8
