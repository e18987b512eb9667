"""What `dnad-ray fit` gives for its time, beside a small ResNet as people write it by hand; on one thread.

Arms, each with several seeds, on the same images:

- ``resnet``: three residual blocks of 16, 32 and 64 channels behind a stem of stride 2, trained for 20 epochs by SGD
  with Nesterov momentum in one cycle, shifts by up to 4 pixels and mirroring.
- ``random``: six such networks of random widths and depths, 6 epochs each; the best on a fifth of the training images
  is trained again on all of them, for the CPU seconds that `fit` had.
- ``fit``: ``dnad-ray fit`` with a time budget of three times the seconds of ``resnet``, below its latency in ONNX
  Runtime or, with ``--equal macs``, below its multiply-adds.

All are tested once. Printed are means and standard deviations of test accuracies, CPU seconds of everything (`fit`
with the start of Python), and milliseconds of an image in torch and in ONNX Runtime.

    python -m benchmarks.fit_against_resnet IMAGES [--seeds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from dnad_ray.config.run import DataConfig
from dnad_ray.costs.trace import count
from dnad_ray.data.batches import evaluation_batches
from dnad_ray.networks.latency import milliseconds_in
from dnad_ray.networks.network_file import read_network
from dnad_ray.retrain.data import RetrainImages, load_retrain_images
from dnad_ray.run_folder.jobs import read_retrained

TIMED_IN = "onnxruntime"
_BATCH = 64
_EPOCHS, _TRIES, _SHORT = 20, 6, 6


class Block(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H', W')."""
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem of stride 2 and some residual blocks; each stage but the first halves the resolution."""

    def __init__(self, width: int, depths: tuple[int, ...], channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
        for stage, depth in enumerate(depths):
            for index in range(depth):
                layers.append(Block(before, width * 2**stage, 2 if stage and not index else 1))
                before = width * 2**stage
        self.features, self.linear = nn.Sequential(*layers), nn.Linear(before, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to logits."""
        logits: Tensor = self.linear(self.features(images).mean((2, 3)))
        return logits


Part = tuple[Tensor, Tensor]


