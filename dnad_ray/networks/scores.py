"""Training-free scores: estimates of the accuracy of a network from its initial weights.

Each score is a function of a network and one batch, and does not change the network. For every score, more is better.
Only scores of networks of the same width on the same batch can be compared. Each function names its source;
`experiments/truth` has the rank correlation of each score with accuracies.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dnad_ray.networks.spec import logits_of
from dnad_ray.runtime.devices import to_device
from search_spaces.genotype import Genotype
from search_spaces.network import NetworkOutput, network_from
from search_spaces.shape import NetworkShape

__all__ = [
    "RANKING",
    "SCORES",
    "Batch",
    "batch_for",
    "grad_norm",
    "jacov",
    "naswot",
    "rank_score",
    "scores_of",
    "swap",
    "synflow",
    "zen",
    "zico",
]

RANKING = {"darts": "zen", "nas_bench_201": "jacov"}
"""Skeleton -> the score that a network's rank in a run (:func:`rank_score`) is made of.

`experiments/truth` says how they were chosen: zen there, jacov by the published accuracies of NAS-Bench-201.
"""

# Standard deviations over the 150 random cells of `experiments/truth`: either part counts the same.
_SPREAD_OF_LOG_MACS = 0.40
_SPREAD_OF_LOG_JACOV = 0.60

_JITTER = 1e-5  # of jacov's authors: keeps the logarithm of an eigenvalue of 0 finite
_PERTURBATION = 0.01  # alpha of Zen-NAS
_ZICO_PARTS = 4
_LEAST_EXCESS = 1e-3
_BITS = 62  # binary digits that one whole number holds
_SWAP_IMAGES = 16


class Batch(NamedTuple):
    """The batch for a score.

    Attributes:
        images: Normalised, (N, C, H, W).
        labels: Class indices (N,).
    """

    images: Tensor
    labels: Tensor


def jacov(network: nn.Module, batch: Batch) -> float:
    """Score how differently a network reacts to different images (Mellor et al., arXiv 2006.04647, first version).

    With J the gradients of the sum of the logits by each image (N, C H W) and v the eigenvalues of the correlation
    matrix of its rows: ``- sum(log(v + k) + 1 / (v + k))``, k = 1e-5. It is largest, -N, where no two rows correlate.
    """
    network = _at_work(network)
    images = batch.images.detach().clone().requires_grad_(True)
    (gradients,) = torch.autograd.grad(logits_of(network(images)).sum(), images)
    rows = gradients.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    values = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0) + _JITTER
    return -float((values.log() + 1 / values).sum())


@torch.no_grad()
def naswot(network: nn.Module, batch: Batch) -> float:
    """Score how differently images switch the ReLUs (Mellor et al., arXiv 2006.04647, second version).

    ``log |det K|``, where ``K[i, j]`` is in how many outputs of ReLUs images i and j are alike, both zero or both
    positive; minus infinity where two images are alike in all of them.
    """
    kernel = batch.images.new_zeros(len(batch.images), len(batch.images), dtype=torch.float64)
    for pattern in _relu_patterns(network, batch.images):
        on = pattern.double()
        kernel += on @ on.T + (1 - on) @ (1 - on).T
    return float(torch.linalg.slogdet(kernel).logabsdet)


@torch.no_grad()
def swap(network: nn.Module, batch: Batch) -> float:
    """Count the different patterns in which the images of a batch switch a ReLU (SWAP, Peng et al., arXiv 2403.04161).

    Every output of a ReLU has one pattern: for each image whether it is positive. It is the number of patterns that
    occur, without the paper's regularisation, which needs a target size. A few images (16) tell more than many, under
    which nearly every output has a pattern of its own.
    """
    patterns = torch.cat([pattern.T for pattern in _relu_patterns(network, batch.images)])
    powers = 2 ** torch.arange(_BITS, device=patterns.device)
    words = [(part.long() * powers[: part.shape[1]]).sum(1) for part in patterns.split(_BITS, 1)]
    return float(len(torch.unique(torch.stack(words, 1), dim=0)))


def synflow(network: nn.Module, batch: Batch) -> float:
    """Score how much signal the weights let through (SynFlow, Tanaka et al., arXiv 2006.05467).

    The logarithm of ``sum |w dR/dw|`` over all parameters, R being the sum of the logits for one image of ones with
    every parameter replaced by its absolute value; as in arXiv 2101.08134 batch norms do nothing, which they do at
    initialisation in evaluation mode. Pixels and labels play no part.
    """
    network = copy.deepcopy(network).eval().double()
    parameters = list(network.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.abs_()
    ones = torch.ones_like(batch.images[:1], dtype=torch.float64)
    gradients = torch.autograd.grad(logits_of(network(ones)).sum(), parameters, materialize_grads=True)
    flows = [(parameter * by).detach() for parameter, by in zip(parameters, gradients, strict=True)]
    total = sum(float(flow.abs().sum()) for flow in flows)
    return math.log(total) if total else -math.inf


def grad_norm(network: nn.Module, batch: Batch) -> float:
    """Sum the norms of the loss's gradients by the weights of each convolution and linear layer (arXiv 2101.08134)."""
    network = _at_work(network)
    weights = _weights(network)
    loss = F.cross_entropy(logits_of(network(batch.images)), batch.labels)
    return sum(float(by.norm()) for by in torch.autograd.grad(loss, weights, materialize_grads=True))


