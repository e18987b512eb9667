"""Each step of a tape against what torch and its autograd make of the same images."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F

from search_spaces.kernels.pixels import halves
from search_spaces.kernels.tape import Geometry, Rows, Tape, Weighing, as_images, as_rows, windows
from search_spaces.ops import BatchNorm

SIDES = (5, 4)
N, C = 3, 4


def _random(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _images(channels=C, sides=SIDES, seed=0):
    return _random(N, channels, *sides, seed=seed)


def _close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def _check(step, expected, inputs, sides=SIDES, out_sides=SIDES, trained=()):
    """Compare a step with a function of images: values, gradients of its inputs and of what is trained.

    Args:
        step: Of a tape and Rows.
        expected: Of images, as many as the step takes.
        inputs: The images.
        sides: Theirs.
        out_sides: Those of the result.
        trained: Parameters that both read.
    """
    leaves = [x.clone().requires_grad_() for x in inputs]
    wanted = expected(*leaves)
    gradient = _random(*wanted.shape, seed=9)
    of_wanted = torch.autograd.grad(wanted, [*leaves, *trained], gradient)
    with torch.no_grad():
        tape, rows = Tape(), [Rows(as_rows(x).clone()) for x in inputs]
        result = step(tape, *rows)
        _close(as_images(result.data, out_sides), wanted)
        result.add(as_rows(gradient).clone())
        tape.play_back()
    for entry, own in zip(rows, of_wanted, strict=False):
        _close(as_images(entry.gradient, sides), own)
    for parameter, own in zip(trained, of_wanted[len(leaves) :], strict=True):
        _close(tape.gradients[parameter], own)


def _norms(*widths):
    norms = [BatchNorm(width, affine=False).double() for width in widths]
    for seed, norm in enumerate(norms):
        norm.running_mean.copy_(_random(norm.num_features, seed=seed))
        norm.running_var.copy_(_random(norm.num_features, seed=seed + 1) ** 2)
    return norms


def test_rows_are_channels_and_a_view_of_their_images():
    images = _images()
    rows = as_rows(images)
    _close(rows[1], images[:, 1].permute(1, 2, 0).flatten())
    back = as_images(rows, SIDES)
    _close(back, images)
    assert as_rows(back).data_ptr() == rows.data_ptr()


def test_rectified():
    _check(lambda tape, x: tape.rectified(x), torch.relu, [_images()])


def test_stacked_adds_up_what_comes_back_to_a_value_that_stands_twice():
    _check(
        lambda tape, x, y: tape.stacked([x, y, x]), lambda x, y: torch.cat([x, y, x], 1), [_images(), _images(seed=1)]
    )


def test_stacked_of_one_is_that_one():
    x = Rows(as_rows(_images()))
    assert Tape().stacked([x]) is x


@pytest.mark.parametrize("sides", [(4, 6), (5, 4), (5, 7), (1, 1)])
def test_halves(sides):
    _check(
        lambda tape, x: tape.halves(x, sides),
        halves,
        [_images(sides=sides)],
        sides,
        (-(-sides[0] // 2), -(-sides[1] // 2)),
    )


@pytest.mark.parametrize("sides", [(5, 4), (8, 8), (2, 1)])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2), (7, 2, 1), (1, 1, 1)]
)
def test_depthwise(kernel, stride, dilation, sides):
    weight = _random(C, 1, kernel, kernel, seed=2).requires_grad_()
    geometry = Geometry(sides, kernel, stride, dilation)
    padding = kernel // 2 * dilation
    _check(
        lambda tape, x: tape.depthwise(x, weight, geometry),
        lambda x: F.conv2d(x, weight, None, stride, padding, dilation, C),
        [_images(sides=sides)],
        sides,
        (-(-sides[0] // stride), -(-sides[1] // stride)),
        [weight],
    )


def test_two_steps_that_read_the_same_add_up():
    weights = [_random(C, 1, 3, 3, seed=seed).requires_grad_() for seed in (2, 3)]
    kernel = _random(C, C, seed=4).requires_grad_()

    def step(tape, x):
        parts = [tape.depthwise(x, weight, Geometry(SIDES, 3, 1, 1)) for weight in weights]
        return tape.stacked([*parts, tape.pointwise(x, [kernel])])

    def expected(x):
        parts = [F.conv2d(x, weight, padding=1, groups=C) for weight in weights]
        return torch.cat([*parts, F.conv2d(x, kernel[:, :, None, None])], 1)

    _check(step, expected, [_images()], trained=[*weights, kernel])


@pytest.mark.parametrize("num_parts", [1, 2])
def test_pointwise_applies_each_matrix_to_its_own_channels(num_parts):
    weights = [_random(6 // num_parts, C, 1, 1, seed=seed).requires_grad_() for seed in range(num_parts)]
    x = _images(2 * C)
    _check(
        lambda tape, x: tape.pointwise(x, weights),
        lambda x: F.conv2d(x, torch.cat(weights), groups=2),
        [x],
        trained=weights,
    )


def test_pointwise_writes_where_it_is_told():
    into = _random(6, N * SIDES[0] * SIDES[1])
    with torch.no_grad():
        result = Tape().pointwise(Rows(as_rows(_images())), [_random(6, C)], into)
    assert result.data is into
    _close(as_images(into, SIDES), F.conv2d(_images(), _random(6, C)[:, :, None, None]))


def test_fixed_values_get_no_gradient():
    x, weight = Rows(as_rows(_images()), is_fixed=True), _random(6, C)
    with torch.no_grad():
        tape = Tape()
        result = tape.pointwise(x, [weight])
        result.add(torch.ones_like(result.data))
        tape.play_back()
    assert x.gradient is None
    _close(tape.gradients[weight], x.data.sum(1).expand(6, -1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("is_average", [True, False])
def test_pooled(stride, is_average):
    def expected(x):
        if is_average:
            return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        return F.max_pool2d(x, 3, stride, 1)

    out_sides = (-(-SIDES[0] // stride), -(-SIDES[1] // stride))
    _check(lambda tape, x: tape.pooled(x, SIDES, stride, is_average), expected, [_images()], out_sides=out_sides)


def test_normalised_with_the_norms_of_its_parts():
    ours, theirs = _norms(C, 2 * C), _norms(C, 2 * C)

    def step(tape, x):
        result = tape.normalised(x, ours)
        tape.update_statistics()
        return result

    _check(
        step,
        lambda x: torch.cat([norm(part) for norm, part in zip(theirs, x.split([C, 2 * C], 1), strict=True)], 1),
        [5 + 3 * _images(3 * C)],
    )
    for norm, other in zip(ours, theirs, strict=True):
        _close(norm.running_mean, other.running_mean)
        _close(norm.running_var, other.running_var)


def test_normalised_keeps_digits_where_the_mean_is_far_larger_than_the_deviation():
    x = as_rows(1000 + _images()).float()
    expected = F.batch_norm(x.double()[None], None, None, training=True)[0]
    with torch.no_grad():
        result = Tape().normalised(Rows(x), [BatchNorm(C, affine=False)]).data
    assert (result - expected).abs().max() < 1e-4


def test_normalised_of_a_channel_that_does_not_vary_is_zero():
    with torch.no_grad():
        result = Tape().normalised(Rows(torch.full((C, 12), 3.0)), [BatchNorm(C, affine=False)])
    assert not result.data.any()


def test_scaled():
    scale, offset = (_random(C, seed=seed).requires_grad_() for seed in (2, 3))
    _check(
        lambda tape, x: tape.scaled(x, scale, offset),
        lambda x: x * scale[:, None, None] + offset[:, None, None],
        [_images()],
        trained=[scale, offset],
    )


@pytest.mark.parametrize(("num_terms", "widths"), [(0, [C]), (0, [2 * C, C]), (2, []), (1, []), (2, [C]), (1, [3 * C])])
def test_weighted_sum(num_terms, widths):
    num_candidates = sum(widths) // C
    num = num_terms + num_candidates
    weights = _random(num + 1, seed=5).requires_grad_()  # of `none` besides
    order = torch.arange(num).flip(0)
    ours, theirs = _norms(*widths), _norms(*widths)
    terms = [_images(seed=seed) for seed in range(num_terms)]
    inputs = [*terms, *([_images(sum(widths), seed=7)] if widths else [])]

    def step(tape, *rows):
        result = Rows(torch.empty_like(as_rows(_images())))
        tape.weighted_sum(result, rows[:num_terms], rows[-1] if widths else None, ours, Weighing(weights, order))
        tape.update_statistics()
        return result

    def expected(*images):
        values = list(images[:num_terms])
        if widths:
            parts = images[-1].split(widths, 1)
            normalised = torch.cat([norm(part) for norm, part in zip(theirs, parts, strict=True)], 1)
            values += normalised.split(C, 1)
        return sum(weights[order[index]] * value for index, value in enumerate(values))

    _check(step, expected, inputs, trained=[weights])
    for norm, other in zip(ours, theirs, strict=True):
        _close(norm.running_mean, other.running_mean)
        _close(norm.running_var, other.running_var)


@pytest.mark.parametrize("kernel", [3, 5])
def test_windows_are_what_a_convolution_sees(kernel):
    images, weight = _images(2), _random(6, 2, kernel, kernel)
    _close(as_images(weight.flatten(1) @ windows(images, kernel), SIDES), F.conv2d(images, weight, padding=kernel // 2))


def test_what_nothing_reads_has_no_gradient():
    x, weight = Rows(as_rows(_images())), _random(6, C)
    tape = Tape()
    tape.pointwise(x, [weight])
    tape.play_back()
    assert x.gradient is None
    assert not tape.gradients


def test_play_back_works_once():
    tape = Tape()
    tape.play_back()
    with pytest.raises(RuntimeError, match="only once"):
        tape.play_back()


def test_a_tape_that_was_never_played_goes_with_its_last_reference():
    """Without waiting for Python to look for cycles: each step of a search leaves megabytes."""
    norm = BatchNorm(C, affine=False).double()
    gc.collect()
    gc.disable()
    try:
        with torch.no_grad():
            tape, x = Tape(), Rows(as_rows(_images()))
            y = tape.depthwise(tape.rectified(x), _random(C, 1, 3, 3), Geometry(SIDES, 3, 1, 1))
            y = tape.normalised(tape.pointwise(tape.stacked([y, y]), [_random(C, 2 * C)]), [norm])
            result = Rows(torch.empty_like(y.data))
            tape.weighted_sum(result, [y], None, [], Weighing(torch.ones(1).double(), torch.tensor([0])))
        watched = weakref.ref(y.data)
        del tape, x, y, result
        assert watched() is None
    finally:
        gc.enable()
