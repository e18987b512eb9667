"""The global front of a running run. A new snapshot is compared with the front only, not with all snapshots."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, final

import moocore
import numpy as np

from dnad_ray.run_folder.records import Snapshot

__all__ = ["FrontPoint", "RunningFront"]


class FrontPoint(NamedTuple):
    """A snapshot on the front, as far as it is kept in memory; the rest is in the run folder."""

    error: float
    macs: int
    params: int
    num_operations: int
    trial: str
    step: int
    digest: str


@final
class RunningFront:
    """The snapshots that no other one offered so far beats in error, MACs and parameters.

    It agrees with :func:`analysis.front_of` on networks and values. A snapshot costs one comparison with each point of
    the front. Dominated snapshots are not kept, so memory grows with the front and not with the run.
    """

    def __init__(self) -> None:
        self._points: list[FrontPoint] = []
        self._values = np.empty((64, 3))
        self._worst = np.array([1.0, 0.0, 0.0])
        self._volume: float | None = 0.0
        self.count_of: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._points)

    def points(self) -> list[FrontPoint]:
        """Return the points from the cheapest to the costliest."""
        return sorted(self._points, key=lambda point: (point.macs, point.error, point.params, point.digest))

    def offer(self, snapshot: Snapshot) -> bool:
        """Compare a snapshot with the front; returns whether it is on it now.

        The same network with the same values is kept once, with its first origin.
        """
        size = len(self._points)
        value = np.array([1.0 - snapshot.proxy_accuracy, snapshot.macs, snapshot.params], dtype=float)
        if not np.isfinite(value).all():
            return False
        if (value > self._worst).any():
            self._worst, self._volume = np.maximum(self._worst, value), None
        rows = self._values[:size]
        no_worse, better = rows <= value, rows < value
        if (no_worse.all(axis=1) & better.any(axis=1)).any():
            return False
        is_equal = (rows == value).all(axis=1)
        if any(self._points[index].digest == snapshot.digest for index in np.flatnonzero(is_equal)):
            return False
        keeps = ~((rows >= value).all(axis=1) & ~is_equal)
        if not keeps.all():
            for index in np.flatnonzero(~keeps):
                self.count_of[self._points[index].trial] -= 1
            self._points = [point for point, kept in zip(self._points, keeps, strict=True) if kept]
            self._values[: len(self._points)] = rows[keeps]
        self._append(value, snapshot)
        return True

    def hypervolume(self) -> float:
        """Return the share of the box from zero to the worst values so far that the front dominates.

        The reference is that of :func:`analysis.reference_point`; it grows with the costs that were seen, so shares
        of two moments compare only once the densest networks have been recorded.
        """
        if self._volume is None:
            scaled = self._values[: len(self._points)] / self._worst
            self._volume = float(moocore.hypervolume(scaled, ref=np.ones(3))) if self._worst.all() else 0.0
        return self._volume

    def _append(self, value: np.ndarray[tuple[int], np.dtype[np.float64]], snapshot: Snapshot) -> None:
        size = len(self._points)
        if size == len(self._values):
            self._values = np.concatenate([self._values, np.empty_like(self._values)])
        self._values[size] = value
        self._points.append(
            FrontPoint(
                float(value[0]),
                snapshot.macs,
                snapshot.params,
                snapshot.num_operations,
                snapshot.trial,
                snapshot.step,
                snapshot.digest,
            )
        )
        self.count_of[snapshot.trial] += 1
        self._volume = None
