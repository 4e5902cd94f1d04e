"""The content of the page: works with their methods, and what became of the other runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench import __version__
from bench.comparisons.ranking import rank
from bench.page.circumstances import environment, failures, warnings
from bench.page.equality import equality
from bench.page.labels import all_facets, work_titles
from bench.page.learned import KeptTests, folds, validations
from bench.page.methods import POINT_METRICS, accuracies, method, number, time_line
from bench.page.past import past
from bench.page.verdict import judge
from bench.records.bottleneck import common_ceiling_s
from bench.records.groups import Group, Work, asked, equal_runs, finished, same_work
from bench.records.metrics import METRICS
from bench.records.record import RunRecord
from bench.report.cells import judge as judge_metric
from bench.report.labels import Methods
from bench.report.tables import COMPARED_METRICS, sample_text
from bench.specs import augmentation
from bench.specs.spec import content_hash

Failures = Counter[tuple[str, str, str | None]]
"""How many runs gave no result, by what was asked for, spec and device."""

COLUMNS = (*COMPARED_METRICS, "wait_p99_ms", "read_amplification", "files", "vram_allocated_mb")

LINES_PER_WORK = 8
LINES = 160
"""Time lines are large, so they are kept for the fastest methods of a work, and for so many in all."""


def page_content(records: Sequence[RunRecord], made_at: str, unreadable: Sequence[str] = ()) -> dict[str, Any]:
    """Return all that the page shows, as values that JSON knows. Text is plain: nothing is escaped here.

    ``made_at`` is when, in words; ``unreadable`` says of files why they could not be read.
    """
    # The largest first; of equal ones, since sorting is stable, the newest.
    works = sorted(same_work(equal_runs(finished(records))), key=_newest, reverse=True)
    works.sort(key=lambda work: -len(work.records))
    titles, found_by = work_titles(works), all_facets(works)
    without_result = Counter((asked(r), r.spec_id, r.device) for r in records if r.status != "ok")
    keys = {key for key in METRICS if any(METRICS[key].of(record) is not None for record in finished(records))}
    lines_left, contents, tests = LINES, [], KeptTests()
    for work, title, facets in zip(works, titles, found_by, strict=True):
        lines = min(lines_left, LINES_PER_WORK)
        lines_left -= lines
        named = {"id": content_hash(title)[:10], "title": title, "facets": facets}
        contents.append(named | _work(work, without_result, lines, tests))
    return {
        "bench": __version__,
        "made_at": made_at,
        "runs": len(records),
        "finished": len(finished(records)),
        "metrics": {
            key: {"label": METRICS[key].label.strip(), "unit": METRICS[key].unit, "better": METRICS[key].better}
            for key in METRICS
            if key in keys
        },
        "columns": [key for key in dict.fromkeys(COLUMNS) if key in keys],
        "points": [key for key in POINT_METRICS if key in keys],
        "works": contents,
        "past": past(records),
        "classes": tests.classes,
        "folds": folds(records),
        "failures": failures(records),
        "unreadable": list(unreadable),
    }


def _newest(work: Work) -> str:
    return max(record.started_at for record in work.records)


def _failed(group: Group, without_result: Failures) -> int:
    """Return how many runs without a result were to do what a group did on such a machine; a device may be unknown."""
    runs = {(asked(record), record.spec_id) for record in group.records}
    return sum(without_result[(*run, device)] for run in runs for device in {None, group.first.device})


def _work(work: Work, without_result: Failures, lines: int, tests: KeptTests) -> dict[str, Any]:
    ranking = rank(work, "epoch_s")
    places = {group: place for place, group in enumerate(ranking.groups)}
    ordered = Work(tuple(sorted(work.groups, key=lambda group: places.get(group, len(places)))))
    firsts = [group.first for group in ordered.groups]
    names = Methods(ordered.records, spoken=True)
    labels = names.unique(firsts)
    verdict = judge(ordered, labels, ranking)
    equal = equality(ordered, labels)
    methods = []
    for group, label, family in zip(ordered.groups, labels, map(names.family, firsts), strict=True):
        failed = _failed(group, without_result)
        methods.append(method(group, label, family, ranking.contrasts.get(group), failed))
    kept, tested = tests.of(ordered)
    curves, validated = accuracies(ordered.groups), validations(ordered)
    for found, losses, curve, after, place in zip(methods, equal.losses, curves, validated, tested, strict=True):
        found |= {"losses": [losses.equal, losses.where], "curve": curve, "validated": after, "test": place}
    for key in COLUMNS:
        # As `bench table` marks them: the best median may be one of many that were not told apart.
        judged = judge_metric(ordered.groups, key)
        for found, group in zip(methods, ordered.groups, strict=True):
            if judged.is_best(group):
                found["metrics"][key]["best"] = True
    for found, group in zip(methods[:lines], ordered.groups, strict=False):
        found["line"] = time_line(group)
    return {
        "runs": len(work.records),
        "newest": _newest(work)[:10],
        "about": _about(work),
        "ideal_s": number(common_ceiling_s(work.records)),
        "verdict": {
            "headline": verdict.headline,
            "sureness": verdict.sureness,
            "why": verdict.why,
            "also": verdict.also,
            "doubts": verdict.doubts,
            "best": verdict.best,
            "shown": ranking.shown and verdict.sureness != "not shown",
            "close": verdict.close,
        },
        "equality": {"equal": equal.equal, "text": equal.text, "evaluated": equal.evaluated},
        "tests": kept,
        "methods": methods,
        "warnings": warnings(ordered, labels),
        "environment": environment(work.records),
    }


def _about(work: Work) -> str:
    record = work.first
    counted, spec = len(record.measured()), record.spec
    samples = f"{record.data.count:,} samples of {sample_text(record)}" if record.data else "unknown samples"
    warmups = len(record.epochs) - counted
    epochs = (
        f"{counted} counted {'epoch' if counted == 1 else 'epochs'}{f' after {warmups} to warm up' if warmups else ''}"
    )
    switches = ("amp", "compile", "channels_last", "deterministic")
    words = [name.replace("_", " ") for name in switches if getattr(spec, name)]
    words += [f"augmented by {augmentation.text(spec.augment)}"] if spec.augment else []
    return ", ".join([samples, f"batch {spec.batch_size}", epochs, f"seed {spec.seed}", *words]) + "."
