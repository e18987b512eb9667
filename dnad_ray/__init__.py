"""Differentiable neural architecture distillation on Ray: one search, a whole Pareto front of networks.

The package re-exports nothing, so that reading a run folder loads neither torch nor Ray: import the module you
need, for example :mod:`dnad_ray.config.run` or :mod:`dnad_ray.search.loop`.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
