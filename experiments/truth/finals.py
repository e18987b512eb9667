"""Are the final cells of searches as good as the best of 20 random cells, chosen by a short training?

    python experiments/truth/finals.py FOLDER

Every cell that a search of `searches.csv` ends with is trained like those of the truth (`train.py`) under both seeds,
a row each in `finals.csv`. For each search, 20 of the truth's random cells are drawn, and the one with the best
accuracy under seed 0 is chosen. It and the final cell are compared by accuracies under seed 1, which chose neither.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

import torch
from sample import TrueNetwork, read_networks, row_of, topology_of_cell
from searches import SEARCHES
from train import ACCURACIES, Protocol, load_images, train_all

from dnad_ray.runtime.devices import keep_freed_memory

__all__ = ["FINALS", "compared", "final_cells"]

FINALS = Path(__file__).with_name("finals.csv")
DRAWN = 20


def final_cells() -> dict[tuple[str, int], TrueNetwork]:
    """Return the cell that each search ends with, by arm and seed."""
    with SEARCHES.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "final"]
    return {(row["arm"], int(row["seed"])): row_of("nas-bench-201", topology_of_cell(row["cell"])) for row in rows}


def accuracies(table: Path) -> dict[tuple[str, int], float]:
    """Return the accuracies of a table by network and seed."""
    with table.open(encoding="utf-8", newline="") as file:
        return {(row["network"], int(row["seed"])): float(row["accuracy"]) for row in csv.DictReader(file)}


def compared() -> list[tuple[str, int, float, float]]:
    """Return for each search: arm, seed, and the accuracies under seed 1 of its final cell and of the chosen cell."""
    truth, finals = accuracies(ACCURACIES), accuracies(FINALS)
    cells = [row for row in read_networks() if row.space == "nas-bench-201" and row.half != "anchor"]
    known = [row.network for row in cells if (row.network, 1) in truth]
    found = []
    for (arm, seed), final in final_cells().items():
        drawn = random.Random(f"{arm} {seed}").sample(known, DRAWN)
        chosen = max(drawn, key=lambda network: truth[network, 0])
        found.append((arm, seed, finals[final.network, 1], truth[chosen, 1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    networks = {network.network: network for network in final_cells().values()}
    jobs = [(network, seed) for seed in (1, 0) for network in networks.values()]
    train_all(jobs, load_images(arguments.folder, Protocol()), Protocol(), FINALS)
    for arm in ("snps", "dnad"):
        rows = [row for row in compared() if row[0] == arm]
        better = sum(final >= chosen for _, _, final, chosen in rows)
        means = (sum(row[column] for row in rows) / len(rows) for column in (2, 3))
        print(
            f"{arm}: final {{:.3f}}, best of {DRAWN} {{:.3f}}; as good or better in {better} of {len(rows)}".format(
                *means
            )
        )
        print("  " + "; ".join(f"seed {seed}: {final:.3f} {chosen:.3f}" for _, seed, final, chosen in rows))


if __name__ == "__main__":
    main()
