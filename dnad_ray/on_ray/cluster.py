"""The Ray cluster of a sweep: joining or starting it, and what it must be able to give (may import ray)."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import torch

from dnad_ray.config.run import RunConfig
from dnad_ray.errors import ResourceError, UserError, one_line
from dnad_ray.on_ray.ray_token import keep_session_private, keep_token_private
from dnad_ray.on_ray.resources import Allotment, Node, allot
from dnad_ray.storage.files import write_bytes
from dnad_ray.storage.places import Place, address, place, reached
from dnad_ray.telemetry import no_usage_statistics

__all__ = ["allotment_of", "check_space", "check_storage", "cluster", "nodes", "num_parallel"]

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
        ResourceError: If the cluster does not answer, or can never give a trial what it needs.
    """
    # Tune's own files beside ours (CSV, TensorBoard) would only cost time; trials write to absolute paths.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    no_usage_statistics()
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it would end trials in the middle of a step
    if address is None and "RAY_ADDRESS" not in os.environ:
        options: dict[str, Any] = {"address": "local", "include_dashboard": False}
        keep_token_private()
    else:
        options = {"address": address or os.environ["RAY_ADDRESS"]}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _knock(options["address"])
        context: Any = ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises a bare one where its processes start too slowly
        if options["address"] == "local":
            allowed = (
                "a start in time: call again when the machine is less busy; `dnad-ray search` and `retrain --no-ray` "
                "need no Ray"
            )
            raise ResourceError("Ray on this machine", one_line(error), allowed) from error
        raise ResourceError(
            "--address", options["address"], f"a Ray cluster that answers ({one_line(error)})"
        ) from error
    if options["address"] == "local":
        keep_session_private(context.address_info)
    if threading.current_thread() is threading.main_thread():  # only there may Python handle signals
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler would end this process at once
    # Tune prints the traceback of every failure, also of those that it tries again; it keeps them in error.txt too.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(allotment_of(config).threads)
        yield
    finally:
        torch.set_num_threads(threads)
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise ``OSError`` if nothing listens at ``address``; Ray itself would report this only after minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal() and int(port) < 2**16:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def allotment_of(config: RunConfig) -> Allotment:
    """Return what each process of a trial gets; needs a running Ray.

    Raises:
        ConfigError: If the request contradicts itself.
        ResourceError: If the cluster can never give it.
    """
    return allot(config, nodes())


def num_parallel(config: RunConfig, allotment: Allotment, num_trials: int) -> int:
    """Return how many trials run at once."""
    return max(1, min(num_trials, config.sweep.max_concurrent or num_trials, allotment.num_parallel(nodes())))


def nodes() -> list[Node]:
    """Return what the machines of the cluster offer."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(cpus=entry.get("CPU", 0.0), gpus=entry.get("GPU", 0.0)) for entry in found]


def check_storage(folder: Place) -> None:
    """Check that the run folder has room where it is on a disk, and that every node sees it.

    A URL need not be a disk that nodes share, but each of them must be able to open it.

    Raises:
        ResourceError: If there is no space on the disk, or a node does not see the folder.
    """
    check_space(folder, _LEAST_FREE_BYTES)
    marker = folder / f".visible-{uuid4().hex}"
    write_bytes(marker, b"")
    try:
        blind = _blind_nodes(marker)
    finally:
        marker.unlink()
    if blind:
        raise ResourceError("--out", address(folder), f"storage that every node sees; {', '.join(blind)} does not")


def check_space(folder: Place, least_bytes: int) -> None:
    """Raise :class:`ResourceError` where a folder is on a disk with less room than that."""
    free = shutil.disk_usage(folder).free if isinstance(folder, Path) else least_bytes
    if free < least_bytes:
        raise ResourceError(
            f"free space at {address(folder)}", f"{free / 2**20:.0f} MiB", f"{least_bytes / 2**20:.0f} MiB"
        )


def _blind_nodes(marker: Place) -> list[str]:
    """Return the addresses of the nodes that do not see a file."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    sees = ray.remote(num_cpus=0)(_sees)
    answers = [
        sees.options(label_selector={"ray.io/node-id": node["NodeID"]}).remote(address(marker)) for node in others
    ]
    return [node["NodeManagerAddress"] for node, seen in zip(others, ray.get(answers), strict=True) if not seen]


def _sees(marker: str) -> bool:
    try:
        return reached(place(marker))
    except UserError:  # on that node, the protocol's package or the key may be missing
        return False
