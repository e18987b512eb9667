"""Searches that imitate in every kind: schedules, a weight of zero, and that they continue bit for bit."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dnad_ray.config.distill import KINDS
from dnad_ray.errors import ConfigError
from dnad_ray.run_folder.checkpoints import load_newest, save_checkpoint
from dnad_ray.search.loop import SearchState, search

KD = {"distill.kind": "logits+features", "distill.weight": 0.5, "distill.temperature": 3.0}


def start(config, data, teacher=None):
    return SearchState.start(config, data, teacher, run="r", trial="t")


def weights_of(state):
    return [*state.supernet.state_dict().values(), state.relaxation.weights()]


@pytest.fixture(scope="module")
def alone(tiny, digits, timeless):
    state = start(tiny(), digits)
    return timeless(search(state)), state


def test_search_with_a_weight_that_stays_zero_is_search_without_a_teacher(alone, tiny, digits, small_teacher, timeless):
    schedule = {"distill.weight": 0.0, "distill.weight_schedule": "cosine", "distill.weight_end": 0.0}
    state = start(tiny({"distill.kind": "features+factor+decoupled", **schedule}), digits, small_teacher)
    found = timeless(search(state))
    assert [{**record, "kd_kind": "none", "kd_weight": 1.0} for record in found] == alone[0]
    assert all(map(torch.equal, weights_of(state), weights_of(alone[1])))


def test_search_weight_and_temperature_follow_their_schedules(tiny, digits, small_teacher):
    schedules = {"distill.weight_schedule": "linear", "distill.temperature_schedule": "cosine"}
    config = tiny({**KD, **schedules, "train.epochs": 2, "shrink.floor.operations": 1})
    state, strengths = start(config, digits, small_teacher), []
    imitate = state.imitation.forward

    def noted(*arguments):
        strengths.append(state.learner._strength)
        assert arguments[3] == strengths[-1].temperature
        return imitate(*arguments)

    state.imitation.forward = noted
    list(search(state))
    assert [weight for weight, _ in strengths] == pytest.approx([0.5 * (1 - step / 5) for step in range(6)])
    assert strengths[0].temperature == 3
    assert strengths[-1].temperature == 1


def test_search_imitation_that_begins_with_nothing_counts_later(tiny, digits, small_teacher):
    late = {"distill.kind": "logits", "distill.weight": 0.0, "distill.weight_schedule": "linear"}
    runs = []
    for overrides in ({"distill.kind": "none"}, {**late, "distill.weight_end": 5.0}):
        state = start(tiny({**overrides, "train.epochs": 2}), digits, small_teacher)
        runs.append([])
        for _ in range(3):
            state.learner.step(*state.batches.batch(state.step), None, progress=state.step / 2)
            state.step += 1
            runs[-1].append([parameter.clone() for parameter in state.supernet.parameters()])
    same = [all(map(torch.equal, one, other)) for one, other in zip(*runs, strict=True)]
    # The gradient of a loss of weight zero is exactly zero.
    assert same == [True, False, False]


@pytest.mark.parametrize("kind", ["factor+features", "decoupled+similarity"])
def test_search_with_other_kinds_resumes_bit_for_bit(kind, tiny, digits, small_teacher, tmp_path, timeless):
    config = tiny({"distill.kind": kind, "train.epochs": 2, "distill.weight_schedule": "linear"})
    state, events = start(config, digits, small_teacher), []
    for event in search(state):
        events.append(event)
        if len(events) == 1:
            save_checkpoint(tmp_path / "saved", state.state_dict(), state.step)
    # What is fitted to the teacher comes from the checkpoint, too.
    resumed = SearchState.resume(load_newest([tmp_path / "saved"]), config, digits, small_teacher, run="r", trial="t")
    assert timeless(search(resumed)) == timeless(events[1:])
    assert all(map(torch.equal, weights_of(resumed), weights_of(state)))
    assert all(map(torch.equal, resumed.imitation.state_dict().values(), state.imitation.state_dict().values()))


@pytest.mark.parametrize("kind", KINDS)
def test_search_imitates_in_every_kind(kind, tiny, digits, small_teacher):
    def loss_after_an_epoch(weight):
        state = start(tiny({"train.epochs": 2, "distill.kind": kind, "distill.weight": weight}), digits, small_teacher)
        report = next(search(state))
        assert report.kd_loss > 0
        return report.train_loss

    assert loss_after_an_epoch(1e-3) != loss_after_an_epoch(10.0)


def test_search_refuses_a_teacher_that_does_not_fit(tiny, digits, small_teacher):
    four = dataclasses.replace(digits, classes=digits.classes[:4])
    with pytest.raises(ConfigError, match=r"distill\.teacher: got 'a teacher for images of 10 classes'; allowed: 4 cl"):
        start(tiny(KD), four, small_teacher)
