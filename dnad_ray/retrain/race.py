"""A race of networks: successive halving among networks of equal cost, never across costs.

Networks of all kinds are scaled to a few budgets of multiply-adds, the bins. In each rung, every network of the race is
trained by a complete short schedule, annealed to zero, and measured on validation images; the better part of each bin
goes on to the next rung, whose schedule is longer (successive halving, Jamieson and Talwalkar, arXiv 1502.07943).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dnad_ray.errors import ConfigError
from dnad_ray.networks.latency_limit import LatencyLimit
from dnad_ray.networks.spec import NetworkSpec, check_image_size, cost_of, scaled_to
from search_spaces.genotype import Genotype
from search_spaces.ops import PARAMETER_FREE
from search_spaces.shape import ImageShape
from search_spaces.space import SearchSpace
from search_spaces.stages import stages

__all__ = ["Build", "Found", "entrants", "plain_members", "survivors"]

_LEAST_CHANNELS = 4
_WIDTH_STEP, _WIDTH_STEP_BY_TIME = 2, 8
"""Widths are multiples of the first number, and of the second where latency is limited: that of a vector register, as
others cost the time of the next multiple."""
_LEAST_USE = 0.6
"""Share of a budget that a network must use; depth makes up for the steps of the width."""
_LAYER = 0.05
"""What a layer costs in time, as a share of a budget: plain networks that use much of the budget in few layers
come first. At 3 M multiply-adds, 21 layers of 8 channels took twice as long as 7 of 16 (an image in torch). Nor was
depth better: after 12 epochs on 3,000 images of CIFAR-10, the shallowest plain network was the best one, or within
noise of it, at each of four budgets from 0.4 to 3.2 M."""
_POINTWISE = "nor_conv_1x1"
_NEAREST = 4
"""Networks of a search that are compared by score, for each place of the race."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """What all networks of a race have in common.

    Attributes:
        images: Shape of the images.
        stem: Stem.
        max_params: Most parameters, None for no limit.
        latency: Most latency, None for no limit.
    """

    images: ImageShape
    stem: str
    max_params: int | None = None
    latency: LatencyLimit | None = None

    @property
    def is_limited(self) -> bool:
        """Whether something besides a budget of multiply-adds limits the networks."""
        return self.max_params is not None or self.latency is not None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A network that a search recorded.

    Attributes:
        genotype: Its topology.
        macs: Its multiply-adds at the width of the record.
        score: What orders networks of equal cost; more is better. None for none.
    """

    genotype: Genotype
    macs: int
    score: float | None


def plain_members(space: SearchSpace, *, with_lean: bool = False) -> list[Genotype]:
    """Return the plain networks of a space, deepest first: its usual teacher, with fewer cells in some stages.

    In the residual skeleton a cell that is only a skip connection is the identity, so these are ResNets of several
    depths; no stage is deeper than the one before it. Other spaces have one plain network.

    Args:
        space: The space.
        with_lean: Whether to add the same networks with a pointwise convolution first in each cell, if the space has
            it. These are faster: 0.088 ms in ONNX Runtime instead of 0.102, with one cell of 16 channels.
    """
    whole = space.usual_teacher()
    if space.skeleton != "nas_bench_201" or space.edge_operations is None:
        return [whole]
    kinds = [whole]
    if with_lean and all(_POINTWISE in kind[0] for kind in space.edge_operations):
        kinds.append(_with_first(whole, _POINTWISE))
    members = dict.fromkeys(member for kind in kinds for member in _of_all_depths(kind))
    return sorted(members, key=lambda genotype: -genotype.num_operations)


def _with_first(whole: Genotype, operation: str) -> Genotype:
    """Return a network with another operation on each edge into the first node of a cell."""
    cells = (
        replace(cell, nodes=(tuple(edge._replace(operation=operation) for edge in cell.nodes[0]), *cell.nodes[1:]))
        for cell in whole.cells
    )
    return replace(whole, cells=tuple(cells))


def _of_all_depths(whole: Genotype) -> Iterator[Genotype]:
    """Yield a residual network with the cells of some stages made the identity."""
    identity = replace(
        whole,
        cells=tuple(
            replace(cell, nodes=tuple(tuple(e for e in node if e.operation in PARAMETER_FREE) for node in cell.nodes))
            for cell in whole.cells
        ),
    )
    of_stage = stages(whole)
    most = max(of_stage.count(stage) for stage in set(of_stage))
    for depths in itertools.product(range(most, -1, -1), repeat=len(set(of_stage))):
        if list(depths) != sorted(depths, reverse=True):
            continue
        cells = (
            kept if of_stage[:index].count(of_stage[index]) < depths[of_stage[index]] else empty
            for index, (kept, empty) in enumerate(zip(whole.cells, identity.cells, strict=True))
        )
        yield replace(whole, cells=tuple(cells)).pruned()


