"""Attainment surfaces of a setting over its seeds: the best, median and worst front.

A point is attained by a trial if a network of it is no worse in every objective. The surface of level k/n bounds the
region that at least k of n trials attain: k = 1 is the best of all seeds, k = n the level that every seed reaches
(Fonseca & Fleming 1996; the arithmetic is moocore's, after Fonseca, Guerreiro, Lopez-Ibanez & Paquete 2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import moocore
import numpy as np
import pandas as pd

from analysis.frame import setting_of
from analysis.objectives import Objective, minimised, resolve
from analysis.trials import run_and_trial
from dnad_ray.errors import UserError

__all__ = ["LEVELS", "attainment_surfaces"]

LEVELS = ("best", "median", "worst")
"""Surfaces, from the best of all seeds to the one that every seed reaches."""


def attainment_surfaces(
    frame: pd.DataFrame, objectives: Sequence[Objective] = ("error", "macs"), by: str = "setting"
) -> pd.DataFrame:
    """Return the attainment surfaces of each setting over its trials.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them.
        objectives: Two or three columns with a direction.
        by: ``setting``, or a column that names groups of trials.

    Returns:
        A row per corner of a surface: the group (column ``by``), ``level`` (one of :data:`LEVELS`), ``trials`` (how
        many there are: with one all levels agree, with an even number the median is the lower one) and the
        objectives in their own direction. Corners are sorted by the second objective. Rows that are not finite are
        left out.

    Raises:
        UserError: If an objective is refused, or there are not two or three.
    """
    entries = resolve(frame, objectives)
    if len(entries) not in (2, 3):
        raise UserError("objectives", [entry.name for entry in entries], "two or three of them")
    names, signs = [entry.name for entry in entries], [1.0 if entry.minimise else -1.0 for entry in entries]
    groups = (setting_of(frame) if by == "setting" else _column(frame, by)).reset_index(drop=True)
    values = minimised(frame, objectives)
    codes = run_and_trial(frame).groupby(["run", "trial"], sort=False).ngroup().to_numpy()
    rows_of: dict[str, list[Any]] = {by: [], "level": [], "trials": []}
    surfaces = [np.empty((0, len(names)))]
    for group, rows in groups.groupby(groups, observed=True, sort=True):
        places = rows.index.to_numpy()
        places = places[np.isfinite(values[places]).all(axis=1)]
        points = values[places]
        if not len(points):
            continue
        sets = np.unique(codes[places], return_inverse=True)[1] + 1
        num_trials = int(sets.max())
        order = np.argsort(sets, kind="stable")
        for level, count in zip(LEVELS, (1, -(-num_trials // 2), num_trials), strict=True):
            # moocore rounds percentiles up to whole numbers of sets; a little less than k/n is k for sure.
            surface = moocore.eaf(points[order], sets=sets[order], percentiles=[100 * (count - 0.5) / num_trials])
            corners = surface[:, : len(names)] * signs
            surfaces.append(corners[np.lexsort((corners[:, 0], corners[:, 1]))])
            for name, value in ((by, group), ("level", level), ("trials", num_trials)):
                rows_of[name] += [value] * len(corners)
    numbers = pd.DataFrame(np.concatenate(surfaces), columns=names)
    table: pd.DataFrame = pd.concat([pd.DataFrame(rows_of), numbers], axis=1)
    return table


def _column(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    if name not in frame:
        raise UserError("by", name, "setting, or a column that names groups of trials, for example run")
    return frame[name]
