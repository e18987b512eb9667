"""Preparation shared by the trials of a run (images, teacher), and running one trial in-process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
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
from dnad_ray.search.trial import keep_state, run_trial
from dnad_ray.storage.places import Place
from dnad_ray.trials.dominance import Verdict
from dnad_ray.trials.plan import end_dominated
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board

__all__ = [
    "PreparedRun",
    "load_images",
    "prepare_teacher",
    "run_search",
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


def run_search(
    spec: TrialSpec,
    prepared: PreparedRun,
    folder: Place,
    board: Board,
    *,
    stop: StopCheck | None = None,
    judge: Callable[[Snapshot], Verdict | None] | None = None,
) -> None:
    """Run or resume one trial in this process, until its end or a stop request; a later call resumes exactly.

    Args:
        spec: The trial.
        prepared: Images and teacher.
        folder: The run folder.
        board: Display of progress.
        stop: Called at the end of each step; tells whether to stop.
        judge: Called with each snapshot; tells why the trial is dominated, and so stopped. None for no such judge.
    """
    device = device_for(spec.config.train.device)
    teacher = None if prepared.teacher_file is None else load_teacher(prepared.teacher_file, device)
    checkpoints = CheckpointKeeper(checkpoints_folder(folder, spec.name))
    saved = checkpoints.newest()
    board.trial_began(spec.name)
    progress = partial(board.step, spec.name)
    with closing(run_trial(spec, prepared.data, teacher, folder, saved, stop=stop, progress=progress)) as events:
        for event, state in events:
            is_last = isinstance(event, StopRequest)
            if not isinstance(event, StopRequest):
                board.report(spec.name, event)
            if judge is not None and isinstance(event, Snapshot):
                verdict = judge(event)
                if verdict is not None and not state.is_finished:  # to stop it at its end would save nothing
                    events.close()
                    end_dominated(folder, spec.name, verdict, event.device_seconds)
                    break
            if is_last or checkpoints.is_due(wanted=isinstance(event, Snapshot)):
                keep_state(checkpoints, state, folder)
    status = read_status(folder, spec.name)
    board.trial_ended(spec.name, status["state"], status.get("reason"))
