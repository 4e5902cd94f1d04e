"""What the page says and draws of what networks learnt, of predictions that are known."""

from __future__ import annotations

import pytest
from page_records import HOSTILE, PHONE, draw_all, fold, run, with_tests

from bench.page import learned
from bench.page.content import page_content
from bench.page.equality import equality
from bench.records.groups import equal_runs, same_work
from bench.records.record import RunRecord
from bench.records.stored import Lossy
from bench.report.labels import Methods

TRUE = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
PREDICTED = [0, 0, 0, 1, 1, 1, 2, 0, 2, 2]
OTHERWISE = [0, 0, 0, 1, 1, 1, 2, 0, 1, 2]


def learnt(backend: str, predicted: list[int] = PREDICTED) -> RunRecord:
    return with_tests(run(backend, 0, 1.0, campaign=False), TRUE, predicted)


def evaluated(*records: RunRecord) -> tuple[str, ...]:
    (work,) = same_work(equal_runs(records))
    names = Methods(work.records, spoken=True).unique([group.first for group in work.groups])
    return equality(work, names).evaluated


def test_a_matrix_is_kept_once_for_all_that_predicted_alike() -> None:
    content = page_content([learnt("zarr"), learnt("hdf5"), learnt("memmap", OTHERWISE), run("cupy", 0, 1.0)], "now")
    works = content["works"]
    tests = [one for work in works for one in work["tests"]]
    assert len(tests) == 2
    places = {m["backend"]: m["test"] for work in works for m in work["methods"]}
    assert places["zarr"] == places["hdf5"] != places["memmap"]
    assert places["cupy"] is None
    assert content["classes"] == [["cat", "dog", "owl"]]
    # Rows of three: cat 3 1 0, dog 0 2 1, owl 1 0 2, without the zeros.
    kept = next(work for work in works if len(work["methods"]) == 3)["tests"][places["zarr"]]
    assert kept["cells"] == [0, 3, 1, 1, 4, 2, 5, 1, 6, 1, 8, 2]
    assert kept["shares"] == [[0.75, 0.75, 0.75], [0.6667, 0.6667, 0.6667], [0.6667, 0.6667, 0.6667]]


def test_there_is_room_for_some_matrices_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "CELLS", 12)
    content = page_content([learnt("zarr"), learnt("memmap", OTHERWISE), learnt("hdf5", TRUE)], "now")
    (work,) = content["works"]
    # Six cells, and six of other counts; three more do not fit.
    assert sorted(method["test"] for method in work["methods"]) == [-1, 0, 1]


def test_equal_evaluations_are_said_to_be_identical() -> None:
    validation, test = evaluated(learnt("zarr"), learnt("hdf5"))
    assert validation == (
        "Validation: identical in all 2 runs, after each of 2 epochs, bit for bit: loss, accuracy (70.00 %), averages."
    )
    assert test == "Test: identical in all 2 runs, bit for bit: loss, accuracy (70.00 %), averages."
    assert evaluated(learnt("zarr")) == ()


def test_evaluations_that_differ_are_named_with_the_range_of_the_accuracy() -> None:
    _, test = evaluated(learnt("zarr"), learnt("hdf5", OTHERWISE))
    assert test == (
        "Test: not identical (hdf5[library]), although these runs are deterministic and have one seed; "
        "accuracy lies between 60.00 and 70.00 %."
    )
    lossy = learnt("hdf5", OTHERWISE)
    lossy = lossy.model_copy(update={"store": lossy.store.model_copy(update={"lossy": Lossy(psnr_db=40)})})
    assert "as is to be expected of lossy stores" in evaluated(learnt("zarr"), lossy)[1]


def test_equal_accuracy_does_not_hide_another_loss() -> None:
    other = with_tests(run("hdf5", 0, 1.0, campaign=False), TRUE, PREDICTED, loss=0.6)
    assert evaluated(learnt("zarr"), other)[1].endswith("; accuracy is 70.00 % in all.")


