"""The file that is written: it holds everything, lets nothing out, and is there whole or not at all."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from page_records import campaign, run

from bench.page import document
from bench.page.content import page_content

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> & \u2028\u2029"


@pytest.fixture(scope="module")
def page() -> str:
    return document.html(page_content(campaign(zarr=2.0, memmap=1.5), "now", [HOSTILE]))


def scripts(page: str) -> list[tuple[str, str]]:
    return re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)


def test_json_in_a_script_element_cannot_end_it_and_stays_what_it_was() -> None:
    text = document.embedded_json({"a": HOSTILE, "b": [1.5, None, "é"]})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": HOSTILE, "b": [1.5, None, "é"]}
    with pytest.raises(ValueError, match="JSON"):
        document.embedded_json([float("nan")])


def test_the_page_is_one_file_with_three_scripts_whatever_records_hold(page: str) -> None:
    kinds = [attributes for attributes, _ in scripts(page)]
    assert kinds == [' type="application/json" id="content"', ' type="text/plain" id="plotly"', ""]
    assert json.loads(scripts(page)[0][1])["unreadable"] == [HOSTILE]
    assert "alert(1)</script>" not in page
    own = page.replace(scripts(page)[1][1], "")
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", own)
    assert "@import" not in own
    assert "url(" not in own


def test_only_the_scripts_of_the_page_may_run_and_nothing_may_be_loaded(page: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for attributes, text in scripts(page)
        if "json" not in attributes
    }
    assert set(rules["script-src"].split()) == hashes
    assert "connect-src" not in rules
    assert set(rules["img-src"].split()) == {"data:", "blob:"}


def records_in(folder: Path, count: int = 2) -> None:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.json").write_text(run("zarr", number, 1.0).to_json())


def test_the_command_writes_a_report_and_names_what_it_could_not_read(bench, tmp_path: Path) -> None:
    records_in(tmp_path / "results")
    (tmp_path / "results" / "broken.json").write_text("{")
    done = bench("report", "-o", "out.html")
    assert (done.returncode, done.stdout) == (0, "")
    assert "broken.json is not a readable record" in done.stderr
    assert "out.html: 2 runs, 1 kind of work." in done.stderr
    page = (tmp_path / "out.html").read_text()
    assert "broken.json is not a readable record" in json.loads(scripts(page)[0][1])["unreadable"][0]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("missing/out.html", "-o missing/out.html: there is no folder missing."),
        ("results", "-o results is a folder."),
        ("results/0.json/out.html", "there is no folder results/0.json."),
        ("results/0.json", "-o results/0.json is there already, and is not replaced"),
        ("/dev/null", "-o /dev/null is no ordinary file."),
        ("/proc/out.html", "-o /proc/out.html: cannot write to /proc"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_one_line(bench, tmp_path: Path, output: str, message: str) -> None:
    records_in(tmp_path / "results")
    done = bench("report", "-o", output)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_no_records_is_one_line_and_no_file(bench, tmp_path: Path) -> None:
    done = bench("report")
    assert done.returncode == 1
    assert done.stderr == "bench: No records in results. Make one with `bench run`, or choose --results.\n"
    assert not (tmp_path / "report.html").exists()
