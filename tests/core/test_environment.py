"""What is said about machine and storage, against trees of files that say something known."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.measure import environment, storage_device

GIT = shutil.which("git")


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def mounts(root: Path, line: str) -> Path:
    """Return a ``proc`` in which this line, whose mount has the id 1, is the mount of every path."""
    ids = {f"self/fdinfo/{descriptor}": "mnt_id:\t1" for descriptor in range(100)}
    return tree(root / "proc", {"self/mountinfo": f"{line}\n2 1 999:9 / / rw - xfs /dev/other rw", **ids})


def test_what_does_not_exist_yet_will_lie_where_its_parent_is(tmp_path: Path) -> None:
    # What is free changes while others write.
    found, there = (
        {**storage_device.storage_facts(path), "free_bytes": None} for path in (tmp_path / "not" / "there", tmp_path)
    )
    assert found == there


def test_disks_are_found_through_encryption_raid_and_partitions(tmp_path: Path) -> None:
    here = "8:1"
    proc = mounts(
        tmp_path, f"1 0 {here} / / ro,relatime shared:7 master:2 - ext4 /dev/mapper/secret rw,errors=remount-ro"
    )
    sys_ = tmp_path / "sys"
    devices = sys_ / "devices"
    for name, rotational in (("sda", 1), ("nvme0n1", 0)):
        queue = {
            "rotational": str(rotational),
            "scheduler": "none [mq-deadline] kyber",
            "read_ahead_kb": "128",
            "logical_block_size": "4096",
            "write_cache": "write back",
        }
        tree(devices / name, {"size": "2048", "device/model": f"Model {name}  ", f"{name}p1/partition": "1"})
        tree(devices / name / "queue", queue)
    for name, below in (("md0", ["sda/sdap1", "nvme0n1/nvme0n1p1"]), ("dm-3", ["md0"])):
        slaves = devices / name / "slaves"
        slaves.mkdir(parents=True)
        for slave in below:
            (slaves / Path(slave).name).symlink_to(devices / slave)
    (sys_ / "dev/block").mkdir(parents=True)
    (sys_ / "dev/block" / here).symlink_to(devices / "dm-3")
    tree(sys_ / "class/bdi" / here, {"read_ahead_kb": "8192"})

    facts = storage_device.storage_facts(tmp_path, proc=proc, sys=sys_)
    assert facts["device"] == "dm-3"
    assert facts["read_ahead_kb"] == 8192
    assert facts["mount_options"] == "ro,relatime,errors=remount-ro"
    assert (facts["network"], facts["memory"]) == (False, False)
    assert sorted(disk["name"] for disk in facts["disks"]) == ["nvme0n1", "sda"]
    disk = next(disk for disk in facts["disks"] if disk["name"] == "sda")
    assert disk == {
        "name": "sda",
        "model": "Model sda",
        "size_bytes": 2**20,
        "rotational": True,
        "scheduler": "mq-deadline",
        "read_ahead_kb": 128,
        "logical_block_bytes": 4096,
        "write_cache": "write back",
    }


def test_an_anonymous_file_system_is_followed_to_its_source(tmp_path: Path) -> None:
    # /dev/null stands for a disk: its number, 1:3, is the same everywhere.
    proc = mounts(tmp_path, "1 0 0:42 / / rw - btrfs /dev/null rw,subvol=/home")
    sys_ = tree(tmp_path / "sys", {"dev/block/1:3/size": "8", "dev/block/1:3/queue/rotational": "0"})
    facts = storage_device.storage_facts(tmp_path, proc=proc, sys=sys_)
    assert facts["disks"][0]["rotational"] is False
    assert facts["mount_options"] == "rw"


@pytest.mark.parametrize(
    ("line", "network", "memory"),
    [
        ("nfs4 server:/export rw,vers=4.2,addr=10.0.0.7,clientaddr=10.0.0.9", True, False),
        ("tmpfs tmpfs rw", False, True),
        ("fuse.sshfs alice@server:/home rw,user_id=0", None, False),
        ("ext4 /dev/gone rw", False, False),
    ],
)
def test_storage_that_is_no_disk_says_so_and_names_neither_server_nor_user(
    tmp_path: Path, line: str, network: bool | None, memory: bool
) -> None:
    proc = mounts(tmp_path, f"1 0 0:42 / / rw - {line}")
    facts = storage_device.storage_facts(tmp_path, proc=proc, sys=tmp_path)
    assert (facts["network"], facts["memory"], facts["disks"]) == (network, memory, None)
    assert "server" not in str(facts)
    assert "10.0.0" not in str(facts)


def test_unknown_mounts_leave_the_sizes_known(tmp_path: Path) -> None:
    facts = storage_device.storage_facts(tmp_path, proc=tmp_path, sys=tmp_path)
    assert facts["file_system"] is facts["network"] is facts["disks"] is None
    assert facts["total_bytes"] == shutil.disk_usage(tmp_path).total


def test_the_governor_of_every_core_and_turbo_are_named(tmp_path: Path) -> None:
    cpu = "devices/system/cpu"
    files = {
        f"{cpu}/cpufreq/policy0/scaling_governor": "powersave",
        f"{cpu}/cpufreq/policy1/scaling_governor": "performance",
        f"{cpu}/cpufreq/policy1/scaling_driver": "intel_pstate",
        f"{cpu}/intel_pstate/no_turbo": "1",
        "kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
        "devices/system/clocksource/clocksource0/current_clocksource": "tsc",
        "devices/system/node/node0/x": "",
        "devices/system/node/node1/x": "",
        "class/dmi/id/product_name": "PowerEdge",
    }
    facts = environment.machine(sys_=tree(tmp_path, files))
    assert facts["cpu_governor"] == "performance,powersave"
    assert facts["cpu_scaling_driver"] == "intel_pstate"
    assert facts["cpu_turbo"] is False
    assert facts["transparent_hugepages"] == "madvise"
    assert facts["clocksource"] == "tsc"
    assert facts["numa_nodes"] == 2
    assert facts["product"] == "PowerEdge"
    assert environment.machine(sys_=tree(tmp_path / "amd", {f"{cpu}/cpufreq/boost": "1"}))["cpu_turbo"] is True


def test_memory_and_virtual_machine_are_read_from_procfs(tmp_path: Path) -> None:
    files = {
        "cpuinfo": "processor: 0\nmodel name\t: Best CPU\nflags\t\t: fpu hypervisor\n\nprocessor: 1\nflags\t: fpu",
        "meminfo": "MemAvailable:  2000 kB\nSwapTotal:  1000 kB\nSwapFree:  400 kB",
        "uptime": "12.5 20.0",
        "sys/kernel/randomize_va_space": "2",
    }
    facts = environment.machine(proc=tree(tmp_path, files), sys_=tmp_path)
    assert facts["cpu"] == "Best CPU"
    assert facts["virtual_machine"] is True
    assert facts["memory_available_bytes"] == 2000 * 1024
    assert (facts["swap_bytes"], facts["swap_used_bytes"]) == (1000 * 1024, 600 * 1024)
    assert (facts["uptime_s"], facts["aslr"]) == (12.5, 2)


def test_what_the_system_does_not_tell_is_none(tmp_path: Path) -> None:
    facts = environment.machine(root=tmp_path, proc=tmp_path, sys_=tmp_path)
    unknown = (
        "cpu_governor",
        "cpu_turbo",
        "cpu_quota_cores",
        "numa_nodes",
        "memory_available_bytes",
        "swap_used_bytes",
    )
    assert [facts[name] for name in (*unknown, "container", "virtual_machine", "uptime_s", "aslr")] == [None] * 10


def test_limits_of_control_groups_version_2_hold_from_every_parent(tmp_path: Path) -> None:
    files = {
        "self/cgroup": "0::/user/job",
        "fs/cgroup/user/job/cpu.max": "max 100000",
        "fs/cgroup/user/cpu.max": "150000 100000",
        "fs/cgroup/user/job/memory.max": "max",
        "fs/cgroup/user/memory.max": "4096000",
    }
    root = tree(tmp_path, files)
    assert environment.cpu_quota_cores(root, root) == 1.5
    assert environment.memory_limit_bytes(root, root) == 4_096_000


def test_limits_of_control_groups_version_1_hold_where_the_container_shows_the_hosts_path(tmp_path: Path) -> None:
    files = {
        "self/cgroup": "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n0::/",
        "fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
        "fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "fs/cgroup/memory/memory.limit_in_bytes": "1000000",
    }
    root = tree(tmp_path, files)
    assert environment.cpu_quota_cores(root, root) == 0.5
    assert environment.memory_limit_bytes(root, root) == 1_000_000
    tree(tmp_path, {"fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1"})
    tree(tmp_path, {"fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096)})
    assert environment.cpu_quota_cores(root, root) is None
    assert environment.memory_limit_bytes(root, root) is None


@pytest.mark.parametrize(
    ("file", "text", "kind"),
    [
        ("root/.dockerenv", "", "docker"),
        ("root/run/.containerenv", "", "podman"),
        ("proc/self/cgroup", "0::/kubepods.slice/pod1", "kubernetes"),
        ("proc/1/cgroup", "1:cpu:/lxc/mine", "lxc"),
        ("proc/version", "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016", "gvisor"),
        ("proc/version", "Linux version 6.8.0", None),
    ],
)
def test_a_container_is_known_by_its_marks(tmp_path: Path, file: str, text: str, kind: str | None) -> None:
    tree(tmp_path, {file: text})
    assert environment.container(root=tmp_path / "root", proc=tmp_path / "proc") == kind


def test_facts_about_this_machine_name_it_not_and_agree_with_others() -> None:
    facts = environment.machine()
    assert platform.node() not in facts.values()
    shm = shutil.disk_usage("/dev/shm")
    assert facts["shm_bytes"] == shm.total
    assert facts["logical_cores"] == int(subprocess.check_output(["getconf", "_NPROCESSORS_ONLN"]))
    assert facts["cpu_affinity"].startswith(str(min(os.sched_getaffinity(0))))


def test_asking_for_the_machine_loads_no_torch_and_for_versions_nothing_new() -> None:
    check = (
        "import sys\nfrom bench.measure import environment\nenvironment.machine()\nfound = environment.libraries()\n"
        "assert not {'torch', 'PIL', 'h5py', 'numpy'} & set(sys.modules)\n"
        "assert found['torch'] and found['psutil'] and not {'cuda', 'libhdf5', 'zlib'} & set(found)\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_versions_of_what_is_linked_in_are_told_once_it_is_loaded() -> None:
    import h5py
    import torch
    from PIL import features

    found = environment.libraries()
    assert found["libhdf5"] == h5py.version.hdf5_version
    assert found.get("cuda") == torch.version.cuda
    assert found["libjpeg-turbo"] == features.version("libjpeg_turbo")
    assert found["libc"].split()[1] in os.confstr("CS_GNU_LIBC_VERSION")


@pytest.mark.skipif(GIT is None, reason="needs git")
def test_provenance_names_the_revision_and_whether_the_code_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        user = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.check_output([GIT, *user, *arguments], cwd=tmp_path, text=True).strip()

    monkeypatch.setattr(environment.bench, "__file__", str(tmp_path / "bench/__init__.py"))
    tree(tmp_path, {"bench/__init__.py": "", "loaders/a.py": "", "datasets/a.py": ""})
    assert environment.provenance(["bench", "run"])["git_revision"] is None
    tree(tmp_path, {"pyproject.toml": ""})
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    tree(tmp_path, {"notes.txt": "not code"})
    found = environment.provenance(["bench", "run"])
    assert found["git_revision"] == git("rev-parse", "HEAD")
    assert found["git_modified"] is False
    assert found["command"] == ["bench", "run"]
    tree(tmp_path, {"loaders/new.py": "x = 1"})
    assert environment.provenance([])["git_modified"] is True


def test_without_git_the_revision_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    found = environment.provenance([])
    assert (found["git_revision"], found["git_modified"]) == (None, None)


@pytest.mark.parametrize(
    ("files", "reclaims"),
    [
        ({}, None),
        ({"kernel/mm/damon/admin/kdamonds/nr_kdamonds": "1", "kernel/mm/damon/admin/kdamonds/0/state": "on"}, True),
        ({"kernel/mm/damon/admin/kdamonds/0/state": "off"}, False),
        ({"kernel/mm/damon/admin/kdamonds/0/state": "off", "module/damon_reclaim/parameters/enabled": "Y"}, True),
        ({"module/damon_lru_sort/parameters/enabled": "N"}, False),
    ],
)
def test_a_kernel_that_takes_memory_away_by_itself_is_told(tmp_path: Path, files, reclaims: bool | None) -> None:
    assert environment.machine(sys_=tree(tmp_path, files))["proactive_reclaim"] is reclaims
