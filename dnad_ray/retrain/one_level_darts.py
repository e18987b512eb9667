"""One-level DARTS in the space of a run: what a search is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnad_ray.config.run import RunConfig
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.data.images import ImageData
from dnad_ray.errors import NonFiniteLossError
from dnad_ray.networks.spec import images_of
from dnad_ray.retrain.baselines import _of, space_of
from dnad_ray.runtime.devices import MEMORY_FORMAT, device_for, to_device
from dnad_ray.training.evaluate import accuracy_of, recalibrate
from search_spaces.genotype import NONE, Genotype
from search_spaces.shape import NetworkShape
from search_spaces.supernet import Candidate, Supernet

__all__ = ["DartsEpoch", "darts_genotype", "derived"]
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
        supernet = to_device(Supernet(space_of(config), shape), device)
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
