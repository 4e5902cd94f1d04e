"""What is measured here runs where it is asked for: ``pytest tests/benchmarks --benchmark-only``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the suites out of other runs: they take minutes, and assert nothing about time."""
    if collection_path.name.startswith("test_") and not config.getoption("benchmark_only", default=False):
        return True
    return None
