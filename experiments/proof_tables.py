"""Markdown tables of the proof, with intervals over seeds and paired tests; loads neither torch nor Ray.

Intervals are of Student's t over seeds. Arms are compared seed by seed: the mean difference, its 95 % interval and the
p value of a paired t test, with Holm's correction over all comparisons of a table. Hypervolume is that of (error, log
of multiply-adds) up to (error of chance, the largest target), from half the smallest target, so that every doubling of
cost counts alike. A trained network counts with the multiply-adds of its target, not with the few less that whole
channels leave it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from proof_settings import ARMS
from scipy import stats

from analysis import hypervolume_share, load_runs, rank_correlation
from search_spaces.genotype import Genotype
from search_spaces.json_reader import parse_json

ORDER = [arm.name for arm in ARMS]


def heading(frame: pd.DataFrame, folders: Sequence[Path]) -> str:
    row = frame.iloc[0]
    teachers = dict.fromkeys(
        f"{file.parent.name} {parse_json(file.read_bytes(), file.name)['accuracy']:.1%}"
        for folder in folders
        for file in sorted(folder.glob("teachers/*/teacher.json"))
    )
    return (
        f"{len(frame)} networks trained from scratch for {row['epochs']} epochs, each measured once on "
        f"{row['num_images']:,} {row['split']} images; {frame['seed'].nunique()} seeds. "
        f"Teachers on the validation images: {', '.join(teachers)}."
    )


def mean_and_margin(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return float(array.mean()), math.nan
    margin = stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    return float(array.mean()), float(margin)


def words(values: Sequence[float], scale: float = 100, digits: int = 2, sign: str = "") -> str:
    mean, margin = mean_and_margin(values)
    text = f"{scale * mean:{sign}.{digits}f}"
    return text if math.isnan(margin) else f"{text} +- {scale * margin:.{digits}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def arms_of(frame: pd.DataFrame) -> list[str]:
    present = set(frame["arm"])
    return [arm for arm in ORDER if arm in present] + sorted(present - set(ORDER))


def error_table(frame: pd.DataFrame) -> str:
    """Test error at each target, mean and 95 % interval over seeds."""
    targets = sorted(frame["target"].unique())
    rows = []
    for arm in arms_of(frame):
        mine = frame[frame["arm"] == arm]
        cells = []
        for target in targets:
            values = mine[mine["target"] == target]["error"]
            cells.append(words(values) if len(values) else "does not fit")
        per_seed = mine.groupby("seed")["error"].mean()
        rows.append([arm, *cells, words(per_seed), str(mine["seed"].nunique())])
    header = ["Test error, %", *(f"{target / 1e6:g} M" for target in targets), "mean of targets", "seeds"]
    return table(header, rows)


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number, in the order given."""
    order = np.argsort(values)
    corrected, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected


def paired_table(frame: pd.DataFrame, base: str) -> str:
    """Each arm against one of them, seed by seed, over the targets that both have."""
    theirs = frame[frame["arm"] == base].set_index(["seed", "target"])["error"]
    rows, values = [], []
    for arm in arms_of(frame):
        if arm == base:
            continue
        mine = frame[frame["arm"] == arm].set_index(["seed", "target"])["error"]
        differences = (mine - theirs).dropna().groupby("seed").mean()
        if len(differences) > 1:
            values.append(float(stats.ttest_1samp(differences, 0).pvalue))
            worse = int((differences > 0).sum())
            rows.append([arm, words(differences, sign="+"), f"{worse} of {len(differences)}"])
    cells = [
        [*row, f"{value:.3f}", f"{corrected:.3f}"]
        for row, value, corrected in zip(rows, values, holm(values), strict=True)
    ]
    header = [f"Error more than {base}, points", "mean, 95 %", "worse under", "p", "p, Holm"]
    return table(header, cells) if cells else ""


