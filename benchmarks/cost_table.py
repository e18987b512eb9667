"""What a network's costs cost: a trace of the whole network, filling the table, and looking up in it.

    python benchmarks/cost_table.py --settings demo cifar imagenet --repeats 10 --json cost_table.json

Every repeat draws a random genotype and measures all of it in turn, in CPU seconds of one thread, and checks that table
and trace agree to the last digit. A table is filled from nothing each time, by one genotype: later ones find most of
their parts. A lookup is measured twice: of a genotype as a search has it, and of its canonical form.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path

import torch

from dnad_ray.costs.table import CostTable
from dnad_ray.costs.trace import COUNTER, complexity_of
from search_spaces.genotype import CellGenotype, Genotype
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import NAMED_OPERATIONS, SearchSpace

DEMO = ("sep_conv_3x3", "dil_conv_3x3", "max_pool_3x3", "skip_connect")
SETTINGS = {
    "demo": (
        SearchSpace(operations=DEMO, num_cells=3, num_nodes=3),
        NetworkShape(images=ImageShape(in_channels=1, image_size=8, num_classes=10), init_channels=16),
    ),
    "cifar": (
        SearchSpace(operations=NAMED_OPERATIONS["dnad"], num_cells=8, num_nodes=4),
        NetworkShape(images=ImageShape(in_channels=3, image_size=32, num_classes=10), init_channels=36),
    ),
    "imagenet": (
        SearchSpace(operations=NAMED_OPERATIONS["darts"], num_cells=14, num_nodes=4),
        NetworkShape(
            images=ImageShape(in_channels=3, image_size=224, num_classes=1000), init_channels=48, stem="imagenet"
        ),
    ),
}
MOST_OPERATIONS = (
    330  # what a search leaves behind is sparser; the densest network of a large space has four times that
)
LOOKUPS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--repeats", type=int, default=10, help="random genotypes of each setting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(arguments.seed)
    complexity_of(SETTINGS["demo"][0].dense(), SETTINGS["demo"][1])  # the first trace of a process pays for others
    rows = {name: [] for name in arguments.settings}
    for _ in range(arguments.repeats):
        for name in arguments.settings:
            rows[name].append(measured(random_genotype(SETTINGS[name][0], rng), SETTINGS[name][1]))
    settings = {name: summary(found) for name, found in rows.items()}
    print_table(settings)
    if arguments.json:
        result = {"counter": COUNTER, "torch": torch.__version__, "seed": arguments.seed, "settings": settings}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    if any(row["equal"] < row["genotypes"] for row in settings.values()):
        sys.exit("table and trace differ")


def random_genotype(space: SearchSpace, rng: random.Random) -> Genotype:
    """A connected genotype that keeps a random share of all candidates."""
    dense = space.dense()
    while True:
        density = rng.uniform(0.1, 1) * min(1, MOST_OPERATIONS / dense.num_operations)
        cells = tuple(
            CellGenotype(cell.reduction, tuple(tuple(e for e in node if rng.random() < density) for node in cell.nodes))
            for cell in dense.cells
        )
        genotype = Genotype(cells)
        if genotype.is_connected:
            return genotype


def measured(genotype: Genotype, shape: NetworkShape) -> dict[str, float]:
    complexity_of.cache_clear()
    began = time.process_time()
    by_trace = complexity_of(genotype, shape)
    traced = time.process_time()
    table = CostTable(shape)
    by_table = table.complexity_of(genotype)
    filled = time.process_time()
    # Genotypes of their own, for none may profit from what another one remembers.
    canonical = [Genotype(genotype.cells).pruned() for _ in range(LOOKUPS)]
    given = [Genotype(genotype.cells) for _ in range(LOOKUPS)]
    return {
        "equal": by_table == by_trace,
        "num_operations": canonical[0].num_operations,
        "trace_seconds": traced - began,
        "fill_seconds": filled - traced,
        "lookup_seconds": lookup(table, given),
        "lookup_canonical_seconds": lookup(table, canonical),
    }


def lookup(table: CostTable, genotypes: list[Genotype]) -> float:
    began = time.process_time()
    for genotype in genotypes:
        table.complexity_of(genotype)
    return (time.process_time() - began) / len(genotypes)


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Medians; of the lookup the slowest, too."""
    operations = [row["num_operations"] for row in rows]
    return {
        "genotypes": len(rows),
        "equal": sum(row["equal"] for row in rows),
        "fewest_operations": min(operations),
        "most_operations": max(operations),
        **{name: statistics.median(row[name] for row in rows) for name in rows[0] if name.endswith("_seconds")},
        "slowest_lookup_seconds": max(row["lookup_seconds"] for row in rows),
    }


def print_table(settings: dict[str, dict[str, float]]) -> None:
    heads = (
        "setting",
        "operations",
        "equal",
        "trace s",
        "fill s",
        "lookup ms",
        "canonical ms",
        "slowest ms",
        "trace / lookup",
    )
    print("".join(f"{head:>15}" for head in heads))
    for name, row in settings.items():
        cells = (
            name,
            f"{row['fewest_operations']} to {row['most_operations']}",
            f"{row['equal']} of {row['genotypes']}",
            f"{row['trace_seconds']:.3f}",
            f"{row['fill_seconds']:.3f}",
            f"{1e3 * row['lookup_seconds']:.3f}",
            f"{1e3 * row['lookup_canonical_seconds']:.3f}",
            f"{1e3 * row['slowest_lookup_seconds']:.3f}",
            f"{row['trace_seconds'] / row['lookup_seconds']:,.0f}",
        )
        print("".join(f"{cell:>15}" for cell in cells))


if __name__ == "__main__":
    main()
