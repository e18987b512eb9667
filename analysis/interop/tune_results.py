"""Conversion of result grids of Ray Tune to snapshots, and of snapshots to points for its searchers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pandas as pd

from analysis.interop.optuna_studies import plain_value
from analysis.interop.tables import from_frame
from dnad_ray.errors import UserError

__all__ = ["from_result_grid", "to_tune_points"]


class _Result(Protocol):
    """What is asked of a result of Ray Tune."""

    @property
    def metrics(self) -> dict[str, Any] | None: ...


class _ResultGrid(Protocol):
    """What is asked of a result grid of Ray Tune."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> _Result: ...


def from_result_grid(
    grid: _ResultGrid, columns: Mapping[str, str] | None = None, units: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Take over the last results of the trials of a Ray Tune run.

    Args:
        grid: A :class:`ray.tune.ResultGrid`, ours or that of another program.
        columns: As for :func:`from_frame`.
        units: Likewise.

    Returns:
        A row per trial: its metrics, ``config.*`` and ``trial``.

    Raises:
        UserError: As :func:`from_frame`.
    """
    # Not the grid's own table, which needs the files of Tune's loggers.
    results = [grid[index].metrics for index in range(len(grid))]
    frame = pd.json_normalize([metrics for metrics in results if metrics], sep="/")
    renamed = {name: "config." + str(name).removeprefix("config/") for name in frame if str(name).startswith("config/")}
    if "trial_id" in frame and "trial" not in frame:
        renamed["trial_id"] = "trial"
    return from_frame(frame.rename(columns=renamed), columns, units, "tune")


def to_tune_points(frame: pd.DataFrame, settings: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return settings of rows as starting points for a search algorithm of Ray Tune (``points_to_evaluate``).

    Args:
        frame: Rows, for example a front; settings that are there several times count once.
        settings: Columns by the name that the search space of the other program has for them.

    Raises:
        UserError: If a column is missing.

    Examples:
        >>> to_tune_points(pd.DataFrame({"kd_temperature": [4.0, 4.0, 2.0]}), {"temperature": "kd_temperature"})
        [{'temperature': 4.0}, {'temperature': 2.0}]
    """
    for column in settings.values():
        if column not in frame:
            raise UserError("settings", column, f"one of {', '.join(map(str, frame.columns))}")
    points: list[dict[str, Any]] = []
    for row in frame.to_dict("records"):
        point = {name: plain_value(row[column]) for name, column in settings.items()}
        if point not in points:
            points.append(point)
    return points
