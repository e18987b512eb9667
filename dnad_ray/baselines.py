"""What a search is compared with, at equal size and equal training: chance, one-level DARTS, and known networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnad_ray.augment import TrainingBatches
from dnad_ray.config import RunConfig
from dnad_ray.cost_table import costs_of
from dnad_ray.devices import MEMORY_FORMAT, device_for, placed
from dnad_ray.errors import ConfigError, NonFiniteLossError
from dnad_ray.evaluate import accuracy_of, recalibrate
from dnad_ray.images import ImageData
from dnad_ray.retrain_data import images_of
from dnad_ray.subject import Images, Subject
from dnad_ray.vision_networks import VISION_FAMILIES
from search_spaces.genotype import NONE, CellGenotype, Edge, Genotype
from search_spaces.space import NetworkShape, SearchSpace, space_named
from search_spaces.supernet import Candidate, Supernet

__all__ = ["BASELINES", "DartsEpoch", "checked_kinds", "darts_genotype", "derived", "random_like", "space_of"]

BASELINES = ("random", "darts", *VISION_FAMILIES)
"""Kinds of baselines."""

_TRIES = 1000
_NEAR = 0.05
_DARTS_EDGES = 2


class DartsEpoch(NamedTuple):
    """Where a DARTS search is at the end of an epoch.

    Attributes:
        epoch: Epochs completed.
        train_accuracy: Share of the epoch's training images, as they were varied, that were classified correctly.
        validation_accuracy: Share of the validation images, by the mixed supernet.
    """

    epoch: int
    train_accuracy: float
    validation_accuracy: float


def checked_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds that a user lists.

    Raises:
        ConfigError: If one is unknown.

    >>> checked_kinds("random, darts")
    ('random', 'darts')
    """
    kinds = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for kind in kinds:
        if kind not in BASELINES:
            raise ConfigError("--kinds", kind, ", ".join(BASELINES))
    if not kinds:
        raise ConfigError("--kinds", text, ", ".join(BASELINES))
    return kinds


def space_of(config: RunConfig) -> SearchSpace:
    """Return the space that a run searched."""
    return space_named(config.space.name, config.space.operations, config.space.num_cells, config.space.num_nodes)


def random_like(subject: Subject, space: SearchSpace, images: Images, seed: int) -> Subject:
    """Return a random architecture of a space with the operations (or a few more) and the cost of another network.

    Candidates are drawn without regard to anything but their number, until the multiply-adds at the same width are
    within 5 %; after 1,000 draws the nearest one is taken, and its own cost stands in its record.

    Args:
        subject: A network of the space.
        space: The space.
        images: For which costs are counted.
        seed: Seed of the draws.

    Raises:
        ConfigError: If no draw leads from the image to the classifier.
    """
    assert subject.genotype is not None
    shape = subject.shape(images)
    target, number = costs_of(subject.genotype, shape).macs, subject.genotype.pruned().num_operations
    dense = space.dense()
    everything = [
        Candidate(c, n, edge)
        for c, cell in enumerate(dense.cells)
        for n, edges in enumerate(cell.nodes)
        for edge in edges
        if edge.operation != NONE
    ]
    generator = np.random.default_rng((seed, int(subject.digest, 16) % 2**32))
    best: tuple[float, Genotype] | None = None
    for _ in range(_TRIES):
        genotype = _grown(dense, everything, number, generator)
        if genotype is None:
            continue
        distance = abs(costs_of(genotype, shape).macs - target) / target
        if best is None or distance < best[0]:
            best = (distance, genotype)
        if distance <= _NEAR:
            break
    if best is None:
        raise ConfigError("random baseline of operations", number, "enough of them to lead from image to classifier")
    return Subject(origin="random", genotype=best[1], init_channels=subject.init_channels, stem=subject.stem)


def _grown(
    dense: Genotype, everything: list[Candidate], number: int, generator: np.random.Generator
) -> Genotype | None:
    """Return the network of random candidates that has ``number`` useful ones; None where there is none so large."""
    order = generator.permutation(len(everything))
    low, high = number, len(order)
    result = None
    # Some of those drawn read nothing or are read by nobody: draw on until enough of them count.
    while low <= high:
        middle = (low + high) // 2
        genotype = _of(dense, [everything[index] for index in order[:middle]])
        if genotype.num_operations >= number:
            result, high = genotype, middle - 1
        else:
            low = middle + 1
    return result


def _of(dense: Genotype, chosen: list[Candidate]) -> Genotype:
    nodes: list[list[list[Edge]]] = [[[] for _ in cell.nodes] for cell in dense.cells]
    for candidate in chosen:
        nodes[candidate.cell][candidate.node].append(candidate.edge)
    return Genotype(
        tuple(
            CellGenotype(cell.reduction, tuple(map(tuple, lists)))
            for cell, lists in zip(dense.cells, nodes, strict=True)
        )
    ).pruned()


