"""The plan of a matrix, and what its records say is done."""

from pathlib import Path

import pytest

from bench.campaigns.matrix import Matrix, MatrixError, Progressed, cells_of
from bench.campaigns.suite import EXAMPLE, Axes, SuiteError, read_suite
from bench.comparisons.campaign import Slot, plan
from bench.contracts.errors import BenchError
from bench.records.record import CampaignInfo, ErrorInfo, RunRecord, read_record
from bench.specs.spec import RunSpec, make_spec

FIXTURE = Path(__file__).parent / "records" / "version-1.json"


def matrix(blocks: int = 3, seed: int = 0, *, by_dataset: bool = False, **fields) -> Matrix:
    values = {"dataset": ["cifar10", "fashion-mnist"], "cache": ["warm", "cold"], **fields}
    found = list(Axes(["memmap", "zarr", "zarr,chunk=4"], values).specs())
    return Matrix("m", cells_of([s for s, _ in found], [label for _, label in found]), blocks, seed, by_dataset)


def test_the_cells_are_the_product_and_named_by_what_differs() -> None:
    cells = matrix().cells
    assert len(cells) == 12
    assert {name: (s.backend, s.dataset, s.cache) for name, s in list(cells.items())[:3]} == {
        "memmap[mapped] cifar10 warm": ("memmap", "cifar10", "warm"),
        "zarr[library] cifar10 warm": ("zarr", "cifar10", "warm"),
        "zarr[library] chunk=4 cifar10 warm": ("zarr", "cifar10", "warm"),
    }
    assert cells["zarr[library] chunk=4 fashion-mnist cold"].options["chunk"] == 4


def test_the_same_cell_twice_is_refused() -> None:
    found = list(Axes(["zarr", "zarr,reader=library"], {"dataset": ["cifar10"]}).specs())
    with pytest.raises(MatrixError, match=r"zarr\[library\].* is there twice"):
        cells_of([spec for spec, _ in found], [label for _, label in found])


def test_each_block_holds_each_cell_once_in_an_order_of_its_own() -> None:
    slots = matrix(blocks=3).slots()
    for block in range(3):
        assert sorted(slot.cell for slot in slots if slot.block == block) == sorted(matrix().cells)
    assert len({tuple(slot.cell for slot in slots if slot.block == block) for block in range(3)}) == 3
    assert not any(slot.control for slot in slots), "three blocks show nothing, so a control would be in vain"


def test_with_enough_blocks_each_work_has_a_control() -> None:
    slots = matrix(blocks=6).slots()
    controls = [slot.cell for slot in slots if slot.control and slot.block == 2]
    assert sorted(controls) == sorted(name for name in matrix().cells if name.startswith("memmap"))
    assert len(controls) == 4
    assert slots[: 3 * 12] != matrix(blocks=3).slots()
    assert [s for s in slots if s.block < 3 and not s.control] == matrix(blocks=3).slots()


def test_a_work_of_a_single_cell_has_none() -> None:
    found = list(Axes(["memmap"], {"dataset": ["cifar10", "fashion-mnist"]}).specs())
    cells = cells_of([spec for spec, _ in found], [label for _, label in found])
    assert Matrix("m", cells, 8, 0).twins() == []


def test_one_data_set_after_the_other_where_stores_are_removed() -> None:
    datasets = [matrix().cells[slot.cell].dataset for slot in matrix(by_dataset=True).slots()]
    assert datasets == ["cifar10"] * 18 + ["fashion-mnist"] * 18
    assert matrix(by_dataset=True).identity != matrix().identity


def test_the_identity_is_that_of_cells_and_order_alone() -> None:
    assert matrix(blocks=3).identity == matrix(blocks=8).identity
    assert matrix(seed=1).identity != matrix().identity
    assert matrix(workers=[0, 1]).identity != matrix().identity


def test_a_plan_without_twins_has_the_first_cell_as_before() -> None:
    assert plan(["a", "b"], 4, 5) == plan(["a", "b"], 4, 5, ["a"])


# What is done.


def record_of(slot: Slot, status: str = "ok") -> RunRecord:
    info = CampaignInfo(
        id="m", seed=0, blocks=3, block=slot.block, position=slot.position, cell=slot.cell, control=slot.control
    )
    error = None if status == "ok" else ErrorInfo(phase="train", type="X", message="It broke.")
    return read_record(FIXTURE).model_copy(update={"campaign": info, "status": status, "error": error})


def test_what_has_a_record_is_done_and_what_was_interrupted_is_not() -> None:
    slots = matrix(blocks=6).slots()
    progressed = Progressed([record_of(slots[0]), record_of(slots[1], "interrupted"), record_of(slots[3])])
    assert list(progressed.remaining(slots)) == [slots[1], slots[2], *slots[4:]]


