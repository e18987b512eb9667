"""Pareto fronts, hypervolume and knee. Directions are handled here; moocore does the mathematics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import moocore
import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.frame import setting_of
from analysis.objectives import OBJECTIVES, Objective, minimised, resolve
from analysis.trials import first_of, trials_of
from dnad_ray.errors import UserError

__all__ = [
    "OBJECTIVES",
    "Dominance",
    "front_of",
    "hypervolume",
    "hypervolume_share",
    "knee_of",
    "pareto_mask",
    "reference_point",
    "trial_hypervolumes",
]

Dominance: TypeAlias = Literal["pareto", "weak", "strict"]

_CHUNK_VALUES = 2**24  # numbers of one comparison of many points with a front: 128 MiB


def pareto_mask(
    points: npt.ArrayLike, maximise: bool | Sequence[bool] = False, dominance: Dominance = "pareto"
) -> npt.NDArray[np.bool_]:
    """Tell which points no other point dominates.

    A point dominates another if it is no worse in every objective and better in at least one. Equal points do not
    dominate each other: all copies of a front point are on the front. A row with NaN or an infinite number is never
    on the front and dominates nothing. Two other relations change who stays (Zitzler et al. 2003, table 1):
    under ``weak`` dominance (no worse in every objective) of equal points only the first stays; under ``strict``
    dominance (better in every objective) points stay that are tied with a better one in some objective.

    Args:
        points: Objective values, shape (n, m).
        maximise: Whether more is better, for all objectives or for each of the m.
        dominance: Which relation keeps a point off the front.

    Returns:
        Shape (n,), True for the points of the front.

    Raises:
        UserError: If ``points`` is not a table of numbers, ``maximise`` has another length than m, or ``dominance`` is
            unknown.

    Examples:
        >>> pareto_mask([[1, 4], [2, 2], [2, 2], [3, 3]])  # duplicates of a front point are all kept
        array([ True,  True,  True, False])
        >>> pareto_mask([[1, 4], [1, 5]])  # a tie in one objective: the other decides
        array([ True, False])
        >>> pareto_mask([[2], [1], [1]])  # one objective: every copy of the best
        array([False,  True,  True])
        >>> pareto_mask([[float("nan"), 0], [5, 5], [6, float("-inf")]])
        array([False,  True, False])
        >>> pareto_mask([[0.9, 4], [0.8, 2], [0.7, 3]], maximise=[True, False])
        array([ True,  True, False])
        >>> pareto_mask([])
        array([], dtype=bool)
        >>> pareto_mask([[1, 4], [2, 2], [2, 2], [2, 3]], dominance="weak")
        array([ True,  True, False, False])
        >>> pareto_mask([[1, 4], [2, 2], [2, 2], [2, 3], [3, 3]], dominance="strict")
        array([ True,  True,  True,  True, False])
    """
    if dominance not in ("pareto", "weak", "strict"):
        raise UserError("dominance", dominance, "pareto, weak or strict")
    table = _table(points)
    if not len(table):
        return np.zeros(0, dtype=bool)
    signs = _signs(maximise, table.shape[1])
    rows = np.flatnonzero(np.isfinite(table).all(axis=1))
    mask = np.zeros(len(table), dtype=bool)
    if len(rows):
        finite = table[rows] * signs
        mask[rows] = moocore.is_nondominated(finite, keep_weakly=dominance != "weak")
        if dominance == "strict":
            mask[rows] |= ~_beaten_everywhere(finite, np.unique(finite[mask[rows]], axis=0))
    return mask


def hypervolume(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Return the volume that the points dominate below a reference point; all objectives are minimised.

    Args:
        points: Objective values, shape (n, m). Rows that are not finite are ignored; a point that is not better
            than the reference in every objective contributes nothing.
        reference: The worst corner, shape (m,).

    Raises:
        UserError: If a shape does not fit or the reference is not finite.

    Examples:
        >>> hypervolume([[1, 2], [2, 1]], reference=[3, 3])  # two boxes of 2 that share 1
        3.0
        >>> hypervolume([[1, 2], [1, 2], [2, 2]], reference=[3, 3])  # copies and dominated points add nothing
        2.0
        >>> hypervolume([[3, 0], [float("nan"), 1], [4, 4]], reference=[3, 3])
        0.0
        >>> hypervolume([[2], [1]], reference=[3])
        2.0
        >>> hypervolume([], reference=[3, 3])
        0.0
    """
    table, corner = _table_and_corner(points, reference)
    return float(moocore.hypervolume(table, ref=corner)) if len(table) else 0.0


