"""Stores: built once, atomically, verified, and never believed when damaged."""

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import toy_plugins
import xxhash
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner

from bench import registry
from bench.cli import app
from bench.contracts.backend import Capabilities
from bench.contracts.source import SampleBlock, SilentProgress, SourceError
from bench.specs.spec import DataSpec, StoreSpec, make_spec
from bench.stores import digest, store
from bench.stores import prepare as preparing
from bench.stores.cleaning import Doomed, find, remove
from bench.stores.prepare import prepare, verify
from bench.stores.store import StoreError


def spec(backend: str = "toy", *options: str, **fields) -> StoreSpec:
    return make_spec(StoreSpec, options, backend=backend, dataset="toys", source="synthetic", **fields)


def build(folder: Path, backend: str = "toy", *options: str, repair: bool = False, rebuild: bool = False, **fields):
    return prepare(spec(backend, *options, **fields), folder, (), SilentProgress(), repair=repair, rebuild=rebuild)


def check(folder: Path, backend: str = "toy", **fields):
    return verify(spec(backend, **fields), folder, (), SilentProgress())[1]


def untouched(built: store.Store) -> bool:
    return store.files_state(built.root).id == built.manifest.files_id


def du_bytes(folder: Path) -> int:
    """What ``du`` says once all is on the disk: until then, files of some file systems have no blocks."""
    os.sync()
    told = subprocess.run(["du", "-s", "-B1", folder], capture_output=True, text=True, check=True).stdout
    return int(told.split()[0])


def complete_stores(folder: Path) -> list[Path]:
    return [path for path, _ in store.find_stores(folder)]


def test_digest_is_xxh3_over_index_label_and_bytes() -> None:
    x, y = toy_plugins.toy_arrays()
    expected = [
        xxhash.xxh3_64_intdigest(i.to_bytes(8, "little") + int(y[i]).to_bytes(8, "little") + x[i].tobytes())
        for i in range(len(y))
    ]
    tap = digest.HashTap([SampleBlock(x[:100], y[:100]), SampleBlock(x[100:], y[100:])])
    assert len(list(tap)) == 2
    assert tap.hashes.tolist() == expected
    packed = b"".join(h.to_bytes(8, "little") for h in expected)
    assert digest.split_digest(tap.hashes) == xxhash.xxh3_128_hexdigest(packed)


def test_a_store_is_built_once_and_found_again(tmp_path: Path) -> None:
    first = build(tmp_path)
    stamp = first.path.stat().st_mtime_ns
    again = build(tmp_path)
    assert again.path == first.path
    assert again.path.stat().st_mtime_ns == stamp
    assert first.manifest.count == toy_plugins.COUNT
    assert first.manifest.store_digest == first.manifest.source_digest
    assert first.manifest.size_bytes == sum(f.stat().st_size for f in first.root.rglob("*") if f.is_file())


def test_what_files_of_one_byte_take_of_the_disk_is_what_du_says(tmp_path: Path) -> None:
    for number in range(300):
        folder = tmp_path / str(number % 7) / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(b"x")
    store.sync_tree(tmp_path)
    state = store.files_state(tmp_path)
    assert state.allocated_bytes == du_bytes(tmp_path)
    assert (state.size_bytes, state.file_count) == (300, 300)


def test_a_file_system_that_counts_no_blocks_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BLOCK_BYTES", 0)
    built = build(tmp_path)
    assert built.allocated_bytes is None
    assert built.disk_bytes == built.manifest.size_bytes


@pytest.mark.parametrize("backend", ["filesystem", "zarr"])
def test_what_a_store_takes_of_the_disk_is_known_when_it_is_built_and_when_it_is_found(
    tmp_path: Path, backend: str
) -> None:
    built = build(tmp_path, backend)
    assert built.allocated_bytes == built.disk_bytes == du_bytes(built.root)
    found = build(tmp_path, backend)
    assert not found.built
    assert found.allocated_bytes == built.allocated_bytes


