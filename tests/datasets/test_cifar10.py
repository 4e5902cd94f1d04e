from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.contracts.source import (
    Progress,
    RawData,
    SampleBlock,
    SilentProgress,
    SourceError,
    SourceRequest,
    SourceUnavailableError,
    Split,
)
from bench.datasets import cifar10
from bench.datasets.cifar10 import CLASSES, Cifar10
from bench.datasets.download import Remote

BATCHES = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
FOLDERS = {"bin": "cifar-10-batches-bin", "py": "cifar-10-batches-py"}
ARCHIVES = {"bin": "cifar-10-binary.tar.gz", "py": "cifar-10-python.tar.gz"}
SPLITS: tuple[Split, ...] = ("train", "test")
Batches = dict[str, SampleBlock]
both_layouts = pytest.mark.parametrize("layout", ["bin", "py"])


def tiny(seed: int = 0) -> Batches:
    """Batches of different sizes, so that none can be taken for another."""
    rng = np.random.default_rng(seed)
    return {
        name: SampleBlock(rng.integers(0, 256, (n, 3, 32, 32), np.uint8), np.arange(n, dtype=np.int64) * 3 % 10)
        for n, name in enumerate(BATCHES, start=2)
    }


def suffix(layout: str) -> str:
    return ".bin" if layout == "bin" else ""


def write_folder(parent: Path, layout: str, batches: Batches, names: Sequence[str] = CLASSES) -> Path:
    folder = parent / FOLDERS[layout]
    folder.mkdir(parents=True)
    for name, (x, y) in batches.items():
        flat = x.reshape(len(x), 3072)
        if layout == "bin":
            content = np.concatenate([y.astype(np.uint8)[:, None], flat], axis=1).tobytes()
        else:
            content = pickle.dumps({b"batch_label": name.encode(), b"labels": y.tolist(), b"data": flat}, protocol=2)
        (folder / f"{name}{suffix(layout)}").write_bytes(content)
    if layout == "bin":
        (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    else:
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(names)}))
    return folder


def pack(folder: Path, target: Path) -> Path:
    """Write an archive in the odd order of the published one."""
    archive = target / ARCHIVES["bin" if folder.name == FOLDERS["bin"] else "py"]
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(folder.iterdir(), key=lambda path: hashlib.md5(path.name.encode()).digest()):
            tar.add(path, f"{folder.name}/{path.name}")
    return archive


def found(path: Path, official_only: bool = False) -> RawData:
    data = Cifar10().locate(path, official_only=official_only)
    assert data is not None
    return data


def everything(data: RawData, split: Split) -> tuple[NDArray[Any], NDArray[np.int64]]:
    blocks = list(data.samples(split))
    return np.concatenate([block.x for block in blocks]), np.concatenate([block.y for block in blocks])


def assert_holds(data: RawData, batches: Batches) -> None:
    for split, names in {"train": BATCHES[:5], "test": BATCHES[5:]}.items():
        blocks = list(data.samples(split))  # type: ignore[arg-type]
        assert len(blocks) == len(names)
        for name, block in zip(names, blocks, strict=True):
            np.testing.assert_array_equal(block.x, batches[name].x)
            np.testing.assert_array_equal(block.y, batches[name].y)
            assert (block.x.dtype, block.y.dtype) == (np.uint8, np.int64)
            assert block.x.flags.c_contiguous
            assert block.x.flags.writeable
        assert data.schema(split).count == sum(len(batches[name].y) for name in names)  # type: ignore[arg-type]


@both_layouts
def test_reads_a_folder_and_an_archive(tmp_path: Path, layout: str) -> None:
    folder = write_folder(tmp_path / "made", layout, tiny())
    assert_holds(found(folder), tiny())
    before = sorted(tmp_path.rglob("*"))
    archive = pack(folder, tmp_path / "packed")
    assert_holds(found(archive), tiny())
    assert sorted(tmp_path.rglob("*")) == sorted([*before, archive.parent, archive]), "nothing is unpacked"


@both_layouts
def test_order_of_members_does_not_matter(tmp_path: Path, layout: str) -> None:
    folder = write_folder(tmp_path, layout, tiny())
    for backwards in (False, True):
        archive = tmp_path / ARCHIVES[layout]
        with tarfile.open(archive, "w:gz") as tar:
            for path in sorted(folder.iterdir(), reverse=backwards):
                tar.add(path, f"./{folder.name}/{path.name}")
        assert_holds(found(archive), tiny())


