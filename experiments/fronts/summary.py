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


EXPERIMENTS = {"first": range(10, 13), "again": range(15, 18), "third": range(20, 25)}
"""Experiment -> its seeds."""


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
    """Return a row for each experiment, set of images, arm and seed, with CPU seconds."""
    rows = []
    for (images, arm, seed), front in table.groupby(["images", "arm", "seed"], sort=False):
        largest = table[(table["images"] == images) & (table["seed"] == seed)]["budget"].max()
        share, seconds = hypervolume(front, largest), front["cpu_seconds"].iloc[0]
        asked = next(name for name, seeds in EXPERIMENTS.items() if seed in seeds)
        facts = {"asked": asked, "images": images, "arm": arm, "seed": seed}
        rows.append({**facts, "hypervolume": share, "cpu_seconds": seconds})
    return pd.DataFrame(rows)


def compared(volumes: pd.DataFrame) -> list[str]:
    """Return a line for each arm, for a table: means, and the paired lead of `fit` with its 95 % interval."""
    lines = []
    for (asked, images), group in volumes.groupby(["asked", "images"], sort=False):
        by_seed = group.pivot(index="seed", columns="arm", values="hypervolume")
        for arm, of_arm in group.groupby("arm", sort=False):
            mean, deviation = of_arm["hypervolume"].mean(), of_arm["hypervolume"].std()
            line = f"| {asked} | {images} | {arm} | {of_arm['cpu_seconds'].mean():.0f} | {mean:.3f} ({deviation:.3f}) |"
            if arm != "fit":
                lead = (by_seed["fit"] - by_seed[arm]).dropna()
                half = stats.t.ppf(0.975, len(lead) - 1) * lead.std() / np.sqrt(len(lead))
                line += f" {lead.mean():+.3f} ({lead.mean() - half:+.3f} to {lead.mean() + half:+.3f}) |"
                line += f" {(lead > 0).sum()} of {len(lead)} |"
            else:
                line += " | |"
            lines.append(line)
    return lines


def accuracies(table: pd.DataFrame) -> list[str]:
    """Return a line for each arm, for a table: mean test accuracy in % of the best network within each budget."""
    asked = table["seed"].map(lambda seed: next(name for name, seeds in EXPERIMENTS.items() if seed in seeds))
    budgets = sorted(table["budget"].unique(), reverse=True)
    lines = []
    for (name, images, arm), rows in table.assign(asked=asked).groupby(["asked", "images", "arm"], sort=False):
        cells = []
        for budget in budgets:
            best = rows[rows["macs"] <= budget].groupby("seed")["error"].min()
            is_complete = len(best) == rows["seed"].nunique()
            cells.append(f"{100 * (1 - best.mean()):.1f}" if is_complete else "-")
        lines.append(f"| {name} | {images} | {arm} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    table = pd.read_csv(TABLE)
    print("\n".join(compared(hypervolumes(table))))
    print()
    print("\n".join(accuracies(table)))


if __name__ == "__main__":
    main()
