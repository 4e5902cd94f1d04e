"""Commands about data: prepare, verify, inspect, clean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.commands.flags import (
    Backend,
    DataDir,
    Dataset,
    Limit,
    Options,
    Results,
    Source,
    SplitName,
    Yes,
    dataset_flags,
)
from bench.commands.places import places
from bench.contracts.errors import BenchError
from bench.files import require_place


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
    from bench.specs.spec import StoreSpec, make_spec
    from bench.stores.isolated import prepare as build

    which = {"dataset": dataset, "source": source, "split": split, "limit": limit}
    spec = make_spec(StoreSpec, option or [], dataset_options=dataset_options, backend=backend, **which)
    where = places(data_dir)
    spec.require_apart(**{"--data-dir": where.data_dir})
    store = build(spec, where.data_dir, where.search, console.make_progress(), repair=yes, rebuild=rebuild)
    known = store.manifest
    growth_mb = (known.prepare_peak_rss_bytes - known.prepare_baseline_rss_bytes) / 1e6
    decoding = console.decoding_text(known.decoding)
    kept = "" if store.built else ". It was there already: these are the figures of when it was built"
    loss = f", lossy (PSNR {known.lossy.psnr_db:.1f} dB)" if known.lossy else ""
    console.out(
        f"{backend}: {known.count:,} samples of {dataset} ({known.origin}), {store.disk_bytes / 1e6:,.1f} MB on disk "
        f"in {known.file_count:,} files, {decoding}, written in {known.prepare_s:.2f} s (memory +{growth_mb:.0f} MB), "
        f"verified in {known.verify_s:.2f} s{loss}{kept}\n{store.path}"
    )


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
    from bench.specs.spec import StoreSpec, make_spec
    from bench.stores.isolated import verify as check
    from bench.stores.store import damaged

    which = {"dataset": dataset, "source": source, "split": split, "limit": limit}
    spec = make_spec(StoreSpec, option or [], dataset_options=dataset_options, backend=backend, **which)
    where = places(data_dir)
    store, result = check(spec, where.data_dir, where.search, console.make_progress())
    if result.problem is not None:
        raise BenchError(damaged(store.path, result.problem))
    proof = "every sample equals its source" if result.psnr_db is None else f"lossy, PSNR {result.psnr_db:.1f} dB"
    console.out(f"{backend}: {store.manifest.count:,} samples of {dataset} ({store.manifest.origin}): {proof}")


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
            metavar="FILE",
            help="Where the picture goes: a .png that is there is replaced. Default: inspect-NAME.png in the results "
            "folder.",
            show_default=False,
        ),
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Show what a data set holds, and draw some of its samples."""
    from bench import console
    from bench.report.content import content_tables
    from bench.specs.spec import DataSpec, make_spec
    from bench.stores import inspection, isolated

    spec = make_spec(DataSpec, [], dataset=dataset, dataset_options=dataset_options, source=source)
    where = places(data_dir)
    target = sheet or results / f"inspect-{spec.dataset_label}.png"
    spec.require_apart(**{"--data-dir": where.data_dir, "--sheet" if sheet else "--results": target.parent})
    if sheet is not None and sheet.absolute().parent.is_dir():
        # Before all is read, and so that no file of another kind is lost.
        require_place(sheet, "--sheet", (".png",))
    found = isolated.call(inspection.inspect, (spec, where.data_dir, where.search, target), console.make_progress())
    for table in content_tables(found):
        console.print_table(table)
        console.out("")
    if found.sheet is not None:
        console.out(f"Samples of {found.sheet_split} drawn in {found.sheet}")


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
    from bench import console
    from bench.stores import cleaning

    doomed = cleaning.find(places(data_dir).data_dir, backend, dataset, downloads=downloads)
    if not doomed:
        console.out("Nothing to remove.")
        return
    for item in doomed:
        console.out(f"{item.disk_bytes / 1e6:10,.1f} MB  {item.path}")
    if dry_run:
        return
    if not yes and not typer.confirm(f"Remove these {len(doomed)} items?", err=True):
        return
    freed = sum(cleaning.remove(item) for item in doomed)
    console.out(f"Freed {freed / 1e6:,.1f} MB.")