def train(network: nn.Module, images: Part, epochs: int, seed: int) -> None:
    """Train by one cycle of the learning rate."""
    pixels, labels = images
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(pixels) // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps * epochs)
    network.train()
    side = pixels.shape[-1]
    for _ in range(epochs):
        order = torch.randperm(len(pixels), generator=generator)
        for step in range(steps):
            chosen = order[step * _BATCH : (step + 1) * _BATCH]
            batch = pixels[chosen]
            mirrored = torch.rand(len(batch), generator=generator) < 0.5
            batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
            y, x = torch.randint(9, (2,), generator=generator).tolist()
            batch = F.pad(batch, (4, 4, 4, 4))[:, :, y : y + side, x : x + side]
            loss = F.cross_entropy(network(batch.contiguous(memory_format=torch.channels_last)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(network: nn.Module, images: Part) -> float:
    """Return the share of images that are classified correctly."""
    network.eval()
    right = sum(
        int((network(pixels).argmax(1) == labels).sum())
        for pixels, labels in zip(images[0].split(500), images[1].split(500), strict=True)
    )
    return right / len(images[0])


def milliseconds(network: nn.Module, images: Tensor) -> dict[str, float]:
    """Return the median time of one image, in torch and in ONNX Runtime."""
    one = images[:1].contiguous()
    return {
        runtime: statistics.median(milliseconds_in(runtime, network, one, repeats=200))
        for runtime in ("torch", TIMED_IN)
    }


def resnet(width: int, depths: tuple[int, ...], images: RetrainImages, seed: int) -> ResNet:
    """Return a network with random weights."""
    torch.manual_seed(seed)
    shape = images.data.shape
    network = ResNet(width, depths, shape.in_channels, shape.num_classes)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def by_hand(train_part: Part, test: Part, images: RetrainImages, seed: int) -> dict[str, float]:
    """Return the results of arm ``resnet``."""
    began = time.process_time()
    network = resnet(16, (1, 1, 1), images, seed)
    train(network, train_part, _EPOCHS, seed)
    seconds = time.process_time() - began
    return {"accuracy": accuracy(network, test), "seconds": seconds, **milliseconds(network, test[0])}


def by_chance(train_part: Part, test: Part, images: RetrainImages, seed: int, seconds: float) -> dict[str, float]:
    """Return the results of arm ``random``, which takes about as many CPU seconds as given."""
    began, rng = time.process_time(), random.Random(seed)
    most = macs_of(resnet(16, (1, 1, 1), images, 0), images)
    order = torch.randperm(len(train_part[0]), generator=torch.Generator().manual_seed(seed))
    held, kept = order[: len(order) // 5], order[len(order) // 5 :]
    found: list[tuple[float, int, tuple[int, ...], float]] = []
    while len(found) < _TRIES:
        width, depths = rng.choice((8, 12, 16, 20, 24)), tuple(rng.choice((1, 2)) for _ in range(rng.choice((2, 3))))
        network = resnet(width, depths, images, seed)
        if not 0.5 * most <= macs_of(network, images) <= 1.01 * most:
            continue
        before = time.process_time()
        train(network, (train_part[0][kept], train_part[1][kept]), _SHORT, seed)
        each = (time.process_time() - before) / _SHORT * 1.25
        found.append((accuracy(network, (train_part[0][held], train_part[1][held])), width, depths, each))
    _, width, depths, each = max(found)
    network = resnet(width, depths, images, seed)
    train(network, train_part, max(1, int((seconds - time.process_time() + began) / each)), seed)
    taken = time.process_time() - began
    return {"accuracy": accuracy(network, test), "seconds": taken, **milliseconds(network, test[0])}


def macs_of(network: nn.Module, images: RetrainImages) -> int:
    """Return the multiply-adds of an image."""
    shape = images.data.shape
    return count(lambda: network, (shape.in_channels, shape.image_size, shape.image_size)).cost.macs


def by_fit(folder: Path, side: int, under: str, seconds: float, test: Part, seed: int) -> dict[str, float]:
    """Return the results of arm ``fit``."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "run"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [
                *(sys.executable, "-m", "dnad_ray", "fit", str(folder), "--out", str(out), "--image-size", str(side)),
                *("--under", under, "--runtime", TIMED_IN, "--time-budget", f"{seconds:.0f}s", "--seed", str(seed)),
                *("--no-ray", "--quiet"),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = max(read_retrained(out)[0], key=lambda result: result["macs"])
        network = read_network(out / "retrained" / best["job"]).network

        return {
            "accuracy": best["accuracy"],
            "seconds": taken,
            **milliseconds(network, test[0]),
            "epochs": best["epochs"],
            "macs": best["macs"],
        }


def main() -> None:
    """Measure all arms, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--equal", choices=("latency", "macs"), default="latency")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = DataConfig(name="imagefolder", root=str(options.images), image_size=options.image_size)
    images = load_retrain_images(config)

    def part(split: object) -> Part:
        batches = evaluation_batches(split, images.data, 500, torch.device("cpu"), torch.channels_last)  # type: ignore[arg-type]
        pixels, labels = zip(*batches, strict=True)
        return torch.cat(pixels), torch.cat(labels)

    train_part, test = part(images.data.train), part(images.data.validation)
    plain = resnet(16, (1, 1, 1), images, 0)
    equal = f"macs={macs_of(plain, images)}"
    if options.equal == "latency":
        equal = f"latency={milliseconds(plain, test[0])[TIMED_IN]:.4f}ms"
    print(f"fit --under {equal}")
    rows: dict[str, list[dict[str, float]]] = {"resnet": [], "random": [], "fit": []}
    for seed in range(options.seeds):
        rows["resnet"].append(by_hand(train_part, test, images, seed))
        budget = 3 * rows["resnet"][-1]["seconds"]
        rows["fit"].append(by_fit(options.images, options.image_size, equal, budget, test, seed))
        rows["random"].append(by_chance(train_part, test, images, seed, rows["fit"][-1]["seconds"]))
        print({name: results[-1] for name, results in rows.items()}, flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=1))
    table = Table("arm", "test accuracy", "CPU s", "ms, torch", f"ms, {TIMED_IN}", box=None)
    for name, results in rows.items():
        values = [100 * result["accuracy"] for result in results]
        spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        others = (statistics.mean(result[key] for result in results) for key in ("seconds", "torch", TIMED_IN))
        table.add_row(name, f"{statistics.mean(values):.1f} %{spread}", *(f"{value:.3g}" for value in others))
    Console().print(table)


if __name__ == "__main__":
    main()
