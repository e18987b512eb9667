"""Search NAS-Bench-201's cell under ten seeds, with and without a teacher, and write down every cell that is recorded.

    python experiments/truth/searches.py FOLDER

FOLDER is that of `train.py`. The setting is the one in which the collapse was measured: recipe `images`, 16x16 pixels,
6,000 images to train on and 4,000 to score, 6 cells x 8 channels, 20 epochs, warm-up 3, rate 0.06. Each search appends
its snapshots to `searches.csv`, and what is in the table is not searched again. The cells are strings of the benchmark,
so that they can be looked up in its published table.

The arm `dnad` imitates; its teacher is trained once, by the recipe's own setting, and all its seeds share it.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import dnad_ray as dr
from dnad_ray.errors import UserError
from dnad_ray.run_folder.reading import read_genotype
from search_spaces.formats import to_nas_bench_201

__all__ = ["COLUMNS", "SEARCHES", "SETTING", "search_once"]

SEARCHES = Path(__file__).with_name("searches.csv")
COLUMNS = ("arm", "seed", "cpu_seconds", "epoch", "step", "kind", "rung", "cell", "macs", "params", "proxy_accuracy")
SETTING: dict[str, Any] = {
    "data.validation_share": 0.4,
    "data.padding": "black",  # as when these searches were made
    "space.num_cells": 6,
    "space.init_channels": 8,
    "train.warmup_epochs": 3,
    "shrink.rate": 0.06,
}
NUM_SEEDS = 10


def search_once(arm: str, seed: int, images: Path, runs: Path) -> list[dict[str, Any]]:
    """Run one search and return a row for each of its snapshots.

    Args:
        arm: `snps` without a teacher, or `dnad` with one.
        seed: Seed of the search and of the split.
        images: Image folder.
        runs: Where the run folder is made; what an earlier call left there is replaced.
    """
    folder = runs / f"{arm}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    settings = SETTING | (
        {"distill.kind": "none", "distill.temperature": None}
        if arm == "snps"
        else {"distill.teacher.source": "saved", "distill.teacher.weights": str(teacher_of(images, runs))}
    )
    begun = time.process_time()
    run = dr.run_search(
        "images", data=str(images), space="nas-bench-201", image_size=16, epochs=20, seed=seed,
        set=[f"{key}={json.dumps(value)}" for key, value in settings.items()], out=folder, quiet=True,
    )  # fmt: skip
    seconds = round(time.process_time() - begun, 1)
    rows = []
    for record in run.contents().snapshots:
        cell = to_nas_bench_201(read_genotype(folder, record["digest"]))
        rows.append({name: record.get(name) for name in COLUMNS} | {
            "arm": arm, "seed": seed, "cpu_seconds": seconds, "cell": cell,
        })  # fmt: skip
    return rows


def teacher_of(images: Path, runs: Path) -> Path:
    """Return the folder of the teacher, which is trained if it is not there."""
    folder = runs / "teacher"
    if not (folder / "teacher.json").is_file():
        settings = [f"{key}={json.dumps(value)}" for key, value in SETTING.items()]
        dr.make_teacher(
            "images", data=str(images), space="nas-bench-201", image_size=16, out=folder, quiet=True, set=settings,
        )  # fmt: skip
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--runs", type=Path, default=Path("runs/truth-searches"), help="where run folders are made")
    parser.add_argument("--arms", nargs="+", choices=("snps", "dnad"), default=["snps", "dnad"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(NUM_SEEDS)))
    arguments = parser.parse_args()
    for arm in arguments.arms:
        for seed in arguments.seeds:
            if (arm, seed) in searched():
                continue
            try:
                rows = search_once(arm, seed, arguments.folder.resolve(), arguments.runs.resolve())
            except UserError as error:
                sys.exit(f"error: {error}")
            append(rows)
            print(arm, seed, rows[-1]["kind"], rows[-1]["cell"], f"{rows[-1]['cpu_seconds']} CPU s", flush=True)


def searched() -> set[tuple[str, int]]:
    """Return the arms and seeds that are in the table."""
    if not SEARCHES.is_file():
        return set()
    with SEARCHES.open(encoding="utf-8", newline="") as file:
        return {(row["arm"], int(row["seed"])) for row in csv.DictReader(file)}


def append(rows: list[dict[str, Any]]) -> None:
    """Append the rows of a search at once, so that one that is cut off leaves none."""
    is_new = not SEARCHES.is_file()
    with SEARCHES.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
