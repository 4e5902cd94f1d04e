"""A browser that opens pages of records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_records import DESKTOP

from bench.page import document
from bench.page.content import page_content
from bench.records.record import RunRecord

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium; its absence skips a test, or fails it where that is asked for."""
    missing = None if CHROMIUM.exists() else f"there is no {CHROMIUM}"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        missing = str(error)
    if missing is not None:
        if os.environ.get("BENCH_REQUIRE_TOOLS"):
            pytest.fail(f"a browser is required here, but {missing}")
        pytest.skip(f"needs a browser: {missing}")
    # Not for the whole session: its loop and its messages would reach into the tests that come later.
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def show(browser, tmp_path: Path) -> Iterator:
    """Open a page of records; any error in its console, and any attempt to load something, fails the test."""
    troubles: list[str] = []
    pages = []

    def opened(records: list[RunRecord], fragment: str = "", size: dict = DESKTOP, scheme: str = "light"):
        path = tmp_path / "report.html"
        path.write_text(document.html(page_content(records, "now")))
        page = browser.new_page(viewport=size, color_scheme=scheme)
        pages.append(page)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.extend([request.url] if "report.html" not in request.url else []))
        page.goto(f"{path.as_uri()}{fragment}")
        # Not wait_for_function: it evaluates text, which the page forbids.
        page.wait_for_selector("html[data-charts=ready]", state="attached")
        return page

    yield opened
    for page in pages:
        page.close()
    # What a chart makes of itself (data:, blob:) is not loaded from anywhere.
    assert [trouble for trouble in troubles if not trouble.startswith(("data:", "blob:"))] == []
