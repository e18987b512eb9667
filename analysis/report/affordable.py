"""How long a network takes to train from scratch by the recipe that the report's command names."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["EPOCHS", "RECIPE", "training_seconds"]

RECIPE = "quick"
"""The recipe that most people can afford; that of the papers takes days on CPUs."""

EPOCHS = 30
"""Its number of epochs."""


def training_seconds(frame: pd.DataFrame, history: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return an estimate per snapshot, from the epoch of the search in which it was recorded.

    An epoch of the search trains the supernet, which then has the operations of the snapshot or more, and asks the
    teacher: it takes no less than one of the network alone. Training from scratch sees the held-out images too, and
    the network may be wider than the supernet.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them.
        history: Epochs as :func:`analysis.frame.load_history` returns them.

    Returns:
        Seconds on the devices of the search, shape (n,); NaN where no epoch was recorded.
    """
    if not len(frame) or not len(history):
        return np.full(len(frame), np.nan)
    keys = ["run", "trial", "epoch"]
    ordered = history[[*keys, "device_seconds"]].sort_values(keys, kind="stable")
    seconds = ordered.groupby(["run", "trial"], sort=False)["device_seconds"].diff()
    ordered = ordered.assign(seconds=seconds.fillna(ordered["device_seconds"]))
    ordered = ordered.drop_duplicates(keys, keep="last")
    found = frame[keys].merge(ordered[[*keys, "seconds"]], on=keys, how="left")["seconds"].to_numpy(dtype=float)
    last = ordered.drop_duplicates(["run", "trial"], keep="last")[["run", "trial", "seconds"]]
    newest = frame[["run", "trial"]].merge(last, on=["run", "trial"], how="left")["seconds"].to_numpy(dtype=float)
    per_epoch = np.where(np.isfinite(found) & (found > 0), found, newest)
    kept = 1.0 - _numbers(frame, "config.data.validation_share", 0.0)
    wider = np.maximum(1.0, _numbers(frame, "init_channels", 1.0) / _numbers(frame, "config.space.init_channels", 1e9))
    estimate = EPOCHS * per_epoch / np.maximum(kept, 0.01) * wider**2
    return np.where(np.isfinite(estimate) & (estimate > 0), estimate, np.nan)


def _numbers(frame: pd.DataFrame, name: str, default: float) -> npt.NDArray[np.float64]:
    if name not in frame:
        return np.full(len(frame), default)
    column = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float)
    return np.where(np.isfinite(column) & (column > 0), column, default)
