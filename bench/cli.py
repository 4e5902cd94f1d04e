"""The command line: every command with its example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from bench import __version__
from bench.commands import (
    advise,
    chart,
    compare,
    confusion,
    data,
    doctor,
    exchange,
    folds,
    history,
    matrix,
    records,
    regress,
    report,
    run,
    study,
    table,
    tune,
)

app = typer.Typer(
    name="bench",
    help="Which storage format feeds your PyTorch training fastest? Measured here, with your data.",
    epilog="First steps:  bench run --backend zarr --dataset cifar10   and then   bench list backends",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"bench {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of errors; works with any command.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Take flags that belong to every command."""


_EXAMPLES: dict[Callable[..., None], str] = {
    run.run: "bench run --backend zarr --dataset cifar10 --option chunk=64 --epochs 5",
    compare.compare: "bench compare --backend zarr --backend hdf5 --dataset cifar10 --blocks 8",
    matrix.matrix: "bench matrix --backend hdf5 --backend zarr --dataset cifar10 --workers 0 --workers 2",
    regress.regress: "bench regress --save main --backend zarr --dataset cifar10   and later   bench regress main",
    advise.advise: "bench advise --dataset folder:~/photos --budget 10m --for disk",
    study.study: "bench study esc50 --model esc-crnn-attention --dry-run",
    tune.tune: "bench tune --backend zarr --dataset cifar10 --budget 10m",
    data.prepare: "bench prepare --backend hdf5 --dataset cifar10 --option compression=gzip",
    data.verify: "bench verify --backend zarr --dataset cifar10",
    data.inspect: "bench inspect folder:~/photos --size 224",
    records.list_: "bench list backends zarr",
    records.show: "bench show last",
    table.table: "bench table --metric epoch_s --baseline filesystem --where device=cuda --format latex",
    folds.folds: "bench folds last --metric test_accuracy,test_macro_f1",
    confusion.confusion: "bench confusion last --svg confusion.svg",
    report.report: "bench report --results results -o report.html",
    exchange.export: "bench export --results results -o runs.parquet",
    exchange.import_: "bench import laptop/results server/results --results results",
    exchange.schema: "bench schema > record.schema.json",
    chart.chart: "bench chart --results results/reference --where dataset=cifar10 -o chart.svg",
    history.history: "bench history --metric epoch_s --backend zarr",
    data.clean: "bench clean --backend zarr --yes",
    doctor.doctor: "bench doctor",
}

for _command, _example in _EXAMPLES.items():
    app.command(_command.__name__.rstrip("_"), epilog=f"Example:  {_example}")(_command)