@both_layouts
def test_schema(tmp_path: Path, layout: str) -> None:
    names = tuple(f"name{n}" for n in range(10))
    folder = write_folder(tmp_path, layout, tiny(), names)
    for path in (folder, pack(folder, tmp_path / "packed")):
        schema = found(path).schema("test")
        assert (schema.name, schema.split, schema.shape, schema.dtype) == ("cifar10", "test", (3, 32, 32), "uint8")
        assert schema.licence == "no licence stated; cite Krizhevsky (2009)"
        assert schema.origin == "local"
        assert schema.classes == names
    (folder / ("batches.meta.txt" if layout == "bin" else "batches.meta")).unlink()
    for path in (folder, pack(folder, tmp_path / "packed")):
        assert found(path).schema("test").classes == CLASSES
    with pytest.raises(SourceError, match="cifar10 has no split 'val', only train, test"):
        found(folder).schema("val")
    with pytest.raises(SourceError, match="cifar10 has no split 'val', only train, test"):
        list(found(folder).samples("val"))


@both_layouts
def test_where_data_is_found(tmp_path: Path, layout: str) -> None:
    folder = write_folder(tmp_path / "made", layout, tiny())
    assert_holds(found(folder.parent), tiny())
    write_folder(tmp_path / "deeper" / "cifar10", layout, tiny(1))
    assert_holds(found(tmp_path / "deeper"), tiny(1))
    for place in ("plain", "under/cifar10", "cache/downloads"):
        archive = pack(folder, tmp_path / place)
        assert_holds(found(archive), tiny())
        assert_holds(found(tmp_path / place.split("/")[0]), tiny())
    folder.rename(tmp_path / "another name")
    assert_holds(found(tmp_path / "another name"), tiny())
    for empty in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        assert Cifar10().locate(empty, official_only=False) is None
        assert Cifar10().locate(empty, official_only=True) is None


def test_preference(tmp_path: Path) -> None:
    made = {kind: write_folder(tmp_path / "made", kind, tiny(seed)) for seed, kind in enumerate(["bin", "py"])}
    pack(write_folder(tmp_path / "other", "bin", tiny(2)), tmp_path)
    pack(write_folder(tmp_path / "other", "py", tiny(3)), tmp_path)
    assert_holds(found(tmp_path), tiny(2))
    made["py"].rename(tmp_path / FOLDERS["py"])
    assert_holds(found(tmp_path), tiny(2))
    made["bin"].rename(tmp_path / FOLDERS["bin"])
    assert_holds(found(tmp_path), tiny(0))
    for leftover in (*(tmp_path / FOLDERS["bin"]).iterdir(), tmp_path / ARCHIVES["bin"]):
        leftover.unlink()
    (tmp_path / FOLDERS["bin"]).rmdir()
    assert_holds(found(tmp_path), tiny(1))
    (tmp_path / FOLDERS["py"]).rename(tmp_path / "away")
    assert_holds(found(tmp_path), tiny(3))


@both_layouts
def test_fingerprint(tmp_path: Path, layout: str) -> None:
    folder = write_folder(tmp_path, layout, tiny())
    archive = pack(folder, tmp_path / "packed")
    first = {path: found(path).fingerprint() for path in (folder, archive)}
    assert first == {path: found(path).fingerprint() for path in (folder, archive)}
    assert len(set(first.values())) == 2
    for path, file in {folder: folder / f"data_batch_3{suffix(layout)}", archive: archive}.items():
        stat = file.stat()
        assert str(tmp_path) not in first[path]
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        touched = found(path).fingerprint()
        assert touched != first[path]
        data = found(path)
        with file.open("ab") as grown:
            grown.write(b"\0")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        assert data.fingerprint() not in {first[path], touched}


@both_layouts
def test_file_that_vanishes(tmp_path: Path, layout: str) -> None:
    folder = write_folder(tmp_path / "made", layout, tiny())
    data, packed = found(folder), found(pack(folder, tmp_path / "packed"))
    (folder / f"data_batch_2{suffix(layout)}").unlink()
    pack(folder, tmp_path / "packed")
    with pytest.raises(SourceError, match=r"data_batch_2.* cannot be read: No such file"):
        list(data.samples("train"))
    with pytest.raises(SourceError, match=r"it lacks .*/data_batch_2"):
        list(packed.samples("train"))


@both_layouts
@pytest.mark.parametrize("batch", ["data_batch_1", "data_batch_4", "test_batch"])
def test_missing_file(tmp_path: Path, layout: str, batch: str) -> None:
    folder = write_folder(tmp_path / "made", layout, tiny())
    (folder / f"{batch}{suffix(layout)}").unlink()
    with pytest.raises(SourceError, match=rf"{folder.name}/{batch}{suffix(layout)} is missing"):
        found(folder)
    assert Cifar10().locate(folder, official_only=True) is None
    with pytest.raises(SourceError, match=rf"it lacks {folder.name}/{batch}{suffix(layout)}\)\. Expected sha256"):
        found(pack(folder, tmp_path / "packed"))


