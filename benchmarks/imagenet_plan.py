"""What the paper's ImageNet result would take: throughput measured here, and hours reckoned from it.

    python benchmarks/imagenet_plan.py --json imagenet-plan.json            # a CPU, single steps
    python benchmarks/imagenet_plan.py --device cuda --search-batch 128 --train-batch 128

Measured are images per second of (a) a step of the dense supernet of 14 cells and 20 channels at 224 x 224, (b) a step
of retraining a network of that space at about 600 million multiply-adds, and (c) decoding JPEG files of ImageNet's
usual size by one process. Hours follow from 1.28 million images, 30 epochs of search and 250 of retraining; nothing is
taken off for what deletion saves (at most, then).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dnad_ray.config.retrain import retrain_recipe, with_settings
from dnad_ray.config.run import RunConfig, with_overrides
from dnad_ray.data.image_files import decode_images
from dnad_ray.data.images import Augmentation, ImageData, Split
from dnad_ray.networks.spec import NetworkSpec, cost_of, scaled_to
from dnad_ray.retrain.state import RetrainState
from dnad_ray.search.loop import SearchState
from search_spaces.space import space_named

IMAGES, SEARCH_EPOCHS, TRAIN_EPOCHS = 1_281_167, 30, 250
BUDGET = 598_000_000
STEPS = 2


def clock_of(device):
    """On a CPU the time that this one thread computed, whoever else is on the machine; else the time on the wall."""
    return time.process_time if device == "cpu" else time.perf_counter


def random_images(number, size=224):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (number, 3, size, size), dtype=np.uint8)
    labels = generator.integers(0, 1000, number)
    part = Split(images=pixels, labels=labels)
    return ImageData(
        name="random",
        classes=tuple(str(i) for i in range(1000)),
        train=part,
        validation=part,
        mean=(0.5,) * 3,
        std=(0.3,) * 3,
        augmentation=Augmentation(pad=28, flip=True),
    )


def search_rate(device, batch):
    config = with_overrides(
        RunConfig(),
        {
            "data.image_size": 224,
            "space.num_cells": 14,
            "space.init_channels": 20,
            "space.stem": "imagenet",
            "train.batch_size": batch,
            "train.device": device,
            "distill.kind": "none",
            "shrink.floor.sparsity": 1.0,
        },
    )
    state = SearchState.start(config, random_images(batch), None, run="plan", trial="t00")
    pressure = (state.controller.gamma, state.controller.mu)
    clock = clock_of(device)
    for step in range(1 + STEPS):
        if step == 1:  # the first one pays for allocations and kernel choices
            began = clock()
        state.learner.step(*state.batches.batch(step), pressure)
        state.learner.look()  # waits for the device
    return batch * STEPS / (clock() - began)


def retrain_rate(device, batch):
    space = space_named("dnad", None, 14, 4)
    # Two separable convolutions a node: about what searches of this space end with.
    known = NetworkSpec(
        origin="genotype",
        genotype=space.uniform(("sep_conv_3x3",), only_inputs=True),
        init_channels=48,
        stem="imagenet",
    )
    data = random_images(batch)
    spec = scaled_to(known, data.shape, max_macs=BUDGET)
    config = with_settings(retrain_recipe("imagenet-mobile"), {"batch_size": batch, "device": device})
    state = RetrainState(spec, config, data, 0)
    state.train_step()
    state.sums.tolist()
    clock = clock_of(device)
    began = clock()
    for _ in range(STEPS):
        state.train_step()
    state.sums.tolist()  # waits for the device
    rate = batch * STEPS / (clock() - began)
    return rate, spec, cost_of(spec, data.shape)


def decode_rate(number=64):
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        paths = []
        for index in range(number):
            smooth = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            path = Path(name) / f"{index}.jpg"
            Image.fromarray(smooth).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
            paths.append(path)
        began = time.process_time()
        decode_images(paths, 224, 3, lambda *_: None)
        return number / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--search-batch", type=int, default=4)
    parser.add_argument("--train-batch", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    search = search_rate(arguments.device, arguments.search_batch)
    print(f"search {search:.3f} images a second", flush=True)
    train, spec, cost = retrain_rate(arguments.device, arguments.train_batch)
    decode = decode_rate()
    hours = {
        "search, at most": IMAGES * 0.8 * SEARCH_EPOCHS / search / 3600,
        "retraining": IMAGES * TRAIN_EPOCHS / train / 3600,
    }
    print(f"device {arguments.device}, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
    print(f"network for retraining: C = {spec.init_channels}, {cost.macs:,} MACs, {cost.params:,} parameters")
    print(f"images per second: search {search:.2f}, retraining {train:.2f}, decoding by one process {decode:.0f}")
    print(f"achieved while retraining: {3 * cost.macs * train / 1e9:.1f} G multiply-adds a second (3 passes)")
    print("hours on this device: " + ", ".join(f"{name} {value:,.0f}" for name, value in hours.items()))
    if arguments.json:
        rates = {"search": search, "retraining": train, "decoding": decode}
        arguments.json.write_text(json.dumps({"images_per_second": rates, "hours": hours, "cost": cost._asdict()}))


if __name__ == "__main__":
    main()
