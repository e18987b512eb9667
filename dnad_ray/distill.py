"""Search by imitating: what the student is asked to copy from the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from dnad_ray.config import DistillConfig
from search_spaces.network import NetworkOutput

__all__ = ["FeatureImitation", "Imitation", "logit_imitation"]


def logit_imitation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, averaged over the batch, in nats.

    The factor keeps the gradient's size independent of the temperature (Hinton et al., arXiv 1503.02531, section 2).

    Args:
        student: Logits (N, num_classes).
        teacher: Logits (N, num_classes).
        temperature: KD temperature T, above 0.
    """
    return (
        F.kl_div(
            F.log_softmax(student / temperature, 1),
            F.log_softmax(teacher / temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        * temperature**2
    )


class FeatureImitation(nn.Module):
    """Regression of the teacher's features at the three stage ends (paper, section 3.4).

    The student's features go through a 1x1 convolution to the teacher's channels; both sides through affine-free
    batch norm, so that the mean squared error does not depend on their scale.

    Args:
        student_channels: Channels of the student's taps.
        teacher_channels: Channels of the teacher's taps.
        ratios: Share of each tap in the loss.
    """

    def __init__(
        self, student_channels: Sequence[int], teacher_channels: Sequence[int], ratios: Sequence[float]
    ) -> None:
        super().__init__()
        self.ratios = tuple(ratios)
        pairs = list(zip(student_channels, teacher_channels, self.ratios, strict=True))
        self.adapters = nn.ModuleList(nn.Conv2d(student, teacher, 1, bias=False) for student, teacher, _ in pairs)

    def forward(self, student: Sequence[Tensor | None], teacher: Sequence[Tensor | None]) -> Tensor:
        """Return the weighted mean squared error over taps (N, C, H, W); a tap that either side lost counts nothing."""
        total = cast(Tensor, self.adapters[0].weight).new_zeros(())
        for adapter, ours, theirs, ratio in zip(self.adapters, student, teacher, self.ratios, strict=True):
            if ours is not None and theirs is not None:
                total = total + ratio * F.mse_loss(_normalised(adapter(ours)), _normalised(theirs))
        return total


class Imitation(nn.Module):
    """The imitation loss of a configuration, before its weight lambda.

    Args:
        config: Kind, temperature and ratios.
        student_channels: Channels of the student's taps.
        teacher_channels: Channels of the teacher's taps.
    """

    def __init__(self, config: DistillConfig, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__()
        self.temperature = config.temperature if config.uses_logits else None
        self.features = (
            FeatureImitation(student_channels, teacher_channels, config.stage_ratios) if config.uses_features else None
        )

    def forward(self, student: NetworkOutput, teacher: NetworkOutput) -> Tensor:
        """Return the sum of the kinds that are asked for, a scalar."""
        total = student.logits.new_zeros(())
        if self.temperature is not None:
            total = total + logit_imitation(student.logits, teacher.logits, self.temperature)
        if self.features is not None:
            total = total + cast(Tensor, self.features(student.taps, teacher.taps))
        return total


def _normalised(features: Tensor) -> Tensor:
    # Batch statistics always: nothing is imitated in evaluation, so running ones would be kept for nobody.
    return F.batch_norm(features, None, None, training=True)