# What follows the end of a pickle is not read, so only the binary layout can be too long.
@pytest.mark.parametrize(("layout", "change"), [("bin", -1), ("bin", -3073), ("bin", 1), ("py", -1), ("py", -3073)])
def test_wrong_length(tmp_path: Path, layout: str, change: int) -> None:
    x, y = tiny()["data_batch_2"]
    folder = write_folder(tmp_path, layout, {**tiny(), "data_batch_2": SampleBlock(x[:1], y[:1])})
    file = folder / f"data_batch_2{suffix(layout)}"
    content = file.read_bytes()
    file.write_bytes(content + b"x" if change > 0 else content[:change])
    with pytest.raises(SourceError, match="data_batch_2") as caught:
        found(folder).schema("train")
    assert "damaged" in str(caught.value)
    assert layout == "py" or f"{file.stat().st_size:,} bytes" in str(caught.value)
    with pytest.raises(SourceError, match="data_batch_2"):
        list(found(folder).samples("train"))
    with pytest.raises(SourceError, match="data_batch_2"):
        found(pack(folder, tmp_path / "packed"))


@both_layouts
def test_label_out_of_range(tmp_path: Path, layout: str) -> None:
    batches = tiny()
    batches["data_batch_5"].y[1] = 10
    folder = write_folder(tmp_path, layout, batches)
    with pytest.raises(SourceError, match="data_batch_5"):
        list(found(folder).samples("train"))


@both_layouts
def test_damaged_names_of_classes(tmp_path: Path, layout: str) -> None:
    folder = write_folder(tmp_path, layout, tiny(), CLASSES[:9])
    with pytest.raises(SourceError, match=r"batches\.meta"):
        found(folder).schema("test")


