"""The search itself: what it deletes and when, what it records, and that it continues bit for bit."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest
import torch

from dnad_ray.costs.trace import complexity_of
from dnad_ray.data.loading import ImageData, Split
from dnad_ray.errors import ConfigError, NonFiniteLossError, SpaceError
from dnad_ray.run_folder.checkpoints import load_newest, save_checkpoint
from dnad_ray.run_folder.records import EpochReport, Snapshot
from dnad_ray.search import loop as search_module
from dnad_ray.search.checks import check_buildable
from dnad_ray.search.estimate import seconds_per_step
from dnad_ray.search.loop import SearchState, search
from search_spaces.genotype import NONE
from search_spaces.kernels.bank import Bank

KD = {"distill.kind": "logits+features", "distill.weight": 0.5, "distill.temperature": 3.0}


def start(config, data, teacher=None):
    return SearchState.start(config, data, teacher, run="r", trial="t")


def snapshots_of(events):
    return [event for event in events if isinstance(event, Snapshot)]


def weights_of(state):
    return [*state.supernet.state_dict().values(), *state.relaxation.state_dict().values()]


@pytest.fixture(scope="module")
def whole(tiny, digits):
    """The usual tiny search, run once: its events and its end."""
    state = start(tiny(), digits)
    return list(search(state)), state


def test_search_goes_from_dense_to_its_floor_with_all_kinds_of_snapshots(whole):
    events, state = whole
    found = snapshots_of(events)
    assert {snapshot.kind for snapshot in found} == {"pruned", "pareto", "final"}
    assert found[-1].num_operations <= 8 < found[-2].num_operations
    operations = [45, *(snapshot.num_operations for snapshot in found)]
    assert operations == sorted(operations, reverse=True)
    assert len(set(operations)) >= 4
    assert state.step < state.num_steps  # the floor ended it, not the last epoch


def test_search_keys_are_unique_and_the_final_snapshot_is_the_last(whole):
    events, state = whole
    found = snapshots_of(events)
    steps = [snapshot.step for snapshot in found]
    assert steps == sorted(set(steps))
    assert [snapshot.kind == "final" for snapshot in found] == [False] * (len(found) - 1) + [True]
    assert found[-1].step == state.step == events[-1].step
    assert list(search(state)) == []  # what has ended does not go on


def test_search_ends_at_the_last_epoch_with_a_final_snapshot_though_nothing_was_deleted(tiny, digits):
    state = start(tiny({"train.epochs": 2, "shrink.gamma_init": 1e-6, "shrink.gamma_max": 1.0}), digits)
    events = list(search(state))
    assert [type(event) for event in events] == [EpochReport, Snapshot, EpochReport]
    assert (events[1].kind, events[1].step, events[1].num_operations) == ("final", 6, 45)


def test_search_records_where_a_snapshot_comes_from(whole, tiny, digits):
    found = snapshots_of(whole[0])
    for snapshot in found:
        assert (snapshot.run, snapshot.trial, snapshot.seed) == ("r", "t", 0)
        assert (snapshot.dataset, snapshot.image_size, snapshot.num_classes) == ("digits", 8, 10)
        assert (snapshot.shrink_rate, snapshot.kd_kind, snapshot.kd_temperature) == (0.3, "none", None)
        assert snapshot.epoch == math.ceil(snapshot.step / 3)
        assert 0 <= snapshot.proxy_accuracy <= 1
        assert (snapshot.proxy_accuracy * 128).is_integer()  # a share of the 128 validation images
    seconds = [snapshot.device_seconds for snapshot in found]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_search_costs_are_those_of_the_derived_network(tiny, digits):
    config = tiny({"evaluation.init_channels": 6, "train.epochs": 3})
    state = start(config, digits)
    for event in search(state):
        if isinstance(event, Snapshot):
            cost = complexity_of(state.supernet.genotype, state.shape(6))
            assert (event.macs, event.macs_conv_linear, event.params) == cost[:3]
            assert event.digest == state.supernet.genotype.digest
            assert event.num_operations == state.supernet.genotype.num_operations
            assert event.init_channels == 6


def test_search_reports_every_epoch_once(whole):
    events, state = whole
    reports = [event for event in events if isinstance(event, EpochReport)]
    assert [report.epoch for report in reports] == list(range(1, math.ceil(state.step / 3) + 1))
    assert [report.to_dict() for report in reports] == state.history
    assert all(report.kd_loss is None for report in reports)


def test_search_same_seed_same_snapshots(whole, tiny, digits, timeless):
    again = start(tiny(), digits)
    torch.manual_seed(1234)  # chance outside of it changes nothing
    assert timeless(search(again)) == timeless(whole[0])
    assert all(map(torch.equal, weights_of(again), weights_of(whole[1])))
    assert timeless(search(start(tiny({"seed": 1}), digits))) != [
        {**record, "seed": 1} for record in timeless(whole[0])
    ]


@pytest.mark.parametrize("imitates", [False, True], ids=["alone", "with a teacher"])
def test_search_resumes_bit_for_bit_from_every_snapshot(imitates, tiny, timeless, tmp_path, request):
    digits = request.getfixturevalue("digits")
    config, teacher = tiny(KD if imitates else {}), request.getfixturevalue("small_teacher") if imitates else None
    state = start(config, digits, teacher)
    events = []
    for event in search(state):
        events.append(event)
        if isinstance(event, Snapshot):
            save_checkpoint(tmp_path / f"{len(events):03d}", state.state_dict(), state.step)
    assert len(list(tmp_path.iterdir())) >= 4
    for folder in sorted(tmp_path.iterdir()):
        random.seed(5)
        torch.manual_seed(5)
        resumed = SearchState.resume(load_newest([folder]), config, digits, teacher, run="r", trial="t")
        rest = list(search(resumed))
        assert timeless(rest) == timeless(events[int(folder.name) :])
        assert all(map(torch.equal, weights_of(resumed), weights_of(state)))
        assert list(map(_timeless_report, resumed.history)) == list(map(_timeless_report, state.history))
        assert resumed.device_seconds > 0


def _timeless_report(entry):
    return {**entry, "device_seconds": None}


def test_search_resumed_state_saves_the_same_state(tiny, digits, small_teacher):
    state = start(tiny(KD), digits, small_teacher)
    next(event for event in search(state) if isinstance(event, Snapshot) and event.num_operations < 45)
    saved = state.state_dict()
    torch.rand(3)
    random.random()  # chance that a process has used before it resumes
    again = SearchState.resume(saved, tiny(KD), digits, small_teacher, run="r", trial="t").state_dict()
    assert _flat(again) == _flat(saved)
    assert len(_flat(saved)) > 100


def _flat(value, prefix=""):
    if isinstance(value, dict):
        return {key: part for name, entry in value.items() for key, part in _flat(entry, f"{prefix}{name}/").items()}
    if isinstance(value, list | tuple) and any(isinstance(entry, dict | torch.Tensor) for entry in value):
        return _flat(dict(enumerate(value)), prefix)
    return {prefix: value.tolist() if isinstance(value, torch.Tensor) else value}


def _assert_optimizers_hold_what_is_alive(state):
    alive = [*state.supernet.parameters(), *state.imitation.parameters()]
    held = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    assert [id(parameter) for parameter in held] == [id(parameter) for parameter in alive]
    assert {id(parameter) for parameter in state.optimizer.state} <= {id(parameter) for parameter in alive}
    (group,) = state.arch_optimizer.param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(state.relaxation.parameter)]
    assert list(map(id, state.arch_optimizer.state)) == [id(state.relaxation.parameter)]
    momentum = state.arch_optimizer.state[state.relaxation.parameter]["momentum_buffer"]
    assert len(momentum) == len(state.relaxation.parameter) == len(state.supernet.candidates)


def test_search_deletes_physically(tiny, digits, small_teacher):
    state = start(tiny(KD), digits, small_teacher)
    sizes = []
    for _ in search(state):
        _assert_optimizers_hold_what_is_alive(state)
        convolutions = 0  # candidates that are one: those of a bank stand in one tensor, C rows each
        for bank in (module for module in state.supernet.modules() if isinstance(module, Bank)):
            assert {len(parameter) for parameter in bank.parameters()} == {len(bank.norms[0].running_mean)}
            convolutions += len(bank.norms[0].running_mean) // bank.channels
        alive = [candidate.edge.operation for candidate in state.supernet.candidates]
        assert convolutions == alive.count("sep_conv_3x3") + _num_strided_skips(state)
        for parameter, entry in state.optimizer.state.items():
            assert entry["exp_avg"].shape == entry["exp_avg_sq"].shape == parameter.shape
        held = sum(entry["exp_avg"].numel() for entry in state.optimizer.state.values())
        assert held == sum(
            parameter.numel() for parameter in (*state.supernet.parameters(), *state.imitation.parameters())
        )
        sizes.append((len(alive), convolutions, held))
    (most, *_), (least, *_) = sizes[0], sizes[-1]
    assert (most, least <= 8) == (45, True)
    assert sizes[-1][1] < sizes[0][1] / 2
    assert sizes[-1][2] < sizes[0][2]


def _num_strided_skips(state):
    """Skip connections that have weights: from the inputs of a reduction cell (cells 1 and 2 of 3)."""
    return sum(
        cell > 0 and edge.operation == "skip_connect" and edge.source < 2 for cell, _, edge in state.supernet.candidates
    )


def test_search_deletes_what_weighs_less_than_the_baseline_and_keeps_the_momentum_of_the_rest(
    tiny, digits, monkeypatch
):
    delete, deleted = search_module._delete, []

    def spy(state, look):
        weights, before = look.weights, state.supernet.candidates
        momentum = state.arch_optimizer.state[state.relaxation.parameter]["momentum_buffer"]
        values = state.relaxation.parameter.tolist()
        count, waiting = delete(state, look)
        after = set(state.supernet.candidates)
        kept = [position for position, candidate in enumerate(before) if candidate in after]
        gone = [position for position, candidate in enumerate(before) if candidate not in after]
        assert (len(gone), waiting) == (count, 0)
        deleted.extend(weights[position] for position in gone)
        # A node is never emptied, so the only other way to go is with a cell that nothing reads any more.
        live = state.supernet.genotype.live_cells()
        assert all(weights[position] < 0.01 or not live[before[position].cell] for position in gone)
        assert state.relaxation.parameter.tolist() == [values[position] for position in kept]
        now = state.arch_optimizer.state[state.relaxation.parameter]["momentum_buffer"]
        assert torch.equal(now, momentum[kept])
        return count, waiting

    monkeypatch.setattr(search_module, "_delete", spy)
    state = start(tiny(), digits)
    list(search(state))
    assert len(deleted) == 45 - len(state.supernet.candidates) > 30
    assert sum(weight < 0.01 for weight in deleted) > 20


def test_search_warm_up_deletes_nothing_and_leaves_the_controller_alone(tiny, digits):
    # Every candidate weighs less than this baseline: whatever may be deleted is.
    state = start(tiny({"train.epochs": 4, "train.warmup_epochs": 2, "shrink.baseline": 0.9}), digits)
    events = search(state)
    for epoch in (1, 2):
        report = next(events)
        assert isinstance(report, EpochReport)
        assert (report.epoch, report.num_operations, report.gamma, report.mu) == (epoch, 45, 0.3, 1.0)
    assert (state.controller.mean_deletions, state.controller.stalls) == (0.0, 0)
    first = next(events)
    # Each of the 6 nodes kept its strongest candidate; a cell that nothing reads may be gone altogether.
    assert first.num_operations <= 6
    assert first.step == 7


@pytest.mark.parametrize("interval", [1, 2])
def test_search_pruned_at_most_once_per_validation_interval(interval, tiny, digits):
    overrides = {"evaluation.interval_epochs": interval, "shrink.gamma_max": 1e6, "shrink.floor.operations": 1}
    events = list(search(start(tiny(overrides), digits)))
    pruned = [snapshot.step for snapshot in snapshots_of(events) if snapshot.kind == "pruned"]
    assert pruned
    assert all(step % (3 * interval) == 0 for step in pruned)


def test_search_without_a_deletion_there_is_no_pruned_snapshot(tiny, digits):
    state = start(tiny({"shrink.gamma_max": 1e6, "shrink.floor.operations": 1}), digits)
    kinds = []
    for event in search(state):
        if isinstance(event, Snapshot):
            kinds.append(event.kind)
            state.arch_optimizer.param_groups[0]["lr"] = 0.0  # from here on all weights stay as they are
    assert kinds == ["pruned", "final"]


def test_search_pareto_snapshots_are_the_controllers(tiny, digits, monkeypatch):
    # The controller never lets this one stall.
    calm = snapshots_of(search(start(tiny({"shrink.gamma_max": 1e9}), digits)))
    assert {snapshot.kind for snapshot in calm} == {"pruned", "final"}
    # And this one stalls after every step after the warm-up, without any deletion.
    overrides = {
        "train.epochs": 2,
        "shrink.gamma_init": 1e-9,
        "shrink.gamma_max": 1e-9,
        "shrink.stall_epochs": 0.1,
        "shrink.mu_growth": 2,
    }
    busy = snapshots_of(search(start(tiny(overrides), digits)))
    assert [(snapshot.kind, snapshot.step, snapshot.mu) for snapshot in busy] == [
        ("pareto", 4, 2.0),
        ("pareto", 5, 4.0),
        ("final", 6, 8.0),
    ]


def test_search_floor_in_macs(whole, tiny, digits):
    limit = sorted({snapshot.macs for snapshot in snapshots_of(whole[0])})[2]
    found = snapshots_of(search(start(tiny({"shrink.floor.operations": None, "shrink.floor.macs": limit}), digits)))
    assert found[-1].macs < limit
    assert all(snapshot.macs >= limit for snapshot in found[:-1])
    assert found[-1].num_operations > 8  # that was not what ended it


def test_search_floor_in_operations(tiny, digits):
    found = snapshots_of(search(start(tiny({"shrink.floor.operations": 30}), digits)))
    assert found[-1].num_operations <= 30
    assert all(snapshot.num_operations > 30 for snapshot in found[:-1])


def test_search_floor_in_the_sparsity_sum(whole, tiny, digits):
    limit = sorted(snapshot.sparsity for snapshot in snapshots_of(whole[0]))[1]
    overrides = {"shrink.floor.operations": None, "shrink.floor.sparsity": limit}
    found = snapshots_of(search(start(tiny(overrides), digits)))
    assert found[-1].sparsity < limit
    assert all(snapshot.sparsity >= limit for snapshot in found[:-1])


def test_search_floor_in_the_sparsity_sum_is_reached_without_a_deletion_too(tiny, digits):
    nodes = {0: 6, 1: 9}  # candidates of the two nodes of a cell, three operations on two and on three states
    dense = 3 * sum(size * math.log(1 + 50 / size) for size in nodes.values())
    overrides = {"shrink.floor.operations": None, "shrink.floor.sparsity": dense - 1e-3}
    state = start(tiny(overrides), digits)
    assert state.sparsity == pytest.approx(dense)
    (final,) = snapshots_of(search(state))
    assert (final.kind, final.num_operations) == ("final", 45)
    assert final.step in (3, 4)  # the warm-up, in which nothing ends, is 3 steps


def test_search_never_sees_test_images(tiny, digits, monkeypatch):
    def refuse(*_):
        raise AssertionError("a search asked for the test images")

    monkeypatch.setattr("dnad_ray.data.loading.load_test", refuse)
    assert {field.name for field in dataclasses.fields(ImageData)} == {
        *("name", "classes", "train", "validation", "mean", "std", "augmentation", "full_level", "record", "notes")
    }
    state = start(tiny({"train.epochs": 2}), digits)
    assert not hasattr(state, "test")
    assert list(search(state))


def test_search_learns_from_training_images_alone(whole, tiny, digits):
    noise = np.random.default_rng(0).integers(0, 256, digits.validation.images.shape, dtype=np.uint8)
    other = dataclasses.replace(digits, validation=Split(images=noise, labels=digits.validation.labels))
    state = start(tiny(), other)
    found, usual = snapshots_of(search(state)), snapshots_of(whole[0])
    assert all(map(torch.equal, weights_of(state), weights_of(whole[1])))
    assert [snapshot.digest for snapshot in found] == [snapshot.digest for snapshot in usual]
    assert [snapshot.proxy_accuracy for snapshot in found] != [snapshot.proxy_accuracy for snapshot in usual]


def test_search_changes_no_image(tiny, digits):
    before = digits.train.images.copy(), digits.validation.images.copy()
    list(search(start(tiny({"train.epochs": 2}), digits)))
    assert np.array_equal(digits.train.images, before[0])
    assert np.array_equal(digits.validation.images, before[1])


def test_search_with_weight_zero_is_search_without_a_teacher(whole, tiny, digits, small_teacher, timeless):
    state = start(tiny({"distill.kind": "logits+features", "distill.weight": 0.0}), digits, small_teacher)
    found = timeless(search(state))
    assert [{**record, "kd_kind": "none", "kd_weight": 1.0} for record in found] == timeless(whole[0])
    assert all(map(torch.equal, weights_of(state), weights_of(whole[1])))


@pytest.mark.parametrize("kind", ["logits", "features"])
def test_search_imitation_has_an_effect(kind, tiny, digits, small_teacher):
    def loss_after_an_epoch(overrides):
        state = start(tiny({"train.epochs": 2, **overrides}), digits, small_teacher)
        report = next(search(state))
        assert report.kd_loss > 0
        return report.train_loss

    weak = loss_after_an_epoch({"distill.kind": kind, "distill.weight": 1e-3})
    assert loss_after_an_epoch({"distill.kind": kind, "distill.weight": 10.0}) != weak
    if kind == "logits":
        options = {"distill.kind": kind, "distill.weight": 1.0}
        assert loss_after_an_epoch({**options, "distill.temperature": 1.0}) != loss_after_an_epoch(
            {**options, "distill.temperature": 8.0}
        )


def test_search_without_the_teacher_it_needs_is_refused(tiny, digits):
    with pytest.raises(ValueError, match="needs a teacher"):
        start(tiny(KD), digits)


def test_search_stops_where_the_learning_rate_makes_the_loss_diverge(tiny, digits):
    state = start(tiny({"train.learning_rate": 1e30}), digits)
    with pytest.raises(NonFiniteLossError, match=r"the loss became (nan|inf) at step 1 \(epoch 1\)"):
        list(search(state))


def test_search_stops_at_images_that_are_no_numbers(tiny, digits):
    state = start(tiny(), dataclasses.replace(digits, mean=(math.inf,)))
    with pytest.raises(NonFiniteLossError, match=r"the loss became nan at step 0 \(epoch 1\)"):
        list(search(state))


def test_search_stops_in_the_step_that_spoils_the_architecture_weights(tiny, digits):
    state = start(tiny(), digits)
    # The loss of this step is finite; a snapshot after it would hold numbers that are none.
    state.relaxation.parameter.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NonFiniteLossError, match="the sparsity sum became nan at step 0"):
        list(search(state))


def test_search_survives_a_step_that_would_cut_off_the_image(tiny, digits):
    state = start(tiny({"space.operations": ["sep_conv_3x3", NONE], "train.warmup_epochs": 0}), digits)
    with torch.no_grad():  # `none` wins in every node
        for position, candidate in enumerate(state.supernet.candidates):
            state.relaxation.parameter[position] = 1e4 if candidate.edge.operation == NONE else 1e-4
    found = snapshots_of(search(state))
    assert found[-1].kind == "final"
    assert found[-1].num_operations > 0


def test_seconds_per_step_measures_even_what_diverges(tiny, digits):
    assert 0 < seconds_per_step(start(tiny({"train.learning_rate": 1e30}), digits)) < 60


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"space.name": "nasnet"}, "space.name"),
        ({"space.operations": ["sep_conv_3x3", "warp"]}, "warp"),
        ({"space.num_cells": 2}, "space.num_cells"),
        ({"space.stem": "imagenet", "data.image_size": 16}, "image size"),
    ],
)
def test_check_buildable_names_what_does_not_exist(overrides, message, tiny):
    with pytest.raises(SpaceError, match=message):
        check_buildable(tiny(overrides))


def test_search_ends_when_every_node_has_one_candidate_left(tiny, digits):
    # A floor that 6 nodes with an operation each can never reach: without an end of its own, gamma would run away.
    state = start(tiny({"shrink.floor.operations": 1, "train.epochs": 30}), digits)
    found = snapshots_of(search(state))
    assert state.step < state.num_steps
    assert found[-1].kind == "final"
    assert len(state.supernet.candidates) == state.relaxation.num_nodes <= 6


@pytest.mark.parametrize("floor", [{"shrink.floor.operations": 45}, {"shrink.floor.sparsity": 250.0}])
def test_check_buildable_refuses_a_floor_above_the_dense_supernet(tiny, floor):
    with pytest.raises(ConfigError, match=r"shrink\.floor\..*less than"):
        check_buildable(tiny(floor))
