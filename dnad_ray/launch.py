"""A sweep: all trials of a run as Ray Tune actors (one of the two files that import ray)."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray import tune

from dnad_ray.config import RunConfig
from dnad_ray.errors import ResourceError
from dnad_ray.progress import Board
from dnad_ray.run import Prepared, estimate_in_words
from dnad_ray.store import read_status, write_bytes, write_status
from dnad_ray.trainable import tune_trial
from dnad_ray.trial import DONE, TrialSpec

__all__ = ["run_sweep"]

_LEAST_FREE_BYTES = 200 * 2**20
_MAX_FAILURES = 2


def run_sweep(
    config: RunConfig,
    specs: Sequence[TrialSpec],
    prepared: Prepared,
    folder: Path,
    *,
    address: str | None,
    board: Board,
) -> None:
    """Run or continue the trials that are not at their end.

    That ``fit`` returns is no success: ask :func:`dnad_ray.run.conclude`.

    Args:
        config: The run; its ``sweep`` section says what each trial gets.
        specs: All trials.
        prepared: What they share; goes into the object store once.
        folder: The run folder, on storage that every node sees.
        address: Cluster to join; None joins the one this process runs in, or starts one on this machine.
        board: Where to show progress.

    Raises:
        ResourceError: If the cluster or the disk can never give what a trial needs.
    """
    todo = [spec for spec in specs if read_status(folder, spec.name)["state"] not in DONE]
    if not todo:
        board.say("nothing left to do: all trials are at their end")
        return
    with _ray(address):
        resources = _resources(config)
        _preflight(resources, folder)
        parallel = _num_parallel(config, resources, len(todo))
        board.say(f"sweep: {estimate_in_words(todo[0], prepared, len(todo), parallel)}")
        trainable = tune.with_parameters(
            tune_trial,
            specs={spec.name: spec for spec in todo},
            data=prepared.data,
            teacher_file=prepared.teacher_file,
            folder=str(folder),
            num_threads=max(1, int(config.sweep.cpus_per_trial)),
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
                callbacks=[_Watcher(todo, board)],
                verbose=0,
            ),
        )
        results = tuner.fit()
        for index in range(len(results)):
            _note_failure(folder, results[index])


@contextlib.contextmanager
def _ray(address: str | None) -> Iterator[None]:
    # Tune's own files beside ours (CSV, TensorBoard) would only cost time; trials write to absolute paths.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None and "RAY_ADDRESS" not in os.environ:
        options: dict[str, Any] = {"address": "local", "include_dashboard": False}
    else:
        options = {"address": address or os.environ["RAY_ADDRESS"]}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ResourceError(
            "--address", options["address"], f"a Ray cluster that answers ({str(error).splitlines()[0]})"
        ) from error
    # Tune saves its state on SIGUSR1 but aborts on SIGTERM, which is what `ray job stop` and batch systems send.
    previous = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        ray.shutdown()


def _resources(config: RunConfig) -> dict[str, float]:
    gpus = config.sweep.gpus_per_trial
    if gpus is None:
        wants_none = config.train.device == "cpu" or not ray.cluster_resources().get("GPU", 0)
        gpus = 0.0 if wants_none else 1.0
    return {"cpu": config.sweep.cpus_per_trial, "gpu": gpus}


def _preflight(resources: Mapping[str, float], folder: Path) -> None:
    for name, available in (("cpu", "CPU"), ("gpu", "GPU")):
        # The largest node counts, not the sum: a trial lives on one node, and asking for more waits for ever.
        most = max(node["Resources"].get(available, 0.0) for node in ray.nodes() if node["Alive"])
        if resources[name] > most:
            raise ResourceError(
                f"sweep.{name}s_per_trial", resources[name], f"at most {most:g}, what the largest node has"
            )
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE_BYTES:
        raise ResourceError(
            f"free space at {folder}", f"{free / 2**20:.0f} MiB", f"{_LEAST_FREE_BYTES / 2**20:.0f} MiB"
        )
    marker = folder / f".visible-{uuid4().hex}"
    write_bytes(marker, b"")
    try:
        blind = _blind_nodes(marker)
    finally:
        marker.unlink()
    if blind:
        raise ResourceError("--out", str(folder), f"storage that every node sees; {', '.join(blind)} does not")


def _blind_nodes(marker: Path) -> list[str]:
    """Return the addresses of the nodes that do not see a file."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    sees = ray.remote(num_cpus=0)(os.path.exists)
    answers = [sees.options(label_selector={"ray.io/node-id": node["NodeID"]}).remote(str(marker)) for node in others]
    return [node["NodeManagerAddress"] for node, seen in zip(others, ray.get(answers), strict=True) if not seen]


def _num_parallel(config: RunConfig, resources: Mapping[str, float], num_trials: int) -> int:
    cluster = ray.cluster_resources()
    fit = [int(cluster.get(name.upper(), 0.0) / amount) for name, amount in resources.items() if amount]
    return max(1, min([num_trials, config.sweep.max_concurrent or num_trials, *fit]))


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial"])


def _note_failure(folder: Path, result: Any) -> None:
    """Write down why a trial failed that Ray gave up on; the trial itself could not."""
    if result.error is not None:
        name = result.config["trial"]
        reason = str(result.error).strip().splitlines()[-1]
        details = {key: value for key, value in read_status(folder, name).items() if key not in ("state", "reason")}
        write_status(folder, name, "failed", reason=reason, **details)


class _Watcher(tune.Callback):
    """Shows what trials report; whatever goes wrong in showing must not end the experiment."""

    def __init__(self, specs: Sequence[TrialSpec], board: Board) -> None:
        self._specs, self._board = {spec.name: spec for spec in specs}, board
        self._errors: dict[str, float] = {}
        self._ended: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks to restore an experiment; we never restore one, and a terminal cannot be pickled.
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        with contextlib.suppress(Exception):
            spec = self._specs[trial.config["trial"]]
            if "error" in result:
                self._errors[spec.name] = result["error"]
            text = f"{spec.label}: {result['num_operations']} operations"
            if spec.name in self._errors:
                text += f", proxy error {self._errors[spec.name]:.2%}"
            ended = result.get("kind") == "final"
            self._board.update(
                spec.name, spec.config.train.epochs if ended else result["epoch"], spec.config.train.epochs, text
            )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with contextlib.suppress(Exception):
            self._ended.add(trial.config["trial"])
            self._board.update("sweep", len(self._ended), len(self._specs), "trials at their end")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with contextlib.suppress(Exception):
            self._board.say(f"{trial.config['trial']}: the worker failed; Ray tries again where it may")
