"""What `search` and `sweep` share (run folder, images, teacher, estimate), and `search` itself."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from dnad_ray import __version__
from dnad_ray.config.run import RunConfig, config_from_dict, config_to_dict
from dnad_ray.data.loading import ImageData, load_data
from dnad_ray.distill.teacher import (
    Teacher,
    TeacherFile,
    check_teacher,
    load_teacher,
    read_teacher,
    save_teacher,
    teacher_checkpoints,
)
from dnad_ray.distill.teacher_cache import clear_cache
from dnad_ray.distill.teacher_sources import make_teacher
from dnad_ray.errors import (
    ConfigError,
    DnadRayError,
    IncompleteRunError,
    NonFiniteLossError,
    ResourceError,
    RunFolderError,
)
from dnad_ray.run_folder.checkpoints import CheckpointKeeper
from dnad_ray.run_folder.layout import (
    checkpoints_folder,
    config_file,
    table_file,
    teacher_folder,
    trial_entries,
    trials_folder,
)
from dnad_ray.run_folder.reading import is_run, read_run, read_status
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.run_folder.states import TrialState
from dnad_ray.run_folder.writing import create_run, free_folder, write_parquet
from dnad_ray.runtime.budget import Budget
from dnad_ray.runtime.devices import device_for
from dnad_ray.runtime.stopping import StopCheck, StopRequest
from dnad_ray.search.state import SearchState
from dnad_ray.search.trial import run_trial
from dnad_ray.storage.files import is_inside
from dnad_ray.storage.places import Place, address, reached, remove_folder
from dnad_ray.text import dotted, duration_in_words
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board

__all__ = [
    "PreparedRun",
    "check_out",
    "conclude",
    "estimate_in_words",
    "load_images",
    "prepare_teacher",
    "run_folder",
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


def check_out(config: RunConfig, specs: Sequence[TrialSpec], out: Place, resume: bool) -> Place:
    """Check that a run may go into a folder, or that the folder holds that run; nothing is made yet.

    Args:
        config: What is asked for now.
        specs: Its trials.
        out: The folder.
        resume: Whether to continue the run that the folder holds.

    Returns:
        The absolute folder.

    Raises:
        RunFolderError: If the folder is not fit for that.
        ConfigError: If a resumed run was made with another configuration.
    """
    if not resume:
        return free_folder(out)
    if not (reached(out, "--out") and is_run(out)):
        raise RunFolderError(
            "--resume with --out", address(out), "a folder that holds a run; leave --resume out to start one"
        )
    trials, teacher = trial_entries(out), teacher_folder(out)
    inside = (path for folder in (*trials, teacher) for path in folder.glob("*"))
    for path in (*out.glob("*"), *trials, *inside) if isinstance(out, Path) else ():
        if path.is_symlink() and not is_inside(path, out):
            raise RunFolderError("--resume with --out", str(path), "a run without links that lead out of it")
    contents = read_run(out)
    if not contents.config:
        raise RunFolderError("--resume with --out", address(out), "a run whose config.yaml can be read")
    stored = config_from_dict(contents.config, f"{address(config_file(out))}")
    if config_to_dict(stored) != config_to_dict(config):
        raise ConfigError("--resume", _differences(stored, config), f"the configuration in {address(config_file(out))}")
    for spec in specs:
        overrides = contents.status.get(spec.name, {}).get("overrides")
        if overrides is not None and _canonical(overrides) != _canonical(dict(spec.overrides)):
            # One file of snapshots must not get records of two settings.
            raise RunFolderError(
                "--resume with --out", address(out), f"the command that made it, search or sweep ({spec.name} differs)"
            )
    return out.resolve()


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


@contextlib.contextmanager
def run_folder(config: RunConfig, folder: Place, resume: bool) -> Iterator[None]:
    """Make the run folder; take it away again if an error comes before any trial has begun.

    The corrected command must not find the folder occupied by a run in which there is nothing.

    Args:
        config: The run.
        folder: As :func:`check_out` returned it.
        resume: Whether the folder stands already; it is then left as it is.
    """
    if resume:
        yield
        return
    create_run(folder, config_to_dict(config), __version__)
    try:
        yield
    except (DnadRayError, OSError):
        if not trials_folder(folder).exists():
            remove_folder(folder)
        raise


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


def conclude(
    specs: Sequence[TrialSpec],
    folder: Place,
    board: Board,
    budget: Budget | None = None,
    left_out: Collection[str] = (),
) -> str:
    """Gather the snapshots and compute, rather than believe, that all trials came to their end.

    A spent budget is no failure: it was asked for.

    Args:
        specs: All trials of the run.
        folder: The run folder.
        board: Where to say which trials ended early.
        budget: What the command was allowed to spend.
        left_out: Trials that were not to run for lack of it.

    Returns:
        What the budget left to do, in words; empty if nothing.

    Raises:
        IncompleteRunError: If some did not, and no budget is why.
        NonFiniteLossError: If all did, but some because their loss diverged.
    """
    clear_cache(folder)
    num_snapshots = write_parquet(folder)
    status = {spec.name: read_status(folder, spec.name) for spec in specs}
    budget = budget or Budget()
    for name, entry in status.items():
        if entry["state"].is_finished and "reason" in entry:
            board.say(f"{name} {entry['state'].words}: {entry['reason']}; its snapshots stand")
    board.say(f"{num_snapshots} snapshots in {address(table_file(folder))}")
    open_trials = {name: entry for name, entry in status.items() if not entry["state"].is_finished}
    cut = [
        n
        for n, e in open_trials.items()
        if n in left_out or (budget.is_spent() and e["state"] is not TrialState.FAILED)
    ]
    failed = [name for name in open_trials if name not in cut]
    words = budget.words(cut, len(specs))
    if failed:
        reasons = {str(status[name]["reason"]) for name in failed if "reason" in status[name]}
        raise IncompleteRunError(
            f"{len(failed)} of {len(specs)} trials did not finish ({', '.join(failed)})"
            + "".join(f"; {reason}" for reason in [*sorted(reasons), words] if reason)
        )
    stopped = {
        name: entry.get("reason", "no reason recorded")
        for name, entry in status.items()
        if entry["state"] is TrialState.STOPPED
    }
    if stopped:
        raise NonFiniteLossError(
            f"{len(stopped)} of {len(specs)} trials stopped early, their snapshots stand: "
            + "; ".join([*(f"{name}: {reason}" for name, reason in stopped.items()), *([words] if words else [])])
        )
    return words


def _canonical(data: object) -> str:
    return json.dumps(data, sort_keys=True)


def _differences(stored: RunConfig, asked: RunConfig) -> str:
    ours, theirs = dotted(config_to_dict(stored)), dotted(config_to_dict(asked))
    return ", ".join(f"{key} {theirs.get(key)!r}" for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))


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
