"""One HTML file that explains what runs found: it needs no network and shows any architecture that is clicked on."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analysis.charts.architecture import draw_architecture
from analysis.charts.front import plot_front
from analysis.charts.hypervolume import plot_hypervolume
from analysis.charts.trajectories import plot_paths, plot_shrinking
from analysis.charts.words import KINDS, kd_in_words, shown
from analysis.frame import Paths, RunWarning, history_frame, read_runs, snapshot_frame
from analysis.pareto import front_of
from analysis.summary import Summary, summarise
from dnad_ray.errors import UserError
from dnad_ray.places import Place, place, put
from dnad_ray.records import METRICS, metric
from dnad_ray.store import RunContents, read_genotype
from search_spaces.genotype import Genotype

__all__ = ["write_report"]

_WORDS = {
    "run": "Run",
    "trial": "Trial",
    "kind": "Kind",
    "kd": "Imitation",
    "digest": "Architecture",
    "counter": "Costs by",
}
_TABLE = (
    "error",
    "macs",
    "params",
    "num_operations",
    "run",
    "trial",
    "seed",
    "epoch",
    "shrink_rate",
    "kd",
    "device_seconds",
)
_DETAILS = (
    *("error", "macs", "macs_conv_linear", "params", "num_operations", "run", "trial", "seed", "epoch", "step", "kind"),
    *("shrink_rate", "kd", "train_accuracy", "device_seconds", "counter", "digest"),
)


class _Chart(NamedTuple):
    """A chart of the report: its id in the page, heading and caption."""

    name: str
    heading: str
    caption: str


_CHARTS = (
    _Chart(
        "hypervolume",
        "Quality of each trial's front",
        "Share of the box from zero to the reference point that the networks of one trial dominate, in error, MACs and "
        "parameters. A dot is a trial; trials of one setting differ in their seed only.",
    ),
    _Chart(
        "shrinking",
        "Operations alive in the supernet",
        "What each search deleted, epoch by epoch.",
    ),
    _Chart(
        "paths",
        "The way of each trial",
        "A line joins the snapshots of one trial, from its densest network on the right to its sparsest on the left.",
    ),
)


def write_report(paths: Paths, out: str | Place) -> Place:
    """Write the report on one run folder or several, finished or still running.

    Args:
        paths: A run folder or several, as for :func:`analysis.frame.load_runs`.
        out: The HTML file, path or URL; it is replaced as a whole or not at all.

    Returns:
        The file.

    Raises:
        RunFolderError: If no folder is given, or one is missing, holds no run or is of a newer schema.
        UserError: If ``out`` is a folder, or lies in none.

    Warns:
        RunWarning: For each file that cannot be read; the report says so too.
    """
    file = place(out, "report")
    if isinstance(file, Path) and (file.is_dir() or not file.parent.is_dir()):
        raise UserError("report", str(out), "an HTML file in an existing folder")
    runs = read_runs(paths)
    frame, history = snapshot_frame(runs), history_frame(runs)
    _write(file, _page(runs, frame, history))
    return file


def _page(runs: Sequence[RunContents], frame: pd.DataFrame, history: pd.DataFrame) -> str:
    front = front_of(frame)
    genotypes, missing = _genotypes(front)
    summary = summarise(runs, frame, history)
    summary = summary._replace(problems=(*summary.problems, *missing))
    figures = _figures(frame, history)
    environment = Environment(loader=PackageLoader("analysis"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html").render(
        title=", ".join(run.name for run in runs),
        summary=summary,
        picks=_pick_cards(summary, frame),
        table=_table(front),
        num_front=len(front),
        charts=[chart for chart in _CHARTS if chart.name in figures],
        configs=[(run.name, yaml.safe_dump(run.config, sort_keys=False)) for run in runs],
        drawings=[(digest, Markup(draw_architecture(genotype).html)) for digest, genotype in genotypes.items()],
        plotly_js=Markup(get_plotlyjs()),
        data=_json_for_html(
            {
                "labels": [_WORDS.get(name) or metric(name).axis for name in _DETAILS],
                "points": [[_words(row, name) for name in _DETAILS] for row in frame.to_dict("records")],
                "genotypes": {digest: genotype.to_dict() for digest, genotype in genotypes.items()},
                "first": int(summary.picks[0].label) if summary.picks else None,
                "figures": {name: json.loads(str(figure.to_json())) for name, figure in figures.items()},
            }
        ),
    )


def _genotypes(front: pd.DataFrame) -> tuple[dict[str, Genotype], list[str]]:
    """Return the genotype of every network of the front by digest, and a sentence for each that is lost."""
    genotypes: dict[str, Genotype] = {}
    problems = []
    for run, folder, digest in zip(front["run"], front["run_path"], front["digest"], strict=True):
        if digest in genotypes:
            continue
        try:
            genotypes[digest] = read_genotype(folder, digest)
        except UserError as error:
            problems.append(f"{run}: architecture {digest} cannot be drawn: {error}")
            warnings.warn(problems[-1], RunWarning, stacklevel=4)
    return genotypes, problems


def _figures(frame: pd.DataFrame, history: pd.DataFrame) -> dict[str, go.Figure]:
    figures = {}
    if len(frame):
        figures["front"] = plot_front(frame)
        figures["hypervolume"] = plot_hypervolume(frame)
        figures["paths"] = plot_paths(frame)
    if len(history):
        figures["shrinking"] = plot_shrinking(history, frame)
    return figures


def _pick_cards(summary: Summary, frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = {pick.label: frame.loc[pick.label] for pick in summary.picks}
    return [
        {
            "title": pick.title,
            "why": pick.why,
            "row": pick.label,
            "numbers": [
                (metric(name).label, shown(name, rows[pick.label][name])) for name in ("error", "macs", "params")
            ],
        }
        for pick in summary.picks
    ]


def _table(front: pd.DataFrame) -> dict[str, Any]:
    return {
        "head": [(_WORDS.get(name) or metric(name).label, metric(name).unit, name in METRICS) for name in _TABLE],
        "rows": [
            {"row": label, "digest": row["digest"], "cells": [(_words(row, name), name in METRICS) for name in _TABLE]}
            for label, row in zip(front.index, front.to_dict("records"), strict=True)
        ],
    }


def _words(row: Mapping[Any, Any], name: str) -> str:
    if name == "kd":
        return kd_in_words(row)
    if name == "counter" and row["costs_traced"]:
        return f"{row[name]}, confirmed by a trace of the network"
    if name == "kind" and row[name] in KINDS:
        return f"{row[name]} ({KINDS[row[name]]})"
    return shown(name, row[name])


def _json_for_html(data: Any) -> Markup:
    # Inside <script> a browser looks for "</script" and "<!--" before anything else: no "<" may be left.
    return Markup(json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


def _write(file: Place, page: str) -> None:
    if not isinstance(file, Path):
        put(file, page.encode())
        return
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(page)
        Path(temporary).chmod(0o644)  # mkstemp makes it private; reports are for sharing
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
