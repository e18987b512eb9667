"""Banks: candidates side by side or one by one, cut down, and as the modules that they replace."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import search_spaces.kernels.bank
from search_spaces.kernels.bank import Bank, ChainBank, ReductionBank, is_grouped, is_unfolded, side_by_side
from search_spaces.kernels.projection import weighted_sum
from search_spaces.kernels.states import States
from search_spaces.ops import CHAINS, FactorizedReduce, SeparableConv

C = 3
SOURCES = [0, 2, 1]


def _bank(name, stride, num_candidates=3, channels=C):
    """A bank whose running statistics are no longer the initial ones."""
    torch.manual_seed(0)
    if name == "skip_connect":
        bank = ReductionBank(num_candidates, channels)
    else:
        bank = ChainBank(CHAINS[name], num_candidates, channels, stride)
    for norm in bank.norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return bank.double()


KINDS = [*((name, stride) for name in CHAINS for stride in (1, 2)), ("skip_connect", 2)]


def _tensors(side=6, channels=C):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, channels, side, side + 1, generator=generator, dtype=torch.float64) for _ in range(3)]


def _states(tensors):
    states = States(nn.ModuleDict())
    for tensor in tensors:
        states.append(tensor)
    return states


class _Facts:
    """What a step does: output, gradients, and running statistics."""

    def __init__(self, bank, sources=SOURCES, weights=(0.2, 0.5, 0.9), is_folded=True):
        tensors = [tensor.requires_grad_() for tensor in _tensors(channels=bank.channels)]
        weights = torch.as_tensor(weights, dtype=torch.float64).requires_grad_()
        states = _states(tensors)
        output = (
            weighted_sum(weights, [], bank(states, sources)) if is_folded else bank.summed(states, sources, weights)
        )
        output.backward(_upstream(output))
        self.output = output.detach()
        self.of_inputs = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in tensors]
        self.of_weights = weights.grad
        self.of_parameters = [parameter.grad for parameter in bank.parameters()]
        self.running = [statistic.clone() for norm in bank.norms for statistic in (norm.running_mean, norm.running_var)]

    def all(self):
        return [self.output, *self.of_inputs, self.of_weights, *self.of_parameters, *self.running]


def _upstream(output):
    return torch.linspace(-1, 2, output.numel(), dtype=torch.float64).view_as(output)


def _check(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(("name", "stride"), KINDS)
def test_grouped_is_one_by_one(name, stride, is_training, monkeypatch):
    results, num_groups = [], []
    for limit in (10**9, 0):
        monkeypatch.setattr(search_spaces.kernels.bank, "GROUPED_BELOW", limit)
        bank = _bank(name, stride).train(is_training)
        num_groups.append(len(bank(_states(_tensors()), SOURCES)))
        results.append(_Facts(bank).all())
    assert num_groups == [3 if name == "skip_connect" else 1, 3]
    _check(*results)


@pytest.mark.parametrize("narrow", [0, 10**9], ids=["products", "one product"])
@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(("name", "stride"), KINDS)
def test_unfolded_is_folded(name, stride, is_training, narrow, monkeypatch):
    monkeypatch.setattr(search_spaces.kernels.bank, "NARROW_UP_TO", narrow)
    results = []
    for is_folded in (True, False):
        bank = _bank(name, stride).train(is_training)
        bank.place([0, 1, 2])
        results.append(_Facts(bank, is_folded=is_folded).all())
    _check(*results)


def test_unfolded_takes_the_weights_that_belong_to_its_candidates():
    bank = _bank("sep_conv_3x3", 1)
    bank.place([4, 0, 3])
    weights = torch.tensor([0.5, 7.0, 7.0, 0.9, 0.2], dtype=torch.float64)
    moved = bank.summed(_states(_tensors()), SOURCES, weights)
    bank.place([0, 1, 2])
    expected = bank.summed(_states(_tensors()), SOURCES, torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64))
    _check([moved], [expected])
    assert not [name for name in bank.state_dict() if "order" in name]


@pytest.mark.parametrize(("stride", "limit"), [(1, 3 * 2 * C * 6 * 7), (2, 3 * 2 * C * 6 * 7 // 4)])
def test_unfolded_are_small_groups(stride, limit, monkeypatch):
    monkeypatch.setattr(search_spaces.kernels.bank, "UNFOLDED_UP_TO", limit)
    assert is_unfolded(_states(_tensors(6)), SOURCES, stride)
    assert not is_unfolded(_states(_tensors(7)), SOURCES, stride)
    assert is_unfolded(_states(_tensors(7)), SOURCES[:2], stride)
    assert not is_unfolded(_states([tensor.to("meta") for tensor in _tensors(6)]), SOURCES, stride)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(("name", "stride"), [entry for entry in KINDS if entry[0] in CHAINS])
def test_banks_side_by_side_are_each_alone(name, stride, is_training, monkeypatch):
    monkeypatch.setattr(search_spaces.kernels.bank, "GROUPED_BELOW", 0)
    sources, results = [[0, 2, 1], [1], [2, 0]], []
    for is_together in (True, False):
        banks = [_bank(name, stride, len(own)).train(is_training) for own in sources]
        for seed, bank in enumerate(banks):
            _vary(bank, seed)
        tensors = [tensor.requires_grad_() for tensor in _tensors()]
        states = _states(tensors)
        if is_together:
            projections = side_by_side(banks, states, sources)
            assert [entry.kernel.shape for entry in projections] == [(len(own) * C, C) for own in sources]
        else:
            projections = [entry for bank, own in zip(banks, sources, strict=True) for entry in bank(states, own)]
        output = weighted_sum(torch.linspace(0.1, 0.9, 6, dtype=torch.float64), [], projections)
        output.backward(_upstream(output))
        gradients = [tensor.grad for tensor in (*tensors, *(entry for bank in banks for entry in bank.parameters()))]
        results.append([output.detach(), *gradients, *(entry for bank in banks for entry in bank.buffers())])
    _check(*results)


def _vary(bank, seed):
    """Give a bank parameters and statistics that no other one has."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.uniform_(-1, 1, generator=generator)
        for norm in bank.norms:
            norm.running_mean.normal_(generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)


