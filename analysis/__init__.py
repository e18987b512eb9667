"""What was found: run folders as frames, fronts and their quality, charts, one HTML report. Loads no torch, no Ray."""

from __future__ import annotations

from analysis.attainment import attainment_surfaces
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
from analysis.charts.response import plot_response, trial_results
from analysis.charts.template import in_dark
from analysis.charts.trajectories import plot_paths, plot_shrinking
from analysis.charts.weights import plot_weights
from analysis.figure_file import save_figure
from analysis.filled_notebook import write_notebook
from analysis.frame import RunWarning, load_history, load_runs, load_weights, setting_of, to_records
from analysis.importance import importance_of
from analysis.interop.optuna_studies import from_optuna, to_optuna
from analysis.interop.tables import from_frame, read_points, write_points
from analysis.interop.tune_results import from_result_grid, to_tune_points
from analysis.measurements import (
    architectures,
    load_measurements,
    load_retrained,
    retrained_networks,
    with_measurements,
    with_retrained,
)
from analysis.objectives import OBJECTIVES, best_under, parse_budget, within
from analysis.pareto import (
    front_of,
    hypervolume,
    hypervolume_share,
    knee_of,
    pareto_mask,
    reference_point,
    trial_hypervolumes,
)
from analysis.published import published_figures
from analysis.quality import compare_fronts, contributions, convex_hull, coverage, epsilon
from analysis.ranking import rank_correlation
from analysis.report.page import write_report

__all__ = [
    "OBJECTIVES",
    "Drawing",
    "RunWarning",
    "architectures",
    "attainment_surfaces",
    "best_under",
    "compare_fronts",
    "contributions",
    "convex_hull",
    "coverage",
    "draw_architecture",
    "epsilon",
    "from_frame",
    "from_optuna",
    "from_result_grid",
    "front_of",
    "hypervolume",
    "hypervolume_share",
    "importance_of",
    "in_dark",
    "knee_of",
    "load_history",
    "load_measurements",
    "load_retrained",
    "load_runs",
    "load_weights",
    "pareto_mask",
    "parse_budget",
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
    "published_figures",
    "rank_correlation",
    "read_points",
    "reference_point",
    "retrained_networks",
    "save_figure",
    "setting_of",
    "to_optuna",
    "to_records",
    "to_tune_points",
    "trial_hypervolumes",
    "trial_results",
    "with_measurements",
    "with_retrained",
    "within",
    "write_notebook",
    "write_points",
    "write_report",
]
