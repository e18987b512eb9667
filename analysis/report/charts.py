"""The charts of a report: those that its data can fill, in groups that each answer one question.

Of a group one chart is shown at a time. A chart that would say what another one says is left out: three objectives
where parameters put no further network on the front, seeds where no setting has two, importance where trials are few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

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
from analysis.charts.trajectories import plot_paths, plot_shrinking
from analysis.charts.weights import plot_weights
from analysis.frame import setting_of
from analysis.importance import varied_settings
from analysis.measurements import comparable, retrained_networks, sets_of_images
from analysis.pareto import front_of
from analysis.published import published_figures
from search_spaces.genotype import Genotype

__all__ = ["Chart", "Group", "ReportTables", "charts_of", "grouped"]

MOST_DOMINATED = 1500
"""Markers of dominated snapshots in the first chart; a browser draws as many at once."""

_MOST_PANELS = 6
_LONG_LEGEND = 7  # entries
_COLOURED_BY_SETTING = frozenset({"attainment", "compute", "shrinking", "paths"})
_PLAIN_HEIGHT = 440
_FEWEST_TRIALS = 10  # of an importance: with six trials its interval goes from nearly nothing to nearly all
_GROUPS = {
    "trained": "Trained from scratch",
    "front": "The front",
    "trade-offs": "Trade-offs on the front",
    "settings": "Settings and seeds",
    "operations": "Operations of the front",
    "searches": "How the searches went",
}
_PUBLISHED = {"cifar10": "cifar10", "imagenet": "imagenet"}  # names of datasets here, and there


class ReportTables(NamedTuple):
    """The tables and genotypes that a report is drawn from.

    Attributes:
        frame: Snapshots.
        history: Epochs of the searches.
        retrained: Networks trained from scratch, a row per seed.
        genotypes: Networks of the front by digest, cheapest first.
        weights: Architecture weights by epoch.
    """

    frame: pd.DataFrame
    history: pd.DataFrame
    retrained: pd.DataFrame
    genotypes: Mapping[str, Genotype]
    weights: pd.DataFrame


class Chart(NamedTuple):
    """A chart of the report: its id in the page, group, heading, caption and figure."""

    name: str
    group: str
    heading: str
    caption: str
    figure: go.Figure


class Group(NamedTuple):
    """Charts about one question: its id in the page, heading and charts."""

    name: str
    heading: str
    charts: tuple[Chart, ...]


_Entry = tuple[str, str, str, str, Callable[[], go.Figure]]


def charts_of(found: ReportTables) -> list[Chart]:
    """Return the charts that the data can fill; networks trained from scratch come first, then the front."""
    charts = [Chart(name, group, heading, caption, draw()) for name, group, heading, caption, draw in _entries(found)]
    num_settings = len(setting_of(found.frame).cat.categories) if len(found.frame) else 0
    return [_without_legend(chart) if num_settings > _LONG_LEGEND else chart for chart in charts]


def grouped(charts: Sequence[Chart]) -> list[Group]:
    """Return charts by their groups, without empty ones."""
    groups = (Group(name, words, tuple(c for c in charts if c.group == name)) for name, words in _GROUPS.items())
    return [group for group in groups if group.charts]


def _without_legend(chart: Chart) -> Chart:
    """Return a chart that leaves a long legend of settings to the front, where it has the same colours."""
    if chart.name not in _COLOURED_BY_SETTING:
        return chart
    chart.figure.update_layout(showlegend=False, height=_PLAIN_HEIGHT)
    return chart._replace(caption=f"{chart.caption} Colours are those of the front's legend.")


def _entries(found: ReportTables) -> Iterator[_Entry]:
    frame = found.frame
    yield from _retrained(found)
    if len(frame):
        yield "front", "front", "The front", "", lambda: plot_front(frame, most_dominated=MOST_DOMINATED)
    if len(frame) and _has_third_objective(frame):
        yield (
            "parallel", "trade-offs", "Parallel axes",
            "A line is a network of the front; better is up on every axis, and lines that cross show what is traded. A "
            "click on a dot shows the network above, one on the legend hides a group.",
            lambda: plot_parallel(frame),
        )  # fmt: skip
        yield (
            "space", "trade-offs", "Three objectives",
            "Error upward, MACs and parameters on the ground. Drag to turn; click a point to see the network above.",
            lambda: plot_front_3d(frame),
        )  # fmt: skip
    yield from _settings(frame)
    if found.genotypes and len({len(genotype.cells) for genotype in found.genotypes.values()}) == 1:
        yield (
            "operations", "operations", "Operations by cell",
            "Edges of each operation by cell, from the stem to the classifier: the mean over networks of similar MACs.",
            lambda: plot_operations(found.genotypes),
        )  # fmt: skip
    if len(frame) and _num_trials(frame) > 1:
        yield (
            "paths", "searches", "Path of each trial",
            "A line joins the networks of one trial, from its densest on the right to its sparsest on the left.",
            lambda: plot_paths(frame),
        )  # fmt: skip
    if len(found.history):
        yield (
            "shrinking", "searches", "Operations alive",
            "Operations that are left in the supernet, epoch by epoch.",
            lambda: plot_shrinking(found.history, frame),
        )  # fmt: skip
    if len(found.weights):
        yield (
            "weights", "searches", "Architecture weights",
            "Share of each operation, the mean over cells and trials; the band spans the trials.",
            lambda: plot_weights(found.weights),
        )  # fmt: skip
    if len(frame):
        yield (
            "compute", "searches", "Hypervolume over compute",
            "Share of the box from zero to the reference point that the networks of a trial beat so far, over the "
            "seconds it has spent.",
            lambda: plot_compute(frame),
        )  # fmt: skip


def _has_third_objective(frame: pd.DataFrame) -> bool:
    """Whether a network is on the front for its parameters alone; else the front in error and MACs says all."""
    return len(front_of(frame)) > len(front_of(frame, ("error", "macs")))


def _num_trials(frame: pd.DataFrame) -> int:
    return len(frame.drop_duplicates(["run", "trial"]))


def _settings(frame: pd.DataFrame) -> Iterator[_Entry]:
    if not len(frame) or (num_trials := _num_trials(frame)) < 2:
        return
    yield (
        "hypervolume", "settings", "Quality of each trial's front",
        "Hypervolume: the share of the box from zero to the reference point that the networks of one trial beat, in "
        "error, MACs and parameters. A dot is a trial; trials of one setting differ in their seed only, so dots apart "
        "in one row are what chance does.",
        lambda: plot_hypervolume(frame),
    )  # fmt: skip
    if num_trials > len(setting_of(frame).cat.categories):
        yield (
            "attainment", "settings", "Attainment over seeds",
            "The line is reached by at least half of the trials of a setting; the band is between the best trial and "
            "the level that all trials reached (attainment surfaces).",
            lambda: plot_attainment(frame),
        )  # fmt: skip
    finished = frame[frame["kind"] == "final"]
    temperatures = finished["kd_temperature"].dropna().nunique()
    if temperatures > 1 and finished["shrink_rate"].nunique() <= _MOST_PANELS:
        yield (
            "response", "settings", "Response to the KD temperature",
            "Hypervolume of finished trials against the KD temperature, by KD weight and shrink rate, all on one axis "
            "from zero. A dot is a trial. Where a setting has several seeds, a line joins their means and the band "
            "goes from the worst to the best.",
            lambda: plot_response(frame),
        )  # fmt: skip
    trials = finished.drop_duplicates(["run", "trial"])
    if varied_settings(trials) and len(trials) >= _FEWEST_TRIALS:
        yield (
            "importance", "settings", "Which settings matter",
            "Share of the variance between trials that each setting explains alone (omega squared), with its 95 % "
            "interval; the rest is seeds and interactions.",
            lambda: plot_importance(frame),
        )  # fmt: skip


def _retrained(found: ReportTables) -> Iterator[_Entry]:
    networks = retrained_networks(found.retrained)
    if not len(networks):
        return
    kept = comparable(networks)
    words = f"protocol {kept['protocol'][0]}: recipe {kept['recipe'][0]}, {kept['epochs'][0]} epochs"
    if sets_of_images(networks) > 1:
        words += f" on one of the sets of images, {kept['dataset'][0]}"
    split = "test images" if set(kept["split"]) == {"test"} else "images of the split that the table names"
    known = _PUBLISHED.get(str(kept["dataset"][0]))
    overlay = published_figures(known) if known else None
    marked = " Stars are published figures: other training, mostly the best of many runs." if known else ""
    # Networks of the front and each kind of baseline in colours of their own; baselines are as wide as MACs allow.
    kinds = kept["origin"].where(kept["origin"] != "torchvision", kept["model"])
    has_seeds = bool(kept["accuracy_std"].notna().any())
    bars = "the standard deviation" if has_seeds else "the 95 % interval of counting on that many images"
    cost, other = ("macs", "params") if (kept["origin"] != "search").any() else ("params", "macs")
    against = "multiply-adds" if cost == "macs" else "parameters"
    yield (
        "retrained", "trained", "Error against cost",
        f"Error on {split} against {against}, the mean over seeds, bars {bars} "
        f"({words}). These numbers are never mixed with proxy errors.{marked}",
        lambda: plot_front(kept.assign(run=kinds), ("test_error", cost, other), colour="run", overlay=overlay),
    )  # fmt: skip
    if kept["proxy_accuracy"].notna().sum() > 2:
        yield (
            "ranking", "trained", "Proxy accuracy against accuracy",
            f"A dot is a network; bars are the standard deviation over seeds ({words}). A rank correlation near 0 "
            "means that the proxy does not tell which network is better.",
            lambda: plot_ranking(kept),
        )  # fmt: skip
