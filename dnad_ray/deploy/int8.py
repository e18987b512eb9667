"""Post-training static quantisation by ONNX Runtime: 8-bit weights and activations, for the format ``onnx-int8``.

Activations get unsigned 8-bit numbers, weights signed ones of 7 bits (``reduce_range``), a scale per channel, as QDQ.
On x86 processors without VNNI the sums of two products of 8-bit numbers saturate at 16 bits; with weights of 7 bits
they cannot, so the file gives the same classes on all of them (ONNX Runtime's documentation, "Quantize ONNX models").
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dnad_ray.data.images import ImageSource
from dnad_ray.deploy.formats import FORMATS, Array, Format, Predict
from dnad_ray.deploy.suffixes import INT8_SUFFIX
from dnad_ray.networks.network_file import TrainedNetwork

__all__ = ["Agreement", "agreement_of", "calibration_images", "int8_format", "pixels_of", "predicted"]

_CALIBRATION = 256
"""Images that the ranges of activations are taken from, at most."""

_BATCH = 32
_SIGNIFICANT = 0.05


class Agreement(NamedTuple):
    """How a quantised network classifies images, compared with the float network.

    Attributes:
        agreement: Share of the images that both give the same class.
        accuracy: Share of the images that the quantised network classifies correctly.
        float_accuracy: The same of the float network.
        num_images: Number of images.
        is_worse: Whether accuracy fell by more than chance explains: the exact one-sided sign test on the images that
            only one of the two classifies correctly (McNemar, Psychometrika 12, 1947) gives p < 0.05.
    """

    agreement: float
    accuracy: float
    float_accuracy: float
    num_images: int
    is_worse: bool

    def in_words(self) -> str:
        """Return the comparison as part of a sentence."""
        return (
            f"same class as the float network for {self.agreement:.2%} of {self.num_images:,} images; "
            f"accuracy {self.accuracy:.2%}, of the float network {self.float_accuracy:.2%}"
        )


def agreement_of(
    ours: npt.NDArray[np.intp], reference: npt.NDArray[np.intp], labels: npt.NDArray[np.int64]
) -> Agreement:
    """Compare the classes that a quantised and a float network predict.

    Args:
        ours: Classes of the quantised network, shape (N,).
        reference: Classes of the float network, shape (N,).
        labels: True classes, shape (N,).

    >>> labels = np.zeros(20, np.int64)
    >>> agreement_of(np.repeat([1, 0], [5, 15]), np.zeros(20, np.intp), labels)
    Agreement(agreement=0.75, accuracy=0.75, float_accuracy=1.0, num_images=20, is_worse=True)
    """
    is_right, was_right = ours == labels, reference == labels
    lost, won = int((was_right & ~is_right).sum()), int((is_right & ~was_right).sum())
    stats: Any = importlib.import_module("scipy.stats")  # to load it takes long
    is_worse = lost > won and float(stats.binomtest(lost, lost + won, alternative="greater").pvalue) < _SIGNIFICANT
    agreement, accuracy, float_accuracy = (float(part.mean()) for part in (ours == reference, is_right, was_right))
    return Agreement(agreement, accuracy, float_accuracy, len(labels), is_worse)


def calibration_images(train: ImageSource) -> Array:
    """Return at most 256 training images of all classes, pixels in 0..1, shape (N, C, H, W); the same in each call.

    Args:
        train: The training images; test images must not be among them.
    """
    # Image folders are sorted by class.
    order = np.random.default_rng(0).permutation(len(train))[:_CALIBRATION]
    return np.concatenate(list(pixels_of(train, order)))


def pixels_of(images: ImageSource, positions: npt.NDArray[Any]) -> Iterator[Array]:
    """Yield the images at some positions in batches (N, C, H, W), float32 in 0..1, as exported networks take them."""
    parts = [positions[start : start + _BATCH] for start in range(0, len(positions), _BATCH)]
    for part in images.stream(parts, torch.device("cpu")):
        yield part.numpy().astype(np.float32) / np.float32(255)


def predicted(run: Predict, images: ImageSource, positions: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return the classes that a network predicts for the images at some positions, shape (N,)."""
    return np.concatenate([run(pixels).argmax(1) for pixels in pixels_of(images, positions)])


def int8_format(calibration: Array) -> Format:
    """Return the format ``onnx-int8``.

    Args:
        calibration: Images that the ranges of activations are taken from, pixels in 0..1, shape (N, C, H, W).
    """
    onnx = FORMATS["onnx"]

    def write(trained: TrainedNetwork, file: Path) -> None:
        with tempfile.TemporaryDirectory(dir=file.parent) as name:
            whole = Path(name) / "float.onnx"
            onnx.write(trained, whole)
            _quantise(whole, file, calibration)

    return Format(INT8_SUFFIX, onnx.packages, (), write, onnx.read)


def _quantise(whole: Path, out: Path, calibration: Array) -> None:
    tools: Any = importlib.import_module("onnxruntime.quantization")
    shapes: Any = importlib.import_module("onnxruntime.quantization.shape_inference")
    batches = iter([{"images": calibration[at : at + _BATCH]} for at in range(0, len(calibration), _BATCH)])

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return next(batches, None)

    ready = whole.with_name("ready.onnx")
    with _quiet():
        shapes.quant_pre_process(str(whole), str(ready))
        tools.quantize_static(
            str(ready),
            str(out),
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the tools write to the root logger, and warnings about their own use of ONNX."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
