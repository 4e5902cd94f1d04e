"""Command ``bench advise``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.commands.cells import named_cells
from bench.commands.durations import duration_s
from bench.commands.flags import DataDir, Results, dataset_flags
from bench.commands.outcome import INTERRUPTED, RunFailedError
from bench.commands.places import places
from bench.commands.work import work_flags
from bench.contracts.errors import BenchError
from bench.runs.attempt import Attempt

if TYPE_CHECKING:
    from bench.campaigns.survey import Surveyed
    from bench.comparisons.advice import Advice
    from bench.records.record import RunRecord
    from bench.specs.spec import RunSpec

LEAST_BUDGET_S = 30.0
_OWN_FLAGS = {"aim", "dataset", "lossy", "where", "training", "results", "format", "into"}


class AdviseError(BenchError):
    """Flags that do not go together, or that leave nothing."""


@dataset_flags
@work_flags
def advise(
    *,
    dataset_options: dict[str, Any],
    work: dict[str, Any],
    attempt: Attempt,
    context: typer.Context,
    aim: Annotated[
        Literal["speed", "disk", "ram", "remote", "balanced"],
        typer.Option("--for", help="What counts; remote is storage over a network. The advice says what it means."),
    ] = "balanced",
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|NAME:PATH",
            help="Measure first, on this data set. Without it, advice comes from the records in --results.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="With --dataset: what that may take: 90s, 5m, 1h.")
    ] = "5m",
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,KEY=VALUE…]",
            help="With --dataset: try this one, with options of its own, or workers, worker-kind and prefetch; "
            "repeatable. Default: all that are usable here, with their best reader.",
            show_default=False,
        ),
    ] = None,
    lossy: Annotated[
        bool,
        typer.Option("--lossy", help="Also advise formats that change the samples (JPEG); with --dataset, try them."),
    ] = False,
    order_seed: Annotated[int, typer.Option(help="With --dataset: seed of the order of runs.", min=0)] = 0,
    keep_stores: Annotated[
        bool, typer.Option("--keep-stores", help="With --dataset: keep the stores that were built for it.")
    ] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Take only records with this value of a run's setting, like model=cnn or cache=cold; repeatable.",
        ),
    ] = None,
    training: Annotated[
        int, typer.Option(metavar="EPOCHS", help="How long your training is, for --for balanced.", min=1)
    ] = 10,
    data_dir: DataDir = None,
    results: Results = Path("results"),
    format: Annotated[Literal["terminal", "markdown", "json"], typer.Option(help="How to print it.")] = "terminal",
    into: Annotated[
        Path | None,
        typer.Option(help="Write it in short between <!-- bench advise --> and <!-- /bench advise --> of this file."),
    ] = None,
) -> None:
    """Say which format to take, why, and what would change that: from records, or from a short measurement."""
    from bench import console
    from bench.records import results as folder

    if dataset is None:
        _refuse_run_flags(context)
        found, unread = folder.read_all(results)
        for error in unread:
            console.say(f"bench: {error}")
        records = _matching([record for _, record in found], where or [])
        _show(*_advice(records, records, aim, training, lossy=lossy), format, into)
        return
    if where:
        raise AdviseError("--where chooses among records: leave it out, or leave out --dataset.")
    budget_s = duration_s("--budget", budget, LEAST_BUDGET_S)
    cells = named_cells(backend or _usable(work["device"], lossy=lossy), dataset, dataset_options, work)
    if len(cells) < 2:
        raise AdviseError("There is nothing to choose from: name two backends at least, or none to try all.")
    surveyed = _measure(cells, attempt, budget_s, aim, order_seed, data_dir, results, keep_stores=keep_stores)
    notes = _survey_notes(surveyed, budget_s, results)
    if surveyed.interrupted and not surveyed.blocks:
        raise RunFailedError("Interrupted before anything was compared.", INTERRUPTED, None)
    everything = [record for _, record in folder.read_all(results)[0]]
    # Who names one wants to hear of it.
    lossy = lossy or any(spec.open_backend().capabilities.lossy for spec in cells.values())
    advice, _ = _advice(surveyed.records, everything, aim, training, lossy=lossy)
    _show(advice, notes, format, into)
    if surveyed.interrupted:
        raise RunFailedError("Interrupted; the advice above rests on what was done until then.", INTERRUPTED, None)


def _advice(
    records: list[RunRecord], everything: list[RunRecord], aim: str, training: int, *, lossy: bool
) -> tuple[Advice, list[str]]:
    from bench.comparisons import advice
    from bench.report.tables import caches_text, data_label, work_text

    chosen, others = advice.choose_work(records)
    own = {id(record) for record in chosen.records}
    if everything is not records:
        # What was measured just now decides; what else is known says what would change that.
        spec_ids = {(record.spec_id, record.started_at) for record in chosen.records}
        rest = [r for r in everything if id(r) not in own and (r.spec_id, r.started_at) not in spec_ids]
        others = advice.works_of(rest)
    first = chosen.first
    notes = [
        f"By {len(chosen.records)} runs: {data_label(first)}, model {first.spec.model}, {work_text(first)}, page cache "
        f"{caches_text(chosen.records)}."
    ]
    if others and everything is records:
        more = "other kind" if len(others) == 1 else "other kinds"
        notes.append(f"There are {len(others)} {more} of work in the records. --where KEY=VALUE chooses among them.")
    return advice.advise(chosen, aim, others, training, lossy=lossy), notes


def _matching(records: list[RunRecord], where: list[str]) -> list[RunRecord]:
    from bench.specs.spec import RunSpec, split_pairs

    for key, value in split_pairs("--where", where, "Write it like model=cnn.").items():
        name = key.replace("-", "_")
        if name not in RunSpec.model_fields:
            raise AdviseError(f"--where {key}: unknown. Known are: {', '.join(RunSpec.model_fields)}.")
        kept = [record for record in records if _text(getattr(record.spec, name)) == value]
        if records and not kept:
            there = ", ".join(sorted({_text(getattr(record.spec, name)) for record in records}))
            raise AdviseError(f"--where {key}={value}: no record has that. There are: {there}.")
        records = kept
    return records


def _text(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _refuse_run_flags(context: typer.Context) -> None:
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name not in _OWN_FLAGS and source is not None and source.name == "COMMANDLINE":
            flag = parameter.opts[0]
            raise AdviseError(f"{flag} goes with --dataset, which measures. Records are chosen by --where KEY=VALUE.")


def _usable(device: str, *, lossy: bool) -> list[str]:
    """Return all backends that can run here, with the reader that is known to be fastest, as NAME,KEY=VALUE."""
    from bench import console, registry

    found = []
    for name, entry in registry.backends().items():
        if missing := entry.missing():
            console.say(f"Left out: {name}: needs {' and '.join(missing)}.")
            continue
        try:
            cls = registry.backend_class(name)
            variants = list(_variants(name, cls, lossy=lossy))
            reason = cls(cls.options_type()).unsupported_device(device)
        except BenchError as error:
            console.say(f"Left out: {name}: {error}")
            continue
        if reason:
            console.say(f"Left out: {name}: {reason}")
        else:
            found += variants
    return found


def _variants(name: str, cls: Any, *, lossy: bool) -> Iterator[str]:
    from bench.campaigns.search_space import choices
    from bench.specs.spec import validated_options

    fields = cls.options_type.model_fields
    reader = fields.get("reader")
    # A default of None means that the backend chooses by the data, which nobody knows better.
    mapped = reader is not None and reader.default is not None and "mapped" in choices(reader.annotation)
    yield f"{name},reader=mapped" if mapped and reader.default != "mapped" else name
    if not lossy:
        return
    for key, field in fields.items():
        for value in choices(field.annotation):
            try:
                changed = cls(validated_options(cls, {key: value})).capabilities.lossy
            except BenchError:
                # A value that goes with others alone.
                continue
            if changed:
                yield f"{name},{key}={value}"


def _measure(
    cells: dict[str, RunSpec],
    attempt: Attempt,
    budget_s: float,
    aim: str,
    order_seed: int,
    data_dir: Path | None,
    results: Path,
    *,
    keep_stores: bool,
) -> Surveyed:
    from bench import console
    from bench.campaigns.series import Series, new_identity
    from bench.campaigns.survey import Survey
    from bench.comparisons.advice import AIMS
    from bench.records import results as folder
    from bench.stores import isolated
    from bench.stores.prepare import extent

    where = places(data_dir)
    for spec in cells.values():
        spec.require_apart(**{"--data-dir": where.data_dir, "--results": results})
    folder.require_writable(results)
    first = next(iter(cells.values()))
    total, _ = isolated.call(extent, (first, where.data_dir, where.search), console.make_progress())
    told: set[str] = set()
    identity = f"{new_identity(first.dataset_label)}-advise"
    series = Series(identity, order_seed, 1, where, results, lambda: console.QuietProgress(told))
    criterion = next(iter(AIMS[aim].criteria), "epoch_s")
    survey = Survey(
        cells,
        total,
        series,
        attempt,
        budget_s=budget_s,
        criterion=criterion,
        keep_stores=keep_stores,
        say=console.say,
    )
    return survey.run()


def _survey_notes(surveyed: Surveyed, budget_s: float, results: Path) -> list[str]:
    notes = [
        f"Measured in {surveyed.elapsed_s:.0f} s of a budget of {budget_s:.0f} s: {surveyed.blocks} blocks on "
        f"{surveyed.samples:,} of {surveyed.total:,} samples. Records of {surveyed.identity}: {results}."
    ]
    if not surveyed.enough:
        notes.append("The budget sufficed for too few blocks to show any difference. A longer --budget can.")
    if surveyed.samples < surveyed.total:
        notes.append("A part of the samples may behave differently from all of them. A longer --budget measures more.")
    return notes + [f"Left out: {name}: {reason}." for name, reason in surveyed.dropped.items()]


def _show(advice: Advice, notes: list[str], format: str, into: Path | None) -> None:
    from bench import console
    from bench.report import advised, document, render

    if into is not None:
        document.update(into, "bench advise", "\n".join(f"- {text}" for text in advised.verdict(advice)))
        return
    if format == "json":
        console.out(advised.to_json(advice, notes))
        return
    table, text = advised.advised_table(advice), [*advised.sentences(advice), *notes]
    if format == "markdown":
        console.out("\n".join([*(f"- {sentence}" for sentence in text), "", render.markdown(table)]))
    else:
        console.print_table(table)
        console.out("\n" + "\n".join(text))
