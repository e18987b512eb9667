"""One trained network in every format: size, accuracy and latency on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dnad_ray.data.images import ImageData, ImageSource
from dnad_ray.deploy.export import Exported, ExportError, export_int8, export_network, not_installed
from dnad_ray.deploy.formats import FORMATS, Predict, onnx_reader, openvino_reader
from dnad_ray.deploy.int8 import agreement_of, pixels_of, predicted
from dnad_ray.deploy.suffixes import INT8, INT8_SUFFIX
from dnad_ray.networks.latency import WARM_UP
from dnad_ray.networks.network_file import TrainedNetwork
from dnad_ray.runtime.cpus import computing_with

__all__ = ["BenchmarkRow", "benchmark_network", "num_images_for", "ranking_changes"]

_MACS = 2 * 10**11
_LEAST_IMAGES = 500
"""A network classifies as many images as take that many multiply-adds, and at least 500, to bound the time."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """A network in one format; if it cannot be had, only ``missing`` is given.

    Attributes:
        digest: Digest of the network.
        job: The job that trained it; empty if it is unknown.
        format: Name of the format.
        precision: Type of the weights: ``float32`` or ``int8``.
        size: Bytes on disk, without the model card.
        accuracy: Share of the images that are classified correctly.
        agreement: Share of the images that get the same class as by ``safetensors``, which torch runs.
        is_worse: Whether accuracy is lower than that of ``safetensors`` by more than chance explains, as
            :class:`dnad_ray.deploy.int8.Agreement` has it.
        num_images: Number of these images.
        latency_p50: Median time of one image in milliseconds.
        latency_p95: 95th percentile of that time.
        missing: Why the format cannot be had; None if it can.
    """

    digest: str
    job: str
    format: str
    precision: str
    size: int | None = None
    accuracy: float | None = None
    agreement: float | None = None
    is_worse: bool = False
    num_images: int | None = None
    latency_p50: float | None = None
    latency_p95: float | None = None
    missing: str | None = None


class _Way(NamedTuple):
    suffix: str
    precision: str
    read: Callable[[TrainedNetwork, Path, int], Predict]


def _in_onnxruntime(_: TrainedNetwork, file: Path, threads: int) -> Predict:
    return onnx_reader(file, threads)


def _in_torch(kind: str) -> Callable[[TrainedNetwork, Path, int], Predict]:
    return lambda trained, file, _: FORMATS[kind].read(trained, file)


_WAYS = {
    "safetensors": _Way(FORMATS["safetensors"].suffix, "float32", _in_torch("safetensors")),
    "torch-export": _Way(FORMATS["torch-export"].suffix, "float32", _in_torch("torch-export")),
    "onnx": _Way(FORMATS["onnx"].suffix, "float32", _in_onnxruntime),
    "openvino": _Way(FORMATS["openvino"].suffix, "float32", lambda _, file, threads: openvino_reader(file, threads)),
    INT8: _Way(INT8_SUFFIX, "int8", _in_onnxruntime),
}
"""The formats in the order of the table; the first one is what the others are compared with."""


def num_images_for(macs: Any, available: int, wanted: int | None = None) -> int:
    """Return how many images a network classifies: the wanted number, or as many as its cost allows.

    Args:
        macs: Multiply-adds of the network for one image; anything else than a positive number is unknown.
        available: Images that there are.
        wanted: The number asked for, or None.

    >>> num_images_for(45_000_000, 10_000), num_images_for(10**9, 10_000), num_images_for(1000, 300)
    (4444, 500, 300)
    """
    is_known = isinstance(macs, int) and macs > 0
    usual = max(_LEAST_IMAGES, _MACS // macs) if is_known else _LEAST_IMAGES
    return min(available, usual if wanted is None else wanted)


def benchmark_network(
    trained: TrainedNetwork, data: ImageData, *, images: int, repeats: int = 200, threads: int = 1
) -> list[BenchmarkRow]:
    """Export a network in every format, read each file again, and measure it; the files are deleted.

    Args:
        trained: The network.
        data: Its images: ``train`` calibrates ``onnx-int8``, ``validation`` holds images that it was not trained on.
        images: How many of the latter it classifies, the same ones in each format.
        repeats: Timed runs of one image, after five that are not timed.
        threads: CPU threads.
    """
    positions = np.sort(np.random.default_rng(0).permutation(len(data.validation))[:images])
    held_out = data.validation.select(positions)
    rows: list[BenchmarkRow] = []
    reference: npt.NDArray[np.intp] | None = None
    digest, job = trained.spec.digest, str(trained.facts.get("job", ""))
    with tempfile.TemporaryDirectory(prefix="dnad-ray-") as name, computing_with(threads):
        for kind, way in _WAYS.items():
            file = Path(name) / f"net_{kind.replace('-', '_')}{way.suffix}"
            missing = not_installed(FORMATS["onnx" if kind == INT8 else kind])
            try:
                exported = None if missing else _exported(trained, kind, file, data.train, held_out)
            except ExportError as error:
                exported, missing = None, str(error)
            if exported is None:
                rows.append(BenchmarkRow(digest=digest, job=job, format=kind, precision=way.precision, missing=missing))
                continue
            run = way.read(trained, file, threads)
            found = predicted(run, held_out, np.arange(len(held_out)))
            reference = found if reference is None else reference
            agreement = agreement_of(found, reference, held_out.labels)
            times = _milliseconds(run, held_out, repeats)
            median, slow = (float(value) for value in np.percentile(times, (50, 95)))
            rows.append(
                BenchmarkRow(
                    digest=digest,
                    job=job,
                    format=kind,
                    precision=way.precision,
                    size=sum(part.stat().st_size for part in exported.files[:-1]),
                    accuracy=agreement.accuracy,
                    agreement=agreement.agreement,
                    is_worse=agreement.is_worse,
                    num_images=len(held_out),
                    latency_p50=median,
                    latency_p95=slow,
                )
            )
    return rows


def ranking_changes(rows: Sequence[BenchmarkRow]) -> list[tuple[str, str]]:
    """Return the pairs of jobs whose order in accuracy 8 bits turn round, the one that is better in float32 first.

    Args:
        rows: What :func:`benchmark_network` returned for several networks on the same images.
    """
    accuracy = {(row.job, row.precision): row.accuracy for row in rows if row.accuracy is not None}
    jobs = [job for job in dict.fromkeys(row.job for row in rows) if (job, "int8") in accuracy]
    pairs = []
    for one, other in combinations(jobs, 2):
        whole = accuracy[one, "float32"] - accuracy[other, "float32"]
        small = accuracy[one, "int8"] - accuracy[other, "int8"]
        if whole * small < 0:
            pairs.append((one, other) if whole > 0 else (other, one))
    return pairs


def _exported(trained: TrainedNetwork, kind: str, file: Path, train: ImageSource, held_out: ImageSource) -> Exported:
    return export_int8(trained, file, train, held_out) if kind == INT8 else export_network(trained, kind, file)


def _milliseconds(run: Predict, images: ImageSource, repeats: int) -> list[float]:
    (pixels,) = pixels_of(images, np.arange(1))
    found = []
    for _ in range(WARM_UP + repeats):
        began = time.perf_counter()
        run(pixels)
        found.append(1000 * (time.perf_counter() - began))
    return found[WARM_UP:]
