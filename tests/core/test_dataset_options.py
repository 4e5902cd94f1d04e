"""Data sets with options and with paths, on the command line; looking into them; cleaning up after them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import start, wait_until

from bench.contracts.errors import BenchError
from bench.contracts.source import Schema, SilentProgress
from bench.records.record import RunRecord
from bench.runs import runner
from bench.runs.attempt import Attempt
from bench.specs.spec import DataSpec, RunSpec, make_spec
from bench.stores import contact_sheet
from bench.stores.prepare import prepare


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "my toys"
    folder.mkdir()
    (folder / "here.txt").touch()
    return folder


RUN = ("run", "--backend", "hdf5", "--batch-size", "8", "--epochs", "2", "--data-dir", "data", "--json")


@pytest.mark.parametrize(
    ("dataset", "options", "source", "text"),
    [
        ("toys", {"size": 3}, "auto", "toys has no --size. It has no options."),
        ("costly-toys:x", {"n_fft": 3}, "auto", "costly-toys has no --n-fft. It has: --size, --offset, --skip-bad."),
        ("costly-toys:x", {"size": 0}, "auto", "--size 0: input should be greater than or equal to 1 (costly-toys)."),
        ("costly-toys", {}, "auto", "--dataset costly-toys needs to know where: costly-toys:PATH."),
        ("costly-toys:", {}, "auto", "--dataset costly-toys needs to know where: costly-toys:PATH."),
        ("costly-toys:x", {}, "synthetic", "--source synthetic does not go with costly-toys:PATH"),
        ("toys:x", {}, "auto", "--dataset toys:x: toys takes no path. Use --source local:PATH."),
        ("costly:x", {}, "auto", "Unknown data set 'costly'. Did you mean costly-toys?"),
    ],
)
def test_nonsense_is_one_line_that_names_the_flag(dataset: str, options: dict, source: str, text: str) -> None:
    with pytest.raises(BenchError) as caught:
        make_spec(DataSpec, [], dataset=dataset, dataset_options=options, source=source)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_are_part_of_what_a_run_is() -> None:
    def spec(**options) -> RunSpec:
        return make_spec(RunSpec, [], backend="hdf5", dataset="costly-toys:x", dataset_options=options)

    assert spec().spec_id == spec(size="8").spec_id
    assert spec().spec_id != spec(size="9").spec_id
    assert spec(size="9").dataset_options == {"size": 9, "offset": 0.0, "skip_bad": False}


@pytest.mark.parametrize(("path", "label"), [("/a/my toys/", "x-my_toys"), ("/", "x"), ("..hidden", "x-hidden")])
def test_a_path_gives_a_name_for_files(path: str, label: str) -> None:
    assert DataSpec(dataset=f"x:{path}").dataset_label == label


def test_flags_reach_the_data_set_and_the_record(bench, raw: Path, tmp_path: Path) -> None:
    (raw / "bad.txt").touch()
    flags = ("--dataset", f"costly-toys:{raw.name}", "--size", "16", "--skip-bad", "--data-option", "offset=50")
    result = bench(*RUN, *flags)
    assert result.returncode == 0, result.stderr
    record = RunRecord.model_validate(json.loads(result.stdout))
    assert record.spec.dataset_options == {"size": 16, "offset": 50.0, "skip_bad": True}
    assert (record.data.name, record.data.shape, record.data.origin) == ("costly-toys", (1, 16, 16), "local")
    assert record.data.skipped_count == len(record.data.skipped) == 1
    assert (record.data.skipped[0].file, record.data.skipped[0].reason) == ("bad.txt", "it is bad")
    (warning,) = [warning for warning in record.warnings if warning.kind == "skipped-files"]
    assert "1 file could not be decoded and was left out, the first bad.txt (it is bad)" in warning.message
    assert record.data.decode_s > 0
    (file,) = (tmp_path / "results").glob("*.json")
    assert "costly-toys-my_toys" in file.name


def test_a_run_knows_the_scale_of_its_values(raw: Path, tmp_path: Path) -> None:
    spec = make_spec(
        RunSpec, [], backend="hdf5", dataset=f"costly-toys:{raw}", dataset_options={"offset": 50.0}, batch_size=8
    )
    store = prepare(spec, tmp_path / "data", (), SilentProgress())
    mean, std = runner._job(spec, store, Attempt()).scale
    assert mean == pytest.approx(50.0, abs=0.3)
    assert std == pytest.approx(3.0, abs=0.3)


def test_a_missing_path_is_one_line(bench) -> None:
    result = bench(*RUN, "--dataset", "costly-toys:nowhere")
    assert result.returncode == 1
    assert "No costly-toys data at nowhere: the path does not exist. Check --dataset costly-toys:PATH." in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_model_refuses_samples_that_are_no_images(bench, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32))
    np.save(tmp_path / "y.npy", np.arange(20) % 2)
    result = bench(*RUN, "--dataset", "npy:.")
    assert result.returncode == 1
    assert "cnn takes samples of (channels, height, width), but those of npy:. have the shape (5,)" in result.stderr
    assert "--model none" in result.stderr
    assert bench(*RUN, "--dataset", "npy:.", "--model", "none").returncode == 0


def test_interrupted_decoding_leaves_nothing_and_can_start_again(bench, bench_environment, raw: Path, tmp_path) -> None:
    (raw / "pause").touch()
    arguments = ("prepare", "--backend", "memmap", "--dataset", f"costly-toys:{raw}", "--data-dir", "data")
    process = start(bench_environment, tmp_path, *arguments)
    wait_until(lambda: (raw / "decoded.log").exists())
    process.send_signal(2)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert not [path for path in (tmp_path / "data").rglob("*") if ".part-" in path.name or ".building" in path.name]
    (raw / "pause").unlink()
    assert bench(*arguments).returncode == 0


def test_inspect_shows_what_is_there_and_draws_it(bench, raw: Path, tmp_path: Path) -> None:
    result = bench("inspect", f"costly-toys:{raw}", "--size", "6", "--data-dir", "data")
    assert result.returncode == 0, result.stderr
    x = np.concatenate([np.random.default_rng(b).normal(0, 3.0, (10, 1, 6, 6)) for b in range(4)]).astype(np.float32)
    (row,) = [line for line in result.stdout.splitlines() if line.split()[:1] == ["train"]]
    assert "2 of 2" in row
    assert "1x6x6   float32" in row
    assert f"{x.min():g} … {x.max():g}" in row
    assert f"{x.mean():.4g} ± {x.std():.4g}" in row
    assert [line.split() for line in result.stdout.splitlines() if line.split()[:1] == ["a"]] == [["a", "20"]]
    assert "Origin: local. Licence: none." in result.stdout
    sheet = Image.open(tmp_path / "results" / "inspect-costly-toys-my_toys.png")
    assert sheet.format == "PNG"
    assert len(sheet.getcolors(1 << 20)) > 50


def test_inspect_writes_no_half_picture(bench, raw: Path, tmp_path: Path) -> None:
    target = tmp_path / "results"
    (target / "inspect-costly-toys-my_toys.png").mkdir(parents=True)
    result = bench("inspect", f"costly-toys:{raw}", "--data-dir", "data")
    assert result.returncode == 1
    assert "inspect-costly-toys-my_toys.png cannot be written" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in target.iterdir()] == ["inspect-costly-toys-my_toys.png"]


def test_what_a_decoder_prints_about_a_bad_file_is_no_line_more(bench, tmp_path: Path) -> None:
    for name in ("a/1.mp3", "b/1.mp3"):
        (tmp_path / "sounds" / name).parent.mkdir(parents=True)
        (tmp_path / "sounds" / name).write_bytes(b"hello world")
    result = bench("inspect", "audiofolder:sounds", "--data-dir", "data")
    assert "1.mp3 cannot be used: it cannot be read as sound" in result.stderr
    assert result.stderr.count("\n") == 1


def test_more_classes_than_are_drawn_are_counted(bench, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(600, dtype=np.uint8).repeat(12).reshape(600, 3, 2, 2))
    np.save(tmp_path / "y.npy", np.arange(600) % 300)
    result = bench("inspect", "npy:.", "--data-dir", "data")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-3].split() == ["299", "2"]
    assert len(list((tmp_path / "results").glob("inspect-npy*.png"))) == 1


def test_a_picture_replaces_no_file_of_another_kind(bench, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("important")
    result = bench("inspect", f"costly-toys:{raw}", "--sheet", "notes.txt", "--data-dir", "data")
    assert result.returncode == 1
    assert "--sheet notes.txt is there already, and is not replaced as its name does not end in .png" in result.stderr
    assert (tmp_path / "notes.txt").read_text() == "important"
    assert not (raw / "decoded.log").exists(), "it is seen before anything is read"


def test_a_contact_sheet_shows_pictures_as_they_are(tmp_path: Path) -> None:
    schema = Schema("x", "train", 3, (3, 32, 32), "uint8", ("red", "blue"), "none", "local")
    red, blue = np.zeros((3, 32, 32), np.uint8), np.zeros((3, 32, 32), np.uint8)
    red[0], blue[2] = 255, 255
    contact_sheet.draw(tmp_path / "sheet.png", schema, [(0, [red, red]), (1, [blue])])
    sheet = Image.open(tmp_path / "sheet.png").convert("RGB")
    counts = {colour: count for count, colour in sheet.getcolors(1 << 20)}
    assert counts[255, 0, 0] == 2 * 96 * 96
    assert counts[0, 0, 255] == 96 * 96
    assert sheet.getpixel((20, 20)) == (255, 0, 0)
    assert sheet.getpixel((20, sheet.height - 60)) == (0, 0, 255)


def test_a_contact_sheet_shows_low_frequencies_at_the_bottom(tmp_path: Path) -> None:
    schema = Schema("x", "train", 1, (1, 8, 8), "float32", ("a", "b"), "none", "local")
    low_rows_loud = np.repeat(np.linspace(1, 0, 8, dtype=np.float32)[:, None], 8, axis=1)[None]
    contact_sheet.draw(tmp_path / "sheet.png", schema, [(0, [low_rows_loud])])
    sheet = Image.open(tmp_path / "sheet.png").convert("L")
    assert sheet.getpixel((50, 95)) > sheet.getpixel((50, 50)) > sheet.getpixel((50, 10))


def test_options_of_data_sets_are_listed(bench) -> None:
    result = bench("list", "datasets", "costly-toys")
    (row,) = [line for line in result.stdout.splitlines() if "--size" in line]
    assert row.split()[:4] == ["--size", "whole", "number", "1…64"]
    assert "pixels a side" in row


def test_clean_removes_decoded_samples(bench, raw: Path, tmp_path: Path) -> None:
    assert (
        bench("prepare", "--backend", "memmap", "--dataset", f"costly-toys:{raw}", "--data-dir", "data").returncode == 0
    )
    sources = tmp_path / "data" / "sources"
    (sources / "of-somebody-else").mkdir()
    (kept,) = sources.glob("costly-toys-*")
    assert str(kept) not in bench("clean", "--backend", "memmap", "--dry-run", "--data-dir", "data").stdout
    assert str(kept) not in bench("clean", "--dataset", "toys", "--dry-run", "--data-dir", "data").stdout
    assert bench("clean", "--dataset", "costly-toys", "--yes", "--data-dir", "data").returncode == 0
    assert [path.name for path in sources.iterdir() if path.is_dir()] == ["of-somebody-else"]
    assert not list((tmp_path / "data" / "stores").glob("*/memmap-*"))


def test_renamed_classes_and_other_bad_files_are_those_of_this_copy(bench, tmp_path: Path) -> None:
    for folder, classes, bad in (("b", ("cat", "dog"), "bad1.png"), ("c", ("apple", "pear"), "bad2.png")):
        for name in classes:
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(6):
                colour = (number, int(classes[0] == name), 7)
                Image.new("RGB", (4, 4), colour).save(tmp_path / folder / name / f"{number}.png")
        (tmp_path / folder / classes[0] / bad).write_text("no picture")
    for folder, classes, bad in (("b", ["cat", "dog"], "b/cat/bad1.png"), ("c", ["apple", "pear"], "c/apple/bad2.png")):
        result = bench(*RUN, "--dataset", f"folder:{folder}", "--skip-bad", "--model", "none", "--batch-size", "4")
        assert result.returncode == 0, result.stderr
        data = json.loads(result.stdout)["data"]
        assert data["classes"] == classes
        assert [skipped["file"] for skipped in data["skipped"]] == [bad]


def test_what_bench_writes_never_becomes_data(bench, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / name / "1.png")
    prepare_it = ("prepare", "--backend", "memmap", "--dataset", "folder:photos")
    for arguments in (
        (*prepare_it, "--data-dir", "photos/cache"),
        (*RUN, "--dataset", "folder:photos", "--results", "photos/results"),
        ("inspect", "folder:photos", "--data-dir", "data", "--sheet", "photos/cat/sheet.png"),
    ):
        result = bench(*arguments)
        assert result.returncode == 1
        assert "lies inside folder:photos and would become data. Choose another." in result.stderr
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["cat", "dog"]
    assert bench(*prepare_it, "--data-dir", "data").returncode == 0


def test_values_that_are_no_numbers_are_told(bench, tmp_path: Path) -> None:
    x = np.ones((20, 1, 8, 8), np.float32)
    x[3, 0, 0, :2] = np.nan, np.inf
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(20) % 2)
    record = RunRecord.model_validate(json.loads(bench(*RUN, "--dataset", "npy:.").stdout))
    assert record.data.not_finite == 2
    (warning,) = [warning for warning in record.warnings if warning.kind == "not-finite-values"]
    assert warning.message.startswith("2 values of the data are infinite or undefined")


def test_single_values_go_into_every_backend_that_says_so(bench, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(24, dtype=np.float32))
    np.save(tmp_path / "y.npy", np.arange(24) % 2)
    for backend in ("memory", "memmap", "hdf5", "zarr"):
        assert bench("prepare", "--backend", backend, "--dataset", "npy:.", "--data-dir", "data").returncode == 0
    result = bench("prepare", "--backend", "filesystem", "--dataset", "npy:.", "--data-dir", "data")
    assert result.returncode == 1
    assert "filesystem cannot hold npy:.: a sample without a dimension is a number" in result.stderr


def test_options_may_be_written_with_hyphens_and_switched_off_but_not_given_twice(bench, raw: Path) -> None:
    arguments = ("prepare", "--backend", "memmap", "--dataset", f"costly-toys:{raw}", "--data-dir", "data")
    assert bench(*arguments, "--data-option", "skip-bad=true").returncode == 0
    result = bench(*arguments, "--size", "8", "--data-option", "size=9")
    assert result.returncode == 1
    assert "--data-option size: the option is given twice." in result.stderr
    assert (
        make_spec(DataSpec, [], dataset="esc50", dataset_options={"trim_db": "none"}).dataset_options["trim_db"] is None
    )


@pytest.mark.parametrize(
    ("dataset", "text"),
    [("folder:p\udcff", "the path has bytes that are no text"), ("folder:~nobody-of-that-name/x", "no such user")],
)
def test_paths_that_cannot_be_used_are_one_line(dataset: str, text: str) -> None:
    with pytest.raises(BenchError, match=text):
        make_spec(DataSpec, [], dataset=dataset).open_source([])


def test_a_second_preparation_says_that_it_did_nothing(bench, raw: Path) -> None:
    arguments = ("prepare", "--backend", "memmap", "--dataset", f"costly-toys:{raw}", "--data-dir", "data")
    assert "It was there already" not in bench(*arguments).stdout
    assert "It was there already: these are the figures of when it was built" in bench(*arguments).stdout
    assert "It was there already" not in bench(*arguments, "--rebuild").stdout


def test_clean_removes_what_a_killed_unpacking_left(bench, tmp_path: Path) -> None:
    left = tmp_path / "data" / "raw" / "gtzan-0123456789abcdef.part-123"
    unpacked = tmp_path / "data" / "raw" / "gtzan-0123456789abcdef"
    for folder in (left / "data", unpacked / "data", tmp_path / "data" / "raw" / "gtzan-mine"):
        folder.mkdir(parents=True)
    assert bench("clean", "--yes", "--data-dir", "data").returncode == 0
    assert not left.exists()
    assert unpacked.exists()
    assert bench("clean", "--yes", "--downloads", "--data-dir", "data").returncode == 0
    assert sorted(path.name for path in (tmp_path / "data" / "raw").iterdir() if path.is_dir()) == ["gtzan-mine"]


def test_the_list_describes_a_layout(bench) -> None:
    for own in ("folder", "audiofolder"):
        layout = bench("list", "datasets", own).stdout
        assert "PATH/train/CLASS/..." in layout
        assert "class_tree" not in layout, "a name that only the code knows"
    text = " ".join(bench("list", "datasets", "esc50").stdout.split())
    assert "The layout is ``meta/esc50.csv``, which lists the clips" in text


def test_the_list_says_what_can_be_had(bench) -> None:
    rows = {line.split()[0]: line for line in bench("list", "datasets").stdout.splitlines() if line.split()}
    assert "downloaded when needed" in rows["esc50"]
    assert "nor to be downloaded" in rows["gtzan"]
    assert "your own: folder:PATH" in rows["folder"]
