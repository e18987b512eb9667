"""Deletion by evidence and at the asked rate, and the ladder, in real searches."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F

from dnad_ray.config.run import with_overrides
from dnad_ray.data.batches import evaluation_batches
from dnad_ray.run_folder.checkpoints import load_newest, save_checkpoint
from dnad_ray.run_folder.reading import read_genotype, read_run
from dnad_ray.run_folder.records import EpochReport, Snapshot
from dnad_ray.run_folder.writing import create_run, write_parquet
from dnad_ray.runtime.devices import MEMORY_FORMAT
from dnad_ray.search.evidence import removal_losses
from dnad_ray.search.loop import search
from dnad_ray.search.state import SearchState
from dnad_ray.search.trial import run_trial
from dnad_ray.trials.spec import TrialSpec
from search_spaces.supernet import subset

SMALL_STEPS = {"train.batch_size": 24}  # 8 steps an epoch
ADDED = {"shrink.pressure": "added", **SMALL_STEPS}
CELLS = {
    "space.name": "nas-bench-201",
    "space.operations": ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"],
    "space.num_nodes": 3,
    "shrink.floor.operations": None,
}


def start(config, data):
    return SearchState.start(config, data, run="demo", trial="t00")


def deletions_of(state):
    """Run a search; returns its events and how many candidates were gone after each step."""
    left, step, events = [len(state.supernet.candidates)], state.learner.step, []

    def spy(*arguments, **options):
        left.append(len(state.supernet.candidates))
        return step(*arguments, **options)

    state.learner.step = spy
    events = list(search(state))
    left.append(len(state.supernet.candidates))
    return events, [before - after for before, after in itertools.pairwise(left[1:])]


@pytest.mark.parametrize("criterion", ["taylor", "removal"])
def test_deletions_come_at_the_asked_rate_and_not_before_a_score(criterion, tiny, digits):
    config = tiny({**ADDED, "shrink.criterion": criterion, "shrink.rate": 0.2, "shrink.floor.operations": None})
    state = start(config, digits)
    events, deleted = deletions_of(state)
    for epoch in range(1, 6):
        # 45 candidates, 9 an epoch; what a cell that nothing reads takes with it comes on top.
        assert sum(deleted[: 8 * epoch]) <= 9 * (epoch - 1) + 9
        assert not deleted[8 * epoch - 1], "nothing goes at the step of a score"
    assert sum(deleted) > 30
    assert isinstance(events[-1], EpochReport)


def test_shared_topology_deletes_no_faster(tiny, digits):
    state = start(tiny({**ADDED, **CELLS, "shrink.criterion": "taylor", "shrink.rate": 0.2}), digits)
    _, deleted = deletions_of(state)
    assert state.space.num_candidates == 72  # 3 cells of 6 edges, 4 operations on each
    assert set(deleted) <= {0, 3}, "a parameter stands for three cells"
    for epoch in range(2, 6):
        assert sum(deleted[: 8 * epoch]) <= 14.4 * (epoch - 1) + 3


def test_search_of_edges_ends_with_one_operation_on_each(tiny, digits):
    state = start(tiny({**ADDED, **CELLS, "shrink.criterion": "taylor", "shrink.rate": 0.5}), digits)
    events = list(search(state))
    assert state.step < state.num_steps
    assert len(state.supernet.candidates) == 18
    final = [event for event in events if isinstance(event, Snapshot) and event.kind == "final"]
    assert [event.num_operations for event in final] == [18]


def test_worth_has_the_gradient_of_the_task_alone(tiny, digits):
    """With and without pressure the first step says the same of every candidate."""
    values = []
    for pressure in (None, (10.0, 1.0)):
        state = start(tiny({**ADDED, "shrink.criterion": "taylor"}), digits)
        state.learner.step(*state.batches.batch(0), pressure)
        values.append(state.learner.worth.values)
    assert torch.equal(*values)
    state = start(tiny({**ADDED, "shrink.criterion": "taylor"}), digits)
    images, labels = state.batches.batch(0)
    weights = state.relaxation.weights().detach().requires_grad_()
    F.cross_entropy(copy.deepcopy(state.supernet)(images, weights).logits, labels).backward()
    moved = (weights * weights.grad).detach().abs()
    torch.testing.assert_close(values[0], moved / moved.mean(), rtol=1e-4, atol=1e-7)


def test_removal_losses_are_those_of_the_supernet_without_them(tiny, digits):
    state = start(tiny({**ADDED, "shrink.criterion": "removal"}), digits)
    before = copy.deepcopy(state.supernet.state_dict())
    found = removal_losses(state, [4, 0])
    assert all(map(torch.equal, before.values(), state.supernet.state_dict().values())), "nothing is changed by it"
    # All 192 training images in one batch: their order is of no importance to the mean.
    images, labels = next(evaluation_batches(digits.train, digits, 192, state.device, MEMORY_FORMAT))
    for position, loss in zip((4, 0), found, strict=True):
        weights = state.relaxation.weights().detach().clone()
        weights[position] = 0
        node = state.relaxation.node == state.relaxation.node[position]
        weights[node] /= weights[node].sum()
        with torch.no_grad():
            expected = F.cross_entropy(copy.deepcopy(state.supernet)(images, weights).logits, labels)
        assert loss == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("criterion", ["weight", "taylor", "removal"])
def test_search_by_evidence_resumes_bit_for_bit_from_every_snapshot(criterion, tiny, digits, timeless, tmp_path):
    changes = {"shrink.criterion": criterion, "evaluation.ladder": True, "train.epochs": 3, "train.batch_size": 48}
    config = tiny({**ADDED, **changes})
    state, events = start(config, digits), []
    for event in search(state):
        events.append(event)
        if isinstance(event, Snapshot):
            save_checkpoint(tmp_path / f"{len(events):03d}", state.state_dict(), state.step)
    assert {event.kind for event in events if isinstance(event, Snapshot)} >= {"ladder", "final"}
    folders = sorted(tmp_path.iterdir())[::5]
    assert len(folders) >= 3
    for folder in folders:
        resumed = SearchState.resume(load_newest([folder]), config, digits, run="demo", trial="t00")
        assert timeless(search(resumed)) == timeless(events[int(folder.name) :])
        assert all(map(torch.equal, resumed.supernet.state_dict().values(), state.supernet.state_dict().values()))


def test_ladder_is_there_from_the_first_interval_and_covers_all_sizes(tiny, digits):
    # A floor below the smallest rung, whose nodes may feed none.
    changes = {"evaluation.ladder": True, "train.epochs": 3, "train.warmup_epochs": 2, "shrink.floor.operations": 1}
    state = start(tiny({**ADDED, **changes}), digits)
    events = search(state)
    first = []
    for event in events:
        if isinstance(event, EpochReport):
            break
        first.append(event)
    assert state.step == 8
    # 2 and 3 inputs of 3 operations: nodes of 6 and 9 candidates. Rungs of 1, 2, 3, 4, 6 and 8, and the whole.
    assert [(event.kind, event.rung) for event in first] == [("ladder", rung) for rung in range(1, 8)]
    sizes = [event.num_operations for event in first]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 45
    assert [event.macs for event in first] == sorted(event.macs for event in first)
    digests = [event.digest for event in (*first, *events) if isinstance(event, Snapshot) and event.rung]
    assert len(digests) == len(set(digests)), "what is known is not recorded again"


@pytest.mark.parametrize("floor", ["operations", "macs"])
def test_ladder_has_no_network_below_the_floor(floor, tiny, digits):
    config = tiny({**ADDED, "evaluation.ladder": True, "train.epochs": 2, "shrink.floor.operations": 6})
    first = [event for event in search(start(config, digits)) if getattr(event, "rung", 0)][:4]
    size = {"operations": "num_operations", "macs": "macs"}[floor]
    least = getattr(first[2], size)  # that of the third rung
    changes = {"shrink.floor.operations": None, f"shrink.floor.{floor}": least}
    events = search(start(with_overrides(config, changes), digits))
    sizes = [getattr(event, size) for event in events if getattr(event, "rung", 0)]
    assert min(sizes) == least


def test_ladder_does_not_change_the_search(tiny, digits, timeless):
    with_it, without = (
        timeless(search(start(tiny({**ADDED, "evaluation.ladder": ladder}), digits))) for ladder in (True, False)
    )
    assert [record for record in with_it if record["kind"] != "ladder"] == without
    assert len(with_it) > len(without)


def test_trial_writes_the_ladder_and_tells_nobody(tiny, digits, tmp_path):
    config = tiny({**ADDED, "evaluation.ladder": True, "train.epochs": 3})
    folder = create_run(tmp_path / "demo", {}, "0.1")
    told = [event for event, _ in run_trial(TrialSpec("t00", {}, config), digits, None, folder, None)]
    assert not any(isinstance(event, Snapshot) and event.rung for event in told)
    expected = [event for event in search(start(config, digits)) if isinstance(event, Snapshot)]
    key = {(event.step, event.rung): event.digest for event in expected}
    assert {(row["step"], row["rung"]): row["digest"] for row in read_run(folder).snapshots} == key
    for digest in key.values():
        assert read_genotype(folder, digest).digest == digest
    write_parquet(folder)
    assert {(row["step"], row["rung"]) for row in read_run(folder).snapshots} == set(key)
    assert read_run(folder).problems == ()


def test_ladder_costs_are_those_of_its_networks(tiny, digits):
    state = start(tiny({**ADDED, "evaluation.ladder": True, "train.epochs": 2}), digits)
    for event in search(state):
        if isinstance(event, Snapshot) and event.rung:
            genotype = state.genotype_of(event)
            assert (genotype.digest, genotype.num_operations) == (event.digest, event.num_operations)
            alive = {(item.cell, item.node, item.edge) for item in state.supernet.candidates}
            assert all(
                (cell, node, edge) in alive
                for cell, topology in enumerate(genotype.cells)
                for node, edges in enumerate(topology.nodes)
                for edge in edges
            )
    assert subset(state.supernet.genotype, state.supernet.candidates) == state.supernet.genotype
