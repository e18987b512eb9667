"""Importance of settings: the share of the variance between trials that each one explains alone.

A sweep is mostly a small grid with few seeds, too few points for a random forest (as in fANOVA, Hutter, Hoos &
Leyton-Brown 2014). The importance is the main effect of each setting by the analysis of variance: omega squared (Hays
1963), the explained share of variance minus the share that random groups would explain. Numbers with many values are
first cut into five groups of equal size. The remaining variance is interactions and seeds.

A share of few trials is uncertain, so each has its exact 95 % interval: the shares of variance under which an F as far
out as the observed one has a probability of 2.5 % on either side (noncentral F distribution; Steiger 2004, "Beyond the
F test", Psychological Methods 9).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import metric

__all__ = ["SETTINGS", "importance_of", "omega_squared", "share_interval", "varied_settings"]

_TAIL = 0.025
_MOST_GROUPS = 6
_NUM_GROUPS = 5
SETTINGS = ("shrink_rate", "kd_kind", "kd_temperature", "kd_weight")
"""Settings that snapshots carry themselves."""
_TWINS = ("config.seed", "config.shrink.rate", "config.distill.kind", "config.distill.temperature")


def omega_squared(groups: Sequence[Any], values: Sequence[float]) -> tuple[float, int]:
    """Return the share of variance that groups explain, without bias, and how many groups there are.

    Args:
        groups: The group of each value; None or NaN is a group too.
        values: Finite numbers.

    Returns:
        0 to 1; 0 too where there is one group, no variance, or no group with two values.

    Examples:
        >>> omega_squared(["a", "a", "b", "b"], [1.0, 1.0, 3.0, 3.0])
        (1.0, 2)
        >>> omega_squared(["a", "b", "a", "b"], [1.0, 1.0, 3.0, 3.0])
        (0.0, 2)
    """
    size, num_groups, total, between = _squares(groups, values)
    if num_groups < 2 or size <= num_groups or total <= 0:
        return 0.0, num_groups
    within = (total - between) / (size - num_groups)
    share = (between - (num_groups - 1) * within) / (total + within)
    return min(1.0, max(0.0, share)), num_groups


def share_interval(groups: Sequence[Any], values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the share of variance that groups explain.

    Args:
        groups: The group of each value; None or NaN is a group too.
        values: Finite numbers.

    Returns:
        Both ends, 0 to 1; (0, 1), which says nothing, where no group has two values or all values are equal.

    Examples:
        >>> share_interval(["a", "b"], [1.0, 2.0])
        (0.0, 1.0)
        >>> low, high = share_interval(["a", "a", "a", "b", "b", "b"], [1.0, 2.0, 3.0, 2.0, 3.0, 4.0])
        >>> low, round(high, 2)  # six trials tell next to nothing
        (0.0, 0.64)
    """
    size, num_groups, total, between = _squares(groups, values)
    if num_groups < 2 or size <= num_groups or total <= 0:
        return 0.0, 1.0
    special: Any = importlib.import_module("scipy.special")  # to load it takes long, and few need it
    first, second = num_groups - 1, size - num_groups
    within = (total - between) / second
    if within <= 0:
        return 1.0, 1.0
    ratio = between / first / within

    def share(probability: float) -> float:
        if special.fdtr(first, second, ratio) <= probability:  # not even without any effect
            return 0.0
        centre = float(special.ncfdtrinc(first, second, probability, ratio))
        return centre / (centre + size)

    return share(1 - _TAIL), share(_TAIL)


def _squares(groups: Sequence[Any], values: Sequence[float]) -> tuple[int, int, float, float]:
    """Return the number of values and of groups, and the sums of squares: of all values, and between the groups."""
    table = pd.DataFrame({"group": pd.Series(list(groups), dtype=object), "value": np.asarray(values, dtype=float)})
    if not len(table):
        return 0, 0, 0.0, 0.0
    codes = pd.factorize(table["group"], use_na_sentinel=False)[0]
    mean = table["value"].mean()
    total = float(((table["value"] - mean) ** 2).sum())
    means = table.groupby(codes)["value"].transform("mean")
    return len(table), len(set(codes.tolist())), total, float(((means - mean) ** 2).sum())


def varied_settings(trials: pd.DataFrame) -> list[str]:
    """Return the columns of settings in which trials differ: those that snapshots carry, then ``config.*``."""
    config = [
        str(name)
        for name in trials
        if str(name).startswith("config.") and name not in _TWINS and not str(name).startswith("config.sweep.")
        if name != "config.distill.weight"
    ]
    names = [name for name in SETTINGS if name in trials] + config
    return [name for name in names if trials[name].nunique(dropna=False) > 1]


def importance_of(trials: pd.DataFrame, value: str = "hypervolume") -> pd.DataFrame:
    """Return the importance of each varied setting for a result of trials.

    Args:
        trials: A row per trial, see :func:`analysis.charts.response.trial_results`.
        value: Column of the result.

    Returns:
        A row per setting, the most important first: ``setting`` (column), ``label``, ``importance`` (omega squared, 0
        to 1), ``low`` and ``high`` (its 95 % interval), ``groups`` (values, or groups of them) and ``trials``.
        Settings that vary together, as the KD temperature is missing without imitation, each get the whole effect:
        shares need not add up to 1. Rows without any setting, foreign points, are left out.

    Raises:
        UserError: If there is no such column of numbers.
    """
    if value not in trials or not pd.api.types.is_numeric_dtype(trials[value].dtype):
        raise UserError("value", value, "a column of numbers, a row per trial")
    kept = trials[np.isfinite(trials[value].to_numpy(dtype=float))]
    # Foreign points have no settings: beside ours they are not a setting of their own.
    kept = kept[kept[varied_settings(kept)].notna().any(axis=1).to_numpy()]
    rows = []
    for name in varied_settings(kept):
        groups, values = _groups(kept[name]), kept[value].tolist()
        share, num_groups = omega_squared(groups, values)
        low, high = share_interval(groups, values)
        label = {"kd_kind": "KD kind"}.get(name, metric(name).label.removeprefix("config."))
        numbers = {"importance": share, "low": low, "high": high, "groups": num_groups, "trials": len(kept)}
        rows.append({"setting": name, "label": label, **numbers})
    columns = ["setting", "label", "importance", "low", "high", "groups", "trials"]
    table: pd.DataFrame = pd.DataFrame(rows, columns=columns)
    ordered: pd.DataFrame = table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    return ordered


def _groups(column: pd.Series[Any]) -> list[Any]:
    if column.nunique() > _MOST_GROUPS and pd.api.types.is_numeric_dtype(column.dtype):
        ranks = column.rank()
        edges = ranks.quantile(np.arange(1, _NUM_GROUPS) / _NUM_GROUPS)  # with many ties several are one number
        codes = np.searchsorted(edges, ranks)
        return [int(code) if is_known else None for code, is_known in zip(codes, column.notna(), strict=True)]
    return [None if pd.isna(value) else value for value in column]
