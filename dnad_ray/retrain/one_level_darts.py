"""One-level DARTS in the space of a run: what a search is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnad_ray.config.run import RunConfig
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.data.images import ImageData
from dnad_ray.networks.spec import images_of
from dnad_ray.retrain.baselines import _of, space_of
from dnad_ray.runtime.devices import MEMORY_FORMAT, device_for, to_device
from dnad_ray.runtime.stopping import StopCheck
from dnad_ray.storage.digests import digest_of_data
from dnad_ray.storage.places import Place
from dnad_ray.training.evaluate import accuracy_of, recalibrate
from dnad_ray.training.loop import StepProgress, counted, finish
from dnad_ray.training.task import Losses, Task
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
    progress: StepProgress | None = None,
    on_epoch: Callable[[DartsEpoch], None] | None = None,
    *,
    stop: StopCheck | None = None,
    checkpoints: Place | None = None,
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
        stop: Asked before each step.
        checkpoints: The folder of its checkpoints, from the newest of which it goes on; None for none.

    Raises:
        NonFiniteLossError: If the loss diverges.
        RunFolderError: If the checkpoint is that of another search.
        Stopped: If it was asked to stop; the same call goes on from the checkpoint that it kept.
    """
    search = _DartsSearch(config, data, seed, is_scored=on_epoch is not None)

    def tell(entry: dict[str, Any]) -> None:
        # Epochs before a checkpoint may have been searched by somebody who was not told of them.
        if on_epoch is not None and "validation_accuracy" in entry:
            on_epoch(DartsEpoch(entry["epoch"], entry["train_accuracy"], entry["validation_accuracy"]))

    finish(search, checkpoints, stop=stop, progress=progress, on_epoch=tell)
    return derived(search.supernet.candidates, search.weights().tolist(), search.supernet.genotype)


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
            self.supernet = to_device(Supernet(space_of(config), shape), device)
            candidates = self.supernet.candidates
            self._alpha = nn.Parameter((1e-3 * torch.randn(len(candidates))).to(device))
        self._group = _groups(candidates).to(device)
        sections = config.model_dump(mode="json", include={"data", "space", "train"})
        super().__init__(
            {
                "supernet": self.supernet,
                "alpha": nn.ParameterList([self._alpha]),
                "optimizer": torch.optim.Adam(
                    self.supernet.parameters(),
                    settings.learning_rate,
                    betas=settings.betas,
                    weight_decay=settings.weight_decay,
                ),
                "arch_optimizer": torch.optim.Adam([self._alpha], lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
            },
            TrainingBatches(data, settings.batch_size, seed, device, MEMORY_FORMAT),
            digest=digest_of_data({**sections, "seed": seed}),
            num_epochs=settings.epochs,
            clipped=self.supernet.parameters(),
            grad_clip=settings.grad_clip,
            precision=settings.precision,
        )

    def weights(self) -> Tensor:
        """Return the weight of each candidate (num_candidates,) as they are now."""
        return _softmax(self._alpha, self._group).detach()

    def losses(self, images: Tensor, labels: Tensor) -> Losses:
        """Classify a batch by the mixed supernet."""
        with self.autocast():
            logits = self.supernet(images, _softmax(self._alpha, self._group)).logits
        loss = F.cross_entropy(logits.float(), labels)
        return Losses(loss, loss.detach(), logits.detach())

    def entry(self) -> dict[str, Any]:
        """Return what the history says of the epoch that is over, with the accuracy of the mixed supernet."""
        if not self._is_scored:
            return super().entry()
        with counted(self):
            score = _score(self._config, self.supernet, self.weights(), self._data)
        return {**super().entry(), "validation_accuracy": score}


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
    # As long as there can be groups; to ask how many there are would wait for the device.
    total = torch.zeros_like(positive).index_add(0, group, positive)
    return positive / total[group]
