"""`bench compare`: the order of runs, their records, the words at the end, and what it refuses."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.records import results
from bench.records.record import ErrorInfo, RunRecord, read_record
from bench.runs import runner
from bench.stores import isolated

FIXTURE = Path(__file__).parent / "records" / "version-1.json"
SECONDS = {"memmap": 1.0, "hdf5": 2.0}


@pytest.fixture
def laboratory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RunRecord]:
    """Runs that take a second of simulated time from memmap and two from hdf5, a little more each time."""
    template = read_record(FIXTURE)
    done: list[RunRecord] = []

    def run(spec, places, progress, attempt) -> runner.Outcome:
        epoch_s = SECONDS[spec.backend] * (1 + 0.001 * len(done))
        epoch = template.epochs[0].model_copy(update={"epoch_s": epoch_s, "warmup": False})
        record = template.model_copy(
            update={
                "spec": spec,
                "spec_id": spec.spec_id,
                "epochs": [epoch],
                "campaign": attempt.campaign,
                "started_at": f"2026-01-01T00:{len(done):02}:00.000000+00:00",
            }
        )
        if spec.backend == "hdf5" and attempt.campaign.block == 1 and spec.seed == 13:
            error = ErrorInfo(phase="train", type="X", message="It broke.")
            record = record.model_copy(update={"status": "failed", "error": error})
        done.append(record)
        return runner.Outcome(record, None)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(isolated, "prepare", lambda *args, **options: None)
    return done


def compare(*arguments: str):
    return CliRunner().invoke(app, ["compare", "--data-dir", "data", *arguments], catch_exceptions=True)


TWO = ("--dataset", "cifar10", "--backend", "memmap", "--backend", "hdf5")


def test_what_it_says_after_an_interruption_compares_what_is_done(
    laboratory: list[RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, error = runner.run, ErrorInfo(phase="train", type="KeyboardInterrupt", message="Interrupted.")

    def interrupted(*args) -> runner.Outcome:
        outcome = run(*args)
        if len(laboratory) < 5:
            return outcome
        return runner.Outcome(outcome.record.model_copy(update={"status": "interrupted", "error": error}), None)

    monkeypatch.setattr(runner, "run", interrupted)
    stopped = compare(*TWO, "--results", "mine")
    assert stopped.exception.exit_code == 130
    (hint,) = (line for line in stopped.stderr.splitlines() if "can be compared by" in line)
    again = compare(*hint.partition("bench compare ")[2].split())
    assert again.exit_code == 0, again.output
    assert "memmap" in again.stdout


def test_every_block_runs_each_cell_and_the_control_in_an_order_of_its_own(laboratory: list[RunRecord]) -> None:
    assert compare(*TWO, "--blocks", "8").exit_code == 0
    assert len(laboratory) == 24
    places = [record.campaign for record in laboratory]
    assert len({place.id for place in places}) == 1
    orders = []
    for block in range(8):
        inside = [place for place in places if place.block == block]
        names = [place.cell + (" control" if place.control else "") for place in inside]
        assert sorted(names) == ["hdf5[library]", "memmap[mapped]", "memmap[mapped] control"]
        assert [place.position for place in inside] == [0, 1, 2]
        orders.append(tuple(names))
    assert len(set(orders)) > 1


def test_it_says_which_is_slower_and_by_how_much(laboratory: list[RunRecord]) -> None:
    result = compare(*TWO)
    assert result.exit_code == 0, result.output
    assert "hdf5[library] is slower than memmap[mapped]: 2.002 times its epoch" in result.stdout
    assert "p = 0.0078" in result.stdout


def test_it_can_be_derived_again_from_its_records(laboratory: list[RunRecord]) -> None:
    first = compare(*TWO)
    again = compare("--recorded", "last")
    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout
    assert len(laboratory) == 24, "nothing ran again"
    other = compare("--recorded", "last", "--metric", "samples_per_s")
    assert "0.500" in other.stdout
    turned = compare("--recorded", laboratory[0].campaign.id, "--baseline", "hdf5[library]")
    assert "memmap[mapped] is faster than hdf5[library]" in turned.stdout


def test_runs_of_another_machine_are_refused_unless_told_to(laboratory: list[RunRecord]) -> None:
    compare(*TWO)
    path = sorted(Path("results").glob("*.json"))[5]
    content = json.loads(path.read_text())
    content["environment"]["cpu"] = "Another CPU"
    path.write_text(json.dumps(content))
    refused = compare("--recorded", "last")
    assert refused.exit_code == 1
    assert "Another CPU" in str(refused.exception)
    allowed = compare("--recorded", "last", "--anyway")
    assert allowed.exit_code == 0
    assert "Another CPU" in allowed.stdout


def test_a_failed_run_costs_its_block_and_the_exit_code_says_so(laboratory: list[RunRecord]) -> None:
    result = compare(*TWO, "--seed", "13")
    assert result.exit_code == 1
    assert "1 of 24 runs gave no result. The first: It broke." in str(result.exception)
    assert "hdf5[library] is slower" in result.stdout
    assert len(results.read_all(Path("results"))[0]) == 24


def test_options_belong_to_their_backend(laboratory: list[RunRecord]) -> None:
    result = compare("--dataset", "cifar10", "--backend", "memmap", "--backend", "memmap,reader=naive", "--blocks", "1")
    assert result.exit_code == 0, result.output
    assert {(r.campaign.cell, r.spec.options["reader"]) for r in laboratory} == {
        ("memmap[mapped]", "mapped"),
        ("memmap[naive]", "naive"),
    }
    assert "no difference shown" in result.stdout


def test_workers_can_belong_to_a_cell_and_are_compared_in_blocks(laboratory: list[RunRecord]) -> None:
    loaded = "hdf5,chunk=16,workers=2,worker-kind=thread,prefetch=4"
    result = compare(*TWO[:4], "--backend", loaded, "--prefetch", "3")
    assert result.exit_code == 0, result.output
    cells = {r.campaign.cell: (r.spec.workers, r.spec.worker_kind, r.spec.prefetch) for r in laboratory}
    label = "hdf5[library] chunk=16 workers=2 worker-kind=thread prefetch=4"
    assert cells == {"memmap[mapped]": (0, "process", 3), label: (2, "thread", 4)}, "a flag holds for the others"
    assert {r.spec.options["chunk"] for r in laboratory if r.spec.backend == "hdf5"} == {16}
    assert f"{label} is slower than memmap[mapped]" in result.stdout


def test_too_few_blocks_are_told_before_anything_runs(laboratory: list[RunRecord]) -> None:
    result = compare(*TWO, "--blocks", "3")
    assert "Note: 3 blocks cannot show any difference between 2 backends; 6 can." in result.stderr
    assert "is slower" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "Name what to compare"),
        (("--dataset", "cifar10"), "Name what to compare"),
        ((*TWO, "--backend", "hdf5"), "given twice"),
        ((*TWO, "--blocks", "0"), "at least one block"),
        ((*TWO, "--metric", "speed"), "speed"),
        (("--recorded", "last"), "There is none"),
        ((*TWO, "--recorded", "last"), "--recorded runs nothing"),
        ((*TWO, "--into", "missing.md"), "there is no such file"),
        ((*TWO, "--metric", "over_ceiling"), "over_ceiling is a difference"),
        (("--dataset", "cifar10", "--backend", "memmap,chunk=3"), "chunk"),
        (("--dataset", "cifar10", "--backend", "memmap,workers=few"), "--workers 'few'"),
        (("--dataset", "cifar10", "--backend", "memmap,workers"), "--workers ''"),
    ],
)
def test_what_cannot_be_compared_is_one_line(laboratory: list[RunRecord], arguments, text: str) -> None:
    result = compare(*arguments)
    assert result.exit_code == 1
    assert text in str(result.exception)
    assert not laboratory, "it is known before anything runs"


def test_a_document_that_cannot_be_read_is_refused_before_any_run(laboratory: list[RunRecord]) -> None:
    Path("page.md").write_bytes(b"\xe4\n<!-- bench compare -->\n<!-- /bench compare -->\n")
    assert "page.md: it is not UTF-8" in str(compare(*TWO, "--into", "page.md").exception)
    assert not laboratory


def test_it_writes_markdown_into_a_document(laboratory: list[RunRecord]) -> None:
    Path("page.md").write_text("Before\n<!-- bench compare -->\nold\n<!-- /bench compare -->\nafter\n")
    assert compare(*TWO, "--into", "page.md").exit_code == 0
    text = Path("page.md").read_text()
    assert "hdf5[library] is slower" in text
    assert "| memmap[mapped] |" in text
    assert "old" not in text


def test_a_document_can_hold_several_comparisons(laboratory: list[RunRecord]) -> None:
    compare(*TWO)
    identity = laboratory[0].campaign.id
    Path("page.md").write_text(
        f"<!-- bench compare -->\none\n<!-- /bench compare -->\n"
        f"<!-- bench compare {identity} -->\ntwo\n<!-- /bench compare {identity} -->\n"
    )
    assert compare("--recorded", identity, "--into", "page.md").exit_code == 0
    assert "one" in Path("page.md").read_text()
    assert "two" not in Path("page.md").read_text()


def test_a_record_that_cannot_be_read_is_named(laboratory: list[RunRecord]) -> None:
    compare(*TWO)
    path = sorted(Path("results").glob("*.json"))[3]
    path.write_text(path.read_text()[:100])
    result = compare("--recorded", "last")
    assert result.exit_code == 0
    assert path.name in result.stderr
    assert "in 1 of 8 blocks" in result.stdout
