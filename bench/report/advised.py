"""Advice as a table, as sentences, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.comparisons.advice import Advice
from bench.comparisons.comparison import NO_DIFFERENCE
from bench.comparisons.criteria import Step
from bench.comparisons.tradeoffs import PARETO_METRICS, TOLERANCES, Noise
from bench.records.bottleneck import NEGLIGIBLE_SHARE, gain_share, only_waits, possible_over
from bench.records.groups import Group, Work
from bench.records.metrics import METRICS, Metric, significant
from bench.report.labels import Methods
from bench.report.lossy import lossy_note
from bench.report.ratios import IMPOSSIBLE, decimals, impossible
from bench.report.reruns import backend_text
from bench.report.tables import Table, caches_text, data_label, machine_text, sample_text, work_text
from bench.report.what_if import break_even_text, what_if
from bench.specs.spec import NO_MODEL

_SHOWN = ("epoch_s", "over_ceiling", "store_mb", "files", "peak_pss_mb", "prepare_s")
_REMOTE = ("storage_read_mb", "read_calls")


def labels(work: Work) -> dict[Group, str]:
    """Return a name for each group of a work: the backend, its reader, and what else tells them apart."""
    names = Methods(work.records, spoken=True).unique([group.first for group in work.groups])
    return dict(zip(work.groups, names, strict=True))


def advised_table(advice: Advice) -> Table:
    """Return one row per group, the recommended one first, with how to read it as notes."""
    names, runs = labels(advice.work), advice.work.records
    keys = [*_SHOWN, *(_REMOTE if advice.aim.name == "remote" else ())]
    metrics = [METRICS[key] for key in keys if any(group.summary(key) for group in advice.groups)]
    columns = ["", "backend", *(f"{m.label}, {m.unit}" for m in metrics), f"epoch, of {names[advice.recommended]}'s"]
    columns += ["Pareto set"]
    rows = [
        [
            str(number),
            names[group],
            *(_value(group, metric) for metric in metrics),
            _ratio(advice, group),
            "yes" if group in advice.pareto else "",
        ]
        for number, group in enumerate(advice.groups, 1)
    ]
    record = advice.work.first
    work = "loading alone" if record.spec.model == NO_MODEL else f"training {record.spec.model}"
    title = f"Advice for {advice.aim.name} on {data_label(record)}: {work}, {work_text(record)}"
    floors = ", ".join(
        f"{METRICS[key].label} {_noise_text(advice.floors[key], METRICS[key].unit)}" for key in PARETO_METRICS
    )
    notes = [
        "Epoch: median over runs in fresh processes (95 % interval of it from 6 runs on, else the range). Epoch, of "
        "the first row's: median of the ratios within blocks (95 % interval), `faster` or `slower` only where that was "
        "shown, as `bench compare` does.",
        "Pareto set: no other row is better in epoch, store, peak RAM or preparation without being worse in another. "
        f"What counts as equal: {floors}.",
        f"Samples: {sample_text(record)}. Page cache: {caches_text(runs)}.",
    ]
    if any(impossible(group, "over_ceiling") for group in advice.groups):
        notes.append(f"n/a, {METRICS['over_ceiling'].label}: {IMPOSSIBLE}.")
    notes += [f"Measured on: {machine}." for machine in dict.fromkeys(machine_text(run) for run in runs)]
    return Table(title, columns, rows, notes, text_columns=2)


def _value(group: Group, metric: Metric) -> str:
    if metric.key == "epoch_s":
        return value_text(group, metric.key)
    return "n/a" if impossible(group, metric.key) else metric.text(group.counted)


def _noise_text(noise: Noise, unit: str) -> str:
    slack = f" and {significant(noise.slack, 2)} {unit}" if noise.slack else ""
    return f"{significant(100 * noise.share, 2)} %{slack} ({noise.source})"


def value_text(group: Group, key: str) -> str:
    """Return the median of a metric with its uncertainty: the interval, the range of few runs, or that it is one."""
    metric = METRICS[key]
    summary, interval = group.summary(key), group.interval(key)
    if summary is None:
        return "n/a"
    text = significant(summary.median, metric.digits)
    runs = len(group.counted)
    if summary.low == summary.high and runs > 1:
        return text
    if interval is not None:
        return (
            f"{text} ({significant(interval.low, metric.digits)}…{significant(interval.high, metric.digits)}, n={runs})"
        )
    if runs == 1:
        return f"{text} (one run)"
    return f"{text} ({significant(summary.low, metric.digits)}…{significant(summary.high, metric.digits)}, n={runs})"


def _ratio(advice: Advice, group: Group) -> str:
    if group is advice.recommended:
        return "1"
    contrast = advice.contrasts.get(group)
    if contrast is None or contrast.ratio is None:
        return "not in the same blocks"
    interval = contrast.interval
    digits = decimals(contrast.ratio, interval)
    span = f" ({interval.low:,.{digits}f}…{interval.high:,.{digits}f})" if interval else ""
    return f"{contrast.ratio:,.{digits}f}{span}, {contrast.verdict}"


def verdict(advice: Advice) -> list[str]:
    """Return the advice in short: whether storage matters, and what to take."""
    names = labels(advice.work)
    best = advice.recommended
    texts = [bottleneck_text(advice, names)]
    if advice.steps and not advice.shown and advice.steps[0].metric not in TOLERANCES:
        label = METRICS[advice.steps[0].metric].label
        texts.append(f"No one was shown to be the best by {label}, so what follows is what these runs suggest.")
    texts += [f"For {advice.aim.name} ({advice.aim.meaning}) take {names[best]}: --backend {backend_text(best.first)}"]
    if advice.lossy:
        lossy = lossy_note(
            ((names[group], group.first) for group in advice.lossy), "those, and left out without --lossy"
        )
    else:
        lossy = lossy_note((names[group], group.first) for group in advice.groups)
    return [*texts, lossy] if lossy else texts


def sentences(advice: Advice) -> list[str]:
    """Return the advice: whether storage matters, what to take and why, the Pareto set, and what would change it."""
    names = labels(advice.work)
    best = advice.recommended
    texts = verdict(advice)
    texts += [_step_text(step, names, last=step is advice.steps[-1]) for step in advice.steps]
    if advice.aim.name == "balanced":
        texts += _balance(advice, names)
    others = [group for group in advice.pareto if group is not best]
    if best in advice.pareto:
        also = f"; so is each of: {', '.join(names[group] for group in others)}" if others else "; no other one is"
        texts.append(f"Pareto set: {names[best]} is in it{also}.")
    else:
        texts.append(f"Pareto set: {_listed(others, names)}; {names[best]} is not in it.")
    texts += [break_even_text(point, names) for point in advice.break_evens]
    return [*texts, *what_if(advice, names)]


def bottleneck_text(advice: Advice, names: dict[Group, str]) -> str:
    """Return whether storage holds the training back, in a sentence."""
    found = advice.bottleneck
    fastest = names[found.fastest]
    over = "" if found.over is None else f"{significant(found.over, 2)} % over training from memory"
    wait = "" if found.wait is None else f"{significant(found.wait, 2)} % of its epoch spent waiting for data"
    known = ", ".join(text for text in (over, wait) if text)
    unclear = [group for group in found.unclear if group is not found.fastest]
    doubts = f" It cannot be told of {_figures(unclear, names)}." if unclear else ""
    if found.is_storage is None:
        has = f", which has {known}" if known else ""
        return f"Whether storage is the bottleneck is not known: {found.reason}. Fastest: {fastest}{has}."
    if found.is_storage:
        most = gain_share(found.fastest.counted)
        gain = "" if most is None else f"; storage can gain {significant(most, 2)} % of the epoch at most"
        return f"Storage is what a better format can still gain from: the fastest, {fastest}, has {known}{gain}."
    also = [group for group in found.free if group is not found.fastest]
    held = [group for group in advice.groups if group not in found.free and group not in found.unclear]
    where = "Storage need not be the bottleneck" if held or unclear else "Storage is not the bottleneck here"
    text = f"{where}: {fastest} has {known}, so no format can make training faster."
    if also:
        text += f" The same holds for {_listed(also, names)}: among these, the smaller and simpler one is the choice."
    return text + (f" It does hold back {_figures(held, names)}." if held else "") + doubts


def _figures(groups: Sequence[Group], names: dict[Group, str]) -> str:
    """Name groups, each with the figure that says how far storage holds it back, or both where they differ."""
    return ", ".join(f"{names[group]} ({_figure(group)})" for group in groups)


def _figure(group: Group) -> str:
    over, wait = possible_over(group.counted), group.summary("wait_share")
    waiting = "waiting unknown" if wait is None else f"{significant(wait.median, 2)} % waiting"
    if over is None:
        return waiting
    if wait is None or abs(over - wait.median) > NEGLIGIBLE_SHARE:
        return f"{waiting}, {significant(over, 2)} % over"
    return waiting if only_waits(group.first) else f"{significant(over, 2)} % over"


def _step_text(step: Step, names: dict[Group, str], *, last: bool) -> str:
    label = METRICS[step.metric].label
    if not step.tied:
        return f"By {label}: {step.reason}, so it decides nothing."
    best = step.tied[0]
    value = f"{names[best]} with {_with_unit(best, step.metric)}"
    worse = [f"{names[group]} {value_text(group, step.metric)}" for group in step.worse if group not in step.seems]
    behind = f" Behind: {', '.join(worse)}." if worse else ""
    if step.seems:
        seems = ", ".join(f"{names[group]} {value_text(group, step.metric)}" for group in step.seems)
        behind += f" Seemingly behind, though these runs cannot show it: {seems}."
    reason = "" if step.shown or not step.reason else f" ({step.reason.rstrip('.')})"
    if step.metric in TOLERANCES:
        found, equal, reason = "less than all others", "counted as equal:", "" if len(step.tied) > 1 else reason
    else:
        found, equal = "shown to be better than all others", "no difference shown between"
    if len(step.tied) == 1:
        told = found if step.shown else f"ahead, which was not shown{reason}"
        return f"By {label}: {value}, {told}.{behind}"
    decides = "" if last else " The next criterion decides."
    return f"By {label}: {equal} {_listed(step.tied, names)}{reason}; least: {value}.{behind}{decides}"


def _with_unit(group: Group, metric: str) -> str:
    unit = METRICS[metric].unit
    return value_text(group, metric) + ("" if unit == "files" else f" {unit}")


def _balance(advice: Advice, names: dict[Group, str]) -> list[str]:
    ranked = [(advice.factors[g], g) for g in advice.groups if g in advice.pareto and g in advice.factors]
    if not ranked:
        return ["Nothing could be balanced: store, RAM or preparation of the runs are unknown. This is by epoch alone."]
    parts = ", ".join(f"{names[group]} {significant(factor, 3)}" for factor, group in ranked[:5])
    return [
        f"Product of the factors to the best in time of {advice.training_epochs} epochs with preparation, store and "
        f"peak RAM: {parts}. This is a rule and no test: another one may suit you better, so choose with --for."
    ]


def _listed(groups: Sequence[Group], names: dict[Group, str]) -> str:
    texts = [names[group] for group in groups]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def to_json(advice: Advice, notes: Sequence[str] = ()) -> str:
    """Return all of it as JSON: values in the units of the metrics, intervals as [low, high], None where unknown."""
    names = labels(advice.work)
    content: dict[str, Any] = {
        "for": advice.aim.name,
        "meaning": advice.aim.meaning,
        "recommended": names[advice.recommended],
        "backend": backend_text(advice.recommended.first),
        "shown": advice.shown,
        "data": data_label(advice.work.first),
        "training_epochs": advice.training_epochs,
        "bottleneck": {
            "is_storage": advice.bottleneck.is_storage,
            "fastest": names[advice.bottleneck.fastest],
            "over_ceiling_percent": advice.bottleneck.over,
            "wait_share_percent": advice.bottleneck.wait,
            "as_fast_as_memory": [names[group] for group in advice.bottleneck.free],
            "not_clear": [names[group] for group in advice.bottleneck.unclear],
            "reason": advice.bottleneck.reason,
        },
        "rows": [_row_json(advice, group, names) for group in advice.groups],
        "left_out_as_lossy": [names[group] for group in advice.lossy],
        "steps": [
            {
                "metric": step.metric,
                "tied": [names[group] for group in step.tied],
                "worse": [names[group] for group in step.worse],
                "shown": step.shown,
                "reason": step.reason,
            }
            for step in advice.steps
        ],
        "noise": {metric: asdict(floor) for metric, floor in advice.floors.items()},
        "break_even": [
            {
                "faster": names[point.faster],
                "slower": names[point.slower],
                "extra_prepare_s": point.extra_prepare_s,
                "saved_s_per_epoch": point.saved_s,
                "saved_s_interval": [point.interval.low, point.interval.high],
                "epochs": point.epochs,
                "epochs_interval": [point.earliest, point.latest],
            }
            for point in advice.break_evens
        ],
        "what_would_change": what_if(advice, names),
        "notes": list(notes),
    }
    return json.dumps(content, indent=1)


def _row_json(advice: Advice, group: Group, names: dict[Group, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key in (*_SHOWN, *_REMOTE):
        summary, interval = group.summary(key), group.interval(key)
        values[key] = None if summary is None else {
            "median": summary.median,
            "interval": None if interval is None else [interval.low, interval.high],
            "range": [summary.low, summary.high],
        }  # fmt: skip
    contrast = advice.contrasts.get(group)
    return {
        "name": names[group],
        "backend": backend_text(group.first),
        "runs": len(group.counted),
        "pareto": group in advice.pareto,
        "balance": advice.factors.get(group),
        "values": values,
        "epoch_ratio": None if contrast is None else contrast.ratio,
        "verdict": NO_DIFFERENCE if contrast is None else contrast.verdict,
        "spec_ids": sorted({record.spec_id for record in group.records}),
    }
