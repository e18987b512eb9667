"""The Ray cluster of a sweep: joining or starting it, and what it must be able to give (may import ray)."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayError

from dnad_ray.config.run import RunConfig
from dnad_ray.errors import IncompleteRunError, RayStartError, ResourceError, UserError, one_line
from dnad_ray.on_ray.ray_token import keep_session_private, keep_token_private
from dnad_ray.on_ray.resources import Allotment, Node, allot
from dnad_ray.runtime.cpus import computing_with, usable_cpus
from dnad_ray.runtime.memory import address_space_limit
from dnad_ray.storage.files import write_bytes
from dnad_ray.storage.places import Place, address, place, reached
from dnad_ray.telemetry import no_usage_statistics

__all__ = ["allotment_of", "check_space", "check_storage", "cluster", "nodes", "num_parallel", "ray_errors"]

_LEAST_FREE_BYTES = 200 * 2**20

_PATIENCE = {
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "300",
}
"""How long Ray's processes wait for each other to start; its own limits of 15 to 60 s are too short on a busy machine.
"""

_NICENESS = {"RAY_worker_niceness": "0"}
"""Trials run with the priority of the command, as they do without Ray. Ray's own 15 leaves them a thirtieth of a CPU
beside anything else that runs on the machine; who wants that calls the command with ``nice``.
"""

_TRIES = 3
"""Starts of Ray on this machine: 30 s for the node to be known is a limit that cannot be set."""

_PAUSE_SECONDS = 2.0

_STORE_SHARE = 0.3
"""Share of the machine's memory that Ray's object store maps in each process, by default."""

_MAPPED_BYTES = 8 * 2**30
"""What a worker with torch maps beside it; most of it is never used."""

_is_starting = False


@contextlib.contextmanager
def cluster(config: RunConfig, address: str | None) -> Iterator[None]:
    """Join or start Ray, and check that it can give what a trial needs.

    Inside it, this process computes with the threads of a trial: it trains the teacher and measures how long a
    step takes.

    Args:
        config: The run; its ``sweep`` section says what each trial gets.
        address: Cluster to join; None joins the one this process runs in, or starts one on this machine.

    Raises:
        RayStartError: If Ray does not start on this machine.
        ResourceError: If the cluster does not answer, or can never give a trial what it needs.
    """
    # Tune's own files beside ours (CSV, TensorBoard) would only cost time; trials write to absolute paths.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    no_usage_statistics()
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it would end trials in the middle of a step
    address = address or os.environ.get("RAY_ADDRESS") or None  # an empty variable is none
    with _own_sigterm():
        if address is None:
            _start()
        else:
            _join(address)
    # Tune prints the traceback of every failure, also of those that it tries again; it keeps them in error.txt too.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        with computing_with(allotment_of(config).threads):
            yield
    finally:
        with _own_sigterm():
            ray.shutdown()


@contextlib.contextmanager
def ray_errors(what: str) -> Iterator[None]:
    """Turn errors of Ray within a block into one of ours: a process that died, or that its memory monitor ended.

    Args:
        what: What Ray ended then, for the message.

    Raises:
        IncompleteRunError: If there was one; a second call continues.
    """
    try:
        yield
    except RayError as error:
        raise IncompleteRunError(f"Ray ended {what}: {one_line(error)}") from error


def _start() -> None:
    """Start Ray on this machine, with the CPUs that this process may use.

    Raises:
        RayStartError: If it does not start.
    """
    _check_address_space()
    for name, value in (_PATIENCE | _NICENESS).items():
        os.environ.setdefault(name, value)
    keep_token_private()
    for number in range(1, _TRIES + 1):
        try:
            with _groups_of_their_own():
                context: Any = ray.init(
                    address="local",
                    num_cpus=usable_cpus(),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            keep_session_private(context.address_info)
            return
        except Exception as error:  # Ray raises a bare one where its processes start too slowly
            ray.shutdown()  # what did start
            if number == _TRIES:
                allowed = (
                    f"a start in time, tried {_TRIES} times: add --no-ray, which computes in this process with the "
                    "same results, or call again when the machine is less busy"
                )
                raise RayStartError("Ray on this machine", one_line(error), allowed) from error
            time.sleep(_PAUSE_SECONDS)


def _check_address_space() -> None:
    """Check that Ray's processes can map their memory; where they cannot, Ray waits for them without an end.

    Raises:
        RayStartError: If the limit of the address space is too low.
    """
    limit = address_space_limit()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = int(_STORE_SHARE * memory) + _MAPPED_BYTES
    if limit is not None and limit < needed:
        allowed = f"unlimited, or {needed / 2**30:.0f} GiB for Ray's processes; --no-ray starts none of them"
        raise RayStartError("limit of the address space (ulimit -v)", f"{limit / 2**30:.1f} GiB", allowed)


def _join(address: str) -> None:
    """Join a cluster.

    Raises:
        ResourceError: If it does not answer.
    """
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many kinds
        raise ResourceError("--address", address, f"a Ray cluster that answers ({one_line(error)})") from error


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Restore this process's handler of SIGTERM after a block: Ray's would end it at once, its shutdown has none."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # only there may Python handle signals
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _groups_of_their_own() -> Iterator[None]:
    """Let processes that begin in a block be in groups of their own.

    `timeout`, shells and batch systems send SIGTERM to the whole group of a command. Ray's processes must outlive it:
    through them the trials are asked to stop after their step, with a checkpoint.
    """
    global _is_starting  # noqa: PLW0603 - what is registered for forks stays registered
    _is_starting = True
    try:
        yield
    finally:
        _is_starting = False


def _after_fork() -> None:
    if _is_starting:
        os.setpgid(0, 0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
