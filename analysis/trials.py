"""Rows by trial, and rows that have what a chart shows: foreign points beside ours lack most of our columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dnad_ray.errors import UserError

__all__ = ["first_of", "run_and_trial", "trials_of", "with_values"]

_UNKNOWN = {"run": "points", "trial": "all"}


def run_and_trial(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns run and trial; rows without a name are of the run ``points`` and the trial ``all``.

    >>> run_and_trial(pd.DataFrame({"run": ["a", None]})).to_dict("list")
    {'run': ['a', 'points'], 'trial': ['all', 'all']}
    """
    names: pd.DataFrame = pd.DataFrame(index=frame.index)
    for name, unknown in _UNKNOWN.items():
        column = frame[name] if name in frame else pd.Series(None, frame.index, dtype=object)
        names[name] = column.astype(object).where(column.notna(), unknown) if column.isna().any() else column
    return names


def trials_of(frame: pd.DataFrame) -> list[tuple[tuple[str, str], npt.NDArray[np.intp]]]:
    """Return run, trial and the positions of the rows of each trial, in the order in which trials appear.

    Positions and not labels, because two frames that were joined can have labels twice.

    >>> frame = pd.DataFrame({"run": ["a", "b", "a"], "trial": ["t", "t", "t"]}, index=[7, 7, 7])
    >>> [(key, places.tolist()) for key, places in trials_of(frame)]
    [(('a', 't'), [0, 2]), (('b', 't'), [1])]
    """
    names = run_and_trial(frame)
    codes = names.groupby(["run", "trial"], sort=False).ngroup().to_numpy()
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(order) else []
    runs, trials = names["run"].tolist(), names["trial"].tolist()
    return [((runs[places[0]], trials[places[0]]), places) for places in parts]


def first_of(frame: pd.DataFrame, name: str, places: npt.NDArray[np.intp]) -> Any:
    """Return the value of a column in the first of some rows, None where there is no such column."""
    return frame[name].iloc[places[0]] if name in frame else None


def with_values(frame: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Return the rows that have a value in each of some columns; points that no search recorded lack them.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them, perhaps with foreign points among them.
        names: Columns.

    Raises:
        UserError: If the frame lacks a column altogether.
    """
    names = list(names)
    for name in names:
        if name not in frame:
            raise UserError("frame", f"no column {name}", f"rows of searches, which have {', '.join(names)}")
    kept: pd.DataFrame = frame[frame[names].notna().all(axis=1).to_numpy()]
    return kept
