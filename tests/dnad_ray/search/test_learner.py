"""The learning step: without waiting for the device, and looked at as seldom as one likes."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dnad_ray.errors import NonFiniteLossError
from dnad_ray.run_folder.checkpoints import load_newest, save_checkpoint
from dnad_ray.run_folder.records import EpochReport, Snapshot
from dnad_ray.search.loop import SearchState, search
from dnad_ray.search.losses import sparsity
from dnad_ray.training.optimizers import cut_optimizer
from search_spaces.genotype import Edge
from search_spaces.kernels.bank import Sliced

KD = {"distill.kind": "logits+features", "distill.weight": 0.5, "distill.temperature": 3.0}


# Optimizers forget what is gone, and nothing else.


def _stepped(optimizer, parameters, number=3):
    generator = torch.Generator().manual_seed(0)
    for _ in range(number):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("fused", [True, False])
def test_cut_optimizer_slices_what_adam_knows(fused):
    whole, cut, dead = (nn.Parameter(torch.randn(6, 2, 3, 3)) for _ in range(3))
    optimizer = torch.optim.Adam([whole, dead, cut], 0.1, fused=fused)
    _stepped(optimizer, [whole, dead, cut])
    before = {parameter: copy.deepcopy(optimizer.state[parameter]) for parameter in (whole, cut)}
    rows = torch.tensor([0, 3, 5])
    cut.data, cut.grad = cut.data[rows], None
    cut_optimizer(optimizer, iter([whole, cut]), [Sliced(cut, rows)])
    assert [id(parameter) for parameter in optimizer.param_groups[0]["params"]] == [id(whole), id(cut)]
    assert set(map(id, optimizer.state)) == {id(whole), id(cut)}
    for parameter, part in ((whole, slice(None)), (cut, rows)):
        state = optimizer.state[parameter]
        assert state.keys() == before[parameter].keys()
        assert state["step"].item() == 3
        for name in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(state[name], before[parameter][name][part])
            assert state[name].shape == parameter.shape


def test_cut_optimizer_lets_the_rest_go_on_as_if_alone():
    """Adam works entry by entry: rows that stay move as in an optimizer that never knew the others."""
    values = torch.randn(6, 4)
    parameters = nn.Parameter(values.clone()), nn.Parameter(values[[1, 4]])
    steps = [torch.optim.Adam([parameter], 0.1, weight_decay=0.1, fused=True) for parameter in parameters]
    for number in range(6):
        gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(number))
        for parameter, optimizer in zip(parameters, steps, strict=True):
            parameter.grad = (gradient if len(parameter) == 6 else gradient[[1, 4]]).clone()
            optimizer.step()
        if number == 2:
            parameters[0].data = parameters[0].data[[1, 4]]
            cut_optimizer(steps[0], [parameters[0]], [Sliced(parameters[0], torch.tensor([1, 4]))])
    assert torch.equal(*parameters)


def test_cut_optimizer_slices_the_momentum_of_sgd_in_every_group():
    first, second, dead = (nn.Parameter(torch.zeros(4)) for _ in range(3))
    optimizer = torch.optim.SGD([{"params": [first, dead]}, {"params": [second], "lr": 0.3}], 0.1, momentum=0.5)
    for parameter, factor in ((first, 1), (second, 10), (dead, 100)):
        parameter.grad = factor * torch.arange(1.0, 5)
    optimizer.step()
    second.data = second.data[[1, 2]]
    cut_optimizer(optimizer, [first, second], [Sliced(second, torch.tensor([1, 2]))])
    assert [[id(entry) for entry in group["params"]] for group in optimizer.param_groups] == [[id(first)], [id(second)]]
    assert optimizer.state[first]["momentum_buffer"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert optimizer.state[second]["momentum_buffer"].tolist() == [20.0, 30.0]
    assert dead not in optimizer.state


def test_cut_optimizer_before_the_first_step():
    parameter = nn.Parameter(torch.randn(2))
    optimizer = torch.optim.Adam([parameter, nn.Parameter(torch.randn(3))], 0.1)
    cut_optimizer(optimizer, [parameter], [Sliced(parameter, torch.tensor([0, 1]))])
    assert [id(entry) for entry in optimizer.param_groups[0]["params"]] == [id(parameter)]
    assert not optimizer.state


# Steps and looks.


def _learner(config, data, teacher=None):
    return SearchState.start(config, data, teacher, run="r", trial="t")


def test_look_sums_what_single_looks_say(tiny, digits, small_teacher):
    whole, single = (_learner(tiny(KD), digits, small_teacher) for _ in range(2))
    pressure = (0.1, 0.5)
    for learner_number, state in enumerate((whole, single)):
        looks = []
        for step in range(5):
            state.learner.step(*state.batches.batch(step), pressure)
            if learner_number or step == 4:
                looks.append(state.learner.look())
        if learner_number == 0:
            (at_once,) = looks
    assert (at_once.num_steps, at_once.num_images) == (5, 5 * 64)
    assert [look.num_steps for look in looks] == [1] * 5
    assert [look.num_images for look in looks] == [64] * 5
    for name in ("task_loss", "kd_loss", "correct"):
        assert getattr(at_once, name) == pytest.approx(sum(getattr(look, name) for look in looks), rel=1e-6), name
    for name in ("loss", "sparsity", "weights"):
        assert getattr(at_once, name) == getattr(looks[-1], name), name
    assert at_once.correct == int(at_once.correct)
    assert at_once.kd_loss > 0
    # A look resets.
    state.learner.step(*state.batches.batch(5), pressure)
    assert (state.learner.look().num_steps, looks[0].num_images) == (1, 64)


def test_look_says_what_the_step_did(tiny, digits):
    state = _learner(tiny(), digits)
    images, labels = state.batches.batch(0)
    with torch.no_grad():
        weights = state.relaxation.weights()
        logits = copy.deepcopy(state.supernet)(images, weights).logits
        task_loss = F.cross_entropy(logits, labels).item()
        total = sparsity(weights).item()
    state.learner.step(images, labels, (0.25, 0.5))
    look = state.learner.look()
    assert look.task_loss == pytest.approx(task_loss, rel=1e-5)
    assert look.loss == pytest.approx(task_loss * (1 + 0.25 * total) + 0.25 * 0.5 * total, rel=1e-5)
    assert (look.kd_loss, look.correct) == (0.0, float((logits.argmax(1) == labels).sum()))
    # Weights and their sparsity are those after the step; the loss is that of the weights before it.
    after = state.relaxation.weights().detach()
    assert look.weights == after.tolist() != weights.tolist()
    assert look.sparsity == pytest.approx(sparsity(after).item(), rel=1e-6)


def test_imitation_counts_by_its_weight(tiny, digits, small_teacher):
    state = _learner(tiny(KD), digits, small_teacher)  # weight 0.5
    total = sparsity(state.relaxation.weights()).item()
    state.learner.step(*state.batches.batch(0), (0.25, 0.5))
    look = state.learner.look()
    both = look.task_loss + 0.5 * look.kd_loss
    assert look.kd_loss > 0
    assert look.loss == pytest.approx(both * (1 + 0.25 * total) + 0.25 * 0.5 * total, rel=1e-5)


def test_step_while_warming_up_has_no_pressure(tiny, digits):
    state = _learner(tiny(), digits)
    state.learner.step(*state.batches.batch(0), None)
    look = state.learner.look()
    assert look.loss == pytest.approx(look.task_loss)


class _NothingLeaves(TorchDispatchMode):
    """Refuses the operators through which numbers reach the host, whoever calls them, C++ included."""

    REFUSED = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_unique2")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        if name in self.REFUSED or (name == "index" and _has_mask(args)):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def _has_mask(args):
    return any(entry is not None and entry.dtype in (torch.bool, torch.uint8) for entry in args[1])


@pytest.fixture
def nothing_leaves(monkeypatch):
    """A context in which no number may travel from the device to the host."""
    methods = (
        *("item", "tolist", "cpu", "numpy", "nonzero", "is_nonzero", "__bool__", "__float__", "__int__", "__index__"),
        *("__array__", "__contains__", "equal", "unique", "masked_select"),
    )

    def refuse(*_arguments, **_keywords):
        raise AssertionError("a number travels to the host")

    class Context(_NothingLeaves):
        def __enter__(self):
            for name in methods:
                monkeypatch.setattr(torch.Tensor, name, refuse)
            return super().__enter__()

        def __exit__(self, *facts):
            monkeypatch.undo()
            return super().__exit__(*facts)

    return Context


@pytest.mark.parametrize(
    "leak",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: bool(x.sum()),
        lambda x: x.tolist(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: torch.equal(x, x),
        lambda x: torch.where(x > 0),
        lambda x: range(x.long()[0]),
        lambda x: torch.optim.Adam([x], fused=False).step(),
    ],
)
def test_nothing_leaves_notices(leak, nothing_leaves):
    x = torch.ones(3)
    x.grad = torch.ones(3)
    with nothing_leaves(), pytest.raises(AssertionError, match=r"host|waits"):
        leak(x)
    assert x.tolist() == [1.0] * 3


@pytest.mark.parametrize("overrides", [{}, KD, {"train.precision": "bfloat16"}], ids=["alone", "teacher", "bfloat16"])
def test_step_never_waits_for_the_device(overrides, tiny, digits, small_teacher, nothing_leaves):
    state = _learner(tiny(overrides), digits, small_teacher if overrides == KD else None)
    batches = [state.batches.batch(step) for step in range(4)]
    for number, batch in enumerate(batches):
        with nothing_leaves():
            state.learner.step(*batch, None if number == 0 else (0.3, 1.0))
        if number == 1:
            state.learner.look()
            state.learner.delete([1, 5, 9])
    assert state.learner.look().num_steps == 2


def test_delete_keeps_to_what_is_alive(tiny, digits):
    state = _learner(tiny(), digits)
    learner = state.learner
    for step in range(2):
        learner.step(*state.batches.batch(step), None)
    before = state.supernet.candidates
    positions = [
        position
        for position, (cell, node, edge) in enumerate(before)
        if edge == Edge("sep_conv_3x3", 0) or (cell, node, edge) == (0, 1, Edge("skip_connect", 1))
    ]
    bank = state.supernet.network.cells["0"].nodes[1].banks["sep_conv_3x3_stride_1"]
    memory = {id(entry): copy.deepcopy(learner.optimizer.state[entry]) for entry in bank.parameters()}
    momentum = learner.arch_optimizer.state[state.relaxation.parameter]["momentum_buffer"].clone()
    learner.delete(positions)
    assert state.supernet.candidates == tuple(item for place, item in enumerate(before) if place not in positions)
    kept = [place for place in range(len(before)) if place not in positions]
    now = learner.arch_optimizer.state[state.relaxation.parameter]["momentum_buffer"]
    assert torch.equal(now, momentum[kept])
    for parameter in bank.parameters():  # candidates 1 and 2 of three, four channels each
        assert torch.equal(learner.optimizer.state[parameter]["exp_avg"], memory[id(parameter)]["exp_avg"][4:])
    held = {id(parameter) for group in learner.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in state.supernet.parameters()} == set(map(id, learner.optimizer.state))
    learner.step(*state.batches.batch(2), (0.3, 1.0))
    assert len(learner.look().weights) == len(kept)


def test_clipping_knows_what_is_alive(tiny, digits, monkeypatch):
    """The norm of the gradients is that of the alive parameters, all of them, before and after a deletion."""
    state, seen = _learner(tiny(), digits), []
    clip = nn.utils.clip_grad_norm_

    def spy(parameters, *arguments, **keywords):
        parameters = list(parameters)
        seen.append({id(parameter) for parameter in parameters})
        return clip(parameters, *arguments, **keywords)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", spy)
    for step in range(2):
        state.learner.step(*state.batches.batch(step), None)
        assert seen[-1] == {id(parameter) for parameter in state.supernet.parameters()}
        state.learner.delete([0, 3])  # both convolutions of the first node: a bank
    assert seen[1] < seen[0]


# Looking less often.


def _weights_of(state):
    return [*state.supernet.state_dict().values(), *state.relaxation.state_dict().values()]


def test_look_steps_change_nothing_while_nothing_is_deleted(tiny, digits):
    states, reports, of_operations = [], [], []
    for look_steps in (1, 4, 100):
        # 6 steps an epoch; in the first one nothing is deleted.
        overrides = {"train.look_steps": look_steps, "train.batch_size": 32, "train.warmup_epochs": 1}
        state = _learner(tiny(overrides), digits)
        report = next(search(state))
        assert isinstance(report, EpochReport)
        assert state.step == state.steps_per_epoch == 6
        states.append(state)
        reports.append(dataclasses.asdict(report) | {"device_seconds": 0.0, "kd_loss": 0.0})
        of_operations.append(reports[-1].pop("operation_weights"))
    for state, report in zip(states[1:], reports[1:], strict=True):
        assert all(map(torch.equal, _weights_of(state), _weights_of(states[0])))
        assert report == pytest.approx(reports[0], rel=1e-6)
    assert of_operations[0] == of_operations[1] == of_operations[2] != {}


def _observed(state):
    """Run a search; returns its events, the steps after which it deleted, those of looks, and what was observed."""
    deleted, looked, counts = [], [], []
    delete, look, observe = state.learner.delete, state.learner.look, state.controller.observe

    def spy_delete(positions):
        deleted.append(state.step)
        delete(positions)

    def spy_look():
        looked.append(state.step)
        return look()

    def spy_observe(count, waiting):
        assert waiting == 0
        counts.append(count)
        return observe(count, waiting)

    state.learner.delete, state.learner.look, state.controller.observe = spy_delete, spy_look, spy_observe
    return list(search(state)), deleted, looked, counts


@pytest.mark.parametrize("look_steps", [1, 4, 9])
def test_deletions_are_at_looks_and_the_controller_sees_every_step(look_steps, tiny, digits):
    overrides = {"train.look_steps": look_steps, "train.batch_size": 32}
    state = _learner(tiny(overrides), digits)
    events, deleted, looked, counts = _observed(state)
    warmup = per_epoch = 6
    expected = [step for step in range(1, state.step + 1) if step % look_steps == 0 or step % per_epoch == 0]
    assert looked == expected
    assert deleted
    assert set(deleted) <= {step for step in expected if step > warmup}
    assert len(counts) == state.step - warmup
    num_gone = 45 - len(state.supernet.candidates)
    assert sum(counts) == num_gone
    # Each count stands at the step of its deletion, zeros before it.
    assert {warmup + 1 + place for place, count in enumerate(counts) if count} == set(deleted)
    assert all(event.step in expected for event in events)
    assert all(
        report.step % per_epoch == 0 or report is events[-1] for report in events if isinstance(report, EpochReport)
    )


def test_look_steps_default_to_every_step_on_a_cpu(tiny, digits):
    assert _learner(tiny(), digits).look_steps == 1
    assert _learner(tiny({"train.look_steps": 5}), digits).look_steps == 5


def test_stall_between_looks_is_a_snapshot_at_the_look(tiny, digits):
    """At full pressure without a deletion each step is a stall; two of three are not the last of a look."""
    overrides = {
        "train.epochs": 2,
        "train.batch_size": 32,
        "train.look_steps": 3,
        "shrink.gamma_init": 1e-9,
        "shrink.gamma_max": 1e-9,
        "shrink.stall_epochs": 0.33,  # 2 steps of 6
        "shrink.mu_growth": 2,
    }
    found = [event for event in search(_learner(tiny(overrides), digits)) if isinstance(event, Snapshot)]
    # Stalls after steps 8, 10 and 12; the looks are at 9 and 12.
    assert [(snapshot.kind, snapshot.step, snapshot.mu) for snapshot in found] == [
        ("pareto", 9, 2.0),
        ("final", 12, 8.0),
    ]


def test_resume_is_bit_for_bit_between_looks(tiny, digits, tmp_path, small_teacher, timeless):
    config = tiny({**KD, "train.look_steps": 3, "train.batch_size": 40})  # 4 steps an epoch: looks at 3, 4, 6, 8, ...
    state, events = _learner(config, digits, small_teacher), []
    for event in search(state):
        events.append(event)
        if isinstance(event, Snapshot):
            save_checkpoint(tmp_path / f"{len(events):03d}", state.state_dict(), state.step)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) >= 3
    for folder in folders:
        torch.manual_seed(5)
        resumed = SearchState.resume(load_newest([folder]), config, digits, small_teacher, run="r", trial="t")
        assert timeless(search(resumed)) == timeless(events[int(folder.name) :])
        assert all(map(torch.equal, _weights_of(resumed), _weights_of(state)))
        histories = [[{**entry, "device_seconds": None} for entry in either.history] for either in (resumed, state)]
        assert histories[0] == histories[1]


def test_loss_that_is_no_number_is_found_at_the_next_look(tiny, digits):
    state = _learner(tiny({"train.learning_rate": 1e30, "train.look_steps": 2}), digits)
    with pytest.raises(NonFiniteLossError, match=r"the loss became (nan|inf) at step 1 \(epoch 1\)"):
        list(search(state))


# Half precision.


def test_bfloat16_is_near_float32(tiny, digits, small_teacher):
    losses, gradients = [], []
    for precision in ("float32", "bfloat16"):
        state = _learner(tiny({**KD, "train.precision": precision}), digits, small_teacher)
        for step in range(8):
            state.learner.step(*state.batches.batch(step), (0.05, 0.1))
            losses.append(state.learner.look().loss)
            if step == 0:
                gradients.append(torch.cat([entry.grad.flatten() for entry in state.supernet.parameters()]))
        assert {parameter.dtype for parameter in (*state.supernet.parameters(), state.relaxation.parameter)} == {
            torch.float32
        }
        assert {value.dtype for value in state.supernet.buffers() if value.is_floating_point()} == {torch.float32}
    exact, half = losses[:8], losses[8:]
    assert half == pytest.approx(exact, rel=0.05)
    assert half[0] == pytest.approx(exact[0], rel=0.01)
    assert half != exact
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


def test_search_in_bfloat16_goes_to_its_end(tiny, digits):
    state = _learner(tiny({"train.precision": "bfloat16"}), digits)
    found = [event for event in search(state) if isinstance(event, Snapshot)]
    assert found[-1].num_operations <= 8
    assert all(0 <= snapshot.proxy_accuracy <= 1 for snapshot in found)
