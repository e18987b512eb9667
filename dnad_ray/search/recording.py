"""Records of a search: a snapshot of the derived network, and a report for each epoch."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor

from dnad_ray.costs.table import costs_of
from dnad_ray.costs.trace import COUNTER
from dnad_ray.data.batches import evaluation_batches
from dnad_ray.networks.scores import RANKING, Batch, rank_score, scores_of
from dnad_ray.run_folder.records import EpochReport, Snapshot, SnapshotKind
from dnad_ray.runtime.devices import MEMORY_FORMAT
from dnad_ray.search.ladder import rungs, score_images
from dnad_ray.search.state import EpochSums, SearchState
from dnad_ray.training.evaluate import accuracy_of, frozen_statistics, recalibrate
from dnad_ray.training.loop import counted
from search_spaces.genotype import Genotype
from search_spaces.ops import PARAMETER_FREE
from search_spaces.shape import NetworkShape
from search_spaces.supernet import subset

__all__ = ["derived_shape", "report_epoch", "take_ladder", "take_snapshot"]

_SCORE_IMAGES = 32


def derived_shape(state: SearchState) -> NetworkShape:
    """Return the shape at which derived networks are counted."""
    return state.shape(state.config.evaluation.init_channels)


def take_snapshot(state: SearchState, kind: SnapshotKind) -> Snapshot:
    """Score the derived network, count its costs, and return its record."""
    with counted(state):
        genotype, accuracy = _scored(state)
    state.deleted_since_snapshot = 0
    return _record(state, kind, genotype, accuracy)


def take_ladder(state: SearchState) -> list[Snapshot]:
    """Return the records of the ladder's networks, except those recorded before.

    They are scored on few images, with batch statistics of these images; costs come from the cost table.
    """
    with counted(state):
        scored = _scored_ladder(state)
    return [_record(state, "ladder", genotype, accuracy, rung) for rung, genotype, accuracy in scored]


def _scored_ladder(state: SearchState) -> list[tuple[int, Genotype, float]]:
    """Return rung, network and proxy accuracy of each network of the ladder that was not recorded before."""
    alive, candidates = state.supernet.genotype, state.supernet.candidates
    networks = [
        (rung, subset(alive, [candidates[position] for position in chosen]).pruned(), chosen)
        for rung, chosen in enumerate(rungs(state.space, candidates, state.worth()), 1)
    ]
    state.ladder = {genotype.digest: genotype for _, genotype, _ in networks}
    new = [
        entry for entry in networks if entry[1].digest not in state.ladder_digests and _is_within_floor(state, entry[1])
    ]
    state.ladder_digests += [genotype.digest for _, genotype, _ in new]
    count = score_images(len(state.data.train), len(networks), state.config.evaluation.interval_epochs)
    sample = state.data.validation.select(np.random.RandomState(0).permutation(len(state.data.validation))[:count])
    images, labels = next(evaluation_batches(sample, state.data, count, state.device, MEMORY_FORMAT))
    scored = []
    for rung, genotype, chosen in new:
        with torch.no_grad(), frozen_statistics(state.supernet):
            logits = state.supernet(images, state.relaxation.weights_of(chosen)).logits
        scored.append((rung, genotype, float((logits.argmax(1) == labels).double().mean())))
    return scored


def _is_within_floor(state: SearchState, genotype: Genotype) -> bool:
    """Whether a network is no smaller than the floor of the search."""
    floor = state.config.shrink.floor
    if genotype.num_operations < max(1, floor.operations or 0):
        return False
    return floor.macs is None or costs_of(genotype, derived_shape(state)).macs >= floor.macs


def _record(state: SearchState, kind: SnapshotKind, genotype: Genotype, accuracy: float, rung: int = 0) -> Snapshot:
    """Return the record of a network, with its costs."""
    config = state.config
    scoring = config.evaluation
    traced = kind != "ladder" and (scoring.trace == "all" or (scoring.trace == "final" and kind == "final"))
    with counted(state):
        cost = costs_of(genotype, derived_shape(state), traced)
        scores = _scores(state, genotype, cost.macs)
    return Snapshot(
        run=state.run,
        trial=state.trial,
        seed=config.seed,
        step=state.step,
        epoch=math.ceil(state.step / state.steps_per_epoch),
        kind=kind,
        digest=genotype.digest,
        num_operations=genotype.num_operations,
        macs=cost.macs,
        macs_conv_linear=cost.macs_conv_linear,
        params=cost.params,
        proxy_accuracy=accuracy,
        train_loss=state.sums.mean("task_loss"),
        train_accuracy=state.sums.mean("correct"),
        shrink_rate=config.shrink.rate,
        kd_kind=config.distill.kind,
        kd_temperature=config.distill.temperature,
        kd_weight=config.distill.weight,
        gamma=state.controller.gamma,
        mu=state.controller.mu,
        sparsity=state.sparsity,
        device_seconds=state.device_seconds,
        device=state.device.type,
        dataset=state.data.name,
        image_size=state.data.image_size,
        num_classes=state.data.num_classes,
        init_channels=scoring.init_channels,
        counter=COUNTER,
        costs_traced=traced,
        in_channels=state.data.in_channels,
        rung=rung,
        **scores,
    )


def _scores(state: SearchState, genotype: Genotype, macs: int) -> dict[str, float | None]:
    """Return the training-free scores that the configuration asks for, at the width of the supernet, and the rank's."""
    ranking = RANKING[genotype.skeleton]
    names = dict.fromkeys(ranking if name == "score" else name for name in state.config.evaluation.scores)
    if names and state.score_batch is None:
        order = np.random.RandomState(2).permutation(len(state.data.train))[:_SCORE_IMAGES]
        sample = state.data.train.select(order)
        state.score_batch = Batch(
            *next(evaluation_batches(sample, state.data, _SCORE_IMAGES, state.device, MEMORY_FORMAT))
        )
    batch = state.score_batch
    if batch is None:
        return {}
    scores = scores_of(genotype, state.shape(state.config.space.init_channels), batch, tuple(names))
    return {**scores, "score": rank_score(scores, genotype, macs, len(batch.labels))}


