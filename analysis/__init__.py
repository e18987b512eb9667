"""What was found: run folders as frames, Pareto fronts, charts and one HTML report. Loads neither torch nor Ray."""

from __future__ import annotations

from analysis.charts.architecture import Drawing, draw_architecture
from analysis.charts.front import plot_front
from analysis.charts.hypervolume import plot_hypervolume
from analysis.charts.trajectories import plot_paths, plot_shrinking
from analysis.frame import RunWarning, load_history, load_runs, setting_of, to_records
from analysis.pareto import (
    OBJECTIVES,
    front_of,
    hypervolume,
    hypervolume_share,
    knee_of,
    pareto_mask,
    reference_point,
    trial_hypervolumes,
)
from analysis.report import write_report

__all__ = [
    "OBJECTIVES",
    "Drawing",
    "RunWarning",
    "draw_architecture",
    "front_of",
    "hypervolume",
    "hypervolume_share",
    "knee_of",
    "load_history",
    "load_runs",
    "pareto_mask",
    "plot_front",
    "plot_hypervolume",
    "plot_paths",
    "plot_shrinking",
    "reference_point",
    "setting_of",
    "to_records",
    "trial_hypervolumes",
    "write_report",
]
