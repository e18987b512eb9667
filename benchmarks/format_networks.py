"""The five networks of `formats.py`: trained for a moment on an image folder, exported, with their logits and costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from dnad_ray.config.run import DataConfig
from dnad_ray.costs.conventions import elements_of
from dnad_ray.costs.trace import complexity_of
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.data.images import ImageData
from dnad_ray.data.loading import load_data
from dnad_ray.deploy.export import export_network
from dnad_ray.deploy.formats import Deployed
from dnad_ray.deploy.suffixes import SUFFIXES
from dnad_ray.networks.network_file import TrainedNetwork, described
from dnad_ray.networks.spec import NetworkSpec, build, logits_of
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.named import SPACES
from search_spaces.published import published_named
from search_spaces.space import SearchSpace

__all__ = ["NETWORKS", "make_networks"]


def every_operation() -> Genotype:
    """All operations of all named spaces, in four cells with two reductions."""
    return Genotype(
        (
            CellGenotype(False, ((Edge("sep_conv_3x3", 0), Edge("max_pool_3x3", 1)), (Edge("dil_conv_5x5", 2),))),
            CellGenotype(
                True, ((Edge("sep_conv_5x5", 1), Edge("skip_connect", 0)), (Edge("dil_conv_3x3", 1), Edge("noise", 0)))
            ),
            CellGenotype(True, ((Edge("conv_7x1_1x7", 1), Edge("avg_pool_3x3", 0)), (Edge("max_pool_3x3", 0),))),
            CellGenotype(
                False,
                (
                    (Edge("sep_conv_7x7", 0), Edge("avg_pool_3x3", 1)),
                    (Edge("nor_conv_1x1", 2), Edge("nor_conv_3x3", 2)),
                ),
            ),
        )
    )


def dense() -> Genotype:
    """What a search of DNAD begins with: all candidates of a small space."""
    return SearchSpace(operations=SPACES["dnad"].operations, num_cells=3, num_nodes=3).dense()


NETWORKS: dict[str, tuple[Callable[[], Genotype], int, str, int]] = {
    "darts_v2": (lambda: published_named("darts-v2").genotype(8), 16, "cifar", 32),
    "pc_darts": (lambda: published_named("pc-darts-imagenet").genotype(5), 16, "imagenet", 64),
    "nas_bench_201": (lambda: published_named("nas-bench-201-0").genotype(9), 16, "cifar", 32),
    "every_operation": (every_operation, 16, "cifar", 30),
    "dense": (dense, 16, "cifar", 32),
}
"""Name -> genotype, width C, stem, side of the images. 30 pixels become 15 and 8: odd sides are rounded up."""

STEPS, BATCH = 60, 64
CALIBRATION, IMAGES = 100, 200


def make_networks(images: Path, folder: Path) -> None:
    """Write `NAME.onnx`, `.pt2`, `.py`, `.safetensors`, `.npz` and `.costs.json` of each network that is not there yet.

    The `.npz` holds `calibration` and `pixels` (N, C, H, W) in 0..1, and the `logits` of `pixels` by torch.

    Args:
        images: Image folder to train on.
        folder: Where to write.
    """
    for name, (genotype, channels, stem, size) in NETWORKS.items():
        costs = folder / f"{name}.costs.json"
        if costs.exists():
            continue
        data = load_data(DataConfig(name="imagefolder", root=str(images), image_size=size))
        spec = NetworkSpec(origin="search", genotype=genotype(), init_channels=channels, stem=stem)
        trained = trained_for_a_moment(spec, data)
        for kind, suffix in SUFFIXES.items():
            if kind not in (
                "safetensors",
                "openvino",
            ):  # Python's module has the former beside it; the latter is a tool
                export_network(trained, kind, folder / f"{name}{suffix}")
        held = data.validation.select(
            np.random.default_rng(0).permutation(len(data.validation))[: CALIBRATION + IMAGES]
        )
        pixels = np.concatenate([part.numpy() for part in held.stream([np.arange(len(held))], torch.device("cpu"))])
        pixels = pixels.astype(np.float32) / 255
        with torch.no_grad():
            logits = Deployed(trained).eval()(torch.from_numpy(pixels[CALIBRATION:])).numpy()
        right = float((logits.argmax(1) == held.labels[CALIBRATION:]).mean())
        np.savez(folder / f"{name}.npz", calibration=pixels[:CALIBRATION], pixels=pixels[CALIBRATION:], logits=logits)
        shape = spec.shape(data.shape)
        facts = {
            "cost": complexity_of(genotype(), shape)._asdict(),
            "elements": elements_of(genotype(), shape)._asdict(),
            "accuracy": right,
            "metadata": ["producer", "input", *described(trained)],
        }
        costs.write_text(json.dumps(facts, indent=1) + "\n")
        print(f"{name}: {right:.1%} of {IMAGES} images right, {facts['cost']['macs']:,} MACs", flush=True)


def trained_for_a_moment(spec: NetworkSpec, data: ImageData) -> TrainedNetwork:
    """A minute of training: logits then differ between images, and norms have the statistics of real ones."""
    torch.manual_seed(0)
    network = build(spec, data.shape).train()
    batches = TrainingBatches(data, BATCH, 0, torch.device("cpu"))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for step in range(STEPS):
        images, labels = batches.batch(step)
        optimizer.zero_grad()
        functional.cross_entropy(logits_of(network(images)), labels).backward()
        optimizer.step()
    batches.close()
    facts = {"run": "formats", "job": spec.digest, "dataset": data.name}
    return TrainedNetwork(network.eval(), spec, data.shape, data.classes, data.mean, data.std, facts)
