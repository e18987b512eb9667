"""Every second pixel: values worked out by hand, gradients as torch's own, in the layout channels last."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from search_spaces.kernels.pixels import even_pixels, halves

SIDES = [(4, 4), (3, 3), (2, 3), (3, 2), (1, 1), (1, 4), (5, 8)]


@pytest.mark.parametrize(
    ("size", "even", "odd"),
    [
        ((4, 4), [[0, 2], [8, 10]], [[5, 7], [13, 15]]),
        ((3, 3), [[0, 2], [6, 8]], [[4, 0], [0, 0]]),
        ((2, 3), [[0, 2]], [[4, 0]]),
        ((3, 2), [[0], [4]], [[3], [0]]),
        ((1, 1), [[0]], [[0]]),
        ((1, 4), [[0, 2]], [[0, 0]]),
    ],
)
def test_halves_of_even_and_odd_sides(size, even, odd):
    """The second of two channels is a thousand higher; what lies outside the image is zero in both."""
    x = torch.arange(float(size[0] * size[1])).view(1, 1, *size)
    found = halves(torch.cat([x, x + 1000], 1))
    assert found.is_contiguous(memory_format=torch.channels_last)
    even, odd = torch.tensor(even), torch.tensor(odd)
    expected = [even, even + 1000, odd, torch.where(odd > 0, odd + 1000, 0)]  # no odd pixel is number 0
    assert found[0].tolist() == torch.stack(expected).tolist()


def _plain_even(x):
    return x[:, :, ::2, ::2]


def _plain_halves(x):
    odd = F.pad(x[:, :, 1::2, 1::2], (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    return torch.cat([x[:, :, ::2, ::2], odd], 1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize(("ours", "plain"), [(even_pixels, _plain_even), (halves, _plain_halves)])
def test_pixels_and_their_gradients_are_those_of_slices(ours, plain, size, memory_format):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64).contiguous(memory_format=memory_format)
    before, results = x.clone(), []
    for function in (ours, plain):
        leaf = x.clone().requires_grad_()
        output = function(leaf)
        output.backward(torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output))
        results.append((output.detach(), leaf.grad))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(x, before)


@pytest.mark.parametrize("function", [even_pixels, halves])
def test_gradient_that_arrives_at_an_image_is_channels_last(function):
    x = torch.randn(2, 3, 4, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    arrived = []
    middle = x * 1  # what a leaf accumulates takes the leaf's own layout
    middle.register_hook(arrived.append)
    output = function(middle)
    assert output.is_contiguous(memory_format=torch.channels_last)
    output.sum().backward()
    (gradient,) = arrived
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert not gradient.is_contiguous()
