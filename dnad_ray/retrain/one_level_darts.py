"""One-level DARTS in the space of a run: what a search is compared with."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnad_ray.config.run import RunConfig
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.data.images import ImageData
from dnad_ray.errors import NonFiniteLossError
from dnad_ray.networks.search_space import space_of
from dnad_ray.runtime.devices import MEMORY_FORMAT, device_for, to_device
from dnad_ray.training.evaluate import accuracy_of, recalibrate
from search_spaces.derivation import derived_network
from search_spaces.genotype import Edge, Genotype
from search_spaces.shape import NetworkShape
from search_spaces.space import SearchSpace
from search_spaces.supernet import Supernet

__all__ = ["DartsEpoch", "darts_genotype"]


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

    DARTS (arXiv 1806.09055) with two changes that the run's own search has too: cells share topologies as the space
    says, and one level, that is weights and architecture learn from the same batch. Candidates of a pair of states are
    mixed by a softmax; nothing is deleted. The network is derived as the space derives it; where the space keeps all
    that is alive, by the rule of DARTS: of each node the strongest operation on each of the two strongest states.

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
    shape = NetworkShape(images=data.shape, init_channels=config.space.init_channels, stem=config.space.stem)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supernet = to_device(Supernet(space_of(config.space), shape), device)
        group = _groups(supernet.groups, device)
        alpha = nn.Parameter((1e-3 * torch.randn(len(group.pair))).to(device))
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
    return derived_network(_by_darts(supernet.space), supernet.genotype, _softmax(alpha, group).tolist())[0]


def _score(config: RunConfig, supernet: Supernet, weights: Tensor, data: ImageData) -> float:
    """Return the accuracy of the mixed supernet on the validation images, scored as a search scores its snapshots."""

    def logits(images: Tensor) -> Tensor:
        output: Tensor = supernet(images, weights).logits
        return output

    scoring = config.evaluation
    recalibrate(supernet, logits, data, scoring.recalibration_images, config.train.batch_size)
    return accuracy_of(supernet, logits, data.validation, data, scoring.batch_size)


def _by_darts(space: SearchSpace) -> SearchSpace:
    """Return a space with a derivation that keeps less than all: DARTS deletes nothing, so all would be the supernet.

    In the skeleton of NAS-Bench-201, whose nodes have one input or more, it is the benchmark's: one operation an edge.
    """
    if space.derivation != "alive":
        return space
    if space.num_inputs < 2:
        return replace(space, derivation="edges")
    return replace(space, derivation="inputs", inputs_kept=2)


class _Groups(NamedTuple):
    """Which parameters are mixed with each other, and which one each candidate takes.

    Attributes:
        pair: For each parameter (num_parameters,) the number of its node and state, among which the softmax is taken.
        parameter: For each candidate (num_candidates,) the parameter it shares with those of other cells.
    """

    pair: Tensor
    parameter: Tensor


def _groups(names: Iterable[tuple[int, int, Edge]], device: torch.device) -> _Groups:
    names = tuple(names)
    pairs = ((topology, node, edge.source) for topology, node, edge in dict.fromkeys(names))
    return _Groups(_numbered(pairs).to(device), _numbered(names).to(device))


def _numbered(names: Iterable[Hashable]) -> Tensor:
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])


def _softmax(alpha: Tensor, group: _Groups) -> Tensor:
    """Return the weight of each candidate (num_candidates,): the softmax of the parameters of its node and state."""
    positive = (alpha - alpha.detach().max()).exp()
    total = positive.new_zeros(int(group.pair.max()) + 1).index_add(0, group.pair, positive)
    # Taken once for all cells that share a topology, so that they are equal to the last bit.
    return (positive / total[group.pair])[group.parameter]
