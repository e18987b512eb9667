"""The computation of a cell on small images, with gradients written by hand.

On images of 8 x 8 and smaller most time of a step is spent in the overhead of calls: of torch, of its autograd engine,
of oneDNN (some 30 microseconds each). Here everything is a matrix with **a row per channel**, whose columns are the
pixels and, innermost, the images (C, H * W * N). In it

- candidates side by side are consecutive in memory: they are computed into one matrix, without copies;
- sums over a channel are sums over a row, pixels moved against each other are long runs of numbers;
- a depthwise convolution is a product of one small matrix per channel with what the channel sees, whatever its width,
  stride and dilation, and so are its gradients. That takes up to H * W / k^2 times as many multiplications, and less
  time all the same.

A :class:`Tape` records the backward function of each step; one autograd function then stands for a whole cell
(:mod:`search_spaces.kernels.small_images`). Exact, as the float64 tests against a plain supernet hold.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Geometry", "Rows", "Tape", "Weighing", "as_images", "as_rows", "windows"]


class Rows:
    """A value (C, H * W * N), and its gradient once the tape is played back.

    Args:
        data: The matrix.
        is_fixed: Whether its gradient is not needed.
    """

    __slots__ = ("data", "gradient", "is_fixed")

    def __init__(self, data: Tensor, is_fixed: bool = False) -> None:
        self.data, self.is_fixed = data, is_fixed
        self.gradient: Tensor | None = None

    def add(self, gradient: Tensor) -> None:
        """Add to the gradient; the tensor is given away."""
        self.gradient = gradient if self.gradient is None else self.gradient.add_(gradient)

    def add_times(self, gradient: Tensor, weight: Tensor) -> None:
        """Add a gradient, which is left as it is, times a number."""
        self.gradient = gradient * weight if self.gradient is None else self.gradient.addcmul_(gradient, weight)

    def add_product(self, matrices: Tensor, gradients: Tensor) -> None:
        """Add a product of batches of matrices, of as many numbers as the gradient."""
        if self.is_fixed:
            return
        if self.gradient is None:
            self.gradient = torch.bmm(matrices, gradients).view(self.data.shape)
        else:
            self.gradient.view(*matrices.shape[:2], -1).baddbmm_(matrices, gradients)


class Geometry(NamedTuple):
    """Geometry of a depthwise convolution, padded so that stride 1 keeps the size.

    Attributes:
        sides: Height and width of its input.
        kernel: Side of its kernels, odd.
        stride: 1 or 2.
        dilation: Step between the taps in pixels.
    """

    sides: tuple[int, int]
    kernel: int
    stride: int
    dilation: int


class Weighing(NamedTuple):
    """Architecture weights of a node.

    Attributes:
        weights: Of all its edges (num_edges,).
        order: Positions of the selected ones (num_terms + num_candidates,).
    """

    weights: Tensor
    order: Tensor


class Tape:
    """Steps of a forward pass, each with its backward function; autograd is not used.

    Attributes:
        gradients: Those of parameters and architecture weights, once the tape was played back.
    """

    def __init__(self) -> None:
        # Steps must not refer to the tape: it would live until Python looks for cycles.
        self.gradients: dict[Tensor, Tensor] = {}
        self._is_played = False
        self._steps: list[tuple[Rows, Callable[[Tensor], None]]] = []
        self._running: list[Tensor] = []
        self._of_batch: list[Tensor] = []
        self._momentum = 0.0

    def note(self, result: Rows, back: Callable[[Tensor], None]) -> None:
        """Record a step.

        Args:
            result: Its result.
            back: Takes the gradient of the result, and may keep or overwrite it.
        """
        self._steps.append((result, back))

    def play_back(self) -> None:
        """Propagate gradients back through all steps; each step is freed at once.

        Raises:
            RuntimeError: The second time.
        """
        if self._is_played:
            raise RuntimeError("gradients of small images can be computed only once: what they need is overwritten")
        self._is_played = True
        while self._steps:
            result, back = self._steps.pop()
            if result.gradient is not None:
                back(result.gradient)
                result.gradient = None

    def update_statistics(self) -> None:
        """Update the running statistics of all norms on the tape in one call; they have the same momentum."""
        if self._running:
            torch._foreach_lerp_(self._running, self._of_batch, self._momentum)

    def rectified(self, x: Rows) -> Rows:
        """Return ReLU of ``x``."""
        result = Rows(torch.relu(x.data))
        self.note(result, lambda gradient: x.add(torch.ops.aten.threshold_backward(gradient, result.data, 0)))
        return result

    def stacked(self, parts: Sequence[Rows]) -> Rows:
        """Return the concatenation of values along the rows."""
        if len(parts) == 1:
            return parts[0]
        return self.joined(torch.cat([part.data for part in parts]), parts)

    def joined(self, data: Tensor, parts: Sequence[Rows]) -> Rows:
        """Return the matrix whose rows some values are, in their order."""
        result = Rows(data)
        sizes = [part.data.shape[0] for part in parts]

        def back(gradient: Tensor) -> None:
            for part, own in zip(parts, gradient.split(sizes), strict=True):
                part.add(own)

        self.note(result, back)
        return result

    def halves(self, x: Rows, sides: tuple[int, int]) -> Rows:
        """Return the pixels in even rows and columns, and below them those in odd ones; odd sides end in zeros.

        Args:
            x: (C, H * W * N).
            sides: H and W.

        Returns:
            (2C, ceil(H / 2) * ceil(W / 2) * N), as :func:`search_spaces.kernels.pixels.halves` has it.
        """
        images = x.data.view(x.data.shape[0], *sides, -1)
        height, width = sides[0] // 2, sides[1] // 2
        size = (2, images.shape[0], -(-sides[0] // 2), -(-sides[1] // 2), images.shape[3])
        both = images.new_empty(size) if size[2:4] == (height, width) else images.new_zeros(size)
        even, odd = both
        even.copy_(images[:, ::2, ::2])
        odd[:, :height, :width].copy_(images[:, 1::2, 1::2])
        result = Rows(both.view(2 * images.shape[0], -1))

        def back(gradient: Tensor) -> None:
            of_even, of_odd = gradient.view(size)
            of_images = torch.zeros_like(images)
            of_images[:, ::2, ::2].copy_(of_even)
            of_images[:, 1::2, 1::2].copy_(of_odd[:, :height, :width])
            x.add(of_images.view(x.data.shape))

        self.note(result, back)
        return result

    def depthwise(self, x: Rows, weight: Tensor, geometry: Geometry) -> Rows:
        """Convolve each channel with its own kernel, of ``weight`` (C, 1, k, k)."""
        gradients, taps, channels = self.gradients, _taps(geometry, weight.dtype), weight.shape[0]
        kernels = weight.new_zeros(channels, taps.is_inside.shape[0] + 1)
        kernels[:, :-1].copy_(weight.flatten(1))
        # A row for each pixel of the output, a column for each of the input.
        matrices = kernels.index_select(1, taps.of_pairs).view(channels, taps.is_inside.shape[1], -1)
        images = x.data.view(channels, matrices.shape[2], -1)
        result = Rows(torch.bmm(matrices, images).view(channels, -1))

        def back(gradient: Tensor) -> None:
            of_result = gradient.view(channels, matrices.shape[1], -1)
            of_matrices = torch.bmm(of_result, images.transpose(1, 2)).view(channels, -1)
            seen = of_matrices.index_select(1, taps.places).view(channels, *taps.is_inside.shape)
            gradients[weight] = seen.mul_(taps.is_inside).sum(2).view(weight.shape)
            x.add_product(matrices.transpose(1, 2), of_result)

        self.note(result, back)
        return result

    def pointwise(self, x: Rows, weights: Sequence[Tensor], into: Tensor | None = None) -> Rows:
        """Apply to each of several values under each other its own matrix.

        Args:
            x: (size * C_in, L).
            weights: Matrices (C_out, C_in) under each other, here (size * C_out, C_in), perhaps in parts.
            into: Matrix for the result (size * C_out, L).
        """
        gradients, width = self.gradients, weights[0].numel() // weights[0].shape[0]
        weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
        (rows, length), size = x.data.shape, weight.shape[0]
        num = rows // width
        matrices, values = weight.reshape(num, size // num, width), x.data.view(num, width, length)
        if into is None:
            into = values.new_empty(size, length)
        torch.bmm(matrices, values, out=into.view(num, size // num, length))
        result = Rows(into)

        def back(gradient: Tensor) -> None:
            of_result = gradient.view(num, size // num, length)
            of_matrices = torch.bmm(of_result, values.transpose(1, 2)).view(weight.shape)
            if len(weights) == 1:
                gradients[weight] = of_matrices
            else:
                gradients.update(zip(weights, of_matrices.split([part.shape[0] for part in weights]), strict=True))
            x.add_product(matrices.transpose(1, 2), of_result)

        self.note(result, back)
        return result

    def pooled(self, x: Rows, sides: tuple[int, int], stride: int, is_average: bool) -> Rows:
        """Return max or average pooling 3x3."""
        # For torch, the channels are a batch and the images are channels, in the layout channels last.
        images = x.data.view(x.data.shape[0], *sides, -1).permute(0, 3, 1, 2)
        window = ([3, 3], [stride, stride], [1, 1])
        pixels: Tensor | None = None
        if is_average:
            output = F.avg_pool2d(images, 3, stride, 1, count_include_pad=False)
        else:
            output, pixels = torch.ops.aten.max_pool2d_with_indices(images, *window)
        result = Rows(output.permute(0, 2, 3, 1).reshape(x.data.shape[0], -1))

        def back(gradient: Tensor) -> None:
            size = (output.shape[0], *output.shape[2:], output.shape[1])
            of_output = gradient.view(size).permute(0, 3, 1, 2)
            if pixels is None:
                of_images = torch.ops.aten.avg_pool2d_backward(of_output, images, *window, False, False, None)
            else:
                of_images = torch.ops.aten.max_pool2d_with_indices_backward(
                    of_output, images, *window, [1, 1], False, pixels
                )
            x.add(of_images.permute(0, 2, 3, 1).reshape(x.data.shape))

        self.note(result, back)
        return result

    def normalised(self, x: Rows, norms: Sequence[nn.BatchNorm2d]) -> Rows:
        """Return batch norm of ``x``, which is overwritten; its rows are those of the norms, under each other."""
        data, rate = x.data, self._centre(x.data, norms)
        result = Rows(data.mul_(rate))

        def back(gradient: Tensor) -> None:
            slope = torch.linalg.vecdot(gradient, data).div_(-data.shape[1])
            gradient -= gradient.mean(1, keepdim=True)
            x.add(gradient.addcmul_(data, slope[:, None]).mul_(rate))

        self.note(result, back)
        return result

    def scaled(self, x: Rows, scale: Tensor, offset: Tensor) -> Rows:
        """Return ``x`` times the scale of a channel plus its offset (C,)."""
        gradients = self.gradients
        result = Rows((x.data * scale[:, None]).add_(offset[:, None]))

        def back(gradient: Tensor) -> None:
            gradients[scale] = torch.linalg.vecdot(gradient, x.data)
            gradients[offset] = gradient.sum(1)
            x.add(gradient.mul_(scale[:, None]))

        self.note(result, back)
        return result

    def weighted_sum(
        self,
        result: Rows,
        terms: Sequence[Rows],
        candidates: Rows | None,
        norms: Sequence[nn.BatchNorm2d],
        weighing: Weighing,
    ) -> None:
        """Compute the sum of ``weight * term`` and of ``weight * norm(candidate)``.

        Args:
            result: Matrix for the sum (C, L).
            terms: Likewise; together with the candidates at least one.
            candidates: Under each other (size * C, L), overwritten; None for none.
            norms: Those of the candidates.
            weighing: Architecture weights; those of terms come first.
        """
        gradients, weights = self.gradients, weighing.weights.index_select(0, weighing.order)
        total, each = result.data, weights[: len(terms)].unbind()
        if candidates is None:
            torch.mul(terms[0].data, each[0], out=total)
        else:
            own = weights[len(terms) :, None]
            data = candidates.data.view(-1, *total.shape)
            rate = self._centre(candidates.data, norms).view(data.shape[:2])
            scale = own * rate
            if data.shape[0] == 1:
                torch.mul(data[0], scale[0, :, None], out=total)
            else:
                torch.bmm(scale.t()[:, None], data.transpose(0, 1), out=total[:, None])
        for term, weight in list(zip(terms, each, strict=True))[candidates is None :]:
            total.addcmul_(term.data, weight)

        def back(gradient: Tensor) -> None:
            flat = gradient.view(-1)
            of_weights = [torch.dot(flat, term.data.view(-1)) for term in terms]
            for term, weight in zip(terms, each, strict=True):
                term.add_times(gradient, weight)
            parts = [torch.stack(of_weights)] if terms else []
            if candidates is not None:
                slope = torch.linalg.vecdot(data, gradient).mul_(rate)
                parts.append(slope.sum(1))
                pull = slope.mul_(scale).mul_(rate).div_(-data.shape[2])
                gradient -= gradient.mean(1, keepdim=True)
                candidates.add(
                    data.mul_(pull[:, :, None]).addcmul_(scale[:, :, None], gradient).view(candidates.data.shape)
                )
            of_own = parts[0] if len(parts) == 1 else torch.cat(parts)
            gradients[weighing.weights] = torch.zeros_like(weighing.weights).index_copy_(0, weighing.order, of_own)

        self.note(result, back)

    def _centre(self, data: Tensor, norms: Sequence[nn.BatchNorm2d]) -> Tensor:
        """Subtract the mean of each row, in place, and record it for the running statistics.

        Returns:
            1 / standard deviation (C, 1).
        """
        num = data.shape[1]
        mean = data.mean(1)
        data -= mean[:, None]
        squares = torch.linalg.vecdot(data, data)
        variance = squares / max(1, num - 1)
        if len(norms) == 1:
            self._of_batch += [mean, variance]
        else:
            sizes = [norm.num_features for norm in norms]
            for pair in zip(mean.split(sizes), variance.split(sizes), strict=True):
                self._of_batch += pair
        self._momentum = cast(float, norms[0].momentum)
        for norm in norms:
            self._running += [cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)]
        rate: Tensor = squares.div_(num).add_(norms[0].eps).rsqrt_()
        return rate[:, None]


class _Taps(NamedTuple):
    """How kernels become matrices, and the gradients of matrices those of kernels.

    Attributes:
        of_pairs: For each pair of an output's and an input's pixel the tap that joins them, k^2 for none (P' * P,).
        places: For each pair of a tap and an output's pixel the place in the matrix (k^2 * P',).
        is_inside: Whether that is one, or the tap falls outside of the image (k^2, P'), as 1 and 0.
    """

    of_pairs: Tensor
    places: Tensor
    is_inside: Tensor


@functools.lru_cache(maxsize=64)
def _taps(geometry: Geometry, kind: torch.dtype) -> _Taps:
    (height, width), kernel, stride, dilation = geometry
    rows, columns = torch.arange(0, height, stride), torch.arange(0, width, stride)
    reach = (torch.arange(kernel) - kernel // 2) * dilation
    # (k, k, H', W'): where in the image a tap looks, for a pixel of the output.
    row = (rows + reach[:, None])[:, None, :, None].expand(-1, kernel, -1, len(columns))
    column = (columns + reach[:, None])[None, :, None, :].expand(kernel, -1, len(rows), -1)
    is_inside = ((row >= 0) & (row < height) & (column >= 0) & (column < width)).reshape(kernel**2, -1)
    seen = (row * width + column).reshape(kernel**2, -1)
    places = torch.where(is_inside, torch.arange(seen.shape[1]) * height * width + seen, 0)
    index = torch.full((seen.shape[1] * height * width,), kernel**2)
    taps = torch.arange(kernel**2)[:, None].expand_as(seen)
    index[places[is_inside]] = taps[is_inside]
    return _Taps(index, places.flatten(), is_inside.to(kind))


def as_rows(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) as a matrix with a row per channel (C, H * W * N), a view if they came from one."""
    return images.permute(1, 2, 3, 0).reshape(images.shape[1], -1)


def as_images(rows: Tensor, sides: tuple[int, int]) -> Tensor:
    """Return the view of a matrix with a row per channel as images (N, C, H, W)."""
    return rows.view(rows.shape[0], *sides, -1).permute(3, 0, 1, 2)


def windows(images: Tensor, kernel: int) -> Tensor:
    """Return what a convolution that keeps the size sees of images (N, C, H, W), zeros around them.

    Returns:
        (C * k * k, H * W * N), in the order of its weights.
    """
    reach = kernel // 2
    padded = F.pad(images.permute(1, 2, 3, 0), (0, 0, reach, reach, reach, reach))
    seen = padded.unfold(1, kernel, 1).unfold(2, kernel, 1)  # (C, H, W, N, k, k)
    result: Tensor = seen.permute(0, 4, 5, 1, 2, 3).reshape(images.shape[1] * kernel**2, -1)
    return result
