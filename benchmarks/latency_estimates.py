"""How good estimates of latency are: the sum over a table of parts beside the time of whole networks, on this machine.

    python -m benchmarks.latency_estimates [--networks 30] [--image-size 32] [--json FILE]

For each space and runtime random networks are drawn (in ``device`` every other one is a plain residual network), with
random widths and stems. Each is estimated and then timed, on one thread. Printed are the median of the relative errors,
the largest one, and Spearman's rank correlation.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from dnad_ray.config.recipes import recipe_named
from dnad_ray.networks.latency import RUNTIMES, latency_table_for, milliseconds_in
from dnad_ray.networks.search_space import space_of
from dnad_ray.retrain.race import plain_members
from search_spaces.genotype import Genotype
from search_spaces.network import network_from
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import SearchSpace

RECIPES = ("device", "images")
WIDTHS = (8, 16, 24, 32)
REPEATS = 60


def random_genotype(space: SearchSpace, rng: random.Random) -> Genotype:
    """Return a network with one or two random candidates on each node."""
    dense = space.dense()
    while True:
        cells = (
            replace(cell, nodes=tuple(tuple(sorted(rng.sample(node, rng.randint(1, 2)))) for node in cell.nodes))
            for cell in dense.cells
        )
        genotype = replace(dense, cells=tuple(cells))
        if genotype.is_connected:
            return genotype


def pairs_of(recipe: str, runtime: str, images: ImageShape, number: int, seed: int) -> list[tuple[float, float]]:
    """Return estimate and time of each network, in milliseconds."""
    space, rng, found = space_of(recipe_named(recipe).space), random.Random(seed), []
    plain = plain_members(space, with_lean=True) if recipe == "device" else []
    stems = ("cifar", "half") if recipe == "device" else ("cifar",)
    for index in range(number):
        genotype = rng.choice(plain) if plain and index % 2 else random_genotype(space, rng)
        shape = NetworkShape(images=images, init_channels=rng.choice(WIDTHS), stem=rng.choice(stems))
        estimate = latency_table_for(shape, space.usual_teacher(), runtime).milliseconds_of(genotype)
        image = torch.zeros(1, images.in_channels, images.image_size, images.image_size)
        times = milliseconds_in(runtime, network_from(genotype, shape), image, repeats=REPEATS)
        found.append((estimate, statistics.median(times)))
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = ImageShape(in_channels=3, image_size=options.image_size, num_classes=10)
    table, results = Table("space", "runtime", "median error", "largest", "rank correlation", "ms", box=None), {}
    for recipe in RECIPES:
        for runtime in RUNTIMES:
            pairs = pairs_of(recipe, runtime, images, options.networks, options.seed)
            errors = [abs(estimate / taken - 1) for estimate, taken in pairs]
            ranks = float(spearmanr(*zip(*pairs, strict=True)).statistic)
            times = [taken for _, taken in pairs]
            table.add_row(
                recipe, runtime, f"{statistics.median(errors):.1%}", f"{max(errors):.1%}", f"{ranks:.3f}",
                f"{min(times):.3f} to {max(times):.3f}",
            )  # fmt: skip
            results[f"{recipe} {runtime}"] = pairs
    Console(width=120).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
