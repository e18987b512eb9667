"""Charts: one figure a file, each as a selection of numbers (``_info``) and its drawing (``_figure``)."""

from __future__ import annotations

from analysis.charts.architecture import Drawing, draw_architecture
from analysis.charts.attainment import plot_attainment
from analysis.charts.compute import plot_compute
from analysis.charts.front import plot_front
from analysis.charts.front_3d import plot_front_3d
from analysis.charts.hypervolume import plot_hypervolume
from analysis.charts.importance import plot_importance
from analysis.charts.operations import plot_operations
from analysis.charts.parallel import plot_parallel
from analysis.charts.ranking import plot_ranking
from analysis.charts.response import plot_response
from analysis.charts.template import in_dark
from analysis.charts.trajectories import plot_paths, plot_shrinking
from analysis.charts.weights import plot_weights

__all__ = [
    "Drawing",
    "draw_architecture",
    "in_dark",
    "plot_attainment",
    "plot_compute",
    "plot_front",
    "plot_front_3d",
    "plot_hypervolume",
    "plot_importance",
    "plot_operations",
    "plot_parallel",
    "plot_paths",
    "plot_ranking",
    "plot_response",
    "plot_shrinking",
    "plot_weights",
]
