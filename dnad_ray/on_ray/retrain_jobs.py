"""Jobs of retraining as parallel Ray tasks (may import ray)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import ray
import ray.train
import torch
from ray.exceptions import RayError
from ray.train.torch import get_device

from dnad_ray.distill.teacher import TeacherFile, load_teacher
from dnad_ray.errors import one_line
from dnad_ray.on_ray.cluster import check_storage, ray_errors
from dnad_ray.on_ray.distributed import SharedStop, trainer_of
from dnad_ray.on_ray.mailbox import StepNews, has_failed, start_mailbox, step_sender
from dnad_ray.on_ray.resources import Allotment
from dnad_ray.on_ray.trainable import stop_check
from dnad_ray.retrain.data import RetrainImages
from dnad_ray.retrain.jobs import Job, run_job
from dnad_ray.run_folder.jobs import read_job_status
from dnad_ray.run_folder.states import TrialState
from dnad_ray.run_folder.writing import write_job_status
from dnad_ray.runtime.devices import device_for, limit_memory
from dnad_ray.runtime.processes import ranks_here
from dnad_ray.runtime.random_states import seed_all
from dnad_ray.runtime.stopping import StopCheck
from dnad_ray.storage.places import Place, address, place

__all__ = ["run_jobs"]

_MAX_RETRIES = 2
_POLL_SECONDS = 0.2


class _Ends(NamedTuple):
    """What can stop a job early: a request in a mailbox, or a deadline in seconds since the epoch."""

    mailbox: Any
    deadline: float | None


Ended = Callable[[Job, str], None]
"""Called with a job that has ended or failed, and its state."""


@ray_errors("the training")
def run_jobs(
    jobs: Sequence[Job],
    images: RetrainImages,
    teacher_file: TeacherFile | None,
    run: Place,
    allotment: Allotment,
    *,
    stop: StopCheck,
    deadline: float | None,
    ended: Ended,
    idle: Callable[[Mapping[str, tuple[int, int]]], None],
) -> None:
    """Train jobs inside :func:`dnad_ray.on_ray.cluster.cluster`, as many at the same time as fit.

    If a worker dies, a new one continues from the job's checkpoint. If a job fails, its status says so and the other
    jobs continue.

    Args:
        jobs: The jobs, all of the same protocol.
        images: Images; they are put into the object store once.
        teacher_file: The teacher, or None; also put into the object store once.
        run: The run folder, on storage that every node sees.
        allotment: What each process gets.
        stop: Called five times a second. After a request, jobs end after their step, with a checkpoint.
        deadline: When to pause, in seconds since the epoch; None for never.
        ended: Called with each job that has ended.
        idle: Called five times a second, to show progress, with news of (steps done, all steps) by job.

    Raises:
        ResourceError: If there is no space on the disk, or a node does not see the folder.
        IncompleteRunError: If Ray gave up.
    """
    check_storage(run)
    shared = [ray.put(images), ray.put(teacher_file)]
    mailbox = start_mailbox()
    ends, news = _Ends(mailbox, deadline), StepNews(mailbox)
    if allotment.processes > 1:
        for job in jobs:
            if stop() is None:
                _train_together(job, shared, run, allotment, ends)
                ended(job, read_job_status(run, job.name)["state"])
        return
    task = ray.remote(num_cpus=allotment.cpus, num_gpus=allotment.gpus, max_retries=_MAX_RETRIES)(_train_alone)
    waiting = {task.remote(job, shared, address(run), allotment, ends): job for job in jobs}
    asking: Any = None
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=_POLL_SECONDS)
        for reference in done:
            job = waiting.pop(reference)
            try:
                state = TrialState(ray.get(reference))
            except RayError as error:
                state = TrialState.FAILED
                _note_failure(run, job, error)
            ended(job, state)
        idle(news())
        if asking is None and (request := stop()) is not None:
            asking = mailbox.ask_to_stop.remote(request)
        if asking is not None and has_failed(asking):
            return  # without a mailbox no job hears of it; each goes on from its last checkpoint


def _train_alone(job: Job, shared: Any, folder: str, allotment: Allotment, ends: _Ends) -> TrialState:
    """Train one job in a Ray task."""
    torch.set_num_threads(allotment.threads)
    seed_all(job.seed)
    images, teacher_file = cast("tuple[RetrainImages, TeacherFile | None]", ray.get(shared))
    device = device_for(job.config.device)
    limit_memory(device, allotment.gpus)
    teacher = None if teacher_file is None else load_teacher(teacher_file, device)
    return run_job(
        job,
        images,
        place(folder),
        teacher=teacher,
        stop=stop_check(*ends),
        progress=step_sender(ends.mailbox, job.name),
    )


def _train_together(job: Job, shared: Any, run: Place, allotment: Allotment, ends: _Ends) -> None:
    """Train one job in several processes by Ray Train and DistributedDataParallel."""
    facts = {"job": job, "shared": shared, "ends": ends}
    trainer = trainer_of(_train_part, facts, run, job.name, allotment, max_failures=_MAX_RETRIES)
    try:
        trainer.fit()
    except Exception as error:  # noqa: BLE001 - Train wraps what a worker raised in classes that change
        _note_failure(run, job, error)


def _train_part(config: dict[str, Any]) -> None:
    """Train in one process of a job."""
    job: Job = config["job"]
    allotment: Allotment = config["allotment"]
    ranks = ranks_here()
    torch.set_num_threads(allotment.threads)
    seed_all(job.seed)
    images, teacher_file = cast("tuple[RetrainImages, TeacherFile | None]", ray.get(config["shared"]))
    device = device_for(job.config.device)
    if device.type == "cuda":
        torch.cuda.set_device(get_device())
    teacher = None if teacher_file is None else load_teacher(teacher_file, device)
    check = stop_check(*config["ends"]) if ranks.is_first else None
    run_job(
        job,
        images,
        place(config["folder"]),
        teacher=teacher,
        stop=SharedStop(check, ranks, device),
        ranks=ranks,
        progress=step_sender(config["ends"].mailbox, job.name) if ranks.is_first else None,
    )


def _note_failure(run: Place, job: Job, error: BaseException) -> None:
    """Store why a job failed, because its worker could not."""
    reason = str(error).strip().splitlines()[-1] if str(error).strip() else one_line(error)
    with contextlib.suppress(OSError):
        write_job_status(run, job.name, TrialState.FAILED, reason=reason[:500])
