"""Search by imitating: the sum of imitation kinds of a configuration, with what trains and is saved along with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnad_ray.config.run import DistillConfig
from dnad_ray.distill.losses import (
    angle_imitation,
    attention_imitation,
    decoupled_imitation,
    distance_imitation,
    factor_imitation,
    logit_imitation,
    principal_factors,
    similarity_imitation,
    standardised_error,
)
from search_spaces.network import NetworkOutput

__all__ = ["FactorImitation", "FeatureImitation", "Imitation", "logit_imitation"]

_ANGLES = 2.0
"""Weight of angles against distances in relational KD (Park et al., section 4)."""

Taps = Sequence[Tensor | None]


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

    def forward(self, student: Taps, teacher: Taps) -> Tensor:
        """Return the weighted mean squared error over taps (N, C, H, W); a tap that either side lost counts nothing."""
        total = cast(Tensor, self.adapters[0].weight).new_zeros(())
        for adapter, ours, theirs, ratio in zip(self.adapters, student, teacher, self.ratios, strict=True):
            if ours is not None and theirs is not None:
                total = total + ratio * standardised_error(adapter(ours), theirs)
        return total


class FactorImitation(nn.Module):
    """Factor transfer at the three stage ends: what the teacher's features are made of, told in the student's words.

    The translator of a stage, which trains, is a 1x1 convolution; the paraphraser, which does not, is fitted once to
    the teacher's features, see :func:`dnad_ray.distill.losses.principal_factors`.

    Args:
        student_channels: Channels of the student's taps.
        teacher_channels: Channels of the teacher's taps.
        ratios: Share of each tap in the loss.
        rate: Factors as a share of the teacher's channels.
    """

    def __init__(
        self, student_channels: Sequence[int], teacher_channels: Sequence[int], ratios: Sequence[float], rate: float
    ) -> None:
        super().__init__()
        self.ratios = tuple(ratios)
        self.translators, self.paraphrasers = nn.ModuleList(), nn.ModuleList()
        for student, teacher, _ in zip(student_channels, teacher_channels, self.ratios, strict=True):
            num_factors = max(1, round(rate * teacher))
            self.translators.append(nn.Conv2d(student, num_factors, 1, bias=False))
            self.paraphrasers.append(nn.Conv2d(teacher, num_factors, 1, bias=False).requires_grad_(False))

    @torch.no_grad()
    def fit(self, teacher: Taps) -> None:
        """Make the paraphrasers those of a teacher, from its taps (N, C, H, W) for a sample of images."""
        for paraphraser, theirs in zip(self.paraphrasers, teacher, strict=True):
            if theirs is not None:
                weight = cast(Tensor, paraphraser.weight)
                weight.copy_(principal_factors(theirs, len(weight)))

    def forward(self, student: Taps, teacher: Taps) -> Tensor:
        """Return the weighted distance of factors over taps; a tap that either side lost counts nothing."""
        total = cast(Tensor, self.translators[0].weight).new_zeros(())
        pairs = zip(self.translators, self.paraphrasers, student, teacher, self.ratios, strict=True)
        for translator, paraphraser, ours, theirs, ratio in pairs:
            if ours is not None and theirs is not None:
                total = total + ratio * factor_imitation(translator(ours), paraphraser(theirs))
        return total


class Imitation(nn.Module):
    """The imitation loss of a configuration, before its weight lambda.

    Args:
        config: Kinds, their shares, temperature and ratios.
        student_channels: Channels of the student's taps.
        teacher_channels: Channels of the teacher's taps.
    """

    def __init__(self, config: DistillConfig, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__()
        self._config = config
        self.temperature = config.temperature if config.uses_logits else None
        channels = student_channels, teacher_channels, config.stage_ratios
        self.features = FeatureImitation(*channels) if "features" in config.kinds else None
        self.factors = FactorImitation(*channels, config.factor_rate) if "factor" in config.kinds else None

    def forward(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput,
        labels: Tensor | None = None,
        temperature: float | Tensor | None = None,
    ) -> Tensor:
        """Return the sum of the kinds that are asked for, a scalar.

        Args:
            student: What the supernet says.
            teacher: What the teacher says.
            labels: Right classes (N,); decoupled KD alone needs them.
            temperature: KD temperature of the step; None takes that of the configuration.
        """
        total = student.logits.new_zeros(())
        temperature = self.temperature if temperature is None else temperature
        for kind in self._config.kinds:
            loss = self._loss(kind, student, teacher, labels, temperature)
            share = getattr(self._config.shares, kind)
            total = total + (loss if share == 1 else share * loss)
        return total

    def _loss(
        self,
        kind: str,
        student: NetworkOutput,
        teacher: NetworkOutput,
        labels: Tensor | None,
        temperature: float | Tensor | None,
    ) -> Tensor:
        if kind in ("logits", "decoupled"):
            assert temperature is not None
            if kind == "logits":
                return logit_imitation(student.logits, teacher.logits, temperature)
            assert labels is not None
            target, rest = self._config.decoupled_target, self._config.decoupled_rest
            return decoupled_imitation(student.logits, teacher.logits, labels, temperature, target=target, rest=rest)
        if kind in ("features", "factor"):
            module = self.features if kind == "features" else self.factors
            assert module is not None
            return cast(Tensor, module(student.taps, teacher.taps))
        total = student.logits.new_zeros(())
        for ours, theirs, ratio in zip(student.taps, teacher.taps, self._config.stage_ratios, strict=True):
            if ours is not None and theirs is not None and ratio > 0:
                total = total + ratio * _TAP_LOSSES[kind](ours, theirs)
        return total


def _relational(student: Tensor, teacher: Tensor) -> Tensor:
    """Return distances and angles of features (N, C, H, W), averaged over their pixels to embeddings (N, C)."""
    ours, theirs = (F.adaptive_avg_pool2d(features, 1).flatten(1) for features in (student, teacher))
    return distance_imitation(ours, theirs) + _ANGLES * angle_imitation(ours, theirs)


_TAP_LOSSES = {
    "attention": attention_imitation,
    "similarity": similarity_imitation,
    "relational": _relational,
}
"""Kinds without parameters: the loss of one stage end."""
