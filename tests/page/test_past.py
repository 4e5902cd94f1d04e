"""The section of a metric over time: when it is there, what it draws, and how it is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from page_records import HOSTILE, NOISE, PHONE, TEMPLATE, draw_all, run

from bench.page.content import page_content
from bench.records.record import RunRecord


def on_day(day: int, epoch_s: float, *, zarr: str = "3.1.6", revision: str = "a" * 40, **more) -> RunRecord:
    """A run of a day of its own, outside of any comparison, by a version of zarr and a revision of the code."""
    environment = {
        **TEMPLATE.environment,
        "libraries": {**TEMPLATE.environment["libraries"], "zarr": zarr},
        "git_revision": revision,
        "git_modified": False,
        "disturbance": {"canary_s": [0.04, 0.04]},
    }
    started = f"2026-11-{1 + day:02}T10:00:00.000000+00:00"
    return run("zarr", 0, epoch_s, campaign=False, environment=environment, started_at=started, repeat=0, **more)


BEFORE = [on_day(day, value) for day, value in enumerate(NOISE)]
BEHIND = [on_day(8 + day, 1.2 * v, zarr="3.2.0", revision="b" * 40) for day, v in enumerate(NOISE)]


def test_only_what_was_measured_at_several_times_or_revisions_has_a_past() -> None:
    same_day = [run("zarr", block, 1.0, campaign=False) for block in range(3)]
    assert page_content(same_day, "now")["past"]["series"] == []
    other_revision = on_day(0, 1.0, revision="b" * 40)
    for records in (BEFORE[:2], [BEFORE[0], other_revision]):
        (series,) = page_content(records, "now")["past"]["series"]
        assert len(series["metrics"]["epoch_s"]["points"]) == 2
        assert series["metrics"]["epoch_s"]["texts"] == ["Steps can be shown from 10 points on; here are 2."]
    other_work = on_day(1, 1.0, spec={"model": "resnet18"})
    assert page_content([BEFORE[0], other_work], "now")["past"]["series"] == [], "equal work alone has a past"


def test_steps_and_what_changed_there_are_in_the_content() -> None:
    (series,) = page_content([*BEHIND, *BEFORE], "now")["past"]["series"]
    found = series["metrics"]["epoch_s"]
    before, behind = np.median(NOISE), 1.2 * np.median(NOISE)
    assert found["steps"] == [[8, pytest.approx(1.2), pytest.approx(before), pytest.approx(behind)]]
    assert "zarr 3.1.6 → 3.2.0" in found["texts"][0]
    assert found["points"][8]["changed"] == "zarr 3.2.0"
    assert [point["v"] for point in found["points"][:8]] == pytest.approx(list(NOISE))
    assert series["metrics"]["prepare_s"]["steps"] == []


def test_series_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.page.past.SERIES", 1)
    other = [on_day(day, 1.0, spec={"seed": 5}) for day in range(3)]
    found = page_content([*BEFORE[:2], *other], "now")["past"]
    assert (len(found["series"]), found["more"]) == (1, 1)
    assert len(found["series"][0]["metrics"]["epoch_s"]["points"]) == 3, "the one of most points"


def test_a_step_is_drawn_and_said_and_another_quantity_can_be_chosen(show) -> None:
    page = show([*BEFORE, *BEHIND])
    assert "1.2" in page.locator("#past-steps").inner_text()
    assert "zarr 3.1.6 → 3.2.0" in page.locator("#past-steps").inner_text()
    assert draw_all(page)["chart-past"] == "drawn"
    plot = "document.querySelector('#chart-past .plot')"
    assert page.evaluate(f"{plot}.data[0].y") == pytest.approx([r * v for r in (1, 1.2) for v in NOISE])
    assert page.evaluate(f"{plot}.layout.shapes.map((s) => s.x0)") == ["2026-11-09 10:00"]
    levels = page.evaluate(f"{plot}.data[1].y")
    assert levels == [pytest.approx(1.0), pytest.approx(1.0), None, pytest.approx(1.2), pytest.approx(1.2), None]
    rows = page.locator("#past-table tbody tr")
    assert rows.count() == 16
    assert rows.nth(8).inner_text().split("\t")[:3] == ["2026-11-09 10:00", "bbbbbbbbb", "zarr 3.2.0"]
    page.locator("#over").select_option("prepare_s")
    assert page.locator("#past-steps").inner_text() == "No step is shown."
    assert "over=prepare_s" in page.url
    # What the table of methods is narrowed to is another matter.
    page.locator("#filter").fill("nothing is called so")
    assert draw_all(page)["chart-past"] == "drawn"
    assert page.evaluate(f"{plot}.layout.yaxis.title.text") == "preparation, s"


def test_a_step_from_zero_has_no_ratio_and_is_drawn(show) -> None:
    def with_calls(record: RunRecord, calls: int) -> RunRecord:
        epochs = [e.model_copy(update={"io": e.io.model_copy(update={"read_calls": calls})}) for e in record.epochs]
        return record.model_copy(update={"epochs": epochs})

    page = show([*(with_calls(r, 0) for r in BEFORE), *(with_calls(r, 1000) for r in BEHIND)])
    page.locator("#over").select_option("read_calls")
    assert "from 0 to 1,000 (p = " in page.locator("#past-steps").inner_text()
    assert draw_all(page)["chart-past"] == "drawn"
    layout = "document.querySelector('#chart-past .plot').layout"
    assert page.evaluate(f"{layout}.annotations.map((a) => a.text)") == ["0 → 1,000"]
    assert page.locator("#past-table tbody tr").nth(8).inner_text().split("\t")[-1] == "0 → 1,000"


def test_without_a_past_there_is_no_section(show) -> None:
    page = show([run("zarr", 0, 1.0, campaign=False)])
    assert page.locator("#past").is_hidden()
    assert page.locator("nav button", has_text="Over time").count() == 0
    draw_all(page)


def test_a_past_on_a_phone_in_the_dark_with_hostile_names(show) -> None:
    hostile = [on_day(day, 1.0 + day, zarr=HOSTILE * (day + 1), revision=HOSTILE) for day in range(3)]
    page = show(hostile, size=PHONE, scheme="dark")
    assert draw_all(page)["chart-past"] == "drawn"
    assert HOSTILE[:9] in page.locator("#past-table").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    background = page.evaluate("document.querySelector('#chart-past .plot').layout.font.color")
    assert background == "rgb(228, 232, 238)"
