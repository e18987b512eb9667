"""The imitation loss of a search: the sum of the configured kinds, with their trained and saved modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

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

__all__ = ["LOSSES", "FactorImitation", "FeatureImitation", "Imitation", "Loss", "Step", "logit_imitation"]

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
        """Return the weighted mean squared error over taps (N, C, H, W); a tap that is missing on a side counts 0."""
        total = cast(Tensor, self.adapters[0].weight).new_zeros(())
        for adapter, ours, theirs, ratio in zip(self.adapters, student, teacher, self.ratios, strict=True):
            if ours is not None and theirs is not None:
                total = total + ratio * standardised_error(adapter(ours), theirs)
        return total


class FactorImitation(nn.Module):
    """Factor transfer at the three stage ends: the student imitates factors of the teacher's features.

    The translator of a stage is a 1x1 convolution on the student's features and is trained. The paraphraser is a 1x1
    convolution on the teacher's features; it is fitted once, see
    :func:`dnad_ray.distill.losses.principal_factors`.

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
        """Fit the paraphrasers to a teacher, from its taps (N, C, H, W) for a sample of images."""
        for paraphraser, theirs in zip(self.paraphrasers, teacher, strict=True):
            if theirs is not None:
                weight = cast(Tensor, paraphraser.weight)
                weight.copy_(principal_factors(theirs, len(weight)))

    def forward(self, student: Taps, teacher: Taps) -> Tensor:
        """Return the weighted distance of factors over taps; a tap that is missing on a side counts 0."""
        total = cast(Tensor, self.translators[0].weight).new_zeros(())
        pairs = zip(self.translators, self.paraphrasers, student, teacher, self.ratios, strict=True)
        for translator, paraphraser, ours, theirs, ratio in pairs:
            if ours is not None and theirs is not None:
                total = total + ratio * factor_imitation(translator(ours), paraphraser(theirs))
        return total


class Step(NamedTuple):
    """Inputs of an imitation kind.

    Attributes:
        student: Outputs of the supernet.
        teacher: Outputs of the teacher.
        labels: True classes (N,), or None.
        temperature: KD temperature; None if no kind uses it.
        config: Settings of the kinds.
        module: Module of the kind, or None.
    """

    student: NetworkOutput
    teacher: NetworkOutput
    labels: Tensor | None
    temperature: float | Tensor | None
    config: DistillConfig
    module: nn.Module | None


def _logits(step: Step) -> Tensor:
    assert step.temperature is not None
    return logit_imitation(step.student.logits, step.teacher.logits, step.temperature)


def _decoupled(step: Step) -> Tensor:
    assert step.temperature is not None
    assert step.labels is not None
    target, rest = step.config.decoupled_target, step.config.decoupled_rest
    ours, theirs = step.student.logits, step.teacher.logits
    return decoupled_imitation(ours, theirs, step.labels, step.temperature, target=target, rest=rest)


def _by_module(step: Step) -> Tensor:
    assert step.module is not None
    return cast(Tensor, step.module(step.student.taps, step.teacher.taps))


def _per_tap(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Step], Tensor]:
    """Return the weighted sum over the taps of a loss of features (N, C, H, W) that has no parameters."""

    def total_of(step: Step) -> Tensor:
        total = step.student.logits.new_zeros(())
        for ours, theirs, ratio in zip(step.student.taps, step.teacher.taps, step.config.stage_ratios, strict=True):
            if ours is not None and theirs is not None and ratio > 0:
                total = total + ratio * loss(ours, theirs)
        return total

    return total_of


def _relational(student: Tensor, teacher: Tensor) -> Tensor:
    """Return distances and angles of features (N, C, H, W), averaged over their pixels to embeddings (N, C)."""
    ours, theirs = (F.adaptive_avg_pool2d(features, 1).flatten(1) for features in (student, teacher))
    return distance_imitation(ours, theirs) + _ANGLES * angle_imitation(ours, theirs)


def _feature_module(config: DistillConfig, student: Sequence[int], teacher: Sequence[int]) -> nn.Module:
    return FeatureImitation(student, teacher, config.stage_ratios)


def _factor_module(config: DistillConfig, student: Sequence[int], teacher: Sequence[int]) -> nn.Module:
    return FactorImitation(student, teacher, config.stage_ratios, config.factor_rate)


class Loss(NamedTuple):
    """How an imitation kind is computed.

    Attributes:
        value: Computes the loss, a scalar.
        module: Builds its module from the channels of the student's and the teacher's taps; None without a module.
        saved_as: Name of that module in a checkpoint.
    """

    value: Callable[[Step], Tensor]
    module: Callable[[DistillConfig, Sequence[int], Sequence[int]], nn.Module] | None = None
    saved_as: str = ""


LOSSES: dict[str, Loss] = {
    "logits": Loss(_logits),
    "decoupled": Loss(_decoupled),
    "features": Loss(_by_module, _feature_module, "features"),
    "attention": Loss(_per_tap(attention_imitation)),
    "factor": Loss(_by_module, _factor_module, "factors"),
    "similarity": Loss(_per_tap(similarity_imitation)),
    "relational": Loss(_per_tap(_relational)),
}
"""Name of a kind in :data:`dnad_ray.config.distill.KINDS` -> how it is computed."""


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
        for kind in config.kinds:
            loss = LOSSES[kind]
            if loss.module is not None:
                self.add_module(loss.saved_as, loss.module(config, student_channels, teacher_channels))

    @property
    def needs_fit(self) -> bool:
        """Whether :meth:`fit` must be called before the first step."""
        return any(isinstance(module, FactorImitation) for module in self.children())

    def fit(self, teacher: Taps) -> None:
        """Fit the untrained modules to the taps (N, C, H, W) of a teacher for a sample of images."""
        for module in self.children():
            if isinstance(module, FactorImitation):
                module.fit(teacher)

    def forward(
        self,
        student: NetworkOutput,
        teacher: NetworkOutput,
        labels: Tensor | None = None,
        temperature: float | Tensor | None = None,
    ) -> Tensor:
        """Return the weighted sum of the configured kinds, a scalar.

        Args:
            student: Outputs of the supernet.
            teacher: Outputs of the teacher.
            labels: True classes (N,); only decoupled KD needs them.
            temperature: KD temperature of the step; None for that of the configuration.
        """
        total = student.logits.new_zeros(())
        temperature = self.temperature if temperature is None else temperature
        for kind in self._config.kinds:
            value, _, name = LOSSES[kind]
            module = getattr(self, name) if name else None
            loss = value(Step(student, teacher, labels, temperature, self._config, module))
            share = getattr(self._config.shares, kind)
            total = total + (loss if share == 1 else share * loss)
        return total
