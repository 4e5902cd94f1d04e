"""Commands and flags."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench import __version__
from bench.contracts.errors import BenchError
from bench.flags import Backend, DataDir, Dataset, Limit, Options, Results, Source, SplitName, Yes, dataset_flags

if TYPE_CHECKING:
    from bench.record import RunRecord
    from bench.runner import Places

INTERRUPTED = 130

app = typer.Typer(
    name="bench",
    help="Which storage format feeds your PyTorch training fastest? Measured here, with your data.",
    epilog="First steps:  bench run --backend zarr --dataset cifar10   and then   bench list backends",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class RunFailedError(BenchError):
    """A run without a result; its record says more."""

    def __init__(self, message: str, exit_code: int, trace: str | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.trace = trace


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


@app.command(epilog="Example:  bench run --backend zarr --dataset cifar10 --option chunk=64 --epochs 5")
@dataset_flags
def run(
    *,
    dataset_options: dict[str, Any],
    backend: Backend,
    dataset: Dataset,
    model: Annotated[str, typer.Option(help="Network to train, or none to measure loading alone.")] = "cnn",
    epochs: Annotated[int, typer.Option(help="Epochs; with more than one, the first is a warm-up.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Samples per batch.")] = 128,
    workers: Annotated[int, typer.Option(help="Loader workers; 0 loads in the training process.")] = 0,
    worker_kind: Annotated[Literal["process", "thread"], typer.Option(help="What a worker is.")] = "process",
    start_method: Annotated[
        Literal["fork", "forkserver", "spawn"], typer.Option(help="How worker processes start.")
    ] = "fork",
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]", help="Where to train.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the order of samples.")] = 0,
    limit: Limit = None,
    shuffle: Annotated[Literal["full", "none"], typer.Option(help="Order of samples.")] = "full",
    option: Options = None,
    amp: Annotated[bool, typer.Option("--amp", help="Train in bfloat16 where that is safe (autocast).")] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Deterministic algorithms: equal losses for every backend.")
    ] = False,
    data_dir: DataDir = None,
    source: Source = "auto",
    split: SplitName = "train",
    results: Results = Path("results"),
    json: Annotated[bool, typer.Option("--json", help="Print the record, and nothing else, on stdout.")] = False,
    yes: Yes = False,
) -> None:
    """Train from one backend and report where the time went."""
    from bench import console, runner
    from bench import results as records
    from bench.spec import RunSpec, make_spec

    spec = make_spec(
        RunSpec,
        option or [],
        dataset_options=dataset_options,
        dataset=dataset,
        source=source,
        split=split,
        limit=limit,
        backend=backend,
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        workers=workers,
        worker_kind=worker_kind,
        start_method=start_method,
        device=device,
        seed=seed,
        shuffle=shuffle,
        amp=amp,
        deterministic=deterministic,
    )
    places = _places(data_dir)
    spec.require_apart(**{"--data-dir": places.data_dir, "--results": results})
    records.require_writable(results)
    outcome = runner.run(spec, places, console.make_progress(), repair=yes)
    if json:
        console.out(outcome.record.to_json())
    elif outcome.record.status == "ok":
        console.show(outcome.record)
    # Written last, so that a full disk does not take the result from the user's eyes.
    console.say(f"Record: {records.write(outcome.record, results)}")
    _require_ok(outcome.record, outcome.trace)


@app.command(epilog="Example:  bench prepare --backend hdf5 --dataset cifar10 --option compression=gzip")
@dataset_flags
def prepare(
    *,
    dataset_options: dict[str, Any],
    backend: Backend,
    dataset: Dataset,
    option: Options = None,
    data_dir: DataDir = None,
    source: Source = "auto",
    split: SplitName = "train",
    limit: Limit = None,
    yes: Yes = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build the store again even if it is intact.")] = False,
) -> None:
    """Build and verify a store without running anything."""
    from bench import console
    from bench.isolated import prepare as build
    from bench.spec import StoreSpec, make_spec

    which = {"dataset": dataset, "source": source, "split": split, "limit": limit}
    spec = make_spec(StoreSpec, option or [], dataset_options=dataset_options, backend=backend, **which)
    places = _places(data_dir)
    spec.require_apart(**{"--data-dir": places.data_dir})
    store = build(spec, places.data_dir, places.search, console.make_progress(), repair=yes, rebuild=rebuild)
    known = store.manifest
    growth_mb = (known.prepare_peak_rss_bytes - known.prepare_baseline_rss_bytes) / 1e6
    decoding = console.decoding_text(known.decoding)
    kept = "" if store.built else ". It was there already: these are the figures of when it was built"
    loss = f", lossy (PSNR {known.lossy.psnr_db:.1f} dB)" if known.lossy else ""
    console.out(
        f"{backend}: {known.count:,} samples of {dataset} ({known.origin}), {known.size_bytes / 1e6:,.1f} MB in "
        f"{known.file_count:,} files, {decoding}, written in {known.prepare_s:.2f} s (memory +{growth_mb:.0f} MB), "
        f"verified in {known.verify_s:.2f} s{loss}{kept}\n{store.path}"
    )


@app.command(epilog="Example:  bench verify --backend zarr --dataset cifar10")
@dataset_flags
def verify(
    *,
    dataset_options: dict[str, Any],
    backend: Backend,
    dataset: Dataset,
    option: Options = None,
    data_dir: DataDir = None,
    source: Source = "auto",
    split: SplitName = "train",
    limit: Limit = None,
) -> None:
    """Compare every sample of a store with its source."""
    from bench import console
    from bench.isolated import verify as check
    from bench.spec import StoreSpec, make_spec
    from bench.store import damaged

    which = {"dataset": dataset, "source": source, "split": split, "limit": limit}
    spec = make_spec(StoreSpec, option or [], dataset_options=dataset_options, backend=backend, **which)
    places = _places(data_dir)
    store, result = check(spec, places.data_dir, places.search, console.make_progress())
    if result.problem is not None:
        raise BenchError(damaged(store.path, result.problem))
    proof = "every sample equals its source" if result.psnr_db is None else f"lossy, PSNR {result.psnr_db:.1f} dB"
    console.out(f"{backend}: {store.manifest.count:,} samples of {dataset} ({store.manifest.origin}): {proof}")


@app.command(epilog="Example:  bench inspect folder:~/photos --size 224")
@dataset_flags
def inspect(
    *,
    dataset_options: dict[str, Any],
    dataset: Annotated[str, typer.Argument(metavar="NAME|NAME:PATH", help="Data set.")],
    source: Source = "auto",
    data_dir: DataDir = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Where the picture goes. Default: inspect-NAME.png in the results folder.", show_default=False
        ),
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Show what a data set holds, and draw some of its samples."""
    from bench import console, inspection, isolated
    from bench.report.content import content_tables
    from bench.spec import DataSpec, make_spec

    spec = make_spec(DataSpec, [], dataset=dataset, dataset_options=dataset_options, source=source)
    places = _places(data_dir)
    target = sheet or results / f"inspect-{spec.dataset_label}.png"
    spec.require_apart(**{"--data-dir": places.data_dir, "--sheet" if sheet else "--results": target.parent})
    found = isolated.call(inspection.inspect, (spec, places.data_dir, places.search, target), console.make_progress())
    for table in content_tables(found):
        console.print_table(table)
        console.out("")
    if found.sheet is not None:
        console.out(f"Samples of {found.sheet_split} drawn in {found.sheet}")


