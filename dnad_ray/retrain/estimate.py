"""How long training from scratch will take, measured on a few steps before it begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dnad_ray.distill.teacher import TeacherFile, load_teacher
from dnad_ray.networks.spec import cost_of
from dnad_ray.retrain.data import RetrainImages
from dnad_ray.retrain.jobs import Job
from dnad_ray.retrain.state import RetrainState
from dnad_ray.run_folder.jobs import read_job_history
from dnad_ray.runtime.devices import device_for
from dnad_ray.storage.places import Place
from dnad_ray.text import duration_in_words
from dnad_ray.training.timing import seconds_of_step

__all__ = ["estimate_in_words", "seconds_per_epoch"]

_NUM_STEPS, _MOST_STEPS, _LONG_ENOUGH = 2, 20, 1.0
"""Steps that are measured, and how many more if these took less than so many seconds: the first steps of a small
network are slower than the mean of a training."""
_LONG_SECONDS = 24 * 3600.0


def estimate_in_words(jobs: Sequence[Job], images: RetrainImages, run: Place, teacher: TeacherFile | None) -> str:
    """Return a sentence with the longest time that jobs can take, from a few steps of the network with the most MACs.

    Without the GPU that the jobs need, which only other machines have then, nothing is measured.

    Args:
        jobs: The jobs that are not finished, at least one.
        images: Their images.
        run: The run folder, which says how many epochs each has done.
        teacher: The teacher's file, or None.
    """
    if jobs[0].config.device == "cuda" and not torch.cuda.is_available():
        return "no estimate: this machine has no GPU"
    largest = max(jobs, key=lambda job: cost_of(job.spec, images.data.shape).macs)
    epoch = seconds_per_epoch(largest, images, teacher)
    left = [job.config.epochs - len(read_job_history(run, job.name)) for job in jobs]
    words = f"up to {duration_in_words(epoch * max(left))} for a network on this machine"
    if len(jobs) > 1:
        words += f", {duration_in_words(epoch * sum(left))} for all {len(jobs)} one after the other"
    if epoch * max(left) > _LONG_SECONDS:
        words += "; --recipe quick, --epochs and --max-macs make it shorter"
    return words


def seconds_per_epoch(job: Job, images: RetrainImages, teacher_file: TeacherFile | None = None) -> float:
    """Measure the wall seconds of an epoch of a job on this machine, on a few steps.

    Args:
        job: The job.
        images: Its images.
        teacher_file: The teacher, or None; needed if the protocol has a KD weight.
    """
    teacher = None if teacher_file is None else load_teacher(teacher_file, device_for(job.config.device))
    state = RetrainState(job.spec, job.config, images.data, job.seed, teacher=teacher)

    def step(_: int) -> None:
        state.train_step()

    seconds = seconds_of_step(step, state.device, _NUM_STEPS)
    more = min(int(_LONG_ENOUGH / seconds), _MOST_STEPS, state.num_steps - state.step - 1)
    if more > _NUM_STEPS:
        seconds = seconds_of_step(step, state.device, more)
    state.batches.close()
    return seconds * state.steps_per_epoch / job.config.num_processes
