import enum
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from bench import listing, registry
from bench.contracts.errors import BenchError
from bench.contracts.options import Options
from bench.specs.spec import RunSpec, SpecError, StoreSpec, make_spec


def spec(**fields) -> RunSpec:
    return make_spec(RunSpec, fields.pop("option", []), **{"backend": "hdf5", "dataset": "toys", **fields})


def test_options_are_complete_and_typed() -> None:
    assert spec(option=["chunk=16"]).options["chunk"] == 16
    assert spec().options == spec(option=["layout=contiguous"]).options


def test_spec_id_depends_on_every_field_and_on_nothing_else() -> None:
    base = spec()
    assert spec().spec_id == base.spec_id
    for change in ({"seed": 1}, {"batch_size": 64}, {"option": ["chunk=4"]}, {"workers": 1}, {"amp": True}):
        assert spec(**change).spec_id != base.spec_id


def test_a_block_shuffle_is_complete_and_leaves_other_runs_their_identity() -> None:
    block = spec(shuffle="block")
    assert (block.block_samples, block.buffer_blocks) == (256, 16)
    assert spec(shuffle="block", block_samples=256, buffer_blocks=16).spec_id == block.spec_id
    changes = ({"shuffle": "full"}, {"block_samples": 64}, {"buffer_blocks": 4})
    assert len({block.spec_id, *(spec(**{"shuffle": "block", **change}).spec_id for change in changes)}) == 4
    assert RunSpec.model_validate_json(block.model_dump_json()) == block

    def identity(shuffle: str) -> str:
        return RunSpec(backend="hdf5", dataset="toys", options={"reader": "library"}, shuffle=shuffle).spec_id

    # Written down before there was a block shuffle.
    assert (identity("full"), identity("none")) == ("393cbea41327574b", "98794df0a7dd5cbc")


def test_prefetch_is_part_of_a_run_and_leaves_others_their_identity() -> None:
    plain = RunSpec(backend="hdf5", dataset="toys", options={"reader": "library"})
    # Written down before there was a prefetch to choose.
    assert plain.spec_id == plain.model_copy(update={"prefetch": 2}).spec_id == "393cbea41327574b"
    assert len({spec(workers=2, prefetch=count).spec_id for count in (1, 2, 3, 64)}) == 4


def test_weights_are_part_of_a_run_and_leave_others_their_identity() -> None:
    plain = RunSpec(backend="hdf5", dataset="toys", options={"reader": "library"})
    # Written down before there were weights to begin with.
    assert plain.spec_id == "393cbea41327574b"
    assert len({spec(weights=path).spec_id for path in (None, "a.pth", "b.pth")}) == 3


def test_an_optimizer_is_completed_and_leaves_other_runs_their_identity() -> None:
    def run(**fields: object) -> RunSpec:
        return RunSpec(backend="hdf5", dataset="toys", options={"reader": "library"}, **fields)

    # Written down before there was an optimizer to choose.
    for same in ({}, {"optimizer": "sgd"}, {"lr": 0.05}, {"momentum": 0.9, "weight_decay": 0}):
        assert run(**same).spec_id == "393cbea41327574b"
    chosen = [
        *({"lr": 0.1}, {"momentum": 0}, {"weight_decay": 0.1}, {"optimizer": "adam"}, {"optimizer": "radam"}),
        *({"optimizer": "rmsprop"}, {"optimizer": "rmsprop", "momentum": 0.9}, {"optimizer": "adam", "lr": 0.05}),
    ]
    assert len({run(**fields).spec_id for fields in ({}, *chosen)}) == 1 + len(chosen)
    assert run(optimizer="adam").spec_id == run(optimizer="adam", lr=0.001).spec_id
    assert (run().lr, run().momentum) == (0.05, 0.9)
    assert (run(optimizer="adam").lr, run(optimizer="adam").momentum) == (0.001, None)
    assert (run(optimizer="rmsprop").lr, run(optimizer="rmsprop").momentum) == (0.01, 0.0)
    for fields in chosen:
        assert RunSpec.model_validate_json(run(**fields).model_dump_json()) == run(**fields)