def hypervolume_share(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Return the hypervolume as a share of the box between zero, the ideal, and the reference point.

    A number below zero counts as zero, so the share is always in [0, 1]. A box without volume has the share 0.

    Args:
        points: Objective values to be minimised, shape (n, m).
        reference: The worst corner, shape (m,), no number below zero.

    Raises:
        UserError: As :func:`hypervolume`, and if the reference is below zero.

    Examples:
        >>> hypervolume_share([[0.5, 10], [0.25, 20]], reference=[1, 40])
        0.5
        >>> hypervolume_share([[0, 0]], reference=[1, 40])
        1.0
    """
    table, corner = _table_and_corner(points, reference)
    if (corner < 0).any():
        raise UserError("reference", corner.tolist(), "numbers of at least 0")
    if not corner.all():
        return 0.0
    # Error is near 1 and MACs near 1e8: on one common scale no product overflows or loses digits.
    return hypervolume(np.maximum(table, 0.0) / corner, np.ones_like(corner))


def front_of(
    frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES, dominance: Dominance = "pareto"
) -> pd.DataFrame:
    """Return the rows on the front, sorted by the second objective (by the first if there is one).

    Rows keep their index labels. An architecture that was found several times with equal values stands once, from
    where it took the least compute. Different architectures with equal values all stand.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them.
        objectives: Columns to weigh against each other; their directions are in
            :data:`dnad_ray.run_folder.metrics.METRICS`, or in the ``Metric`` that is given for it.
        dominance: As for :func:`pareto_mask`.

    Raises:
        UserError: If an objective is unknown or has no direction, holds text, or if proxy accuracy and that of
            retrained networks would meet in one front.
    """
    names = [entry.name for entry in resolve(frame, objectives)]
    rows = frame[pareto_mask(minimised(frame, objectives), dominance=dominance)]
    found = [name for name in ("device_seconds", "run", "trial", "step") if name in rows]
    rows = rows.sort_values(found, kind="stable").drop_duplicates([*(["digest"] if "digest" in rows else []), *names])
    order = [*names[1:2], names[0], *names[2:], *(["digest"] if "digest" in rows else [])]
    front: pd.DataFrame = rows.sort_values(order, kind="stable")
    return front


def knee_of(front: pd.DataFrame, objectives: Sequence[Objective] = ("error", "macs")) -> Any:
    """Find the network where the front bends most: beyond it, more of one objective buys little of the other.

    It is the point farthest on the better side of the line between the two ends of the front, after both objectives
    have been scaled to [0, 1] (Das 1999, normal-boundary intersection).

    Args:
        front: Rows of which those not dominated in ``objectives`` are considered.
        objectives: Two columns with a direction.

    Returns:
        Index label of the row, None where no point lies on the better side (always with fewer than three).

    Raises:
        UserError: If an objective is unknown or has no direction, or there are not two.

    Examples:
        >>> front = pd.DataFrame({"error": [0.5, 0.2, 0.1], "macs": [10, 20, 110]}, index=["a", "b", "c"])
        >>> knee_of(front)
        'b'
        >>> knee_of(front.drop("b")) is None
        True
    """
    names = [entry.name for entry in resolve(front, objectives)]
    if len(names) != 2:
        raise UserError("objectives", names, "two of them")
    values = minimised(front, objectives)
    rows = np.flatnonzero(pareto_mask(values))
    points = values[rows]
    if len(points) < 3 or (span := np.ptp(points, axis=0)).min() == 0:
        return None
    # The ends are (0, 1) and (1, 0), and the line between them is where the two add up to 1.
    gain = 1.0 - ((points - points.min(axis=0)) / span).sum(axis=1)
    best = int(np.argmax(gain))
    return front.index[rows[best]] if gain[best] > 1e-12 else None


def reference_point(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES) -> tuple[float, ...]:
    """Return the reference point of all hypervolumes of a frame.

    It is 1 (100 %) for an error, and for a cost the largest value in the frame: that of the densest network, which
    itself therefore contributes nothing. Hypervolumes compare only under one reference, so take it from all runs.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them.
        objectives: Columns that are minimised.

    Raises:
        UserError: If an objective is unknown or is not minimised, or there is no finite value to take.
    """
    corner = []
    for entry in resolve(frame, objectives):
        if not entry.minimise:
            raise UserError("objectives", entry.name, "objectives that are minimised; for accuracy take error")
        values = minimised(frame, [entry])
        values = values[np.isfinite(values)]
        if not len(values):
            raise UserError(f"frame[{entry.name!r}]", "no finite value", "at least one, for a reference point")
        corner.append(1.0 if entry.name in ("error", "test_error") else float(values.max()))
    return tuple(corner)


def trial_hypervolumes(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES) -> pd.DataFrame:
    """Return the hypervolume of each trial alone, under the reference point of the whole frame.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them.
        objectives: Columns that are minimised.

    Returns:
        One row per trial: run, trial, seed (missing for foreign points), ``setting`` (see
        :func:`analysis.frame.setting_of`), ``finished`` (it has a final snapshot, or is no search but foreign points)
        and ``hypervolume``, a share of the box between zero and the reference.

    Raises:
        UserError: If an objective is unknown or is not minimised.
    """
    rows = []
    settings = setting_of(frame)
    corner = reference_point(frame, objectives) if len(frame) else ()
    points = minimised(frame, objectives)
    kinds = frame["kind"] if "kind" in frame else pd.Series(None, frame.index, dtype=object)
    is_final, is_foreign = kinds.eq("final").to_numpy(dtype=bool), kinds.isna().to_numpy(dtype=bool)
    for (run, trial), places in trials_of(frame):
        rows.append(
            {
                "run": run,
                "trial": trial,
                "seed": first_of(frame, "seed", places),
                "setting": settings.iloc[places[0]],
                "finished": bool(is_final[places].any() or is_foreign[places].all()),
                "hypervolume": hypervolume_share(points[places], corner),
            }
        )
    table: pd.DataFrame = pd.DataFrame(rows, columns=["run", "trial", "seed", "setting", "finished", "hypervolume"])
    seeds = "Int64" if table["seed"].isna().any() else "int64"
    table = table.astype({"seed": seeds, "finished": bool, "hypervolume": float})  # also without a row
    table["setting"] = pd.Categorical(table["setting"], settings.cat.categories, ordered=True)
    return table


def _beaten_everywhere(points: npt.NDArray[np.float64], front: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Tell which points some point of the front is better than in every objective; both are minimised."""
    # Whoever beats a point everywhere is itself no better than a point of the front, which then does so too.
    beaten = np.zeros(len(points), dtype=bool)
    size = max(1, _CHUNK_VALUES // max(1, front.size))
    for start in range(0, len(points), size):
        part = points[start : start + size]
        is_better = np.all(front[None, :, :] < part[:, None, :], axis=2)
        beaten[start : start + size] = np.any(is_better, axis=1)
    return beaten


def _table(points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    try:
        table = np.array(points, dtype=float)
    except (TypeError, ValueError):
        raise UserError("points", points, "numbers in rows of one length") from None
    if table.ndim == 1 and table.size == 0:  # an empty list has no columns to speak of
        return table.reshape(0, 1)
    if table.ndim != 2 or table.shape[1] == 0:
        raise UserError("points", f"an array of shape {table.shape}", "shape (n, m) with at least one objective")
    return table


def _table_and_corner(
    points: npt.ArrayLike, reference: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    corner = np.array(reference, dtype=float)
    if corner.ndim != 1 or not corner.size or not np.isfinite(corner).all():
        raise UserError("reference", reference, "one finite number for each objective")
    table = _table(points)
    if not len(table):
        table = table.reshape(0, len(corner))
    if table.shape[1] != len(corner):
        raise UserError("reference", corner.tolist(), f"{table.shape[1]} numbers, one for each objective")
    return table[np.isfinite(table).all(axis=1)], corner


def _signs(maximise: bool | Sequence[bool], num_objectives: int) -> npt.NDArray[np.float64]:
    flags = [maximise] * num_objectives if isinstance(maximise, bool) else [bool(flag) for flag in maximise]
    if len(flags) != num_objectives:
        raise UserError("maximise", maximise, f"True, False, or {num_objectives} of them")
    return np.where(flags, -1.0, 1.0)
