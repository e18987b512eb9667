"""Latency of derived networks as sums over a table: each part of a network is timed once, on this machine.

The sum leaves out what parts do to each other (caches, operators that a runtime merges): one whole network is timed
too, and what its sum lacks is spread over its parts and added for each part of others. docs/fit.md says how good these
estimates were.
"""

from __future__ import annotations

import importlib
import io
import statistics
import time
import warnings
from collections.abc import Callable
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn

from dnad_ray.costs.table import Build, PartTable
from dnad_ray.costs.trace import image_of
from dnad_ray.errors import ConfigError
from dnad_ray.runtime.cpus import computing_with
from dnad_ray.text import install_command
from search_spaces.cell import Cell
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.network import network_from
from search_spaces.shape import NetworkShape
from search_spaces.skeleton import NetworkOutput

__all__ = [
    "RUNTIMES",
    "WARM_UP",
    "LatencyTable",
    "check_runtime",
    "default_runtime",
    "latency_table_for",
    "milliseconds_in",
]

RUNTIMES = ("onnxruntime", "torch")
"""What can run a network on a CPU, one image at a time."""

WARM_UP = 5
"""Runs that do not count."""

_REPEATS = 40


def default_runtime() -> str:
    """Return ``onnxruntime`` where it is installed, as exported networks run in it, else ``torch``."""
    return next(runtime for runtime in RUNTIMES if find_spec(runtime) is not None)


def check_runtime(runtime: str) -> None:
    """Check that a runtime is known and installed.

    Raises:
        ConfigError: If it is not.
    """
    if runtime not in RUNTIMES:
        raise ConfigError("--runtime", runtime, ", ".join(RUNTIMES))
    if find_spec(runtime) is None:
        raise ConfigError("--runtime", runtime, f"one that is installed: {install_command('export')}")


def milliseconds_in(
    runtime: str, module: nn.Module, images: Tensor, *, threads: int = 1, repeats: int = _REPEATS
) -> list[float]:
    """Time a module on the CPU, after five runs that do not count.

    Args:
        runtime: One of :data:`RUNTIMES`.
        module: The module, which takes one tensor and returns one, or a network's output.
        images: What it takes (N, C, H, W).
        threads: Threads.
        repeats: Runs that count.

    Returns:
        Milliseconds of each run, in order.
    """
    module = _TensorOnly(module).eval()
    with computing_with(threads), torch.inference_mode():
        run = _in_onnxruntime(module, images, threads) if runtime == "onnxruntime" else lambda: module(images)
        found = []
        for _ in range(WARM_UP + repeats):
            began = time.perf_counter()
            run()
            found.append(1000 * (time.perf_counter() - began))
    return found[WARM_UP:]


class LatencyTable(PartTable[float]):
    """Milliseconds of the parts of all networks of one shape, in one runtime.

    Args:
        shape: Width, classes and images.
        whole: The network that is timed as a whole, of the space of those that are asked for.
        runtime: One of :data:`RUNTIMES`.
        threads: Threads.
    """

    def __init__(self, shape: NetworkShape, whole: Genotype, runtime: str, threads: int = 1) -> None:
        super().__init__(shape)
        self.whole, self.runtime, self.threads = whole, runtime, threads
        self._glue: dict[tuple[int, int, int], list[float]] = {}

    def milliseconds_of(self, genotype: Genotype) -> float:
        """Return the estimated latency of the derived network of a genotype, for one image.

        Raises:
            GenotypeError: If no operation connects the image with the classifier.
            SpaceError: If an operation that counts is unknown.
        """
        parts = self._parts_of(genotype)
        return max(0.0, self._empty + sum(parts) + len(parts) * self._lacking)

    def _priced(self, build: Build, size: tuple[int, int, int]) -> tuple[float, nn.Module]:
        with torch.random.fork_rng(devices=[]):
            module = build().eval()
        return self._added(module, size), module

    def _between(self, cell: CellGenotype, num_rectified: int, size: tuple[int, int, int]) -> list[float]:
        num_sums = sum(max(0, len(node) - 1) for node in cell.nodes)  # of a canonical genotype, without `none`
        if not num_sums and not num_rectified:  # it passes its input on
            return []
        if size not in self._glue:
            self._glue[size] = [self._added(module, size) for module in (_Twice(), nn.ReLU(), _IdleCell(size[0]))]
        of_sum, of_relu, of_cell = self._glue[size]
        return [num_sums * of_sum + num_rectified * of_relu + of_cell]

    def _added(self, module: nn.Module, size: tuple[int, int, int]) -> float:
        """Return what a module adds to the time of a network."""
        with torch.inference_mode():
            output = module(torch.zeros(1, *size))
        if isinstance(output, Tensor) and tuple(output.shape[1:]) == size:  # what a call costs falls out
            once, thrice = (self._median(nn.Sequential(*[module] * times), size) for times in (1, 3))
            return max(0.0, (thrice - once) / 2)
        return max(0.0, self._median(module, size) - self._empty)

    @cached_property
    def _lacking(self) -> float:
        """What the sum of the parts of the whole network lacks, for each part; below zero where parts are merged."""
        with torch.random.fork_rng(devices=[]):
            network = network_from(self.whole, self.shape)
        parts = self._parts_of(self.whole)
        return (self._median(network, image_of(self.shape)) - self._empty - sum(parts)) / len(parts)

    @cached_property
    def _empty(self) -> float:
        """What a call costs before anything is computed."""
        return self._median(nn.Identity(), (1, 1, 1))

    def _median(self, module: nn.Module, size: tuple[int, int, int]) -> float:
        return statistics.median(milliseconds_in(self.runtime, module, torch.zeros(1, *size), threads=self.threads))


@lru_cache(maxsize=64)
def latency_table_for(shape: NetworkShape, whole: Genotype, runtime: str, threads: int = 1) -> LatencyTable:
    """Return the table of a shape. There is one per process, so that each part is timed only once."""
    return LatencyTable(shape, whole, runtime, threads)


class _TensorOnly(nn.Module):
    """Hides all of a network's output but the logits."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        output = self.module(x)
        return output.logits if isinstance(output, NetworkOutput) else output


class _IdleCell(nn.Module):
    """A cell that computes nothing, which takes time in torch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        nodes = ((Edge("skip_connect", 0),), (Edge("skip_connect", 1),))
        self.cell = Cell(CellGenotype(False, nodes, concat=(1,)), None, channels, False, searching=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.cell(None, x))


class _Twice(nn.Module):
    """The sum of two states."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x


def _in_onnxruntime(module: nn.Module, images: Tensor, threads: int) -> Callable[[], Any]:
    """Return a call that runs a module in ONNX Runtime."""
    onnxruntime = importlib.import_module("onnxruntime")
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The older exporter: for the latency of a part, a hundredth of the new one's time matters, and nothing else.
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (images,), cast(Any, file), dynamo=False, input_names=["images"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {"images": images.numpy()}
    return lambda: session.run(None, feed)
