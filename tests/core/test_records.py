"""Records: what is written can be read for ever, and nothing is lost or overwritten."""

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.records import results
from bench.records.record import SCHEMA_VERSION, RecordError, RunRecord, read_record
from bench.specs.spec import RunSpec

FIXTURES = Path(__file__).parent / "records"


@pytest.fixture
def record() -> RunRecord:
    return read_record(FIXTURES / "version-1.json")


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("version-*.json")), ids=lambda path: path.stem)
def test_records_of_every_version_load_and_survive_a_round_trip(path: Path) -> None:
    loaded = read_record(path)
    assert RunRecord.model_validate_json(loaded.to_json()) == loaded
    assert loaded.spec.spec_id == loaded.spec_id
    assert loaded.order is None, "written before that was measured"


def test_the_order_survives_a_round_trip(record: RunRecord) -> None:
    measured = {"kind": "block", "block_samples": 64, "buffer_blocks": 4, "mean_displacement": 0.5, "class_mixing": 9.5}
    content = {**json.loads(record.to_json()), "order": measured}
    loaded = RunRecord.model_validate(content)
    assert json.loads(loaded.to_json())["order"] == measured


def test_there_is_a_fixture_for_every_version() -> None:
    assert {path.stem for path in FIXTURES.glob("version-*.json")} == {
        f"version-{number}" for number in range(1, SCHEMA_VERSION + 1)
    }


def test_the_record_has_the_promised_names(record: RunRecord) -> None:
    content = json.loads(record.to_json())
    promised = {
        "": "schema_version spec_id spec status error warnings environment started_at data store ideal epochs cache "
        "memory gpu",
        "data": "name split count shape dtype classes origin digest",
        "store": "backend options size_bytes allocated_bytes file_count prepare_s prepare_peak_rss_bytes digest_ok "
        "lossy",
        "cache": "asked achieved resident_before resident_after proof",
        "memory": "peak_pss_bytes baseline_pss_bytes anon_bytes file_bytes shmem_bytes",
    }
    for part, names in promised.items():
        assert set(names.split()) <= set(content[part] if part else content), part
    epoch = content["epochs"][0]
    timings = "epoch warmup samples epoch_s first_batch_s wait_s copy_s compute_s stall_fraction batch_wait_s"
    assert {*timings.split(), "loss", "accuracy", "io", "cpu_user_s", "cpu_system_s"} <= set(epoch)
    counters = "storage_read_bytes read_call_bytes read_calls major_faults read_amplification"
    assert set(counters.split()) <= set(epoch["io"])


def test_a_newer_record_says_so(tmp_path: Path, record: RunRecord) -> None:
    path = tmp_path / "new.json"
    path.write_text(json.dumps({**json.loads(record.to_json()), "schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(RecordError, match="newer bench"):
        read_record(path)


def test_what_only_a_newer_spec_has_says_so_and_tells_nobody_to_remove_it(tmp_path: Path, record: RunRecord) -> None:
    content = json.loads(record.to_json())
    path = tmp_path / "new.json"
    path.write_text(json.dumps({**content, "spec": {**content["spec"], "gradient_clip": 1.0}}))
    with pytest.raises(RecordError, match=r"newer bench: it has spec\.gradient_clip\. Upgrade to read it\.$"):
        read_record(path)
    path.write_text(json.dumps({**content, "part_of_later": 1}))
    assert read_record(path) == record


def test_what_is_refused_today_and_was_run_once_stays_readable(tmp_path: Path, record: RunRecord) -> None:
    content = json.loads(record.to_json())
    without_use = {"model": "none", "amp": True, "compile": True, "lr": 1.0, "limit": 7, "block_samples": 5}
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**content, "spec": {**content["spec"], **without_use}}))
    spec = read_record(path).spec
    assert (spec.model, spec.amp, spec.limit) == ("none", True, 7)
    with pytest.raises(ValidationError, match="goes with a network"):
        RunSpec.model_validate(spec.model_dump())


def test_a_damaged_record_says_where(tmp_path: Path, record: RunRecord) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**json.loads(record.to_json()), "status": "splendid"}))
    with pytest.raises(RecordError, match=r"not a readable record: status: input should be 'ok', "):
        read_record(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 1}', "{nonsense", '{"schema_version": "x"}'])
