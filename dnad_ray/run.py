"""What `search` and `sweep` share (run folder, images, teacher, estimate), and `search` itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dnad_ray import __version__
from dnad_ray.checkpoint import load_newest, prune_checkpoints, save_checkpoint
from dnad_ray.config import RunConfig, config_from_dict, config_to_dict
from dnad_ray.data import ImageData, load_data
from dnad_ray.devices import device_for
from dnad_ray.errors import ConfigError, IncompleteRunError, ResourceError, RunFolderError
from dnad_ray.progress import Board, duration_in_words
from dnad_ray.records import EpochReport, Snapshot
from dnad_ray.search import SearchState, seconds_per_step
from dnad_ray.store import create_run, is_run, read_run, read_status, write_parquet
from dnad_ray.teacher import TeacherFile, load_teacher, read_teacher, save_teacher, train_teacher
from dnad_ray.trial import DONE, TrialSpec, run_trial

__all__ = ["Prepared", "conclude", "estimate_in_words", "event_text", "open_run", "prepare", "run_search"]

_CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Prepared:
    """What all trials of a run share.

    Attributes:
        data: Images.
        teacher_file: The teacher as bytes, None where nobody is imitated.
    """

    data: ImageData
    teacher_file: TeacherFile | None


def open_run(config: RunConfig, out: Path, resume: bool) -> Path:
    """Make the run folder, or check that the one at hand is that run.

    Args:
        config: What is asked for now.
        out: The folder.
        resume: Whether to continue the run that the folder holds.

    Returns:
        The absolute folder.

    Raises:
        RunFolderError: If the folder is not fit for that.
        ConfigError: If a resumed run was made with another configuration.
    """
    if not resume:
        return create_run(out, config_to_dict(config), __version__)
    if not is_run(out):
        raise RunFolderError(
            "--resume with --out", str(out), "a folder that holds a run; leave --resume out to start one"
        )
    stored = config_from_dict(read_run(out).config, f"{out / 'config.yaml'}")
    if stored != config:
        raise ConfigError("--resume", _differences(stored, config), f"the configuration in {out / 'config.yaml'}")
    return out.resolve()


def prepare(config: RunConfig, specs: Sequence[TrialSpec], folder: Path, board: Board) -> Prepared:
    """Load the images, and train the teacher unless the run folder has it.

    Args:
        config: The run.
        specs: The trials; a teacher is trained if one of them imitates.
        folder: The run folder, where the teacher is kept.
        board: Where to show progress.

    Raises:
        DataError: If the images cannot be used.
        ResourceError: If a GPU is asked for and there is none.
        NonFiniteLossError: If the teacher's loss diverges.
    """
    if config.train.device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("train.device", "cuda", "auto or cpu; torch finds no GPU here")
    data = load_data(config.data, lambda message, done, total: board.update("images", done, total, message))
    board.say(
        f"{data.name}: {len(data.train):,} training and {len(data.validation):,} validation images of "
        f"{data.image_size}x{data.image_size} pixels in {data.num_classes} classes"
    )
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
    if read_status(folder, spec.name)["state"] in DONE:
        board.say("nothing left to do: this search is at its end")
        return
    device = device_for(spec.config.train.device)
    teacher = None if prepared.teacher_file is None else load_teacher(prepared.teacher_file, device)
    checkpoints = folder / "trials" / spec.name / "checkpoints"
    saved = load_newest(checkpoints.glob("*"))
    last_checkpoint = time.monotonic()
    for event, state in run_trial(spec, prepared.data, teacher, folder, saved):
        board.update(spec.name, event.epoch, spec.config.train.epochs, event_text(event))
        if isinstance(event, Snapshot) or time.monotonic() - last_checkpoint > _CHECKPOINT_SECONDS:
            save_checkpoint(checkpoints / f"{state.step:08d}", state.state_dict(), state.step)
            prune_checkpoints(checkpoints)
            last_checkpoint = time.monotonic()


def event_text(event: EpochReport | Snapshot) -> str:
    """Return an event in a few words for a progress line."""
    text = f"{event.num_operations} operations"
    return text + (f", proxy error {1 - event.proxy_accuracy:.2%}" if isinstance(event, Snapshot) else "")


def conclude(specs: Sequence[TrialSpec], folder: Path, board: Board) -> None:
    """Gather the snapshots and compute, rather than believe, that all trials came to their end.

    Raises:
        IncompleteRunError: If some did not, with the command that resumes.
    """
    num_snapshots = write_parquet(folder)
    status = {spec.name: read_status(folder, spec.name) for spec in specs}
    for name, entry in status.items():
        if entry["state"] == "stopped":
            board.say(f"{name} stopped early: {entry.get('reason', 'no reason recorded')}; its snapshots stand")
    board.say(f"{num_snapshots} snapshots in {folder / 'snapshots.parquet'}")
    unfinished = [name for name, entry in status.items() if entry["state"] not in DONE]
    if unfinished:
        reasons = {str(status[name]["reason"]) for name in unfinished if "reason" in status[name]}
        raise IncompleteRunError(
            f"{len(unfinished)} of {len(specs)} trials did not finish ({', '.join(unfinished)})"
            + "".join(f"; {reason}" for reason in sorted(reasons))
        )


def _differences(stored: RunConfig, asked: RunConfig) -> str:
    def flat(section: object, prefix: str = "") -> dict[str, object]:
        if not isinstance(section, dict) or not section:
            return {prefix[:-1]: section}
        return {key: value for name, part in section.items() for key, value in flat(part, f"{prefix}{name}.").items()}

    ours, theirs = flat(config_to_dict(stored)), flat(config_to_dict(asked))
    return ", ".join(f"{key} {theirs.get(key)!r}" for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
