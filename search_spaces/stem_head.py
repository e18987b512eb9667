"""Stems, classifier, and the auxiliary head of training."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops import BatchNorm

__all__ = ["HALVINGS", "STEMS", "AuxiliaryHead", "CifarStem", "Classifier", "ImageNetStem"]


HALVINGS = {"cifar": 0, "half": 1, "quarter": 2, "imagenet": 3}
"""Name of a stem -> how often it halves the resolution of the images, rounded up."""


class CifarStem(nn.Module):
    """Convolution 3x3 to 3C channels at full resolution; both inputs of the first cell."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.out_channels = (3 * channels, 3 * channels)
        self.adaptive_pool = True
        self.older_is_larger = False
        self.conv = nn.Conv2d(in_channels, 3 * channels, 3, padding=1, bias=False)
        self.norm = BatchNorm(3 * channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, in_channels, H, W) to the two inputs of the first cell, both (N, 3C, H, W)."""
        state = self.norm(self.conv(images))
        return state, state


class ImageNetStem(nn.Module):
    """Two stems that together divide the resolution by 8 (224 to 28)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.out_channels = (channels, channels)
        self.adaptive_pool = False
        self.older_is_larger = True
        self.first = nn.Sequential(
            nn.Conv2d(in_channels, channels // 2, 3, 2, padding=1, bias=False),
            BatchNorm(channels // 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, 2, padding=1, bias=False),
            BatchNorm(channels),
        )
        self.second = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, padding=1, bias=False), BatchNorm(channels)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, in_channels, H, W) to (N, C, H/4, W/4) and (N, C, H/8, W/8)."""
        older = self.first(images)
        return older, self.second(older)


STEMS: dict[str, type[CifarStem] | type[ImageNetStem]] = {"cifar": CifarStem, "imagenet": ImageNetStem}
"""Stems of the skeleton ``darts``: name -> ``stem(in_channels, channels)`` with ``out_channels`` (older, newer),
``older_is_larger`` and the classifier's ``adaptive_pool``."""


class Classifier(nn.Module):
    """Global average pooling and a linear layer.

    Args:
        in_channels: Channels of the features.
        num_classes: Outputs.
        adaptive: Whether the pooling is an adaptive one, as in the CIFAR networks of DARTS, or one of a fixed window,
            as in its ImageNet network. The result is the same, but only the first one adds to counted MACs.
    """

    def __init__(self, in_channels: int, num_classes: int, adaptive: bool = True) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1) if adaptive else None
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to logits (N, num_classes)."""
        pooled = F.avg_pool2d(features, features.shape[2:]) if self.pool is None else self.pool(features)
        logits: Tensor = self.linear(pooled.flatten(1))
        return logits


class AuxiliaryHead(nn.Module):
    """A second classifier on features in the middle of the network, whose loss helps its first half to learn.

    Pooled to 2 x 2, then 128 and 768 channels, as in DARTS (arXiv 1806.09055, appendix A); pooling adapts to the size
    of the features instead of having one window for 8 x 8 pixels. It is not part of the network that is counted or
    exported.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Conv2d(in_channels, 128, 1, bias=False),
            BatchNorm(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            BatchNorm(768),
            nn.ReLU(),
        )
        self.linear = nn.Linear(768, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.linear(self.features(features).flatten(1))
        return logits
