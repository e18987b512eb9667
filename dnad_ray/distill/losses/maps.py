"""Imitation of features pixel by pixel: both sides have maps of the same height and width."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["attention_imitation", "factor_imitation", "principal_factors", "standardised_error"]


def standardised_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error of features after batch norm without affine parameters (DNAD, section 3.4).

    The norm makes it independent of scale and offset of either side. It always uses batch statistics, because there is
    no imitation in evaluation mode.

    Args:
        student: Adapted features (N, C, H, W).
        teacher: Features (N, C, H, W).
    """
    ours, theirs = (F.batch_norm(features, None, None, training=True) for features in (student, teacher))
    return F.mse_loss(ours, theirs)


def attention_imitation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance of attention maps, averaged over the batch, from 0 to 2.

    The map of an image is the sum of its squared features over channels, flattened and of unit length (Zagoruyko and
    Komodakis, arXiv 1612.03928, section 3.1: activation-based, p = 2). Their code takes the mean over pixels in place
    of the sum, hence its factor of 1000; here a weight of the order of 1 means the same for all sizes.

    Args:
        student: Features (N, C, H, W).
        teacher: Features (N, D, H, W) of as many pixels, any number of channels.
    """
    ours, theirs = (F.normalize(features.pow(2).sum(1).flatten(1), dim=1) for features in (student, teacher))
    distance: Tensor = (ours - theirs).pow(2).sum(1).mean()
    return distance


def factor_imitation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the distance of factors of unit length in the 1-norm, averaged over the batch, from 0 to 2.

    Kim et al., arXiv 1802.04977, equation 2 with p = 1; divided by the root of the number of entries, which bounds it
    whatever the size of the maps.

    Args:
        student: Factors (N, M, H, W) that the translator made of the student's features.
        teacher: Factors (N, M, H, W) that the paraphraser made of the teacher's, see :func:`principal_factors`.
    """
    ours, theirs = (F.normalize(factors.flatten(1), dim=1) for factors in (student, teacher))
    distance: Tensor = (ours - theirs).abs().sum(1).mean()
    return distance / math.sqrt(ours.shape[1])


@torch.no_grad()
def principal_factors(features: Tensor, num_factors: int) -> Tensor:
    """Return the paraphraser of factor transfer: a 1x1 convolution (M, C, 1, 1) to the factors of a teacher.

    Kim et al. train a small autoencoder on the teacher's features, without labels. This is the linear one of one
    layer, whose best weights are known without training: the directions of the largest variance over pixels.

    Args:
        features: Features (N, C, H, W) of a sample of images.
        num_factors: M, at most C.
    """
    pixels = features.double().permute(1, 0, 2, 3).flatten(1)
    _, directions = torch.linalg.eigh(torch.cov(pixels, correction=0).reshape(len(pixels), len(pixels)))
    largest = directions.flip(1)[:, :num_factors].T
    # The sign of a direction is arbitrary; this choice makes it the same on every machine.
    strongest = largest.gather(1, largest.abs().argmax(1, keepdim=True))
    weight: Tensor = (largest * strongest.sign())[..., None, None].to(features.dtype)
    return weight.contiguous()
