"""What every data set must do. Truth is the arrays that a case lays out as raw data, never what the source says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.contracts.source import (
    DataSource,
    SilentProgress,
    SourceError,
    SourceRequest,
    SourceUnavailableError,
    Split,
)

Truth = dict[Split, tuple[NDArray[Any], NDArray[np.int64]]]


@dataclass(frozen=True)
class SourceCase:
    """A data set, and how to make a small copy of its raw data: ``lay_out(folder, truth)`` returns its place."""

    source: type[DataSource]
    make_truth: Callable[[], Truth]
    lay_out: Callable[[Path, Truth], Path]
    published: dict[Split, int]
    tolerance: float = 0.0
    """How far samples may be from the truth: 0 for all but features of sound."""

    @cached_property
    def truth(self) -> Truth:
        return self.make_truth()


class Notes(SilentProgress):
    """Remembers what the user was told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def local(case: SourceCase, folder: Path) -> DataSource:
    source = case.source(SourceRequest("local", case.lay_out(folder, case.truth)))
    source.prepare(folder / "cache")
    return source


def offline(case: SourceCase, kind: Any) -> DataSource:
    class Offline(case.source):  # type: ignore[name-defined,misc]
        def fetch(self, cache: Path, progress: Any) -> Any:
            raise SourceUnavailableError("no network.")

    return Offline(SourceRequest(kind))


def read(source: DataSource, split: Split) -> tuple[NDArray[Any], NDArray[np.int64]]:
    blocks = list(source.samples(split))
    return np.concatenate([block.x for block in blocks]), np.concatenate([block.y for block in blocks])


def delivers_the_raw_data_in_order(case: SourceCase, folder: Path) -> None:
    source = local(case, folder)
    for split, (x, y) in case.truth.items():
        found = read(source, split)
        np.testing.assert_allclose(found[0], x, rtol=case.tolerance / 10, atol=case.tolerance)
        np.testing.assert_array_equal(found[1], y)


def describes_what_it_delivers(case: SourceCase, folder: Path) -> None:
    source = local(case, folder)
    assert set(case.source.splits) == set(case.truth)
    for split, (x, _) in case.truth.items():
        schema = source.schema(split)
        assert (schema.name, schema.split) == (case.source.name, split)
        assert schema.count == len(x) or not schema.exact
        assert source.data.has(split)
        assert source.skipped(split) == ()
        assert (schema.shape, np.dtype(schema.dtype), schema.origin) == (x.shape[1:], x.dtype, "local")
        assert len(set(schema.classes)) == len(schema.classes) > 1
        assert schema.licence


def delivers_plain_blocks(case: SourceCase, folder: Path) -> None:
    source = local(case, folder)
    for split in case.truth:
        schema = source.schema(split)
        for block in source.samples(split):
            assert len(block.x) == len(block.y) > 0
            assert block.x.flags.c_contiguous
            assert block.x.dtype == np.dtype(schema.dtype)
            assert block.y.dtype == np.int64
            assert 0 <= block.y.min() <= block.y.max() < len(schema.classes)


def repeats_itself(case: SourceCase, folder: Path) -> None:
    source = local(case, folder)
    again = case.source(SourceRequest("local", next(iter(folder.glob("*")))))
    again.prepare(folder / "cache")
    again.prepare(folder / "cache")
    for split in case.truth:
        for one, other in zip(read(source, split), read(again, split), strict=True):
            np.testing.assert_array_equal(one, other)
    assert source.fingerprint() == again.fingerprint()


def notices_other_raw_data(case: SourceCase, folder: Path) -> None:
    other = {split: (x[::-1].copy(), y[::-1].copy()) for split, (x, y) in case.truth.items()}
    changed = replace(case, make_truth=lambda: other)
    assert local(case, folder / "one").fingerprint() != local(changed, folder / "other").fingerprint()


def does_nothing_before_it_is_prepared(case: SourceCase, folder: Path) -> None:
    source = case.source(SourceRequest("local", case.lay_out(folder, case.truth)))
    with pytest.raises(RuntimeError):
        source.fingerprint()


def refuses_what_is_not_there(case: SourceCase, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder / "nowhere", folder):
        with pytest.raises(SourceError) as caught:
            case.source(SourceRequest("local", place)).prepare(folder / "cache")
        assert str(place) in str(caught.value)
        assert "\n" not in str(caught.value)


def needs_no_more_than_its_path(case: SourceCase, folder: Path) -> None:
    place = case.lay_out(folder / "somewhere", case.truth)
    source = case.source(SourceRequest("local", place))
    source.prepare(folder / "cache")
    assert source.schema("train").origin == "local"
    for kind in ("auto", "official", "synthetic"):
        with pytest.raises(SourceUnavailableError, match="data of your own"):
            case.source(SourceRequest(kind)).prepare(folder / "cache")


def finds_its_data_in_a_search_folder(case: SourceCase, folder: Path) -> None:
    place = case.lay_out(folder / "somewhere", case.truth)
    source = case.source(SourceRequest("auto", None, (folder / "empty", place)))
    source.prepare(folder / "cache")
    assert source.schema("train").origin == "local"


def goes_on_with_a_stand_in_and_says_so(case: SourceCase, folder: Path) -> None:
    source, notes = offline(case, "auto"), Notes()
    source.prepare(folder / "cache", notes)
    (text,) = notes.texts
    assert "SYNTHETIC DATA" in text
    assert "no network." in text
    assert source.schema("train").origin == "synthetic"


def never_imitates_the_official_data(case: SourceCase, folder: Path) -> None:
    with pytest.raises(SourceUnavailableError, match=r"no network\..*--source local:PATH"):
        offline(case, "official").prepare(folder / "cache")


def imitates_counts_shape_dtype_and_classes(case: SourceCase, folder: Path) -> None:
    real, stand_in = local(case, folder), case.source(SourceRequest("synthetic"))
    stand_in.prepare(folder / "cache")
    for split, count in case.published.items():
        one, other = real.schema(split), stand_in.schema(split)
        assert other.count == count or not other.exact
        assert (one.shape, one.dtype, one.classes) == (other.shape, other.dtype, other.classes)
        block = next(iter(stand_in.samples(split)))
        assert (block.x.shape[1:], block.x.dtype) == (other.shape, np.dtype(other.dtype))


ALL_CHECKS = (
    delivers_the_raw_data_in_order,
    describes_what_it_delivers,
    delivers_plain_blocks,
    repeats_itself,
    notices_other_raw_data,
    does_nothing_before_it_is_prepared,
    refuses_what_is_not_there,
)
PUBLISHED_CHECKS = (
    finds_its_data_in_a_search_folder,
    goes_on_with_a_stand_in_and_says_so,
    never_imitates_the_official_data,
    imitates_counts_shape_dtype_and_classes,
)
OWN_CHECKS = (needs_no_more_than_its_path,)


def checks_for(source: type[DataSource]) -> tuple[Callable[[SourceCase, Path], None], ...]:
    """Return what a data set has to pass: one that is published, or one of the user's own."""
    return (*ALL_CHECKS, *(OWN_CHECKS if source.takes_path else PUBLISHED_CHECKS))