def volume(points: Sequence[tuple[float, float]], targets: Sequence[int], chance: float) -> float:
    """Share of the box of (error, log2 of cost) that points dominate."""
    low, high = math.log2(min(targets) / 2), math.log2(max(targets))
    scaled = [(error, max(0.0, math.log2(macs) - low)) for error, macs in points]
    return float(hypervolume_share(scaled, (chance, high - low + 1e-9))) if scaled else 0.0


def volume_table(frame: pd.DataFrame, folders: Sequence[Path], chance: float = 0.9) -> str:
    """Hypervolume of the retrained front, and of the search's own proxy front where there is one."""
    targets = sorted(int(target) for target in frame["target"].unique())
    retrained = {
        key: volume([*zip(rows["error"], rows["target"], strict=True)], targets, chance)
        for key, rows in frame.groupby(["arm", "seed"])
    }
    proxies: dict[tuple[str, int], float] = {}
    for arm in arms_of(frame):
        runs = [folder / arm for folder in folders if (folder / arm / "run.json").exists()]
        if runs:
            for seed, rows in load_runs(runs).groupby("seed"):
                points = [*zip(rows["error"], rows["macs"], strict=True)]
                proxies[arm, int(str(seed))] = volume(points, targets, chance)
    rows = []
    for arm in arms_of(frame):
        seeds = sorted(seed for name, seed in retrained if name == arm)
        if len(set(frame[frame["arm"] == arm]["target"])) < len(targets):
            continue  # of fewer sizes there is less volume, whatever the errors
        cells = [words([retrained[arm, seed] for seed in seeds], 1, 4)]
        for base in ("dnad", "snps"):
            both = [seed for seed in seeds if (base, seed) in retrained]
            differences = [retrained[arm, seed] - retrained[base, seed] for seed in both]
            if arm == base or len(both) < 2:
                cells.append("")
            else:
                p = float(stats.ttest_1samp(differences, 0).pvalue)
                cells.append(f"{words(differences, 1, 4, '+')} (p {p:.3f})")
        mine = [proxies[arm, seed] for seed in seeds if (arm, seed) in proxies]
        cells.append(words(mine, 1, 4) if mine else "")
        rows.append([arm, *cells])
    return table(["Hypervolume", "retrained", "against dnad", "against snps", "proxy front"], rows)


def gap_table(gaps: pd.DataFrame) -> str:
    """Training minus validation accuracy: over the search and at its end.

    Gaps grow with the epochs, and an arm that shrinks is first looked at after its warm-up: means are of epochs since
    all arms are looked at, and differences of epochs that both arms have under a seed.
    """
    if not len(gaps):
        return ""
    begins = gaps.groupby("arm")["epoch"].min().max()
    rows, means = [], gaps[gaps["epoch"] >= begins].groupby(["arm", "seed"])["gap"].mean()
    by_epoch = gaps.set_index(["seed", "epoch"])
    for arm in arms_of(gaps):
        mine = gaps[gaps["arm"] == arm].sort_values("epoch")
        last = mine.groupby("seed").tail(1)
        more = ""
        if arm != "snps" and "snps" in means:
            of_arm, of_snps = (by_epoch[by_epoch["arm"] == name]["gap"] for name in (arm, "snps"))
            differences = (of_arm - of_snps).dropna().groupby("seed").mean()
            if len(differences) > 1:
                more = f"{words(list(differences), sign='+')} (p {stats.ttest_1samp(differences, 0).pvalue:.3f})"
        ends = (words(list(values)) for values in (last["gap"], last["train"], last["validation"]))
        rows.append([arm, words(list(means[arm])), more, *ends])
    header = ["Points", "gap, mean", "more than snps", "gap at the end", "training accuracy", "validation accuracy"]
    return table(header, rows)