def test_hostile_batch(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/executed",)

    folder = write_folder(tmp_path, "py", tiny())
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": Hostile(), b"labels": [1]}))
    for read in (lambda: found(folder).schema("test"), lambda: found(pack(folder, tmp_path / "packed"))):
        with pytest.raises(SourceError, match=r"test_batch contains foreign content \(posix\.system\)"):
            read()
    assert not (tmp_path / "executed").exists()


@both_layouts
def test_archive_that_is_not_the_published_one(tmp_path: Path, layout: str) -> None:
    archive = pack(write_folder(tmp_path / "made", layout, tiny()), tmp_path / "packed")
    assert found(archive).schema("test").origin == "local"
    expected = (cifar10._BINARY if layout == "bin" else cifar10._PYTHON).remote.sha256
    digests = f"xpected sha256 {expected}, found {hashlib.sha256(archive.read_bytes()).hexdigest()}. "
    with pytest.raises(SourceError, match="is not the published archive") as caught:
        found(tmp_path / "packed", official_only=True)
    assert digests in str(caught.value)
    assert str(archive) in str(caught.value)

    archive.write_bytes(archive.read_bytes()[:-2000])
    digests = f"xpected sha256 {expected}, found {hashlib.sha256(archive.read_bytes()).hexdigest()}. "
    for official_only in (False, True):
        with pytest.raises(SourceError) as caught:
            found(tmp_path / "packed", official_only=official_only)
        assert digests in str(caught.value)


def publish(monkeypatch: pytest.MonkeyPatch, layout: str, archive: Path) -> None:
    """Let this archive be the published one."""
    attribute = "_BINARY" if layout == "bin" else "_PYTHON"
    old = getattr(cifar10, attribute)
    remote = replace(old.remote, sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
    new = replace(old, remote=remote)
    monkeypatch.setattr(cifar10, attribute, new)
    monkeypatch.setattr(cifar10, "_LAYOUTS", tuple(new if known is old else known for known in cifar10._LAYOUTS))


@both_layouts
def test_official_archive(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(write_folder(tmp_path / "made", layout, tiny()), tmp_path / "packed")
    publish(monkeypatch, layout, archive)
    for official_only in (False, True):
        data = found(tmp_path / "packed", official_only)
        assert data.schema("train").origin == "official"
        assert_holds(data, tiny())


@pytest.mark.parametrize("changed", [None, *BATCHES, "batches.meta"])
def test_official_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str | None) -> None:
    folder = write_folder(tmp_path, "py", tiny())
    for path in folder.iterdir():
        monkeypatch.setitem(cifar10._PYTHON_MD5, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    if changed is not None:
        with (folder / changed).open("ab") as file:
            file.write(b"\0")
    assert found(tmp_path).schema("test").origin == ("official" if changed is None else "local")
    official = Cifar10().locate(tmp_path, official_only=True)
    assert (official is None) == (changed is not None)


def test_an_incomplete_folder_is_not_official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path, "py", tiny())
    for path in folder.iterdir():
        monkeypatch.setitem(cifar10._PYTHON_MD5, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    (folder / "test_batch").unlink()
    assert Cifar10().locate(tmp_path, official_only=True) is None


def test_a_binary_folder_is_never_official(tmp_path: Path) -> None:
    write_folder(tmp_path, "bin", tiny())
    assert Cifar10().locate(tmp_path, official_only=True) is None


def test_known_digests_are_those_of_torchvision() -> None:
    from torchvision.datasets import CIFAR10

    listed = [*CIFAR10.train_list, *CIFAR10.test_list, [CIFAR10.meta["filename"], CIFAR10.meta["md5"]]]
    assert dict(listed) == cifar10._PYTHON_MD5
    assert CIFAR10.url in cifar10._PYTHON.remote.mirrors


@both_layouts
def test_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    archive = pack(write_folder(tmp_path / "made", layout, tiny()), tmp_path / "cache" / "downloads")

    def fetch_first(remotes: Sequence[Remote], folder: Path, progress: Progress, *, licence: str) -> Path:
        assert [remote.name for remote in remotes] == [ARCHIVES["py"], ARCHIVES["bin"]]
        assert folder == archive.parent
        return archive

    monkeypatch.setattr(cifar10, "fetch_first", fetch_first)
    data = Cifar10().fetch(tmp_path / "cache", SilentProgress())
    assert_holds(data, tiny())
    assert data.schema("test").origin == "official"


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("requests.head", refuse)
    with pytest.raises(SourceUnavailableError, match=r"no mirror answered within 8 s \(.*www\.cs\.toronto\.edu\)"):
        Cifar10(SourceRequest(kind="official")).prepare(tmp_path)
    source = Cifar10(SourceRequest(kind="auto", search=(tmp_path,)))
    source.prepare(tmp_path)
    schema = source.schema("train")
    assert (schema.origin, schema.count, schema.shape) == ("synthetic", 50_000, (3, 32, 32))
    assert source.schema("test").count == 10_000
    assert schema.classes == CLASSES


class TruthOfTorchvision:
    """What torchvision reads from the same files, image by image."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from torchvision.datasets import CIFAR10, cifar

        # The files are excerpts, so their digests are not the published ones.
        monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
        monkeypatch.setattr(cifar, "check_integrity", lambda *args: True)
        self.sets = {split: CIFAR10(str(root), train=split == "train") for split in SPLITS}

    def images(self, split: Split) -> NDArray[np.uint8]:
        return np.stack([np.asarray(image).transpose(2, 0, 1) for image, _ in self.sets[split]])

    def labels(self, split: Split) -> list[int]:
        return [label for _, label in self.sets[split]]

    def batches(self) -> Batches:
        result = {}
        for split, names in {"train": BATCHES[:5], "test": BATCHES[5:]}.items():
            x, y = self.images(split), np.array(self.labels(split))  # type: ignore[arg-type]
            for name, part, numbers in zip(names, np.split(x, len(names)), np.split(y, len(names)), strict=True):
                result[name] = SampleBlock(part, numbers)
        return result


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore:.*numpy.core is deprecated:DeprecationWarning")
@both_layouts
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_equals_torchvision(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, packed: bool
) -> None:
    path = real_data / "cifar10-exact"
    truth = TruthOfTorchvision(path, monkeypatch)
    if layout == "bin":
        path = write_folder(tmp_path, "bin", truth.batches(), truth.sets["train"].classes).parent
    if packed:
        path = pack(path / FOLDERS[layout], tmp_path / "packed")
    data = found(path)
    for split in SPLITS:
        x, y = everything(data, split)
        expected = truth.images(split)
        assert x.shape == expected.shape
        assert x.dtype == expected.dtype == np.uint8
        for image, other in zip(x, expected, strict=True):
            np.testing.assert_array_equal(image, other)
        assert y.tolist() == truth.labels(split)
        assert data.schema(split).count == len(truth.sets[split])
        assert list(data.schema(split).classes) == truth.sets[split].classes


@pytest.mark.real_data
def test_known_labels(real_data: Path) -> None:
    data = found(real_data / "cifar10-exact")
    first = next(iter(data.samples("train"))).y
    assert first[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert np.bincount(first).tolist() == [102, 112, 99, 92, 99, 85, 107, 102, 99, 103]
    _, y = everything(data, "test")
    assert np.bincount(y).tolist() == [103, 89, 100, 103, 90, 86, 112, 102, 106, 109]


FULL_PASS = """
import resource, sys
from pathlib import Path
from bench.datasets.cifar10 import Cifar10
data = Cifar10().locate(Path(sys.argv[1]), official_only=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
counts = [sum(len(block.y) for block in data.samples(split)) for split in ("train", "test")]
assert counts == [data.schema(split).count for split in ("train", "test")] == [50_000, 10_000], counts
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.real_data
def test_full_size_in_little_memory(real_data: Path) -> None:
    command = [sys.executable, "-c", FULL_PASS, str(real_data / "cifar10")]
    used = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    assert int(used) < 350
