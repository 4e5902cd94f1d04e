"""What an epoch took and used, as the record has it."""

from __future__ import annotations

import os
from dataclasses import asdict

import numpy as np

from bench.measure import probes
from bench.records.record import EpochInfo, IoInfo, ProcessInfo
from bench.training.job import Job
from bench.training.trainer import EpochResult


def epoch_info(job: Job, epoch: int, result: EpochResult, used: probes.Counters | None, *, warmup: bool) -> EpochInfo:
    """Return the raw values of an epoch; without ``used``, what it read and its CPU time are unknown."""
    phases = result.phases
    return EpochInfo(
        epoch=epoch,
        warmup=warmup,
        samples=result.samples,
        epoch_s=phases.epoch_s,
        first_batch_s=phases.first_batch_s,
        wait_s=phases.wait_s,
        copy_s=phases.copy_s,
        compute_s=phases.compute_s,
        augment_s=phases.augment_s,
        stall_fraction=phases.wait_s / phases.epoch_s,
        batch_wait_s=phases.batch_wait_s,
        loss=result.loss,
        accuracy=result.accuracy,
        batch_loss=result.batch_loss,
        io=IoInfo(
            storage_read_bytes=used.storage_read_bytes if used else None,
            read_call_bytes=used.read_call_bytes if used else None,
            read_calls=used.read_calls if used else None,
            major_faults=used.major_faults if used else None,
            read_amplification=used.storage_read_bytes / (result.samples * sample_bytes(job)) if used else None,
        ),
        cpu_user_s=used.cpu_user_s if used else None,
        cpu_system_s=used.cpu_system_s if used else None,
    )


def processes(used: dict[int, probes.Counters]) -> list[ProcessInfo]:
    """Return what each process used, by its id; this one is the main one."""
    return [ProcessInfo(main=pid == os.getpid(), **asdict(counters)) for pid, counters in used.items()]


def sample_bytes(job: Job) -> int:
    """Return the bytes of one sample without its label."""
    return int(np.prod(job.shape, dtype=np.int64)) * np.dtype(job.dtype).itemsize