@app.command("list", epilog="Example:  bench list backends zarr")
def list_(
    what: Annotated[Literal["backends", "datasets", "models", "runs"], typer.Argument(help="What to list.")],
    name: Annotated[str | None, typer.Argument(help="With backends or datasets: show the options of one.")] = None,
    data_dir: DataDir = None,
    results: Results = Path("results"),
) -> None:
    """List backends, data sets, models or runs, and whether each is usable here."""
    from bench import console, listing

    if what == "backends":
        console.print_table(listing.backends() if name is None else listing.backend_options(name))
    elif what == "datasets":
        places = _places(data_dir)
        console.print_table(listing.datasets(places.search) if name is None else listing.dataset_options(name))
    elif what == "models":
        console.print_table(listing.models())
    else:
        table, errors = listing.runs(results)
        console.print_table(table)
        for error in errors:
            console.say(f"bench: {error}")


@app.command(epilog="Example:  bench show last")
def show(
    run: Annotated[str, typer.Argument(help="A record's file, the start of its name, or last.")],
    results: Results = Path("results"),
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    into: Annotated[
        Path | None,
        typer.Option(help="Write the result between <!-- bench show --> and <!-- /bench show --> of this file."),
    ] = None,
) -> None:
    """Show the result of a run again."""
    from bench import console
    from bench import results as records
    from bench.report import document

    _, record = records.find(run, results)
    if into is not None:
        document.update(into, "bench show", console.plain(record))
    elif json:
        console.out(record.to_json())
    else:
        console.show(record)
    _require_ok(record, None)