def test_blocks_of_the_disk_are_counted_once_files_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file system that allocates late: ext4, xfs and btrfs count what they have put off."""
    sync, look, done = store.sync_tree, store.files_state, []
    monkeypatch.setattr(store, "sync_tree", lambda root: (done.append("synced"), sync(root)))
    monkeypatch.setattr(store, "files_state", lambda root: (done.append("looked"), look(root))[1])
    build(tmp_path)
    assert done == ["synced", "looked"]


def test_prepare_and_clean_tell_what_a_store_takes_of_the_disk(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path))
    told = CliRunner().invoke(
        app, ["prepare", "--backend", "filesystem", "--dataset", "toys", "--source", "synthetic", *data]
    )
    (path,) = complete_stores(tmp_path)
    assert f", {du_bytes(path / 'data') / 1e6:,.1f} MB on disk in 302 files, " in told.stdout
    assert du_bytes(path) > 10 * build(tmp_path, "filesystem").manifest.size_bytes
    cleaned = CliRunner().invoke(app, ["clean", "--dry-run", *data]).stdout
    assert f"{du_bytes(path) / 1e6:10,.1f} MB  {path}" in cleaned


class ByHand:
    """A clock that goes on only when it is told to, for a source of 5 blocks that takes 10 s for each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        deliver = toy_plugins.ToyData.samples
        monkeypatch.setattr(preparing, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(toy_plugins.ToyData, "samples", lambda own, split: map(self._slow, deliver(own, split)))

    def _slow(self, block: SampleBlock) -> SampleBlock:
        self.now += 10
        return block

    def write_slowly(self, write, own, samples, schema, root: Path) -> None:
        """Take 1 s for each block."""
        blocks = []
        for block in samples:
            self.now += 1
            blocks.append(block)
        write(own, blocks, schema, root)


def test_the_time_of_a_preparation_is_that_of_writing_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, write = ByHand(monkeypatch), toy_plugins.ToyBackend.write
    monkeypatch.setattr(toy_plugins.ToyBackend, "write", lambda *told: clock.write_slowly(write, *told))
    built = build(tmp_path)
    assert built.manifest.prepare_s == 5
    assert built.built_s == pytest.approx(55 + built.manifest.verify_s)
    assert build(tmp_path).built_s == 0


def test_nothing_is_left_out_where_another_thread_takes_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, write = ByHand(monkeypatch), toy_plugins.ToyBackend.write

    def write_elsewhere(*told) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(clock.write_slowly, write, *told).result()

    monkeypatch.setattr(toy_plugins.ToyBackend, "write", write_elsewhere)
    assert build(tmp_path).manifest.prepare_s == 55


def test_reading_options_share_a_store_and_writing_options_do_not(tmp_path: Path) -> None:
    library, naive = (build(tmp_path, "hdf5", f"reader={reader}") for reader in ("library", "naive"))
    chunked = build(tmp_path, "hdf5", "chunk=5")
    assert library.path == naive.path != chunked.path


def test_another_version_of_an_outsiders_package_writes_a_store_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(tmp_path)
    entry = registry.backends()["toy"]
    monkeypatch.setitem(registry.backends(), "toy", replace(entry, package=("toy-plugins", "1.1")))
    second = build(tmp_path)
    assert second.built
    assert second.path != first.path
    monkeypatch.undo()
    assert not build(tmp_path).built


def test_a_limit_stores_the_first_samples(tmp_path: Path) -> None:
    limited = build(tmp_path, limit=101)
    x, _ = toy_plugins.toy_arrays()
    assert limited.manifest.count == 101
    assert np.array_equal(np.load(limited.root / "x.npy"), x[:101])
    with pytest.raises(SourceError, match="--limit 301: toys train has only 300 samples"):
        build(tmp_path, limit=301)


def test_a_wrong_byte_is_found_and_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="sample 123 is not what was written"):
        build(tmp_path, "toy-wrong")
    assert complete_stores(tmp_path) == store.find_leftovers(tmp_path) == []


