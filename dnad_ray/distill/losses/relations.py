"""Imitation of the relations between the images of a batch: student and teacher may have other sizes and channels.

Every batch must have 2 images or more. With several processes, each one compares the images of its own part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["angle_imitation", "distance_imitation", "similarity_imitation"]


def similarity_imitation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of similarities within the batch.

    ``||G_s - G_t||^2 / N^2``, where ``G`` (N, N) holds the inner products of the flattened features, its rows brought
    to unit length (Tung and Mori, arXiv 1907.09682, equations 1 to 4).

    Args:
        student: Features (N, ...).
        teacher: Features (N, ...) of any size.
    """
    ours, theirs = (
        F.normalize(flat @ flat.T, dim=1) for flat in (features.flatten(1) for features in (student, teacher))
    )
    return F.mse_loss(ours, theirs)


def distance_imitation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss of distances between the images of a batch, in units of their mean.

    Park et al., arXiv 1904.05068, equations 4 to 6 (RKD-D).

    Args:
        student: Embeddings (N, C).
        teacher: Embeddings (N, D).
    """
    ours, theirs = (_distances(embeddings) for embeddings in (student, teacher))
    return F.smooth_l1_loss(ours, theirs)


def angle_imitation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss of the cosines of the angles in all triangles of a batch; memory grows as N cubed.

    Park et al., arXiv 1904.05068, equations 7 and 8 (RKD-A).

    Args:
        student: Embeddings (N, C).
        teacher: Embeddings (N, D).
    """
    ours, theirs = (_cosines(embeddings) for embeddings in (student, teacher))
    return F.smooth_l1_loss(ours, theirs)


def _distances(embeddings: Tensor) -> Tensor:
    """Return the distances (pairs,) between all pairs, divided by their mean."""
    first, second = torch.triu_indices(len(embeddings), len(embeddings), 1, device=embeddings.device).unbind()
    # The root has no finite slope at zero: equal images would give a NaN gradient.
    lengths = (embeddings[first] - embeddings[second]).pow(2).sum(1).clamp_min(1e-12).sqrt()
    return lengths / lengths.mean()


def _cosines(embeddings: Tensor) -> Tensor:
    """Return for each image (N, N, N) the cosines between the directions to all others; 0 for equal images."""
    directions = F.normalize(embeddings[None] - embeddings[:, None], dim=2)
    return directions @ directions.transpose(1, 2)
