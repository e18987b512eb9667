"""One-level DARTS in the search space of a run: a baseline for its searches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnad_ray.config.run import RunConfig
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.data.images import ImageData
from dnad_ray.networks.search_space import space_of
from dnad_ray.runtime.devices import MEMORY_FORMAT, device_for, to_device
from dnad_ray.runtime.stopping import StopCheck
from dnad_ray.storage.digests import digest_of_data
from dnad_ray.storage.places import Place
from dnad_ray.training.evaluate import accuracy_of, recalibrate
from dnad_ray.training.loop import StepProgress, counted, finish
from dnad_ray.training.optimizers import Adam
from dnad_ray.training.task import Losses, Task
from search_spaces.derivation import derived_network
from search_spaces.genotype import Edge, Genotype
from search_spaces.shape import NetworkShape
from search_spaces.space import SearchSpace
from search_spaces.supernet import Supernet

__all__ = ["DartsEpoch", "darts_genotype"]


class DartsEpoch(NamedTuple):
    """Accuracies of a DARTS search at the end of an epoch.

    Attributes:
        epoch: Epochs completed.
        train_accuracy: Accuracy on the augmented training images of the epoch, 0 to 1.
        validation_accuracy: Accuracy of the mixed supernet on the validation images, 0 to 1.
    """

    epoch: int
    train_accuracy: float
    validation_accuracy: float


def darts_genotype(
    config: RunConfig,
    data: ImageData,
    seed: int,
    progress: StepProgress | None = None,
    on_epoch: Callable[[DartsEpoch], None] | None = None,
    *,
    stop: StopCheck | None = None,
    checkpoints: Place | None = None,
) -> Genotype:
    """Search by one-level DARTS in the space of a run, for as many epochs as the run, and derive one network.

    This is DARTS (arXiv 1806.09055) with two changes that the run's own search has too. Cells share topologies as the
    space says. There is one level: network weights and architecture weights learn from the same batch. The candidates
    between two states are mixed by a softmax; nothing is deleted. The network is derived by the rule of the space. If
    that rule keeps everything alive, the rule of DARTS is used: each node keeps its two strongest states, and the
    strongest operation on each.

    Args:
        config: The run.
        data: Its search images.
        seed: Seed.
        progress: Called with (steps done, total steps).
        on_epoch: Called after every epoch. If None, the validation accuracy is not computed.
        stop: Called before each step; tells whether to stop.
        checkpoints: Folder of its checkpoints, or None. The search resumes from the newest one.

    Raises:
        NonFiniteLossError: If the loss diverges.
        RunFolderError: If the checkpoint belongs to another search.
        Stopped: If a stop was requested; the same call then resumes from the last checkpoint.
    """
    search = _DartsSearch(config, data, seed, is_scored=on_epoch is not None)

    def tell(entry: dict[str, Any]) -> None:
        # An epoch before the checkpoint has no validation accuracy if it ran in a call without on_epoch.
        if on_epoch is not None and "validation_accuracy" in entry:
            on_epoch(DartsEpoch(entry["epoch"], entry["train_accuracy"], entry["validation_accuracy"]))

    finish(search, checkpoints, stop=stop, progress=progress, on_epoch=tell)
    supernet = search.supernet
    return derived_network(_by_darts(supernet.space), supernet.genotype, search.weights().tolist())[0]


@final
class _DartsSearch(Task):
    """Everything that changes while one-level DARTS searches.

    Args:
        config: The run.
        data: Its search images.
        seed: Seed.
        is_scored: Whether the mixed supernet is scored on the validation images after each epoch.
    """

    what, advice = "loss of the DARTS baseline", "train.learning_rate"
    named, allowed = "settings", "a checkpoint of the very same search by DARTS"

    def __init__(self, config: RunConfig, data: ImageData, seed: int, *, is_scored: bool) -> None:
        device, settings = device_for(config.train.device), config.train
        self._config, self._data, self._is_scored = config, data, is_scored
        shape = NetworkShape(images=data.shape, init_channels=config.space.init_channels, stem=config.space.stem)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.supernet = to_device(Supernet(space_of(config.space), shape), device)
            self._group = _groups(self.supernet.groups, device)
            self._alpha = nn.Parameter((1e-3 * torch.randn(len(self._group.pair))).to(device))
        sections = config.model_dump(mode="json", include={"data", "space", "train"}, exclude={"data": {"broken"}})
        super().__init__(
            {
                "supernet": self.supernet,
                "alpha": nn.ParameterList([self._alpha]),
                "optimizer": Adam(
                    self.supernet.parameters(),
                    settings.learning_rate,
                    betas=settings.betas,
                    weight_decay=settings.weight_decay,
                ),
                "arch_optimizer": Adam([self._alpha], lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
            },
            TrainingBatches(data, settings.batch_size, seed, device, MEMORY_FORMAT),
            digest=digest_of_data({**sections, "seed": seed}),
            num_epochs=settings.epochs,
            clipped=self.supernet.parameters(),
            grad_clip=settings.grad_clip,
            precision=settings.precision,
        )

    def weights(self) -> Tensor:
        """Return the present weights of the candidates (num_candidates,)."""
        return _softmax(self._alpha, self._group).detach()

    def losses(self, images: Tensor, labels: Tensor) -> Losses:
        """Classify a batch with the mixed supernet."""
        with self.autocast():
            logits = self.supernet(images, _softmax(self._alpha, self._group)).logits
        loss = F.cross_entropy(logits.float(), labels)
        return Losses(loss, loss.detach(), logits.detach())

    def entry(self) -> dict[str, Any]:
        """Return the history entry of the finished epoch, with the accuracy of the mixed supernet."""
        if not self._is_scored:
            return super().entry()
        with counted(self):
            score = _score(self._config, self.supernet, self.weights(), self._data)
        return {**super().entry(), "validation_accuracy": score}


def _score(config: RunConfig, supernet: Supernet, weights: Tensor, data: ImageData) -> float:
    """Return the validation accuracy of the mixed supernet, computed as a search scores its snapshots."""

    def logits(images: Tensor) -> Tensor:
        output: Tensor = supernet(images, weights).logits
        return output

    scoring = config.evaluation
    recalibrate(supernet, logits, data, scoring.recalibration_images, config.train.batch_size)
    return accuracy_of(supernet, logits, data.validation, data, scoring.batch_size)


def _by_darts(space: SearchSpace) -> SearchSpace:
    """Return the space with a derivation rule that suits DARTS.

    DARTS deletes nothing, so a rule that keeps everything alive would return the whole supernet. In the skeleton of
    NAS-Bench-201, where a node may have only one input, the rule is that of the benchmark: one operation per edge.
    """
    if space.derivation != "alive":
        return space
    if space.num_inputs < 2:
        return replace(space, derivation="edges")
    return replace(space, derivation="inputs", inputs_kept=2)


class _Groups(NamedTuple):
    """The groups of parameters that compete in a softmax, and the parameter of each candidate.

    Attributes:
        pair: For each parameter (num_parameters,) the index of its (node, state) pair; the softmax is over a pair.
        parameter: For each candidate (num_candidates,) the index of its parameter, shared by cells of one topology.
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
    """Return the weights of the candidates (num_candidates,): a softmax over the parameters of each node and state."""
    positive = (alpha - alpha.detach().max()).exp()
    # Sized for the largest possible number of groups: reading the actual number would wait for the device.
    total = torch.zeros_like(positive).index_add(0, group.pair, positive)
    # Computed once for all cells that share a topology, so that their weights are equal to the last bit.
    return (positive / total[group.pair])[group.parameter]
