"""Hypervolumes of the fronts in `trained.csv`, and how far `fit` is ahead of each other arm.

python experiments/fronts/summary.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis.pareto import hypervolume_share

TABLE = Path(__file__).with_name("trained.csv")
SIXTEENTHS, RANGE = 16, 5.0
"""The box begins at this part of the largest budget, and spans so many doublings."""


def hypervolume(front: pd.DataFrame, largest: int) -> float:
    """Return the share of the box that the networks of an arm dominate, 0 to 1.

    A network of an eighth of the largest budget and one of all of it, without errors, have four and one fifth:

    >>> small, large = (pd.DataFrame({"macs": [macs], "error": [0.0]}) for macs in (100, 800))
    >>> round(hypervolume(small, 800), 3), round(hypervolume(large, 800), 3)
    (0.8, 0.2)
    """
    cost = np.log2(front["macs"] * SIXTEENTHS / largest) / RANGE
    return hypervolume_share(np.column_stack([front["error"], cost]), (1.0, 1.0))


def hypervolumes(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each set of images, arm and seed, with CPU seconds."""
    rows = []
    for (images, arm, seed), front in table.groupby(["images", "arm", "seed"], sort=False):
        largest = table[(table["images"] == images) & (table["seed"] == seed)]["budget"].max()
        share, seconds = hypervolume(front, largest), front["cpu_seconds"].iloc[0]
        rows.append({"images": images, "arm": arm, "seed": seed, "hypervolume": share, "cpu_seconds": seconds})
    return pd.DataFrame(rows)


def compared(volumes: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each set of images and arm: means, and the paired lead of `fit` with its 95 % interval."""
    rows = []
    for images, group in volumes.groupby("images", sort=False):
        by_seed = group.pivot(index="seed", columns="arm", values="hypervolume")
        for arm, of_arm in group.groupby("arm", sort=False):
            lead = (by_seed["fit"] - by_seed[arm]).dropna()
            half = stats.t.ppf(0.975, len(lead) - 1) * lead.std() / np.sqrt(len(lead)) if len(lead) > 1 else np.nan
            facts = {"images": images, "arm": arm, "seeds": len(of_arm), "CPU s": of_arm["cpu_seconds"].mean()}
            spread = {"mean": of_arm["hypervolume"].mean(), "sd": of_arm["hypervolume"].std()}
            ahead = {"lead of fit": lead.mean(), "+-": half, "ahead in": f"{(lead > 0).sum()} of {len(lead)}"}
            rows.append({**facts, **spread, **ahead})
    return pd.DataFrame(rows)


def main() -> None:
    table = pd.read_csv(TABLE)
    print(compared(hypervolumes(table)).round(4).to_string(index=False))
    accuracies = table.assign(accuracy=100 * (1 - table["error"]))
    print("\nmean test accuracy, %")
    by_budget = accuracies.pivot_table(index=["images", "arm"], columns="budget", values="accuracy", sort=False)
    print(by_budget.sort_index(axis=1, ascending=False).round(1).to_string())


if __name__ == "__main__":
    main()
