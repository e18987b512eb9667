"""A trial as a Ray Tune actor (may import ray)."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ray import tune

from dnad_ray.checkpoint import load_newest, save_checkpoint
from dnad_ray.data import ImageData
from dnad_ray.devices import device_for
from dnad_ray.records import Snapshot
from dnad_ray.teacher import TeacherFile, load_teacher
from dnad_ray.trial import CHECKPOINT_SECONDS, TrialSpec, run_trial

__all__ = ["tune_trial"]


def tune_trial(
    config: Mapping[str, Any],
    *,
    specs: Mapping[str, TrialSpec],
    data: ImageData,
    teacher_file: TeacherFile | None,
    folder: str,
    num_threads: int,
) -> None:
    """Run one trial inside a Tune actor; continues from the newest intact checkpoint of any earlier attempt.

    Args:
        config: ``{"trial": name}``.
        specs: All trials of the sweep by name.
        data: Images, from the object store (read-only, shared by the trials of a node).
        teacher_file: The teacher, likewise.
        folder: The run folder, on storage that every node sees.
        num_threads: CPUs of the trial.
    """
    # A worker may have run another trial before; threads beyond the allocation would take from the neighbours.
    torch.set_num_threads(num_threads)
    spec, run_folder = specs[config["trial"]], Path(folder)
    device = device_for(spec.config.train.device)
    teacher = None if teacher_file is None else load_teacher(teacher_file, device)
    saved = load_newest(run_folder.glob(f"ray/*/{spec.name}/checkpoint_*"))
    last_checkpoint = time.monotonic()
    for event, state in run_trial(spec, data, teacher, run_folder, saved):
        metrics: dict[str, Any] = {
            "epoch": event.epoch,
            "step": event.step,
            "num_operations": event.num_operations,
            "device_seconds": event.device_seconds,
            "at_end": state.is_finished,
            # As text: Tune keeps running statistics of every number that it finds, for every trial.
            "record": json.dumps(event.to_dict()),
        }
        if isinstance(event, Snapshot):
            metrics |= {"kind": event.kind, "error": 1 - event.proxy_accuracy, "macs": event.macs}
        if isinstance(event, Snapshot) or time.monotonic() - last_checkpoint > CHECKPOINT_SECONDS:
            with tempfile.TemporaryDirectory() as checkpoint:
                save_checkpoint(Path(checkpoint), state.state_dict(), state.step)
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(checkpoint))
            last_checkpoint = time.monotonic()
        else:
            tune.report(metrics)
