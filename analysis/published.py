"""Published figures of papers, for a marked overlay. They come from other training, mostly the best of many runs."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from dnad_ray.errors import UserError

__all__ = ["published_figures"]


class _Figure(NamedTuple):
    """One row of a table: errors in per cent, parameters and multiply-adds in millions."""

    name: str
    dataset: str
    error: float
    params: float | None
    macs: float | None
    source: str


_FIGURES = (
    _Figure("DARTS (2nd order)", "cifar10", 2.76, 3.3, None, "Liu et al. 2019, arXiv 1806.09055, table 1"),
    _Figure("SNAS", "cifar10", 2.85, 2.8, None, "Xie et al. 2019, arXiv 1812.09926"),
    _Figure("GDAS", "cifar10", 2.93, 3.4, None, "Dong & Yang 2019, arXiv 1910.04465"),
    _Figure("P-DARTS", "cifar10", 2.50, 3.4, None, "Chen et al. 2019, arXiv 1904.12760"),
    _Figure("PC-DARTS", "cifar10", 2.57, 3.6, None, "Xu et al. 2020, arXiv 1907.05737"),
    _Figure("DrNAS", "cifar10", 2.46, 4.1, None, "Chen et al. 2021, arXiv 2006.10355"),
    _Figure("DSO-NAS", "cifar10", 2.84, 3.0, None, "Zhang et al. 2018, arXiv 1811.01567"),
    _Figure("DARTS (2nd order)", "imagenet", 26.7, 4.7, 574, "Liu et al. 2019, arXiv 1806.09055, table 3"),
    _Figure("P-DARTS", "imagenet", 24.4, 4.9, 557, "Chen et al. 2019, arXiv 1904.12760"),
    _Figure("PC-DARTS", "imagenet", 24.2, 5.3, 597, "Xu et al. 2020, arXiv 1907.05737"),
    _Figure("DrNAS", "imagenet", 23.7, 5.7, None, "Chen et al. 2021, arXiv 2006.10355"),
    _Figure("DNAD", "imagenet", 23.7, 6.0, 598, "Rao et al. 2025, arXiv 2504.20080"),
)


def published_figures(dataset: str) -> pd.DataFrame:
    """Return published test errors and costs of differentiable searches on a dataset.

    They are the best results of papers: means over independent searches are 0.2 to 0.4 points higher on CIFAR-10, and
    every paper trains differently. What papers call FLOPs are multiply-adds of convolutions and linear layers.

    Args:
        dataset: ``cifar10`` or ``imagenet``.

    Returns:
        ``name``, ``test_error`` (share of test images), ``params``, ``macs`` and the same as ``macs_conv_linear``
        (missing where no paper says so), ``source``: what :func:`analysis.charts.front.plot_front` takes as overlay.

    Raises:
        UserError: If nothing is known for the dataset.

    Examples:
        >>> published_figures("cifar10")["name"].tolist()[:2]
        ['DARTS (2nd order)', 'SNAS']
    """
    rows = [
        {
            "name": figure.name,
            "test_error": round(figure.error / 100, 6),
            "params": None if figure.params is None else round(figure.params * 1e6),
            "macs": None if figure.macs is None else figure.macs * 1e6,
            "macs_conv_linear": None if figure.macs is None else figure.macs * 1e6,
            "source": figure.source,
        }
        for figure in _FIGURES
        if figure.dataset == dataset
    ]
    if not rows:
        raise UserError("dataset", dataset, " or ".join(sorted({figure.dataset for figure in _FIGURES})))
    table: pd.DataFrame = pd.DataFrame(rows).astype(dict.fromkeys(("params", "macs", "macs_conv_linear"), "float64"))
    return table
