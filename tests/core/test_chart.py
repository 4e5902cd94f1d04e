"""`bench chart`: lengths, marks and text of the picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_ranking import campaign, run
from typer.testing import CliRunner

from bench.cli import app
from bench.records import results
from bench.records.bottleneck import common_ceiling_s
from bench.records.groups import equal_runs, same_work
from bench.records.record import CacheInfo, RunRecord
from bench.report.chart import chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(records: list[RunRecord], metric: str = "epoch_s") -> ElementTree.Element:
    return ElementTree.fromstring(chart(same_work(equal_runs(records)), metric))


def bars(picture: ElementTree.Element) -> list[tuple[str, float]]:
    found = [(rect.get("class"), float(rect.get("width"))) for rect in picture.iter(f"{SVG}rect")]
    return [bar for bar in found if bar[0] != "back"]


def texts(picture: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]


def test_bars_are_as_long_as_what_they_stand_for_the_best_first() -> None:
    picture = drawn(campaign({"zarr": 4.0, "hdf5": 1.0, "memmap": 2.0}, noise=0))
    (best, one), (_, two), (_, four) = bars(picture)
    assert best == "best"
    assert (two / one, four / one) == (pytest.approx(2, rel=0.01), pytest.approx(4, rel=0.01))
    shown = texts(picture)
    assert [text for text in shown if text.startswith(("zarr", "hdf5", "memmap"))] == ["hdf5", "memmap", "zarr"]
    assert {"1.00 s", "2.00 s", "4.00 s"} <= set(shown)


def test_nothing_is_marked_where_nothing_was_shown() -> None:
    assert {kind for kind, _ in bars(drawn([run("zarr", 4.0), run("hdf5", 1.0)]))} == {"bar"}


def test_whiskers_reach_from_the_lowest_to_the_highest_of_few_runs() -> None:
    picture = drawn([run("hdf5", seconds) for seconds in (1.0, 2.0, 4.0)])
    ((_, length),) = bars(picture)
    (path,) = [path.get("d") for path in picture.iter(f"{SVG}path") if path.get("class") == "whisker"]
    start, _, end = path.removeprefix("M").partition("H")
    left = float(next(rect.get("x") for rect in picture.iter(f"{SVG}rect") if rect.get("class") == "bar"))
    low, high = float(start.split()[0]) - left, float(end) - left
    assert (low / length, high / length) == (pytest.approx(0.5, abs=0.01), pytest.approx(2, abs=0.01))


def test_text_of_records_stays_text() -> None:
    name = '<script>alert("1")</script> & co'
    picture = drawn([run("zarr", 1.0, spec={"dataset": name, "options": {}}), run(name, 2.0)])
    assert not list(picture.iter(f"{SVG}script"))
    assert any(name in text for text in texts(picture))
    assert name in picture.get("aria-label")


def test_a_range_is_told_of_runs_that_found_more_or_less_in_memory() -> None:
    caches = [CacheInfo(asked="as-is", resident_before=share) for share in (1.0, 0.0)]
    records = [run(name, 1.0, cache=cache) for name, cache in zip(("zarr", "hdf5"), caches, strict=True)]
    assert any("cache as-is (0…100% in memory)" in text for text in texts(drawn(records)))


def test_panels_of_one_name_say_in_what_they_differ() -> None:
    records = [run("zarr", 1.0, spec={"seed": seed}) for seed in (0, 1)]
    records += [run("zarr", 1.0, spec={"epochs": 9}, environment={**records[0].environment, "kernel": "9.9"})]
    shown = texts(drawn(records))
    (first, second, third) = [text for text in shown if "seed" in text or "kernel" in text]
    assert ("seed 0" in first, "seed 1" in second, "kernel 9.9" in third, "epochs 9" in third) == (True,) * 4
    assert not any("seed" in text for text in texts(drawn(records[:1])))
    caches = [CacheInfo(asked=asked, achieved="verified") for asked in ("warm", "cold")]
    told = " ".join(texts(drawn([run("zarr", 1.0, cache=cache) for cache in caches])))
    assert "cache warm: verified" in told
    assert "asked" not in told, "what the line above says is not said again"


def test_the_ceiling_and_scales_are_explained_where_there_are_some() -> None:
    def legend(*records: RunRecord) -> str:
        shown = texts(drawn(list(records)))
        return " ".join(shown[next(place for place, text in enumerate(shown) if text.startswith("Bars:")) :])

    one, other = run("zarr", 1.0), run("zarr", 2.0, spec={"seed": 1})
    assert "scale of its own" not in legend(one)
    assert "scale of its own" in legend(one, other)
    ideal = one.epochs[0].model_copy(update={"epoch_s": 0.5})
    assert "Dashed" not in legend(one)
    assert "Dashed: the ceiling, the same training from" in legend(one.model_copy(update={"ideal": ideal}))


def test_controls_are_left_out_of_bars_and_that_is_said() -> None:
    own = [run(name, seconds, block=block) for block in range(8) for name, seconds in (("zarr", 2.0), ("hdf5", 1.0))]
    controls = [run("zarr", 9.0, block=block, control=True) for block in range(8)]
    shown = texts(drawn(own + controls))
    assert {"1.00 s", "2.00 s"} <= set(shown)
    assert any(text.endswith("8 runs each") for text in shown)
    assert "8 runs that repeat a method as a control left out." in " ".join(shown)
    assert "9.00 s" in texts(drawn(controls)), "where there is nothing else, they are drawn"
    assert "control" not in " ".join(texts(drawn(own)))


def test_the_command_says_what_it_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(4):
        record = run("zarr", 1.0, spec={"seed": seed})
        # Of two the size of the store is not known.
        record = record if seed < 2 else record.model_copy(update={"store": None})
        results.write(record, Path("results"))

    def said(*arguments: str) -> str:
        return CliRunner().invoke(app, ["chart", "-o", "a.svg", *arguments], standalone_mode=False).stderr

    assert "bench:" not in said()
    assert "bench: 1 of 4 kinds of work drawn: 3 are over --most 1. --where FACT=VALUE chooses" in said("--most", "1")
    assert "2 of 4 kinds of work drawn: 2 have no store_mb." in said("--metric", "store_mb")
    both = said("--metric", "store_mb", "--most", "1")
    assert "1 of 4 kinds of work drawn: 2 have no store_mb and 1 are over --most 1." in both
    assert len(bars(ElementTree.parse("a.svg").getroot())) == 1
    failed = CliRunner().invoke(app, ["chart", "-o", "b.svg", "--metric", "test_loss"], standalone_mode=False)
    assert "no finished run in results has it" in str(failed.exception)


def test_the_command_writes_a_file_whole_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str):
        return CliRunner().invoke(app, ["chart", *arguments], standalone_mode=False)

    Path("paper.tex").write_text("years of work")
    assert "No finished runs" in str(call("-o", "a.svg").exception)
    for record in campaign({"zarr": 2.0, "hdf5": 1.0}):
        results.write(record, Path("results"))
    assert call("-o", "a.svg").exit_code == 0
    assert len(bars(ElementTree.parse("a.svg").getroot())) == 2
    assert call("-o", "b.svg", "--where", "backend=zarr").exit_code == 0
    assert len(bars(ElementTree.parse("b.svg").getroot())) == 1
    for arguments, words in (
        (("-o", "c.svg", "--metric", "speed"), "there is no such metric"),
        (("-o", "none/c.svg"), "there is no folder none"),
        (("-o", "."), "is a folder"),
        (("-o", "paper.tex"), "-o paper.tex: a chart is a picture in SVG. The name must end in .svg."),
        (("-o", "c.svg", "--where", "backend=tar"), "no record meets it"),
    ):
        failed = call(*arguments)
        assert words in str(failed.exception)
        assert failed.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "b.svg", "paper.tex", "results"]
    assert Path("paper.tex").read_text() == "years of work"


def test_one_ceiling_stands_for_all_methods_the_median_of_their_runs() -> None:
    ideals = {"zarr": 1.0, "hdf5": 2.0, "memmap": 3.0}
    records = []
    for name, ideal_s in ideals.items():
        record = run(name, 4.0)
        ideal = record.epochs[0].model_copy(update={"epoch_s": ideal_s})
        records.append(record.model_copy(update={"ideal": ideal}))
    picture = drawn(records)
    (line,) = [each for each in picture.iter(f"{SVG}path") if each.get("class") == "ceiling"]
    drawn_bars = [rect for rect in picture.iter(f"{SVG}rect") if rect.get("class") != "back"]
    left, length = min(float(rect.get("x")) for rect in drawn_bars), float(drawn_bars[0].get("width"))
    at = float(line.get("d").removeprefix("M").split()[0])
    assert (at - left) / length == pytest.approx(0.5, abs=0.01)
    assert common_ceiling_s(records) == 2.0
