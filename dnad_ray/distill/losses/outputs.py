"""Imitation of class probabilities, softened by a temperature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["decoupled_imitation", "logit_imitation"]


def logit_imitation(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """Return ``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, averaged over the batch, in nats.

    The factor keeps the gradient's size independent of the temperature (Hinton et al., arXiv 1503.02531, section 2).

    Args:
        student: Logits (N, num_classes).
        teacher: Logits (N, num_classes).
        temperature: KD temperature T, above 0; a tensor () where it changes under a recorded step.
    """
    return (
        F.kl_div(
            F.log_softmax(student / temperature, 1),
            F.log_softmax(teacher / temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        * temperature**2
    )


def decoupled_imitation(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float | Tensor,
    *,
    target: float = 1.0,
    rest: float = 8.0,
) -> Tensor:
    """Return decoupled KD: separate weights for the label against all other classes, and for the others alone.

    ``T^2 * (alpha * KL(b_t || b_s) + beta * KL(q_t || q_s))``, where ``b`` is the pair (probability of the label,
    probability of the rest) and ``q`` the distribution over the other classes alone (Zhao et al., arXiv 2203.08679,
    equation 7). With ``alpha = 1`` and ``beta`` equal to the teacher's probability of the rest, it is
    :func:`logit_imitation`. With a fixed ``beta``, the other classes count also if the teacher is very sure.

    Args:
        student: Logits (N, num_classes), of 2 classes or more.
        teacher: Logits (N, num_classes).
        labels: The right classes (N,).
        temperature: KD temperature T, above 0.
        target: alpha.
        rest: beta.

    Returns:
        Mean over the batch, in nats.
    """
    binary, others = zip(*(_split(logits / temperature, labels) for logits in (student, teacher)), strict=True)
    apart = F.kl_div(binary[0], binary[1], reduction="batchmean", log_target=True)
    among = F.kl_div(others[0], others[1], reduction="batchmean", log_target=True)
    return (target * apart + rest * among) * temperature**2


def _split(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return log probabilities of (label, rest), (N, 2), and of the other classes alone, (N, num_classes - 1)."""
    num_classes = logits.shape[1]
    # Indexed by position, not by mask: the size of a masked result would have to be fetched from the device.
    others = (labels[:, None] + torch.arange(1, num_classes, device=labels.device)) % num_classes
    right, wrong = logits.gather(1, labels[:, None]), logits.gather(1, others)
    # Log of the summed exponentials, not of 1 - p, which rounds to zero for a very sure network.
    pair = torch.cat([right, wrong.logsumexp(1, keepdim=True)], 1)
    return F.log_softmax(pair, 1), F.log_softmax(wrong, 1)
