"""Training a found network from scratch: one loop for all recipes, exact to resume.

``train(state)`` is a generator of epochs, so a for-loop, a test and Ray drive the same code. Batches, variations and
drop-path are pure functions of seed and step; weights, moments and averages are in the checkpoint: on a CPU a training
that was killed ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, cast, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dnad_ray.config.retrain import RetrainConfig
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.data.imagenet_variation import imagenet_variation
from dnad_ray.data.images import ImageData
from dnad_ray.distill.imitation import logit_imitation
from dnad_ray.distill.teacher import Teacher
from dnad_ray.errors import ConfigError, NonFiniteLossError, RunFolderError, one_line
from dnad_ray.networks.spec import NetworkSpec, logits_of
from dnad_ray.retrain.data import varied_as
from dnad_ray.retrain.trainee import Trainee
from dnad_ray.runtime.devices import MEMORY_FORMAT, device_for, to_device
from dnad_ray.runtime.processes import ALONE, Ranks
from dnad_ray.runtime.stopping import StopCheck, StopRequest
from dnad_ray.storage.weights_reader import parse_weights
from dnad_ray.training.evaluate import accuracy_of, recalibrate
from dnad_ray.training.learning_rate import learning_rate_at
from dnad_ray.training.optimizers import check_optimizer

__all__ = ["RetrainState", "train"]

_SCORING_BATCH = 512


@final
class RetrainState:
    """Everything that changes while a network trains.

    Attributes:
        step: Steps taken.
        history: One entry per epoch that is over.
        device_seconds: Wall seconds spent times the processes.

    Args:
        spec: Which network.
        config: The protocol.
        data: Images as :func:`dnad_ray.retrain.data.load_retrain_images` returned them.
        seed: Seed of initial weights, order of images and variations.
        teacher: Whose logits are imitated; needed where the protocol has a KD weight.
        ranks: The processes that share every batch.
    """

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
        self.spec, self.config, self.seed, self.ranks = spec, config, seed, ranks
        self.data, self.device = varied_as(config, data), device_for(config.device)
        self.teacher = teacher if config.kd_weight else None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            trainee = Trainee(spec, data.shape, config)
        self.trainee = to_device(trainee, self.device)
        self.batches = TrainingBatches(self.data, config.batch_size, seed, self.device, MEMORY_FORMAT, ranks=ranks)
        self.optimizer = torch.optim.SGD(
            self.trainee.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay
        )
        self.averages = None if config.ema_decay is None else [t.clone() for t in self._averaged()]
        self.step, self.device_seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._parallel: nn.Module = self.trainee
        if ranks.size > 1:
            # The graph is the same in every step; said so, it may leave out a part of the stem that no cell reads.
            self._parallel = DistributedDataParallel(self.trainee, static_graph=True)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a pass over the training images."""
        return self.batches.steps_per_epoch

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is over."""
        return self.step >= self.config.epochs * self.steps_per_epoch

    def inherit(self, content: bytes) -> None:
        """Begin with the weights that a snapshot left instead of random ones.

        Args:
            content: A safetensors file of the very network.

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

    def train_step(self) -> None:
        """Take one step."""
        config, step = self.config, self.step
        began = time.perf_counter()
        images, labels = self.batches.batch(step)
        draws = _seed_of(self.seed, step, self.ranks.rank)
        if config.augment == "imagenet":
            mean, std = torch.tensor(self.data.mean), torch.tensor(self.data.std)
            images = imagenet_variation(images, mean, std, draws)
        self.trainee.train()
        self.trainee.begin_step(step // self.steps_per_epoch / config.epochs, draws, self.device)
        with torch.random.fork_rng(devices=[]):  # dropout of torchvision networks, a function of the step as well
            torch.manual_seed(draws)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
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
            self.optimizer.zero_grad()
            loss.backward()
        nn.utils.clip_grad_norm_(self.trainee.parameters(), config.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(config, step, self.steps_per_epoch)
        self.optimizer.step()
        with torch.no_grad():
            correct = (output.logits.argmax(1) == labels).sum()
            self.sums += torch.stack([task.double() * len(labels), correct.double()])
            if self.averages is not None:
                self._average()
        self.step += 1
        self.device_seconds += (time.perf_counter() - began) * self.ranks.size

    def end_epoch(self) -> dict[str, Any]:
        """Close an epoch and return its entry.

        Raises:
            NonFiniteLossError: If its loss is no number.
        """
        loss, correct = self.ranks.sum(self.sums).tolist()
        self.sums.zero_()
        epoch, num_images = self.step // self.steps_per_epoch, self.steps_per_epoch * self.batches.batch_size
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"the loss became {loss} in epoch {epoch}; lower learning_rate")
        entry = {
            "epoch": epoch,
            "train_loss": loss / num_images,
            "train_accuracy": correct / num_images,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "device_seconds": self.device_seconds,
        }
        self.history.append(entry)
        return entry

    def trained(self) -> nn.Module:
        """Return the network that is measured and kept: with averaged weights where the protocol has them."""
        network = self.trainee.network
        if self.averages is not None:
            with torch.no_grad():
                torch._foreach_copy_(list(self._averaged()), self.averages)
            self.recalibrate()  # averaged weights have statistics of their own
            self.averages = None
        return network.eval()

    def measure(self) -> float:
        """Return the accuracy on the split that measures; all processes take part."""
        began = time.perf_counter()
        network = self.trained()
        accuracy = accuracy_of(
            network,
            lambda images: logits_of(network(images)),
            self.data.validation,
            self.data,
            _SCORING_BATCH,
            ranks=self.ranks,
        )
        self.device_seconds += (time.perf_counter() - began) * self.ranks.size
        return accuracy

    def state_dict(self) -> dict[str, Any]:
        """Return plain data and tensors for a checkpoint."""
        return {
            "digest": self.spec.digest,
            "trainee": self.trainee.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages,
            "sums": self.sums,
            "step": self.step,
            "device_seconds": self.device_seconds,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned.

        Raises:
            RunFolderError: If it is the state of another network.
        """
        try:
            if state["digest"] != self.spec.digest:
                raise ValueError(f"it is of network {state['digest']}, not {self.spec.digest}")
            self.trainee.load_state_dict(state["trainee"])
            self.optimizer.load_state_dict(state["optimizer"])
            check_optimizer(self.optimizer)
            if (state["averages"] is None) != (self.averages is None):
                raise ValueError("it has moving averages, or lacks them")
            if self.averages is not None:
                torch._foreach_copy_(self.averages, [tensor.to(self.device) for tensor in state["averages"]])
            self.sums.copy_(state["sums"])
            self.step, self.device_seconds = int(state["step"]), float(state["device_seconds"])
            self.history = list(state["history"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            allowed = "a checkpoint of this very network and protocol"
            raise RunFolderError("checkpoint", one_line(error)[:300], allowed) from error

    def _averaged(self) -> list[Tensor]:
        tensors = self.trainee.network.state_dict().values()
        return [tensor for tensor in tensors if tensor.is_floating_point()]

    def _average(self) -> None:
        # The first steps count less than the decay says, or the random start would show for long.
        decay = min(cast(float, self.config.ema_decay), (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(cast("list[Tensor]", self.averages), self._averaged(), 1 - decay)


def train(state: RetrainState, stop: StopCheck | None = None) -> Iterator[dict[str, Any] | StopRequest]:
    """Train to the last epoch, or until it is asked to stop.

    Args:
        state: Where to begin; changed in place, and complete at every event.
        stop: Asked before each step.

    Yields:
        The entry of each epoch; a request that was honoured comes last, and the state is not finished then.

    Raises:
        NonFiniteLossError: If the loss of an epoch is no number.
    """
    while not state.is_finished:
        if stop is not None and (request := stop()) is not None:
            state.batches.close()
            yield request
            return
        state.train_step()
        if state.step % state.steps_per_epoch == 0:
            yield state.end_epoch()
    state.batches.close()


def _seed_of(seed: int, step: int, rank: int) -> int:
    """Return a seed for the draws of a step in a process, unlike those of its neighbours."""
    return int(np.random.SeedSequence((seed, step, rank, 1)).generate_state(1, np.uint64)[0] >> np.uint64(1))
