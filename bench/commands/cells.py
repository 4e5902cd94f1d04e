"""The cells of a comparison, a baseline or a measurement for advice, as they are named on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bench.contracts.errors import BenchError

if TYPE_CHECKING:
    from bench.specs.spec import RunSpec


class CellError(BenchError):
    """A cell that is named twice."""


def named_cells(
    backends: Iterable[str], dataset: str, dataset_options: dict[str, Any], work: dict[str, Any]
) -> dict[str, RunSpec]:
    """Return what each ``NAME[,KEY=VALUE…]`` runs, by its label. Raises CellError, and SpecError for a wrong one."""
    from bench.campaigns.suite import backend_label
    from bench.specs.spec import RunSpec, make_spec

    cells: dict[str, RunSpec] = {}
    for text in backends:
        name, *options = text.split(",")
        spec = make_spec(RunSpec, options, dataset_options=dataset_options, dataset=dataset, backend=name, **work)
        if (label := backend_label(spec, options)) in cells:
            raise CellError(f"--backend {text} is given twice. Name each cell once.")
        cells[label] = spec
    return cells
