"""One server for all processes that decode in these tests."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver

import pytest

from bench.datasets import images, parallel, sounds


@pytest.fixture(scope="session", autouse=True)
def decoding_server() -> None:
    """Start the server with all that decodes, images as well as sounds.

    Python starts it once in a process, with what the first who needs it asks for. After a test of images, each process
    that decodes sounds would import librosa anew, which takes longer than all else that it does here.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        [parallel.__name__, *images._PRELOAD, "bench.datasets.audio", *sounds.PRELOAD]
    )
    forkserver.ensure_running()
