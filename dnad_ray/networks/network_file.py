"""A trained network on disk: ``weights.safetensors``, and ``network.json`` with its topology and its inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from dnad_ray.data.decoding import FULL_LEVEL
from dnad_ray.data.images import ImageData
from dnad_ray.errors import RunFolderError, UserError, one_line
from dnad_ray.networks.spec import NetworkSpec, build
from dnad_ray.storage.checksums import parse_record
from dnad_ray.storage.files import read_file, write_bytes, write_json
from dnad_ray.storage.places import Place, address
from dnad_ray.storage.weights_reader import MAX_BYTES, parse_weights
from search_spaces.shape import ImageShape

__all__ = [
    "DESCRIPTION",
    "WEIGHTS",
    "TrainedNetwork",
    "checked_images",
    "checked_level",
    "described",
    "read_network",
    "weights_of",
    "with_weights",
    "write_network",
    "write_trained",
]

WEIGHTS, DESCRIPTION = "weights.safetensors", "network.json"
KIND, SCHEMA = "dnad-ray network", 1
_MAX_DESCRIPTION = 4 * 2**20
_MOST_CLASSES, _MOST_SIDE = 100_000, 4096


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network with everything that is needed to use it.

    Attributes:
        network: In evaluation mode, on the CPU; maps normalised images to logits.
        spec: Its description.
        images: Shape and number of classes of its images.
        classes: Names of the classes.
        mean: Mean of each channel in 0..1, from its training.
        std: Standard deviation of each channel, from its training.
        facts: Its origin and its accuracy: the record of its job.
        full_level: Level of white of image files of more than 8 bits, as in its training.
    """

    network: nn.Module
    spec: NetworkSpec
    images: ImageShape
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    facts: Mapping[str, Any]
    full_level: int = FULL_LEVEL


def weights_of(network: nn.Module) -> bytes:
    """Return the weights and buffers of a network as safetensors."""
    return safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()})


def described(trained: TrainedNetwork) -> dict[str, Any]:
    """Return the description that a reader needs besides the weights, as plain data for JSON."""
    return {
        "network": trained.spec.to_dict(),
        "images": trained.images.to_dict(),
        "classes": list(trained.classes),
        "mean": list(trained.mean),
        "std": list(trained.std),
        "facts": dict(trained.facts),
        **({} if trained.full_level == FULL_LEVEL else {"full_level": trained.full_level}),
    }


def write_trained(
    folder: Place, trained: TrainedNetwork, weights: str = WEIGHTS, description_file: str = DESCRIPTION
) -> None:
    """Write a trained network into a folder as two files; the description is written last.

    Args:
        folder: The folder.
        trained: The network.
        weights: Name of the file of weights.
        description_file: Name of the description file.
    """
    content = weights_of(trained.network)
    write_bytes(folder / weights, content)
    facts = described(trained)
    digest = {"sha256": hashlib.sha256(content).hexdigest(), "facts": facts.pop("facts")}
    write_json(folder / description_file, {"kind": KIND, "schema": SCHEMA, **facts, **digest})


def write_network(
    folder: Place, network: nn.Module, spec: NetworkSpec, data: ImageData, facts: Mapping[str, Any]
) -> None:
    """Write a network and the description of its training images into a folder, see :func:`write_trained`."""
    trained = TrainedNetwork(network, spec, data.shape, data.classes, data.mean, data.std, facts, data.full_level)
    write_trained(folder, trained)


def read_network(folder: Place, weights: str = WEIGHTS, description_file: str = DESCRIPTION) -> TrainedNetwork:
    """Read a network that :func:`write_trained` wrote.

    Args:
        folder: The folder of the two files.
        weights: Name of the file of weights.
        description_file: Name of the description file.

    Raises:
        RunFolderError: If a file is missing, or description and weights do not fit each other.
    """
    try:
        description = parse_record(read_file(folder / description_file, _MAX_DESCRIPTION), description_file)
        content = read_file(folder / weights, MAX_BYTES)
        if not isinstance(description, dict) or description.get("kind") != KIND or description.get("schema") != SCHEMA:
            raise ValueError(f"{description_file} has no kind {KIND!r} of schema {SCHEMA}")
        if hashlib.sha256(content).hexdigest() != description["sha256"]:
            raise ValueError(f"{weights} is not the file that {description_file} describes")
        spec = NetworkSpec.from_dict(description["network"])
        images = checked_images(description["images"])
        classes = tuple(str(name) for name in description["classes"])
        mean, std = (tuple(float(value) for value in description[name]) for name in ("mean", "std"))
        if len(classes) != images.num_classes or not len(mean) == len(std) == images.in_channels or min(std) <= 0:
            raise ValueError("classes or normalisation do not fit the network")
        network = with_weights(spec, images, content, weights)
        facts = dict(description["facts"])
        full_level = checked_level(description.get("full_level", FULL_LEVEL))
    except FileNotFoundError as error:
        raise RunFolderError("network", address(folder), f"a folder with {description_file} and {weights}") from error
    except (OSError, KeyError, TypeError, ValueError, OverflowError, RuntimeError, UserError) as error:
        raise RunFolderError(
            "network", f"{address(folder)} ({one_line(error)[:300]})", "an intact trained network"
        ) from error
    return TrainedNetwork(network, spec, images, classes, mean, std, facts, full_level)


def checked_level(value: Any) -> int:
    """Return a level of white from a description.

    Raises:
        ValueError: If it is none.
    """
    if type(value) is not int or not 1 <= value <= FULL_LEVEL:
        raise ValueError(f"full_level is {str(value)[:100]}, not a number from 1 to {FULL_LEVEL}")
    return value


def with_weights(spec: NetworkSpec, images: ImageShape, content: bytes, origin: str) -> nn.Module:
    """Build a network with the weights of a safetensors file, in evaluation mode.

    Raises:
        WeightsError: If the weights belong to another network.
    """
    with torch.device("meta"):  # takes no memory, whatever the size of the described network
        expected = build(spec, images).state_dict()
    weights: dict[str, Tensor] = parse_weights(content, expected, origin)
    with torch.random.fork_rng(devices=[]):
        network = build(spec, images)
    network.load_state_dict(weights)
    return network.eval()


def checked_images(data: Any) -> ImageShape:
    """Return the images that a file describes; raises KeyError, TypeError or ValueError for impossible ones."""
    images = ImageShape.from_dict(data)
    if images.in_channels not in (1, 3) or images.image_size > _MOST_SIDE or images.num_classes > _MOST_CLASSES:
        raise ValueError(f"impossible images: {json.dumps(data)[:200]}")
    return images