def test_data_that_change_while_they_are_read_are_no_fault_of_the_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    np.save(own / "x.npy", np.zeros((20, 3), np.uint8))
    np.save(own / "y.npy", np.arange(20) % 2)
    found_out = preparing.truth_of

    def overtaken(*arguments):
        truth = found_out(*arguments)
        np.lib.format.open_memmap(own / "x.npy", mode="r+")[7] = 1
        return truth

    mine = make_spec(StoreSpec, [], backend="memmap", dataset=f"npy:{own}")
    with monkeypatch.context() as patched:
        patched.setattr(preparing, "truth_of", overtaken)
        with pytest.raises(SourceError, match="has changed while it was read"):
            prepare(mine, tmp_path / "data", (), SilentProgress())
    assert complete_stores(tmp_path / "data") == []
    assert prepare(mine, tmp_path / "data", (), SilentProgress()).built


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No space left"):
        build(tmp_path, "toy-full")
    assert complete_stores(tmp_path) == store.find_leftovers(tmp_path) == []


def flip_byte(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


def test_damage_after_the_build_is_named_and_refused_and_repaired_on_request(tmp_path: Path) -> None:
    built = build(tmp_path)
    sample_bytes = 3 * 8 * 8
    header = (built.root / "x.npy").stat().st_size - toy_plugins.COUNT * sample_bytes
    flip_byte(built.root / "x.npy", header + 77 * sample_bytes + 5)
    assert check(tmp_path).first_bad == 77
    with pytest.raises(StoreError, match=r"sample 77 is not what was written.*--yes"):
        build(tmp_path)
    build(tmp_path, repair=True)
    assert check(tmp_path).problem is None


@pytest.mark.parametrize("victim", ["manifest.json", "hashes.npy", "data/x.npy"])
def test_a_missing_file_is_refused(tmp_path: Path, victim: str) -> None:
    built = build(tmp_path)
    (built.path / victim).unlink()
    with pytest.raises(StoreError, match="damaged"):
        build(tmp_path)


def test_an_unreadable_sample_is_named(tmp_path: Path) -> None:
    built = build(tmp_path, "filesystem")
    victim = next(built.root.rglob("*000201.png"), None) or sorted(built.root.rglob("*201.png"))[0]
    victim.write_bytes(victim.read_bytes()[:40])
    result = check(tmp_path, "filesystem")
    assert result.first_bad == 201
    assert "201" in result.problem


def test_verify_reads_the_source_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that changed without a trace must not be called equal to the store."""
    build(tmp_path)
    x, y = toy_plugins.toy_arrays()
    x[5, 0, 0, 0] ^= 1
    monkeypatch.setattr(toy_plugins, "toy_arrays", lambda: (x, y))
    with pytest.raises(StoreError, match="No toy store of toys"):
        check(tmp_path)


def test_damage_under_an_old_modification_time_is_noticed(tmp_path: Path) -> None:
    built = build(tmp_path)
    file = built.root / "x.npy"
    before = file.stat()
    flip_byte(file, before.st_size - 1)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(StoreError, match="sample 299 is not what was written"):
        build(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", None])
def test_damaged_hashes_of_a_store_are_one_line_and_repairable(tmp_path: Path, content: bytes | None) -> None:
    path = build(tmp_path).path / "hashes.npy"
    if content is None:
        flip_byte(path, path.stat().st_size - 1)
    else:
        path.write_bytes(content)
    with pytest.raises(StoreError, match="list of hashes"):
        build(tmp_path)
    assert build(tmp_path, repair=True).hashes().shape == (300,)


def test_an_edited_manifest_is_not_believed(tmp_path: Path) -> None:
    path = build(tmp_path).path / "manifest.json"
    path.write_text(path.read_text().replace('"count": 300', '"count": 200'))
    for use in (build, check):
        with pytest.raises(StoreError, match="manifest does not describe this data"):
            use(tmp_path)


@pytest.mark.parametrize("victim", ["truth.json", "hashes.npy"])
@pytest.mark.parametrize("damage", ["empty", "flip", "missing"])
def test_what_is_kept_of_a_source_is_found_out_again_when_damaged(tmp_path: Path, victim: str, damage: str) -> None:
    digest_before = build(tmp_path).manifest.source_digest
    (path,) = (tmp_path / "sources").glob(f"*/{victim}")
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "missing":
        path.unlink()
    else:
        flip_byte(path, path.stat().st_size - 1)
    assert build(tmp_path).manifest.source_digest == digest_before
    assert build(tmp_path, "memmap").manifest.source_digest == digest_before


def test_a_file_in_the_place_of_a_store_is_damage(tmp_path: Path) -> None:
    path = build(tmp_path).path
    shutil.rmtree(path)
    path.write_text("not a store")
    with pytest.raises(StoreError, match="damaged"):
        build(tmp_path)
    assert untouched(build(tmp_path, repair=True))


def test_copied_files_are_read_again_before_they_are_believed(tmp_path: Path) -> None:
    built = build(tmp_path)
    for file in built.root.iterdir():
        os.utime(file, ns=(1, 1))
    assert not untouched(built)
    again = build(tmp_path)
    assert untouched(again)
    assert again.allocated_bytes == built.allocated_bytes


def test_what_a_reader_adds_to_a_store_counts_as_part_of_it(tmp_path: Path) -> None:
    built = build(tmp_path)
    (built.root / "index.cache").write_bytes(bytes(1000))
    again = build(tmp_path)
    assert again.manifest.size_bytes == built.manifest.size_bytes + 1000
    assert again.manifest.file_count == built.manifest.file_count + 1


@pytest.mark.parametrize("changed", [lambda x: x.reshape(20, 48), lambda x: x.view(np.int32)])
def test_the_same_bytes_as_other_samples_have_a_store_of_their_own(tmp_path: Path, changed) -> None:
    place = tmp_path / "arrays"
    place.mkdir()
    x = np.random.default_rng(0).normal(size=(20, 3, 4, 4)).astype(np.float32)
    np.save(place / "y.npy", np.arange(20) % 2)
    built = []
    for samples in (x, changed(x)):
        np.save(place / "x.npy", samples)
        own = make_spec(StoreSpec, (), backend="memmap", dataset=f"npy:{place}")
        built.append(prepare(own, tmp_path / "data", (), SilentProgress()))
        assert (built[-1].manifest.shape, built[-1].manifest.dtype) == (samples.shape[1:], samples.dtype.name)
    assert built[0].path != built[1].path


def test_samples_are_counted_where_only_decoding_tells(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 5)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "b" / "2.png").write_text("no picture")
    own = make_spec(DataSpec, (), dataset=f"folder:{tmp_path / 'photos'}", dataset_options={"skip_bad": True})
    assert preparing.extent(own, tmp_path / "data", (), SilentProgress()) == (3, 3 * 4 * 5)


def test_rebuild_replaces_an_intact_store(tmp_path: Path) -> None:
    built = build(tmp_path)
    (built.path / "mark").touch()
    assert build(tmp_path).path == built.path
    assert (built.path / "mark").exists()
    build(tmp_path, rebuild=True)
    assert not (built.path / "mark").exists()
    assert len(complete_stores(tmp_path)) == 1


def test_two_processes_build_a_store_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_WRITE_S", "0.5")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=build, args=(tmp_path, "toy-slow-write")) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(complete_stores(tmp_path)) == 1
    assert store.find_leftovers(tmp_path) == []


def test_killed_while_building_leaves_nothing_that_is_taken_for_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_WRITE_S", "60")
    worker = multiprocessing.get_context("spawn").Process(target=build, args=(tmp_path, "toy-slow-write"))
    worker.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("begun")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert complete_stores(tmp_path) == []
    assert len(store.find_leftovers(tmp_path)) == 1
    monkeypatch.setenv("TOY_WRITE_S", "0")
    assert untouched(build(tmp_path, "toy-slow-write"))
    assert store.find_leftovers(tmp_path) == []


def test_a_data_dir_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.touch()
    with pytest.raises(StoreError, match="Check --data-dir"):
        build(place)


class WrongLabelReader(toy_plugins.ToyReader):
    def read_into(self, indices, x, y) -> None:
        super().read_into(indices, x, y)
        y.numpy()[indices == 123] += 1


def test_a_lossy_store_loses_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_plugins.ToyBackend, "capabilities", Capabilities(lossy=True))
    build(tmp_path)
    monkeypatch.setattr(toy_plugins.ToyBackend, "reader", WrongLabelReader)
    assert check(tmp_path).first_bad == 123
    with pytest.raises(StoreError, match="as it was written: sample 123 is not what was written"):
        build(tmp_path, rebuild=True)


def test_lossy_stores_carry_their_psnr_and_verify_against_their_own_hashes(tmp_path: Path) -> None:
    built = prepare(spec("filesystem", "format=jpeg", "quality=90"), tmp_path, (), SilentProgress())
    assert 15 < built.manifest.lossy.psnr_db < 60
    assert built.manifest.store_digest != built.manifest.source_digest
    _, result = verify(spec("filesystem", "format=jpeg", "quality=90"), tmp_path, (), SilentProgress())
    assert result.problem is None
    assert result.psnr_db == pytest.approx(built.manifest.lossy.psnr_db)


def test_psnr_is_the_textbook_value(tmp_path: Path) -> None:
    built = prepare(spec("filesystem", "format=jpeg"), tmp_path, (), SilentProgress())
    x, _ = toy_plugins.toy_arrays()
    paths = sorted(built.root.rglob("*.jp*g"), key=lambda path: path.stem)
    found = np.stack([np.asarray(Image.open(path)).transpose(2, 0, 1) for path in paths])
    mean_square = np.mean((found.astype(np.float64) - x) ** 2)
    assert built.manifest.lossy.psnr_db == pytest.approx(10 * np.log10(255**2 / mean_square), abs=1e-4)


def test_removing_never_shows_half_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(tmp_path)
    monkeypatch.setattr(shutil, "rmtree", lambda path: None)
    store.remove_tree(built.path)
    assert complete_stores(tmp_path) == []


def test_what_cannot_be_removed_is_told_and_what_is_gone_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build(tmp_path)
    item = Doomed(built.path, disk_bytes=1)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse)
        with pytest.raises(StoreError, match="cannot be removed: Read-only file system"):
            remove(item)
    assert remove(item) == 1
    assert remove(item) == 0


def test_what_another_process_is_removing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(tmp_path)

    def vanished(_: Path) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(store, "files_state", vanished)
    assert Doomed(built.path, disk_bytes=0) in find(tmp_path, None, None, downloads=False)


@pytest.mark.parametrize("suffix", ["", ".part", ".sha256"])
def test_what_is_being_downloaded_is_not_removed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "downloads" / f"cifar-10-python.tar.gz{suffix}"
    path.parent.mkdir()
    path.write_text("half")
    with FileLock(path.with_name(".cifar-10-python.tar.gz.lock")):
        assert remove(Doomed(path, disk_bytes=4)) == 0
    assert path.exists()
    assert remove(Doomed(path, disk_bytes=4)) == 4
    assert not path.exists()


def test_names_of_classes_are_kept_in_any_locale(tmp_path: Path) -> None:
    built = build(tmp_path)
    code = (
        "import sys; from pathlib import Path; from bench.stores import store; path = Path(sys.argv[1]); "
        "known = store.load_store(path).manifest.model_copy(update={'classes': ('B\\xe4r',)}); "
        "store.write_manifest(path, known)"
    )
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, built.path], env=ascii_only, check=True)
    assert store.load_store(built.path).manifest.classes == ("B\xe4r",)
