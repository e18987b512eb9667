"""Train every network of `networks.csv` from scratch, by one short protocol, under several seeds.

    python experiments/truth/train.py FOLDER

FOLDER holds CIFAR-10 as an image folder, `train/<class>/*.jpg` and `test/<class>/*.jpg`; of each class the first
images are used. Each training appends a row to `accuracies.csv`, and what is in the table is not trained again: a run
that was ended goes on where it was. One thread; run it in the background with `nice`.

The loop is its own: `dnad_ray.retrain` writes a checkpoint, a curve and a folder for each network, and takes longer
for that than a training takes here. Networks, images and costs are the product's.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sample import SHAPE, TrueNetwork, genotype_of, read_networks
from torch import Tensor, nn

from dnad_ray.config.run import DataConfig
from dnad_ray.data.loading import ImageSource, load_data, load_test
from dnad_ray.errors import DataError, NonFiniteLossError, UserError
from dnad_ray.runtime.devices import keep_freed_memory
from search_spaces.kernels.depthwise import depthwise_conv
from search_spaces.network import Network, network_from
from search_spaces.ops import SeparableConv

__all__ = ["ACCURACIES", "Images", "Protocol", "Trained", "load_images", "train", "train_all"]

ACCURACIES = Path(__file__).with_name("accuracies.csv")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How every network is trained.

    Attributes:
        train_per_class: Training images of each class.
        test_per_class: Test images of each class.
        epochs: Passes over the training images.
        batch_size: Images per step; an incomplete last batch is dropped.
        learning_rate: The highest one, of SGD with Nesterov's momentum.
        warmup_share: Share of the steps in which the learning rate rises from 0; then it falls to 0 as a cosine.
        momentum: Of SGD.
        weight_decay: Of SGD, on all parameters.
        clip: Largest norm of the gradient.
    """

    train_per_class: int = 1000
    test_per_class: int = 400
    epochs: int = 4
    batch_size: int = 80
    learning_rate: float = 0.2
    warmup_share: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 5.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Normalised images in memory, channels last.

    Attributes:
        train: (N, C, H, W).
        train_labels: (N,).
        test: (M, C, H, W).
        test_labels: (M,).
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One row of `accuracies.csv`.

    Attributes:
        network: Digest.
        seed: Of initial weights, order and flips.
        accuracy: Share of the test images that are classified correctly.
        test_loss: Cross entropy on the test images, in nats.
        train_loss: The same on the training images of the last epoch, as they were trained on.
        cpu_seconds: CPU time of building, training and testing.
    """

    network: str
    seed: int
    accuracy: float
    test_loss: float
    train_loss: float
    cpu_seconds: float


def load_images(folder: Path, protocol: Protocol) -> Images:
    """Read and shrink the first images of each class.

    Raises:
        DataError: If the folder is missing, or has too few images.
    """
    if not (folder / "train").is_dir() or not (folder / "test").is_dir():
        raise DataError(
            "FOLDER", str(folder), "CIFAR-10 as an image folder: train/<class>/*.jpg and test/<class>/*.jpg"
        )
    config = DataConfig(name="imagefolder", root=str(folder), image_size=SHAPE.images.image_size)
    data, test = load_data(config), load_test(config)
    assert test is not None
    pixels = np.concatenate([_bytes(data.train), _bytes(data.validation)])
    labels = np.concatenate([data.train.labels, data.validation.labels])
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))

    def part(pixels: np.ndarray, labels: np.ndarray, per_class: int, name: str) -> tuple[Tensor, Tensor]:
        chosen = [np.nonzero(labels == label)[0][:per_class] for label in range(len(data.classes))]
        if min(map(len, chosen)) < per_class:
            raise DataError(f"{name} images of a class", min(map(len, chosen)), f"at least {per_class}")
        order = np.concatenate(chosen)
        normalised = (torch.from_numpy(pixels[order]).float() / 255 - mean) / std
        return normalised.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels[order])

    train, train_labels = part(pixels, labels, protocol.train_per_class, "training")
    tested, test_labels = part(_bytes(test), test.labels, protocol.test_per_class, "test")
    return Images(train=train, train_labels=train_labels, test=tested, test_labels=test_labels)


def _bytes(source: ImageSource) -> np.ndarray:
    held = source.held()
    assert held is not None, "tens of thousands of small images are held in memory"
    return held.numpy()


def train(network: TrueNetwork, seed: int, images: Images, protocol: Protocol) -> Trained:
    """Train a network from scratch and test it once, at the end.

    Raises:
        NonFiniteLossError: If the loss is no number.
    """
    begun = time.process_time()
    torch.manual_seed(seed)
    model = _with_fast_gradients(network_from(genotype_of(network.space, network.topology), SHAPE))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = _in_one_tensor(model)
    generator = torch.Generator().manual_seed(seed + 1000)
    per_epoch = len(images.train) // protocol.batch_size
    optimizer = torch.optim.SGD(
        [weights],
        lr=protocol.learning_rate,
        momentum=protocol.momentum,
        nesterov=True,
        weight_decay=protocol.weight_decay,
    )
    losses: list[Tensor] = []
    for step in range(per_epoch * protocol.epochs):
        if step % per_epoch == 0:
            order = torch.randperm(len(images.train), generator=generator).split(protocol.batch_size)
            flips = torch.rand(len(images.train), generator=generator) < 0.5
            losses.clear()
        indices = order[step % per_epoch]
        batch = images.train[indices]
        batch = torch.where(flips[indices].view(-1, 1, 1, 1), batch.flip(3), batch)
        rate = _learning_rate(protocol, step / (per_epoch * protocol.epochs))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad(set_to_none=False)
        logits = model(batch.contiguous(memory_format=torch.channels_last)).logits
        loss = F.cross_entropy(logits, images.train_labels[indices])
        loss.backward()
        nn.utils.clip_grad_norm_([weights], protocol.clip)
        optimizer.step()
        losses.append(loss.detach())
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part).logits for part in images.test.split(500)])
    test_loss = F.cross_entropy(logits, images.test_labels).item()
    if not math.isfinite(test_loss):
        raise NonFiniteLossError(f"network {network.network}, seed {seed}: the test loss is {test_loss}")
    return Trained(
        network=network.network,
        seed=seed,
        accuracy=(logits.argmax(1) == images.test_labels).double().mean().item(),
        test_loss=round(test_loss, 5),
        train_loss=round(torch.stack(losses).mean().item(), 5),
        cpu_seconds=round(time.process_time() - begun, 2),
    )


def _in_one_tensor(model: nn.Module) -> nn.Parameter:
    """Move all parameters and their gradients into one tensor each, so that a step of SGD is a few calls, not hundreds.

    What is computed stays the same; the model's parameters are views into the tensor that is returned.
    """
    parameters = list(model.parameters())
    whole = nn.Parameter(torch.zeros(sum(parameter.numel() for parameter in parameters)))
    whole.grad = torch.zeros_like(whole)
    begin = 0
    for parameter in parameters:
        size, stride = parameter.size(), parameter.stride()  # dense, though channels last
        of_whole = torch.as_strided(whole.data, size, stride, begin)
        parameter.data = of_whole.copy_(parameter.data)
        parameter.grad = torch.as_strided(whole.grad, size, stride, begin)
        begin += parameter.numel()
    return whole


def _learning_rate(protocol: Protocol, share: float) -> float:
    """Return the step size when a share of the steps is done."""
    if share < protocol.warmup_share:
        return protocol.learning_rate * share / protocol.warmup_share
    left = (share - protocol.warmup_share) / (1 - protocol.warmup_share)
    return protocol.learning_rate * (1 + math.cos(math.pi * left)) / 2


def _with_fast_gradients(model: Network) -> Network:
    """Let dilated convolutions have the product's backward pass: the same gradients in half the time."""
    for module in model.modules():
        if isinstance(module, SeparableConv):
            for conv in module.depthwise:
                if conv.dilation[0] > 1:
                    conv.forward = partial(_dilated, conv)
    return model


