"""Which networks the truth is about: cells of NAS-Bench-201's space and networks of DNAD's space at equal costs.

    python experiments/truth/sample.py

writes `networks.csv`, one row a network; the same file each time, for every draw comes from a seed in this script.

Cells of NAS-Bench-201 are drawn uniformly from the 15,625; those that lead nowhere are left out, and of those that
compute the same (:func:`meaning_of`) the first is kept. DNAD's networks are drawn until each of three bins of equal
multiply-adds is full; how likely an operation or an early state is differs from network to network, so that within
a bin the mix of operations, their number and the depth vary.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dnad_ray.costs.table import costs_of
from search_spaces.genotype import Edge, Genotype
from search_spaces.named.nas_bench_201 import NAS_BENCH_201_OPERATIONS
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import SearchSpace, space_named
from search_spaces.supernet import Candidate, subset

__all__ = [
    "ANCHORS",
    "NETWORKS",
    "SHAPE",
    "SPACES",
    "TrueNetwork",
    "draw_all",
    "genotype_of",
    "meaning_of",
    "read_networks",
    "row_of",
    "topology_of_cell",
]

NETWORKS = Path(__file__).with_name("networks.csv")
SPACES: dict[str, SearchSpace] = {
    "nas-bench-201": space_named("nas-bench-201", None, num_cells=3, num_nodes=3),
    "dnad": space_named("dnad", None, num_cells=3, num_nodes=3),
}
"""Sizes at which networks are built; a cell of NAS-Bench-201 stands once in each stage."""
SHAPE = NetworkShape(images=ImageShape(in_channels=3, image_size=12, num_classes=10), init_channels=8)
"""Width and images with which they are trained, scored and counted."""

NUM_CELLS, NUM_PER_BIN = 150, 50
BINS = (350_000, 500_000, 700_000)
"""Multiply-adds (fvcore total) of the three bins of DNAD's networks."""
NEAR = 0.05
"""How far a network may be from its bin, as a share of it."""
SEED = 2020  # of the draws

ANCHORS = {
    "3|33|s33": 94.37,
    "3|33|333": 93.76,
    "3|33|3s3": 93.34,
    "s|s3|3s3": 93.18,
    "s|s3|333": 93.17,
    ".|..|s..": 86.45,
    "s|s1|sss": 77.04,
    "s|ss|sss": 54.30,
}
"""Cells whose test accuracy (%) on CIFAR-10 after 200 epochs is known from NAS-Bench-201 (arXiv 2001.00326)."""

_LETTERS = {
    "nas-bench-201": dict(zip(".s13a", NAS_BENCH_201_OPERATIONS, strict=True)),
    "dnad": {"p": "sep_conv_3x3", "d": "dil_conv_5x5", "s": "skip_connect"},
}


@dataclass(frozen=True, kw_only=True)
class TrueNetwork:
    """One network of the truth.

    Attributes:
        network: Its digest at the sizes of :data:`SPACES`.
        space: A key of :data:`SPACES`.
        topology: For NAS-Bench-201 one letter for each edge of the cell, node by node and by source: `.` none, `s`
            skip, `1` and `3` convolutions, `a` average pool. For DNAD cells parted by `/`, nodes by `|`, and an edge
            as `p` (separable 3x3), `d` (dilated 5x5) or `s` (skip) with its source.
        half: `choosing` or `judging` by the parity of the digest, or `anchor`.
        cost_bin: Networks of a space with the same number cost the same: multiply-adds of convolutions of a
            NAS-Bench-201 cell, the bin of a DNAD network.
        macs: Multiply-adds, fvcore's total.
        params: Parameters.
        num_operations: Edges that are alive.
        published: Test accuracy in % after 200 epochs, of anchors only.
    """

    network: str
    space: str
    topology: str
    half: str
    cost_bin: int
    macs: int
    params: int
    num_operations: int
    published: float | None


def genotype_of(space: str, topology: str) -> Genotype:
    """Return the genotype of a row of the table, in canonical form.

    >>> genotype_of("nas-bench-201", "3|.s|..1").num_operations  # 3 cells: what leads through node 2 and to the end
    9
    """
    letters = _LETTERS[space]
    if space == "dnad":
        wanted = {
            (cell, node, Edge(letters[edge[0]], int(edge[1:])))
            for cell, nodes in enumerate(topology.split("/"))
            for node, edges in enumerate(nodes.split("|"))
            for edge in edges.split()
        }
        return _only(SPACES[space], lambda item: (item.cell, item.node, item.edge) in wanted)
    nodes = topology.split("|")
    return _only(SPACES[space], lambda item: letters[nodes[item.node][item.edge.source]] == item.edge.operation)


def meaning_of(topology: str) -> str:
    """Return what a cell of NAS-Bench-201 computes, so that equal functions have equal names.

    A skip is the state that it reads, an operation on nothing is nothing, and the order of a sum means nothing.

    >>> meaning_of("s|.s|.13") == meaning_of(".|s3|1s3")
    True
    """
    states = ["x"]
    for node in topology.split("|"):
        terms = [
            state if letter == "s" else f"{letter}({state})"
            for letter, state in zip(node, states, strict=True)
            if letter != "." and state
        ]
        states.append(terms[0] if len(terms) == 1 else f"[{'+'.join(sorted(terms))}]" if terms else "")
    return states[-1]


