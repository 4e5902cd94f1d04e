"""`bench confusion` and `bench show --classes`: counts, shades, and names that are nothing but text."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import Result
from learnt import CLASSES, evaluation, trained
from tabled import run
from typer.testing import CliRunner

from bench.cli import app
from bench.records import results
from bench.records.record import RunRecord
from bench.report.confusion import class_table, confusion_table
from bench.report.confusion import tested as found_in
from bench.report.heat_map import heat_map

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("1")</script> & co'


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def picture(record: RunRecord) -> ElementTree.Element:
    return ElementTree.fromstring(heat_map(found_in(record, "x")))


def cells(drawn: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """What each cell says of itself, and the cell."""
    return {title.text: rect for rect in drawn.iter(f"{SVG}rect") if (title := rect.find(f"{SVG}title")) is not None}


def with_classes(count: int) -> RunRecord:
    """Every sample of a class but the last is taken for the next class; there are two of each."""
    true = [n for n in range(count) for _ in range(2)]
    predicted = [min(n + 1, count - 1) for n in true]
    return trained(changes={"test": evaluation(true, predicted, tuple(f"c{n}" for n in range(count)))})


def test_the_table_has_a_row_for_each_true_class() -> None:
    table = confusion_table(found_in(trained(), "x"))
    assert table.columns == ["true", *CLASSES]
    assert table.rows == [["cat", "3", "1", "0"], ["dog", "0", "2", "1"], ["owl", "1", "0", "2"]]
    assert table.title.endswith("split test, 10 samples, accuracy 70.0 %, macro F1 69.4 %")


def test_of_many_classes_the_most_frequent_confusions_are_listed() -> None:
    table = confusion_table(found_in(with_classes(30), "x"))
    assert len(table.rows) == 25
    assert table.rows[0] == ["c0", "c1", "2", "100"]
    assert table.notes == ["The most frequent of 29 confusions of 30 classes; --csv and --svg have all."]


def test_the_table_of_classes_says_what_is_undefined() -> None:
    test = evaluation([0, 0, 1, 1], [0, 1, 1, 1], CLASSES)
    table = class_table(found_in(trained(changes={"test": test}), "x"))
    assert table.rows == [
        ["cat", "100", "50.0", "66.7", "2"],
        ["dog", "66.7", "100", "80.0", "2"],
        ["owl", "n/a", "n/a", "n/a", "0"],
        ["macro average", "83.3", "75.0", "73.3", "4"],
        ["weighted average", "83.3", "75.0", "73.3", "4"],
    ]


def test_shades_are_shares_of_the_true_class() -> None:
    drawn = cells(picture(trained()))
    opacity = {said: float(rect.get("fill-opacity")) for said, rect in drawn.items()}
    assert set(opacity) == {
        "cat taken for cat: 3 (75.0%)",
        "cat taken for dog: 1 (25.0%)",
        "dog taken for dog: 2 (66.7%)",
        "dog taken for owl: 1 (33.3%)",
        "owl taken for cat: 1 (33.3%)",
        "owl taken for owl: 2 (66.7%)",
    }
    cat, dog = opacity["cat taken for cat: 3 (75.0%)"], opacity["cat taken for dog: 1 (25.0%)"]
    assert cat - dog == pytest.approx(0.9 * 0.5, abs=0.002)
    # A column to the right, in the same row.
    right, wrong = drawn["cat taken for cat: 3 (75.0%)"], drawn["cat taken for dog: 1 (25.0%)"]
    assert (right.get("y"), float(right.get("x")) + float(right.get("width"))) == (
        wrong.get("y"),
        float(wrong.get("x")),
    )


@pytest.mark.parametrize("name", ["cnn", "esc-crnn-attention", "x" * 90])
@pytest.mark.parametrize("classes", [2, 30])
def test_the_title_lies_within_the_picture_in_a_wide_font(name: str, classes: int) -> None:
    record = with_classes(classes)
    found = found_in(record.model_copy(update={"spec": record.spec.model_copy(update={"model": name})}), "x")
    drawn = ElementTree.fromstring(heat_map(found))
    # Pixels of a letter of DejaVu Sans in bold at 14 pixels, and at 12, in titles such as these.
    for kind, said, letter in (("title", found.title, 9.6), ("quiet", found.about, 7.2)):
        lines = [text for text in drawn.iter(f"{SVG}text") if text.get("class") == kind and text.get("x") == "16"]
        assert "".join(line.text for line in lines).replace(" ", "") == said.replace(" ", "")
        assert max(len(line.text) for line in lines) * letter + 16 <= float(drawn.get("width"))
        assert len({line.get("y") for line in lines}) == len(lines)
    (above,) = [text for text in drawn.iter(f"{SVG}text") if text.text == "predicted"]
    heads = [float(text.get("y")) for text in drawn.iter(f"{SVG}text") if text.get("x") == "16"]
    assert max(heads) < float(above.get("y")) - 10


def test_200_classes_fit_without_numbers_and_with_some_names() -> None:
    drawn = picture(with_classes(200))
    assert len(cells(drawn)) == 200
    assert max(float(drawn.get("width")), float(drawn.get("height"))) < 1100
    texts = ["".join(text.itertext()) for text in drawn.iter(f"{SVG}text")]
    named = [text for text in texts if text.startswith("c") and text[1:].isdecimal()]
    assert 0 < len(named) <= 2 * 60
    assert not [text for text in texts if text.isdecimal()]


def test_names_of_classes_stay_text(tmp_path: Path) -> None:
    names = (HOSTILE, 'a,"b"', "=1+1\n2")
    record = trained(changes={"test": evaluation(classes=names)})
    drawn = picture(record)
    assert not list(drawn.iter(f"{SVG}script"))
    assert any(said.startswith(f"{HOSTILE} taken for {HOSTILE}: 3") for said in cells(drawn))
    path = results.write(record, tmp_path)
    assert call("confusion", str(path), "--csv", str(tmp_path / "c.csv")).exit_code == 0
    with (tmp_path / "c.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["true class", *names]
    assert [line[0] for line in lines[1:]] == list(names)
    assert "<script>" in call("show", str(path), "--classes").stdout


def test_the_command_prints_or_writes(tmp_path: Path) -> None:
    path = str(results.write(trained(), tmp_path))
    done = call("confusion", path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "Rows: true classes." in done.stdout
    svg, table = tmp_path / "c.svg", tmp_path / "c.csv"
    done = call("confusion", "last", "--results", str(tmp_path), "--svg", str(svg), "--csv", str(table))
    assert (done.exit_code, done.stdout) == (0, "")
    assert len(cells(ElementTree.parse(svg).getroot())) == 6
    assert table.read_text() == "true class,cat,dog,owl\ncat,3,1,0\ndog,0,2,1\nowl,1,0,2\n"


@pytest.mark.parametrize("command", [("confusion",), ("show", "--classes")], ids=["confusion", "classes"])
def test_a_run_that_was_not_tested_is_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = results.write(run(), tmp_path)
    done = call(*command, str(path))
    assert (done.exit_code, done.stdout) == (1, "")
    assert str(done.exception).startswith(f"{path.stem} was not tested, so it has no confusion matrix")
    assert "\n" not in str(done.exception)


def test_flags_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = str(results.write(trained(), tmp_path))
    missing = call("confusion", path, "--svg", str(tmp_path / "none" / "c.svg"))
    assert str(missing.exception).startswith(f"--svg {tmp_path}/none/c.svg: there is no folder")
    for flag in ("--svg", "--csv"):
        (tmp_path / "paper.tex").write_text("years of work")
        assert "paper.tex is there already" in str(call("confusion", path, flag, str(tmp_path / "paper.tex")).exception)
        assert (tmp_path / "paper.tex").read_text() == "years of work"
    both = call("show", path, "--classes", "--json")
    assert str(both.exception).startswith("--classes goes with neither --json nor --into")
