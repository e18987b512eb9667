"""Score every network of `networks.csv` without training, by `dnad_ray.networks.scores`.

    python experiments/truth/scores.py FOLDER

FOLDER is that of `train.py`. Every network is scored under several initialisations, always on the same batch of
training images; `scores.csv` holds a row for each initialisation, with the CPU seconds of each score. What is in the
table is not computed again.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import torch
from sample import SHAPE, TrueNetwork, genotype_of, read_networks
from train import Protocol, load_images

from dnad_ray.errors import UserError
from dnad_ray.networks.scores import SCORES, Batch, batch_for
from dnad_ray.runtime.devices import keep_freed_memory, to_device
from search_spaces.network import network_from

__all__ = ["COLUMNS", "SCORED", "score"]

SCORED = Path(__file__).with_name("scores.csv")
COLUMNS = ("network", "initialisation", *SCORES, *(f"{name}_seconds" for name in SCORES))
BATCH_SIZE = 64
SEED = 7  # of the batch


def score(network: TrueNetwork, initialisation: int, batch: Batch) -> dict[str, str | int | float]:
    """Return a row: the scores of a network under one initialisation, and what each cost in CPU seconds."""
    torch.manual_seed(initialisation)
    model = to_device(network_from(genotype_of(network.space, network.topology), SHAPE), torch.device("cpu"))
    row: dict[str, str | int | float] = {"network": network.network, "initialisation": initialisation}
    for name, function in SCORES.items():
        begun = time.process_time()
        row[name] = float(f"{function(model, batch_for(name, batch)):.7g}")
        row[f"{name}_seconds"] = round(time.process_time() - begun, 4)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--initialisations", nargs="+", type=int, default=[0, 1])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        images = load_images(arguments.folder, Protocol())
    except UserError as error:
        sys.exit(f"error: {error}")
    chosen = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(SEED))[:BATCH_SIZE]
    pixels = images.train[chosen].contiguous(memory_format=torch.channels_last)
    batch = Batch(pixels, images.train_labels[chosen])
    done: set[tuple[str, int]] = set()
    if SCORED.is_file():
        with SCORED.open(encoding="utf-8", newline="") as file:
            done = {(row["network"], int(row["initialisation"])) for row in csv.DictReader(file)}
    with SCORED.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not done:
            writer.writeheader()
        for initialisation in arguments.initialisations:
            for network in read_networks():
                if (network.network, initialisation) not in done:
                    writer.writerow(score(network, initialisation, batch))
                    file.flush()


if __name__ == "__main__":
    main()
