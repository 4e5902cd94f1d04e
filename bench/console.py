"""What the command line shows while it works: bars on a terminal, plain lines elsewhere, all on stderr."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.records.learned import EvaluationInfo
from bench.records.metrics import significant
from bench.records.record import EpochInfo, RunRecord
from bench.report import render
from bench.report.readers import faster_reader
from bench.report.tables import Table, run_table
from bench.report.verdict import meaning
from bench.runs.observer import RunProgress
from bench.stores.content import Decoding

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

PLAIN_LINE_EVERY_S = 10.0
PIPE_WIDTH = 1000
DOCUMENT_WIDTH = 110


@contextmanager
def _heard_or_not() -> Iterator[None]:
    """Go on where what is said on stderr reaches nobody any more: a terminal that was closed, a pipe that has ended.

    What is being measured is worth its record all the same.
    """
    try:
        yield
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


def say(text: str) -> None:
    """Print a line on stderr."""
    with _heard_or_not():
        print(text, file=sys.stderr, flush=True)  # noqa: T201  # the command line's voice


def out(text: str) -> None:
    """Print a result on stdout."""
    print(text, flush=True)  # noqa: T201  # the command line's result


def print_table(table: Table) -> None:
    """Print a table on stdout, as wide as the terminal; a pipe has no width, so its lines stay whole."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else PIPE_WIDTH
    out(render.terminal(table, width=width, colour=terminal))


def tell_table(table: Table) -> None:
    """Print a table on stderr, where stdout is for something else."""
    say(render.terminal(table, width=PIPE_WIDTH, colour=False))


def show(records: Sequence[RunRecord], known: Iterable[RunRecord] = ()) -> None:
    """Print what a run, or several equal ones, measured, what it means, and what puts it in doubt.

    With other runs that are ``known``, also what another reader of the same store brought.
    """
    print_table(run_table(records))
    out(f"\n{meaning(records)}")
    if hint := faster_reader(records, known):
        out(hint)


def plain(records: Sequence[RunRecord]) -> str:
    """Return what ``show`` prints, as a Markdown code block."""
    table = render.terminal(run_table(records), width=DOCUMENT_WIDTH, colour=False)
    return f"```\n{table}\n\n{meaning(records)}\n```"


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables with a line between them."""
    for number, table in enumerate(tables):
        if number:
            out("")
        print_table(table)


def make_progress() -> RunProgress:
    """Return the display that suits stderr."""
    return TerminalProgress() if sys.stderr.isatty() else PlainProgress()


def epoch_line(info: EpochInfo) -> str:
    """Return one line about a finished epoch."""
    kind = " (warm-up)" if info.warmup else ""
    learnt = f", loss {info.loss:.3f}, accuracy {info.accuracy:.1%}" if info.accuracy is not None else ""
    return (
        f"epoch {info.epoch}{kind}: {significant(info.epoch_s, 3)} s, waited {info.stall_fraction:.0%} for data{learnt}"
    )


def evaluation_line(info: EvaluationInfo) -> str:
    """Return one line about an evaluation."""
    scores = f"loss {info.loss:.3f}, accuracy {info.accuracy:.1%}, macro F1 {info.macro_f1:.1%}"
    return f"{info.split} after epoch {info.epoch}: {scores} ({info.samples:,} samples in {info.evaluate_s:.2f} s)"


def decoding_text(decoding: Decoding) -> str:
    """Return what reading the raw data took, in a few words."""
    growth = ""
    if decoding.peak_pss_bytes is not None and decoding.baseline_pss_bytes is not None:
        growth = f" (memory +{(decoding.peak_pss_bytes - decoding.baseline_pss_bytes) / 1e6:.0f} MB)"
    skipped = f", {len(decoding.skipped)} files left out" if decoding.skipped else ""
    return f"decoded in {decoding.decode_s:.2f} s{growth}{skipped}"


class PlainProgress:
    """A line when something begins and ends, and every few seconds in between."""

    def __init__(self) -> None:
        self._label = ""
        self._unit = ""
        self._total: int | None = None
        self._done = 0
        self._started = self._told = 0.0

    def note(self, text: str) -> None:
        """Print a message."""
        say(text)

    def start(self, label: str, total: int | None, unit: str) -> None:
        """Begin a task."""
        self._label, self._total, self._unit, self._done = label, total, unit, 0
        self._started = self._told = time.monotonic()

    def advance(self, count: int) -> None:
        """Print how far the task is, if it is time to."""
        self._done += count
        now = time.monotonic()
        if now - self._told >= PLAIN_LINE_EVERY_S:
            self._told = now
            rate = self._done / (now - self._started)
            done = f"{self._done:,}" if self._total is None else f"{self._done:,} of {self._total:,}"
            text = f"{self._label}: {done} {self._unit}, {rate:,.0f} {self._unit}/s"
            if self._total is not None and rate:
                text += f", about {max(0, self._total - self._done) / rate:.0f} s left"
            say(text)

    def finish(self) -> None:
        """Print what the task took."""
        if self._done:
            done, self._done = self._done, 0
            say(f"{self._label}: {done:,} {self._unit} in {time.monotonic() - self._started:.1f} s")

    def epoch(self, info: EpochInfo) -> None:
        """Print a finished epoch."""
        say(epoch_line(info))

    def evaluated(self, info: EvaluationInfo) -> None:
        """Print an evaluation."""
        say(evaluation_line(info))


class QuietProgress(PlainProgress):
    """A line for what takes long, and each note once: for one of many runs. ``told`` are the notes of those before."""

    def __init__(self, told: set[str]) -> None:
        super().__init__()
        self._notes = told

    def note(self, text: str) -> None:
        """Print a message that was not printed before."""
        if text not in self._notes:
            self._notes.add(text)
            super().note(text)

    def finish(self) -> None:
        """Print what the task took, if there was a line about it before."""
        if self._told > self._started:
            super().finish()

    def epoch(self, info: EpochInfo) -> None:
        """Say nothing: the run has a line of its own."""

    def evaluated(self, info: EvaluationInfo) -> None:
        """Say nothing here, either."""


class TerminalProgress:
    """Bars with rate and time left."""

    def __init__(self) -> None:
        self._bars: RichBars | None = None
        self._task: TaskID | None = None

    @_heard_or_not()
    def note(self, text: str) -> None:
        """Print a message in bold, above the bar."""
        from rich.console import Console
        from rich.text import Text

        console = self._bars.console if self._bars is not None else Console(stderr=True)
        console.print(Text(text, style="bold yellow"))

    @_heard_or_not()
    def start(self, label: str, total: int | None, unit: str) -> None:
        """Show a new bar."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(show_speed=True),
            MofNCompleteColumn(),
            TextColumn(unit, markup=False),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            # The measured process shares this machine: redraw seldom.
            refresh_per_second=2,
            transient=True,
        )
        self._task = self._bars.add_task(label, total=total)
        self._bars.start()

    @_heard_or_not()
    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, count)

    @_heard_or_not()
    def finish(self) -> None:
        """Remove the bar."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = self._task = None

    @_heard_or_not()
    def epoch(self, info: EpochInfo) -> None:
        """Print a finished epoch above the bar."""
        if self._bars is not None:
            self._bars.console.print(epoch_line(info), markup=False, highlight=False)

    @_heard_or_not()
    def evaluated(self, info: EvaluationInfo) -> None:
        """Print an evaluation above the bar."""
        if self._bars is not None:
            self._bars.console.print(evaluation_line(info), markup=False, highlight=False)
