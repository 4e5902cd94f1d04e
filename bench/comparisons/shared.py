"""Which runs of several groups were made in turns with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.records.groups import Group
from bench.records.record import RunRecord


def shared_runs(group: Group, groups: Sequence[Group]) -> dict[Group, list[RunRecord]]:
    """Return the runs, by group, of the campaign in which ``group`` ran with most of ``groups``; the newest of several.

    Empty where it ran with no other one.
    """
    campaigns: dict[str, dict[Group, list[RunRecord]]] = {}
    for member in groups:
        for record in member.records:
            if record.campaign is not None:
                campaigns.setdefault(record.campaign.id, {}).setdefault(member, []).append(record)
    shared = [runs for runs in campaigns.values() if group in runs and len(runs) > 1]
    return max(shared, key=lambda runs: (len(runs), _last_start(runs)), default={})


def _last_start(runs: Mapping[Group, Sequence[RunRecord]]) -> str:
    # Names of campaigns tell nothing of when they were: some begin with a date, others with a word.
    return max(record.started_at for of in runs.values() for record in of)


def cell_name(runs: Sequence[RunRecord]) -> str:
    """Return the name that the runs of a group have in their campaign."""
    campaign = runs[0].campaign
    assert campaign is not None  # noqa: S101  # only such are asked for
    return campaign.cell
