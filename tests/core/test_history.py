"""Steps in series whose truth is known."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.records import results
from bench.records.record import CampaignInfo, RunRecord, read_record
from bench.regressions.history import HistoryError, series
from bench.report.historic import history_table, step_sentences

TEMPLATE = read_record(Path(__file__).parent / "records" / "version-2.json")
NOISE = [1.0, 1.01, 0.99, 1.02, 0.98, 1.005]


def at(number: int, epoch_s: float, *, zarr: str = "3.1.6", revision: str = "a" * 40, **changes) -> RunRecord:
    """A run of one epoch on the ``number``-th day, by a version of a library and a revision of the code."""
    environment = {
        **TEMPLATE.environment,
        "libraries": {"zarr": zarr},
        "git_revision": revision,
        "git_modified": False,
        "disturbance": {"canary_s": [changes.pop("canary_s", 0.04)] * 2},
    }
    epoch = TEMPLATE.epochs[-1].model_copy(update={"epoch_s": epoch_s, "warmup": False})
    started = f"2026-{1 + number // 28:02}-{1 + number % 28:02}T00:00:00.000000+00:00"
    update = {"status": "ok", "epochs": [epoch], "environment": environment, "started_at": started, "campaign": None}
    return TEMPLATE.model_copy(update={**update, **changes})


def of_batch(size: int) -> dict[str, object]:
    """What makes a run one of other work."""
    spec = TEMPLATE.spec.model_copy(update={"batch_size": size})
    return {"spec": spec, "spec_id": spec.spec_id}


def test_a_step_is_found_where_it_is_and_what_changed_there_is_named() -> None:
    before = [at(n, value) for n, value in enumerate(NOISE)]
    behind = [at(6 + n, 1.2 * value, zarr="3.2.0", revision="b" * 40) for n, value in enumerate(NOISE)]
    (trend,) = series([*behind, *before], "epoch_s")
    assert [point.value for point in trend.points][:6] == NOISE
    (step,) = trend.steps
    assert (step.index, step.ratio) == (6, pytest.approx(1.2))
    assert step.p < 0.05
    assert step.changed == ("revision aaaaaaaaa → bbbbbbbbb", "zarr 3.1.6 → 3.2.0")
    (text,) = step_sentences(trend)
    assert "1.200 times" in text
    assert "zarr 3.1.6 → 3.2.0" in text
    assert "fixed loop" not in text


def test_two_steps_are_found() -> None:
    values = [*NOISE, *(1.3 * v for v in NOISE), *(0.9 * v for v in NOISE)]
    (trend,) = series([at(n, value) for n, value in enumerate(values)], "epoch_s")
    assert [step.index for step in trend.steps] == [6, 12]
    assert [step.ratio for step in trend.steps] == pytest.approx([1.3, 0.9 / 1.3])


def test_a_single_disturbed_run_and_a_small_change_make_no_step() -> None:
    disturbed = [*NOISE, 5.0, *NOISE]
    assert series([at(n, value) for n, value in enumerate(disturbed)], "epoch_s")[0].steps == ()
    # Perfectly separated, but by less than what is worth a line.
    small = [1.0] * 6 + [1.03] * 6
    assert series([at(n, value) for n, value in enumerate(small)], "epoch_s")[0].steps == ()


def with_calls(number: int, calls: int) -> RunRecord:
    epoch = at(number, 1.0).epochs[0]
    return at(number, 1.0, epochs=[epoch.model_copy(update={"io": epoch.io.model_copy(update={"read_calls": calls})})])


@pytest.mark.parametrize(("before", "behind"), [(0, 1000), (1000, 0)])
def test_a_step_from_or_to_zero_is_told_without_a_ratio(before: int, behind: int) -> None:
    (trend,) = series([with_calls(n, before if n < 12 else behind) for n in range(24)], "read_calls")
    (step,) = trend.steps
    assert (step.index, step.before, step.behind, step.ratio) == (12, before, behind, None)
    (text,) = step_sentences(trend)
    assert f"from {before:,} to {behind:,} (p = " in text
    assert f"from {before:,} to {behind:,} (p = " in history_table(trend).rows[12][-1]


def test_one_series_among_many_has_to_show_more() -> None:
    """The p of each is adjusted for all that are shown together, and of those alone that could show a step."""
    stepped = [at(n, value) for n, value in enumerate([*NOISE[:5], *(1.2 * v for v in NOISE[:5])])]
    (alone,) = series(stepped, "epoch_s")
    random = np.random.default_rng(2)
    others = [
        at(n, float(value), **of_batch(1000 + number))
        for number in range(12)
        for n, value in enumerate(np.exp(random.normal(0, 0.2, 12)))
    ]
    short = [at(n, 1.0, **of_batch(10)) for n in range(4)]
    flat = [at(n, 1.0, **of_batch(20)) for n in range(12)]
    among_many = series([*stepped, *others], "epoch_s")
    assert len(alone.steps) == 1
    assert not any(trend.steps for trend in among_many)
    assert "after Holm for 13 series" in " ".join(history_table(among_many[0]).notes)
    beside_what_shows_nothing = series([*stepped, *short, *flat], "epoch_s")
    assert beside_what_shows_nothing[0] == alone


def test_a_step_of_the_machine_is_told() -> None:
    before = [at(n, value) for n, value in enumerate(NOISE)]
    behind = [at(6 + n, 1.2 * value, canary_s=0.048) for n, value in enumerate(NOISE)]
    (text,) = step_sentences(series([*before, *behind], "epoch_s")[0])
    assert "1.20 times as long" in text
    assert "No version is known to have changed" in text


def test_runs_of_one_comparison_are_one_point() -> None:
    place = CampaignInfo(id="c", seed=0, blocks=3, block=0, position=0, cell="a")
    records = [at(n, float(n + 1), campaign=place) for n in range(3)]
    (trend,) = series(records, "epoch_s")
    assert [(point.value, point.runs) for point in trend.points] == [(2.0, 3)]
    assert not trend.enough
    assert "Steps need 10 points; here are 1." in history_table(trend).notes


def test_a_comparison_that_went_on_with_another_version_is_a_point_for_each() -> None:
    place = CampaignInfo(id="c", seed=0, blocks=3, block=0, position=0, cell="a")
    records = [at(n, float(n + 1), zarr="3.2.0" if n else "3.1.6", campaign=place, revision="") for n in range(3)]
    (trend,) = series(records, "epoch_s")
    assert [(point.value, point.runs, point.versions["zarr"]) for point in trend.points] == [
        (1.0, 1, "3.1.6"),
        (2.5, 2, "3.2.0"),
    ]


def test_a_run_that_does_not_tell_its_machine_joins_no_two() -> None:
    def on(number: int, **environment: object) -> RunRecord:
        found = at(number, 1.0)
        return found.model_copy(update={"environment": {**found.environment, **environment}})

    one, other = {"cpu_quota_cores": 1.0}, {"cpu_quota_cores": 2.0}
    runs = [on(0), on(1, **one), on(2, **other), on(3, **one)]
    del runs[0].environment["cpu_quota_cores"]
    assert [[p.at[8:10] for p in trend.points] for trend in series(runs, "epoch_s")] == [["01", "02", "04"], ["03"]]


def test_other_work_data_and_machines_are_series_of_their_own() -> None:
    other_machine = at(3, 1.0)
    other_machine = other_machine.model_copy(update={"environment": {**other_machine.environment, "cpu": "another"}})
    other_data = at(4, 1.0, data=TEMPLATE.data.model_copy(update={"digest": "0" * 32}))
    failed = at(5, 1.0, status="failed")
    trends = series([at(0, 1.0), at(1, 1.0), other_machine, other_data, failed], "epoch_s")
    assert [len(trend.points) for trend in trends] == [2, 1, 1]


def test_what_was_asked_for_differently_and_did_the_same_is_one_series() -> None:
    def asked(number: int, **fields: object) -> RunRecord:
        spec = TEMPLATE.spec.model_copy(update=fields)
        return at(number, 1.0, spec=spec, spec_id=spec.spec_id)

    runs = [asked(0), asked(1, device="cpu"), asked(2, source="local:/x"), asked(3, batch_size=7), asked(4, seed=9)]
    assert [len(trend.points) for trend in series(runs, "epoch_s")] == [3, 1, 1]


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(HistoryError, match="no metric 'speed'"):
        series([at(0, 1.0)], "speed")


def test_the_command_prints_tables_and_json(tmp_path: Path) -> None:
    for n, value in enumerate([*NOISE, *(2 * v for v in NOISE)]):
        results.write(at(n, value), tmp_path)
    found = CliRunner().invoke(app, ["history", "--results", str(tmp_path), "--format", "markdown"])
    assert found.exit_code == 0, found.output
    assert "- " in found.output
    assert "2.000 times" in found.output
    import json

    (trend,) = json.loads(CliRunner().invoke(app, ["history", "--results", str(tmp_path), "--format", "json"]).stdout)
    assert trend["steps"][0]["index"] == 6
    nothing = CliRunner().invoke(app, ["history", "--results", str(tmp_path), "--backend", "nobody"])
    assert "No such records" in str(nothing.exception)
