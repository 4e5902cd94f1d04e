"""Words by which records are grouped and filtered."""

from pathlib import Path

import pytest

from bench.records.facets import FACETS, FacetError, choose, conditions, facet, facets
from bench.records.record import CacheInfo, RunRecord, read_record

TEMPLATE = read_record(Path(__file__).parent / "records" / "version-1.json")


def record(**fields) -> RunRecord:
    changes = {name: fields.pop(name) for name in ("device", "cache", "status") if name in fields}
    return TEMPLATE.model_copy(update={"spec": TEMPLATE.spec.model_copy(update=fields), **changes})


def test_every_facet_tells_something_of_a_record() -> None:
    texts = {name: found.of(TEMPLATE) for name, found in FACETS.items()}
    assert all(texts.values())
    assert texts["backend"] == "memmap"
    assert texts["method"] == "memmap[library]"
    assert (texts["dataset"], texts["origin"], texts["model"]) == ("cifar10", "local", "cnn")
    assert texts["status"] == "ok"
    assert texts["samples"] == str(TEMPLATE.data.count)
    assert facet("version.torch").of(TEMPLATE) == TEMPLATE.environment["libraries"]["torch"]
    assert facet("option.reader").of(TEMPLATE) == "library"
    assert facet("option.chunk").of(TEMPLATE) == "none"


def test_an_unknown_word_is_one_line_that_lists_the_known() -> None:
    with pytest.raises(FacetError, match=r"nothing called 'backnd'.*backend.*dataset.*option\.NAME") as error:
        facet("backnd")
    assert "\n" not in str(error.value)
    with pytest.raises(FacetError, match=r"nothing called 'option\.'"):
        facet("option.")
    with pytest.raises(FacetError, match="backend is given twice"):
        facets(["backend,workers", "backend"])


def test_facets_come_with_commas_or_one_by_one() -> None:
    assert [found.name for found in facets(["backend, workers", "model"])] == ["backend", "workers", "model"]


RECORDS = [
    record(backend="zarr", device="cuda:0", workers=0),
    record(backend="zarr", device="cpu", workers=2),
    record(backend="hdf5", device="cpu", workers=2, cache=CacheInfo(asked="cold", achieved="not-achieved")),
]


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ([], [0, 1, 2]),
        (["backend=zarr"], [0, 1]),
        (["backend!=zarr"], [2]),
        (["device=cuda"], [0]),
        (["device=cuda:0"], [0]),
        (["device!=cuda"], [1, 2]),
        (["backend=zarr", "workers=2"], [1]),
        (["backend=zarr", "backend=hdf5"], [0, 1, 2]),
        (["backend=zarr", "backend=hdf5", "workers!=0"], [1, 2]),
        (["cache=cold"], [2]),
        (["cache=not-achieved"], [2]),
        (["cache=cold: NOT achieved"], [2]),
    ],
)
def test_conditions_choose(where: list[str], left: list[int]) -> None:
    assert choose(RECORDS, conditions(where)) == [RECORDS[number] for number in left]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("backend", "neither KEY=VALUE nor KEY!=VALUE"),
        ("=zarr", "neither KEY=VALUE"),
        ("!=zarr", "neither KEY=VALUE"),
        ("backed=zarr", "nothing called 'backed'"),
        ("backend=zar", "no record meets it. backend is here one of: hdf5, zarr"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(where: str, said: str) -> None:
    with pytest.raises(FacetError, match=said):
        choose(RECORDS, conditions([where]))


def test_filters_that_leave_nothing_together_are_refused() -> None:
    with pytest.raises(FacetError, match="--where backend=hdf5 --where workers=0: no record meets all"):
        choose(RECORDS, conditions(["backend=hdf5", "workers=0"]))
