"""Pointwise convolution, batch norm and architecture weight as one matrix product.

The supernet's convolutions all end in ``weight * norm(pointwise(d))``. With ``d`` as a matrix ``D`` of a row per pixel
and ``W`` the pointwise kernel, the batch statistics of ``D W^T`` follow from those of ``D``::

    mean(D W^T) = W mean(D),    var(D W^T) = diag(W cov(D) W^T)

so that the norm and the weight fold into the kernel before it is applied, and what was a convolution, three passes
of the norm, a multiplication and an addition per candidate becomes one product per candidate that adds up straight
into the node. ``D W^T`` never exists, neither does its gradient: what flows back is the node's gradient times small
matrices. That is exact, not an approximation; the tests compare it with the plain chain of operations. In float32 the
covariance, a difference of moments, loses digits where a channel's mean is far larger than its deviation: its relative
error is that of plain batch norm up to a ratio of 1, ten times as large at 10, and 0.4 % at 100.

Everything here is in the layout channels last. A *group* is ``size`` candidates side by side: their D is
(N, size * C, H, W), their W (size, C, C); of strided skip connections, whose D has even and odd pixels, (size, C, 2C).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from search_spaces.kernels.products import add_product_, kernel_gradient, pixel_rows, product

__all__ = ["Projection", "Statistics", "normalised", "weighted_sum"]

# Numbers in a tensor from which sums run as products, and below which groups are copied side by side.
_LARGE = 2**18


class Statistics(NamedTuple):
    """The running statistics of a batch norm, for all channels of a group.

    Attributes:
        mean: Running mean (size * C,), updated in place.
        var: Running variance (size * C,), likewise.
        momentum: Share of the batch in the update; the same for all that are computed together, as are the next two.
        eps: Added to variances.
        of_batch: Whether to normalise by the batch and update, or by the running statistics.
    """

    mean: Tensor
    var: Tensor
    momentum: float
    eps: float
    of_batch: bool


class Projection(NamedTuple):
    """``norm(pointwise(x))`` of a group of candidates, before it is computed.

    Attributes:
        x: The input (N, size * C_in, H, W), channels last.
        kernel: Pointwise kernels (size * C, C_in), a row per output channel.
        statistics: Of the norm, which has no affine parameters.
    """

    x: Tensor
    kernel: Tensor
    statistics: Statistics


def normalised(projection: Projection, *further: Statistics) -> Tensor:
    """Return ``relu(norm(pointwise(x)))`` (N, size * C, H, W), each candidate on its own channels.

    Args:
        projection: A group whose kernels are square.
        further: Statistics of the norms of its later candidates, where those of the projection are of the first only.
    """
    statistics = [projection.statistics, *further]
    with _in_full(projection.kernel):
        x = projection.x.to(projection.kernel.dtype)
        result: Tensor = _Normalised.apply(x, projection.kernel, statistics)  # type: ignore[no-untyped-call]
    return result


def weighted_sum(weights: Tensor, terms: Sequence[Tensor], projections: Sequence[Projection]) -> Tensor:
    """Return ``sum of w * term`` plus ``sum of w * norm(pointwise(x))`` over all candidates of the projections.

    Args:
        weights: Architecture weights, those of the terms first (num_terms + num_candidates,).
        terms: Tensors (N, C, H, W) that need no projection.
        projections: Groups; together with the terms at least one.

    Returns:
        (N, C, H, W).
    """
    inputs = [*terms, *(entry.x for entry in projections)]
    kernels = [entry.kernel for entry in projections]
    statistics = [entry.statistics for entry in projections]
    with _in_full(weights):
        tensors = [*(x.to(weights.dtype) for x in inputs), *kernels]
        result: Tensor = _WeightedSum.apply(weights, statistics, *tensors)  # type: ignore[no-untyped-call]
    return result


def _in_full(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Compute statistics without autocast: variances in bfloat16 would be too inexact."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, statistics: list[Statistics]) -> Tensor:
        channels = kernel.shape[1]
        folded = _fold([x], [kernel], statistics)
        biases = folded.shift * -folded.rate
        kernels = folded.kernel * folded.rate[:, :, None]
        result = product(x, kernels.view(-1, channels), biases.view(-1), len(kernels))
        ctx.of_batch = statistics[0].of_batch
        ctx.save_for_backward(x, result.relu_(), *_stored(folded))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, result, *stored = ctx.saved_tensors
        folded = _restored(iter(stored), ctx.of_batch)
        gradient = torch.ops.aten.threshold_backward(_channels_last(gradients[0]), result, 0)
        channels = folded.kernel.shape[1]
        size = len(folded.kernel)
        products = kernel_gradient(gradient, x, size).view(size, -1, channels)
        totals = _column_sums(pixel_rows(gradient)).view(-1, channels)
        back = _fold_back(folded, products, totals, folded.rate, x.numel() // x.shape[1])
        of_x = product(gradient, _turned(back.kernel), back.offset.view(-1), size)
        if back.feedback is not None:
            add_product_(of_x, x, _turned(back.feedback), size)
        return of_x, back.of_kernel.reshape(-1, channels), None


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, statistics: list[Statistics], *tensors: Tensor) -> Tensor:
        num_groups = len(statistics)
        num_terms = len(tensors) - 2 * num_groups
        terms = [_channels_last(term) for term in tensors[:num_terms]]
        inputs, kernels = tensors[num_terms:][:num_groups], tensors[num_terms + num_groups :]
        ctx.families, ctx.num_terms = _families(inputs, kernels, statistics, num_terms), num_terms
        result: Tensor | None = None
        stored: list[Tensor] = []
        saved: list[Tensor] = []
        for family in ctx.families:
            members = list(inputs[family.groups])
            if family.num_saved < len(members):  # for small groups, copies cost less than more products
                members = [torch.cat(members, 1)]
            saved += members
            folded = _fold(members, kernels[family.groups], statistics[family.groups])
            channels = folded.kernel.shape[1]
            scale = weights[family.candidates, None] * folded.rate
            offset = (folded.shift * scale).sum(0)
            matrices = (folded.kernel * scale[:, :, None]).transpose(0, 1).reshape(channels, -1)
            for x, matrix in zip(members, matrices.split([x.shape[1] for x in members], 1), strict=True):
                if result is None:
                    result = product(x, matrix, -offset)
                else:
                    add_product_(result, x, matrix)
            if family.groups.start:  # the first family's offset is in the first product
                pixel_rows(cast(Tensor, result)).sub_(offset)
            stored += _stored(folded)
        if result is None:
            result = torch.zeros_like(terms[0])
        for index, term in enumerate(terms):
            result.addcmul_(term, weights[index])
        ctx.save_for_backward(weights, *terms, *saved, *stored)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights, *saved = ctx.saved_tensors
        terms, saved = saved[: ctx.num_terms], saved[ctx.num_terms :]
        # All terms of the node have this gradient, so its layout is changed once.
        gradient = _channels_last(gradients[0])
        rows = pixel_rows(gradient)
        total = _column_sums(rows)
        of_weights = [torch.dot(rows.view(-1), pixel_rows(term).view(-1))[None] for term in terms]
        of_terms = [gradient * weight for weight in weights[: ctx.num_terms]]
        of_inputs: list[Tensor] = []
        of_kernels: list[Tensor] = []
        inputs, stored = iter(saved), iter(saved[sum(family.num_saved for family in ctx.families) :])
        for family in ctx.families:
            members = list(itertools.islice(inputs, family.num_saved))
            folded = _restored(stored, family.of_batch)
            channels, width = folded.kernel.shape[1:]
            products = (
                _cat([kernel_gradient(gradient, x) for x in members], 1).view(channels, -1, width).transpose(0, 1)
            )
            scale = weights[family.candidates, None] * folded.rate
            back = _fold_back(folded, products, total, scale, len(rows))
            of_weights.append(back.of_scale)
            of_kernels += back.of_kernel.reshape(-1, width).split([size * channels for size in family.sizes])
            matrices, offsets, start = back.kernel.transpose(1, 2).reshape(-1, channels), back.offset.reshape(-1), 0
            of_members = []
            for x in members:
                part = slice(start, start + x.shape[1])
                start = part.stop
                of_x = product(gradient, matrices[part], offsets[part])
                if back.feedback is not None:
                    feedback = back.feedback[part.start // width : part.stop // width]
                    add_product_(of_x, x, _turned(feedback), len(feedback))
                of_members.append(of_x)
            if len(members) < len(family.sizes):
                of_members = list(of_members[0].split([size * width for size in family.sizes], 1))
            of_inputs += of_members
        return torch.cat(of_weights), None, *of_terms, *of_inputs, *of_kernels


class _Family(NamedTuple):
    """Groups whose projections have equally many input channels, so that they fold together.

    Attributes:
        groups: Which groups.
        candidates: Positions of their architecture weights.
        sizes: Number of candidates of each group.
        num_saved: How many tensors hold their inputs: one for each group, or one for all.
        of_batch: Whether their norms use the statistics of the batch.
    """

    groups: slice
    candidates: slice
    sizes: list[int]
    num_saved: int
    of_batch: bool


def _families(
    inputs: Sequence[Tensor], kernels: Sequence[Tensor], statistics: Sequence[Statistics], first: int
) -> list[_Family]:
    result: list[_Family] = []
    for width, members in itertools.groupby(range(len(inputs)), lambda index: kernels[index].shape[1]):
        groups = list(members)
        sizes = [inputs[index].shape[1] // width for index in groups]
        result.append(
            _Family(
                groups=slice(groups[0], groups[-1] + 1),
                candidates=slice(first, first + sum(sizes)),
                sizes=sizes,
                num_saved=1 if inputs[groups[0]].numel() < _LARGE else len(groups),
                of_batch=statistics[groups[0]].of_batch,
            )
        )
        first += sum(sizes)
    return result


class _Folded(NamedTuple):
    """Norms to be folded into kernels; a row per candidate.

    Attributes:
        kernel: W (K, C, C_in), a row per output channel.
        mean: Mean of D (K, C_in); None with running statistics, which are constants.
        mapped: ``W cov(D)`` (K, C, C_in); None likewise.
        shift: Mean of ``D W^T`` (K, C).
        rate: 1 / standard deviation of ``D W^T`` (K, C).
    """

    kernel: Tensor
    mean: Tensor | None
    mapped: Tensor | None
    shift: Tensor
    rate: Tensor


def _fold(inputs: Sequence[Tensor], kernels: Sequence[Tensor], statistics: Sequence[Statistics]) -> _Folded:
    """Return shift and rate of ``D W^T``; updates running statistics where those of the batch are used."""
    width, eps = kernels[0].shape[1], statistics[0].eps
    num_candidates = sum(x.shape[1] for x in inputs) // width
    kernel = _cat(kernels).view(num_candidates, -1, width)
    if not statistics[0].of_batch:
        shift = torch.cat([entry.mean for entry in statistics]).view(num_candidates, -1)
        var = torch.cat([entry.var for entry in statistics]).view(num_candidates, -1)
        return _Folded(kernel, None, None, shift, (var + eps).rsqrt())
    num = inputs[0].numel() // inputs[0].shape[1]
    mean = _cat([_column_sums(pixel_rows(x)) for x in inputs]).view(num_candidates, width) / num
    moments = _cat([kernel_gradient(x, x, x.shape[1] // width) for x in inputs]).view(num_candidates, width, width)
    covariance = torch.baddbmm(moments, mean[:, :, None], mean[:, None, :], beta=1 / num, alpha=-1)
    mapped = torch.bmm(kernel, covariance)
    shift = torch.bmm(kernel, mean[:, :, None]).squeeze(2)
    var = (mapped * kernel).sum(2).clamp_min_(0)  # rounding may leave a variance of zero slightly below it
    sizes = [len(entry.mean) for entry in statistics]
    shifts, variances = shift.view(-1).split(sizes), (var * (num / max(1, num - 1))).view(-1).split(sizes)
    running = [entry.mean for entry in statistics] + [entry.var for entry in statistics]
    torch._foreach_lerp_(running, [*shifts, *variances], statistics[0].momentum)
    return _Folded(kernel, mean, mapped, shift, (var + eps).rsqrt())


class _FoldedBack(NamedTuple):
    """The gradients of inputs, kernels and weights; a row per candidate.

    Attributes:
        kernel: The input's gradient is ``gradient @ kernel + input @ feedback + offset``.
        feedback: None with running statistics.
        offset: See ``kernel``.
        of_kernel: Gradient of W (K, C, C_in).
        of_scale: Gradient of the architecture weight (K,).
    """

    kernel: Tensor
    feedback: Tensor | None
    offset: Tensor
    of_kernel: Tensor
    of_scale: Tensor


def _fold_back(folded: _Folded, products: Tensor, totals: Tensor, scale: Tensor, num: int) -> _FoldedBack:
    """Compute the gradients of kernel and weight, and the matrices for that of the input.

    Args:
        folded: From the forward pass.
        products: ``gradient^T D`` (K, C, C_in).
        totals: Sum of the gradient over pixels, (C,) or (K, C).
        scale: ``weight * rate`` (K, C).
        num: Number of pixels.
    """
    kernel = folded.kernel
    weighted = kernel * scale[:, :, None]
    if folded.mean is None or folded.mapped is None:
        of_scale = (folded.rate * ((products * kernel).sum(2) - folded.shift * totals)).sum(1)
        offset = kernel.new_zeros(kernel.shape[0], kernel.shape[2])
        return _FoldedBack(weighted, None, offset, products * scale[:, :, None], of_scale)
    spread = totals.expand_as(folded.shift)
    centred = torch.baddbmm(products, spread[:, :, None], folded.mean[:, None, :], alpha=-1)
    slope = (centred * kernel).sum(2) * folded.rate  # sum over pixels of gradient * normalised output
    pull = slope * folded.rate
    of_kernel = torch.addcmul(centred, folded.mapped, pull[:, :, None], value=-1) * scale[:, :, None]
    turned = weighted.transpose(1, 2)
    feedback = torch.bmm(turned, kernel * (pull / -num)[:, :, None])
    offset = torch.bmm(turned, ((folded.shift * pull - spread) / num)[:, :, None]).squeeze(2)
    return _FoldedBack(weighted, feedback, offset, of_kernel, slope.sum(1))


def _stored(folded: _Folded) -> list[Tensor]:
    return [tensor for tensor in folded if tensor is not None]


def _restored(tensors: Iterator[Tensor], of_batch: bool) -> _Folded:
    kernel = next(tensors)
    mean, mapped = (next(tensors), next(tensors)) if of_batch else (None, None)
    return _Folded(kernel, mean, mapped, next(tensors), next(tensors))


def _turned(kernels: Tensor) -> Tensor:
    """Turn each of (K, C_out, C_in) and put them in rows (K * C_in, C_out)."""
    return kernels.transpose(1, 2).reshape(-1, kernels.shape[1])


def _cat(tensors: Sequence[Tensor], dimension: int = 0) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dimension)


def _column_sums(rows: Tensor) -> Tensor:
    # Large sums as a product: torch's own over the rows of a narrow matrix takes twice as long on CPUs.
    return rows.sum(0) if rows.numel() < _LARGE or not rows.is_cpu else rows.new_ones(len(rows)) @ rows


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
