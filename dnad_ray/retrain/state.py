"""Training of a found network from scratch: one task for all recipes; it resumes exactly.

:func:`dnad_ray.training.loop.train` runs the steps and yields the history entry of each epoch. Batches, augmentation
and drop-path are pure functions of seed and step. Weights, optimizer moments and averages are in the checkpoint. On a
CPU, a training that was killed and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

from typing import Any, cast, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dnad_ray.config.retrain import RetrainConfig
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.data.imagenet_augmentation import augmented_as_imagenet
from dnad_ray.data.images import ImageData
from dnad_ray.distill.imitation import logit_imitation
from dnad_ray.distill.teacher import Teacher
from dnad_ray.errors import ConfigError
from dnad_ray.networks.spec import NetworkSpec, logits_of
from dnad_ray.retrain.data import varied_as
from dnad_ray.retrain.trainee import Trainee
from dnad_ray.runtime.devices import MEMORY_FORMAT, device_for, to_device
from dnad_ray.runtime.processes import ALONE, Ranks
from dnad_ray.storage.weights_reader import parse_weights
from dnad_ray.training.evaluate import accuracy_of, recalibrate
from dnad_ray.training.learning_rate import learning_rate_at, momentum_at
from dnad_ray.training.loop import counted
from dnad_ray.training.optimizers import SGD
from dnad_ray.training.task import Losses, Task

__all__ = ["RetrainState"]

_SCORING_BATCH = 512


@final
class RetrainState(Task):
    """Everything that changes while a network trains.

    Attributes:
        trainee: The network, with the parts that only training needs.
        averages: Moving averages of its weights and statistics; None if the protocol has none.

    Args:
        spec: The network.
        config: The protocol.
        data: Images as :func:`dnad_ray.retrain.data.load_retrain_images` returned them.
        seed: Seed of the initial weights, the order of the images and their augmentation.
        teacher: The teacher of logit imitation; needed if the protocol has a KD weight.
        ranks: The processes that share every batch.
    """

    named, allowed = "network", "a checkpoint of this very network and protocol"

    def __init__(
        self,
        spec: NetworkSpec,
        config: RetrainConfig,
        data: ImageData,
        seed: int,
        *,
        teacher: Teacher | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        if config.kd_weight and teacher is None:
            raise ConfigError("kd_weight", config.kd_weight, "0, for there is no teacher to imitate")
        self.spec, self.config, self.seed = spec, config, seed
        self.data, device = varied_as(config, data), device_for(config.device)
        self.teacher = teacher if config.kd_weight else None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            trainee = Trainee(spec, data.shape, config)
        self.trainee = to_device(trainee, device)
        self.optimizer = SGD(
            self.trainee.parameters(),
            config.learning_rate,
            config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
        )
        super().__init__(
            {"trainee": self.trainee, "optimizer": self.optimizer},
            TrainingBatches(self.data, config.batch_size, seed, device, MEMORY_FORMAT, ranks=ranks),
            digest=spec.digest,
            num_epochs=config.epochs,
            clipped=self.trainee.parameters(),
            grad_clip=config.grad_clip,
            precision=config.precision,
            ranks=ranks,
        )
        self.averages = None if config.ema_decay is None else [t.clone() for t in self._averaged()]
        self._parallel: nn.Module = self.trainee
        if ranks.size > 1:
            # The graph is the same in every step. With static_graph, a part of the stem that no cell reads is no error.
            self._parallel = DistributedDataParallel(self.trainee, static_graph=True)

    def inherit(self, content: bytes) -> None:
        """Replace the random initial weights by those of a snapshot.

        Args:
            content: A safetensors file with weights of the same network.

        Raises:
            WeightsError: If it holds the weights of another network.
        """
        network = self.trainee.network
        network.load_state_dict(parse_weights(content, network.state_dict(), "inherited weights"))
        self.recalibrate()
        if self.averages is not None:
            self.averages = [tensor.clone() for tensor in self._averaged()]

    def recalibrate(self) -> None:
        """Re-estimate the batch-norm statistics on training images."""
        network = self.trainee.network.train()
        recalibrate(
            network,
            lambda images: logits_of(network(images)),
            self.data,
            self.config.recalibration_images,
            self.config.batch_size,
        )

    def losses(self, images: Tensor, labels: Tensor) -> Losses:
        """Classify a batch; the total loss includes those of the auxiliary head and of imitation."""
        config, draws = self.config, _seed_of(self.seed, self.step, self.ranks.rank)
        if config.augment == "imagenet":
            mean, std = torch.tensor(self.data.mean), torch.tensor(self.data.std)
            images = augmented_as_imagenet(images, mean, std, draws)
        self.trainee.train()
        self.trainee.begin_step(self.step // self.steps_per_epoch / config.epochs, draws, self.device)
        with torch.random.fork_rng(devices=[]):  # dropout of torchvision networks is also a function of the step
            torch.manual_seed(draws)
            with self.autocast():
                output = self._parallel(images)
        task = F.cross_entropy(output.logits.float(), labels, label_smoothing=config.label_smoothing)
        loss = task
        if output.auxiliary is not None:
            second = F.cross_entropy(output.auxiliary.float(), labels, label_smoothing=config.label_smoothing)
            loss = loss + config.auxiliary_weight * second
        if self.teacher is not None:
            with torch.no_grad():
                target = self.teacher.predict(images).logits
            loss = loss + config.kd_weight * logit_imitation(output.logits.float(), target, config.kd_temperature)
        return Losses(loss, task.detach(), output.logits.detach())

    def rate(self) -> float:
        """Return the learning rate of the next step by the protocol's schedule."""
        return learning_rate_at(self.config, self.step, self.steps_per_epoch)

    def momentum(self) -> float:
        """Return the momentum of the next step by the protocol's schedule."""
        return momentum_at(self.config, self.step, self.steps_per_epoch)

    def after_step(self) -> None:
        """Update the moving averages."""
        if self.averages is not None:
            # A smaller decay in the first steps, so that the random initial weights fade quickly.
            decay = min(cast(float, self.config.ema_decay), (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.averages, self._averaged(), 1 - decay)

    def trained(self) -> nn.Module:
        """Return the network to measure and save; it has the averaged weights if the protocol has averages."""
        network = self.trainee.network
        if self.averages is not None:
            with torch.no_grad():
                torch._foreach_copy_(list(self._averaged()), self.averages)
            self.recalibrate()  # averaged weights come with averaged statistics
            self.averages = None
        return network.eval()

    def measure(self) -> float:
        """Return the accuracy on the split for measurement; all processes take part."""
        with counted(self):
            network = self.trained()
            return accuracy_of(
                network,
                lambda images: logits_of(network(images)),
                self.data.validation,
                self.data,
                _SCORING_BATCH,
                ranks=self.ranks,
            )

    def more_state(self) -> dict[str, Any]:
        """Return the moving averages, for a checkpoint."""
        return {"averages": self.averages}

    def load_more(self, state: dict[str, Any]) -> None:
        """Restore the moving averages.

        Raises:
            ValueError: If only one of checkpoint and protocol has averages.
        """
        if (state["averages"] is None) != (self.averages is None):
            raise ValueError("it has moving averages, or lacks them")
        if self.averages is not None:
            torch._foreach_copy_(self.averages, [tensor.to(self.device) for tensor in state["averages"]])

    def _averaged(self) -> list[Tensor]:
        tensors = self.trainee.network.state_dict().values()
        return [tensor for tensor in tensors if tensor.is_floating_point()]


def _seed_of(seed: int, step: int, rank: int) -> int:
    """Return the seed of a step in a process; it differs between steps and between processes."""
    return int(np.random.SeedSequence((seed, step, rank, 1)).generate_state(1, np.uint64)[0] >> np.uint64(1))
