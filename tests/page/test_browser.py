"""The page in a browser: it draws, sorts, filters, changes its theme, and shows text from records as text."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from page_records import BLOCKS, HOSTILE, NOISE, PHONE, TEMPLATE, campaign, draw_all, run, with_losses

from bench.records.record import ErrorInfo, WarningInfo
from bench.training.evaluation import evaluate


def labels(page) -> list[str]:
    return page.locator("#table tbody th button").all_inner_texts()


def view(page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).fragment).items()}


THREE = campaign(zarr=2.0, hdf5=1.5, memmap=1.2)


def test_the_verdict_stands_first_and_all_charts_are_drawn(show) -> None:
    page = show(THREE)
    assert page.locator("#headline").inner_text() == "Choose memmap[library]"
    assert page.locator("#sure").inner_text() == "Shown, in randomised blocks"
    assert page.locator("main section:visible").first.get_attribute("id") == "verdict"
    states = draw_all(page)
    expected = ["quantity", "parts", "memory", "disk", "prepare", "amplification", "waits", "lines", "drift", "total"]
    assert {f"chart-{name}": states[f"chart-{name}"] for name in expected} == {f"chart-{n}": "drawn" for n in expected}
    assert "cold: verified (cachestat" in page.locator("#proofs tbody tr").first.inner_text()
    assert page.locator("#chart-scaling").inner_text().endswith("All methods here have the same number of workers.")
    data = page.evaluate("document.querySelector('#chart-quantity .plot').data.map((t) => [t.name, t.x])")
    drawn = dict(data)
    # Sorted as the table: 1.2 s, 1.5 s, 2 s times the median of the noise, 1.
    assert drawn["median"] == pytest.approx([1.2, 1.5, 2.0], rel=0.01)
    assert len(drawn["a run"]) == 3 * BLOCKS, "none of the control"
    assert drawn["ceiling: from memory, 1.00 s"] == [1, 1]


def test_parts_of_an_epoch_are_stacked(show) -> None:
    page = show(THREE)
    draw_all(page)
    parts = page.evaluate("document.querySelector('#chart-parts .plot').data.map((t) => [t.name, t.x[0]])")
    epoch_s = sum(value for _, value in parts)
    assert epoch_s == pytest.approx(1.2, rel=0.02)
    assert {name: value / epoch_s for name, value in parts} == pytest.approx(
        {"wait for data": 1 / 2, "copy": 1 / 8, "compute": 3 / 8}, rel=1e-4
    )


def test_augmenting_is_a_part_where_there_was_some(show) -> None:
    plain = run("zarr", 0, 2.0)
    epochs = [epoch.model_copy(update={"augment_s": 0.25, "compute_s": 0.5}) for epoch in plain.epochs]
    spec = plain.spec.model_copy(update={"augment": ("flip", "crop")})
    page = show([plain.model_copy(update={"epochs": epochs, "spec": spec, "spec_id": spec.spec_id})])
    draw_all(page)
    parts = page.evaluate("document.querySelector('#chart-parts .plot').data.map((t) => [t.name, t.x[0]])")
    assert parts == [["wait for data", 1.0], ["copy", 0.25], ["augment", 0.25], ["compute", 0.5]]
    assert "augmented by flip+crop" in page.locator("body").inner_text()


def test_throughput_is_drawn_against_workers(show) -> None:
    records = [run("zarr", 0, 4.0 / (1 + n), spec={"workers": n}) for n in (0, 1, 3)]
    page = show(records)
    assert draw_all(page)["chart-scaling"] == "drawn"
    (line,) = page.evaluate("document.querySelector('#chart-scaling .plot').data.map((t) => [t.name, t.x, t.y])")
    assert (line[0], line[1]) == ("zarr[library]", [0, 1, 3])
    assert [value / line[2][0] for value in line[2]] == pytest.approx([1, 2, 4], rel=1e-4)


def test_the_table_sorts_by_any_column_and_says_so(show) -> None:
    page = show(THREE)
    assert labels(page) == ["memmap[library]", "hdf5[library]", "zarr[library]"]
    heading = page.locator("#table thead th", has=page.locator("[data-sort=epoch_s]"))
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").click()
    assert labels(page) == ["zarr[library]", "hdf5[library]", "memmap[library]"]
    assert heading.get_attribute("aria-sort") == "descending"
    assert view(page) == {"sort": "-epoch_s"}
    page.locator("[data-sort=label]").click()
    assert labels(page) == ["hdf5[library]", "memmap[library]", "zarr[library]"]
    assert page.locator("#table [aria-sort]").count() == 1
    # Of what more is better, the most comes first.
    page.locator("[data-sort=samples_per_s]").click()
    assert labels(page)[0] == "memmap[library]"


def test_bold_and_best_are_only_what_was_shown(show) -> None:
    def found(page) -> tuple[list[str], str]:
        bold = page.locator("#table tbody td.bestcell").all_inner_texts()
        return [text.split("\n")[0] for text in bold], page.locator("#table tbody tr").first.inner_text()

    bold, first = found(show(THREE))
    assert "1.20" in bold
    assert "1 (best)" in first
    unsure = [record.model_copy(update={"campaign": None}) for record in THREE]
    bold, first = found(show(unsure))
    assert bold == []
    assert "1 (reference)" in first


def test_filters_narrow_table_and_charts(show) -> None:
    page = show(THREE)
    page.locator("#filter").fill("ZARR")
    assert labels(page) == ["zarr[library]"]
    assert page.locator("#count").inner_text() == "1 of 3 methods"
    draw_all(page)
    assert page.evaluate("document.querySelector('#chart-disk .plot').data[0].x.length") == 1
    page.locator("#filter").fill("")
    page.locator("#backend").select_option("hdf5")
    assert labels(page) == ["hdf5[library]"]
    page.locator("#backend").select_option("")
    page.locator("#close").check()
    assert labels(page) == ["memmap[library]"]
    page.locator("#filter").fill("nothing is called so")
    assert labels(page) == []
    draw_all(page)


def test_a_link_brings_back_the_same_view(show) -> None:
    page = show(THREE)
    page.locator("[data-sort=label]").click()
    page.locator("#filter").fill("m")
    page.locator("#metric").select_option("wait_share")
    page.locator("#theme").select_option("dark")
    link = page.locator("#link").get_attribute("href")
    again = show(THREE, link)
    assert labels(again) == ["memmap[library]"]
    assert again.locator("#metric").input_value() == "wait_share"
    assert again.locator("html").get_attribute("data-theme") == "dark"
    draw_all(again)
    title = again.evaluate("document.querySelector('#chart-quantity .plot').layout.xaxis.title.text")
    assert title == "waiting for data, % of epoch"
    again.evaluate("location.hash = '#sort=-epoch_s'")
    again.locator("#table tbody tr").nth(2).wait_for()
    assert labels(again)[0] == "zarr[library]"


def test_the_theme_follows_the_system_until_one_is_chosen(show) -> None:
    page = show(THREE, scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(20, 23, 27)"
    draw_all(page)
    colour = "document.querySelector('#chart-quantity .plot').layout.font.color"
    dark = page.evaluate(colour)
    page.locator("#theme").select_option("light")
    assert page.evaluate(background) == "rgb(246, 247, 249)"
    draw_all(page)
    assert page.evaluate(colour) != dark


def test_text_from_records_is_shown_as_text(show) -> None:
    spec = {"dataset": f"toys:{HOSTILE}", "backend": HOSTILE, "model": HOSTILE}
    error = ErrorInfo(phase="train", type="X", message=HOSTILE)
    warnings = [WarningInfo(kind=HOSTILE, message=HOSTILE)]
    environment = {**TEMPLATE.environment, "cpu": HOSTILE, "command": ["bench", HOSTILE]}
    data = TEMPLATE.data.model_copy(update={"name": HOSTILE})
    options = {"reader": HOSTILE, "level": 1}
    changes = {"warnings": warnings, "environment": environment, "reader": {HOSTILE: HOSTILE}, "data": data}
    records = [run(HOSTILE, n, 1.0 + n, spec={**spec, "options": {**options, "level": n}}, **changes) for n in range(3)]
    failed = run(HOSTILE, 5, 1.0, spec=spec, status="failed", error=error, **changes)
    page = show([*records, failed])
    page.locator("#table tbody th button").first.click()
    assert HOSTILE in page.locator("#detail").inner_text()
    page.locator("#detail-close").click()
    draw_all(page)
    page.locator("details summary").first.click()
    for place in (
        "#headline",
        "#about",
        "#table",
        "#warning-list",
        "#failure-table",
        "#machine",
        "#payback",
        "#losses",
    ):
        assert "<script>window.hacked=1</script>" in page.locator(place).inner_text(), place
    plotted = " ".join(page.locator(".plot text").all_text_contents())
    assert "<script>window" in plotted
    assert page.evaluate("window.hacked") is None
    assert page.locator("b:has-text('bold')").count() == page.locator("summary b:has-text('bold')").count()
    assert page.locator("img, .plot a, main script").count() == 0


def test_charts_do_not_read_html_in_names(show) -> None:
    name = "<b>x</b>&lt;<a href='//e'>y</a>"
    page = show([run(name, 0, 1.0, campaign=False), run("zarr", 0, 2.0, campaign=False)])
    draw_all(page)
    for chart in ("quantity", "disk", "waits"):
        texts = page.locator(f"#chart-{chart} .plot text").all_text_contents()
        assert any(text.startswith(name) for text in texts), (chart, texts)
    assert page.locator(".plot a").count() == 0


def test_break_even_by_hand(show) -> None:
    records = []
    for backend, epoch_s, prepare_s in (("zarr", 3.5, 4.0), ("memmap", 2.0, 10.0), ("hdf5", 4.0, 20.0)):
        records += [run(backend, b, epoch_s * NOISE[b], prepare_s=prepare_s) for b in range(BLOCKS)]
    page = show(records)
    rows = page.locator("#payback tbody tr").all()
    texts = [[cell.inner_text() for cell in row.locator("th, td").all()] for row in rows]
    assert texts[0][0] == "memmap[library] (chosen)"
    # Medians of the noise are 1: (10 - 4) / (3.5 - 2) = 4. Without a control, nothing was shown.
    assert texts[1] == ["zarr[library]", "4.00", "3.50", "~4.00", "seems to take more after that", "not shown"]
    assert texts[2] == ["hdf5[library]", "20.0", "4.00", "never", "seems to take more, always", "not shown"]
    page.locator("#against").select_option("zarr[library]")
    assert (
        "memmap[library]\t10.0\t2.00\t~4.00\tseems to take less from then on" in page.locator("#payback").inner_text()
    )


def test_charts_are_drawn_when_they_come_into_sight(show) -> None:
    page = show(THREE)
    assert page.locator("#chart-total").get_attribute("data-state") == "waiting"
    page.locator("#cost").scroll_into_view_if_needed()
    page.wait_for_selector("#chart-total[data-state=drawn]")


def test_losses_that_differ_are_shown_with_the_place(show) -> None:
    page = show([with_losses(run(name, 0, 1.0), [2.0, loss]) for name, loss in (("zarr", 1.5), ("memmap", 1.0))])
    assert page.locator("#equal-text").inner_text().startswith("Not identical, although these runs are deterministic")
    rows = [row.inner_text().split("\t") for row in page.locator("#losses tbody tr").all()]
    found = {row[0]: row[2:4] for row in rows}
    other = "epoch 0, batch 1: 1 instead of 1.5"
    assert found == {"zarr[library]": ["yes", ""], "memmap[library]": ["NO", other]}


def test_another_kind_of_work_can_be_chosen(show) -> None:
    others = [run("zarr", n, 3.0, spec={"model": "resnet18"}) for n in range(2)]
    page = show([*THREE, *others])
    assert page.locator("#works tbody tr").count() == 2
    page.locator("#facet-model").select_option("resnet18")
    assert page.locator("#headline").inner_text() == "One method, no comparison"
    assert labels(page) == ["zarr[library]"]
    page.locator("#facet-model").select_option("")
    page.locator("#works tbody th button").first.click()
    assert page.locator("#headline").inner_text() == "Choose memmap[library]"
    assert page.locator("#works [aria-current=true] td").first.inner_text() == "Choose memmap[library]"


def test_a_phone_needs_no_sideways_scrolling_and_paper_is_light(show) -> None:
    page = show(THREE, size=PHONE)
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    printed = show(THREE, "#theme=dark")
    printed.emulate_media(media="print")
    assert printed.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert printed.locator("nav").is_hidden()
    assert printed.pdf().startswith(b"%PDF")
    assert printed.locator("html").get_attribute("data-theme") == "dark"
    assert set(draw_all(printed).values()) <= {"drawn", "empty"}


def test_keyboard_and_names_for_those_who_do_not_see(show) -> None:
    page = show(THREE)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    unnamed = "[...document.querySelectorAll('select, input')].filter((e) => !e.labels.length && !e.ariaLabel).length"
    assert page.evaluate(unnamed) == 0
    assert page.locator("table th:not([scope])").count() == 0
    page.locator("[data-sort=epoch_s]").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.sort") == "epoch_s"
    draw_all(page)
    assert page.locator(".js-plotly-plot:not([aria-label])").count() == 0


def test_one_record_is_enough(show) -> None:
    page = show([run("zarr", 0, 1.5, campaign=False)])
    assert page.locator("#chooser, #overview").first.is_hidden()
    assert labels(page) == ["zarr[library]"]
    draw_all(page)


def test_a_run_without_a_counted_epoch_has_no_verdict_and_no_error(show) -> None:
    record = run("zarr", 0, 1.5)
    page = show([record.model_copy(update={"epochs": record.epochs[:1]})])
    assert page.locator("#headline").inner_text() == "No run completed an epoch"
    assert labels(page) == ["zarr[library]"]
    assert draw_all(page)["chart-quantity"] == "empty"


def test_a_folder_of_failures_says_why(show) -> None:
    error = ErrorInfo(phase="open", type="BackendError", message="no such file")
    page = show([run("zarr", n, 1.0, status="failed", error=error, epochs=[], ideal_s=None) for n in range(4)])
    assert page.locator("#headline").inner_text() == "No run gave a result"
    assert "no such file" in page.locator("#failure-table").inner_text()
    assert page.locator("#methods").is_hidden()


def test_5000_records_stay_small_with_tests_of_200_classes(show, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    true = np.arange(10_000) % 200
    names = tuple(f"class {number:08}" for number in range(200))
    tests = []
    for _ in range(9):
        predicted = np.where(random.random(10_000) < 0.4, true, random.integers(0, 200, 10_000))
        tests.append(evaluate(true, predicted, names, loss=1, split="test", epoch=1, evaluate_s=1, detailed=True))
    records = []
    for work in range(10):
        for level in range(62):
            spec = {"options": {"reader": "library", "level": level}, "seed": work}
            test = tests[(work + level) % 9]
            records += [run("zarr", b, (1 + level / 100) * NOISE[b], spec=spec, test=test) for b in range(BLOCKS)]
    records += records[:40]
    assert len(records) == 5000
    page = show(records)
    assert (tmp_path / "report.html").stat().st_size < 15e6
    assert page.locator("#table tbody tr").count() == 62
    assert "the first 40 of 62 methods" in page.locator("#limit").inner_text()
    assert draw_all(page)["chart-confusion"] == "drawn"
    assert page.locator("#classes tbody tr").count() == 202
    # Eight of nine different tests are kept of a work, and of all works only some.
    assert "6 methods more are left out" in page.locator("#test-about").inner_text()
    kept = page.evaluate("Bench.content.works.map((work) => work.tests.length)")
    assert (kept[0], kept[-1]) == (8, 0)
