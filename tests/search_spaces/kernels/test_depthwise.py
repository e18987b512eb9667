"""Depthwise convolution: values and both gradients against torch's own, and nothing of what memory held before."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from search_spaces.kernels import depthwise
from search_spaces.kernels.depthwise import Arranged, depthwise_conv

CASES = [
    *((kernel, stride, 1) for kernel in (3, 5, 7) for stride in (1, 2)),
    *((kernel, 1, 2) for kernel in (3, 5, 7)),
]
SIDES = [*((side, side) for side in (1, 2, 3, 4, 5, 7, 8)), (1, 6), (6, 1), (2, 7), (7, 2), (3, 8), (8, 5), (4, 6)]
FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(params=[0, 2**60], ids=["zeros where seen", "zeros at once"])
def _both_ways_to_pad(request, monkeypatch):
    """Whether buffers are zeroed as a whole, and what is left to torch, depends on sizes; here all go both ways."""
    monkeypatch.setattr(depthwise, "_SMALL", request.param)
    monkeypatch.setattr(depthwise, "_NATIVE_BELOW", request.param)


@pytest.fixture
def _dirty_memory():
    """Everything that torch allocates without filling is filled with NaN, inside its own kernels too."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def _tensors(kernel, stride, size, num_images=1, channels=3, memory_format=torch.contiguous_format):
    generator = torch.Generator().manual_seed(0)
    half = tuple(-(-side // stride) for side in size)
    x, weight, upstream = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((num_images, channels, *size), (channels, 1, kernel, kernel), (num_images, channels, *half))
    )
    return x.contiguous(memory_format=memory_format), weight, upstream.contiguous(memory_format=memory_format)


def _plain(x, weight, stride, dilation):
    return F.conv2d(x, weight, None, stride, weight.shape[2] // 2 * dilation, dilation, x.shape[1])


def _results(function, x, weight, upstream, stride, dilation, needs=(True, True)):
    x, weight = (
        tensor.detach().requires_grad_(is_needed) for tensor, is_needed in zip((x, weight), needs, strict=True)
    )
    output = function(x, weight, stride, dilation)
    output.backward(upstream)
    return output.detach(), x.grad, weight.grad


def _close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("_both_ways_to_pad", "_dirty_memory")
@pytest.mark.parametrize(("kernel", "stride", "dilation"), CASES)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_agrees_with_torch(kernel, stride, dilation, memory_format):
    for size in SIDES:
        for num_images in (1, 3):
            tensors = _tensors(kernel, stride, size, num_images, memory_format=memory_format)
            before = [tensor.clone() for tensor in tensors]
            expected = _results(_plain, *tensors, stride, dilation)
            assert expected[0].shape == (num_images, 3, *(-(-side // stride) for side in size))
            ours = _results(depthwise_conv, *tensors, stride, dilation)
            _close(ours, expected)
            assert ours[0].is_contiguous(memory_format=torch.channels_last), "what projections are made of"
            assert all(map(torch.equal, tensors, before)), "inputs are changed"


@pytest.mark.usefixtures("_dirty_memory")
@pytest.mark.parametrize(("kernel", "stride", "dilation"), CASES)
def test_agrees_with_torch_at_size(kernel, stride, dilation):
    """Many channels and images, as the buffers of real networks."""
    tensors = _tensors(kernel, stride, (16, 17), 8, 40, torch.channels_last)
    for ours, theirs in zip(
        _results(depthwise_conv, *tensors, stride, dilation), _results(_plain, *tensors, stride, dilation), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), CASES)
def test_one_channel_agrees_with_torch(kernel, stride, dilation):
    """With one channel, or one pixel, every layout is channels last."""
    for size in ((1, 1), (4, 4), (5, 3)):
        tensors = _tensors(kernel, stride, size, 2, 1)
        _close(_results(depthwise_conv, *tensors, stride, dilation), _results(_plain, *tensors, stride, dilation))


@pytest.mark.parametrize(("kernel", "stride", "dilation"), CASES)
@pytest.mark.parametrize("needs", [(True, False), (False, True)])
def test_gradient_of_only_one_argument(kernel, stride, dilation, needs):
    tensors = _tensors(kernel, stride, (5, 6))
    ours = _results(depthwise_conv, *tensors, stride, dilation, needs)
    assert [gradient is not None for gradient in ours[1:]] == list(needs)
    _close(ours, _results(_plain, *tensors, stride, dilation, needs))


@pytest.mark.parametrize(("kernel", "stride", "dilation"), CASES)
def test_views_agree_with_torch(kernel, stride, dilation):
    """Pixels skipped and channels cut out of a wider tensor, and a gradient that is one number for all."""
    whole = _tensors(kernel, stride, (10, 13), 2, 6, torch.channels_last)[0]
    before = whole.clone()
    x, weight, _ = whole[:, 2:5, ::2, ::2], *_tensors(kernel, stride, (5, 7))[1:]
    upstream = torch.ones((), dtype=torch.float64).expand(_plain(x, weight, stride, dilation).shape)
    ours = _results(depthwise_conv, x, weight, upstream, stride, dilation)
    _close(ours, _results(_plain, x, weight, upstream, stride, dilation))
    assert torch.equal(whole, before)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), CASES)
def test_one_input_read_twice_has_the_sum_of_gradients(kernel, stride, dilation):
    x, weight, upstream = _tensors(kernel, stride, (5, 4))
    other = weight.flip(0)

    def twice(function):
        image = x.clone().requires_grad_()
        first, second = function(image, weight, stride, dilation), function(image, other, stride, dilation)
        (first * upstream + second * first).sum().backward()
        return image.grad

    torch.testing.assert_close(twice(depthwise_conv), twice(_plain), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(5, 1, 1), (5, 2, 1), (3, 1, 2), (5, 1, 2)])
@pytest.mark.parametrize("num_backward", [1, 2])
def test_convolutions_of_one_input_arrange_it_once(kernel, stride, dilation, num_backward, monkeypatch):
    x, weight, upstream = _tensors(kernel, stride, (64, 68), 8, 16, torch.channels_last)
    assert x.numel() >= depthwise._NATIVE_BELOW, "smaller ones are torch's"
    weights = [weight, weight.flip(0), weight.flip(2)]
    expected = [_results(_plain, x, one, upstream, stride, dilation)[2] for one in weights]
    arranged, of_x, classes = Arranged(), [], depthwise._classes
    monkeypatch.setattr(depthwise, "_classes", lambda *args: of_x.append(args[0] is x) or classes(*args))
    parameters = [one.clone().requires_grad_() for one in weights]
    outputs = [depthwise_conv(x, one, stride, dilation, arranged) for one in parameters]
    for _ in range(num_backward):
        for output in outputs[:-1]:
            output.backward(upstream, retain_graph=True)
        assert arranged._kept or num_backward == 2
        outputs[-1].backward(upstream, retain_graph=True)
        assert not arranged._kept, "what nobody reads any more is freed"
    _close([one.grad / num_backward for one in parameters], expected)
    if num_backward == 1:
        assert len(of_x) == 4, "the input, and three gradients"
        assert of_x.count(True) == 1


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (5, 2, 1), (7, 1, 1), (5, 1, 2)])
def test_gradients_against_finite_differences(kernel, stride, dilation):
    x, weight, _ = _tensors(kernel, stride, (4, 3), 2, 2)
    inputs = [x.requires_grad_(), weight.requires_grad_()]
    assert torch.autograd.gradcheck(lambda *both: depthwise_conv(*both, stride, dilation), inputs)