def test_what_is_no_record_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(RecordError, match=r"bad\.json is not a readable record") as caught:
        read_record(path)
    assert "\n" not in str(caught.value)
    assert ("it has no 'schema_version'" in str(caught.value)) == (content == "{}")


def test_a_loss_that_became_nan_is_not_mistaken_for_unknown(tmp_path: Path, record: RunRecord) -> None:
    epoch = record.epochs[0].model_copy(update={"loss": float("nan"), "batch_loss": [1.5, float("inf"), float("nan")]})
    path = results.write(record.model_copy(update={"epochs": [epoch]}), tmp_path)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (read,) = read_record(path).epochs
    assert math.isnan(read.loss)
    assert read.batch_loss[:2] == [1.5, float("inf")]
    assert math.isnan(read.batch_loss[2])


def test_two_equal_runs_keep_both_records(tmp_path: Path, record: RunRecord) -> None:
    paths = {results.write(record, tmp_path) for _ in range(3)}
    assert len(paths) == 3
    assert all(read_record(path) == record for path in paths)
    assert sorted(tmp_path.iterdir()) == sorted(paths), "no part file stays behind"


def test_the_name_says_what_ran_and_that_data_was_synthetic(record: RunRecord) -> None:
    name = results.run_name(record)
    assert name.startswith("2026")
    assert record.data is not None
    assert "-synthetic-" not in name
    synthetic = record.model_copy(update={"data": record.data.model_copy(update={"origin": "synthetic"})})
    assert f"-{record.spec.dataset}-synthetic-{record.spec.backend}-" in results.run_name(synthetic)


def test_runs_are_found_by_path_name_start_and_last(tmp_path: Path, record: RunRecord) -> None:
    first = results.write(record, tmp_path)
    later = record.model_copy(update={"started_at": "2027-01-01T00:00:00.000000+00:00"})
    second = results.write(later, tmp_path)
    assert results.find(str(first), tmp_path)[0] == first
    assert results.find("2027", tmp_path)[0] == second
    assert results.find("last", tmp_path)[0] == second
    with pytest.raises(results.ResultsError, match="No run 'x'"):
        results.find("x", tmp_path)
    with pytest.raises(results.ResultsError, match="start of 2 runs"):
        results.find("202", tmp_path)


def test_an_unwritable_folder_is_noticed_before_work_begins(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(results.ResultsError, match="Choose another --results"):
        results.require_writable(tmp_path / "file" / "results")
    with pytest.raises(results.ResultsError, match="is not a folder"):
        results.read_all(tmp_path / "file")
    results.require_writable(tmp_path / "new" / "results")
    assert not (tmp_path / "new").exists(), "asking leaves nothing behind"


def test_a_link_to_nowhere_is_noticed_before_work_begins(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to("unmounted")
    for folder in (tmp_path / "results", tmp_path / "results" / "new"):
        with pytest.raises(results.ResultsError, match="results is a link to nowhere"):
            results.require_writable(folder)


def test_a_bad_file_does_not_hide_good_records(tmp_path: Path, record: RunRecord) -> None:
    results.write(record, tmp_path)
    (tmp_path / "zz.json").write_text("nonsense")
    found, errors = results.read_all(tmp_path)
    assert [item for _, item in found] == [record]
    assert "zz.json" in str(errors[0])


def test_a_record_under_two_names_is_one_run_and_one_with_other_values_is_not(
    tmp_path: Path, record: RunRecord
) -> None:
    first = results.write(record, tmp_path)
    copy = tmp_path / f"copy-of-{first.name}"
    copy.write_text(json.dumps(json.loads(first.read_text())))
    other = record.model_copy(update={"epochs": record.epochs[:-1]})
    results.write(other, tmp_path)
    found, errors = results.read_all(tmp_path)
    assert sorted(len(item.epochs) for _, item in found) == [len(record.epochs) - 1, len(record.epochs)]
    (error,) = map(str, errors)
    assert copy.name in error
    assert first.name in error
    assert error.endswith("counts once. Remove one.")


def test_a_run_whose_loss_became_nan_counts_once_under_two_names(tmp_path: Path, record: RunRecord) -> None:
    epoch = record.epochs[0].model_copy(update={"loss": float("nan")})
    first = results.write(record.model_copy(update={"epochs": [epoch]}), tmp_path)
    (tmp_path / "copy.json").write_text(first.read_text())
    found, errors = results.read_all(tmp_path)
    assert (len(found), len(errors)) == (1, 1)
