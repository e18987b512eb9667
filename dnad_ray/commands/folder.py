"""The run folder of a command: checks before the run, and the results at its end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dnad_ray.commands.options import with_absolute_paths
from dnad_ray.config.run import RunConfig, config_from_dict, config_to_dict
from dnad_ray.config.section import Words
from dnad_ray.distill.teacher_cache import clear_cache
from dnad_ray.errors import ConfigError, DataError, DnadRayError, IncompleteRunError, NonFiniteLossError, RunFolderError
from dnad_ray.run_folder.images import ImagesRecord, changes, read_images
from dnad_ray.run_folder.layout import (
    config_file,
    front_file,
    report_file,
    table_file,
    trials_folder,
)
from dnad_ray.run_folder.lock import writing_to
from dnad_ray.run_folder.reading import RunContents, is_run, read_run
from dnad_ray.run_folder.records import SNAPSHOT_COLUMNS
from dnad_ray.run_folder.states import TrialState
from dnad_ray.run_folder.writing import create_run, free_folder, write_parquet
from dnad_ray.runtime.budget import Budget
from dnad_ray.storage.files import write_json
from dnad_ray.storage.places import Place, address, reached, remove_folder
from dnad_ray.text import dotted
from dnad_ray.trials.plan import unfinished
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.version import __version__
from dnad_ray.watch.board import Board

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "check_images",
    "check_out",
    "conclude",
    "leave_results",
    "made_for_writing",
    "run_folder",
    "run_to_continue",
    "stored_run",
]


_AS_BEFORE = frozenset({"data.broken"})
"""Keys whose defaults are what versions without them did: a run of such a version can be continued."""


@contextlib.contextmanager
def run_to_continue(out: Place, resume: bool) -> Iterator[RunContents | None]:
    """Open the run to continue and hold it against other commands; None for a new run.

    Raises:
        RunFolderError: As :func:`stored_run`, and if another command writes to the run.
    """
    if not resume:
        yield None
        return
    check_is_run(out)
    with writing_to(out.resolve()):
        yield stored_run(out)


def stored_run(out: Place) -> RunContents:
    """Open the run to continue.

    Raises:
        RunFolderError: If the folder has no run, or one that cannot be continued.
    """
    check_is_run(out)
    contents = read_run(out.resolve())
    if not contents.config:
        raise RunFolderError("--resume with --out", address(out), "a run whose config.yaml can be read")
    return contents


def check_is_run(out: Place) -> None:
    """Check that a folder has a run to continue.

    Raises:
        RunFolderError: If it has none.
    """
    if not (reached(out, "--out") and is_run(out)):
        raise RunFolderError(
            "--resume with --out", address(out), "a folder that holds a run; leave --resume out to start one"
        )


def check_out(config: RunConfig, specs: Sequence[TrialSpec], out: Place, stored: RunContents | None) -> Place:
    """Check that a folder can be used for a new run, or that it has the run to continue. Nothing is created.

    Args:
        config: The requested configuration.
        specs: Its trials.
        out: The folder.
        stored: The run to continue, as :func:`stored_run` opened it; None for a new one.

    Returns:
        The absolute folder.

    Raises:
        RunFolderError: If the folder cannot be used.
        ConfigError: If a resumed run was made with another configuration.
    """
    if stored is None:
        return free_folder(out)
    before = with_absolute_paths(config_from_dict(stored.config, address(config_file(out))))
    if config_to_dict(before) != config_to_dict(config):
        raise ConfigError("--resume", _differences(before, config), f"the configuration in {address(config_file(out))}")
    missing = sorted(dotted(config_to_dict(before)).keys() - dotted(stored.config).keys() - _AS_BEFORE)
    if missing and unfinished(specs, stored):
        # The defaults of missing keys may have changed; the search would continue by other rules.
        raise RunFolderError(
            "--resume with --out",
            f"{address(out)}, a run of an earlier version (no {', '.join(missing[:3])} in its config.yaml)",
            "a run of this version; the version that began a run can continue it",
        )
    for spec in specs:
        overrides = stored.status.get(spec.name, {}).get("overrides")
        if overrides is not None and _canonical(overrides) != _canonical(dict(spec.overrides)):
            # The snapshots of a trial must all have the same setting.
            raise RunFolderError(
                "--resume with --out", address(out), f"the command that made it, search or sweep ({spec.name} differs)"
            )
    return out.resolve()


def check_images(run: Place, now: ImagesRecord | None, remedy: str) -> None:
    """Check that images are those that a run was made with; a run of a version without a record takes any.

    Args:
        run: The run folder.
        now: The images that were found now.
        remedy: What the user can do, for the error message.

    Raises:
        DataError: If they changed: the run would be split otherwise, and learn from images that it is measured with.
        RunFolderError: If the record of the run cannot be read.
    """
    before = read_images(run)
    words = "" if before is None or now is None else changes(before, now)
    if words:
        raise DataError(
            "images", Words(f"changed ones ({words})"), f"those that {address(run)} was made with; {remedy}"
        )


@contextlib.contextmanager
def run_folder(config: RunConfig, folder: Place, resume: bool, images: ImagesRecord | None = None) -> Iterator[None]:
    """Create the run folder and hold it against other commands; remove it if an error occurs before the first trial.

    Otherwise the corrected command would find the folder in use by an empty run.

    Args:
        config: The run.
        folder: As :func:`check_out` returned it.
        resume: Whether the folder exists already, and is held. It is then not changed.
        images: The record of the images, for a new folder.
    """
    if resume:
        yield
        return
    with made_for_writing(folder):
        create_run(folder, config_to_dict(config), __version__, images)
        try:
            yield
        except (DnadRayError, OSError):
            if not trials_folder(folder).exists():
                remove_folder(folder)
            raise


@contextlib.contextmanager
def made_for_writing(folder: Place) -> Iterator[None]:
    """Make a folder for results, if it is not there, and hold it against other commands.

    Raises:
        RunFolderError: If it cannot be made or written, or another command writes to it.
    """
    try:
        if isinstance(folder, Path):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        allowed = f"a folder that can be made and written ({error.strerror})"
        raise RunFolderError("--out", address(folder), allowed) from error
    try:
        with writing_to(folder):
            yield
    finally:
        if isinstance(folder, Path):
            with contextlib.suppress(OSError):
                folder.rmdir()  # only an empty one: nothing was written


def conclude(
    specs: Sequence[TrialSpec],
    contents: RunContents,
    board: Board,
    budget: Budget | None = None,
    left_out: Collection[str] = (),
) -> str:
    """Gather the snapshots, and check in the run folder that all trials are finished.

    A spent budget is no failure, because the user asked for it.

    Args:
        specs: All trials of the run.
        contents: The run folder, read after the trials ended.
        board: Shows which trials ended early.
        budget: The budget of the command.
        left_out: Trials that were not started because of the budget.

    Returns:
        A sentence about the trials that the budget left, empty if there are none.

    Raises:
        IncompleteRunError: If trials are not finished for other reasons than the budget.
        NonFiniteLossError: If all trials are finished, but the loss of some diverged.
    """
    folder = contents.path
    clear_cache(folder)
    num_snapshots = write_parquet(folder, contents)
    status = {spec.name: contents.status.get(spec.name, {"state": TrialState.UNKNOWN}) for spec in specs}
    budget = budget or Budget()
    for name, entry in status.items():
        if entry["state"].is_finished and "reason" in entry:
            board.say(f"{name} {entry['state'].words}: {entry['reason']}; its snapshots stand")
    board.say(f"{num_snapshots} snapshots in {address(table_file(folder))}")
    open_trials = [spec.name for spec in unfinished(specs, contents)]
    cut = [
        n for n in open_trials if n in left_out or (budget.is_spent() and status[n]["state"] is not TrialState.FAILED)
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


def leave_results(contents: RunContents) -> tuple[pd.DataFrame, dict[str, Place]]:
    """Write front and report. Returns the front and the paths of the files by name."""
    from analysis import front_of, load_runs, to_records, write_report

    folder, frame = contents.path, load_runs(contents)
    front = front_of(frame)
    # Only recorded columns and the error, and no path of this machine.
    write_json(front_file(folder), to_records(front[[*SNAPSHOT_COLUMNS, "error"]]))
    paths = {"run": folder, "snapshots": table_file(folder), "front": front_file(folder)}
    if len(frame):
        paths["report"] = write_report(contents, report_file(folder))
    return front, paths


def _canonical(data: object) -> str:
    return json.dumps(data, sort_keys=True)


def _differences(stored: RunConfig, asked: RunConfig) -> str:
    ours, theirs = dotted(config_to_dict(stored)), dotted(config_to_dict(asked))
    return ", ".join(f"{key} {theirs.get(key)!r}" for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
