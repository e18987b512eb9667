"""A trained network as a file for somewhere else: ONNX, torch.export, safetensors, or a plain Python module.

Every file takes pixels in 0..1 and gives logits; normalisation, class names and a model card go with it. What was
written is read again and must give the same outputs, for one image and for several, before it takes its place.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from dnad_ray.data.images import ImageSource
from dnad_ray.deploy.formats import FORMATS, Format, Predict, in_torch
from dnad_ray.deploy.int8 import Agreement, agreement_of, calibration_images, int8_format, predicted
from dnad_ray.deploy.model_card import is_card_of, model_card
from dnad_ray.deploy.suffixes import INT8
from dnad_ray.errors import ConfigError, DnadRayError, RunFolderError, UserError, one_line
from dnad_ray.networks.network_file import TrainedNetwork
from dnad_ray.run_folder.outputs import output_file
from dnad_ray.storage.files import read_file
from dnad_ray.text import install_command

__all__ = ["ExportError", "Exported", "export_int8", "export_network", "not_installed"]

_TOLERANCE = 1e-4
_BATCHES = (1, 3)
_MAX_CARD = 2**20
_OLDER_CARD = ".md"  # instead of the model's suffix: what cards of version 0.1 had


class ExportError(DnadRayError):
    """The exported file gives other outputs than the network; it was deleted."""


class Exported(NamedTuple):
    """What an export left.

    Attributes:
        files: The files, the model first.
        difference: Largest difference of logits between the network and the file read again, relative to the largest
            logit.
        agreement: The comparison of a quantised file with the network on images; None for other formats.
    """

    files: tuple[Path, ...]
    difference: float
    agreement: Agreement | None = None


class _Checked(NamedTuple):
    """How a file that was read again compares with the network."""

    difference: float
    words: str
    agreement: Agreement | None = None


_Check = Callable[[Predict], _Checked]


def export_network(trained: TrainedNetwork, kind: str, out: Path) -> Exported:
    """Write a network in a format, and its model card beside it; whole and verified, or not at all.

    Args:
        trained: The network.
        kind: Name in :data:`FORMATS`.
        out: The file; its suffix is the format's. An earlier export in this format is replaced, no other file is.

    Raises:
        ConfigError: If the format is unknown, its package is missing, or it cannot hold this network.
        UserError: If the target cannot be written, or a file of that name or of those beside it is there.
        ExportError: If the file read again gives other outputs.
    """
    if kind not in FORMATS:
        raise ConfigError("--format", kind, ", ".join(FORMATS))
    return _exported(trained, kind, FORMATS[kind], out, lambda run: _verified(trained, run, kind))


def export_int8(trained: TrainedNetwork, out: Path, train: ImageSource, held_out: ImageSource) -> Exported:
    """Quantise a network to 8 bits by ONNX Runtime and write it with its model card, as :func:`export_network` does.

    Args:
        trained: The network.
        out: The file, which ends with ``.int8.onnx``.
        train: Training images; at most 256 of them calibrate the ranges of activations.
        held_out: Images that the network was not trained on, which both networks classify.

    Raises:
        ConfigError: If a package is missing.
        UserError: If the target cannot be written.
        ExportError: If the file read again does not run, or gives other things than a finite logit for each class.
    """

    def check(run: Predict) -> _Checked:
        positions = np.arange(len(held_out))
        difference = _difference(trained, run, INT8)
        found = predicted(run, held_out, positions)
        agreement = agreement_of(found, predicted(in_torch(trained), held_out, positions), held_out.labels)
        return _Checked(difference, f"read again: {agreement.in_words()}", agreement)

    return _exported(trained, INT8, int8_format(calibration_images(train)), out, check)


def not_installed(form: Format) -> str | None:
    """Return which package of a format is missing, with the command that installs it; None if all are there."""
    missing = next((package for package in form.packages if find_spec(package) is None), None)
    return None if missing is None else f"{missing} is not installed: {install_command(form.extra)}"


def _exported(trained: TrainedNetwork, kind: str, form: Format, out: Path, check: _Check) -> Exported:
    """Write a network in a format with its model card, if the file read again passes the check."""
    if not out.name.endswith(form.suffix) or out.name == form.suffix:
        raise ConfigError("--out", str(out), f"a file that ends with {form.suffix} for --format {kind}")
    missing = not_installed(form)
    if missing is not None:
        raise ConfigError("--format", kind, f"a format whose packages are there; {missing}")
    if out.is_dir():
        raise RunFolderError("--out", str(out), "a file, not a folder")
    targets = _targets(kind, form, out)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
            folder = Path(name)
            files = form.files(folder / out.name)
            form.write(trained, files[0])
            try:
                checked = check(form.read(trained, folder / out.name))
            except (RuntimeError, ValueError) as error:  # errors of runtimes that cannot run the file
                raise ExportError(f"the {kind} file cannot be run: {one_line(error)[:300]}") from error
            card = _card_of(files[0])
            card.write_text(model_card(trained, kind, [file.name for file in files], checked.words), encoding="utf-8")
            moved = []
            try:
                # The model is written last: if it exists, all files do.
                for file, target in reversed(list(zip([*files, card], targets, strict=True))):
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
    return Exported(tuple(out.parent / file.name for file in (*files, card)), checked.difference, checked.agreement)


def _targets(kind: str, form: Format, out: Path) -> list[Path]:
    """Return where the files of an export go, the model first and its card last.

    Raises:
        UserError: If one of them is a file that no earlier export in this format wrote.
    """
    if not out.parent.is_dir():
        return [out]  # which the writing refuses in words
    files = form.files(out)
    targets = [cast(Path, output_file(file, (file.suffix.lower(),))) for file in (*files, _card_of(out))]
    there = [target.name for target in targets if target.exists() or target.is_symlink()]
    names = [file.name for file in files]
    if there and not any(_is_earlier(card, kind, names) for card in (_card_of(out), out.with_suffix(_OLDER_CARD))):
        allowed = (
            f"a name that is free: {', '.join(there)} of this folder would be replaced, which is no earlier export"
        )
        raise RunFolderError("--out", str(out), f"{allowed} as {kind}")
    return targets


def _card_of(model: Path) -> Path:
    """Return the model card of a file; with its whole name, as one network may be there in several formats."""
    return model.with_name(f"{model.name}.md")


def _is_earlier(card: Path, kind: str, names: Sequence[str]) -> bool:
    try:
        text = read_file(card, _MAX_CARD, follow_links=True).decode("utf-8", "replace")
    except (OSError, UserError):
        return False
    return is_card_of(text, kind, names)


def _verified(trained: TrainedNetwork, predict: Predict, kind: str) -> _Checked:
    """Return the largest difference of outputs; raise where it is one that rounding does not explain."""
    difference = _difference(trained, predict, kind)
    if not difference <= _TOLERANCE:
        raise ExportError(f"the {kind} file gives other outputs: they differ by {difference:.3g}, relatively")
    return _Checked(
        difference, f"read again, batches of 1 and 3: logits differ by {difference:.2g} of the largest at most"
    )


def _difference(trained: TrainedNetwork, predict: Predict, kind: str) -> float:
    """Return the largest difference of outputs relative to the largest logit; raise where they have another shape."""
    reference = in_torch(trained)
    generator = np.random.default_rng(0)
    images = trained.images
    worst = 0.0
    for batch in _BATCHES:
        size = (batch, images.in_channels, images.image_size, images.image_size)
        pixels = generator.random(size, dtype=np.float32)
        ours = reference(pixels)
        theirs = predict(pixels)
        if theirs.shape != ours.shape:
            raise ExportError(f"the {kind} file gives outputs of shape {theirs.shape}, not {ours.shape}")
        # Relative to the size of the logits, which an untrained or a long-trained network has small or large.
        difference = float(np.abs(theirs - ours).max()) / max(1.0, float(np.abs(ours).max()))
        if not np.isfinite(theirs).all():
            raise ExportError(f"the {kind} file gives logits that are not finite")
        worst = max(worst, difference)
    return worst
