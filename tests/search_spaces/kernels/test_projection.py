"""Projections folded into one product against the chain that they stand for: convolution, norm, ReLU, weight."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from search_spaces.kernels import projection
from search_spaces.kernels.projection import Projection, Statistics, normalised, weighted_sum

EPS = 1e-5
C = 3
SIZE = (2, 4, 5)  # images, height, width


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=[0, 2**60], ids=["products", "sums"])
def _both_ways_to_add(request, monkeypatch):
    """Columns of large matrices are added by a product; here every size goes both ways."""
    monkeypatch.setattr(projection, "_LARGE", request.param)


@pytest.fixture
def _dirty_memory():
    """Everything that torch allocates without filling is filled with NaN."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def _group(num_candidates, width=C, of_batch=True, momentum=0.1, size=SIZE, channels=C):
    """Candidates whose inputs have means, variances and correlations of their own, as ReLUs of states have."""
    num, height, pixels = size
    x = torch.randn(num, num_candidates * width, height, pixels, dtype=torch.float64)
    x = (x + 0.5 * x.roll(1, 1) + torch.randn(x.shape[1], 1, 1, dtype=torch.float64)).clamp_min(-0.5)
    kernel = torch.randn(num_candidates * channels, width, dtype=torch.float64)
    mean = torch.randn(len(kernel), dtype=torch.float64)
    var = torch.rand(len(kernel), dtype=torch.float64) + 0.5
    x = x.contiguous(memory_format=torch.channels_last)
    return Projection(x, kernel, Statistics(mean, var, momentum, EPS, of_batch))


def _plain_chain(group):
    """``norm(pointwise(x))`` of each candidate on its own (N, C, H, W); updates the running statistics."""
    width = group.kernel.shape[1]
    xs = group.x.split(width, 1)
    num_channels = len(group.kernel) // len(xs)
    kernels, statistics = group.kernel.split(num_channels), group.statistics
    means, variances = statistics.mean.split(num_channels), statistics.var.split(num_channels)
    return [
        F.batch_norm(
            F.conv2d(x, kernel[:, :, None, None]),
            mean,
            var,
            None,
            None,
            statistics.of_batch,
            statistics.momentum,
            statistics.eps,
        )
        for x, kernel, mean, var in zip(xs, kernels, means, variances, strict=True)
    ]


def _plain_sum(weights, terms, groups):
    entries = [*terms, *(entry for group in groups for entry in _plain_chain(group))]
    return sum(weight * entry for weight, entry in zip(weights, entries, strict=True))


def _plain_normalised(group):
    return torch.cat(_plain_chain(group), 1).relu()


def _differentiable(tensor):
    """A leaf of the same values and layout."""
    return tensor.detach().clone().requires_grad_()


def _facts_of_sum(function, weights, terms, groups, upstream=None):
    """Output, gradients of all arguments, and running statistics; the arguments themselves stay as they are."""
    weights, terms = _differentiable(weights), [_differentiable(term) for term in terms]
    groups = [
        Projection(_differentiable(x), _differentiable(kernel), copy.deepcopy(rest)) for x, kernel, rest in groups
    ]
    output = function(weights, terms, groups)
    output.backward(torch.linspace(-1, 2, output.numel()).view_as(output).to(output) if upstream is None else upstream)
    arguments = [weights, *terms, *(group.x for group in groups), *(group.kernel for group in groups)]
    running = [tensor for group in groups for tensor in group.statistics[:2]]
    return [output.detach(), *(argument.grad for argument in arguments), *running]


def _facts_of_normalised(function, group):
    output, _, *others = _facts_of_sum(
        lambda _weights, _terms, groups: function(groups[0]), torch.zeros(0), [], [group]
    )
    return [output, *others]


def _check(ours, theirs, tolerance=1e-10):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def _terms(num_terms, size=SIZE, channels=C):
    num, height, width = size
    return [torch.randn(num, channels, height, width, dtype=torch.float64) for _ in range(num_terms)]


def _weights(num_weights):
    return torch.rand(num_weights, dtype=torch.float64)