@torch.no_grad()
def zen(network: nn.Module, batch: Batch) -> float:
    """Score how strongly the last feature map answers a small change of its input (Zen-NAS, arXiv 2102.01063).

    ``log E |f(x) - f(x + 0.01 e)| + sum over batch norms of log s``: weights, x and e are drawn from N(0, 1), f is the
    output of the last cell (the logits of a network without taps), and s is the root of the mean variance that the
    norm divides by. Of the batch only the size is used; the draws are the same each time. Unlike in the paper skip
    connections stay, for they are what our networks differ in.
    """
    network = _at_work(network)
    generator = torch.Generator().manual_seed(0)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like.device)

    for weight in _weights(network):
        weight.copy_(draw(weight))
    x = draw(batch.images)
    with _Watched(F.batch_norm) as watched:
        first = _features(network(x))
    scales = sum(float(y.var((0, 2, 3), unbiased=False).mean().sqrt().log()) for y, _ in watched.calls)
    change = _features(network(x + _PERTURBATION * draw(x))) - first
    return float(change.flatten(1).norm(dim=1).mean().log()) + scales


def zico(network: nn.Module, batch: Batch) -> float:
    """Score how steady gradients are over parts of the batch (ZiCo, Li et al., arXiv 2301.11300).

    ``sum over layers of log(sum over weights of mean |g| / std |g|)``, with g the gradients of the loss on each of four
    parts of the batch; weights whose gradients do not vary are left out, and layers without any other.

    Raises:
        ValueError: If the batch has fewer than eight images, two for each part.
    """
    if len(batch.images) < 2 * _ZICO_PARTS:
        raise ValueError(f"ZiCo needs at least {2 * _ZICO_PARTS} images, got {len(batch.images)}")
    network = _at_work(network)
    weights = _weights(network)
    parts: list[list[Tensor]] = []
    for images, labels in zip(
        batch.images.tensor_split(_ZICO_PARTS), batch.labels.tensor_split(_ZICO_PARTS), strict=True
    ):
        loss = F.cross_entropy(logits_of(network(images)), labels)
        gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
        parts.append([by.abs() for by in gradients])
    total = 0.0
    for layer in zip(*parts, strict=True):
        sizes = torch.stack(layer)
        spread = sizes.std(0, unbiased=False)
        steadiness = float((sizes.mean(0)[spread > 0] / spread[spread > 0]).sum())
        total += math.log(steadiness) if steadiness > 0 else 0.0
    return total


SCORES: dict[str, Callable[[nn.Module, Batch], float]] = {
    score.__name__: score for score in (jacov, naswot, synflow, grad_norm, zen, swap, zico)
}
"""Name -> score."""


def batch_for(name: str, batch: Batch) -> Batch:
    """Return the part of a batch that a score takes: 16 images for SWAP, all of them for the others."""
    return Batch(*(part[:_SWAP_IMAGES] for part in batch)) if name == "swap" else batch


def scores_of(genotype: Genotype, shape: NetworkShape, batch: Batch, names: Sequence[str]) -> dict[str, float]:
    """Return scores of the derived network of a genotype, always with the same initial weights.

    Args:
        genotype: The topology.
        shape: Width, classes and images.
        batch: The batch, on the device to compute on.
        names: Names in :data:`SCORES`.

    Returns:
        The scores by name, without those that are not finite or need more images. Random generators keep their states.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = to_device(network_from(genotype, shape), batch.images.device)
        values = {}
        for name in names:
            with contextlib.suppress(ValueError):  # too few images
                values[name] = SCORES[name](network, batch_for(name, batch))
    return {name: value for name, value in values.items() if math.isfinite(value)}


def rank_score(scores: Mapping[str, float], genotype: Genotype, macs: int, num_images: int) -> float | None:
    """Return the score by which networks of one run are ranked; more is better.

    In the skeleton of DARTS it is zen. In that of NAS-Bench-201, where cells of few convolutions differ more in depth
    and cost, it is the cost and jacov in equal parts: ``log(macs) / 0.40 - log(-jacov - N) / 0.60``.

    Args:
        scores: What :func:`scores_of` returned.
        genotype: The network.
        macs: Its multiply-adds, counted alike for all networks of the run.
        num_images: Images N of the batch of the scores.

    Returns:
        None where the score is missing that it is made of.
    """
    value = scores.get(RANKING[genotype.skeleton])
    if value is None or genotype.skeleton == "darts":
        return value
    excess = max(-value - num_images, _LEAST_EXCESS)  # 0 where no two images are alike to the network
    return math.log(max(macs, 1)) / _SPREAD_OF_LOG_MACS - math.log(excess) / _SPREAD_OF_LOG_JACOV


def _at_work(network: nn.Module) -> nn.Module:
    """Return a copy in training mode, whose batch norms use the statistics of the batch."""
    return copy.deepcopy(network).train()


def _weights(network: nn.Module) -> list[Tensor]:
    return [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _features(output: Any) -> Tensor:
    taps = output.taps if isinstance(output, NetworkOutput) else ()
    return logits_of(output) if not taps or taps[-1] is None else taps[-1]


def _relu_patterns(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Return for each ReLU which of its outputs are positive, (N, outputs)."""
    with _Watched(F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_) as watched:
        _at_work(network)(images)
    return [result.flatten(1) > 0 for _, result in watched.calls]


class _Watched(TorchFunctionMode):
    """Collects what some of torch's functions are given first and return.

    Modules are watched through the functions that they call, for the cells of a network call them without modules.

    Args:
        functions: Those to watch.
    """

    def __init__(self, *functions: Callable[..., Any]) -> None:
        super().__init__()
        self._functions = functions
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self._functions:
            self.calls.append((args[0], result))
        return result
