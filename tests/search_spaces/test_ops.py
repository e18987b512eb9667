"""Candidate operations against plain functions of torch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search_spaces.errors import SpaceError
from search_spaces.genotype import NONE
from search_spaces.ops import (
    CHAINS,
    OPERATIONS,
    BatchNorm,
    DepthwiseChain,
    FactorizedReduce,
    PointwiseNorm,
    check_operations,
)

NAMES = [name for name in OPERATIONS if name != NONE]
FORMATS = [torch.contiguous_format, torch.channels_last]
SHRINK = 1 / math.sqrt(1 + 1e-5)  # what a fresh batch norm does in evaluation: running mean 0, variance 1


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _build(name, stride, searching, channels=4):
    return OPERATIONS[name](channels, stride, searching).double()


def _normalised(x):
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt()


def test_table_has_the_operations_of_the_papers():
    assert set(OPERATIONS) == {
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
        "dil_conv_3x3",
        "dil_conv_5x5",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "conv_7x1_1x7",
        "nor_conv_1x1",  # these two are of NAS-Bench-201
        "nor_conv_3x3",
        "group_conv_3x3",  # these three are of the space `device`
        "dw_conv_3x3",
        "dw_conv_5x5",
        "noise",  # of RobustDARTS
        "none",
    }
    assert OPERATIONS[NONE] is None


def test_check_operations_names_the_unknown_one():
    check_operations(["skip_connect", "none"], "here")
    with pytest.raises(SpaceError, match=r"here: got 'conv_9x9'; allowed: sep_conv_3x3, .*none"):
        check_operations(["skip_connect", "conv_9x9"], "here")


@pytest.mark.parametrize("searching", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_output_size_is_rounded_up(name, stride, searching):
    operation = _build(name, stride, searching)
    for height, width in ((4, 4), (5, 5), (7, 7), (8, 8), (4, 7), (5, 8), (1, 1), (2, 1)):
        x = torch.randn(2, 4, height, width, dtype=torch.float64)
        before = x.clone()
        assert operation(x).shape == (2, 4, math.ceil(height / stride), math.ceil(width / stride))
        assert torch.equal(x, before)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_batch_norm_is_affine_only_in_derived_networks(name, stride):
    searched = [module for module in _build(name, stride, True).modules() if isinstance(module, BatchNorm)]
    derived = [module for module in _build(name, stride, False).modules() if isinstance(module, BatchNorm)]
    assert all(norm.weight is None and norm.bias is None for norm in searched)
    assert all(norm.weight is not None and norm.bias is not None for norm in derived)
    is_pool, is_bare = "pool" in name, name == "noise" or (name == "skip_connect" and stride == 1)
    assert bool(searched) == (not is_bare)
    assert bool(derived) == (not is_bare and not is_pool)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_only_operations_without_parameters_are_shared(name, stride):
    operation = _build(name, stride, True)
    has_parameters = bool(list(operation.parameters()))
    # Two candidates of noise on one state are not the same thing, either.
    assert operation.is_shared == (not has_parameters and name != "noise")
    assert operation.reads_relu == has_parameters


def test_chains_are_the_depthwise_operations_of_the_table():
    assert set(CHAINS) == {name for name in OPERATIONS if name.startswith(("sep_", "dil_", "dw_"))}
    for name, chain in CHAINS.items():
        side, is_dilated, is_double = int(name[-1]), name.startswith("dil_"), name.startswith("sep_")
        assert chain == DepthwiseChain(kernel=side, dilation=1 + is_dilated, repeats=1 + is_double)


@pytest.mark.parametrize(
    ("dilation", "stride", "expected"), [(1, 1, (1, 1, 1)), (1, 2, (1, 2, 1)), (2, 1, (1, 1, 2)), (2, 2, (2, 1, 1))]
)
def test_first_step_skips_pixels_where_all_taps_do(dilation, stride, expected):
    assert DepthwiseChain(kernel=5, dilation=dilation, repeats=1).first_step(stride) == expected


def _weights_of(operation):
    return ([conv.weight for conv in convolutions] for convolutions in (operation.depthwise, operation.pointwise))


@pytest.mark.parametrize("size", [4, 5, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_separable_conv_is_two_depthwise_and_pointwise_convolutions(kernel, stride, size):
    operation = _build(f"sep_conv_{kernel}x{kernel}", stride, True)
    x = torch.randn(2, 4, size, size, dtype=torch.float64)
    (depthwise1, depthwise2), (pointwise1, pointwise2) = _weights_of(operation)
    expected = F.conv2d(x, depthwise1, stride=stride, padding=kernel // 2, groups=4)
    expected = F.relu(_normalised(F.conv2d(expected, pointwise1)))
    expected = _normalised(F.conv2d(F.conv2d(expected, depthwise2, padding=kernel // 2, groups=4), pointwise2))
    torch.testing.assert_close(operation(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [4, 5, 7, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_dilated_conv_is_a_dilated_convolution_with_the_same_weights(kernel, stride, size):
    operation = _build(f"dil_conv_{kernel}x{kernel}", stride, True)
    x = torch.randn(2, 4, size, size, dtype=torch.float64)
    (depthwise,), (pointwise,) = _weights_of(operation)
    pad = kernel // 2 * 2
    expected = F.conv2d(x, depthwise, stride=stride, padding=pad, dilation=2, groups=4)
    torch.testing.assert_close(operation(x), _normalised(F.conv2d(expected, pointwise)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("stride", [1, 2])
def test_factorized_conv_is_a_row_then_a_column(stride):
    operation = _build("conv_7x1_1x7", stride, True)
    x = torch.randn(2, 4, 8, 5, dtype=torch.float64)
    row, column = (parameter for _, parameter in operation.named_parameters())
    assert (row.shape, column.shape) == ((4, 4, 1, 7), (4, 4, 7, 1))
    expected = F.conv2d(F.pad(x, (3, 3, 0, 0)), row)[:, :, :, ::stride]
    expected = F.conv2d(F.pad(expected, (0, 0, 3, 3)), column)[:, :, ::stride]
    torch.testing.assert_close(operation(x), _normalised(expected), rtol=0, atol=1e-10)


@pytest.fixture(params=[True, False], ids=["searching", "derived"])
def reduce(request):
    """Even pixels as they are, odd ones times ten."""
    reduce = FactorizedReduce(1, 2, searching=request.param).double().eval()
    torch.nn.init.constant_(reduce.even.weight, 1.0)
    torch.nn.init.constant_(reduce.odd.weight, 10.0)
    return reduce


def test_factorized_reduce_even_side(reduce):
    x = torch.arange(16.0, dtype=torch.float64).reshape(1, 1, 4, 4)
    expected = torch.tensor([[[[0.0, 2], [8, 10]], [[50, 70], [130, 150]]]], dtype=torch.float64)
    torch.testing.assert_close(reduce(x), expected * SHRINK)


def test_factorized_reduce_odd_side(reduce):
    x = torch.arange(9.0, dtype=torch.float64).reshape(1, 1, 3, 3)
    expected = torch.tensor([[[[0.0, 2], [6, 8]], [[40, 0], [0, 0]]]], dtype=torch.float64)
    torch.testing.assert_close(reduce(x), expected * SHRINK)


def test_factorized_reduce_only_one_odd_side(reduce):
    x = torch.arange(6.0, dtype=torch.float64).reshape(1, 1, 2, 3)
    torch.testing.assert_close(reduce(x), torch.tensor([[[[0.0, 2]], [[40, 0]]]], dtype=torch.float64) * SHRINK)


@pytest.mark.parametrize("searching", [True, False])
def test_factorized_reduce_odd_width(searching):
    assert FactorizedReduce(3, 5, searching=searching)(torch.randn(2, 3, 6, 6)).shape == (2, 5, 3, 3)


def test_avg_pool_leaves_the_padding_out():
    x = torch.arange(9.0, dtype=torch.float64).reshape(1, 1, 3, 3)
    # The mean of the up to nine pixels around each; at the corner of four, at the edge of six.
    expected = torch.tensor([[2.0, 2.5, 3], [3.5, 4, 4.5], [5, 5.5, 6]], dtype=torch.float64).reshape(1, 1, 3, 3)
    torch.testing.assert_close(_build("avg_pool_3x3", 1, False, 1)(x), expected)
    torch.testing.assert_close(_build("avg_pool_3x3", 2, False, 1)(x), expected[:, :, ::2, ::2])


def test_max_pool_of_negative_pixels_ignores_the_padding():
    x = -torch.arange(1.0, 10, dtype=torch.float64).reshape(1, 1, 3, 3)
    expected = -torch.tensor([[1.0, 1, 2], [1, 1, 2], [4, 4, 5]], dtype=torch.float64).reshape(1, 1, 3, 3)
    torch.testing.assert_close(_build("max_pool_3x3", 1, False, 1)(x), expected)
    torch.testing.assert_close(_build("max_pool_3x3", 2, False, 1)(x), expected[:, :, ::2, ::2])


def test_pool_is_normalised_while_searching():
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    pooled = F.max_pool2d(x, 3, 1, 1)
    torch.testing.assert_close(_build("max_pool_3x3", 1, True)(x), _normalised(pooled), rtol=0, atol=1e-10)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("searching", [True, False])
def test_pointwise_norm_leaves_the_rectifying_to_others(searching, memory_format):
    module = PointwiseNorm(3, 2, searching).double()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=memory_format)
    before, results = x.clone(), []
    for function in (module, lambda image: _normalised(F.conv2d(image, module.conv.weight))):
        image = x.clone().requires_grad_()
        module.zero_grad()
        output = function(image)
        output.backward(torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output))
        results.append([output, image.grad, module.conv.weight.grad])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    assert torch.equal(x, before)
    assert module.norm.affine == (not searching)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_batch_norm_is_the_one_of_torch(memory_format, affine, is_training):
    ours, theirs = (kind(6, affine=affine).double() for kind in (BatchNorm, nn.BatchNorm2d))
    with torch.no_grad():
        ours.running_mean.normal_()
        ours.running_var.uniform_(0.5, 2)
        for parameter in ours.parameters():
            parameter.normal_()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 6, 5, 5, dtype=torch.float64).contiguous(memory_format=memory_format)
    upstream = torch.randn(4, 6, 5, 5, dtype=torch.float64).contiguous(memory_format=memory_format)
    results = []
    for norm in (ours.train(is_training), theirs.train(is_training)):
        norm.momentum = 0.3
        image = x.clone().requires_grad_()
        output = norm(image)
        (output * upstream).sum().backward()
        gradients = [parameter.grad for parameter in norm.parameters()]
        results.append((output, image.grad, *gradients, norm.running_mean, norm.running_var))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_factorized_reduce_of_few_channels_has_a_gradient_and_evaluates_to_the_same():
    # As two convolutions of stride 2 it ended the process: see FactorizedReduce.forward.
    torch.manual_seed(0)
    operation = FactorizedReduce(8, 8, searching=False).to(memory_format=torch.channels_last)
    images = torch.randn(16, 8, 56, 56).contiguous(memory_format=torch.channels_last)
    for _ in range(8):
        leaf = images.clone().requires_grad_()
        result = operation(leaf)
        result.sum().backward()
    operation.norm.momentum = 1.0
    trained = operation.train()(images)
    # The running variance is the unbiased one.
    operation.norm.running_var *= 1 - 1 / (16 * 28 * 28)
    torch.testing.assert_close(operation.eval()(images), trained, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_noise_is_drawn_while_training_and_its_mean_in_evaluation(stride):
    operation = OPERATIONS["noise"](4, stride, True)
    x = torch.full((64, 4, 9, 8), 3.0, requires_grad=True)
    torch.manual_seed(0)
    first = operation(x)
    assert first.shape == (64, 4, -(-9 // stride), 8 // stride)
    assert abs(float(first.mean())) < 0.05
    assert float(first.std()) == pytest.approx(1, abs=0.05)
    assert not torch.equal(first, operation(x))
    torch.manual_seed(0)
    assert torch.equal(first, operation(x))  # a resumed search draws it again
    assert not operation.eval()(x).any()
