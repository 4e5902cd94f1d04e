"""One table in every syntax, and raw numbers for other programs."""

import csv
import io
import json
import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tabled import BASE, campaign, failed, pivot, run

from bench.report import raw, render
from bench.report.latex import escape, latex
from bench.report.marked import HEADING, MarkedTable
from bench.report.page_table import html
from bench.report.pivot_notes import pivot_notes
from bench.report.pivot_tables import pivot_tables
from bench.report.tables import Table

NASTY = '<script>alert(1)</script> & 50 % of $x_1^2 #{a}~\\n | *b* "q" [c] … µs é'
TABLE = MarkedTable(
    NASTY,
    ["name", "[x]"],
    [[NASTY, "1.5"], ["[y]", "n/a"]],
    [],
    strong=frozenset({(0, 1)}),
    marks={(1, 1): "a", (HEADING, 1): "b"},
)


def test_markdown_marks_the_best_and_refers_to_notes() -> None:
    text = render.markdown_all([TABLE], ["(a) Why <not> ~1~ *so*."])
    lines = text.splitlines()
    assert lines[2:4] == ["| name | [x] <sup>b</sup> |", "|---|--:|"]
    assert lines[4].endswith("| **1.5** |")
    assert lines[5] == "| [y] | n/a <sup>a</sup> |"
    assert lines[-1] == r"- (a) Why &lt;not> &#126;1&#126; \*so\*."
    assert "<script>" not in text


def test_a_table_without_marks_is_markdown_as_ever() -> None:
    table = Table("Title", ["name", "x"], [["a", "1"]], ["A note."])
    assert render.markdown(table) == "| name | x |\n|---|--:|\n| a | 1 |\n\nA note.\n"
    assert render.markdown_all([table, table], []).count("**Title**") == 2


def test_the_terminal_shows_the_best_in_bold_or_with_a_star() -> None:
    plain = render.terminal(TABLE, width=200, colour=False)
    assert "* 1.5" in plain
    assert "n/a (a)" in plain
    assert "[x] (b)" in plain
    bold = render.terminal(TABLE, width=200, colour=True)
    assert re.search(r"\x1b\[1m *1\.5\x1b", bold)
    assert "* 1.5" not in bold


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells and self.tags[-1] in {"td", "th", "strong", "sup"}:
            self.cells[-1] += data.strip()


def test_html_shows_everything_as_text_and_loads_nothing() -> None:
    page = html([TABLE], [NASTY])
    parser = _Parser()
    parser.feed(page)
    assert "script" not in parser.tags
    assert parser.cells[:2] == ["name", "[x]b"]
    assert parser.cells[2:] == [NASTY, "1.5", "[y]", "n/aa"]
    assert page.count("<strong>1.5</strong>") == 1
    assert not re.search(r"(src|href)=|url\(|@import", page)


def test_latex_escapes_what_it_would_take_for_its_own() -> None:
    assert escape(r"a_b & 5 % $x$ #1 {c} ~ ^ \d < > | …") == (
        r"a\_b \& 5 \% \$x\$ \#1 \{c\} \textasciitilde{} \textasciicircum{} \textbackslash{}d "
        r"\textless{} \textgreater{} \textbar{} \ldots{}"
    )
    assert escape("é ü ç") == r"\'{e} \"{u} \c{c}"
    assert escape("数") == r"\texttt{U+6570}"
    assert escape("--where a---b \u2013 \u2014") == "-{}-where a-{}-{}-b -- ---"
    assert escape("''a'' ,,b \"") == "'{}'a'{}' ,{},b ''"
    text = latex([TABLE], ["A note."])
    assert r"\textbf{1.5}" in text
    assert r"n/a\textsuperscript{a}" in text
    assert latex([Table("T", ["a", "x"], [["m k=1", "1.5 (1…2; n=3)"]])], []).count(r"\scriptsize") == 2
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1


