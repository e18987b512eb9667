"""The base class of gradient-based training tasks; a task maps a batch to losses."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dnad_ray.data.batches import TrainingBatches
from dnad_ray.errors import RunFolderError, one_line
from dnad_ray.runtime.processes import ALONE, Ranks
from dnad_ray.training.finite import FiniteWatch, check_finite
from dnad_ray.training.optimizers import check_optimizer

__all__ = ["Losses", "Task"]


class Losses(NamedTuple):
    """Losses of a task for a batch.

    Attributes:
        total: The differentiated loss, a scalar.
        task: The part of it that is reported, a mean over the images.
        logits: (N, num_classes).
    """

    total: Tensor
    task: Tensor
    logits: Tensor


class Task(ABC):
    """The state of a training; a :class:`dnad_ray.training.loop.Training`.

    On a CPU, a training that was saved after any step and loaded ends with the same bits as one that never stopped.

    Attributes:
        what: Name of the loss, for the error if it diverges.
        advice: The setting to lower if it diverges.
        named: Name of the object of the digest, for error messages.
        allowed: Accepted checkpoints, for error messages.
        step: Steps taken.
        history: One entry per finished epoch.
        device_seconds: Compute so far: wall seconds times processes.

    Args:
        parts: Modules and optimizers by the names that a checkpoint gives them.
        batches: Training batches, on the device of the training.
        digest: Digest of the network and its settings; a checkpoint with another digest is refused.
        num_epochs: Passes over the training images.
        clipped: Parameters whose gradients are clipped together.
        grad_clip: Largest norm of these gradients.
        precision: ``bfloat16`` runs :meth:`autocast` in half precision.
        ranks: The processes that share every batch.
    """

    what, advice = "loss", "learning_rate"
    named, allowed = "digest", "a checkpoint of this very training"
    is_complete = True

    def __init__(
        self,
        parts: Mapping[str, nn.Module | Optimizer],
        batches: TrainingBatches,
        *,
        digest: str,
        num_epochs: int,
        clipped: Iterable[nn.Parameter],
        grad_clip: float,
        precision: str = "float32",
        ranks: Ranks = ALONE,
    ) -> None:
        self._parts, self._digest = dict(parts), digest
        self._optimizers = [part for part in parts.values() if isinstance(part, Optimizer)]
        self._clipped, self._grad_clip = list(clipped), grad_clip
        self._is_half = precision == "bfloat16"
        self.batches, self.device, self.ranks = batches, batches.device, ranks
        self.num_steps = num_epochs * batches.steps_per_epoch
        self.step, self.device_seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # sums of task loss and correct images
        self._watch, self._since_look = FiniteWatch(self.device), 0
        self._loss = torch.zeros((), device=self.device)
        self._sums_of_epoch = (0.0, 0.0)

    @abstractmethod
    def losses(self, images: Tensor, labels: Tensor) -> Losses:
        """Map a batch, images (N, C, H, W) and labels (N,), to its losses."""

    def rate(self) -> float | None:
        """Return the learning rate of the next step; None to use that of the optimizers."""
        return None

    def momentum(self) -> float | None:
        """Return the momentum of the next step; None to use that of the optimizers."""
        return None

    def after_step(self) -> None:  # noqa: B027 - most tasks have nothing to do here
        """Hook after the parameters were updated; does nothing by default."""

    def more_state(self) -> dict[str, Any]:
        """Return additional state for a checkpoint."""
        return {}

    def load_more(self, state: dict[str, Any]) -> None:  # noqa: B027 - nor here
        """Restore from :meth:`more_state`.

        Raises:
            ValueError: If the state does not fit this training.
        """

    @property
    def counter(self) -> Task:
        """The object that counts the compute."""
        return self

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch."""
        return self.batches.steps_per_epoch

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is finished."""
        return self.step >= self.num_steps

    def autocast(self) -> torch.autocast:
        """Return the context for the forward pass of a network."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_half)

    def train_step(self) -> None:
        """Take one step: forward, backward, gradient clipping, and optimizer steps."""
        images, labels = self.batches.batch(self.step)
        losses = self.losses(images, labels)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(self._clipped, self._grad_clip)
        self._set_rates()
        for optimizer in self._optimizers:
            optimizer.step()
        self._loss = losses.total.detach()
        with torch.no_grad():
            self._watch.note(self._loss, norm)
            correct = (losses.logits.argmax(1) == labels).sum()
            self.sums += torch.stack([losses.task.double() * len(labels), correct.double()])
            self.after_step()
        self.step += 1
        self._since_look += 1

    def look(self) -> None:
        """Fetch the sums at the end of an epoch, the only wait for the device; see the loop."""
        if self.step % self.steps_per_epoch:
            return
        facts = torch.stack([self._watch.num_good, self._loss.float()])
        loss, correct, num_good, last = torch.cat([self.ranks.sum(self.sums), facts]).tolist()
        # The sum is over all processes, so that all of them stop together.
        last = last if math.isfinite(loss) else loss
        check_finite(
            num_good,
            self._since_look,
            last,
            step=self.step,
            steps_per_epoch=self.steps_per_epoch,
            what=self.what,
            advice=self.advice,
        )
        self._sums_of_epoch = loss, correct
        self.sums.zero_()
        self._watch.restart()
        self._since_look = 0

    def events(self) -> list[dict[str, Any]]:
        """Return the history entry at the end of an epoch; see the loop."""
        if self.step % self.steps_per_epoch:
            return []
        self.history.append(self.entry())
        return [self.history[-1]]

    def entry(self) -> dict[str, Any]:
        """Return the history entry of the finished epoch."""
        loss, correct = self._sums_of_epoch
        num_images = self.steps_per_epoch * self.batches.batch_size
        return {
            "epoch": self.step // self.steps_per_epoch,
            "train_loss": loss / num_images,
            "train_accuracy": correct / num_images,
            "learning_rate": self._optimizers[0].param_groups[0]["lr"],
            "device_seconds": self.device_seconds,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return plain data and tensors for a checkpoint."""
        return {
            "digest": self._digest,
            **{name: part.state_dict() for name, part in self._parts.items()},
            "sums": self.sums,
            "step": self.step,
            "device_seconds": self.device_seconds,
            "history": self.history,
            **self.more_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore from :meth:`state_dict`.

        Raises:
            RunFolderError: If it is the state of another training.
        """
        try:
            if state["digest"] != self._digest:
                raise ValueError(f"it is of {self.named} {state['digest']}, not {self._digest}")
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
                if isinstance(part, Optimizer):
                    check_optimizer(part)
            self.load_more(state)
            self.sums.copy_(state["sums"])
            self.step, self.device_seconds = int(state["step"]), float(state["device_seconds"])
            self.history = list(state["history"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise RunFolderError("checkpoint", one_line(error)[:300], self.allowed) from error

    def _set_rates(self) -> None:
        for name, value in (("lr", self.rate()), ("momentum", self.momentum())):
            if value is not None:
                for group in self._optimizers[0].param_groups:
                    group[name] = value
