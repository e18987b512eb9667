"""The next candidates to delete: those with a weight below the baseline, or those of the lowest measured worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from dnad_ray.data.batches import evaluation_batches
from dnad_ray.runtime.devices import MEMORY_FORMAT
from dnad_ray.search.criteria import chosen
from dnad_ray.search.learner import StepFacts
from dnad_ray.search.state import SearchState
from dnad_ray.training.evaluate import frozen_statistics

__all__ = ["removal_losses", "to_delete"]

_NUM_MEASURED = 4
"""Number of the weakest parameters whose removal is measured before a deletion."""

_RECOVERY = 8
"""No deletions in the last eighth of an interval."""

_NUM_IMAGES = 256
"""Number of training images, without augmentation, for this measurement."""


def to_delete(state: SearchState, look: StepFacts) -> tuple[list[int], list[int]]:
    """Return the positions of the candidates that are ready for deletion, and of those to delete now.

    Under the criterion ``weight``, candidates below the baseline are ready, and are deleted as fast as the shrink rate
    allows. The other two criteria have no baseline: when the rate allows a deletion, the candidate of the lowest worth
    is deleted.

    Args:
        state: The search.
        look: Facts of the last look.
    """
    settings, relaxation = state.config.shrink, state.relaxation
    allowed = 0.0 if _is_recovering(state) else state.controller.allowed(look.num_steps)
    groups = relaxation.group.tolist()
    if settings.criterion == "weight":
        ready = relaxation.weakest(look.weights, settings.baseline)
        return ready, chosen(ready, groups, look.weights, allowed)
    if allowed <= 0:
        return [], []
    worth = look.worth
    if settings.criterion == "removal":
        worth = _measured(state, look.weights, groups)
    kept = relaxation.kept(worth)
    dead = chosen([position for position in range(len(worth)) if position not in kept], groups, worth, allowed)
    return dead, dead


def _is_recovering(state: SearchState) -> bool:
    """Whether the next score is so near that nothing is deleted: the weights first adapt to earlier deletions.

    Only with added pressure; the paper's form deletes at any step.
    """
    interval = state.config.evaluation.interval_epochs * state.steps_per_epoch
    steps_left = -state.step % interval
    return state.config.shrink.pressure == "added" and steps_left < interval // _RECOVERY


def _measured(state: SearchState, weights: Sequence[float], groups: Sequence[int]) -> list[float]:
    """Return the worth of each candidate: the loss after a removal for the weakest ones, a higher value for others."""
    kept = state.relaxation.kept(weights)
    ranked = sorted((p for p in range(len(weights)) if p not in kept), key=lambda position: weights[position])
    weakest = list(dict.fromkeys(groups[position] for position in ranked))[:_NUM_MEASURED]
    losses = dict(zip(weakest, removal_losses(state, weakest), strict=True))
    most = max(losses.values(), default=0.0)
    return [losses[group] if group in losses else most + 1 + weights[p] for p, group in enumerate(groups)]


@torch.no_grad()
def removal_losses(state: SearchState, parameters: Sequence[int]) -> list[float]:
    """Return for each given architecture parameter the task loss of the supernet without its candidates, in nats.

    The images are training images without augmentation, the same ones in every call and every process. Batch norms use
    the statistics of the batch. The remaining weights of a node, or an edge, are normalised again.
    """
    order = np.random.RandomState(1).permutation(len(state.data.train))[:_NUM_IMAGES]
    sample = state.data.train.select(order)
    images, labels = next(evaluation_batches(sample, state.data, _NUM_IMAGES, state.device, MEMORY_FORMAT))
    losses = []
    with frozen_statistics(state.supernet):
        for parameter in parameters:
            left = (state.relaxation.group != parameter).nonzero().flatten().tolist()
            logits = state.supernet(images, state.relaxation.weights_of(left)).logits
            losses.append(F.cross_entropy(logits.float(), labels))
    values: list[float] = state.ranks.of_first(torch.stack(losses)).tolist() if losses else []
    return values