def test_folds_are_summarised_and_the_missing_named() -> None:
    records = [fold(n, right) for n, right in ((1, 5), (2, 7), (4, 9))] + [fold(1, 2, identity="k2", backend="hdf5")]
    found = page_content(records, "now")["folds"]
    one = next(one for one in found["all"] if one["id"] == "k1")
    assert (one["missing"], one["repeated"]) == ([3], [])
    assert one["values"]["test_accuracy"] == [[1, 50], [2, 70], [4, 90]]
    assert one["summaries"]["test_accuracy"] == [70, 70, 20]
    assert {one["label"] for one in found["all"]} == {
        "zarr[library], cnn, toys (synthetic)",
        "hdf5[library], cnn, toys (synthetic)",
    }


def test_sections_are_there_only_where_records_have_such_data(show) -> None:
    page = show([run("zarr", 0, 1.0, campaign=False)])
    assert [page.locator(f"#{name}").is_visible() for name in ("tested", "folds")] == [False, False]
    assert "Test" not in page.locator("#sections").inner_text().split()
    page = show([learnt("zarr")])
    assert [page.locator(f"#{name}").is_visible() for name in ("learning", "tested", "folds")] == [True, True, False]
    assert "Test" in page.locator("#sections").inner_text().split()


def test_the_confusion_matrix_of_a_chosen_method_is_drawn(show) -> None:
    page = show([learnt("zarr"), learnt("hdf5", OTHERWISE)])
    page.locator("#test").select_option("hdf5[library]")
    assert "test=hdf5" in page.url
    states = draw_all(page)
    assert states["chart-confusion"] == "drawn"
    drawn = page.evaluate("document.querySelector('#chart-confusion .plot').data[0]")
    assert drawn["text"] == [["3", "1", ""], ["", "2", "1"], ["1", "1", "1"]]
    assert drawn["z"][0] == [0.75, 0.25, 0]
    assert drawn["hovertext"][2][0] == "owl taken for cat: 1 (33.3 % of 3)"
    rows = [row.inner_text().split("\t") for row in page.locator("#classes tbody tr").all()]
    assert rows[2] == ["cat", "75.0", "75.0", "75.0", "4"]
    assert rows[4] == ["owl", "50.0", "33.3", "40.0", "3"]
    # Validation losses of both, and one line of training for what trained alike.
    names = page.evaluate("document.querySelector('#chart-loss .plot').data.map((t) => [t.name, t.x, t.y])")
    assert next(line for line in names if line[0].startswith("validation: "))[1:] == [[0, 1], [1.5, 1]]


def test_folds_are_boxes_with_their_points(show) -> None:
    page = show([fold(n, right) for n, right in ((1, 5), (2, 7), (4, 9))])
    assert draw_all(page)["chart-folds"] == "drawn"
    (box,) = page.evaluate("document.querySelector('#chart-folds .plot').data.map((t) => [t.type, t.boxpoints, t.x])")
    assert box == ["box", "all", [50, 70, 90]]
    text = page.locator("#fold-table tbody").inner_text()
    assert text.split("\t")[1:] == ["INCOMPLETE: 3 of 4, none of 3", "70.0", "70.0", "20.0", "50.0…90.0"]
    page.locator("#fold").select_option("test_loss")
    draw_all(page)
    assert page.evaluate("document.querySelector('#chart-folds .plot').data[0].x") == [0.5, 0.5, 0.5]


def test_names_of_classes_are_shown_as_text(show) -> None:
    names = (HOSTILE, "<b>x</b>", "&lt;")
    page = show([with_tests(run("zarr", 0, 1.0, campaign=False), TRUE, PREDICTED, names)], size=PHONE)
    draw_all(page)
    assert "<script>window.hacked=1</script>" in page.locator("#classes").inner_text()
    ticks = page.locator("#chart-confusion .plot text").all_text_contents()
    assert {"<b>x</b>", "&lt;"} <= set(ticks)
    assert page.evaluate("window.hacked") is None
    assert page.locator(".plot a, .plot img, main script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
