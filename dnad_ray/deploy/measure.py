"""Measured latency and peak memory of a network on the present device."""

from __future__ import annotations

import gc
import platform
import time
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dnad_ray.errors import ConfigError
from dnad_ray.networks.latency import WARM_UP, check_runtime, milliseconds_in
from dnad_ray.networks.spec import NetworkSpec, build
from dnad_ray.run_folder.records import Measurement
from dnad_ray.runtime.devices import MEMORY_FORMAT, to_device
from search_spaces.shape import ImageShape

__all__ = ["measure", "name_of_device", "peak_bytes"]

_MOST_BATCH, _MOST_REPEATS, _MOST_THREADS = 4096, 100_000, 1024


def measure(
    spec: NetworkSpec,
    images: ImageShape,
    device: torch.device,
    *,
    run: str,
    batch_size: int = 1,
    repeats: int = 50,
    threads: int = 1,
    runtime: str = "torch",
) -> Measurement:
    """Time a network in evaluation mode and find its peak memory; weights do not matter, so they are random.

    Args:
        spec: The network.
        images: What it takes.
        device: Where to measure; verified on CPUs only.
        run: Name of the run, for the record.
        batch_size: Images per batch.
        repeats: Batches that are timed, after five that are not.
        threads: Threads on a CPU.
        runtime: One of :data:`dnad_ray.networks.latency.RUNTIMES`; on a GPU ``torch`` only. Peak memory is that in
            torch.

    Raises:
        ConfigError: If a number is impossible, or the runtime is.
    """
    batch_limit, repeat_limit = ("--batch", batch_size, _MOST_BATCH), ("--repeats", repeats, _MOST_REPEATS)
    for name, value, most in (batch_limit, repeat_limit, ("--threads", threads, _MOST_THREADS)):
        if not 1 <= value <= most:
            raise ConfigError(name, value, f"1 to {most:,}")
    check_runtime(runtime)
    if runtime != "torch" and device.type != "cpu":
        raise ConfigError("--runtime", runtime, f"torch on {device.type}")
    with torch.random.fork_rng(devices=[]):
        network = to_device(build(spec, images), device).eval()
    size = (batch_size, images.in_channels, images.image_size, images.image_size)
    batch = torch.zeros(size, device=device).contiguous(memory_format=MEMORY_FORMAT)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if device.type == "cpu":
            times = milliseconds_in(runtime, network, batch, threads=threads, repeats=repeats)
        else:
            times = _milliseconds_on_gpu(network, batch, repeats)
        peak = peak_bytes(network, batch)
    finally:
        torch.set_num_threads(before)
    p50, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    device_name = name_of_device(device) + (f", {runtime}" if runtime != "torch" else "")
    return Measurement(
        run=run,
        digest=spec.digest,
        model=spec.model,
        init_channels=spec.init_channels,
        width=spec.width,
        image_size=images.image_size,
        batch_size=batch_size,
        device=device.type,
        device_name=device_name,
        threads=threads,
        repeats=repeats,
        latency_p50=p50,
        latency_p90=p90,
        latency_p99=p99,
        peak_memory=peak,
    )


def peak_bytes(network: nn.Module, batch: Tensor) -> int:
    """Return the most bytes that weights, images and activations take at one time during a forward pass.

    On a GPU torch's allocator says so. On a CPU every tensor that an operator returns is followed until it is freed;
    temporary memory of kernels is not counted.

    Args:
        network: In evaluation mode, on its device.
        batch: Images (N, C, H, W) there.
    """
    device = batch.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        with torch.inference_mode():
            network(batch)
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device))
    fixed = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in _held(network, batch)}
    gc.collect()
    with torch.no_grad(), _LiveBytes(set(fixed)) as live:
        network(batch)
    peak: int = sum(fixed.values()) + live.peak
    return peak


def _held(network: nn.Module, batch: Tensor) -> list[Tensor]:
    return [*network.parameters(), *network.buffers(), batch]


@final
class _LiveBytes(TorchDispatchMode):
    """Tracks the storages that operators allocate until they are freed.

    Args:
        known: Storages that were there before.
    """

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._known = known
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch's guard against its compiler loads the compiler, which takes a second or two; nothing is compiled here.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def _milliseconds_on_gpu(network: nn.Module, batch: Tensor, repeats: int) -> list[float]:
    found = []
    with torch.inference_mode():
        for _ in range(WARM_UP + repeats):
            torch.cuda.synchronize(batch.device)
            began = time.perf_counter()
            network(batch)
            torch.cuda.synchronize(batch.device)
            found.append(1000 * (time.perf_counter() - began))
    return found[WARM_UP:]


def name_of_device(device: torch.device) -> str:
    """Return the name of a GPU or of the processor."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
