"""What `search` and `sweep` share (run folder, images, teacher, estimate), and `search` itself."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dnad_ray import __version__
from dnad_ray.checkpoint import load_newest, prune_checkpoints, save_checkpoint
from dnad_ray.config import RunConfig, config_from_dict, config_to_dict
from dnad_ray.data import ImageData, load_data
from dnad_ray.devices import device_for
from dnad_ray.errors import (
    ConfigError,
    DnadRayError,
    IncompleteRunError,
    NonFiniteLossError,
    ResourceError,
    RunFolderError,
)
from dnad_ray.progress import Board, duration_in_words
from dnad_ray.records import Snapshot
from dnad_ray.search import SearchState, seconds_per_step
from dnad_ray.store import create_run, free_folder, is_run, read_run, read_status, write_parquet
from dnad_ray.teacher import TeacherFile, load_teacher, read_teacher, save_teacher, train_teacher
from dnad_ray.trial import CHECKPOINT_SECONDS, DONE, TrialSpec, run_trial

__all__ = [
    "Prepared",
    "check_out",
    "conclude",
    "estimate_in_words",
    "is_complete",
    "load_images",
    "prepare",
    "run_folder",
    "run_search",
]


@dataclass(frozen=True)
class Prepared:
    """What all trials of a run share.

    Attributes:
        data: Images.
        teacher_file: The teacher as bytes, None where nobody is imitated.
    """

    data: ImageData
    teacher_file: TeacherFile | None


def check_out(config: RunConfig, specs: Sequence[TrialSpec], out: Path, resume: bool) -> Path:
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
    if not is_run(out):
        raise RunFolderError(
            "--resume with --out", str(out), "a folder that holds a run; leave --resume out to start one"
        )
    contents = read_run(out)
    if not contents.config:
        raise RunFolderError("--resume with --out", str(out), "a run whose config.yaml can be read")
    stored = config_from_dict(contents.config, f"{out / 'config.yaml'}")
    if config_to_dict(stored) != config_to_dict(config):
        raise ConfigError("--resume", _differences(stored, config), f"the configuration in {out / 'config.yaml'}")
    for spec in specs:
        overrides = contents.status.get(spec.name, {}).get("overrides")
        if overrides not in (None, json.loads(json.dumps(dict(spec.overrides)))):
            # One file of snapshots must not get records of two settings.
            raise RunFolderError(
                "--resume with --out", str(out), f"the command that made it, search or sweep ({spec.name} differs)"
            )
    return out.resolve()


def is_complete(specs: Sequence[TrialSpec], folder: Path) -> bool:
    """Whether all trials of a run are at their end."""
    return all(read_status(folder, spec.name)["state"] in DONE for spec in specs)


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
def run_folder(config: RunConfig, folder: Path, resume: bool) -> Iterator[None]:
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
        if not (folder / "trials").exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def prepare(config: RunConfig, data: ImageData, specs: Sequence[TrialSpec], folder: Path, board: Board) -> Prepared:
    """Train the teacher, unless the run folder has it or nobody is imitated.

    Args:
        config: The run.
        data: Images.
        specs: The trials; a teacher is trained if one of them imitates.
        folder: The run folder, where the teacher is kept.
        board: Where to show progress.

    Raises:
        NonFiniteLossError: If the teacher's loss diverges.
        GenotypeError: If the configured teacher is not a genotype.
    """
    if not any(spec.config.distill.uses_teacher for spec in specs):
        return Prepared(data, None)
    file = read_teacher(folder / "teacher")
    if file is None:
        teacher = train_teacher(
            config, data, device_for(config.train.device), lambda done, total: board.update("teacher", done, total)
        )
        file = save_teacher(folder / "teacher", teacher)
        board.say(f"teacher: {teacher.accuracy:.2%} of the validation images are right")
    return Prepared(data, file)


def estimate_in_words(spec: TrialSpec, prepared: Prepared, num_trials: int, num_parallel: int) -> str:
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


def run_search(spec: TrialSpec, prepared: Prepared, folder: Path, board: Board) -> None:
    """Run or continue one trial in this process.

    Raises:
        KeyboardInterrupt: As it comes; what was recorded stands and the run can be resumed.
    """
    device = device_for(spec.config.train.device)
    teacher = None if prepared.teacher_file is None else load_teacher(prepared.teacher_file, device)
    checkpoints = folder / "trials" / spec.name / "checkpoints"
    saved = load_newest(checkpoints.glob("*"))
    last_checkpoint = time.monotonic()
    board.trial_began(spec.name)
    for event, state in run_trial(spec, prepared.data, teacher, folder, saved):
        board.report(spec.name, event)
        if isinstance(event, Snapshot) or time.monotonic() - last_checkpoint > CHECKPOINT_SECONDS:
            save_checkpoint(checkpoints / f"{state.step:08d}", state.state_dict(), state.step)
            prune_checkpoints(checkpoints)
            last_checkpoint = time.monotonic()
    status = read_status(folder, spec.name)
    board.trial_ended(spec.name, status["state"], status.get("reason"))


def conclude(specs: Sequence[TrialSpec], folder: Path, board: Board) -> None:
    """Gather the snapshots and compute, rather than believe, that all trials came to their end.

    Raises:
        IncompleteRunError: If some did not.
        NonFiniteLossError: If all did, but some because their loss diverged.
    """
    num_snapshots = write_parquet(folder)
    status = {spec.name: read_status(folder, spec.name) for spec in specs}
    stopped = {
        name: entry.get("reason", "no reason recorded") for name, entry in status.items() if entry["state"] == "stopped"
    }
    for name, reason in stopped.items():
        board.say(f"{name} stopped early: {reason}; its snapshots stand")
    board.say(f"{num_snapshots} snapshots in {folder / 'snapshots.parquet'}")
    unfinished = [name for name, entry in status.items() if entry["state"] not in DONE]
    if unfinished:
        reasons = {str(status[name]["reason"]) for name in unfinished if "reason" in status[name]}
        raise IncompleteRunError(
            f"{len(unfinished)} of {len(specs)} trials did not finish ({', '.join(unfinished)})"
            + "".join(f"; {reason}" for reason in sorted(reasons))
        )
    if stopped:
        raise NonFiniteLossError(
            f"{len(stopped)} of {len(specs)} trials stopped early, their snapshots stand: "
            + "; ".join(f"{name}: {reason}" for name, reason in stopped.items())
        )


def _differences(stored: RunConfig, asked: RunConfig) -> str:
    def flat(section: object, prefix: str = "") -> dict[str, object]:
        if not isinstance(section, dict) or not section:
            return {prefix[:-1]: section}
        return {key: value for name, part in section.items() for key, value in flat(part, f"{prefix}{name}.").items()}

    ours, theirs = flat(config_to_dict(stored)), flat(config_to_dict(asked))
    return ", ".join(f"{key} {theirs.get(key)!r}" for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
