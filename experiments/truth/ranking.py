"""How well each score ranks the networks of the truth: all of them, and those of equal cost.

    python experiments/truth/ranking.py            # looks at the choosing half alone
    python experiments/truth/ranking.py --judge    # the judging half too: once, when all is fixed

It reads the tables of `sample.py`, `train.py` and `scores.py`. Scores and a few fixed combinations (the mean of ranks)
are compared on the choosing half; the one with the best mean of Kendall's tau, over both spaces and both over all and
within equal cost, is chosen there and judged on the other half; `score` is what snapshots are ranked by. Beside it
stand the ceilings: how well one seed's training ranks the other seed's, and how well the scores could rank at best.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sample import genotype_of
from scores import BATCH_SIZE

from dnad_ray.networks.scores import rank_score

__all__ = ["COMBINATIONS", "HALVES", "columns", "kendall", "perfect", "read", "resampled"]

FOLDER = Path(__file__).parent
HALVES = ("choosing", "judging")
TRUTHS = {"accuracy": 1, "test_loss": -1}
"""What is ranked -> 1 where more is better."""
SCORES = ("jacov", "naswot", "synflow", "grad_norm", "zen", "swap", "zico", "macs", "params", "num_operations")
COMBINATIONS = (
    ("macs", "jacov"),
    ("synflow", "jacov"),
    ("zico", "jacov"),
    ("naswot", "jacov"),
    ("swap", "jacov"),
    ("macs", "naswot"),
    ("macs", "swap"),
    ("synflow", "naswot", "jacov"),
    ("zico", "swap", "jacov"),
    ("zen", "jacov"),
    ("zen", "macs"),
    ("zen", "zico"),
    ("zen", "synflow", "jacov"),
    ("zen", "zico", "jacov"),
)
"""The nine without Zen were fixed before any was computed; those with it came after a look at the choosing half."""
_RESAMPLES = 1000
_FEWEST = 10  # networks under two seeds for a ceiling


def kendall(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Return Kendall's tau-b over all pairs, or over those within groups; NaN where it has no meaning.

    >>> round(kendall(np.array([1, 2, 3]), np.array([1, 3, 2])), 4)
    0.3333
    >>> kendall(np.array([1, 2, 3, 4]), np.array([2, 1, 4, 3]), np.array([0, 0, 1, 1]))
    -1.0
    """
    return _tau(*_signs(first, second, groups))


