"""Calibration of a network's probabilities: its error, and the temperature that fits them best."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Calibration", "calibration_error", "calibration_of", "fitted_temperature"]

_BINS = 15
_RANGE = (1 / 64, 64.0)
_HALVINGS = 40


@dataclass(frozen=True)
class Calibration:
    """Calibration of a teacher's probabilities, measured on validation images.

    Attributes:
        error: Expected calibration error, 0 to 1.
        temperature: Temperature at which the labels are likeliest; above 1 the network is overconfident.
        nll: Negative log likelihood of the labels at temperature 1, in nats per image.
        nll_fitted: The same at that temperature.
        num_images: Number of images of the measurement.
    """

    error: float
    temperature: float
    nll: float
    nll_fitted: float
    num_images: int


def calibration_of(logits: Tensor, labels: Tensor) -> Calibration:
    """Measure logits (N, num_classes) against labels (N,)."""
    logits = logits.double().cpu()
    labels = labels.cpu()
    temperature = fitted_temperature(logits, labels)
    return Calibration(
        error=calibration_error(logits, labels),
        temperature=temperature,
        nll=float(F.cross_entropy(logits, labels)),
        nll_fitted=float(F.cross_entropy(logits / temperature, labels)),
        num_images=len(labels),
    )


def calibration_error(logits: Tensor, labels: Tensor, num_bins: int = _BINS) -> float:
    """Return the expected calibration error: by how much confidence and accuracy differ, averaged over images.

    Images are put into bins of equal width by the probability of the predicted class (Guo et al., arXiv 1706.04599,
    equation 3).

    Args:
        logits: (N, num_classes).
        labels: (N,).
        num_bins: Bins between 0 and 1.
    """
    confidence, chosen = logits.softmax(1).max(1)
    # A bin includes its upper end, not its lower one.
    bins = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
    gaps = (chosen == labels).to(confidence.dtype) - confidence
    return float(torch.zeros(num_bins, dtype=gaps.dtype).index_add_(0, bins, gaps).abs().sum()) / len(labels)


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature between 1/64 and 64 at which the labels are likeliest (Guo et al., section 4.2).

    The loss is convex in the inverse of the temperature, so bisection finds its only minimum.

    Args:
        logits: (N, num_classes).
        labels: (N,).
    """
    low, high = (1 / end for end in reversed(_RANGE))
    right = logits.gather(1, labels[:, None])[:, 0]
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        # Slope of the loss: the mean expected logit minus the mean logit of the label.
        slope = ((logits * middle).softmax(1) * logits).sum(1).mean() - right.mean()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return 1 / math.sqrt(low * high)