def test_by_hand():
    """The sum of a row of three pixels, a corner, and which tap saw what."""
    x = torch.arange(1.0, 4)[None, None, None].requires_grad_()
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1] = torch.tensor([1.0, 10, 100])
    weight.requires_grad_()
    output = depthwise_conv(x, weight)
    assert output.tolist() == [[[[210.0, 321.0, 32.0]]]]
    output[..., 0].sum().backward()
    assert x.grad.tolist() == [[[[10.0, 100.0, 0.0]]]]
    assert weight.grad.tolist() == [[[[0.0, 0, 0], [0.0, 1, 2], [0.0, 0, 0]]]]


def test_float32_is_as_near_to_float64_as_torch_is():
    for kernel, stride, dilation in CASES:
        exact = _tensors(kernel, stride, (16, 16), 4, 8, torch.channels_last)
        expected = _results(_plain, *exact, stride, dilation)
        rounded = [tensor.float() for tensor in exact]
        ours, theirs = (_results(function, *rounded, stride, dilation) for function in (depthwise_conv, _plain))
        for one, other, truth in zip(ours, theirs, expected, strict=True):
            assert one.dtype == torch.float32
            assert (one - truth).abs().max() < 5 * (other - truth).abs().max() + 1e-6 * truth.abs().max()


def test_other_devices_take_torch_as_it_is_in_our_layout():
    x, weight, _ = (tensor.to("meta").requires_grad_() for tensor in _tensors(5, 2, (7, 8)))
    output = depthwise_conv(x, weight, 2)
    assert output.shape == (1, 3, 4, 4)
    assert output.is_contiguous(memory_format=torch.channels_last)
    before = output.grad_fn.next_functions[0][0]
    assert "ConvolutionBackward0" in (type(output.grad_fn).__name__, type(before).__name__)
