"""CPUs and GPUs of trials: pure functions of the configuration and the sizes of the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dnad_ray.config.run import RunConfig
from dnad_ray.errors import ConfigError, ResourceError

__all__ = ["Allotment", "Node", "allot", "check_parts", "check_requests", "idle_in_words"]

MOST_AUTOMATIC_CPUS = 9
"""Most CPUs that a process on a GPU gets by default: one, and one for each default worker that decodes images."""

_ROUNDING = 1e-6  # Ray counts in units of 1/10,000


class Node(NamedTuple):
    """What a machine of the cluster offers to Ray."""

    cpus: float
    gpus: float


@dataclass(frozen=True, kw_only=True)
class Allotment:
    """What each process of a trial gets.

    Attributes:
        processes: Processes of the trial. Several processes may be on several nodes.
        cpus: CPUs of each.
        gpus: GPUs of each: 0, a fraction of one, or 1.
    """

    processes: int
    cpus: float
    gpus: float

    @property
    def threads(self) -> int:
        """Number of threads of each process: its whole CPUs."""
        return max(1, int(self.cpus))

    def num_parallel(self, nodes: Sequence[Node]) -> int:
        """Return how many trials fit at the same time."""
        return _num_processes(nodes, self.cpus, self.gpus) // self.processes


def check_requests(config: RunConfig) -> None:
    """Check the requests of a configuration, as far as they do not depend on the machine.

    Raises:
        ConfigError: With the key, its value, and what is allowed.
    """
    sweep, processes, device = config.sweep, config.train.num_processes, config.train.device
    cpus, gpus = sweep.cpus_per_trial, sweep.gpus_per_trial
    if cpus is not None and cpus >= 1 and (cpus % 1 or cpus % processes):
        allowed = "a whole number, for a trial computes with whole threads"
        if processes > 1:
            allowed = f"a whole multiple of train.num_processes ({processes})"
        raise ConfigError("sweep.cpus_per_trial", cpus, allowed)
    if cpus is not None and cpus < 1 and (device == "cpu" or gpus == 0 or processes > 1):
        raise ConfigError(
            "sweep.cpus_per_trial",
            cpus,
            "at least 1 per process; two trials that compute on one CPU are slower than one",
        )
    if gpus is None:
        return
    if gpus and device == "cpu":
        raise ConfigError("sweep.gpus_per_trial", gpus, "0 or null with train.device 'cpu'")
    if not gpus and device == "cuda":
        raise ConfigError("sweep.gpus_per_trial", gpus, "above 0 or null with train.device 'cuda'")
    if processes > 1 and gpus not in (0, processes):
        raise ConfigError("sweep.gpus_per_trial", gpus, f"0, {processes} or null: one for each of train.num_processes")
    if processes == 1 and gpus > 1:
        allowed = "0 to 1: a process computes on one GPU; train.num_processes shares a search among several"
        raise ConfigError("sweep.gpus_per_trial", gpus, allowed)


def check_parts(config: RunConfig, num_images: int) -> None:
    """Check that there are enough images for the processes.

    Args:
        config: The run.
        num_images: Training images. If they are fewer than a batch, all of them are one batch.

    Raises:
        ConfigError: If a process would get fewer than 2 images of a batch.
    """
    processes = config.train.num_processes
    if processes > 1 and num_images < 2 * processes:
        raise ConfigError(
            "train.num_processes", processes, f"at most {num_images // 2} with {num_images} training images"
        )


def allot(config: RunConfig, nodes: Sequence[Node]) -> Allotment:
    """Return what each process of a trial gets; choose what the configuration leaves open.

    GPUs: one per process if the cluster has any. CPUs with a GPU: the process's share of its node's CPUs, for workers
    that decode images. CPUs without a GPU: 1, even if others stay idle, for two reasons. The number of threads changes
    the last bits of every result, so it must not depend on the machine; and a second thread does not make small
    networks faster. :func:`idle_in_words` returns a hint about idle CPUs.

    Args:
        config: The run.
        nodes: The machines of the cluster.

    Raises:
        ConfigError: If the request contradicts itself.
        ResourceError: If the cluster can never give it.

    >>> allot(RunConfig(), [Node(cpus=16, gpus=0)])
    Allotment(processes=1, cpus=1.0, gpus=0.0)
    >>> allot(RunConfig(), [Node(cpus=16, gpus=4)])
    Allotment(processes=1, cpus=4.0, gpus=1.0)
    """
    check_requests(config)
    sweep, processes = config.sweep, config.train.num_processes
    gpus, cpus = sweep.gpus_per_trial, sweep.cpus_per_trial
    if gpus is None:
        gpus = 0.0 if config.train.device == "cpu" or not any(node.gpus for node in nodes) else float(processes)
    gpus /= processes
    if cpus is not None:
        if cpus < 1 and not gpus:
            raise ResourceError("sweep.cpus_per_trial", cpus, "at least 1 on a cluster without GPUs")
        cpus /= processes
    else:
        cpus = _cpus_beside_gpu(nodes, gpus) if gpus else 1.0
    result = Allotment(processes=processes, cpus=cpus, gpus=gpus)
    _check_room(result, nodes)
    return result


def idle_in_words(config: RunConfig, allotment: Allotment, nodes: Sequence[Node], num_parallel: int) -> str | None:
    """Return a hint if half of the CPUs or more stay idle because ``sweep.cpus_per_trial`` is open.

    >>> config, nodes = RunConfig(), [Node(cpus=16, gpus=0)]
    >>> idle_in_words(config, allot(config, nodes), nodes, num_parallel=4)
    'sweep.cpus_per_trial=4 would use 16 of 16 CPUs, not 4, which may help with large images or networks'
    >>> idle_in_words(config, allot(config, nodes), nodes, num_parallel=16)
    """
    if config.sweep.cpus_per_trial is not None or allotment.gpus:
        return None
    processes = allotment.processes * num_parallel
    largest = int(max(node.cpus for node in nodes))
    most = max(each for each in range(1, 1 + largest) if _num_processes(nodes, each, 0) >= processes)
    if most == 1:
        return None
    total = sum(node.cpus for node in nodes)
    return (
        f"sweep.cpus_per_trial={most * allotment.processes} would use {most * processes} of {total:g} CPUs, "
        f"not {processes}, which may help with large images or networks"
    )


def _cpus_beside_gpu(nodes: Sequence[Node], gpus: float) -> float:
    """Return the smallest share of a node's CPUs that a process gets: a whole number, or a fraction of one."""
    share = min((node.cpus / node.gpus * gpus for node in nodes if node.gpus >= gpus), default=1.0)
    # With fewer CPUs than processes, one whole CPU for each would leave GPUs idle.
    return float(min(int(share + _ROUNDING), MOST_AUTOMATIC_CPUS)) if share >= 1 else max(int(share * 100) / 100, 0.01)


