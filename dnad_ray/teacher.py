"""The network that is imitated: trained once per run, stored as safetensors and JSON, shared by all trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from dnad_ray.augment import TrainingBatches
from dnad_ray.config import RunConfig
from dnad_ray.data import ImageData
from dnad_ray.devices import MEMORY_FORMAT, placed
from dnad_ray.errors import ConfigError, NonFiniteLossError, RunFolderError, one_line
from dnad_ray.evaluate import accuracy_of
from dnad_ray.files import read_file
from dnad_ray.genotypes import read_any_genotype
from dnad_ray.places import Place
from dnad_ray.spaces import space_of
from dnad_ray.store import write_bytes, write_json
from dnad_ray.weights import MAX_BYTES, parse_weights
from search_spaces.genotype import Genotype
from search_spaces.json_reader import MAX_BYTES as MAX_JSON_BYTES
from search_spaces.json_reader import parse_json
from search_spaces.network import Network, network_from
from search_spaces.space import NetworkShape, stages

__all__ = ["Teacher", "TeacherFile", "load_teacher", "read_teacher", "save_teacher", "train_teacher"]

_WEIGHTS, _DESCRIPTION = "teacher.safetensors", "teacher.json"


@dataclass(frozen=True)
class Teacher:
    """A trained network in evaluation mode.

    Attributes:
        network: Gives logits and the features at the three stage ends; needs no gradients.
        genotype: Its topology.
        shape: Its width, classes and images.
        accuracy: Share of the validation images that it classifies correctly.
    """

    network: Network
    genotype: Genotype
    shape: NetworkShape
    accuracy: float


@dataclass(frozen=True)
class TeacherFile:
    """A teacher as bytes: what is put once into the object store, whatever the number of trials."""

    description: str
    weights: bytes


def train_teacher(
    config: RunConfig,
    data: ImageData,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Teacher:
    """Train the teacher on the training images; the validation images only measure it.

    Args:
        config: The run; ``distill.teacher`` says which network and how long.
        data: Images.
        device: Where to train.
        progress: Called with (steps done, steps in all).

    Raises:
        NonFiniteLossError: If the loss becomes NaN or infinite.
        RunFolderError: If the configured genotype file cannot be read.
        ConfigError: If its features are to be imitated and it has another number of stages.
    """
    settings = config.distill.teacher
    genotype = teacher_genotype(config)
    shape = NetworkShape(
        in_channels=data.in_channels,
        image_size=data.image_size,
        num_classes=data.num_classes,
        init_channels=settings.init_channels,
        stem=config.space.stem,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = placed(network_from(genotype, shape), device)
    batches = TrainingBatches(data, config.train.batch_size, config.seed, device, MEMORY_FORMAT)
    steps = settings.epochs * batches.steps_per_epoch
    optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate, weight_decay=config.train.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        images, labels = batches.batch(step)
        loss = F.cross_entropy(network(images).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.train.grad_clip)
        optimizer.step()
        schedule.step()
        if not torch.isfinite(loss):
            raise NonFiniteLossError(f"the teacher's loss became {loss.item()} at step {step}; lower its learning rate")
        if progress is not None:
            progress(step + 1, steps)
    accuracy = accuracy_of(
        network, lambda images: network(images).logits, data.validation, data, config.evaluation.batch_size
    )
    return Teacher(_frozen(network), genotype, shape, accuracy)


def teacher_genotype(config: RunConfig) -> Genotype:
    """Return the topology of the teacher: the configured file's, or separable convolutions on both inputs.

    Raises:
        RunFolderError: If the file cannot be read.
        ConfigError: If features are to be imitated and the file's network has another number of stages.
    """
    file = config.distill.teacher.genotype
    if file is not None:
        genotype = read_any_genotype(file, config.space.num_cells)
        needed = len(config.distill.stage_ratios)
        if config.distill.uses_features and stages(genotype)[-1] + 1 != needed:
            allowed = f"a network of {needed} stages, that is with {needed - 1} reduction cells"
            raise ConfigError("distill.teacher.genotype", file, allowed)
        return genotype
    return space_of(config.space).usual_teacher()


def save_teacher(folder: Place, teacher: Teacher) -> TeacherFile:
    """Write the teacher into ``folder`` and return the same as bytes."""
    # Strides are kept by safetensors only for contiguous tensors; the memory format is the loader's own business.
    weights = {name: tensor.cpu().contiguous() for name, tensor in teacher.network.state_dict().items()}
    content = safetensors.torch.save(weights)
    description = {
        "genotype": teacher.genotype.to_dict(),
        "shape": asdict(teacher.shape),
        "accuracy": teacher.accuracy,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    file = TeacherFile(json.dumps(description), content)
    write_bytes(folder / _WEIGHTS, file.weights)
    write_json(folder / _DESCRIPTION, description)  # last: where it stands, the weights do too
    return file


def read_teacher(folder: Place) -> TeacherFile | None:
    """Return what :func:`save_teacher` wrote, or None if it never came to that."""
    try:
        # Bytes that are no text are refused in words by load_teacher, as all other damage is.
        description = read_file(folder / _DESCRIPTION, MAX_JSON_BYTES).decode(errors="replace")
        return TeacherFile(description, read_file(folder / _WEIGHTS, MAX_BYTES))
    except FileNotFoundError:
        return None


def load_teacher(file: TeacherFile, device: torch.device) -> Teacher:
    """Rebuild a teacher from its bytes.

    Raises:
        RunFolderError: If description and weights do not fit each other.
    """
    try:
        description = parse_json(file.description, _DESCRIPTION)
        if hashlib.sha256(file.weights).hexdigest() != description["sha256"]:
            raise ValueError("the weights are not those that were described")
        genotype = Genotype.from_dict(description["genotype"], "teacher genotype")
        shape = NetworkShape(**description["shape"])
        with torch.device("meta"):  # takes no memory, however large a network is described
            expected = network_from(genotype, shape).state_dict()
        weights = parse_weights(file.weights, expected, _WEIGHTS)
        with torch.random.fork_rng():
            network = network_from(genotype, shape)
        network.load_state_dict(weights)
        accuracy = float(description["accuracy"])
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise RunFolderError("teacher", one_line(error)[:300], "an intact teacher.json and .safetensors") from error
    return Teacher(_frozen(placed(network, device)), genotype, shape, accuracy)


def _frozen(network: Network) -> Network:
    return network.eval().requires_grad_(False)
