"""A trained network as a file for somewhere else: ONNX, torch.export, safetensors, or a plain Python module.

Every file takes pixels in 0..1 and gives logits; normalisation, class names and a model card go with it. What was
written is read again and must give the same outputs, for one image and for several, before it takes its place.
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dnad_ray.deploy.formats import FORMATS, Deployed, Predict
from dnad_ray.deploy.model_card import model_card
from dnad_ray.errors import ConfigError, DnadRayError, RunFolderError, one_line
from dnad_ray.networks.network_file import TrainedNetwork
from dnad_ray.text import install_command

__all__ = ["ExportError", "Exported", "export_network"]

_TOLERANCE = 1e-4
_BATCHES = (1, 3)


class ExportError(DnadRayError):
    """The exported file gives other outputs than the network; it was deleted."""


class Exported(NamedTuple):
    """What an export left.

    Attributes:
        files: The files, the model first.
        difference: Largest difference of logits between the network and the file read again.
    """

    files: tuple[Path, ...]
    difference: float


def export_network(trained: TrainedNetwork, kind: str, out: Path) -> Exported:
    """Write a network in a format, and its model card beside it; whole and verified, or not at all.

    Args:
        trained: The network.
        kind: Name in :data:`FORMATS`.
        out: The file; its suffix is the format's.

    Raises:
        ConfigError: If the format is unknown, its package is missing, or it cannot hold this network.
        RunFolderError: If the target cannot be written.
        ExportError: If the file read again gives other outputs.
    """
    if kind not in FORMATS:
        raise ConfigError("--format", kind, ", ".join(FORMATS))
    form = FORMATS[kind]
    if out.suffix != form.suffix:
        raise ConfigError("--out", str(out), f"a file that ends with {form.suffix} for --format {kind}")
    for package in form.packages:
        if find_spec(package) is None:
            raise ConfigError(
                "--format", kind, f"one whose packages are installed; {package} is not: {install_command('export')}"
            )
    if out.is_dir():
        raise RunFolderError("--out", str(out), "a file, not a folder")
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
            folder = Path(name)
            files = form.write(trained, folder / out.name)
            try:
                difference = _verified(trained, form.read(trained, folder / out.name), kind)
            except (RuntimeError, ValueError) as error:  # errors of runtimes that cannot run the file
                raise ExportError(f"the {kind} file cannot be run: {one_line(error)[:300]}") from error
            card = folder / f"{out.stem}.md"
            card.write_text(model_card(trained, kind, [file.name for file in files], difference), encoding="utf-8")
            files = [*files, card]
            moved = []
            try:
                for file in reversed(files):  # the model is written last: if it exists, all files do
                    target = out.parent / file.name
                    shutil.move(file, target)
                    moved.append(target)
            except OSError:
                for target in moved:
                    target.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise RunFolderError(
            "--out", str(out), f"a file that can be written ({error.strerror or one_line(error)})"
        ) from error
    return Exported(tuple(reversed(moved)), difference)


def _verified(trained: TrainedNetwork, predict: Predict, kind: str) -> float:
    """Return the largest difference of outputs; raise where it is one that rounding does not explain."""
    reference = Deployed(trained).eval()
    generator = np.random.default_rng(0)
    images = trained.images
    worst = 0.0
    for batch in _BATCHES:
        size = (batch, images.in_channels, images.image_size, images.image_size)
        pixels = generator.random(size, dtype=np.float32)
        with torch.no_grad():
            ours = reference(torch.from_numpy(pixels)).numpy()
        theirs = predict(pixels)
        if theirs.shape != ours.shape:
            raise ExportError(f"the {kind} file gives outputs of shape {theirs.shape}, not {ours.shape}")
        # Relative to the size of the logits, which an untrained or a long-trained network has small or large.
        difference = float(np.abs(theirs - ours).max()) / max(1.0, float(np.abs(ours).max()))
        if not difference <= _TOLERANCE:
            raise ExportError(f"the {kind} file gives other outputs: they differ by {difference:.3g}, relatively")
        worst = max(worst, difference)
    return worst
