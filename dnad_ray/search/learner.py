"""One training step of network weights and architecture weights; only :meth:`Learner.look` waits for the device."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnad_ray.config.run import RunConfig
from dnad_ray.distill.schedule import changes, strength_at
from dnad_ray.distill.teacher import Teacher
from dnad_ray.runtime.cuda_graphs import RecordedStep
from dnad_ray.runtime.processes import ALONE, Ranks, average
from dnad_ray.search.criteria import WorthMean
from dnad_ray.search.losses import RELEASE_SPARSITY, added_loss, dense_sparsity, shrinking_loss, sparsity
from dnad_ray.search.relaxation import Relaxation
from dnad_ray.training.finite import FiniteWatch
from dnad_ray.training.optimizers import SGD, Adam, cut_optimizer
from search_spaces.network import NetworkOutput
from search_spaces.supernet import Supernet

__all__ = ["Learner", "StepFacts"]


class StepFacts(NamedTuple):
    """Facts about the steps since the last look, as plain numbers on the host.

    Attributes:
        loss: Loss of the last step, with imitation and sparsity.
        num_good: Number of steps before the first one with a NaN or infinite loss or gradient; all steps if none had.
        sparsity: Sparsity sum S of the present weights.
        task_loss: Task loss, summed over the steps since the last look.
        kd_loss: Imitation loss without its weight, summed likewise.
        correct: Number of images classified correctly, summed likewise.
        num_steps: Steps since the last look.
        num_images: Images of these steps.
        weights: Present architecture weights, in the order of the candidates.
        worth: Running mean of the worth of each candidate; empty if the criterion does not use it.
    """

    loss: float
    num_good: float
    sparsity: float
    task_loss: float
    kd_loss: float
    correct: float
    num_steps: int
    num_images: int
    weights: list[float]
    worth: list[float]


class Learner:
    """Supernet, architecture weights and adapters with their optimizers.

    Args:
        config: The trial's configuration.
        supernet: On its device, with its present candidates.
        imitation: Imitation loss and its adapters, on the same device.
        teacher: The teacher, or None.
        ranks: The processes that share the search.
    """

    def __init__(
        self,
        config: RunConfig,
        supernet: Supernet,
        imitation: nn.Module,
        teacher: Teacher | None,
        ranks: Ranks = ALONE,
    ) -> None:
        settings = config.train
        self.supernet, self.imitation, self.teacher = supernet, imitation, teacher
        self._ranks, self._share = ranks, 1.0
        self.device = next(supernet.parameters()).device
        space = supernet.space
        per_edge = space.derivation == "edges"
        relaxation = Relaxation(supernet.candidates, supernet.groups, space.inputs_kept, per_edge=per_edge)
        self.relaxation = relaxation.to(self.device)
        # Relative to the dense supernet, also when a checkpoint has a smaller one.
        self._scale = RELEASE_SPARSITY / dense_sparsity(space) if config.shrink.pressure == "added" else None
        self.worth = None
        if config.shrink.criterion == "taylor":
            self.worth = WorthMean(len(relaxation.parameter), self.device)
        on_gpu = self.device.type == "cuda"
        # fused: one call for all parameters; a loop over small tensors would take noticeable time.
        self.optimizer = Adam(
            self._parameters(),
            settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
            capturable=on_gpu and settings.cuda_graphs,
        )
        self.arch_optimizer = SGD(self.relaxation.parameters(), settings.arch_learning_rate, settings.arch_momentum)
        self._grad_clip, self._distill = settings.grad_clip, config.distill
        self._strength: tuple[float | Tensor, float | Tensor | None] = strength_at(config.distill, 0.0)
        self._target: NetworkOutput | None = None
        self._autocast = settings.precision == "bfloat16"
        self._list_tensors()
        # Fetched by a look. Written in place, because a recorded CUDA graph refers to fixed memory.
        self._loss, self._watch = torch.zeros((), device=self.device), FiniteWatch(self.device)
        self._totals = torch.zeros(3, device=self.device)
        self._num_steps = self._num_images = 0
        self._pressure: tuple[float, float] | tuple[Tensor, ...] | None = None
        self._recorded_pressure = torch.zeros(2, device=self.device).unbind()
        self._recorded_strength = torch.ones(2, device=self.device).unbind()
        self._recorded = RecordedStep(self._step) if on_gpu and settings.cuda_graphs else None

    def step(
        self,
        images: Tensor,
        labels: Tensor,
        pressure: tuple[float, float] | None,
        num_images: int | None = None,
        *,
        progress: float = 0.0,
        target: NetworkOutput | None = None,
    ) -> None:
        """Take one step of network weights and architecture weights on the same batch.

        Args:
            images: (N, C, H, W), normalised, on the device.
            labels: (N,).
            pressure: Sparsity weight gamma and offset mu; None during the warm-up.
            num_images: Size of the whole batch, if this process has a part of it; None if it has all.
            progress: Completed share of the search, 0 to 1, for schedules of the imitation.
            target: Cached outputs of the teacher for the images; None computes them.
        """
        num_images = num_images or len(labels)
        self._share = len(labels) / num_images
        strength = strength_at(self._distill, progress)
        if self._recorded is None:
            self._pressure, self._strength, self._target = pressure, strength, target
            self._step(images, labels)
            self._target = None
        else:
            if (self._pressure is None) != (pressure is None):
                self._recorded.forget()
            self._pressure = None if pressure is None else self._recorded_pressure
            for entry, value in zip(self._recorded_pressure, pressure or (), strict=False):
                entry.fill_(value)
            if changes(self._distill):
                weight, temperature = self._recorded_strength
                weight.fill_(strength.weight)
                temperature.fill_(strength.temperature or 1.0)
                self._strength = weight, None if strength.temperature is None else temperature
            self._recorded(images, labels)
        self._num_steps += 1
        self._num_images += num_images

    def _step(self, images: Tensor, labels: Tensor) -> None:
        weights = self.relaxation.weights()
        # A separate tensor, whose gradient is without the sparsity term.
        used = weights if self.worth is None else weights.view_as(weights)
        if self.worth is not None:
            used.retain_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            output = self.supernet(images, used)
            task_loss = F.cross_entropy(output.logits, labels)
            loss, kd_loss = task_loss, None
            if self.teacher is not None:
                is_half = self._distill.teacher.precision == "auto"
                target = self.teacher.predict(images, is_half) if self._target is None else self._target
                weight, temperature = self._strength
                kd_loss = self.imitation(output, target, labels, temperature)
                loss = loss + weight * kd_loss
        if self._pressure is not None:
            gamma, mu = self._pressure
            if self._scale is None:
                loss = shrinking_loss(loss, weights, gamma, mu)
            else:
                loss = added_loss(loss, weights, gamma, mu, self._scale)
        self.optimizer.zero_grad()
        self.arch_optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            correct = (output.logits.argmax(1) == labels).sum()
            imitated = torch.zeros_like(loss) if kd_loss is None else kd_loss
            facts = torch.stack([loss, task_loss, imitated, correct.to(loss.dtype)])
            if self._ranks.size > 1:
                self._agree(facts, used)
        norm = nn.utils.clip_grad_norm_(self._clipped, self._grad_clip)
        self.optimizer.step()
        self.arch_optimizer.step()
        if self.worth is not None:
            self.worth.add(used.detach(), cast(Tensor, used.grad), self.relaxation.group)
        with torch.no_grad():
            self._watch.note(facts[0], norm)
            self._loss.copy_(facts[0])
            self._totals += facts[1:]

    def _agree(self, facts: Tensor, used: Tensor) -> None:
        """Combine gradients, running statistics and losses of all processes into those of the whole batch."""
        parameters = chain(self._parameters(), self.relaxation.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.worth is not None:
            gradients.append(cast(Tensor, used.grad))
        facts[:-1] *= self._share  # means over images; the last one is a count
        average(self._ranks, [*gradients, *self._statistics], self._share, facts)

    @torch.no_grad()
    def look(self) -> StepFacts:
        """Fetch the facts since the last look: the one transfer to the host, and the only wait for the device."""
        weights = self.relaxation.weights()
        facts = torch.stack([self._loss, self._watch.num_good, sparsity(weights)])
        worth = () if self.worth is None else (self.worth.values[self.relaxation.group],)
        loss, num_good, total, task_loss, kd_loss, correct, *values = self._ranks.of_first(
            torch.cat([facts, self._totals, weights, *worth])
        ).tolist()
        values, worth_values = values[: len(weights)], values[len(weights) :]
        counts = self._num_steps, self._num_images
        result = StepFacts(loss, num_good, total, task_loss, kd_loss, correct, *counts, values, worth_values)
        self._totals.zero_()
        self._watch.restart()
        self._num_steps = self._num_images = 0
        return result

    def delete(self, positions: Collection[int]) -> None:
        """Delete candidates: their parameters, statistics and optimizer state."""
        kept, sliced = self.supernet.remove(positions)
        if self._recorded is not None:
            self._recorded.forget()
        cut_optimizer(self.optimizer, self._parameters(), sliced)
        self._list_tensors()
        cut = self.relaxation.keep(kept)
        cut_optimizer(self.arch_optimizer, self.relaxation.parameters(), [cut])
        if self.worth is not None:
            self.worth.keep(cut.rows)

    def _list_tensors(self) -> None:
        # Kept in lists, because walking through all modules is slow.
        self._clipped = list(self.supernet.parameters())
        self._statistics = [entry for entry in self.supernet.buffers() if entry.is_floating_point()]

    def _parameters(self) -> Iterator[nn.Parameter]:
        return chain(self.supernet.parameters(), self.imitation.parameters())
