"""The parent's side of a measured process: start it, answer it, sample it, and keep what it says.

The process may die or hang in any way; what was known until then is kept.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

from bench.child import LAST_LINES, Child, ChildDiedError, Failure, Link
from bench.contracts.backend import BackendError
from bench.contracts.source import Progress
from bench.files import remove_parts_of
from bench.measure.cgroup import MemoryLimit
from bench.measure.memory import Pss, oom_kills
from bench.measure.page_cache import PageCache
from bench.measure.probes import Counters
from bench.measure.sampler import Sampler
from bench.records.learned import EvaluationInfo, TrainingInfo
from bench.records.record import EpochInfo, ErrorInfo, GpuInfo, OrderInfo, Phase
from bench.runs.findings import CacheEpoch, Findings
from bench.training.checkpoint import CheckpointError
from bench.training.evaluation import evaluate
from bench.training.job import Job
from bench.training.predictions import Predictions


class RunProgress(Progress, Protocol):
    """Progress that also hears of finished epochs."""

    def epoch(self, info: EpochInfo) -> None:
        """An epoch is complete."""

    def evaluated(self, info: EvaluationInfo) -> None:
        """What has been learnt was evaluated."""


START_S = 120.0
"""What importing libraries and starting workers may take at least, however short the timeout is."""


STOOD_STILL_S = 1.0
"""Who looks ten times a second, and has not for so long, was stopped: by Ctrl-Z, a scheduler, a machine asleep."""


class HungError(Exception):
    """The measured process has shown no sign of life for too long; the text is for how many seconds."""


def observe(job: Job, label: str, found: Findings, progress: RunProgress, timeout_s: float) -> None:
    """Measure ``job`` in a process of its own; whatever becomes of it stands in ``found``.

    Raises CheckpointError where the process cannot go on from the checkpoint.
    """
    killed_before = oom_kills()
    samples_done = multiprocessing.get_context("spawn").RawValue("q", 0)
    try:
        with ExitStack() as stack:
            if job.checkpoint is not None:
                # It may be ended while it writes.
                stack.callback(remove_parts_of, job.checkpoint)
            # Entered first, so left last: a control group can be removed only when it is empty.
            limit = (
                stack.enter_context(MemoryLimit(job.spec.memory_limit_bytes)) if job.spec.memory_limit_bytes else None
            )
            if limit is not None:
                stack.callback(lambda: setattr(found, "limited_peak_bytes", limit.peak_bytes()))
            child = stack.enter_context(Child(_trial, job, samples_done, keep_stderr=True))
            if limit is not None:
                limit.add(child.pid)
            stack.callback(lambda: found.last_lines.extend(child.last_lines()))
            sampler = stack.enter_context(Sampler(child.pid))
            stack.callback(lambda: _keep_sampled(found, sampler))
            observer = _Observer(job, label, found, progress, sampler)
            for topic, value in observer.signs_of_life(child, samples_done, timeout_s):
                answer = observer.hear(topic, value)
                if topic in _QUESTIONS:
                    child.answer(answer)
        found.status = "failed" if found.error else "ok"
    except ChildDiedError as death:
        _fail(found, "ProcessDied", f"The measured process ended by {_cause(death, killed_before, found.last_lines)}")
    except HungError as hung:
        _fail(
            found,
            "Timeout",
            f"The measured process showed no sign of life for {hung} s, so it was ended. "
            "If a single batch can take longer, use a larger --timeout.",
        )
    finally:
        progress.finish()
        if found.error is not None:
            last_lines = [*found.last_lines, *found.error.last_lines]
            found.error = found.error.model_copy(update={"last_lines": last_lines})


def _trial(link: Link, job: Job, samples_done: Any) -> None:
    # Hardly anything is garbage of what importing torch and its compiler makes, and looking for it time and again takes
    # a good part of a short run. Collecting begins once all is set up.
    gc.disable()
    # Imported here so that the parent never needs torch.
    from bench.training.trial import run_trial

    run_trial(link, job, samples_done)


def _fail(found: Findings, kind: str, message: str) -> None:
    found.status = "failed"
    found.error = ErrorInfo(phase=found.phase, type=kind, message=message)


def _cause(death: ChildDiedError, killed_before: int | None, last_lines: list[str]) -> str:
    killed = oom_kills()
    if death.killed and killed_before is not None and killed is not None and killed > killed_before:
        return (
            "signal SIGKILL, and the kernel's out-of-memory killer was at work. "
            "Use fewer workers or smaller batches, or a format that is not held in memory."
        )
    # Torch reports a dead worker from a signal handler, which can strike where no error is caught any more.
    own_words = f": {last_lines[-1]}" if last_lines and "exit code" in str(death) else ""
    return f"{death}{own_words}".rstrip(".") + "."


def _keep_sampled(found: Findings, sampler: Sampler) -> None:
    # What died before its epochs were done has a peak, too.
    if found.sampled is None:
        found.sampled = sampler.finish()


_QUESTIONS = {
    *("memory", "cache", "epoch-end", "gpu-watch", "gpu-context", "gpu-window"),
    *("pause", "validation", "test", "keep"),
}
"""What the measured process waits for an answer to."""


class _Observer:
    def __init__(self, job: Job, label: str, found: Findings, progress: RunProgress, sampler: Sampler) -> None:
        self._job = job
        self._spec = job.spec
        self._label = label
        self._found = found
        self._progress = progress
        self._sampler = sampler
        self._pages = PageCache(job.root)
        self._done = 0
        self._shown: int | None = None
        found.cache_probe = self._pages.probe

    def signs_of_life(self, child: Child, samples_done: Any, timeout_s: float) -> Iterator[tuple[str, Any]]:
        """Yield what the child tells; raises HungError when it neither tells nor delivers anything for too long."""
        seen, silent_s, at = 0, 0.0, time.monotonic()
        for message in child.messages():
            waited_s = time.monotonic() - at
            if waited_s > STOOD_STILL_S and self._found.phase in {"train", "ideal"}:
                self._found.environment["stopped_s"] = self._found.environment.get("stopped_s", 0.0) + waited_s
            done = self._done = samples_done.value
            if self._shown is not None:
                self._progress.advance(done - self._shown)
                self._shown = done
            if message is None and done == seen:
                # Who was stopped, the child with us, has not been silent for so long.
                silent_s += min(waited_s, STOOD_STILL_S)
                starting = self._found.phase in {"start", "open"}
                limit_s = max(timeout_s, START_S) if starting else timeout_s
                if silent_s > limit_s:
                    raise HungError(f"{limit_s:g}")
                at = time.monotonic()
                continue
            if message is not None:
                yield message
            # Taken afterwards: answering may have taken long.
            seen, silent_s, at = done, 0.0, time.monotonic()

    def hear(self, topic: str, value: Any) -> Any:
        """Keep a fact, or return the answer to a question."""
        return getattr(self, f"_on_{topic.replace('-', '_')}")(value)

    def _on_phase(self, phase: Phase) -> None:
        self._found.phase = phase
        if phase == "train" and self._shown is None:
            after_epoch, at_end = self._job.evaluated_samples
            left = self._spec.epochs - len(self._found.epochs)
            self._begin(self._label, (self._job.samples + after_epoch) * left + at_end)
        elif phase == "check":
            self._progress.finish()
            self._shown = None
        elif phase == "ideal":
            # How long its epochs take decides how many there are.
            self._begin("the ceiling: training from memory", None)
        elif phase == "order":
            self._progress.finish()
            self._begin("reading the labels, once for a store", self._job.samples)

    def _begin(self, label: str, samples: int | None) -> None:
        self._shown = self._done
        self._progress.start(label, samples, "samples")

    def _on_device(self, device: str) -> None:
        self._found.device = device

    def _on_environment(self, facts: dict[str, Any]) -> None:
        self._found.environment.update(facts)

    def _on_disturbance(self, facts: dict[str, Any]) -> None:
        self._found.environment["disturbance"] = facts

    def _on_memory(self, value: str) -> None:
        pss: Pss | None = self._sampler.sample()
        if value == "baseline" and pss is not None:
            self._found.baseline_pss_bytes = pss.total_bytes

    def _on_cache(self, _: int) -> None:
        if not self._found.begun and self._spec.memory_limit_bytes is not None:
            # The page cache is charged to whoever reads first: what is there already would not be limited.
            self._pages.bring("cold")
        self._found.begun = True
        brought = self._pages.bring(self._spec.cache, drop_all=self._spec.drop_caches)
        self._found.cache.append(CacheEpoch(brought))

    def _on_epoch(self, info: EpochInfo) -> None:
        self._found.epochs.append(info)
        self._progress.epoch(info)

    def _on_epoch_end(self, value: tuple[Counters | None, int | None]) -> None:
        used, opening_bytes = value
        self._sampler.sample()
        residency = self._pages.residency()
        epoch = self._found.cache[-1]
        if residency is not None:
            epoch.resident_after, epoch.resident_bytes_after = residency.fraction, residency.resident_bytes
        if used is not None and opening_bytes is not None:
            epoch.read_bytes = used.storage_read_bytes + opening_bytes
        last = self._found.epochs[-1]
        self._found.epochs[-1] = last.model_copy(
            update={"resident_before": epoch.brought.fraction, "resident_after": epoch.resident_after}
        )

    def _on_note(self, text: str) -> None:
        self._progress.note(text)

    def _on_training(self, info: TrainingInfo) -> None:
        self._found.training = info

    def _on_pause(self, begins: bool) -> None:  # a message
        self._sampler.pause(begins=begins)

    def _on_validation(self, found: Predictions) -> None:
        info = self._evaluation(found, detailed=False)
        self._found.validation.append(info)
        self._progress.evaluated(info)

    def _on_test(self, found: Predictions) -> None:
        self._found.test = self._evaluation(found, detailed=True)
        self._progress.evaluated(self._found.test)

    def _evaluation(self, found: Predictions, *, detailed: bool) -> EvaluationInfo:
        self._found.predictions = found
        return evaluate(
            found.true,
            found.predicted,
            self._job.classes,
            loss=found.loss,
            split=found.split,
            epoch=found.epoch,
            evaluate_s=found.evaluate_s,
            detailed=detailed,
        )

    def _on_keep(self, _: None) -> str:
        return self._found.last_epoch()

    def _on_resumed(self, told: list[str]) -> None:
        for text in told:
            self._found.go_on_from(text)

    def _on_ideal(self, info: EpochInfo) -> None:
        self._found.ideal = info

    def _on_reader(self, facts: dict[str, Any]) -> None:
        self._found.reader = facts

    def _on_order(self, info: OrderInfo) -> None:
        self._found.order = info

    def _on_checked(self, samples: int) -> None:
        # Peaks are those of the epochs: checking and the ceiling hold data of their own.
        self._found.checked_samples = samples

    def _on_epochs_done(self, _: None = None) -> None:
        self._found.sampled = self._sampler.finish()

    def _on_gpu_watch(self, uuid: str) -> None:
        self._found.gpu_used_before_bytes = self._sampler.watch_gpu(uuid)

    def _on_gpu_context(self, _: None) -> None:
        self._found.gpu_used_context_bytes = self._sampler.sample_gpu()

    def _on_gpu_window(self, edge: str) -> None:
        self._sampler.gpu_window(begins=edge == "begin")

    def _on_gpu(self, info: GpuInfo) -> None:
        self._found.gpu = info

    def _on_failed(self, failure: Failure) -> None:
        if isinstance(failure.error, CheckpointError):
            # Nothing has been measured, and nothing failed: there is no run to keep a record of.
            raise failure.error
        advice = " Check the store with `bench verify`." if isinstance(failure.error, BackendError) else ""
        # What nobody foresaw is told with its place.
        trace = failure.trace.splitlines()[-LAST_LINES:] if failure.error is None else []
        self._found.error = ErrorInfo(
            phase=self._found.phase, type=failure.type, message=f"{failure.message}{advice}", last_lines=trace
        )
        self._found.trace = failure.trace