# Terms, and for each group its candidates and input channels.
ARRANGEMENTS = {
    "only terms": (3, []),
    "one candidate": (0, [(1, C)]),
    "one group": (0, [(3, C)]),
    "groups of several sizes": (0, [(1, C), (4, C), (2, C)]),
    "two families": (2, [(2, C), (1, C), (1, 2 * C), (3, 2 * C)]),
    "wide alone": (1, [(1, 2 * C), (1, 2 * C)]),
    "families in turn": (1, [(2, C), (1, 2 * C), (1, C)]),
    "narrow inputs": (0, [(2, 1), (1, 2)]),
}


@pytest.mark.usefixtures("_both_ways_to_add", "_dirty_memory")
@pytest.mark.parametrize("of_batch", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
def test_weighted_sum_agrees_with_plain(arrangement, of_batch):
    num_terms, sizes = arrangement
    groups = [_group(*size, of_batch, momentum=0.3) for size in sizes]
    terms = _terms(num_terms)
    weights = _weights(num_terms + sum(size for size, _ in sizes))
    before = copy.deepcopy((weights, terms, groups))
    ours = _facts_of_sum(weighted_sum, weights, terms, groups)
    _check(ours, _facts_of_sum(_plain_sum, weights, terms, groups))
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    _check([weights, *terms, *(group.x for group in groups)], [before[0], *before[1], *(x for x, *_ in before[2])], 0)


@pytest.mark.parametrize("size", [(5, 1, 1), (2, 1, 3), (1, 2, 1), (7, 3, 3)])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_weighted_sum_of_any_size_agrees_with_plain(size, channels):
    groups = [_group(2, channels, size=size, channels=channels), _group(1, 2 * channels, size=size, channels=channels)]
    arguments = _weights(4), _terms(1, size, channels), groups
    # Of two or three pixels some channels hardly vary: their rate is large, and so are the gradients.
    _check(_facts_of_sum(weighted_sum, *arguments), _facts_of_sum(_plain_sum, *arguments), 1e-8)


@pytest.mark.parametrize("size", [(5, 1, 1), (2, 1, 3), (7, 3, 3)])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_normalised_of_any_size_agrees_with_plain(size, channels):
    group = _group(2, channels, size=size, channels=channels)
    _check(_facts_of_normalised(normalised, group), _facts_of_normalised(_plain_normalised, group), 1e-8)


@pytest.mark.usefixtures("_both_ways_to_add", "_dirty_memory")
@pytest.mark.parametrize("of_batch", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("num_candidates", [1, 3])
def test_normalised_agrees_with_plain(num_candidates, of_batch):
    group = _group(num_candidates, of_batch=of_batch, momentum=0.3)
    before = copy.deepcopy(group)
    ours = _facts_of_normalised(normalised, group)
    _check(ours, _facts_of_normalised(_plain_normalised, group))
    assert (ours[0] == 0).any()
    assert (ours[0] > 0).any()
    _check([group.x, group.kernel, *group.statistics[:2]], [before.x, before.kernel, *before.statistics[:2]], 0)


@pytest.mark.parametrize("of_batch", [True, False])
def test_normalised_with_norms_of_several_banks(of_batch):
    group = _group(4, of_batch=of_batch)
    running = group.statistics
    parts = [
        Statistics(running.mean[rows].clone(), running.var[rows].clone(), *running[2:])
        for rows in (slice(0, C), slice(C, 3 * C), slice(3 * C, 4 * C))
    ]
    output = normalised(group._replace(statistics=parts[0]), *parts[1:])
    _check([output], [_plain_normalised(group)])
    _check([torch.cat([part.mean for part in parts]), torch.cat([part.var for part in parts])], running[:2])


def test_running_statistics_by_hand():
    """Pixels 1, 2, 3, 6 (mean 3, unbiased variance 14 / 3), doubled by the kernel."""
    x = torch.tensor([1.0, 2, 3, 6], dtype=torch.float64).view(1, 1, 2, 2)
    mean, var = torch.tensor([10.0], dtype=torch.float64), torch.tensor([5.0], dtype=torch.float64)
    kernel = torch.tensor([[2.0]], dtype=torch.float64)
    output = weighted_sum(
        torch.tensor([0.5], dtype=torch.float64), [], [Projection(x, kernel, Statistics(mean, var, 0.25, 0.5, True))]
    )
    assert mean.item() == pytest.approx(0.75 * 10 + 0.25 * 6)
    assert var.item() == pytest.approx(0.75 * 5 + 0.25 * 4 * 14 / 3)
    # The norm divides by the biased variance 4 * 3.5 and eps.
    expected = (2 * torch.tensor([1.0, 2, 3, 6], dtype=torch.float64) - 6) / (14.5**0.5) / 2
    torch.testing.assert_close(output.flatten(), expected)


def test_running_statistics_are_updated_in_place_where_they_stand():
    group = _group(2)
    mean, var = torch.zeros(10, dtype=torch.float64), torch.ones(10, dtype=torch.float64)
    views = Statistics(mean[2:8], var[2:8], 1.0, EPS, True)
    weighted_sum(_weights(2), [], [group._replace(statistics=views)])
    outputs = [
        F.conv2d(x, kernel[:, :, None, None])
        for x, kernel in zip(group.x.split(C, 1), group.kernel.split(C), strict=True)
    ]
    expected = torch.cat([output.mean((0, 2, 3)) for output in outputs])
    torch.testing.assert_close(mean, F.pad(expected, (2, 2)), rtol=1e-12, atol=1e-12)
    expected = torch.cat([output.var((0, 2, 3)) for output in outputs])
    torch.testing.assert_close(var, F.pad(expected, (2, 2), value=1), rtol=1e-12, atol=1e-12)


def test_evaluation_uses_and_leaves_the_running_statistics():
    group = _group(2, of_batch=False)
    before = copy.deepcopy(group.statistics)
    weighted_sum(_weights(2), [], [group])
    normalised(group)
    _check(group.statistics[:2], before[:2], 0)


@pytest.mark.parametrize("of_batch", [True, False])
def test_constant_channels_agree_with_plain(of_batch):
    """Inputs and outputs without variance, as those of dead channels and of zero nodes: eps is all there is."""
    group = _group(3, of_batch=of_batch)
    group.x[:, 1] = 0.7  # one input channel of the first candidate
    group.x[:, C : 2 * C] = torch.tensor([0.1, -3.0, 0.7], dtype=torch.float64)[:, None, None]  # all of the second
    group.x[:, 2 * C :] = 0  # all of the third
    group.kernel[0] = 0  # an output channel of the first
    weights, terms = _weights(3), []
    # Where variance is nothing but rounding, gradients of 1 / sqrt(eps) = 316 multiply the rounding.
    _check(
        _facts_of_sum(weighted_sum, weights, terms, [group]), _facts_of_sum(_plain_sum, weights, terms, [group]), 1e-9
    )
    ours, theirs = _facts_of_normalised(normalised, group), _facts_of_normalised(_plain_normalised, group)
    _check(ours[:1], theirs[:1], 1e-9)
    assert all(fact.isfinite().all() for fact in ours)
    if of_batch:
        assert not ours[0][:, 2 * C :].any()
    # Whether rounding lies above or below zero decides what a ReLU lets through: the second candidate is left out.
    _check([ours[1][:, :C], ours[1][:, 2 * C :]], [theirs[1][:, :C], theirs[1][:, 2 * C :]], 1e-9)
    _check([ours[2][:C], ours[2][2 * C :]], [theirs[2][:C], theirs[2][2 * C :]], 1e-9)
    _check(ours[3:], theirs[3:], 1e-9)


def test_rounding_that_makes_a_variance_negative_does_no_harm():
    """In float32 ``mean of squares - square of mean`` of a constant is not zero but noise of either sign."""
    for value in torch.linspace(0.1, 30, 50).tolist():
        x = torch.full((4, C, 7, 7), value).contiguous(memory_format=torch.channels_last)
        running = torch.zeros(C), torch.ones(C)
        group = Projection(x, torch.randn(C, C), Statistics(*running, 0.1, EPS, True))
        assert weighted_sum(torch.ones(1), [], [group]).isfinite().all()
        assert normalised(group).isfinite().all()
        assert (running[1] >= 0).all()


@pytest.mark.parametrize("of_batch", [True, False])
def test_weight_of_exactly_zero_has_a_gradient_of_its_own(of_batch):
    groups, terms = [_group(2, of_batch=of_batch), _group(1, 2 * C, of_batch)], _terms(2)
    weights = _weights(5)
    weights[torch.tensor([1, 2, 4])] = 0
    ours = _facts_of_sum(weighted_sum, weights, terms, groups)
    _check(ours, _facts_of_sum(_plain_sum, weights, terms, groups))
    (_, of_weights, _, of_term, of_x, *_) = ours
    assert (of_weights != 0).all()
    assert not of_term.any()
    assert not of_x[:, :C].any()
    assert of_x[:, C:].any()


def test_gradient_arrives_in_any_layout():
    """A gradient that is one number for all pixels, or lies as images do."""
    groups, terms, weights = [_group(2)], _terms(1), _weights(3)
    like = terms[0]
    for upstream in (torch.ones((), dtype=torch.float64).expand(like.shape), torch.randn_like(like).contiguous()):
        before = upstream.clone()
        ours = _facts_of_sum(weighted_sum, weights, terms, groups, upstream)
        _check(ours, _facts_of_sum(_plain_sum, weights, terms, groups, upstream))
        assert torch.equal(upstream, before)


def test_one_input_in_two_groups_has_the_sum_of_gradients():
    first, second = _group(2), _group(2)
    weights, results = _weights(4), []
    for function in (weighted_sum, _plain_sum):
        x = _differentiable(first.x)
        kernels = [_differentiable(group.kernel) for group in (first, second)]
        groups = [Projection(x, kernel, copy.deepcopy(first.statistics)) for kernel in kernels]
        function(weights, [], groups).square().sum().backward()
        results.append([x.grad, *(kernel.grad for kernel in kernels)])
    _check(*results)


@pytest.mark.parametrize("of_batch", [True, False])
def test_gradients_against_finite_differences(of_batch):
    """Momentum 0, so that no evaluation changes the next one."""
    size = (2, 2, 3)
    groups = [_group(2, 2, of_batch, 0.0, size, 2), _group(1, 4, of_batch, 0.0, size, 2)]
    weights, terms = _weights(4).requires_grad_(), [term.requires_grad_() for term in _terms(1, size, 2)]
    leaves = [tensor for group in groups for tensor in group[:2]]
    for leaf in leaves:
        leaf.requires_grad_()

    def function(weights, term, *leaves):
        rebuilt = [
            Projection(x, kernel, group.statistics)
            for x, kernel, group in zip(leaves[::2], leaves[1::2], groups, strict=True)
        ]
        return weighted_sum(weights, [term], rebuilt) + normalised(rebuilt[0])[:, :2]

    assert torch.autograd.gradcheck(function, (weights, *terms, *leaves))


def test_float32_is_close_to_float64():
    groups, terms = [_group(3, 16, size=(8, 8, 8), channels=16), _group(1, 32, size=(8, 8, 8), channels=16)], []
    weights = _weights(4)
    exact = _facts_of_sum(weighted_sum, weights, terms, groups)
    rounded = [
        Projection(x.float(), kernel.float(), Statistics(rest.mean.float(), rest.var.float(), *rest[2:]))
        for x, kernel, rest in groups
    ]
    ours = _facts_of_sum(weighted_sum, weights.float(), terms, rounded)
    theirs = _facts_of_sum(_plain_sum, weights.float(), terms, rounded)
    for one, other, truth in zip(ours, theirs, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - truth).abs().max() < 1e-5 * truth.abs().max()
        assert (one - truth).abs().max() < 10 * (other - truth).abs().max() + 1e-7 * truth.abs().max()