@pytest.mark.skipif(
    shutil.which("pdflatex") is None and not os.environ.get("BENCH_REQUIRE_TOOLS"), reason="needs pdflatex"
)
def test_latex_compiles_with_booktabs_alone(tmp_path: Path) -> None:
    made = pivot([*campaign(zarr=BASE, hdf5=[2 * base for base in BASE]), failed("memmap", NASTY)], baseline="zarr")
    tables, marks = pivot_tables(made)
    every = "".join(map(chr, range(32, 0x17F))) + "…\u2013\u2014数😀"
    body = latex([TABLE, *tables], [NASTY, every, *pivot_notes(made, marks)])
    document = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{body}\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1500:]
    assert b"LaTeX Warning: Command" not in done.stdout
    assert (tmp_path / "t.pdf").stat().st_size > 1000


def test_csv_has_a_line_for_each_group_with_raw_numbers_and_facts() -> None:
    records = [*campaign(zarr=BASE, hdf5=[2 * base for base in BASE]), failed("memmap", 'No, "never".\nx')]
    lines = list(
        csv.DictReader(io.StringIO(raw.to_csv(pivot(records, baseline="zarr", metrics="epoch_s,over_ceiling"))))
    )
    by_backend = {line["backend"]: line for line in lines}
    assert set(by_backend) == {"zarr", "hdf5", "memmap"}
    hdf5, memmap = by_backend["hdf5"], by_backend["memmap"]
    assert float(hdf5["epoch_s.median [s]"]) == pytest.approx(2.7)
    assert [float(hdf5[f"epoch_s.interval_{end} [s]"]) for end in ("low", "high")] == pytest.approx([2.0, 3.4])
    assert float(hdf5["epoch_s.ratio"]) == pytest.approx(2.0)
    assert (hdf5["epoch_s.ratio_tested"], hdf5["epoch_s.best_shown"], hdf5["runs"]) == ("True", "False", "8")
    assert (by_backend["zarr"]["epoch_s.best_shown"], by_backend["zarr"]["runs"]) == ("True", "8")
    assert hdf5["over_ceiling.median [%]"] == ""
    assert "the ceiling was not measured" in hdf5["over_ceiling.missing"]
    assert hdf5["data_digest"] == run().data.digest
    assert hdf5["version.torch"] == run().environment["libraries"]["torch"]
    assert (memmap["runs"], memmap["failed_runs"], memmap["status"]) == ("0", "1", "failed")
    assert memmap["missing"] == 'failed: No, "never". x'
    assert memmap["epoch_s.median [s]"] == ""


def test_json_has_the_same_numbers_and_is_strict() -> None:
    record = run("zarr", 1.0)
    last = record.epochs[-1].model_copy(update={"loss": math.nan})
    made = pivot([record.model_copy(update={"epochs": [*record.epochs[:-1], last]})], metrics="epoch_s,loss")
    text = raw.to_json(made, ["A note."])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(text, parse_constant=refuse)
    assert {key: content[key] for key in ("version", "rows", "columns", "baseline", "notes")} == {
        "version": 1,
        "rows": ["method"],
        "columns": ["dataset"],
        "baseline": None,
        "notes": ["A note."],
    }
    assert content["metrics"]["epoch_s"] == {"label": "epoch", "unit": "s", "better": "lower"}
    (cell,) = content["cells"]
    assert (cell["table"], cell["runs"], cell["failed_runs"]) == (1, 1, 0)
    assert cell["facts"]["option"] == {"reader": "library"}
    assert cell["values"]["epoch_s"]["median"] == 1.0
    assert cell["values"]["loss"]["median"] == "NaN"


def test_failed_runs_that_stand_nowhere_are_in_the_raw_numbers() -> None:
    content = json.loads(raw.to_json(pivot([run("zarr"), failed("zarr", "Boom.", batch_size=999)]), []))
    (lost,) = [cell for cell in content["cells"] if cell["table"] is None]
    assert (lost["missing"], lost["facts"]["batch_size"]) == ("failed: Boom", 999)
