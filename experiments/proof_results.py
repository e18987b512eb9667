"""Tables and charts of what :mod:`proof` measured; loads neither torch nor Ray.

    python experiments/proof_results.py runs/proof-cifar10              # Markdown on the terminal
    python experiments/proof_results.py runs/proof-cifar10 --to docs/cifar10      # docs/cifar10-*.png and .md
    python experiments/proof_results.py runs/proof-cifar10 runs/proof-again       # other seeds of one setting, together

This file reads the folders. :mod:`proof_tables` makes the tables and explains the statistics, :mod:`proof_charts` makes
the charts.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from proof_charts import error_figure, gap_figure, response_figure
from proof_tables import (
    ORDER,
    compute_table,
    error_table,
    gap_table,
    heading,
    operation_table,
    paired_table,
    rank_table,
    response_table,
    volume_table,
)

from analysis import save_figure
from dnad_ray.run_folder.jobs import read_retrained
from dnad_ray.storage.places import place
from search_spaces.json_reader import parse_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="what proof.py wrote; several of other seeds are one")
    parser.add_argument("--to", type=Path, metavar="PREFIX", help="write PREFIX.md and a picture of each chart")
    options = parser.parse_args()
    folders: list[Path] = options.folders
    frame = together(networks(folder, "networks") for folder in folders)
    if not len(frame):
        given = " ".join(map(str, folders))
        raise SystemExit(f"folders: got {given}, where no network is trained yet; allowed: what proof.py wrote")
    picks = [pick for folder in folders for pick in picks_of(folder)]
    gaps = gap_frame(picks)
    answers = response_frame(together(networks(folder, "responses-networks") for folder in folders))
    text = "\n\n".join(
        part
        for part in (
            heading(frame, folders),
            error_table(frame),
            paired_table(frame, "dnad"),
            paired_table(frame, "snps"),
            volume_table(frame, folders),
            gap_table(gaps),
            rank_table(frame),
            operation_table(picks, frame),
            compute_table(frame),
            response_table(answers),
        )
        if part
    )
    charts = {"errors": error_figure(frame), "gaps": gap_figure(gaps), "responses": response_figure(answers)}
    print(text)
    if options.to is not None:
        options.to.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
        for name, figure in charts.items():
            if figure is not None:
                save_figure(figure, options.to.with_name(f"{options.to.name}-{name}.png"))


def networks(out: Path, name: str) -> pd.DataFrame:
    """Return one row per trained network: arm, seed, target, error, macs, params, proxy_accuracy, search_macs."""
    if not (out / f"{name}.json").exists():
        return pd.DataFrame()
    index = pd.DataFrame(parse_json((out / f"{name}.json").read_bytes(), f"{name}.json"))
    records, problems = read_retrained(place(out / name))
    for problem in problems:
        warnings.warn(problem, stacklevel=1)
    if not records:
        return pd.DataFrame()
    found = pd.DataFrame(records)[
        ["job", "accuracy", "macs", "params", "num_operations", "num_images", "split", "epochs", "train_accuracy"]
    ]
    frame = index[index["job"].notna()].merge(found, on="job", how="inner")
    frame["error"] = 1 - frame["accuracy"]
    return frame


def picks_of(out: Path) -> list[dict[str, Any]]:
    return list(parse_json((out / "picks.json").read_bytes(), "picks.json")) if (out / "picks.json").exists() else []


def together(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the networks of several folders as one table.

    Raises:
        SystemExit: If two folders have an arm under the same seed, which then is no further evidence.
    """
    found = [frame for frame in frames if len(frame)]
    if not found:
        return pd.DataFrame()
    frame = pd.concat(found, ignore_index=True)
    twice = frame[frame.duplicated(["arm", "seed", "target"])]
    if len(twice):
        arm, seed = twice.iloc[0][["arm", "seed"]]
        raise SystemExit(f"folders: got arm {arm} under seed {seed} twice; allowed: folders of other seeds or arms")
    return frame


def gap_frame(picks: list[dict[str, Any]]) -> pd.DataFrame:
    """Return arm, seed, epoch, train and validation accuracy of the searches that looked at both."""
    rows = {}
    for pick in picks:
        for epoch, train, validation, *_ in pick["history"] or []:
            if train is not None:
                rows[pick["arm"], pick["seed"], epoch] = (train, validation)
    frame = pd.DataFrame([(*key, *value) for key, value in rows.items()])
    if len(frame):
        frame.columns = pd.Index(["arm", "seed", "epoch", "train", "validation"])
        frame["gap"] = frame["train"] - frame["validation"]
    return frame


def response_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out seeds that only the arms have."""
    if not len(frame):
        return frame
    seeds = set(frame[~frame["arm"].isin(ORDER)]["seed"])
    return frame[frame["seed"].isin(seeds)]


if __name__ == "__main__":
    main()
