"""Training of a teacher by cross entropy; it resumes exactly."""

from __future__ import annotations

import contextlib
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from dnad_ray.config.run import OF_THE_PLACE, RunConfig
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.data.images import ImageData
from dnad_ray.distill.foreign_network import ForeignNetwork, TrainingOutput
from dnad_ray.runtime.devices import MEMORY_FORMAT
from dnad_ray.runtime.random_states import OwnStream
from dnad_ray.storage.digests import digest_of_data
from dnad_ray.training.learning_rate import cosine_rates, one_cycle_momentum, one_cycle_rate
from dnad_ray.training.optimizers import SGD, Adam
from dnad_ray.training.task import Losses, Task
from search_spaces.kernels.states import former_name

__all__ = ["TeacherTraining"]

_AUXILIARY_WEIGHT = 0.3
"""Weight of the loss of each auxiliary head (GoogLeNet, arXiv 1409.4842, section 5)."""

_MOMENTUM = 0.95
"""Momentum of SGD, Nesterov's, before and after its fall."""

_OF_THE_IMITATION = {"precision", "cache", "cache_gib"}
"""Settings of the teacher that change how it is evaluated, but not its trained weights."""


@final
class TeacherTraining(Task):
    """Everything that changes while a teacher trains.

    Args:
        network: On its device, with initial weights; returns :class:`search_spaces.network.NetworkOutput`.
        config: The run; ``distill.teacher`` sets the number of epochs, ``train`` the rest.
        data: Images; the validation images are not used.
        device: Device for training.
    """

    what, advice = "teacher's loss", "distill.teacher.learning_rate"
    named, allowed = "settings", "a checkpoint of the very same teacher, or a new folder"

    def __init__(self, network: nn.Module, config: RunConfig, data: ImageData, device: torch.device) -> None:
        settings = config.distill.teacher
        self._network = network.train()
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        peak, decay = settings.learning_rate, config.train.weight_decay
        self._in_one_cycle = settings.optimizer == "sgd"
        optimizer: Optimizer = Adam(parameters, peak, weight_decay=decay)
        if self._in_one_cycle:
            optimizer = SGD(parameters, peak, _MOMENTUM, weight_decay=decay, nesterov=True)
        super().__init__(
            {"network": network, "optimizer": optimizer},
            TrainingBatches(data, config.train.batch_size, config.seed, device, MEMORY_FORMAT),
            digest=_digest_of(config, data, network),
            num_epochs=settings.epochs,
            clipped=parameters,
            grad_clip=config.train.grad_clip,
            precision=config.train.precision,
        )
        self._peak, self._rates, self._past_rates = peak, cosine_rates(peak, self.num_steps), list[float]()
        # Dropout in a foreign model uses torch's global random stream.
        self._stream = OwnStream(config.seed, device) if isinstance(network, ForeignNetwork) else None

    def losses(self, images: Tensor, labels: Tensor) -> Losses:
        """Classify a batch; the total loss includes those of a foreign network's auxiliary heads."""
        with contextlib.nullcontext() if self._stream is None else self._stream.used(), self.autocast():
            output = self._network(images)
        task = loss = F.cross_entropy(output.logits.float(), labels)
        for logits in output.auxiliary if isinstance(output, TrainingOutput) else ():
            loss = loss + _AUXILIARY_WEIGHT * F.cross_entropy(logits.float(), labels)
        return Losses(loss, task.detach(), output.logits.detach())

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        if self._in_one_cycle:
            return one_cycle_rate(self._peak, self.step, self.num_steps)
        while len(self._past_rates) <= self.step:  # one by one: a list of all steps may be large
            self._past_rates.append(next(self._rates))
        return self._past_rates[self.step]

    def momentum(self) -> float | None:
        """Return the momentum of the next step; None for Adam."""
        return one_cycle_momentum(_MOMENTUM, self.step, self.num_steps) if self._in_one_cycle else None

    def more_state(self) -> dict[str, Any]:
        """Return the state of the random stream, for a checkpoint."""
        return {} if self._stream is None else {"stream": self._stream.state}

    def load_more(self, state: dict[str, Any]) -> None:
        """Restore the state of the random stream."""
        if self._stream is not None:
            self._stream.state = list(state["stream"])


def _digest_of(config: RunConfig, data: ImageData, network: nn.Module) -> str:
    """Return a digest of everything that determines the trained weights, except the pixels."""
    images = config.data.model_dump(mode="json", exclude=set(OF_THE_PLACE))
    about = [data.num_classes, data.image_size, len(data.train), *data.mean, *data.std]
    train = config.train.model_dump(mode="json", include={"batch_size", "weight_decay", "grad_clip", "precision"})
    teacher = config.distill.teacher.model_dump(mode="json", exclude=_OF_THE_IMITATION)
    if config.distill.teacher.optimizer == "adam":  # what versions without this setting did: their teachers go on
        del teacher["optimizer"]
    # A teacher that was paused when names had spaces goes on.
    tensors = [[former_name(name), list(tensor.shape)] for name, tensor in network.state_dict().items()]
    return digest_of_data([config.seed, images, about, train, teacher, tensors])