def test_groups_are_for_small_states(monkeypatch):
    monkeypatch.setattr(search_spaces.kernels.bank, "GROUPED_BELOW", 2 * C * 6 * 7)
    bank = _bank("sep_conv_3x3", 1)
    assert len(bank(_states(_tensors(6)), SOURCES)) == 3
    assert len(bank(_states(_tensors(5)), SOURCES)) == 1
    assert not is_grouped(_states(_tensors(6)), SOURCES)
    assert is_grouped(_states(_tensors(5)), SOURCES)
    assert not is_grouped(_states(_tensors(5)), [2]), "one candidate is no group"
    (alone,) = _bank("sep_conv_3x3", 1, 1)(_states(_tensors(6)), [1])
    assert alone.x.shape == (2, C, 6, 7)


def _modules(bank, name, stride, num_candidates=3):
    """The operations of the derived network's kind with the bank's weights and statistics, one per candidate."""
    modules = []
    for index in range(num_candidates):
        rows = slice(index * C, (index + 1) * C)
        module = (
            FactorizedReduce(C, C, True) if name == "skip_connect" else SeparableConv(C, stride, True, CHAINS[name])
        ).double()
        norms = [module.norm] if name == "skip_connect" else module.norms
        with torch.no_grad():
            if name == "skip_connect":
                kernel = bank.pointwise[0][rows, :, None, None]
                module.even.weight.copy_(kernel[: C // 2])
                module.odd.weight.copy_(kernel[C // 2 :])
            else:
                for layer, (depthwise, pointwise) in enumerate(zip(module.depthwise, module.pointwise, strict=True)):
                    depthwise.weight.copy_(bank.depthwise[layer][rows])
                    pointwise.weight.copy_(bank.pointwise[layer][rows, :, None, None])
        for ours, theirs in zip(bank.norms, norms, strict=True):
            theirs.running_mean.copy_(ours.running_mean[rows])
            theirs.running_var.copy_(ours.running_var[rows])
        modules.append(module.train(bank.training))
    return modules


@pytest.mark.parametrize("limit", [0, 10**9], ids=["one by one", "grouped"])
@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(("name", "stride"), KINDS)
def test_bank_is_the_modules_that_it_replaces(name, stride, is_training, limit, monkeypatch):
    """Odd widths and sides included: half of three channels, half of seven pixels."""
    monkeypatch.setattr(search_spaces.kernels.bank, "GROUPED_BELOW", limit)
    bank = _bank(name, stride).train(is_training)
    modules = _modules(bank, name, stride)
    facts = _Facts(bank)
    tensors = [tensor.requires_grad_() for tensor in _tensors()]
    weights = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    expected = sum(
        weight * module(F.relu(tensors[source]))
        for weight, module, source in zip(weights, modules, SOURCES, strict=True)
    )
    expected.backward(_upstream(expected))
    _check([facts.output, *facts.of_inputs], [expected.detach(), *(tensor.grad for tensor in tensors)])
    _check([facts.of_weights], [weights.grad])
    # The bank's parameters and norms, and for each what the modules have in its place.
    if name == "skip_connect":
        own, norms = list(bank.pointwise), [[module.norm for module in modules]]
        gradients = [torch.cat([torch.cat([module.even.weight.grad, module.odd.weight.grad]) for module in modules])]
    else:
        own, norms = [*bank.pointwise, *bank.depthwise], list(zip(*(module.norms for module in modules), strict=True))
        layers = zip(*([*module.pointwise, *module.depthwise] for module in modules), strict=True)
        gradients = [torch.cat([convolution.weight.grad for convolution in layer]) for layer in layers]
    for parameter, gradient in zip(own, gradients, strict=True):
        _check([parameter.grad], [gradient.view_as(parameter)])
    for norm, of_modules in zip(bank.norms, norms, strict=True):
        _check([norm.running_mean], [torch.cat([entry.running_mean for entry in of_modules])])
        _check([norm.running_var], [torch.cat([entry.running_var for entry in of_modules])])


@pytest.mark.parametrize("limit", [0, 10**9], ids=["one by one", "grouped"])
@pytest.mark.parametrize(("name", "stride"), KINDS)
def test_keep_slices_what_it_has(name, stride, limit, monkeypatch):
    monkeypatch.setattr(search_spaces.kernels.bank, "GROUPED_BELOW", limit)
    bank = _bank(name, stride, 4)
    parameters, before = list(bank.parameters()), copy.deepcopy(bank.state_dict())
    whole = _Facts(bank, [0, 1, 2, 0], torch.tensor([0.2, 0.0, 0.7, 0.4], dtype=torch.float64))
    bank.load_state_dict(before)
    sliced = bank.keep([0, 2, 3])
    rows = [*range(C), *range(2 * C, 4 * C)]
    assert [id(parameter) for parameter, _ in sliced] == [id(parameter) for parameter in parameters]
    assert [id(parameter) for parameter in bank.parameters()] == [id(parameter) for parameter in parameters]
    assert all(entry.rows.tolist() == rows for entry in sliced)
    assert all(parameter.grad is None and parameter.is_leaf and parameter.requires_grad for parameter in parameters)
    assert list(bank.state_dict()) == list(before)
    for key, value in bank.state_dict().items():
        assert torch.equal(value, before[key][rows] if before[key].dim() else before[key]), key
    assert [norm.num_features for norm in bank.norms] == [3 * C] * len(bank.norms)
    # What is left computes what it did beside the other one, whose weight was zero.
    fewer = _Facts(bank, [0, 2, 0], torch.tensor([0.2, 0.7, 0.4], dtype=torch.float64))
    _check([fewer.output, *fewer.of_inputs], [whole.output, *whole.of_inputs])
    _check([fewer.of_weights], [whole.of_weights[[0, 2, 3]]])
    _check([*fewer.of_parameters, *fewer.running], [tensor[rows] for tensor in (*whole.of_parameters, *whole.running)])


def test_keep_takes_several_cuts():
    bank = _bank("sep_conv_3x3", 1, 4)
    before = copy.deepcopy(bank.state_dict())
    bank.keep([1, 2, 3])
    assert [entry.rows.tolist() for entry in bank.keep([0, 2])] == [[0, 1, 2, 6, 7, 8]] * 4
    rows = [3, 4, 5, 9, 10, 11]  # of the second and the last
    for key, value in bank.state_dict().items():
        assert torch.equal(value, before[key][rows] if before[key].dim() else before[key]), key


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_initial_values_are_those_of_convolutions(kernel):
    """Uniform up to 1 / sqrt(inputs of an output), as of candidates that have a convolution each."""
    torch.manual_seed(0)
    bank = ChainBank(CHAINS[f"sep_conv_{kernel}x{kernel}"], 5, 16, 1)
    shapes = [tuple(parameter.shape) for parameter in bank.parameters()]
    assert shapes == [*[(80, 16)] * 2, *[(80, 1, kernel, kernel)] * 2]
    for parameter in (*bank.parameters(), *ReductionBank(5, 16).parameters()):
        assert not torch.equal(parameter[:16], parameter[16:32])
        plain = (
            nn.Conv2d(16, 16, 1, bias=False)
            if parameter.dim() == 2
            else nn.Conv2d(16, 16, kernel, groups=16, bias=False)
        )
        bound = (16 if parameter.dim() == 2 else kernel**2) ** -0.5
        for values in (parameter, plain.weight):
            assert 0.9 * bound < values.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert abs(parameter.mean().item()) < 0.1 * bound
    for norm in bank.norms:
        assert not norm.running_mean.any()
        assert (norm.running_var == 1).all()
        assert (norm.affine, norm.num_features, norm.eps, norm.momentum) == (False, 80, 1e-5, 0.1)


def test_bank_itself_computes_nothing():
    with pytest.raises(NotImplementedError):
        Bank(1, 2, 1)(_states(_tensors()), [0])


def test_skips_of_one_source_share_what_they_project():
    states = _states(_tensors())
    projections = [_bank("skip_connect", 2)(states, SOURCES), _bank("skip_connect", 2, 1)(states, [2])]
    assert projections[0][1].x is projections[1][0].x
    assert len({id(projection.x) for projection in projections[0]}) == 3