def _dilated(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return depthwise_conv(x, conv.weight, conv.stride[0], conv.dilation[0])


def train_all(
    jobs: Iterable[tuple[TrueNetwork, int]], images: Images, protocol: Protocol, table: Path, minutes: float = math.inf
) -> int:
    """Train what a table does not have yet, a row each as soon as it is known; returns how many were trained.

    Args:
        jobs: Networks and seeds.
        images: The images.
        protocol: How to train.
        table: The CSV; made if it is missing.
        minutes: No training begins after that long.
    """
    begun, trained = time.monotonic(), 0
    done: set[tuple[str, int]] = set()
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            done = {(row["network"], int(row["seed"])) for row in csv.DictReader(file)}
    with table.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, Trained.__dataclass_fields__, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
            file.flush()
        for network, seed in jobs:
            if (network.network, seed) in done:
                continue
            if time.monotonic() - begun > 60 * minutes:
                break
            writer.writerow(train(network, seed, images, protocol).__dict__)
            file.flush()
            trained += 1
    return trained


def _jobs(seeds: Iterable[int]) -> list[tuple[TrueNetwork, int]]:
    """Return what is to be trained in an order in which any beginning stands for the whole."""
    networks = read_networks()
    random.Random(0).shuffle(networks)
    networks.sort(key=lambda row: row.half != "anchor")  # which are few, and a check of the protocol
    return [(network, seed) for seed in seeds for network in networks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--part", nargs=2, type=int, default=[0, 1], metavar=("I", "N"), help="every N-th training from the I-th on"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no training after that long")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        images = load_images(arguments.folder, Protocol())
    except UserError as error:
        sys.exit(f"error: {error}")
    first, step = arguments.part
    trained = train_all(_jobs(arguments.seeds)[first::step], images, Protocol(), ACCURACIES, arguments.minutes)
    print(f"{trained} trainings in {ACCURACIES.name}")


if __name__ == "__main__":
    main()
