"""How well a network classifies images that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dnad_ray.augment import evaluation_batches
from dnad_ray.data import ImageData, Split

__all__ = ["accuracy_of"]


@torch.no_grad()
def accuracy_of(
    network: nn.Module, logits: Callable[[Tensor], Tensor], split: Split, data: ImageData, batch_size: int
) -> float:
    """Return the share of images that are classified correctly, in evaluation mode (running batch statistics).

    Args:
        network: The module whose mode is switched for the time of the call.
        logits: Maps normalised images (N, C, H, W) to logits (N, num_classes).
        split: Images and labels.
        data: The dataset, for its normalisation.
        batch_size: Images per step.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in evaluation_batches(split, data, batch_size, device, torch.channels_last):
        correct += (logits(images).argmax(1) == labels).sum()
    network.train(was_training)
    return int(correct) / len(split.labels)
