"""What is found out about a source: decoded once for all backends, kept, checked, counted."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from bench.contracts.source import SampleBlock, SilentProgress, SourceError
from bench.specs.spec import StoreSpec, make_spec
from bench.stores import store
from bench.stores.content import ContentTally
from bench.stores.prepare import prepare, verify
from bench.stores.store import StoreError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "here.txt").touch()
    return folder


def spec(raw: Path, backend: str = "memmap", limit: int | None = None, **options) -> StoreSpec:
    return make_spec(StoreSpec, [], backend=backend, dataset=f"costly-toys:{raw}", limit=limit, dataset_options=options)


def build(raw: Path, *args, **options) -> store.Store:
    return prepare(spec(raw, *args, **options), raw.parent / "data", (), SilentProgress())


def times_decoded(raw: Path) -> int:
    return len((raw / "decoded.log").read_text().splitlines())


def expected(offset: float = 0.0, size: int = 8) -> np.ndarray:
    blocks = [np.random.default_rng(b).normal(offset, 3.0, (10, 1, size, size)) for b in range(4)]
    return np.concatenate(blocks).astype(np.float32)


def delivered(built: store.Store, backend: str = "memmap") -> np.ndarray:
    return spec(Path("unused"), backend).open_backend().open(built.root).__getitems__(range(40))[0].numpy()


def test_samples_are_decoded_once_for_all_backends(raw: Path) -> None:
    for backend in ("memmap", "hdf5", "zarr", "filesystem", "memory"):
        np.testing.assert_array_equal(delivered(build(raw, backend), backend), expected())
    assert times_decoded(raw) == 1


def test_options_and_limits_are_other_samples(raw: Path) -> None:
    paths = {build(raw).path, build(raw, offset=1.0).path, build(raw, size=4).path, build(raw, "memmap", 10).path}
    assert len(paths) == 4
    assert times_decoded(raw) == 4
    np.testing.assert_array_equal(delivered(build(raw, offset=1.0)), expected(1.0))
    assert times_decoded(raw) == 4


def test_changed_raw_data_is_decoded_again(raw: Path) -> None:
    build(raw)
    (raw / "more.txt").touch()
    build(raw)
    assert times_decoded(raw) == 2


def test_verifying_decodes_the_source_itself(raw: Path) -> None:
    build(raw)
    assert verify(spec(raw), raw.parent / "data", (), SilentProgress())[1].problem is None
    assert times_decoded(raw) == 2


def kept(raw: Path) -> Path:
    (path,) = (raw.parent / "data" / "sources").glob("costly-toys-*")
    return path


def test_damaged_decoded_samples_are_never_used(raw: Path) -> None:
    build(raw)
    with (kept(raw) / "samples.bin").open("r+b") as file:
        file.seek(5000)
        file.write(b"\x00\x01\x02\x03")
    with pytest.raises(StoreError, match=r"samples-|costly-toys-.* were damaged and have been removed\. Run again"):
        build(raw, "hdf5")
    assert not list((raw.parent / "data" / "stores" / "costly-toys").glob("*hdf5-*/manifest.json"))
    np.testing.assert_array_equal(delivered(build(raw, "hdf5"), "hdf5"), expected())
    assert times_decoded(raw) == 2


@pytest.mark.parametrize("victim", ["samples.bin", "labels.bin", "truth.json", "hashes.npy"])
def test_what_is_kept_incompletely_is_found_out_again(raw: Path, victim: str) -> None:
    build(raw)
    (kept(raw) / victim).write_bytes(b"")
    build(raw, "hdf5")
    assert times_decoded(raw) == 2


def test_an_estimate_gives_way_to_the_count(raw: Path) -> None:
    assert build(raw).manifest.count == 40
    assert build(raw, "memmap", 33).manifest.count == 33
    with pytest.raises(SourceError, match=r"--limit 41: .* has only 40 samples"):
        build(raw, "memmap", 41)
    assert not list((raw.parent / "data" / "sources").glob("*.part-*"))


def test_left_out_files_are_listed(raw: Path) -> None:
    (raw / "bad.txt").touch()
    with pytest.raises(SourceError, match="--skip-bad"):
        build(raw)
    skipped = build(raw, skip_bad=True).manifest.decoding.skipped
    assert [(file.file, file.reason) for file in skipped] == [("bad.txt", "it is bad")]
    assert build(raw, "hdf5", skip_bad=True).manifest.decoding.skipped == skipped


def test_two_at_once_decode_once(raw: Path) -> None:
    built = []
    threads = [threading.Thread(target=lambda b=b: built.append(build(raw, b))) for b in ("memmap", "hdf5", "zarr")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 3
    assert times_decoded(raw) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8", "bool"])
def test_the_content_is_numpys(dtype: str) -> None:
    rng = np.random.default_rng(2)
    x = (rng.normal(1000, 40, (50, 3, 4)) % 256).astype(dtype)
    y = rng.integers(0, 3, 50)
    tally = ContentTally(4)
    for part in np.array_split(np.arange(50), 7):
        tally.add(SampleBlock(x[part], y[part]))
    found = tally.result()
    assert found.class_counts == tuple(np.bincount(y, minlength=4))
    assert (found.low, found.high, found.not_finite) == (float(x.min()), float(x.max()), 0)
    if dtype == "uint8":
        assert found.mean is found.std is None
    else:
        assert found.mean == pytest.approx(float(np.mean(x, dtype=np.float64)), rel=1e-12)
        assert found.std == pytest.approx(float(np.std(x.astype(np.float64))), rel=1e-12)


def test_values_too_large_for_a_deviation_are_no_warning() -> None:
    tally = ContentTally(1)
    with np.errstate(all="raise"):
        tally.add(SampleBlock(np.array([[1e200, -1e200]]), np.zeros(1, np.int64)))
    assert tally.result().std == float("inf")


def test_values_that_are_no_numbers_are_counted_and_left_out() -> None:
    tally = ContentTally(1)
    tally.add(SampleBlock(np.array([[1.0, np.nan], [np.inf, 3.0]], np.float32), np.zeros(2, np.int64)))
    tally.add(SampleBlock(np.array([[np.nan, -np.inf]], np.float32), np.zeros(1, np.int64)))
    found = tally.result()
    assert (found.low, found.high, found.mean, found.std, found.not_finite) == (1.0, 3.0, 2.0, 1.0, 4)