def _num_processes(nodes: Sequence[Node], cpus: float, gpus: float) -> int:
    """Return how many processes fit at the same time; a fraction of a GPU is never split over two."""
    total = 0
    for node in nodes:
        fits = [int(node.cpus / cpus + _ROUNDING)] if cpus else []
        if gpus:
            fits.append(int(node.gpus) * int(1 / gpus + _ROUNDING))
        total += min(fits)
    return total


def _check_room(allotment: Allotment, nodes: Sequence[Node]) -> None:
    processes = allotment.processes
    for name in ("cpus", "gpus"):
        # A process is on one node, and Ray would wait for ever for more than the largest node has.
        asked, most = getattr(allotment, name), max((getattr(node, name) for node in nodes), default=0.0)
        if asked > most + _ROUNDING:
            each = f" for each of {processes} processes" if processes > 1 else ""
            raise ResourceError(
                f"sweep.{name}_per_trial", asked * processes, f"at most {most:g}{each}, what the largest node has"
            )
    places = _num_processes(nodes, allotment.cpus, allotment.gpus)
    if places < processes:
        what = f"{allotment.cpus:g} CPUs" + (f" and {allotment.gpus:g} GPUs" if allotment.gpus else "")
        if processes == 1:
            raise ResourceError("sweep.gpus_per_trial", allotment.gpus, f"a node that has {what}")
        raise ResourceError(
            "train.num_processes", processes, f"at most {places}: processes of {what} for which the cluster has room"
        )
