"""A sweep: all trials of a run as Ray Tune actors (may import ray)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.error import TuneError

from dnad_ray.cluster import check_storage, num_parallel, resources_of, threads_of
from dnad_ray.config import RunConfig
from dnad_ray.errors import IncompleteRunError, one_line
from dnad_ray.progress import Board
from dnad_ray.run import Prepared, estimate_in_words
from dnad_ray.store import read_status, write_status
from dnad_ray.trainable import tune_trial
from dnad_ray.trial import DONE, TrialSpec
from dnad_ray.watch import Watcher

__all__ = ["run_sweep"]

_MAX_FAILURES = 2


def run_sweep(config: RunConfig, specs: Sequence[TrialSpec], prepared: Prepared, folder: Path, board: Board) -> None:
    """Run or continue the trials that are not at their end, inside :func:`cluster`.

    That ``fit`` returns is no success: ask :func:`dnad_ray.run.conclude`.

    Args:
        config: The run; its ``sweep`` section says what each trial gets.
        specs: All trials.
        prepared: What they share; goes into the object store once.
        folder: The run folder, on storage that every node sees.
        board: Where to show progress.

    Raises:
        ResourceError: If there is no space on the disk, or a node does not see the folder.
        IncompleteRunError: If Ray gave up.
    """
    todo = [spec for spec in specs if read_status(folder, spec.name)["state"] not in DONE]
    check_storage(folder)
    resources = resources_of(config)
    parallel = num_parallel(config, resources, len(todo))
    board.say(f"sweep: {estimate_in_words(todo[0], prepared, len(todo), parallel)}")
    trainable = tune.with_parameters(
        tune_trial,
        specs={spec.name: spec for spec in todo},
        data=prepared.data,
        teacher_file=prepared.teacher_file,
        folder=str(folder),
        num_threads=threads_of(config),
    )
    attempt = 1 + len(list((folder / "ray").glob("attempt-*")))
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space={"trial": tune.grid_search([spec.name for spec in todo])},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=parallel,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            # A new experiment each time: nothing of Tune's own state is ever unpickled to resume.
            storage_path=str(folder / "ray"),
            name=f"attempt-{attempt}",
            failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
            callbacks=[Watcher(folder, board)],
            verbose=0,
        ),
    )
    try:
        results = tuner.fit()
    except (TuneError, RayError) as error:
        raise IncompleteRunError(f"Ray ended the sweep: {one_line(error)}") from error
    for index in range(len(results)):
        _note_failure(folder, results[index])


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial"])


def _note_failure(folder: Path, result: Any) -> None:
    """Write down why a trial failed that Ray gave up on; the trial itself could not."""
    if result.error is not None:
        name = result.config["trial"]
        reason = str(result.error).strip().splitlines()[-1]
        details = {key: value for key, value in read_status(folder, name).items() if key not in ("state", "reason")}
        write_status(folder, name, "failed", reason=reason, **details)
