"""A trial as a Ray Tune actor (may import ray)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ray import tune

from dnad_ray.checkpoint import load_newest, save_checkpoint, seed_all
from dnad_ray.data import ImageData
from dnad_ray.devices import device_for, limit_memory
from dnad_ray.records import EpochReport, Snapshot
from dnad_ray.search import SearchState
from dnad_ray.teacher import TeacherFile, load_teacher
from dnad_ray.trial import CHECKPOINT_SECONDS, TrialSpec, run_trial

__all__ = ["metrics_of", "tune_trial"]


def tune_trial(
    config: Mapping[str, Any],
    *,
    specs: Mapping[str, TrialSpec],
    data: ImageData,
    teacher_file: TeacherFile | None,
    folder: str,
    num_threads: int,
    gpu_share: float = 0.0,
) -> None:
    """Run one trial inside a Tune actor; continues from the newest intact checkpoint of any earlier attempt.

    Args:
        config: ``{"trial": name}``.
        specs: All trials of the sweep by name.
        data: Images, from the object store (read-only, shared by the trials of a node).
        teacher_file: The teacher, likewise.
        folder: The run folder, on storage that every node sees.
        num_threads: CPUs of the trial.
        gpu_share: Share of its GPU that the trial was given, 1 for a whole one.
    """
    # A worker may have run another trial before; threads beyond the allocation would take from the neighbours.
    torch.set_num_threads(num_threads)
    spec, run_folder = specs[config["trial"]], Path(folder)
    seed_all(spec.config.seed)
    device = device_for(spec.config.train.device)
    limit_memory(device, gpu_share)
    teacher = None if teacher_file is None else load_teacher(teacher_file, device)
    saved = load_newest(run_folder.glob(f"ray/*/{spec.name}/checkpoint_*"))
    last_checkpoint = time.monotonic()
    for event, state in run_trial(spec, data, teacher, run_folder, saved):
        metrics = metrics_of(event, state)
        if isinstance(event, Snapshot) or time.monotonic() - last_checkpoint > CHECKPOINT_SECONDS:
            with tempfile.TemporaryDirectory() as checkpoint:
                save_checkpoint(Path(checkpoint), state.state_dict(), state.step)
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(checkpoint))
            last_checkpoint = time.monotonic()
        else:
            tune.report(metrics)


def metrics_of(event: EpochReport | Snapshot, state: SearchState) -> dict[str, Any]:
    """Return what Tune and its callbacks are told about an event."""
    metrics: dict[str, Any] = {
        "epoch": event.epoch,
        "step": event.step,
        "num_operations": event.num_operations,
        "device_seconds": event.device_seconds,
        "at_end": state.is_finished,
    }
    if isinstance(event, Snapshot):
        metrics |= {"kind": event.kind, "error": 1 - event.proxy_accuracy, "macs": event.macs}
    return metrics
