"""What can be measured in the process of somebody's test suite, and what is refused there."""

from __future__ import annotations

import pytest
import toy_plugins

from bench import registry
from bench.contracts.options import Options
from bench.runs.in_process import spec_of
from bench.specs.spec import SpecError


class Several(Options):
    sizes: tuple[int, ...] = (1,)
    names: list[str] | None = None
    label: str = ""


@pytest.mark.parametrize(
    ("backend", "options"),
    [("zarr", {"shard": None, "chunk": 64}), ("hdf5", {"chunk": None}), ("filesystem", {"quality": None})],
)
def test_options_of_a_registered_backend_may_be_none(backend: str, options: dict) -> None:
    chosen = spec_of(backend, options, "synthetic").options
    assert {name: chosen[name] for name in options} == options


def test_options_of_a_registered_backend_may_be_tuples_and_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toy_plugins.ToyBackend.options_type", Several)
    given = {"sizes": (2, 3), "names": ["b", "c=d"], "label": "[4]"}
    spec = spec_of("toy", given, "toys", batch_size=2)
    assert type(spec.open_backend()) is toy_plugins.ToyBackend
    assert spec.open_backend().options == Several(sizes=(2, 3), names=["b", "c=d"], label="[4]")


@pytest.mark.parametrize("backend", ["hdf5", "class"])
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"chunks": 4}, "Unknown hdf5 option 'chunks'. Did you mean chunk? Known: "),
        ({"chunk": 0}, "--option chunk=0: input should be greater than or equal to 1 (hdf5)."),
        ({"compression": "zip"}, "--option compression=zip: input should be "),
        ({"chunk": True}, "--option chunk=True: input should be a number (hdf5)."),
        ({"chunk": (1, 2)}, "--option chunk=(1, 2): input should be a valid integer (hdf5)."),
    ],
)
def test_wrong_options_are_one_line(backend: str, options: dict, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(backend if backend == "hdf5" else registry.backend_class("hdf5"), options, "synthetic")
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)