def report_epoch(state: SearchState) -> EpochReport:
    """Return the report of the epoch so far, and append it to the history."""
    report = EpochReport(
        step=state.step,
        epoch=math.ceil(state.step / state.steps_per_epoch),
        num_operations=state.supernet.genotype.pruned().num_operations,
        train_loss=cast(float, state.sums.mean("task_loss")),
        train_accuracy=cast(float, state.sums.mean("correct")),
        kd_loss=state.sums.mean("kd_loss"),
        gamma=state.controller.gamma,
        mu=state.controller.mu,
        sparsity=state.sparsity,
        device_seconds=state.device_seconds,
        operation_weights=_operation_weights(state),
        free_share=_free_share(state.derived_network()[0]),
    )
    state.history.append(report.to_dict())
    state.sums = EpochSums()
    return report


def _scored(state: SearchState) -> tuple[Genotype, float]:
    """Return the derived network and its proxy accuracy."""
    genotype, chosen = state.derived_network()
    is_whole = len(chosen) == len(state.supernet.candidates)
    # The score is that of the recorded network with the shared weights.
    weights = (state.relaxation.weights() if is_whole else state.relaxation.weights_of(chosen)).detach()

    def logits(images: Tensor) -> Tensor:
        return cast(Tensor, state.supernet(images, weights).logits)

    scoring, data = state.config.evaluation, state.data
    recalibrate(state.supernet, logits, data, scoring.recalibration_images, state.config.train.batch_size)
    accuracy = accuracy_of(state.supernet, logits, data.validation, data, scoring.batch_size, ranks=state.ranks)
    return genotype, accuracy


def _free_share(genotype: Genotype) -> float:
    operations = [edge.operation for cell in genotype.cells for node in cell.nodes for edge in node]
    return sum(name in PARAMETER_FREE for name in operations) / max(1, len(operations))


def _operation_weights(state: SearchState) -> dict[str, list[float]]:
    """Return the weight of each operation by cell, see :class:`dnad_ray.run_folder.records.EpochReport`."""
    candidates = state.supernet.candidates
    weights = state.relaxation.weights().detach().tolist()
    nodes: dict[int, set[int]] = {}
    for item in candidates:
        nodes.setdefault(item.cell, set()).add(item.node)
    num_cells = max(nodes) + 1
    found: dict[str, list[float]] = {}
    for item, weight in zip(candidates, weights, strict=True):
        row = found.setdefault(item.edge.operation, [0.0] * num_cells)
        row[item.cell] += weight / len(nodes[item.cell])
    # Four digits are enough for a chart; a history has one such table per epoch.
    return {name: [round(min(value, 1.0), 4) for value in found[name]] for name in sorted(found)}
