"""A sweep: all trials of a run as Ray Tune actors (one of the two files that import ray)."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import torch
from ray import tune
from ray.exceptions import RayError
from ray.tune.error import TuneError

from dnad_ray.config import RunConfig
from dnad_ray.errors import IncompleteRunError, ResourceError, one_line
from dnad_ray.progress import Board
from dnad_ray.run import Prepared, estimate_in_words
from dnad_ray.store import read_status, write_bytes, write_status
from dnad_ray.trainable import tune_trial
from dnad_ray.trial import DONE, TrialSpec

__all__ = ["cluster", "run_sweep"]

_LEAST_FREE_BYTES = 200 * 2**20
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
    _check_storage(folder)
    parallel = _num_parallel(config, resources := _resources(config), len(todo))
    board.say(f"sweep: {estimate_in_words(todo[0], prepared, len(todo), parallel)}")
    trainable = tune.with_parameters(
        tune_trial,
        specs={spec.name: spec for spec in todo},
        data=prepared.data,
        teacher_file=prepared.teacher_file,
        folder=str(folder),
        num_threads=_num_threads(config),
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
    try:
        results = tuner.fit()
    except (TuneError, RayError) as error:
        raise IncompleteRunError(f"Ray ended the sweep: {one_line(error)}") from error
    for index in range(len(results)):
        _note_failure(folder, results[index])


@contextlib.contextmanager
def cluster(config: RunConfig, address: str | None) -> Iterator[None]:
    """Join or start Ray, and check that it can give what a trial needs.

    Inside it, this process computes with the threads of a trial: it trains the teacher and measures how long a
    step takes.

    Args:
        config: The run; its ``sweep`` section says what each trial gets.
        address: Cluster to join; None joins the one this process runs in, or starts one on this machine.

    Raises:
        ResourceError: If the cluster does not answer, or can never give that.
    """
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
        _knock(options["address"])
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ResourceError(
            "--address", options["address"], f"a Ray cluster that answers ({one_line(error)})"
        ) from error
    # Tune prints the traceback of every failure, also of those that it tries again; it keeps them in error.txt too.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Tune saves its state on SIGUSR1 but aborts on SIGTERM, which is what `ray job stop` and batch systems send.
    previous = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    threads = torch.get_num_threads()
    try:
        _check_resources(_resources(config))
        torch.set_num_threads(_num_threads(config))
        yield
    finally:
        torch.set_num_threads(threads)
        signal.signal(signal.SIGTERM, previous)
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise ``OSError`` where nobody listens; Ray itself would take minutes, and several lines, to say so."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal() and int(port) < 2**16:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _resources(config: RunConfig) -> dict[str, float]:
    gpus = config.sweep.gpus_per_trial
    if gpus is None:
        wants_none = config.train.device == "cpu" or not ray.cluster_resources().get("GPU", 0)
        gpus = 0.0 if wants_none else 1.0
    return {"cpu": config.sweep.cpus_per_trial, "gpu": gpus}


def _num_threads(config: RunConfig) -> int:
    return max(1, int(config.sweep.cpus_per_trial))


def _check_resources(resources: Mapping[str, float]) -> None:
    for name, available in (("cpu", "CPU"), ("gpu", "GPU")):
        # The largest node counts, not the sum: a trial lives on one node, and asking for more waits for ever.
        most = max(node["Resources"].get(available, 0.0) for node in ray.nodes() if node["Alive"])
        if resources[name] > most:
            raise ResourceError(
                f"sweep.{name}s_per_trial", resources[name], f"at most {most:g}, what the largest node has"
            )


def _check_storage(folder: Path) -> None:
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
            total = spec.config.train.epochs
            self._board.update(spec.name, total if result["at_end"] else result["epoch"], total, text)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with contextlib.suppress(Exception):
            self._ended.add(trial.config["trial"])
            self._board.update("sweep", len(self._ended), len(self._specs), "trials at their end")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with contextlib.suppress(Exception):
            self._board.say(f"{trial.config['trial']}: the worker failed; Ray tries again ({trial.path}/error.txt)")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with contextlib.suppress(Exception):
            self._board.say(f"{trial.config['trial']}: failed too often ({trial.path}/error.txt)")
