"""What a search records: a snapshot of the network that is left, and a report for each epoch."""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor

from dnad_ray.costs.table import costs_of
from dnad_ray.costs.trace import COUNTER
from dnad_ray.run_folder.records import EpochReport, Snapshot, SnapshotKind
from dnad_ray.search.state import EpochSums, SearchState
from dnad_ray.training.evaluate import accuracy_of, recalibrate
from dnad_ray.training.loop import counted
from search_spaces.genotype import Genotype
from search_spaces.shape import NetworkShape

__all__ = ["derived_shape", "report_epoch", "take_snapshot"]


def derived_shape(state: SearchState) -> NetworkShape:
    """Return the shape at which derived networks are counted."""
    return state.shape(state.config.evaluation.init_channels)


def take_snapshot(state: SearchState, kind: SnapshotKind) -> Snapshot:
    """Score and count the network that is left, and return its record."""
    config = state.config
    scoring = config.evaluation
    traced = scoring.trace == "all" or (scoring.trace == "final" and kind == "final")
    with counted(state):
        genotype, accuracy = _scored(state)
        cost = costs_of(genotype, derived_shape(state), traced)
    state.deleted_since_snapshot = 0
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
    )


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
    )
    state.history.append(report.to_dict())
    state.sums = EpochSums()
    return report


def _scored(state: SearchState) -> tuple[Genotype, float]:
    """Return the network that is left and its proxy accuracy."""
    genotype, chosen = state.derived_network()
    is_whole = len(chosen) == len(state.supernet.candidates)
    # The score is that of the network that the record names, with what it inherited.
    weights = (state.relaxation.weights() if is_whole else state.relaxation.weights_of(chosen)).detach()

    def logits(images: Tensor) -> Tensor:
        return cast(Tensor, state.supernet(images, weights).logits)

    scoring, data = state.config.evaluation, state.data
    recalibrate(state.supernet, logits, data, scoring.recalibration_images, state.config.train.batch_size)
    accuracy = accuracy_of(state.supernet, logits, data.validation, data, scoring.batch_size, ranks=state.ranks)
    return genotype, accuracy


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
    # Four digits are what a chart can show; a history has one such table per epoch.
    return {name: [round(min(value, 1.0), 4) for value in found[name]] for name in sorted(found)}
