"""The imitation kinds, each as a pure function of student and teacher: a file per family, with its paper."""

from __future__ import annotations

from dnad_ray.distill.losses.maps import attention_imitation, factor_imitation, principal_factors, standardised_error
from dnad_ray.distill.losses.outputs import decoupled_imitation, logit_imitation
from dnad_ray.distill.losses.relations import angle_imitation, distance_imitation, similarity_imitation

__all__ = [
    "angle_imitation",
    "attention_imitation",
    "decoupled_imitation",
    "distance_imitation",
    "factor_imitation",
    "logit_imitation",
    "principal_factors",
    "similarity_imitation",
    "standardised_error",
]
