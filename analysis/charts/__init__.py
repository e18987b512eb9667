"""Charts: one figure a file, each as a selection of numbers (``_info``) and its drawing (``_figure``)."""

from __future__ import annotations

from analysis.charts.architecture import Drawing, draw_architecture
from analysis.charts.front import plot_front
from analysis.charts.hypervolume import plot_hypervolume
from analysis.charts.trajectories import plot_paths, plot_shrinking

__all__ = ["Drawing", "draw_architecture", "plot_front", "plot_hypervolume", "plot_paths", "plot_shrinking"]
