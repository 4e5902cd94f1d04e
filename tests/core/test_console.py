"""What the command line shows of work that goes on."""

import itertools

import pytest

from bench import console
from bench.console import PlainProgress


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A clock that goes on by 20 s with each look, and the lines that are said."""
    lines: list[str] = []
    ticks = itertools.count(step=20.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(console, "say", lines.append)
    return lines


def test_a_task_says_how_far_it_is_and_how_long_it_takes(told: list[str]) -> None:
    progress = PlainProgress()
    progress.start("writing", 1_000, "samples")
    progress.advance(400)
    progress.advance(600)
    progress.finish()
    assert told == [
        "writing: 400 of 1,000 samples, 20 samples/s, about 30 s left",
        "writing: 1,000 of 1,000 samples, 25 samples/s, about 0 s left",
        "writing: 1,000 samples in 60.0 s",
    ]


def test_a_task_whose_end_nobody_knows_claims_none(told: list[str]) -> None:
    progress = PlainProgress()
    progress.start("the ceiling", None, "samples")
    progress.advance(400)
    progress.advance(2_000)
    progress.finish()
    assert told == [
        "the ceiling: 400 samples, 20 samples/s",
        "the ceiling: 2,400 samples, 60 samples/s",
        "the ceiling: 2,400 samples in 60.0 s",
    ]


def test_a_task_that_nobody_hears_of_is_not_said(told: list[str]) -> None:
    progress = PlainProgress()
    progress.start("the ceiling", None, "samples")
    progress.finish()
    assert told == []
