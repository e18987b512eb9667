"""Comparison of fronts: coverage, epsilon, contributions, convex hull."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import moocore
import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.frame import setting_of
from analysis.objectives import OBJECTIVES, Objective, minimised, resolve
from analysis.pareto import front_of, hypervolume_share, pareto_mask, reference_point
from dnad_ray.errors import UserError

__all__ = ["compare_fronts", "contributions", "convex_hull", "coverage", "epsilon"]

_ROWS_AT_ONCE = 4096


def coverage(first: pd.DataFrame, second: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES) -> float:
    """Return the share of the points of ``second`` that some point of ``first`` weakly dominates: 0 to 1.

    It is the C-metric of Zitzler and Thiele (1999): not symmetric, so look at both directions. Points that are not
    finite are no points.

    Args:
        first: Rows of a front, or any rows.
        second: Rows of another.
        objectives: As for :func:`analysis.pareto.front_of`.

    Raises:
        UserError: If an objective is refused, or ``second`` has no point.

    Examples:
        >>> first = pd.DataFrame({"error": [0.1, 0.2], "macs": [20, 10]})
        >>> second = pd.DataFrame({"error": [0.1, 0.3, 0.05], "macs": [25, 10, 90]})
        >>> round(coverage(first, second, ["error", "macs"]), 4), coverage(second, first, ["error", "macs"])
        (0.6667, 0.0)
    """
    ours, theirs = _points(first, objectives), _points(second, objectives)
    if not len(theirs):
        raise UserError("second front", "no point", "at least one to be covered")
    if not len(ours):
        return 0.0
    ours = ours[pareto_mask(ours, dominance="weak")]
    covered = 0
    for start in range(0, len(theirs), _ROWS_AT_ONCE):
        part = theirs[start : start + _ROWS_AT_ONCE]
        no_worse = np.all(ours[None, :, :] <= part[:, None, :], axis=2)
        covered += int(np.any(no_worse, axis=1).sum())
    return covered / len(theirs)


def epsilon(
    first: pd.DataFrame,
    second: pd.DataFrame,
    objectives: Sequence[Objective] = OBJECTIVES,
    kind: Literal["multiplicative", "additive"] = "multiplicative",
) -> float:
    """Return by how much ``first`` must be improved to weakly dominate every point of ``second``.

    Multiplicative: the factor by which all its values are divided; 1 or less means that nothing is lacking. It has no
    unit, so errors and MACs may be mixed, but needs values above 0. Additive: the amount in the objectives' own units,
    0 or less means that nothing is lacking. Source: Zitzler et al. 2003, "Performance assessment of multiobjective
    optimizers"; the arithmetic is moocore's.

    Args:
        first: Rows of a front, or any rows.
        second: Rows of another.
        objectives: As for :func:`analysis.pareto.front_of`.
        kind: Which of the two.

    Raises:
        UserError: If an objective is refused or maximised (for accuracy take error), a front has no point, or a value
            is not above 0 and ``kind`` is multiplicative.

    Examples:
        >>> first = pd.DataFrame({"error": [0.2], "macs": [10]})
        >>> second = pd.DataFrame({"error": [0.1], "macs": [10]})
        >>> epsilon(first, second, ["error", "macs"]), epsilon(second, first, ["error", "macs"])
        (2.0, 1.0)
        >>> epsilon(first, second, ["error", "macs"], kind="additive")
        0.1
    """
    if kind not in ("multiplicative", "additive"):
        raise UserError("kind", kind, "multiplicative or additive")
    for entry in resolve(first, objectives):
        if not entry.minimise:
            raise UserError("objectives", entry.name, "objectives that are minimised; for accuracy take error")
    ours, theirs = _points(first, objectives), _points(second, objectives)
    if not len(ours) or not len(theirs):
        raise UserError("fronts", f"{len(ours)} and {len(theirs)} points", "at least one in each")
    if kind == "additive":
        return float(moocore.epsilon_additive(ours, ref=theirs))
    if min(ours.min(), theirs.min()) <= 0:
        raise UserError("values", float(min(ours.min(), theirs.min())), "numbers above 0, or kind='additive'")
    return float(moocore.epsilon_mult(ours, ref=theirs))


def contributions(
    frame: pd.DataFrame, by: str = "setting", objectives: Sequence[Objective] = OBJECTIVES
) -> pd.DataFrame:
    """Return the contribution of each run, setting or trial to the global front.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them.
        by: ``setting`` (see :func:`analysis.frame.setting_of`), ``run``, or any column that names a group.
        objectives: Columns that are minimised.

    Returns:
        A row per group, indexed by its name, the largest contribution first: ``snapshots``, ``front_points``,
        ``front_share`` (of the points of the front), ``hypervolume`` (of the group alone, as a share of the reference
        box) and ``contribution``: the share of the box that would be lost without the group. What two groups found
        both is lost with neither.

    Raises:
        UserError: If an objective is refused or maximised, or there is no such column.
    """
    groups = _groups(frame, by)
    columns = ["snapshots", "front_points", "front_share", "hypervolume", "contribution"]
    if not len(frame):
        empty: pd.DataFrame = pd.DataFrame(columns=columns, index=pd.Index([], name=by)).astype(float)
        return empty
    corner = reference_point(frame, objectives)
    front = front_of(frame.reset_index(drop=True), objectives)
    owners = groups.iloc[front.index].value_counts()
    whole = hypervolume_share(minimised(front, objectives), corner)
    points = minimised(frame, objectives)
    parts = _positions(groups)
    # Without a group, points that it dominated join the front. They can only come from the fronts of other groups.
    fronts = {name: places[pareto_mask(points[places])] for name, places in parts.items()}
    rows: dict[Hashable, tuple[float, ...]] = {}
    for name, own in fronts.items():
        count = int(owners.get(name, 0))
        without = whole
        if count:  # nothing is lost without a group that has no point on the front: of a thousand groups most
            rest = [points[other] for key, other in fronts.items() if key != name]
            without = hypervolume_share(np.concatenate(rest), corner) if rest else 0.0
        alone = hypervolume_share(points[own], corner)
        share = count / len(front) if len(front) else 0.0
        rows[name] = (len(parts[name]), count, share, alone, max(0.0, whole - without))
    table: pd.DataFrame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    table = table.astype({"snapshots": "int64", "front_points": "int64"})
    table.index.name = by
    ordered: pd.DataFrame = table.sort_values(["contribution", "front_points"], ascending=False, kind="stable")
    return ordered


def compare_fronts(frame: pd.DataFrame, by: str = "run", objectives: Sequence[Objective] = OBJECTIVES) -> pd.DataFrame:
    """Compare the fronts of groups pair by pair.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them, or foreign points.
        by: As for :func:`contributions`.
        objectives: Columns that are minimised, with values above 0.

    Returns:
        A row per ordered pair: ``first``, ``second``, ``coverage`` (share of the second front that the first weakly
        dominates) and ``epsilon`` (multiplicative: 1 or less where the first lacks nothing of the second).

    Raises:
        UserError: As :func:`coverage` and :func:`epsilon`.
    """
    groups = _groups(frame, by)
    fronts = {name: front_of(frame.iloc[places], objectives) for name, places in _positions(groups).items()}
    fronts = {name: front for name, front in fronts.items() if len(front)}
    rows = [
        {
            "first": first,
            "second": second,
            "coverage": coverage(fronts[first], fronts[second], objectives),
            "epsilon": epsilon(fronts[first], fronts[second], objectives),
        }
        for first in fronts
        for second in fronts
        if first != second
    ]
    table: pd.DataFrame = pd.DataFrame(rows, columns=["first", "second", "coverage", "epsilon"])
    return table


def convex_hull(frame: pd.DataFrame, objectives: Sequence[Objective] = ("error", "macs")) -> pd.DataFrame:
    """Return the rows on the convex hull of the front of two objectives: networks that no mixture of two others beats.

    Args:
        frame: Rows with both columns.
        objectives: Two of them.

    Returns:
        Rows of the front, sorted by the second objective; of equal points one.

    Raises:
        UserError: If an objective is refused, or there are not two.

    Examples:
        >>> frame = pd.DataFrame({"error": [0.5, 0.4, 0.2, 0.19, 0.1], "macs": [10, 15, 20, 40, 60]})
        >>> convex_hull(frame).index.tolist()  # 15 lies above the line from 10 to 20, and 40 above that from 20 to 60
        [0, 2, 4]
    """
    if len(objectives) != 2:
        raise UserError("objectives", [str(given) for given in objectives], "two of them")
    front = front_of(frame, objectives, dominance="weak")
    points = minimised(front, objectives)
    order = np.lexsort((points[:, 0], points[:, 1]))
    hull: list[int] = []
    for place in order:
        while len(hull) > 1 and _turn(points[hull[-2]], points[hull[-1]], points[place]) <= 0:
            hull.pop()
        hull.append(int(place))
    chosen: pd.DataFrame = front.iloc[hull]
    return chosen


def _turn(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], c: npt.NDArray[np.float64]) -> float:
    """Twice the signed area of a triangle: above 0 where b lies below the line from a to c (monotone chain)."""
    (y0, x0), (y1, x1), (y2, x2) = a, b, c
    return float((x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0))


def _points(frame: pd.DataFrame, objectives: Sequence[Objective]) -> npt.NDArray[np.float64]:
    points = minimised(frame, objectives)
    return points[np.isfinite(points).all(axis=1)]


def _positions(groups: pd.Series[Any]) -> dict[Hashable, npt.NDArray[np.intp]]:
    """Return the positions of the rows of each group, groups in the order in which they appear."""
    codes, names = pd.factorize(groups)
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] >= 0]
    parts = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    return dict(zip(names, parts, strict=True)) if len(names) else {}


def _groups(frame: pd.DataFrame, by: str) -> pd.Series[Any]:
    if by == "setting":
        return setting_of(frame).astype(str)
    if by not in frame:
        raise UserError("by", by, "setting, or a column that names a group, for example run")
    groups: pd.Series[Any] = frame[by].astype(str)
    return groups
