"""What is installed and what this machine offers: versions, device, memory, room; what is missing for which command."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from dnad_ray.runtime.cpus import usable_cpus
from dnad_ray.runtime.memory import address_space_limit
from dnad_ray.runtime.torchvision_import import torchvision_models
from dnad_ray.text import install_command
from dnad_ray.version import __version__

__all__ = ["EXTRAS", "Finding", "examined"]

EXTRAS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "export": (
        ("onnx", "onnxruntime", "onnxscript"),
        "export --format onnx, predict MODEL.onnx, latency in ONNX Runtime",
    ),
    "openvino": (("onnx", "onnxscript", "openvino"), "`dnad-ray export --format openvino`"),
    "optuna": (("optuna",), "sweep.sampler: optuna"),
    "notebook": (("anywidget", "ipywidgets", "jupyterlab"), "notebooks"),
    "pictures": (("kaleido",), "charts as PNG, SVG and PDF"),
    "mlflow": (("alembic", "mlflow", "sqlalchemy"), "curves in MLflow"),
    "wandb": (("wandb",), "curves in Weights & Biases"),
    "s3": (("s3fs",), "run folders at s3://"),
    "gcs": (("gcsfs",), "run folders at gs://"),
}
"""Extra -> the modules that it installs, and what needs them."""

_PACKAGES = ("torch", "torchvision", "ray", "fvcore", "pandas", "plotly")
_GIB = 2**30
_LEAST_DISK, _LEAST_MEMORY, _LEAST_SHARED = 1 * _GIB, 2 * _GIB, 256 * 2**20
_SHARED = Path("/dev/shm")


class Finding(NamedTuple):
    """One line of the examination.

    Attributes:
        name: What was looked at.
        found: What is there.
        advice: What to do about it, empty where nothing needs to be done.
        is_problem: Whether commands fail or are slow because of it; a missing extra is none.
    """

    name: str
    found: str
    advice: str = ""
    is_problem: bool = False


def examined(folder: Path) -> Iterator[Finding]:
    """Yield what is installed and what the machine offers.

    Args:
        folder: Where run folders are to be; its disk is looked at.
    """
    yield Finding("dnad-ray", __version__)
    yield Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _PACKAGES:
        yield _package(name)
    yield _torchvision()
    yield Finding("CPUs", f"{usable_cpus()} to use, {torch.get_num_threads()} threads in torch")
    yield _device()
    memory = psutil.virtual_memory()
    yield _room("memory", memory.available, memory.total, _LEAST_MEMORY, "fewer trials at a time: sweep.max_concurrent")
    usage = shutil.disk_usage(folder)
    yield _room(f"disk of {folder}", usage.free, usage.total, _LEAST_DISK, "another --out, or more room")
    if _SHARED.is_dir():
        shared, advice = shutil.disk_usage(_SHARED), "in a container: docker run --shm-size=2g; Ray is slow otherwise"
        yield _room(str(_SHARED), shared.free, shared.total, _LEAST_SHARED, advice)
    limit = address_space_limit()
    if limit is not None:
        advice = "ulimit -v unlimited, or --no-ray: Ray's processes map more than they use"
        yield Finding("address space", f"{limit / _GIB:.1f} GiB at most", advice, is_problem=True)
    for extra, (modules, purpose) in EXTRAS.items():
        missing = [name for name in modules if find_spec(name) is None]
        if missing:
            advice = f"for {purpose}: {install_command(extra)}"
            yield Finding(f"extra {extra}", f"without {', '.join(missing)}", advice)
        else:
            yield Finding(f"extra {extra}", "installed")


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", f"pip install {name}", is_problem=True)


def _torchvision() -> Finding:
    try:
        torchvision_models()
    except (ImportError, RuntimeError, OSError) as error:
        advice = "install the torchvision that belongs to this torch, both for CPUs or both for the same CUDA"
        return Finding("torchvision beside torch", str(error).splitlines()[0][:100], advice, is_problem=True)
    return Finding("torchvision beside torch", "can be imported")


def _device() -> Finding:
    if not torch.cuda.is_available():
        return Finding("GPU", "none" if torch.version.cuda else "none; this torch is built for CPUs")
    names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return Finding("GPU", ", ".join(f"{entry.name}, {entry.total_memory / _GIB:.0f} GiB" for entry in names))


def _room(name: str, free: int, total: int, least: int, advice: str) -> Finding:
    found = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    return Finding(name, found, advice, is_problem=True) if free < least else Finding(name, found)
