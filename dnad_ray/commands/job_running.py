"""Jobs of training at work: on Ray or one after the other, with their progress."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dnad_ray.config.retrain import RetrainConfig
from dnad_ray.config.run import RunConfig, with_overrides
from dnad_ray.distill.teacher import TeacherFile, load_teacher
from dnad_ray.retrain.data import RetrainImages
from dnad_ray.retrain.jobs import Job, run_job
from dnad_ray.run_folder.jobs import read_job_history, read_job_status
from dnad_ray.run_folder.states import TrialState
from dnad_ray.runtime.devices import device_for
from dnad_ray.runtime.stopping import StopCheck
from dnad_ray.storage.places import Place
from dnad_ray.watch.board import Board

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["JobRunner", "JobWork", "job_runner", "placed_as", "trained"]

_LINE_SECONDS = 10.0

Steps = Mapping[str, tuple[int, int]]
"""Steps done and all steps, by job."""


@dataclass(frozen=True)
class JobWork:
    """The context of the running jobs.

    Attributes:
        images: Their images.
        teacher_file: The teacher, or None.
        folder: The run folder.
        board: Where to show progress.
        stop: Tells whether to stop.
        deadline: When to pause, in seconds since the epoch; None for never.
    """

    images: RetrainImages
    teacher_file: TeacherFile | None
    folder: Place
    board: Board
    stop: StopCheck
    deadline: float | None = None

    def ended(self, job: Job, state: str) -> None:
        """Say how a job ended."""
        reason = read_job_status(self.folder, job.name).get("reason")
        self.board.say(f"{_name_of(job)}: {state}" + (f" ({reason})" if reason else ""))


JobRunner = Callable[[Sequence[Job], JobWork], None]
"""Runs jobs, until their end or a stop request."""


def placed_as(run: RunConfig, config: RetrainConfig) -> RunConfig:
    """Return the configuration that says what a job needs of a cluster.

    Args:
        run: The run, whose section ``sweep`` says it.
        config: The protocol, which says how many processes share a batch, and the device.
    """
    return with_overrides(
        run,
        {
            "train.num_processes": config.num_processes,
            "train.batch_size": config.batch_size,
            "train.device": config.device,
        },
    )


@contextlib.contextmanager
def job_runner(placed: RunConfig, *, address: str | None, no_ray: bool) -> Iterator[JobRunner]:
    """Open what jobs run on: Ray, for as many at the same time as fit, or this process.

    Args:
        placed: As :func:`placed_as` returned it.
        address: Ray cluster to join; None starts one on this machine.
        no_ray: Whether to run one after the other in this process.
    """
    if no_ray:
        yield _one_by_one
        return
    from dnad_ray.on_ray.cluster import allotment_of, cluster
    from dnad_ray.on_ray.retrain_jobs import run_jobs

    def on_ray(jobs: Sequence[Job], work: JobWork) -> None:
        run_jobs(
            jobs, work.images, work.teacher_file, work.folder, allotment_of(placed),
            stop=work.stop, deadline=work.deadline, ended=work.ended, idle=_standing_of(jobs, work),
        )  # fmt: skip

    with cluster(placed, address):
        yield on_ray


def _one_by_one(jobs: Sequence[Job], work: JobWork) -> None:
    show = _standing_of(jobs, work)
    for job in jobs:
        if work.stop() is None:
            device = device_for(job.config.device)
            teacher = None if work.teacher_file is None else load_teacher(work.teacher_file, device)
            progress = partial(_show_steps, show, job.name)
            work.ended(job, run_job(job, work.images, work.folder, teacher=teacher, stop=work.stop, progress=progress))


def _show_steps(show: Callable[[Steps], None], name: str, step: int, num_steps: int) -> None:
    show({name: (step, num_steps)})


def _standing_of(jobs: Sequence[Job], work: JobWork) -> Callable[[Steps], None]:
    """Return a function that takes news of steps and shows the progress of jobs every few seconds."""
    shown_at = time.monotonic()
    steps: dict[str, tuple[int, int]] = {}

    def show(news: Steps) -> None:
        nonlocal shown_at
        steps.update(news)
        if time.monotonic() - shown_at > _LINE_SECONDS:
            shown_at = time.monotonic()
            for line in _standing(jobs, work.folder, steps):
                work.board.say(line)

    return show


def _standing(jobs: Sequence[Job], folder: Place, steps: Steps) -> list[str]:
    """Return a line for each job that runs, and how many wait."""
    states = {job.name: read_job_status(folder, job.name)["state"] for job in jobs}
    lines = []
    for job in jobs:
        if states[job.name] is not TrialState.RUNNING:
            continue
        history = read_job_history(folder, job.name)
        step, num_steps = steps.get(job.name, (0, 1))
        line = f"{_name_of(job)}: " + (f"{step / num_steps:.0%}, " if step else "")
        if not history:
            lines.append(f"{line}in its first epoch of {job.config.epochs}")
            continue
        epoch, loss, share = (history[-1].get(name, 0) for name in ("epoch", "train_loss", "train_accuracy"))
        lines.append(
            f"{line}epoch {epoch} of {job.config.epochs}, training loss {loss:.4f}, training accuracy {share:.2%}"
        )
    waiting = sum(state is TrialState.UNKNOWN for state in states.values())
    return [*lines, f"{waiting} jobs wait"] if waiting and lines else lines


def _name_of(job: Job) -> str:
    width = f"C {job.spec.init_channels}" if job.spec.genotype is not None else f"width {job.spec.width:g}"
    return f"{job.spec.model} {job.spec.digest} {width} seed {job.seed}"


def trained(jobs: Sequence[Job], folder: Place) -> pd.DataFrame:
    """Return the records of the jobs, a row each."""
    from analysis import load_retrained

    frame = load_retrained(folder)
    records: pd.DataFrame = frame[frame["job"].isin([job.name for job in jobs])]
    return records
