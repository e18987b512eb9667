"""Preparation shared by the trials of a run (images, teacher, time estimate), and running one trial in-process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from dnad_ray.config.run import RunConfig
from dnad_ray.data.loading import ImageData, load_data
from dnad_ray.data.summary import classes_in_words
from dnad_ray.distill.teacher import Teacher, TeacherFile, check_teacher, load_teacher, read_teacher, save_teacher
from dnad_ray.distill.teacher_cache import clear_cache
from dnad_ray.distill.teacher_sources import make_teacher
from dnad_ray.errors import ResourceError
from dnad_ray.run_folder.checkpoints import CheckpointKeeper
from dnad_ray.run_folder.layout import checkpoints_folder, teacher_checkpoints, teacher_folder
from dnad_ray.run_folder.reading import read_status
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.runtime.devices import device_for
from dnad_ray.runtime.stopping import StopCheck, StopRequest
from dnad_ray.search.state import SearchState
from dnad_ray.search.trial import keep_state, run_trial
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
    """Data shared by all trials of a run.

    Attributes:
        data: Images.
        teacher_file: The teacher as bytes, or None.
    """

    data: ImageData
    teacher_file: TeacherFile | None


def load_images(config: RunConfig, board: Board) -> ImageData:
    """Load the images and print a summary: sizes, classes, and what was left out or looks wrong.

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
    board.say(classes_in_words(data))
    for note in data.notes:
        board.say(f"warning: {note}")
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
    """Make the teacher, unless the run folder already has it or no trial imitates one.

    Its training writes checkpoints into the same folder; another call resumes from them. They are deleted when the
    teacher is saved.

    Args:
        config: The run.
        data: Images.
        specs: The trials; a teacher is trained if one of them imitates.
        folder: The run folder, where the teacher is saved.
        board: Display of progress.
        stop: Called before each step of its training; tells whether to stop.

    Raises:
        Stopped: If a stop was requested.
        NonFiniteLossError: If the teacher's loss diverges.
        GenotypeError: If the configured teacher is not a genotype.
        ConfigError: If it cannot be made, or lacks features that the trials imitate.
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
        if teacher.accuracy <= 1 / data.num_classes:
            board.say("warning: the teacher is no better than a guess; what imitates it learns nothing of the classes")
    else:
        teacher = load_teacher(file, device)
    for spec in specs:
        check_teacher(teacher, data, spec.config.distill, spec.config.space.stem, "distill.teacher")
    return PreparedRun(data, file)


def teacher_in_words(teacher: Teacher) -> str:
    """Return a sentence with the teacher's accuracy on images that it was not trained on."""
    words = f"{teacher.accuracy:.2%} of the validation images are right"
    if teacher.calibration is None:
        return words
    found = teacher.calibration
    return f"{words}, calibration error {found.error:.2%}, calibrated at temperature {found.temperature:.2f}"


def estimate_in_words(spec: TrialSpec, prepared: PreparedRun, num_trials: int, num_parallel: int) -> str:
    """Return a sentence with the longest time that the trials can take, from a few steps of the dense supernet."""
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
    """Run or resume one trial in this process, until its end or a stop request; a later call resumes exactly."""
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
            keep_state(checkpoints, state, folder)
    status = read_status(folder, spec.name)
    board.trial_ended(spec.name, status["state"], status.get("reason"))


def seconds_per_step(state: SearchState, num_steps: int = 3) -> float:
    """Measure the wall seconds of a step of the dense supernet; changes the state, so pass a fresh one."""
    began = 0.0
    for index in range(num_steps + 1):
        if index == 1:  # the first step includes allocations and kernel selection
            began = time.perf_counter()
        # A diverging loss does not change the time; the trial itself reports it.
        state.learner.step(*state.batches.batch(index), (state.controller.gamma, state.controller.mu))
    state.learner.look()  # waits for the device
    seconds = (time.perf_counter() - began) / num_steps
    state.batches.close()
    return seconds