def draw_all() -> list[TrueNetwork]:
    """Return anchors, cells and networks; a cell that is also an anchor is an anchor."""
    rows = [row_of("nas-bench-201", topology, is_anchor=True) for topology in ANCHORS]
    seen = set(map(meaning_of, ANCHORS))
    for topology in _cells(random.Random(SEED)):
        if meaning_of(topology) not in seen:
            rows.append(row_of("nas-bench-201", topology))
        seen.add(meaning_of(topology))
        if len(rows) == len(ANCHORS) + NUM_CELLS:
            break
    for number, macs in enumerate(BINS):
        drawn: dict[str, TrueNetwork] = {}
        for topology in _networks(random.Random(SEED + 1 + number), macs):
            row = row_of("dnad", topology, number)
            drawn[row.network] = row
            if len(drawn) == NUM_PER_BIN:
                break
        rows += drawn.values()
    return rows


def read_networks() -> list[TrueNetwork]:
    """Return the rows of the table that is committed."""
    with NETWORKS.open(encoding="utf-8", newline="") as file:
        return [
            TrueNetwork(
                network=row["network"],
                space=row["space"],
                topology=row["topology"],
                half=row["half"],
                cost_bin=int(row["cost_bin"]),
                macs=int(row["macs"]),
                params=int(row["params"]),
                num_operations=int(row["num_operations"]),
                published=float(row["published"]) if row["published"] else None,
            )
            for row in csv.DictReader(file)
        ]


def _cells(draws: random.Random) -> Iterator[str]:
    while True:
        letters = "".join(draws.choice(".s13a") for _ in range(6))
        topology = f"{letters[0]}|{letters[1:3]}|{letters[3:]}"
        if genotype_of("nas-bench-201", topology).num_operations:
            yield topology


def _networks(draws: random.Random, macs: int) -> Iterator[str]:
    """Yield topologies of DNAD's space whose multiply-adds are near to ``macs``."""
    space = SPACES["dnad"]
    everything = _candidates(space.dense())
    while True:
        of_operation = {operation: draws.uniform(0.1, 1) for operation in space.operations}
        towards_late = draws.uniform(-1, 1)  # below 0 nodes read early states, above it late ones: how deep cells are
        # The order of exponential arrivals is a draw without replacement by weight (Efraimidis and Spirakis 2006).
        arrival = {
            item: -math.log(1 - draws.random())
            / (of_operation[item.edge.operation] * (1 + item.edge.source) ** towards_late)
            for item in everything
        }
        order = sorted(everything, key=arrival.__getitem__)
        for number in range(6, len(order)):
            genotype = subset(space.dense(), order[:number]).pruned()
            cost = costs_of(genotype, SHAPE).macs if genotype.num_operations else 0
            if cost >= (1 - NEAR) * macs:
                if cost <= (1 + NEAR) * macs:
                    yield _topology_of(genotype)
                break


def _topology_of(genotype: Genotype) -> str:
    letter = {operation: letter for letter, operation in _LETTERS["dnad"].items()}
    return "/".join(
        "|".join(" ".join(f"{letter[edge.operation]}{edge.source}" for edge in node) for node in cell.nodes)
        for cell in genotype.cells
    )


def row_of(space: str, topology: str, cost_bin: int | None = None, *, is_anchor: bool = False) -> TrueNetwork:
    """Return the row of a network of a space; its bin is that of its convolutions' multiply-adds, if none is given."""
    genotype = genotype_of(space, topology)
    cost = costs_of(genotype, SHAPE)
    return TrueNetwork(
        network=genotype.digest,
        space=space,
        topology=topology,
        half="anchor" if is_anchor else ("judging" if int(genotype.digest, 16) % 2 else "choosing"),
        cost_bin=cost.macs_conv_linear if cost_bin is None else cost_bin,
        macs=cost.macs,
        params=cost.params,
        num_operations=genotype.num_operations,
        published=ANCHORS[topology] if is_anchor else None,
    )


def topology_of_cell(cell: str) -> str:
    """Return the topology of a cell in the benchmark's own notation.

    >>> topology_of_cell("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|none~2|")
    '3|.1|sa.'
    """
    letter = {operation: letter for letter, operation in _LETTERS["nas-bench-201"].items()}
    nodes = (node.strip("|").split("|") for node in cell.split("+"))
    return "|".join("".join(letter[edge.partition("~")[0]] for edge in node) for node in nodes)


def _candidates(genotype: Genotype) -> list[Candidate]:
    return [
        Candidate(cell, node, edge)
        for cell, topology in enumerate(genotype.cells)
        for node, edges in enumerate(topology.nodes)
        for edge in edges
    ]


def _only(space: SearchSpace, is_wanted: Callable[[Candidate], bool]) -> Genotype:
    dense = space.dense()
    return subset(dense, filter(is_wanted, _candidates(dense))).pruned()


def main() -> None:
    rows = draw_all()
    with NETWORKS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, TrueNetwork.__dataclass_fields__, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.__dict__ for row in rows)
    print(f"{len(rows)} networks in {NETWORKS.name}")


if __name__ == "__main__":
    main()