def test_a_spec_survives_json() -> None:
    base = spec(option=["compression=gzip"])
    assert RunSpec.model_validate_json(base.model_dump_json()) == base


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"backend": "zar"}, "Unknown backend 'zar'. Did you mean zarr? Known: "),
        ({"dataset": "toy"}, "Unknown data set 'toy'. Did you mean toys? Known: "),
        (
            {"model": "resnet19"},
            "Unknown model 'resnet19'. Did you mean resnet18? Known: cnn, convnet4, densenet121, ",
        ),
        ({"option": ["chunks=4"]}, "Unknown hdf5 option 'chunks'. Did you mean chunk? Known: "),
        ({"option": ["chunk"]}, "--option 'chunk' is not KEY=VALUE"),
        ({"option": ["chunk=0"]}, "--option chunk=0: input should be greater than or equal to 1 (hdf5)."),
        ({"option": ["chunk=2", "chunk=3"]}, "--option chunk is given twice."),
        ({"option": ["compression=zip"]}, "--option compression=zip: input should be "),
        ({"batch_size": 0}, "--batch-size '0': input should be greater than or equal to 1."),
        ({"epochs": 0}, "--epochs '0': "),
        ({"workers": -1}, "--workers '-1': "),
        ({"prefetch": 0}, "--prefetch '0': input should be greater than or equal to 1."),
        ({"prefetch": 65}, "--prefetch '65': input should be less than or equal to 64."),
        ({"optimizer": "adamw"}, "--optimizer 'adamw': input should be 'sgd', 'adam', 'radam' or 'rmsprop'."),
        ({"optimizer": "adam", "momentum": 0.5}, "--momentum goes with --optimizer sgd and rmsprop: adam has none."),
        ({"lr": 0}, "--lr '0': input should be greater than 0."),
        ({"lr": float("nan")}, "--lr 'nan': "),
        ({"momentum": 1}, "--momentum '1': input should be less than 1."),
        ({"weight_decay": -1}, "--weight-decay '-1': "),
        ({"val": 1.0}, "--val '1.0': must be a split (train, val, test) or a share between 0 and 1, like 0.1."),
        ({"model": "none", "lr": 0.1}, "--lr goes with a network: --model none trains nothing."),
        ({"model": "none", "optimizer": "adam"}, "--optimizer goes with a network: --model none trains nothing."),
        ({"limit": 0}, "--limit '0': "),
        ({"device": "gpu"}, "--device 'gpu': must be auto, cpu, cuda or cuda:N."),
        ({"source": "remote"}, "--source 'remote': must be auto, official, synthetic or local:PATH."),
        ({"source": "local:"}, "--source 'local:': must be "),
        ({"model": "none", "weights": "a.pth"}, "--weights goes with a network: --model none trains nothing."),
        ({"model": "none", "amp": True}, "--amp goes with a network: --model none trains nothing."),
        ({"model": "none", "compile": True}, "--compile goes with a network: --model none trains nothing."),
        ({"model": "none", "channels_last": True}, "--channels-last goes with a network: --model none trains nothing."),
        ({"limit": 100}, "--batch-size 128 is larger than the data: --limit is 100."),
        ({"split": "test"}, "toys has no split 'test'. It has: train."),
    ],
)
def test_nonsense_is_one_line_that_names_the_flag(fields: dict, text: str) -> None:
    with pytest.raises(BenchError) as caught:
        spec(**fields)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_library_comes_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.Entry("bench.loaders.zarr_:ZarrBackend", "", {"no_such_module_here": "its-pip-name"})
    monkeypatch.setitem(registry.backends(), "zarr", entry)
    with pytest.raises(registry.MissingLibraryError, match="pip install its-pip-name"):
        spec(backend="zarr")


def test_outsiders_cannot_shadow_a_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    fake = [EntryPoint("zarr", "evil:Backend", "bench.backends"), EntryPoint("new", "new:Backend", "bench.backends")]
    monkeypatch.setattr(registry, "entry_points", lambda group: fake)
    registry._entries.cache_clear()
    try:
        assert registry.backends()["zarr"].target == "bench.loaders.zarr_:ZarrBackend"
        assert registry.backends()["new"].target == "new:Backend"
    finally:
        registry._entries.cache_clear()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise RuntimeError('library 3')", "cannot be loaded from broken:Plugin: RuntimeError: library 3"),
        ("def f(:", "cannot be loaded from broken:Plugin: SyntaxError: "),
        ("raise SystemExit('no licence')", "cannot be loaded from broken:Plugin: SystemExit: no licence"),
        ("def Plugin(): pass", "is no class derived from bench.contracts.backend.Backend."),
        ("class Plugin: pass", "is no class derived from bench.contracts.backend.Backend."),
        (
            "from bench.contracts.backend import Backend\n\nclass Plugin(Backend): pass",
            "is incomplete: it lacks name, open, options_type, write.",
        ),
    ],
)
def test_a_plugin_that_is_broken_is_named_and_spoils_no_list(
    code: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    monkeypatch.setitem(registry.backends(), "mine", registry.Entry("broken:Plugin", "", {}))
    with pytest.raises(registry.PluginError, match="The backend mine.*" + re.escape(told)):
        spec(backend="mine")
    rows = {row[0]: row[3] for row in listing.backends().rows}
    assert rows["zarr"] == "yes"
    assert told in rows["mine"]


def test_what_a_plugin_prints_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talker.py").write_text("print('hello')\nfrom toy_plugins import ToyBackend")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.backends(), "toy", registry.Entry("talker:ToyBackend", "", {}))
    monkeypatch.delitem(sys.modules, "talker", raising=False)
    spec(backend="toy")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_plugin_goes_by_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.backends(), "mine", registry.Entry("toy_plugins:ToyBackend", "", {}))
    with pytest.raises(registry.PluginError, match=r"The backend mine, .*, calls itself toy: "):
        spec(backend="mine")


def test_the_package_of_a_plugin_is_known_with_its_version() -> None:
    # As tests/plugins/*.dist-info say.
    assert registry.packages("toy", "toys") == {"toy-plugins": "1.0"}
    assert registry.packages("toy", "truth") == {"toy-plugins": "1.0", "truth-plugins": "1.0"}
    assert registry.packages("zarr", "cifar10") == {}
    assert registry.packages("of-no-entry-point", "cifar10") == {}


def test_an_outsiders_module_is_imported_before_the_clock_of_opening_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outsider.py").write_text("from toy_plugins import ToyBackend")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.backends(), "toy", registry.Entry("outsider:ToyBackend", "", {}))
    registry.import_libraries("toy")
    assert sys.modules.pop("outsider", None) is not None


class Codec(enum.Enum):
    LZ = "lz"
    ZSTD = "zstd"


class OtherOptions(Options):
    codec: Codec | None = Field(None, description="an enumeration")
    window: tuple[int, int] = Field((4, 4), description="two numbers")
    extra: Any = Field(None, description="of no type")


def test_options_of_any_type_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toy_plugins.ToyBackend.options_type", OtherOptions)
    values = [row[1] for row in listing.backend_options("toy").rows]
    assert values == ["lz|zstd or none", "array", "anything"]


def test_store_spec_knows_nothing_of_runs() -> None:
    with pytest.raises(SpecError, match="--epochs"):
        make_spec(StoreSpec, [], backend="hdf5", dataset="toys", epochs=3)
