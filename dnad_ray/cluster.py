"""The Ray cluster of a sweep: joining or starting it, and what it must be able to give (may import ray)."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import torch

from dnad_ray.config import RunConfig
from dnad_ray.errors import ResourceError, one_line
from dnad_ray.store import write_bytes
from dnad_ray.usage import no_usage_statistics

__all__ = ["check_storage", "cluster", "num_parallel", "resources_of", "threads_of"]

_LEAST_FREE_BYTES = 200 * 2**20


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
    no_usage_statistics()
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
        _check_resources(resources_of(config))
        torch.set_num_threads(threads_of(config))
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


def resources_of(config: RunConfig) -> dict[str, float]:
    """Return the CPUs and GPUs of a trial; needs a running Ray."""
    gpus = config.sweep.gpus_per_trial
    if gpus is None:
        wants_none = config.train.device == "cpu" or not ray.cluster_resources().get("GPU", 0)
        gpus = 0.0 if wants_none else 1.0
    return {"cpu": config.sweep.cpus_per_trial, "gpu": gpus}


def threads_of(config: RunConfig) -> int:
    """Return how many threads a trial computes with."""
    return max(1, int(config.sweep.cpus_per_trial))


def _check_resources(resources: Mapping[str, float]) -> None:
    for name, available in (("cpu", "CPU"), ("gpu", "GPU")):
        # The largest node counts, not the sum: a trial lives on one node, and asking for more waits for ever.
        most = max(node["Resources"].get(available, 0.0) for node in ray.nodes() if node["Alive"])
        if resources[name] > most:
            raise ResourceError(
                f"sweep.{name}s_per_trial", resources[name], f"at most {most:g}, what the largest node has"
            )


def check_storage(folder: Path) -> None:
    """Check that the run folder has room, and that every node sees it.

    Raises:
        ResourceError: If there is no space on the disk, or a node does not see the folder.
    """
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


def num_parallel(config: RunConfig, resources: Mapping[str, float], num_trials: int) -> int:
    """Return how many trials run at once."""
    cluster = ray.cluster_resources()
    fit = [int(cluster.get(name.upper(), 0.0) / amount) for name, amount in resources.items() if amount]
    return max(1, min([num_trials, config.sweep.max_concurrent or num_trials, *fit]))