def resampled(
    first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of :func:`kendall` over resamples of the networks (percentile bootstrap)."""
    signs = _signs(first, second, groups)
    draws = np.random.default_rng(seed)
    taus = []
    for _ in range(_RESAMPLES):
        chosen = draws.integers(0, len(first), len(first))
        taus.append(_tau(*(matrix[np.ix_(chosen, chosen)] for matrix in signs)))
    known = np.array([tau for tau in taus if np.isfinite(tau)])
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (float("nan"),) * 2
    return float(low), float(high)


def perfect(of_seeds: float, num_seeds: float = 2) -> float:
    """Return what tau a perfect score would have with the mean of seeds, if two seeds have a tau with each other.

    For normally distributed truth and noise, where tau is ``2 / pi asin(r)``, and the mean of k measurements that
    correlate with r correlates with what they measure with ``sqrt(k r / (1 + (k - 1) r))`` (Spearman-Brown).

    Args:
        of_seeds: Tau of two seeds.
        num_seeds: How many seeds the mean is taken of, on average.

    >>> round(perfect(1 / 3), 3), round(perfect(1 / 3, 1), 3)  # r = 0.5
    (0.608, 0.5)
    """
    r = max(0.0, float(np.sin(np.pi / 2 * of_seeds)))
    return float(2 / np.pi * np.arcsin(np.sqrt(num_seeds * r / (1 + (num_seeds - 1) * r))))


def columns(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the values of scores and combinations, by name; for combinations ranks within the rows of the table."""
    ranks = table[list(SCORES)].rank()
    single = {name: table[name].to_numpy() for name in (*SCORES, "score")}
    return single | {" + ".join(names): ranks[list(names)].mean(axis=1).to_numpy() for names in COMBINATIONS}


def read(folder: Path = FOLDER) -> pd.DataFrame:
    """Return a row for each network that was trained: its results by seed, their mean, and the mean of each score."""
    networks = pd.read_csv(folder / "networks.csv")
    trained = pd.read_csv(folder / "accuracies.csv").pivot(index="network", columns="seed")
    for truth in TRUTHS:
        for seed in (0, 1):
            of_seed = trained[truth].get(seed, pd.Series(dtype=float))
            networks[f"{truth}_{seed}"] = networks["network"].map(of_seed)
        networks[truth] = networks[[f"{truth}_0", f"{truth}_1"]].mean(axis=1)
    networks["num_seeds"] = networks[["accuracy_0", "accuracy_1"]].notna().sum(axis=1)
    scored = pd.read_csv(folder / "scores.csv").groupby("network").mean()
    table = networks.merge(scored, left_on="network", right_index=True).dropna(subset=["accuracy"])
    table["score"] = [
        rank_score(row, genotype_of(row["space"], row["topology"]), row["macs"], BATCH_SIZE)
        for row in table.to_dict("records")
    ]
    return table


def _signs(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return for each pair how either score orders it; 0 for both where the pair does not count."""
    x, y = (np.sign(values[:, None] - values[None, :]).astype(np.float32) for values in (first, second))
    counts = 1.0 if groups is None else groups[:, None] == groups[None, :]
    return x * counts, y * counts


def _tau(x: np.ndarray, y: np.ndarray) -> float:
    untied = float(np.sqrt((x * x).sum(dtype=np.float64) * (y * y).sum(dtype=np.float64)))
    return float((x * y).sum(dtype=np.float64)) / untied if untied else float("nan")


def _compare(table: pd.DataFrame, values: np.ndarray, truth: np.ndarray) -> dict[str, object]:
    """Return tau over all and within equal cost, with intervals."""
    groups = table["cost_bin"].to_numpy()
    over_all, within = kendall(values, truth), kendall(values, truth, groups)
    return {
        "all": over_all,
        "within": within,
        "all_interval": resampled(values, truth),
        "within_interval": resampled(values, truth, groups),
    }


def _line(name: str, found: Mapping[str, object]) -> str:
    parts = [f"{name:28}"]
    for key in ("all", "within"):
        low, high = found[f"{key}_interval"]  # type: ignore[misc]
        parts.append(f"{found[key]:6.2f} ({low:5.2f} to {high:5.2f})")
    return "  ".join(parts)


def _print_ceiling(of_space: pd.DataFrame, table: pd.DataFrame, truth: str) -> None:
    """Print how well a seed ranks the other one, over both halves, and what that lets a score reach in a table."""
    both = of_space.dropna(subset=[f"{truth}_0", f"{truth}_1"])
    if len(both) < _FEWEST:
        print(f"{len(both)} networks have two seeds: too few for a ceiling")
        return
    found = _compare(both, both[f"{truth}_0"].to_numpy(), both[f"{truth}_1"].to_numpy())
    print(_line(f"seed against seed ({len(both)})", found))
    best = [perfect(float(found[key]), table["num_seeds"].mean()) for key in ("all", "within")]  # type: ignore[arg-type]
    print(f"{'perfect score (estimate)':28}  {best[0]:6.2f} {'':17} {best[1]:6.2f}")


def _report(truth: str, sign: int, sampled: pd.DataFrame, is_judged: bool) -> None:
    merit: dict[str, list[float]] = {}
    for space, of_space in sampled.groupby("space"):
        table = of_space[of_space["half"] == "choosing"]
        print(f"\n{space}, {truth}, choosing half, {len(table)} networks: tau over all | within equal cost (95 %)")
        for name, values in columns(table).items():
            found = _compare(table, values, sign * table[truth].to_numpy())
            merit.setdefault(name, []).extend((float(found["all"]), float(found["within"])))  # type: ignore[arg-type]
            print(_line(name, found))
        _print_ceiling(of_space, table, truth)
    chosen = max(merit, key=lambda name: float(np.nan_to_num(merit[name]).mean()))
    print(f"\nchosen by {truth}: {chosen}")
    if not is_judged:
        return
    for space, of_space in sampled.groupby("space"):
        table = of_space[of_space["half"] == "judging"]
        print(f"{space}, judging half, {len(table)} networks")
        for name in dict.fromkeys((chosen, "score", "macs")):
            print(_line(name, _compare(table, columns(table)[name], sign * table[truth].to_numpy())))
        _print_ceiling(of_space, table, truth)
        print(
            _line(
                "score, both halves",
                _compare(of_space, of_space["score"].to_numpy(), sign * of_space[truth].to_numpy()),
            )
        )


def _print_seconds() -> None:
    seconds = pd.read_csv(FOLDER / "accuracies.csv")["cpu_seconds"]
    print(f"\ntrainings: {len(seconds)}, {seconds.mean():.1f} CPU seconds each, {seconds.sum() / 3600:.2f} hours")
    of_scores = pd.read_csv(FOLDER / "scores.csv").filter(regex="_seconds$").mean()
    print("CPU seconds of a score: " + ", ".join(f"{name[:-8]} {value:.3f}" for name, value in of_scores.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", action="store_true", help="look at the judging half too")
    arguments = parser.parse_args()
    table = read()
    print(f"{len(table)} networks, {int((table['num_seeds'] == 2).sum())} of them under two seeds")
    anchors = table[table["half"] == "anchor"].sort_values("published", ascending=False)
    shown = ["topology", "published", "accuracy_0", "accuracy_1", "test_loss_0", "test_loss_1", "macs"]
    print(anchors[shown].to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    for truth, sign in TRUTHS.items():
        ours, published = sign * anchors[truth].to_numpy(), anchors["published"].to_numpy()
        print(f"{truth} against what is published: tau {kendall(ours, published):.2f}")
    for name in ("score", *SCORES):
        print(f"{name} against what is published: tau {kendall(anchors[name].to_numpy(), published):.2f}")
    sampled = table[table["half"] != "anchor"]
    for space, of_space in sampled.groupby("space"):
        by_bin = of_space.groupby("cost_bin")["accuracy"].agg(["count", "min", "mean", "max", "std"])
        print(f"\n{space}: accuracy by cost\n{by_bin[by_bin['count'] > 2].round(4).to_string()}")
        for truth in TRUTHS:
            noise = (of_space[f"{truth}_0"] - of_space[f"{truth}_1"]).std() / 2**0.5
            print(f"{truth}: deviation of networks {of_space[truth].std():.4f}, of one seed {noise:.4f}")
    _print_seconds()
    for truth, sign in TRUTHS.items():
        _report(truth, sign, sampled, arguments.judge)


if __name__ == "__main__":
    main()