@app.command(epilog="Example:  bench table --results results/reference --format markdown --into README.md")
def table(
    results: Results = Path("results"),
    format: Annotated[Literal["terminal", "markdown"], typer.Option(help="Syntax of the table.")] = "terminal",
    into: Annotated[
        Path | None,
        typer.Option(help="Write Markdown between <!-- bench table --> and <!-- /bench table --> of this file."),
    ] = None,
) -> None:
    """Compare all finished runs of a folder."""
    from bench import console
    from bench import results as records
    from bench.report import document, render
    from bench.report.tables import comparison_table

    found, errors = records.read_all(results)
    for error in errors:
        console.say(f"bench: {error}")
    if not found:
        raise records.ResultsError(f"No records in {results}. Make one with `bench run`, or choose --results.")
    compared = comparison_table([record for _, record in found])
    if into is not None:
        document.update(into, "bench table", render.markdown(compared))
    elif format == "markdown":
        console.out(render.markdown(compared))
    else:
        console.print_table(compared)


@app.command(epilog="Example:  bench clean --backend zarr --yes")
def clean(
    backend: Annotated[str | None, typer.Option(help="Only stores of this backend.", show_default=False)] = None,
    dataset: Annotated[str | None, typer.Option(help="Only stores of this data set.", show_default=False)] = None,
    downloads: Annotated[
        bool, typer.Option("--downloads", help="Remove downloads, and what was unpacked, too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Remove prepared stores, decoded samples, and what interrupted work left behind."""
    from bench import cleaning, console

    doomed = cleaning.find(_places(data_dir).data_dir, backend, dataset, downloads=downloads)
    if not doomed:
        console.out("Nothing to remove.")
        return
    for item in doomed:
        console.out(f"{item.size_bytes / 1e6:10,.1f} MB  {item.path}")
    if dry_run:
        return
    if not yes and not typer.confirm(f"Remove these {len(doomed)} items?", err=True):
        return
    freed = sum(cleaning.remove(item) for item in doomed)
    console.out(f"Freed {freed / 1e6:,.1f} MB.")


def _places(data_dir: Path | None) -> Places:
    from platformdirs import user_cache_path

    from bench.runner import Places

    configured = [Path(os.environ["BENCH_DATA"])] if os.environ.get("BENCH_DATA") else []
    candidates = [*([data_dir] if data_dir else []), *configured, user_cache_path("dataset-bench")]
    search = tuple(dict.fromkeys(path.expanduser().absolute() for path in candidates))
    return Places(search[0], search)


def _require_ok(record: RunRecord, trace: str | None) -> None:
    if record.error is not None:
        code = INTERRUPTED if record.status == "interrupted" else 1
        text = f"{record.status} while in phase {record.error.phase}: {record.error.message}"
        raise RunFailedError(text, code, trace)
