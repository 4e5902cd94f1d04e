"""`bench advise`: from records, and from a measurement that keeps its budget."""

import itertools
import json
import shlex
import statistics
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from advising import advice_of, blocks, run
from running import leftovers
from typer.testing import CliRunner

from bench.campaigns.series import Series
from bench.campaigns.survey import Survey, SurveyError
from bench.cli import app
from bench.console import QuietProgress
from bench.contracts.errors import BenchError
from bench.records import results
from bench.records.record import ErrorInfo, RunRecord
from bench.report.reruns import compare_command
from bench.runs import runner
from bench.runs.attempt import Attempt
from bench.runs.runner import Places
from bench.specs.spec import RunSpec, content_hash, make_spec
from bench.stores import isolated
from bench.stores.store import Store

SECONDS = {"memory": 1.0, "memmap": 1.0, "hdf5": 1.5, "filesystem": 30.0, "zarr": 2.0}
RECORDED = Path(__file__).parent.parent.parent / "results" / "reference" / "compare"


class Laboratory:
    """Runs that take simulated time: 3 s each, and so much for 1,000 samples; a store takes a second for each 1,000."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: list[tuple[RunSpec, str]] = []
        self.broken: set[str] = set()
        self.interrupt_after = 10_000

    def prepare(self, spec, data_dir, search, progress, *, repair) -> Store:
        if spec.backend in self.broken:
            raise BenchError("It cannot be stored.")
        path = data_dir / "stores" / "cifar10" / f"{spec.backend}-{content_hash([spec.options, spec.limit])}"
        built = not path.exists()
        count = spec.limit or 10_000
        self.now += count / 1000 if built else 0
        (path / "data").mkdir(parents=True, exist_ok=True)
        (path / "manifest.json").touch()
        known = SimpleNamespace(count=count, size_bytes=1000)
        return Store(path, known, built, built_s=count / 1000 if built else 0.0)

    def run(self, spec, places, progress, attempt) -> runner.Outcome:
        self.runs.append((spec, attempt.campaign.id))
        count = spec.limit or 10_000
        drift = 1 + 0.01 * len(self.runs)
        epoch_s = SECONDS[spec.backend] * count / 1000 * drift
        self.now += 3 + 2 * epoch_s
        changes = {"campaign": attempt.campaign, "spec": spec, "spec_id": spec.spec_id}
        changes["started_at"] = f"2026-01-01T{len(self.runs) // 60:02}:{len(self.runs) % 60:02}:00.000000+00:00"
        record = run(spec.backend, epoch_s).model_copy(update=changes)
        # The warm-up of the builder is absurdly long, as it must not count; here it takes time.
        record = record.model_copy(update={"epochs": [record.epochs[1].model_copy(update={"epoch": 0})]})
        if len(self.runs) > self.interrupt_after:
            error = ErrorInfo(phase="train", type="KeyboardInterrupt", message="Interrupted.")
            record = record.model_copy(update={"status": "interrupted", "error": error})
        return runner.Outcome(record, None)


@pytest.fixture
def laboratory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Laboratory:
    found = Laboratory()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run", found.run)
    monkeypatch.setattr(isolated, "prepare", found.prepare)
    monkeypatch.setattr(isolated, "call", lambda *arguments: (10_000, 3072))
    return found


def survey(laboratory: Laboratory, budget_s: float, *backends: str, keep_stores: bool = False, criterion="epoch_s"):
    cells = {name: make_spec(RunSpec, [], dataset="cifar10", backend=name) for name in backends}
    series = Series("c1", 0, 1, Places(Path("data"), ()), Path("results"), lambda: QuietProgress(set()))
    options = {"budget_s": budget_s, "criterion": criterion, "keep_stores": keep_stores}
    return Survey(
        cells, 10_000, series, Attempt(), say=lambda text: None, clock=lambda: laboratory.now, **options
    ).run()


def stores() -> list[Path]:
    return sorted(Path().glob("data/stores/*/*/manifest.json"))


@pytest.mark.parametrize("budget_s", [200, 600, 2000, 5000])
def test_a_budget_is_kept_and_used(laboratory: Laboratory, budget_s: float) -> None:
    found = survey(laboratory, budget_s, "memmap", "hdf5", "zarr")
    assert 0.8 * budget_s <= found.elapsed_s <= 1.08 * budget_s
    assert found.elapsed_s == laboratory.now
    assert found.enough == (found.blocks >= 7), "what two comparisons need"
    assert stores() == []


def test_blocks_have_a_control_and_each_record_its_place(laboratory: Laboratory) -> None:
    found = survey(laboratory, 2000, "memmap", "hdf5", keep_stores=True)
    assert found.enough
    written = [record for _, record in results.read_all(Path("results"))[0]]
    assert {record.campaign.id for record in written} == {"c1", "c1-pilot"}
    main = [record for record in written if record.campaign.id == "c1"]
    assert len(main) == len(found.records) == 3 * found.blocks
    per_block = [(r.campaign.block, r.campaign.cell, r.campaign.control) for r in main]
    assert len(set(per_block)) == len(per_block)
    assert sum(control for *_, control in per_block) == found.blocks
    assert len(stores()) == 4, "those of the pilots, too, as all were to be kept"


def test_what_is_far_slower_is_left_out_and_named(laboratory: Laboratory) -> None:
    found = survey(laboratory, 600, "filesystem", "memmap", "hdf5")
    assert "30.0 times" in found.dropped["filesystem"] or "29." in found.dropped["filesystem"]
    assert {record.spec.backend for record in found.records} == {"memmap", "hdf5"}
    assert [spec.backend for spec, _ in laboratory.runs].count("filesystem") == 1


def test_what_fails_is_left_out_and_the_rest_goes_on(laboratory: Laboratory) -> None:
    laboratory.broken = {"zarr"}
    found = survey(laboratory, 600, "memmap", "hdf5", "zarr")
    assert found.dropped == {"zarr": "It cannot be stored"}
    laboratory.broken = {"zarr", "hdf5"}
    with pytest.raises(SurveyError, match=r"fewer than two ways gave a result\. hdf5: It cannot be stored"):
        survey(laboratory, 600, "memmap", "hdf5", "zarr")
    laboratory.broken = set(SECONDS)
    with pytest.raises(SurveyError, match="No way of storing gave a result"):
        survey(laboratory, 600, "memmap", "hdf5")
    assert stores() == []


def test_a_budget_that_is_too_short_says_so(laboratory: Laboratory) -> None:
    with pytest.raises(SurveyError, match="--budget is too short here: not one block of runs was done in time"):
        survey(laboratory, 12, "memmap", "hdf5")
    assert stores() == []


def test_an_interruption_keeps_what_is_done(laboratory: Laboratory) -> None:
    laboratory.interrupt_after = 20
    found = survey(laboratory, 5000, "memmap", "hdf5")
    assert found.interrupted
    assert len(found.records) == 21 - 2
    assert stores() == []


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["advise", *arguments], standalone_mode=False)


def test_measuring_ends_with_advice_and_pilots_do_not_count(laboratory, monkeypatch) -> None:
    monkeypatch.setattr(Survey.__init__, "__kwdefaults__", {"clock": lambda: laboratory.now})
    backends = ["--backend", "memmap", "--backend", "hdf5", "--backend", "filesystem"]
    flags = ["--dataset", "cifar10", *backends, "--data-dir", "data", "--budget", "10m"]
    result = invoke(*flags, "--for", "speed", "--format", "json")
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    assert found["recommended"].startswith("memmap")
    assert found["shown"] is True
    again = invoke("--for", "speed", "--format", "json")
    assert json.loads(again.stdout)["rows"] == found["rows"], "from the records alone the same follows"
    assert {row["name"].partition("[")[0] for row in found["rows"]} == {"memmap", "hdf5"}
    assert any("of a budget of 600 s" in note for note in found["notes"])
    assert any(note.startswith("Left out: filesystem") for note in found["notes"])


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RunRecord]:
    monkeypatch.chdir(tmp_path)
    records = [*blocks("hdf5", 1.0, twin=True), *blocks("zarr", 1.5, prepare_s=2)]
    for record in records:
        results.write(record, Path("results"))
    return records


def test_markdown_has_the_sentences_and_the_table(recorded) -> None:
    result = invoke("--for", "speed", "--format", "markdown")
    assert result.exit_code == 0, result.exception
    lines = result.stdout.splitlines()
    assert lines[0].startswith("- Storage is what a better format can still gain from")
    assert lines[1].startswith("- For speed (the shortest epoch) take hdf5: --backend hdf5")
    assert any("so it repays its 8.00 s of preparation more than zarr after" in line for line in lines)
    assert any(line.startswith("| 1 | hdf5 |") for line in lines)
    assert any(line.startswith("- By 24 runs: cifar10 (local), model cnn") for line in lines)


def test_the_advice_in_short_goes_into_a_document(recorded, tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    path.write_text("a\n<!-- bench advise -->\nold\n<!-- /bench advise -->\nz\n")
    assert invoke("--into", str(path)).stdout == ""
    first, *short, last = path.read_text().splitlines()
    whole = invoke("--format", "markdown").stdout.splitlines()
    assert (first, last) == ("a", "z")
    assert short == ["<!-- bench advise -->", *whole[:2], "<!-- /bench advise -->"]
    assert "take " in short[2]


def test_records_are_chosen_by_their_settings(recorded) -> None:
    for name in ("hdf5", "zarr"):
        results.write(run(name, 1.0, model="resnet18", amp=True), Path("results"))
    assert "24 runs: cifar10 (local), model cnn" in invoke("--for", "speed").stdout
    chosen = invoke("--for", "speed", "--where", "model=resnet18", "--where", "amp=true", "--format", "json")
    assert [row["runs"] for row in json.loads(chosen.stdout)["rows"]] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--workers", "2"), "--workers goes with --dataset, which measures"),
        (("--budget", "5m"), "--budget goes with --dataset"),
        (("--size", "64"), "--size goes with --dataset"),
        (("--where", "colour=red"), "--where colour: unknown. Known are: dataset"),
        (("--where", "model=vgg"), "--where model=vgg: no record has that. There are: cnn"),
        (("--where", "model"), "--where 'model' is not KEY=VALUE"),
        (("--results", "nowhere"), "There is no finished run to advise from"),
        (("--dataset", "cifar10", "--where", "model=cnn"), "--where chooses among records"),
        (("--dataset", "cifar10", "--budget", "9s"), "--budget 9s is too short"),
        (("--dataset", "cifar10", "--backend", "memmap"), "There is nothing to choose from"),
        (("--dataset", "cifar10", "--backend", "memmap", "--backend", "memmap"), "is given twice"),
        (("--dataset", "cifar", "--backend", "memmap"), "Unknown data set 'cifar'. Did you mean cifar10?"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(recorded, monkeypatch, arguments, text: str) -> None:
    monkeypatch.setattr(isolated, "call", lambda *arguments: pytest.fail("it should be refused before"))
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert text in str(result.exception)
    assert "\n" not in str(result.exception)


def test_commands_that_are_proposed_do_the_recorded_work_again(laboratory, monkeypatch) -> None:
    records = [read for _, read in results.read_all(RECORDED)[0]][-6:]
    changed = {"batch_size": 64, "shuffle": "block", "block_samples": 7, "memory_limit_bytes": 2**31, "amp": True}
    fields = {**records[0].spec.model_dump(), **changed, "cache": "cold", "dataset_options": {}}
    specs = [
        RunSpec.model_validate({**fields, "backend": record.spec.backend, "options": record.spec.options})
        for record in records
    ]
    runs = [record.model_copy(update={"spec": spec}) for record, spec in zip(records, specs, strict=True)]
    command = shlex.split(compare_command(runs, "--blocks", "1", workers=2))
    result = CliRunner().invoke(app, [*command[1:], "--data-dir", "data"], standalone_mode=False)
    assert laboratory.runs, (command, result.exception)
    expected = {spec.model_copy(update={"workers": 2}).model_dump_json() for spec in specs}
    assert {spec.model_dump_json() for spec, _ in laboratory.runs} == expected


def test_a_proposed_comparison_loads_each_cell_as_it_was_loaded() -> None:
    run = results.read_all(RECORDED)[0][-1][1]
    run = run.model_copy(update={"spec": run.spec.model_copy(update={"workers": 0})})
    threads = {"workers": 2, "worker_kind": "thread"}
    loaded = run.model_copy(update={"spec": run.spec.model_copy(update=threads)})
    command = shlex.split(compare_command([run, loaded]))
    assert not {"--workers", "--worker-kind"} & set(command)
    cells = [value for flag, value in itertools.pairwise(command) if flag == "--backend"]
    assert [cell.split(",")[-2:] for cell in cells] == [
        ["workers=0", "worker-kind=process"],
        ["workers=2", "worker-kind=thread"],
    ]
    alike = shlex.split(compare_command([loaded, loaded]))
    assert alike.count("--backend") == 1
    assert {("--workers", "2"), ("--worker-kind", "thread")} <= set(itertools.pairwise(alike))
    # What is asked for holds for all.
    other = shlex.split(compare_command([run, loaded], workers=4))
    assert ("--workers", "4") in itertools.pairwise(other)
    assert not any("workers=" in part for part in other)


def test_real_records_give_the_advice_that_their_blocks_show() -> None:
    cold = [record for _, record in results.read_all(RECORDED)[0] if record.spec.cache == "cold"]
    found = advice_of(cold)
    best = found.recommended.first.spec.backend
    # By hand from the JSON, whichever measurement was committed last: the recommended one's epoch, block by block, in
    # that of each other. What took half as long again in every block is worse; what was quicker in several is not.
    epoch_s: dict[str, dict[int, float]] = {}
    for path in RECORDED.glob("*.json"):
        record = json.loads(path.read_text())
        if record["spec"]["cache"] == "cold" and not record["campaign"]["control"]:
            counted = [epoch["epoch_s"] for epoch in record["epochs"] if not epoch["warmup"]]
            epoch_s.setdefault(record["spec"]["backend"], {})[record["campaign"]["block"]] = statistics.median(counted)
    ratios = {name: [times[n] / epoch_s[best][n] for n in times] for name, times in epoch_s.items() if name != best}
    clearly_slower = {name for name, values in ratios.items() if min(values) > 1.5}
    often_quicker = {name for name, values in ratios.items() if sum(value < 1 for value in values) >= 2}
    assert clearly_slower, "else these records show nothing here"
    worse = {group.first.spec.backend for group in found.steps[0].worse}
    assert clearly_slower <= worse
    assert not often_quicker & worse


def test_a_folder_of_photos_is_measured_for_real(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for number in range(80):
        place = tmp_path / "photos" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(place / f"{number}.png")
    flags = {"dataset": "folder:photos", "dataset_options": {"size": "16"}, "model": "none", "batch_size": 16}
    cells = {name: make_spec(RunSpec, [], backend=name, epochs=1, **flags) for name in ("memmap", "hdf5")}
    series = Series("c1", 0, 1, Places(Path("data"), ()), Path("results"), lambda: QuietProgress(set()))
    # A clock that goes on with each look at it: so the runs that fit do not depend on the machine. In large steps, for
    # what is left is also the limit on what builds a store.
    ticks = itertools.count()
    found = Survey(
        cells,
        80,
        series,
        Attempt(timeout_s=120),
        budget_s=280,
        criterion="epoch_s",
        keep_stores=False,
        say=lambda text: None,
        clock=lambda: 10.0 * next(ticks),
    ).run()
    assert found.blocks >= 1
    written = [record for _, record in results.read_all(Path("results"))[0]]
    assert {record.campaign.id for record in written} == {"c1", "c1-pilot"}
    assert {record.status for record in written} == {"ok"}
    assert {record.data.count for record in written} == {64, 80}
    assert list(tmp_path.glob("data/stores/*/*/manifest.json")) == []
    advice = advice_of(found.records)
    assert {group.first.spec.backend for group in advice.groups} == {"memmap", "hdf5"}
    assert not advice.shown, "with so few blocks"
    assert leftovers(tmp_path) == []
