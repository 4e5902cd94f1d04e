"""Memory that is freed and taken again comes from the process itself, not from the kernel."""

import multiprocessing
import resource
import sys

import pytest

from bench.measure import heap

BLOCK_BYTES = 16 * 2**20


def faults_of_reuse(link, keep: bool) -> None:
    kept = heap.keep_freed_memory() if keep else None
    use()
    use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        use()
    link.send((kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))


def use() -> None:
    """Allocate several blocks and free them all, as a training step does with its activations."""
    blocks = [bytearray(b"x") * BLOCK_BYTES for _ in range(4)]
    blocks.clear()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_used_again_without_new_pages() -> None:
    context = multiprocessing.get_context("spawn")
    found = {}
    for keep in (False, True):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=faults_of_reuse, args=(send, keep))
        process.start()
        found[keep] = receive.recv()
        process.join()
    if found[True][0] is not True:
        pytest.skip("the C library here has no such setting")
    pages = BLOCK_BYTES // resource.getpagesize()
    assert found[False][1] > 5 * pages, "what this is about"
    assert found[True][1] < pages
