"""What to call works on the page: short, and different where they are different."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from bench.records.groups import Work
from bench.records.record import RunRecord
from bench.report.distinctions import distinctions
from bench.report.tables import cache_text, data_label, differing_options
from bench.specs.spec import NO_MODEL


def facets(work: Work, shown: Collection[str]) -> dict[str, str]:
    """Return by what a work can be found: data, with those of its options that are ``shown``, model, cache, device."""
    record = work.first
    return {
        "data": data_label(record, shown),
        "model": "loading alone" if record.spec.model == NO_MODEL else record.spec.model,
        "cache": _cache(record),
        "device": record.device or record.spec.device,
    }


def _cache(record: RunRecord) -> str:
    # How much of a store was in memory is a fact of each run, and no part of what was asked for.
    return "cache as it was" if record.cache.asked == "as-is" else f"cache {cache_text(record)}"


def all_facets(works: Sequence[Work]) -> list[dict[str, str]]:
    """Return the facets of each work, with the options of its data set that are not the same in all works."""
    shown = differing_options([work.first for work in works])
    return [facets(work, shown[work.first.spec.dataset]) for work in works]


def work_titles(works: Sequence[Work]) -> list[str]:
    """Return a title for each work, with in what it differs from others of the same data, model, cache and device."""
    short = [", ".join(found.values()) for found in all_facets(works)]
    titles = [", ".join([title, *words]) for title, words in zip(short, distinctions(works, short), strict=True)]
    return unique(titles, [f"no. {number + 1}" for number in range(len(works))])


def unique(names: Sequence[str], marks: Sequence[str]) -> list[str]:
    """Return the names, with their mark behind those that are there more than once."""
    for_each = [
        name if count == 1 else f"{name} ({mark})"
        for name, mark, count in zip(names, marks, (Counter(names)[name] for name in names), strict=True)
    ]
    if len(set(for_each)) == len(for_each):
        return for_each
    return [f"{name} no. {number + 1}" for number, name in enumerate(for_each)]