def darts_genotype(
    config: RunConfig,
    data: ImageData,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[DartsEpoch], None] | None = None,
) -> Genotype:
    """Search by one-level DARTS in the space of a run, for as long as the run searches, and derive one network.

    DARTS (arXiv 1806.09055) with two changes that the run's own search has too: one topology per cell, and one level,
    that is weights and architecture learn from the same batch. Candidates of a pair of states are mixed by a softmax;
    nothing is deleted. Of each node the strongest operation on each of the two strongest states is kept.

    Args:
        config: The run.
        data: Its search images.
        seed: Seed.
        progress: Told of (steps done, steps in all).
        on_epoch: Told of every epoch; without it the validation images are not looked at.

    Raises:
        NonFiniteLossError: If the loss diverges.
    """
    device, settings = device_for(config.train.device), config.train
    images = images_of(data)
    shape = NetworkShape(
        in_channels=images.in_channels,
        image_size=images.image_size,
        num_classes=images.num_classes,
        init_channels=config.space.init_channels,
        stem=config.space.stem,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supernet = placed(Supernet(space_of(config), shape), device)
        candidates = supernet.candidates
        alpha = nn.Parameter((1e-3 * torch.randn(len(candidates))).to(device))
    group = _groups(candidates).to(device)
    batches = TrainingBatches(data, settings.batch_size, seed, device, MEMORY_FORMAT)
    optimizer = torch.optim.Adam(
        supernet.parameters(), settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    of_alpha = torch.optim.Adam([alpha], lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    steps = settings.epochs * batches.steps_per_epoch
    correct, seen = torch.zeros((), device=device), 0
    for step in range(steps):
        inputs, labels = batches.batch(step)
        logits = supernet(inputs, _softmax(alpha, group)).logits
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        of_alpha.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(supernet.parameters(), settings.grad_clip)
        optimizer.step()
        of_alpha.step()
        if not torch.isfinite(loss):
            raise NonFiniteLossError(f"the loss of the DARTS baseline became {loss.item()} at step {step}")
        if progress is not None:
            progress(step + 1, steps)
        if on_epoch is not None:
            correct += (logits.detach().argmax(1) == labels).sum()
            seen += len(labels)
            if (step + 1) % batches.steps_per_epoch == 0:
                score = _score(config, supernet, _softmax(alpha, group).detach(), data)
                on_epoch(DartsEpoch((step + 1) // batches.steps_per_epoch, float(correct) / seen, score))
                correct, seen = torch.zeros_like(correct), 0
    batches.close()
    return derived(candidates, _softmax(alpha, group).tolist(), supernet.genotype)


def _score(config: RunConfig, supernet: Supernet, weights: Tensor, data: ImageData) -> float:
    """Return the accuracy of the mixed supernet on the validation images, scored as a search scores its snapshots."""

    def logits(images: Tensor) -> Tensor:
        output: Tensor = supernet(images, weights).logits
        return output

    scoring = config.evaluation
    recalibrate(supernet, logits, data, scoring.recalibration_images, config.train.batch_size)
    return accuracy_of(supernet, logits, data.validation, data, scoring.batch_size)


def derived(candidates: tuple[Candidate, ...], weights: list[float], dense: Genotype) -> Genotype:
    """Return the network that DARTS derives: of each node two states, each with its strongest operation.

    Args:
        candidates: All candidates.
        weights: The weight of each.
        dense: The network of all of them.
    """
    strongest: dict[tuple[int, int, int], tuple[float, Candidate]] = {}
    for candidate, weight in zip(candidates, weights, strict=True):
        key = (candidate.cell, candidate.node, candidate.edge.source)
        if candidate.edge.operation != NONE and weight > strongest.get(key, (-1.0, candidate))[0]:
            strongest[key] = (weight, candidate)
    kept = []
    for cell, node in sorted({key[:2] for key in strongest}):
        of_node = sorted((entry for key, entry in strongest.items() if key[:2] == (cell, node)), key=lambda e: -e[0])
        kept += [candidate for _, candidate in of_node[:_DARTS_EDGES]]
    return _of(dense, kept)


def _groups(candidates: tuple[Candidate, ...]) -> Tensor:
    numbers: dict[tuple[int, int, int], int] = {}
    return torch.tensor([numbers.setdefault((c.cell, c.node, c.edge.source), len(numbers)) for c in candidates])


def _softmax(alpha: Tensor, group: Tensor) -> Tensor:
    """Return the softmax of parameters (num_candidates,) within their groups."""
    positive = (alpha - alpha.detach().max()).exp()
    total = positive.new_zeros(int(group.max()) + 1).index_add(0, group, positive)
    return positive / total[group]
