"""Accuracy of a network on images that it was not trained on, and its batch-norm statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from dnad_ray.data.batches import evaluation_batches
from dnad_ray.data.loading import ImageData, ImageSource
from dnad_ray.runtime.devices import MEMORY_FORMAT
from dnad_ray.runtime.processes import ALONE, Ranks

__all__ = ["accuracy_of", "frozen_statistics", "recalibrate"]


@torch.no_grad()
def accuracy_of(
    network: nn.Module,
    logits: Callable[[Tensor], Tensor],
    split: ImageSource,
    data: ImageData,
    batch_size: int,
    *,
    ranks: Ranks = ALONE,
) -> float:
    """Return the share of images that are classified correctly, in evaluation mode (running batch statistics).

    Args:
        network: The module; set to evaluation mode during the call.
        logits: Maps normalised images (N, C, H, W) to logits (N, num_classes).
        split: Images and labels.
        data: The dataset, for its normalisation.
        batch_size: Images per step.
        ranks: Processes with the same network; each evaluates a part of the images.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    correct = torch.zeros((), dtype=torch.int64, device=device)
    mine = split if ranks.size == 1 else split.select(np.arange(len(split))[ranks.part(len(split))])
    for images, labels in evaluation_batches(mine, data, batch_size, device, MEMORY_FORMAT):
        correct += (logits(images).argmax(1) == labels).sum()
    network.train(was_training)
    return int(ranks.sum(correct)) / len(split)


@torch.no_grad()
def recalibrate(
    network: nn.Module, logits: Callable[[Tensor], Tensor], data: ImageData, num_images: int, batch_size: int
) -> None:
    """Re-estimate the running batch statistics on training images, without augmentation.

    Running means lag behind deletions and fast-changing weights, so that equal networks would have different scores.
    Fresh statistics make scores comparable. Training does not read these statistics.

    Args:
        network: The module, in training mode.
        logits: Maps normalised images (N, C, H, W) to logits (N, num_classes).
        data: The dataset; its validation images are not used.
        num_images: Number of images, the same ones in each call, in whole batches; 0 does nothing.
        batch_size: Images per step.
    """
    # Image folders are sorted by class: after a fixed shuffle, any part of them has images of all classes.
    order = np.random.RandomState(0).permutation(len(data.train))[:num_images]
    if len(order) > batch_size:
        # No partial batch: it would count as much as the others, and one image may be too few for batch statistics.
        order = order[: len(order) // batch_size * batch_size]
    some = data.train.select(order)
    norms = _norms(network)
    usual = [norm.momentum for norm in norms]
    device = next(network.parameters()).device
    for index, (images, _) in enumerate(evaluation_batches(some, data, batch_size, device, MEMORY_FORMAT)):
        for norm in norms:
            norm.momentum = 1 / (index + 1)  # the mean over the batches seen so far
        logits(images)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


@contextlib.contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Evaluate a network with batch statistics inside the block, without changing its running statistics."""
    norms = _norms(network)
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
