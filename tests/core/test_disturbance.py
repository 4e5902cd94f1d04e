"""What else went on, against known counters and known acts."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lessons_here import job_of

from bench.measure import disturbance
from bench.measure.storage_device import storage_facts

TICKS = os.sysconf("SC_CLK_TCK")
BURN = "import time\nwhile time.process_time() < 0.6: pass"


def counters(root: Path, *, busy_s: int, idle_s: int, steal_s: int, scale: int) -> Path:
    files = {
        "stat": f"cpu  {busy_s * TICKS} 0 0 {idle_s * TICKS} 0 0 0 {steal_s * TICKS} 0 0\ncpu0 1 1",
        "loadavg": f"{scale}.50 0.10 0.10 1/100 1",
        "vmstat": f"pswpin {3 * scale}\npswpout 99",
        "pressure/cpu": f"some avg10=9.9 avg60=9.9 avg300=9.9 total={1_000_000 * scale}\nfull avg10=0 total=0",
        "pressure/io": f"some avg10=0.00 total={2_000_000 * scale}\nfull avg10=0.00 total={500_000 * scale}",
        "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": str(2 * scale),
        "devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": str(5 * scale),
        "devices/system/cpu/cpufreq/policy0/scaling_cur_freq": str(1_000_000 * scale),
        "devices/system/cpu/cpufreq/policy1/scaling_cur_freq": "800000",
        "devices/disk/stat": f"7 8 {4 * scale} 9 10 11",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> disturbance.Disturbance:
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(disturbance.time, "monotonic", lambda: next(clock))
    number = "8:1"
    root = counters(tmp_path, busy_s=5, idle_s=5, steal_s=0, scale=1)
    (root / "dev/block").mkdir(parents=True)
    (root / "dev/block" / number).symlink_to(root / "devices/disk")
    (root / "self/fdinfo").mkdir(parents=True)
    for descriptor in range(100):
        (root / f"self/fdinfo/{descriptor}").write_text("mnt_id:\t1\n")
    (root / "self/mountinfo").write_text(f"1 0 {number} / / rw - ext4 /dev/disk rw\n")
    watch = disturbance.Watch(tmp_path, proc=root, sys=root)
    counters(root, busy_s=11, idle_s=17, steal_s=2, scale=3)
    return watch.difference()


def test_shares_are_of_the_time_between_two_snapshots(watched: disturbance.Disturbance) -> None:
    assert watched.duration_s == 10
    assert watched.cpu_busy_s == pytest.approx(6)
    assert watched.cpu_total_s == pytest.approx(20)
    assert watched.busy_share == pytest.approx(0.3)
    assert watched.steal_share == pytest.approx(0.1)
    assert watched.cpu_some_share == pytest.approx(0.2)
    assert watched.io_some_share == pytest.approx(0.4)
    assert watched.io_full_share == pytest.approx(0.1)
    assert watched.cpu_full_share == 0


def test_counts_are_differences_and_states_are_kept_from_both_ends(watched: disturbance.Disturbance) -> None:
    assert watched.swapped_in_bytes == 6 * os.sysconf("SC_PAGE_SIZE")
    assert watched.device_read_bytes == 8 * 512
    assert watched.throttle_events == 14
    assert (watched.load_1m_before, watched.load_1m_after) == (1.5, 3.5)
    assert (watched.cpu_mhz_before, watched.cpu_mhz_after) == (1000, 3000)
    assert watched.memory_some_share is None
    assert watched.facts()["device_read_bytes"] == 8 * 512


def test_a_system_that_tells_nothing_gives_none(tmp_path: Path) -> None:
    facts = disturbance.Watch(tmp_path, proc=tmp_path, sys=tmp_path).difference().facts()
    assert facts.pop("duration_s") >= 0
    assert set(facts.values()) == {None}


def test_a_counter_that_runs_backwards_is_unknown_not_negative() -> None:
    before = disturbance.Snapshot(0.0, disturbance.CpuTime(10, 5, 20), swapped_in_bytes=10, throttle_events=4)
    after = disturbance.Snapshot(1.0, disturbance.CpuTime(11, 4, 22), swapped_in_bytes=9, throttle_events=4)
    found = disturbance.between(before, after)
    assert (found.steal_share, found.swapped_in_bytes) == (None, None)
    assert (found.busy_share, found.throttle_events) == (0.5, 0)


def test_time_spent_waiting_for_storage_may_fall_and_busy_time_still_is_a_part_of_all() -> None:
    before = disturbance.Snapshot(0.0, disturbance.CpuTime(10, 0, 20))
    after = disturbance.Snapshot(1.0, disturbance.CpuTime(11, 0, 20.98))
    found = disturbance.between(before, after)
    assert (found.cpu_busy_s, found.cpu_total_s, found.busy_share) == (1, 1, 1)


def test_what_is_left_out_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0, 150.0, 160.0])
    monkeypatch.setattr(disturbance.time, "monotonic", lambda: next(clock))
    watch = disturbance.Watch(proc=counters(tmp_path, busy_s=5, idle_s=5, steal_s=0, scale=1), sys=tmp_path)
    counters(tmp_path, busy_s=6, idle_s=8, steal_s=0, scale=1)
    since = watch.snapshot()
    counters(tmp_path, busy_s=46, idle_s=90, steal_s=9, scale=7)
    watch.leave_out(since)
    counters(tmp_path, busy_s=48, idle_s=98, steal_s=10, scale=8)
    found = watch.difference()
    assert (found.duration_s, found.cpu_busy_s, found.cpu_total_s) == pytest.approx((20, 3, 15))
    assert found.steal_share == pytest.approx(1 / 15)
    assert found.cpu_some_share == pytest.approx(0.05)
    assert (found.swapped_in_bytes, found.throttle_events) == (3 * os.sysconf("SC_PAGE_SIZE"), 7)


def test_snapshots_travel_between_processes(tmp_path: Path) -> None:
    before = disturbance.Watch(tmp_path).start
    assert pickle.loads(pickle.dumps(before)) == before


def test_busy_cpu_seconds_count_what_any_process_does() -> None:
    watch = disturbance.Watch()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    found = watch.difference()
    # Others may add to it; a tick is lost at either end.
    assert found.cpu_busy_s >= 0.6 - 4 / TICKS
    assert found.cpu_busy_s <= found.cpu_total_s
    assert found.device_read_bytes is None


def test_reads_of_the_device_below_a_folder_are_counted(tmp_path: Path) -> None:
    if storage_facts(tmp_path)["device"] is None:
        pytest.skip("no block device below the temporary folder")
    path = tmp_path / "file"
    path.write_bytes(os.urandom(8_000_000))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        watch = disturbance.Watch(tmp_path)
        while os.read(descriptor, 1_000_000):
            continue
        assert watch.difference().device_read_bytes >= 8_000_000
    finally:
        os.close(descriptor)


def test_the_canary_is_the_median_of_three_runs_of_real_work(monkeypatch: pytest.MonkeyPatch) -> None:
    before_s = disturbance.time.process_time()
    assert disturbance.canary_s() > 0
    assert disturbance.time.process_time() - before_s > 0.02
    clock = iter([0.0, 1.0, 10.0, 12.0, 20.0, 29.0])
    monkeypatch.setattr(disturbance.time, "perf_counter", lambda: next(clock))
    assert disturbance.canary_s() == 2.0


def test_what_lies_between_epochs_does_not_count(tmp_path: Path, arrays: Path, trial) -> None:
    def on(topic: str, value: Any) -> None:
        if topic in {"cache", "epoch-end"}:
            time.sleep(1)

    told = trial(job_of(tmp_path, dataset=f"npy:{arrays}", epochs=3), on)
    (found,) = told.all("disturbance")
    assert 0 < found["duration_s"] < 3
    edges = [(topic, value) for topic, value in told.facts if topic in {"gpu-window", "epoch"}]
    assert [value if topic == "gpu-window" else topic for topic, value in edges] == [
        "epoch", "begin", "end", "epoch", "begin", "end", "epoch"
    ]  # fmt: skip
