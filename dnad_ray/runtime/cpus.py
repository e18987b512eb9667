"""The CPUs that this process may use, and the number of threads that it computes with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

__all__ = ["computing_with", "limit_threads", "quota_of", "usable_cpus"]

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Return how many CPUs this process may use: those of the machine, its affinity and its cgroups' quota, the least.

    ``os.cpu_count()`` counts the machine: in a container with a quota of 2 CPUs on 64, or in a batch job that is bound
    to some cores, a thread or trial per CPU would make all of them slower.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = quota_of(_OWN_CGROUPS, _CGROUPS)
    return count if quota is None else max(1, min(count, int(quota)))


def quota_of(own: Path, root: Path) -> float | None:
    """Return the CPUs that cgroups allow, or None for no quota.

    A quota of any group on the way to the root counts. Inside a container the path in ``own`` may be that of the host,
    so groups that are not there are passed over.

    Args:
        own: The file with the groups of a process, as ``/proc/self/cgroup``: a line ``ID:CONTROLLERS:PATH`` each.
        root: Where the groups are mounted, as ``/sys/fs/cgroup``.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:  # not on Linux
        return None
    quotas = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "cpu" if controllers else root  # version 1 has a mount for each controller, version 2 has one
        group = PurePosixPath(path.lstrip("/"))
        quotas += [_quota_in(mount / part) for part in (group, *group.parents)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_in(group: Path) -> float | None:
    """Return the quota of one group, in CPUs: microseconds of computing in each period of so many microseconds."""
    with contextlib.suppress(OSError, ValueError):
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = (
                (group / f"cpu.cfs_{name}_us").read_text().strip()  # -1: no quota
                for name in ("quota", "period")
            )
        if quota != "max" and float(quota) > 0 and float(period) > 0:
            return float(quota) / float(period)
    return None


def limit_threads() -> None:
    """Compute with at most as many threads as there are usable CPUs, unless ``OMP_NUM_THREADS`` says how many.

    Torch counts the CPUs of the affinity, but knows no quota.
    """
    most = usable_cpus()
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > most:
        torch.set_num_threads(most)


@contextlib.contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Compute with this number of threads in a block, as a trial of a sweep does."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
