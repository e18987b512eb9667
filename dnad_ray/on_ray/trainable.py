"""A trial as a Ray Tune actor (may import ray)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import ray
import torch
from ray import tune

from dnad_ray.config.run import RunConfig
from dnad_ray.data.loading import ImageData
from dnad_ray.distill.teacher import Teacher, TeacherFile, load_teacher
from dnad_ray.on_ray.mailbox import RemoteStop, step_sender
from dnad_ray.on_ray.reports import TrialReporter
from dnad_ray.run_folder.checkpoints import CheckpointKeeper
from dnad_ray.run_folder.layout import checkpoints_folder
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.runtime.budget import time_check
from dnad_ray.runtime.devices import device_for, limit_memory
from dnad_ray.runtime.random_states import seed_all
from dnad_ray.runtime.stopping import StopCheck, StopRequest, first_of
from dnad_ray.search.trial import keep_state, run_trial
from dnad_ray.storage.background_writer import BackgroundWriter
from dnad_ray.storage.places import place
from dnad_ray.trials.spec import spec_of

__all__ = ["stop_check", "tune_trial"]

_teachers: dict[tuple[str, str | None, torch.device], Teacher] = {}
"""The teacher that this worker has loaded. A trial does not change it, so the next trial can use it too."""


def tune_trial(
    config: Mapping[str, Any],
    *,
    base: RunConfig,
    data: ImageData,
    folder: str,
    num_threads: int,
    gpu_share: float = 0.0,
    mailbox: Any,
    deadline: float | None = None,
) -> None:
    """Run one trial inside a Tune actor; continues from the newest intact checkpoint of any earlier attempt.

    Args:
        config: ``{"trial": name, "overrides": what it changes in the run's configuration}``.
        base: Configuration of the run.
        data: Images, from the object store (read-only, shared by the trials of a node).
        folder: The run folder, on storage that every node sees.
        num_threads: CPUs of the trial.
        gpu_share: Share of its GPU that the trial was given, 1 for a whole one.
        mailbox: What :func:`dnad_ray.on_ray.mailbox.start_mailbox` returned; the teacher comes from there.
        deadline: When to pause, in seconds since the epoch; None for never.
    """
    files = _teacher_files(mailbox)  # only now: to load torch takes as long as to train a small teacher
    if not files:
        TrialReporter(tune.report).end(stopped="asked before it began")
        return
    if (request := time_check(deadline)()) is not None:
        TrialReporter(tune.report).end(stopped=request.reason)  # it got its resources after the deadline
        return
    # The worker may have run another trial before. More threads than CPUs would slow other trials down.
    torch.set_num_threads(num_threads)
    spec, run_folder = spec_of(base, config["trial"], config["overrides"]), place(folder)
    seed_all(spec.config.seed)
    device = device_for(spec.config.train.device)
    limit_memory(device, gpu_share)
    teacher = None if files[0] is None else _teacher_of(files[0], device)
    # Our own checkpoints, because Tune copies its own in threads, over a disk that all nodes would have to share.
    ended: dict[str, Any] = {}
    with BackgroundWriter() as writer:
        checkpoints = CheckpointKeeper(checkpoints_folder(run_folder, spec.name), writer.settle)

        def report(metrics: dict[str, Any]) -> None:
            writer.settle()  # only what is in the run folder is reported
            tune.report(metrics)

        # The Pareto scheduler needs every snapshot at once, or a trial of few seconds ends before its decision.
        reporter = TrialReporter(report, 0.0 if base.sweep.scheduler == "pareto" else None)
        saved, stop = checkpoints.newest(), stop_check(mailbox, deadline)
        progress = step_sender(mailbox, spec.name)
        trial = run_trial(spec, data, teacher, run_folder, saved, stop=stop, write=writer.write, progress=progress)
        with closing(trial) as events:
            for event, state in events:
                if isinstance(event, StopRequest):
                    keep_state(checkpoints, state, run_folder, writer.write)
                    ended = {"step": state.step, "stopped": event.reason}
                    continue
                reporter.add(event, state.is_finished)
                if not state.is_finished and checkpoints.is_due(wanted=isinstance(event, Snapshot)):
                    reporter.flush()  # an attempt that continues from the checkpoint does not report it again
                    keep_state(checkpoints, state, run_folder, writer.write)
        writer.settle()  # the final status is in the run folder now
        reporter.end(**ended)


def stop_check(mailbox: Any, deadline: float | None) -> StopCheck:
    """Return the stop check of a trial: for a request in the mailbox, and for the deadline."""
    return first_of(None if mailbox is None else RemoteStop(mailbox), time_check(deadline))


def _teacher_files(mailbox: Any) -> list[TeacherFile | None]:
    """Wait for the teacher; returns it (or None) in a list, or an empty list after a request to stop."""
    files: list[TeacherFile | None] = ray.get(ray.get(mailbox.teacher.remote()))
    return files


def _teacher_of(file: TeacherFile, device: torch.device) -> Teacher:
    key = (file.description, file.factory, device)  # a description has the digest of the weights
    if key not in _teachers:
        teacher = load_teacher(file, device)
        _teachers.clear()
        _teachers[key] = teacher
    return _teachers[key]