def rank_table(frame: pd.DataFrame) -> str:
    """Kendall and Spearman of proxy and retrained accuracy, within each target, over arms and seeds."""
    scored = frame[frame["proxy_accuracy"].notna() & frame["arm"].isin(ORDER) & (frame["arm"] != "random-best")]
    if len(scored) < 4:
        return ""
    rows = []
    groups = [(f"{target / 1e6:g} M", rows) for target, rows in scored.groupby("target")]
    for name, group in [*groups, ("all, means of targets taken away", centred(scored))]:
        found = rank_correlation(list(group["proxy_accuracy"]), list(group["accuracy"]))
        low, high = found.kendall_interval
        kendall = f"{found.kendall:+.2f} ({low:+.2f} .. {high:+.2f})"
        rows.append([name, str(found.num_networks), kendall, f"{found.spearman:+.2f}"])
    return table(["Proxy against retrained", "networks", "Kendall (95 %)", "Spearman"], rows)


def centred(frame: pd.DataFrame) -> pd.DataFrame:
    columns = ["proxy_accuracy", "accuracy"]
    return frame[columns] - frame.groupby("target")[columns].transform("mean")


def operation_table(picks: Sequence[dict[str, Any]], frame: pd.DataFrame) -> str:
    """Share of each operation among those of a network, and their number: means over the seeds and targets of an arm.

    The last row is Spearman's rank correlation of each column with the test error, within each target.
    """
    found = []
    for pick in picks:
        if data := pick["subject"].get("genotype"):
            network = Genotype.from_dict(data)
            kinds = Counter(edge.operation for cell in network.cells for node in cell.nodes for edge in node)
            shares = {kind: count / network.num_operations for kind, count in kinds.items()}
            key = {name: pick[name] for name in ("arm", "seed", "target")}
            found.append({**key, **shares, "operations": network.num_operations})
    if not found:
        return ""
    made = pd.DataFrame(found).fillna(0)
    names = [*sorted(set(made) - {"arm", "seed", "target", "operations"}), "operations"]
    rows = []
    for arm in arms_of(made):
        mine = made[made["arm"] == arm]
        cells = [f"{mine[name].mean():.1f}" if name == "operations" else f"{mine[name].mean():.1%}" for name in names]
        rows.append([arm, *cells, str(len(mine))])
    measured = made.merge(frame[["arm", "seed", "target", "error"]], on=["arm", "seed", "target"])
    within = measured[[*names, "error"]] - measured.groupby("target")[[*names, "error"]].transform("mean")
    ranks = within[names].corrwith(within["error"], method="spearman")
    rows.append(["rank with error", *(f"{ranks[name]:+.2f}" for name in names), str(len(measured))])
    return table(["What networks are made of", *names, "networks"], rows)


def compute_table(frame: pd.DataFrame) -> str:
    """Multiply-adds of training in the search, and of the search and retraining for each network."""
    rows = []
    for arm in arms_of(frame):
        mine = frame[frame["arm"] == arm]
        search = mine.groupby("seed")["search_macs"].first()
        rows.append([arm, words(list(search), 1e-12, 3), words(list(search / mine.groupby("seed").size()), 1e-12, 3)])
    return table(["Compute of the search, 10^12 multiply-adds", "per seed", "per network of the front"], rows)


def response_table(frame: pd.DataFrame) -> str:
    """One setting away from dnad, at the middle target; p of paired t tests, corrected for all rows."""
    if not len(frame):
        return ""
    base = frame[frame["arm"] == "dnad"].set_index("seed")["error"]
    rows, values = {}, {}
    for arm in dict.fromkeys(frame["arm"]):
        mine = frame[frame["arm"] == arm].set_index("seed")
        differences = (mine["error"] - base).dropna()
        more = words(list(differences), sign="+") if arm != "dnad" and len(differences) else ""
        rows[arm] = [arm, words(list(mine["error"])), more, words(list(1 - mine["proxy_accuracy"])), str(len(mine))]
        if arm != "dnad" and len(differences) > 1:
            values[arm] = float(stats.ttest_1samp(differences, 0).pvalue)
    corrected = dict(zip(values, holm(list(values.values())), strict=True))
    cells = [
        [*row, *(f"{found[arm]:.3f}" if arm in found else "" for found in (values, corrected))]
        for arm, row in rows.items()
    ]
    return table(["Test error, %", "error", "more than dnad, points", "proxy error", "seeds", "p", "p, Holm"], cells)
