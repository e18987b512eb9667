"""Comparison of trials at equal MACs while they shrink: a trial that is worse throughout is dominated.

A supernet learns and shrinks at once, so its first networks are bad and large. Against the front of finished trials
every young trial would look beaten; the fair question is how good the others were *when they had its MACs*. Resource
aware stopping rules compare trials at equal epochs in the same spirit (median rule: Golovin et al., "Google Vizier",
2017, section 3.2.2); the axis here is MACs, along which every trial of a sweep moves from the dense supernet down.

The rule, for a trial with snapshots of error ``e`` and MACs ``m``:

1. The rival error ``r`` at ``m`` is the lowest error that another trial had at those MACs, read pessimistically: the
   worse of the two snapshots between which ``m`` lies.
2. A snapshot larger than all that others recorded says nothing and is passed over. A trial that anywhere is smaller
   than all that others recorded, or not worse than the rival error, leads there and goes on.
3. The standard deviation of ``e - r`` by chance is ``sqrt((1 / n + dispersion) * (v(e) + v(r)))`` with ``v(p) =
   p (1 - p)``: the binomial variance of two shares of ``n`` validation images, plus what seeds add. ``dispersion``
   is the mean of ``(e - e')^2 / (v(e) + v(e'))`` over trials of one setting with different seeds, again at equal MACs:
   the extra factor of an overdispersed binomial (McCullagh & Nelder, "Generalized Linear Models", 1989, section 4.5).
   Where no setting has two seeds it is 0. Shares are shrunk as in Agresti & Coull 1998 (two successes and two failures
   more), so that an error of 0 is not taken for certainty.
4. A trial is dominated if it is worse at every snapshot that can be compared, at no fewer than ``patience`` of them,
   and if its mean distance ``(e - r) / deviation`` is above ``factor``. A trial's luck stays with it from snapshot to
   snapshot, so the mean of many is taken to be as uncertain as one: no square root of their number.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Point", "Trajectories", "Verdict", "deviation_of", "error_at", "lowest_errors"]

Point = tuple[int, float]
"""MACs and error of a snapshot."""


@dataclass(frozen=True)
class Verdict:
    """The result for a dominated trial.

    Attributes:
        num_compared: Snapshots that could be compared at equal MACs; all of them were worse.
        distance: How much worse they are on average, in standard deviations of chance.
        error: Error of the newest of them.
        rival_error: The lowest error that another trial had at the same MACs.
        macs: Those MACs.
    """

    num_compared: int
    distance: float
    error: float
    rival_error: float
    macs: int

    def __str__(self) -> str:
        return (
            f"worse at all {self.num_compared} snapshots that others had an equal of, by {self.distance:.1f} standard "
            f"deviations; at last {self.error:.2%} errors where others had {self.rival_error:.2%} at {self.macs:,} MACs"
        )


def error_at(points: Sequence[Point], macs: int) -> float | None:
    """Return the error of a trajectory at given MACs, read pessimistically between its snapshots.

    Args:
        points: Snapshots in order of MACs, smallest first.
        macs: Where to read.

    Returns:
        The worse error of the two neighbours, None outside the trajectory.

    >>> line = [(100, 0.2), (200, 0.1), (300, 0.3)]
    >>> [error_at(line, macs) for macs in (99, 100, 150, 200, 250, 301)]
    [None, 0.2, 0.2, 0.1, 0.3, None]
    """
    at = bisect.bisect_left(points, (macs, -math.inf))
    if at < len(points) and points[at][0] == macs:
        return max(error for size, error in points[at:] if size == macs)
    if at in (0, len(points)):
        return None
    return max(points[at - 1][1], points[at][1])


def deviation_of(error: float, rival_error: float, num_images: int, dispersion: float) -> float:
    """Return the standard deviation of the difference of two errors by chance; rule 3 of this module.

    >>> round(deviation_of(0.5, 0.5, 96, 0.0), 4)  # sqrt((0.25 + 0.25) / 96)
    0.0722
    >>> round(deviation_of(0.5, 0.5, 96, 1 / 96), 4)  # seeds as noisy as images: sqrt(2) times that
    0.1021
    """
    return math.sqrt((1 / num_images + dispersion) * _variance(error, rival_error, num_images))


def lowest_errors(points: Iterable[Point], levels: Sequence[float]) -> list[float]:
    """Return the lowest error within each level of MACs; 1 if no snapshot is that small.

    >>> lowest_errors([(300, 0.1), (200, 0.2), (100, 0.15)], [50, 100, 250, 1000])
    [1.0, 0.15, 0.15, 0.1]
    """
    known = list(points)
    return [min((error for macs, error in known if macs <= level), default=1.0) for level in levels]


@dataclass
class Trajectories:
    """The snapshots of all trials of a sweep, in the memory of the driver.

    Attributes:
        num_images: Validation images that an error is a share of.
        factor: Mean distance in standard deviations that counts as noise.
        patience: Fewest snapshots to be compared before a trial can be dominated.
    """

    num_images: int
    factor: float = 3.0
    patience: int = 2
    _points: dict[str, list[Point]] = field(default_factory=dict)
    _steps: dict[str, set[int]] = field(default_factory=dict)
    _settings: dict[str, str] = field(default_factory=dict)
    _spreads: dict[str, tuple[float, int]] = field(default_factory=dict)  # of the settings not in _changed
    _changed: set[str] = field(default_factory=set)

    def add(self, trial: str, setting: str, step: int, macs: int, error: float) -> None:
        """Add a snapshot; a known one, as after a replay, changes nothing.

        Args:
            trial: Name of the trial.
            setting: Setting of the trial: equal for trials that differ only in their seed.
            step: Step of the snapshot.
            macs: Its MACs.
            error: Its error.
        """
        if step in self._steps.setdefault(trial, set()):
            return
        self._steps[trial].add(step)
        self._settings[trial] = setting
        bisect.insort(self._points.setdefault(trial, []), (macs, error))
        self._changed.add(setting)

    def take(self, trial: str, setting: str, report: Mapping[str, Any]) -> None:
        """Add the snapshots that a trial reported: their steps, MACs and errors, if there are ``points``."""
        for step, macs, error in report.get("points", ()):
            self.add(trial, setting, step, macs, error)

    def of(self, trial: str) -> tuple[Point, ...]:
        """Return the snapshots of a trial, smallest MACs first."""
        return tuple(self._points.get(trial, ()))

    @property
    def dispersion(self) -> float:
        """What seeds add to the binomial variance of an error; 0 where no setting has two seeds at equal MACs."""
        for setting in self._changed:
            self._spreads[setting] = self._spread(setting)
        self._changed.clear()
        count = sum(number for _, number in self._spreads.values())
        return sum(total for total, _ in self._spreads.values()) / count if count else 0.0

    def verdict(self, trial: str) -> Verdict | None:
        """Return why a trial is dominated all along its trajectory, None if it is not."""
        others = [points for name, points in self._points.items() if name != trial]
        if not others:
            return None
        smallest, dispersion = min(points[0][0] for points in others), self.dispersion
        distances: list[float] = []
        newest: tuple[float, float, int] | None = None
        # The newest is the smallest, and most trials that go on do so because of it: no need to look at the others.
        for macs, error in self._points.get(trial, []):
            rivals = [found for points in others if (found := error_at(points, macs)) is not None]
            if not rivals:
                if macs < smallest:
                    return None
                continue
            rival = min(rivals)
            if error <= rival:
                return None
            newest = newest or (error, rival, macs)
            distances.append((error - rival) / deviation_of(error, rival, self.num_images, dispersion))
        if newest is None or len(distances) < self.patience:
            return None
        distance = sum(distances) / len(distances)
        return Verdict(len(distances), distance, *newest) if distance > self.factor else None

    def _spread(self, setting: str) -> tuple[float, int]:
        """Return the sum and the number of the squared differences among the seeds of a setting, in binomial units."""
        seeds = [self._points[trial] for trial, known in self._settings.items() if known == setting]
        total, count = 0.0, 0
        for mine in seeds:
            for other in seeds:
                for macs, error in mine if mine is not other else ():
                    twin = error_at(other, macs)
                    if twin is not None:
                        total += (error - twin) ** 2 / _variance(error, twin, self.num_images)
                        count += 1
        return total, count


def _variance(error: float, other: float, num_images: int) -> float:
    """Return the sum of the variances of two answers to one image; never 0."""
    shares = [(share * num_images + 2) / (num_images + 4) for share in (error, other)]
    return sum(share * (1 - share) for share in shares)
