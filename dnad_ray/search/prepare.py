"""What the trials of a run share (images, teacher, estimate), and one trial run in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from dnad_ray.config.run import RunConfig
from dnad_ray.data.loading import ImageData, load_data
from dnad_ray.distill.teacher import (
    Teacher,
    TeacherFile,
    check_teacher,
    load_teacher,
    read_teacher,
    save_teacher,
)
from dnad_ray.distill.teacher_cache import clear_cache
from dnad_ray.distill.teacher_sources import make_teacher
from dnad_ray.errors import (
    ResourceError,
)
from dnad_ray.run_folder.checkpoints import CheckpointKeeper
from dnad_ray.run_folder.layout import checkpoints_folder, teacher_checkpoints, teacher_folder
from dnad_ray.run_folder.reading import read_status
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.runtime.devices import device_for
from dnad_ray.runtime.stopping import StopCheck, StopRequest
from dnad_ray.search.state import SearchState
from dnad_ray.search.trial import run_trial
from dnad_ray.storage.places import Place
from dnad_ray.text import duration_in_words
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board

__all__ = [
    "PreparedRun",
    "estimate_in_words",
    "load_images",
    "prepare_teacher",
    "run_search",
    "seconds_per_step",
    "teacher_in_words",
]


@dataclass(frozen=True)
class PreparedRun:
    """What all trials of a run share.

    Attributes:
        data: Images.
        teacher_file: The teacher as bytes, None where nobody is imitated.
    """

    data: ImageData
    teacher_file: TeacherFile | None


def load_images(config: RunConfig, board: Board) -> ImageData:
    """Load the images and say what they are.

    Raises:
        DataError: If the images cannot be used.
        ResourceError: If a GPU is asked for and there is none.
    """
    if config.train.device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("train.device", "cuda", "auto or cpu; torch finds no GPU here")
    data = load_data(config.data, board.update)
    storage = ", streamed from disk" if data.train.held() is None else ""
    board.say(
        f"{data.name}: {len(data.train):,} training and {len(data.validation):,} validation images of "
        f"{data.image_size}x{data.image_size} pixels in {data.num_classes} classes{storage}"
    )
    return data


def prepare_teacher(
    config: RunConfig,
    data: ImageData,
    specs: Sequence[TrialSpec],
    folder: Place,
    board: Board,
    *,
    stop: StopCheck | None = None,
) -> PreparedRun:
    """Make the teacher, unless the run folder has it or nobody is imitated.

    What its training did is in checkpoints beside it, from which another call goes on; with the teacher they go.

    Args:
        config: The run.
        data: Images.
        specs: The trials; a teacher is trained if one of them imitates.
        folder: The run folder, where the teacher is kept.
        board: Where to show progress.
        stop: Asked before each step of its training.

    Raises:
        Stopped: If that asked to stop.
        NonFiniteLossError: If the teacher's loss diverges.
        GenotypeError: If the configured teacher is not a genotype.
        ConfigError: If it cannot be made, or has not what the trials are to imitate.
    """
    clear_cache(folder)
    if not any(spec.config.distill.uses_teacher for spec in specs):
        return PreparedRun(data, None)
    settings, device = config.distill.teacher, device_for(config.train.device)
    file = read_teacher(teacher_folder(folder), settings.model if settings.source == "module" else None)
    if file is None:
        progress, checkpoints = partial(board.update, "teacher"), teacher_checkpoints(teacher_folder(folder))
        teacher = make_teacher(config, data, device, progress, stop=stop, checkpoints=checkpoints)
        file = save_teacher(teacher_folder(folder), teacher)
        board.say(f"teacher: {teacher_in_words(teacher)}")
    else:
        teacher = load_teacher(file, device)
    for spec in specs:
        check_teacher(teacher, data, spec.config.distill, spec.config.space.stem, "distill.teacher")
    return PreparedRun(data, file)


def teacher_in_words(teacher: Teacher) -> str:
    """Say how good a teacher is, on the images that it was not trained on."""
    words = f"{teacher.accuracy:.2%} of the validation images are right"
    if teacher.calibration is None:
        return words
    found = teacher.calibration
    return f"{words}, calibration error {found.error:.2%}, calibrated at temperature {found.temperature:.2f}"


def estimate_in_words(spec: TrialSpec, prepared: PreparedRun, num_trials: int, num_parallel: int) -> str:
    """Say how long the trials will take at most, from a few measured steps of the dense supernet."""
    device = device_for(spec.config.train.device)
    teacher = None if prepared.teacher_file is None else load_teacher(prepared.teacher_file, device)
    state = SearchState.start(spec.config, prepared.data, teacher, run="estimate", trial=spec.name)
    longest = seconds_per_step(state) * state.num_steps
    rounds = -(-num_trials // max(1, num_parallel))
    return (
        f"about {duration_in_words(longest * rounds / 2)}, at most {duration_in_words(longest * rounds)}: "
        f"{num_trials} trial{'s' * (num_trials != 1)} of up to {spec.config.train.epochs} epochs, "
        f"{num_parallel} at a time, each {duration_in_words(longest)} if nothing were deleted"
    )


def run_search(
    spec: TrialSpec, prepared: PreparedRun, folder: Place, board: Board, *, stop: StopCheck | None = None
) -> None:
    """Run or continue one trial in this process, until it is asked to stop; it can be resumed exactly there."""
    device = device_for(spec.config.train.device)
    teacher = None if prepared.teacher_file is None else load_teacher(prepared.teacher_file, device)
    checkpoints = CheckpointKeeper(checkpoints_folder(folder, spec.name))
    saved = checkpoints.newest()
    board.trial_began(spec.name)
    for event, state in run_trial(spec, prepared.data, teacher, folder, saved, stop=stop):
        if not isinstance(event, StopRequest):
            board.report(spec.name, event)
        is_last = isinstance(event, StopRequest)
        if is_last or checkpoints.is_due(wanted=isinstance(event, Snapshot)):
            checkpoints.keep(state.state_dict, state.step)
    status = read_status(folder, spec.name)
    board.trial_ended(spec.name, status["state"], status.get("reason"))


def seconds_per_step(state: SearchState, num_steps: int = 3) -> float:
    """Measure the wall seconds of a step of the dense supernet; the state is spent by it, so give it a fresh one."""
    began = 0.0
    for index in range(num_steps + 1):
        if index == 1:  # the first step pays for allocations and kernel choices
            began = time.perf_counter()
        # A loss that diverges takes no longer; that it does is for the trial to find, and to write down.
        state.learner.step(*state.batches.batch(index), (state.controller.gamma, state.controller.mu))
    state.learner.look()  # waits for the device
    seconds = (time.perf_counter() - began) / num_steps
    state.batches.close()
    return seconds