def test_a_control_is_another_run_than_what_it_repeats() -> None:
    slots = matrix(blocks=6).slots()
    control = next(slot for slot in slots if slot.control)
    progressed = Progressed([record_of(control)])
    assert len(list(progressed.remaining(slots))) == len(slots) - 1
    assert control not in list(progressed.remaining(slots))


@pytest.mark.parametrize(("status", "failures"), [("failed", 2), ("unsupported", 1)])
def test_a_cell_that_cannot_be_run_is_given_up_while_others_go_on(status: str, failures: int) -> None:
    slots = matrix(blocks=3).slots()
    mine = [slot for slot in slots if slot.cell == slots[0].cell]
    progressed = Progressed([])
    coming = progressed.remaining(slots)
    seen = []
    for slot in coming:
        seen.append(slot)
        progressed.note(record_of(slot, status if slot in mine else "ok"))
    assert [slot for slot in seen if slot in mine] == mine[:failures]
    assert len(seen) == len(slots) - 3 + failures
    assert progressed.given_up == [slots[0].cell]
    assert progressed.without_result(slots) == 3


# Suite files.


def suite(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "suite.toml"
    path.write_text(text)
    return path


GOOD = """
name = "mine"
blocks = 4

[common]
epochs = 2

[[matrix]]
dataset = "cifar10"
backend = ["hdf5,chunk=8", "memmap"]
workers = [0, 2]

[[matrix]]
dataset = ["masks"]
backend = "memmap"
epochs = 1
data_options = { size = "64" }
"""


def test_a_suite_is_read_as_written(tmp_path: Path) -> None:
    found = read_suite(suite(tmp_path, GOOD))
    assert (found.name, found.blocks, found.order_seed) == ("mine", 4, None)
    specs = [spec for part in found.matrices for spec, _ in part.specs()]
    expected = [
        make_spec(RunSpec, ["chunk=8"], dataset="cifar10", backend="hdf5", epochs=2, workers=0),
        make_spec(RunSpec, [], dataset="cifar10", backend="memmap", epochs=2, workers=0),
        make_spec(RunSpec, ["chunk=8"], dataset="cifar10", backend="hdf5", epochs=2, workers=2),
        make_spec(RunSpec, [], dataset="cifar10", backend="memmap", epochs=2, workers=2),
        make_spec(RunSpec, [], dataset_options={"size": "64"}, dataset="masks", backend="memmap", epochs=1),
    ]
    assert [spec.spec_id for spec in specs] == [spec.spec_id for spec in expected]


def test_the_example_is_a_good_suite(tmp_path: Path) -> None:
    found = read_suite(suite(tmp_path, EXAMPLE))
    assert len([spec for part in found.matrices for spec in part.specs()]) == 14


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('name = "mine"', "nmae = 1", 2, "nmae: unknown"),
        ("blocks = 4", 'blocks = "4"', 3, "blocks: must be a whole number"),
        ("epochs = 2", "epoch = 2", 6, "epoch: unknown"),
        ("workers = [0, 2]", "workers = []", 11, "workers: must have a value"),
        ("workers = [0, 2]", "workers = [0, 0]", 11, "workers: has 0 twice"),
        ("workers = [0, 2]", "workers = -1", 8, "workers"),
        ("workers = [0, 2]", 'workers = "two"', 8, "workers"),
        ("hdf5,chunk=8", "hdf5,chnk=8", 8, "chnk"),
        ("hdf5,chunk=8", "hfd5", 8, "hfd5"),
        ("epochs = 1", "epochs = [[1]]", 16, "epochs: must be a value"),
        ('{ size = "64" }', '"64"', 17, "data_options: must be a table"),
        ('{ size = "64" }', '{ sise = "64" }', 13, "sise"),
        ('dataset = ["masks"]', "", 13, "has no dataset"),
        ("blocks = 4", "blocks = ", 3, "no TOML"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    assert old in GOOD
    path = suite(tmp_path, GOOD.replace(old, new))
    with pytest.raises(BenchError) as raised:
        [spec for part in read_suite(path).matrices for spec in part.specs()]
    message = str(raised.value)
    assert words in message
    assert f"line {line}" in message
    assert str(path) in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "blocks = 1\n", "matrix = 3\n"])
def test_a_suite_without_a_matrix_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(SuiteError, match=r"no \[\[matrix\]\]"):
        read_suite(suite(tmp_path, text))


def test_a_suite_that_is_not_there_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="--init"):
        read_suite(tmp_path / "none.toml")