def entrants(
    plain: Sequence[Genotype], found: Sequence[Found], budgets: Sequence[int], build: Build, *, places: int
) -> dict[int, list[NetworkSpec]]:
    """Return the networks that race for each budget, scaled to it.

    Half of the places, rounded up, are for networks of searches. For each budget these are, of the recorded networks
    that are nearest in cost, the ones with the best scores. The other places are for plain networks; what one kind
    cannot fill, the other does.

    Args:
        plain: Plain networks of the space, as :func:`plain_members` returned them.
        found: What searches recorded.
        budgets: Most multiply-adds of each bin.
        build: What all have in common.
        places: Networks in each bin.

    Returns:
        Budget -> networks; budgets that no network can be scaled to are left out. No network of one width is there
        twice, where a limit on parameters makes budgets alike.
    """
    race: dict[int, list[NetworkSpec]] = {}
    taken: set[NetworkSpec] = set()
    for budget in budgets:
        near = _best_near(found, budget, _NEAREST * places)
        searched = _distinct(taken, (_scaled("search", genotype, budget, build) for genotype in near))
        searched = list(itertools.islice(_confirmed(searched, build), places))
        known = _distinct(taken, (_scaled("plain", genotype, budget, build) for genotype in plain))
        layer = _LAYER if build.latency is None else 0.0  # where the time of layers is measured, it is no guess
        known.sort(key=lambda spec: layer * _num_convolutions(spec) - cost_of(spec, build.images).macs / budget)
        known = [spec for spec in known if spec.digest not in {other.digest for other in searched}]
        known = list(itertools.islice(_confirmed(known, build), places))
        wanted = max(math.ceil(places / 2), places - len(known)) if searched else 0
        chosen = [*searched[:wanted], *known[: places - min(wanted, len(searched))]]
        if chosen:
            race[budget] = chosen
            taken.update(chosen)
    return race


def survivors(errors: Mapping[str, float | None], bins: Sequence[Sequence[str]], keep: int) -> list[list[str]]:
    """Return the networks of each bin that go on: the ``keep`` with the smallest errors.

    Args:
        errors: Measured error of each network, 0 to 1; None or NaN for one whose training diverged, which ends here.
        bins: The networks of each bin, in the order that decides between equal errors.
        keep: Most networks of a bin that go on.

    Returns:
        For each bin its survivors, best first; a bin without a measured network has none.

    Raises:
        ConfigError: If ``keep`` is below 1.

    >>> survivors({"a": 0.3, "b": 0.1, "c": 0.2, "d": None}, [["a", "b", "c"], ["d"]], 2)
    [['b', 'c'], []]
    """
    if keep < 1:
        raise ConfigError("networks that go on", keep, "at least 1 of each bin")
    kept = []
    for members in bins:
        ends = ((errors.get(name), name) for name in members)
        measured = [(error, name) for error, name in ends if error is not None and not math.isnan(error)]
        kept.append([name for _, name in sorted(measured, key=lambda entry: entry[0])[:keep]])
    return kept


def _best_near(found: Sequence[Found], budget: int, number: int) -> list[Genotype]:
    """Return the nearest networks in cost, by score; among equal ones the nearest first."""
    near = sorted(found, key=lambda entry: abs(math.log(entry.macs / budget)))
    distinct: dict[str, Found] = {}
    for entry in near:
        distinct.setdefault(entry.genotype.digest, entry)
    nearest = list(distinct.values())[:number]
    by_score = sorted(nearest, key=lambda entry: -math.inf if entry.score is None else entry.score, reverse=True)
    return [entry.genotype for entry in by_score]


def _scaled(origin: str, genotype: Genotype, budget: int, build: Build) -> NetworkSpec | None:
    """Return a network as wide as budget and limits allow, in steps of a few channels; None if that is too narrow.

    Too narrow is one that leaves much of the budget unused for which nothing else is a reason.
    """
    spec = NetworkSpec(origin=origin, genotype=genotype.pruned(), init_channels=_LEAST_CHANNELS, stem=build.stem)
    check_image_size(spec, build.images)
    try:
        widest = scaled_to(spec, build.images, max_macs=budget, max_params=build.max_params).init_channels
    except ConfigError:
        return None
    if widest < _LEAST_CHANNELS:
        return None
    step = _WIDTH_STEP if build.latency is None else _WIDTH_STEP_BY_TIME
    wide = replace(spec, init_channels=max(_LEAST_CHANNELS, widest // step * step))
    is_full = cost_of(wide, build.images).macs >= _LEAST_USE * budget
    if not is_full and not build.is_limited:
        return None
    while build.latency is not None and not build.latency.seems_kept(wide, build.images):
        if wide.init_channels == _LEAST_CHANNELS:
            return None
        wide = replace(wide, init_channels=max(_LEAST_CHANNELS, wide.init_channels - step))
    return wide


def _distinct(taken: Collection[NetworkSpec], specs: Iterable[NetworkSpec | None]) -> list[NetworkSpec]:
    return list({spec.digest: spec for spec in specs if spec is not None and spec not in taken}.values())


def _confirmed(specs: Iterable[NetworkSpec], build: Build) -> Iterator[NetworkSpec]:
    """Yield the networks that keep the limit of latency by their own time; the next one is timed when it is wanted."""
    for spec in specs:
        if build.latency is None or build.latency.is_kept(spec, build.images):
            yield spec


def _num_convolutions(spec: NetworkSpec) -> int:
    cells = () if spec.genotype is None else spec.genotype.cells
    return sum(edge.operation not in PARAMETER_FREE for cell in cells for node in cell.nodes for edge in node)
