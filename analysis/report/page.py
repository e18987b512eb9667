"""The report: one HTML file that needs no network and shows any architecture that is clicked."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analysis.charts.architecture import draw_architecture
from analysis.charts.template import DARK
from analysis.charts.words import shown
from analysis.comparison import compare_front, compare_network
from analysis.frame import Paths, RunWarning, history_frame, read_runs, setting_of, snapshot_frame, weight_frame
from analysis.intervals import against_smaller, with_intervals
from analysis.measurements import measurement_frame, retrained_frame, retrained_networks
from analysis.pareto import front_of
from analysis.quality import contributions
from analysis.report.affordable import EPOCHS, RECIPE, training_seconds
from analysis.report.charts import ReportTables, charts_of, grouped
from analysis.report.data import column_of, numbers_of, packed, words_of
from analysis.report.facts import facts_of
from analysis.report.glossary import glossary_of
from analysis.report.summary import Pick, summarise, trained_front
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import METRICS, metric
from dnad_ray.run_folder.outputs import PAGES, output_file
from dnad_ray.run_folder.reading import RunContents, read_genotype
from dnad_ray.storage.files import write_bytes
from dnad_ray.storage.places import Place, address, place
from dnad_ray.text import counted
from search_spaces.genotype import Genotype

__all__ = ["write_report"]

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # that of libyaml is ten times as fast
_WORDS = {
    "run": "Run",
    "trial": "Trial",
    "kind": "Kind",
    "kd": "Imitation",
    "setting": "Setting",
    "digest": "Architecture",
    "counter": "Costs by",
}
_TABLE = (
    *("error", "macs", "params", "num_operations", "run", "trial", "seed", "epoch", "shrink_rate", "kd"),
    "device_seconds",
)
_DETAILS = (
    *("error", "macs", "params", "num_operations", "trial", "setting"),
    *("run", "macs_conv_linear", "seed", "epoch", "step", "kind", "score", "shrink_rate", "kd", "train_accuracy"),
    *("device_seconds", "counter", "digest"),
)
_BUDGETS = ("macs", "params", "error")
_MOST_ROWS = 500  # of the table of the front; more are in the chart
_NETWORK_BYTES = 1_600_000
"""Room for the networks of the front, packed: some 150 dense ones of 14 cells. With ten thousand snapshots and plotly
itself the page then stays below 8 MB."""


def write_report(paths: Paths, out: str | Place) -> Place:
    """Write the report on one run folder or several, finished or still running.

    Args:
        paths: A run folder or several, as for :func:`analysis.frame.load_runs`.
        out: The HTML file, path or URL; it is replaced as a whole or not at all.

    Returns:
        The file.

    Raises:
        RunFolderError: If no folder is given, or one is missing, holds no run or is of a newer schema.
        UserError: If ``out`` is no HTML file that may be written, see :func:`dnad_ray.run_folder.outputs.output_file`.
        ResourceError: If there is no space left; an earlier file is kept.

    Warns:
        RunWarning: For each file that cannot be read; the report says so too.
    """
    runs = read_runs(paths)
    file = output_file(out, PAGES, argument="report", what="an HTML file")
    write_bytes(file, _page(runs).encode())
    return place(out, "report")


def _page(runs: Sequence[RunContents]) -> str:
    frame, history, retrained = snapshot_frame(runs), history_frame(runs), retrained_frame(runs)
    with_trained = {*retrained["run"]}
    front = front_of(frame)
    genotypes, missing = _genotypes(front)
    summary = summarise(runs, frame, history, retrained)
    picks = frame.loc[[pick.label for pick in summary.picks]]  # the best one need not be on the front
    others, lost = _genotypes(picks[~picks["digest"].isin(front["digest"])])
    summary = summary._replace(problems=(*summary.problems, *missing, *lost))
    charts = charts_of(ReportTables(frame, history, retrained, genotypes, weight_frame(runs)))
    networks, num_undrawn = _networks(genotypes | others, picks["digest"])
    seconds = training_seconds(frame, history)
    rows = frame.assign(setting=setting_of(frame).astype(str), retrain=seconds)
    rows = rows[[name for name in rows if not str(name).startswith("config.")]]
    details = [name for name in _DETAILS if name != "score" or frame["score"].notna().any()]
    environment = Environment(loader=PackageLoader("analysis"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html").render(
        title=", ".join(run.name for run in runs),
        summary=summary,
        facts=[(run.name, facts_of(run, frame[frame["run"] == run.name])) for run in runs],
        picks=_pick_cards(summary.picks, frame, "error"),
        trained_picks=_pick_cards(summary.trained, trained_front(retrained), "test_error"),
        table=_table(front.head(_MOST_ROWS)),
        num_front=len(front),
        num_rows=min(len(front), _MOST_ROWS),
        num_undrawn=num_undrawn,
        budgets=[(metric(name), "5%" if _is_share(name) else "30M") for name in _BUDGETS],
        owners=_owners(frame),
        # Only of these runs: to look for measurements in a thousand others takes a second.
        trained=_trained_table(retrained, measurement_frame([run for run in runs if run.name in with_trained])),
        verdicts=_verdicts(retrained),
        groups=grouped([chart for chart in charts if chart.name != "front"]),
        words=glossary_of(frame),
        configs=[(run.name, yaml.dump(run.config, Dumper=_DUMPER, sort_keys=False)) for run in runs],
        plotly_js=Markup(get_plotlyjs()),  # deflated it would be half as large, and start half a second later
        data=packed(
            {
                "details": details,
                "labels": [_WORDS.get(name) or metric(name).axis for name in details],
                "columns": {name: column_of(rows, name) for name in (*details, "retrain")},
                "numbers": numbers_of(frame, _BUDGETS),
                "training": f"{EPOCHS} epochs, one seed",
                "front": [int(label) for label in front.index],
                "networks": networks,
                "commands": {
                    run.name: f"dnad-ray retrain {shlex.quote(address(run.path))} --recipe {RECIPE}" for run in runs
                },
                "first": int(summary.picks[0].label) if summary.picks else None,
                "figures": {chart.name: json.loads(str(chart.figure.to_json())) for chart in charts},
                "dark": DARK,
            }
        ),
    )


def _is_share(name: str) -> bool:
    return metric(name).unit.startswith("share")


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


def _networks(genotypes: dict[str, Genotype], first: Iterable[str]) -> tuple[dict[str, str], int]:
    """Return genotype and drawing of networks, packed, while there is room, and how many are left out.

    Args:
        genotypes: Networks of the front, cheapest first.
        first: Those that must be there. The others are taken so that any number of them is spread over the front.
    """
    packages: dict[str, str] = {}
    size = 0
    for digest in dict.fromkeys([*(digest for digest in first if digest in genotypes), *_spread(list(genotypes))]):
        genotype = genotypes[digest]
        package = packed({"genotype": genotype.to_dict(), "drawing": draw_architecture(genotype).html})
        size += len(package)
        if size > _NETWORK_BYTES and packages:
            break
        packages[digest] = package
    return packages, len(genotypes) - len(packages)


def _spread(names: list[str]) -> Iterable[str]:
    """Yield every name, ends and middles first: each one halves the widest gap."""
    step = 1 << max(0, len(names) - 1).bit_length()
    while step:
        yield from names[::step]
        step //= 2


def _owners(frame: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return the ten settings with the largest contribution: name, points, their share, and the loss without it."""
    table = contributions(frame) if len(frame) else frame
    if len(table) < 2:
        return []
    table = table[table["front_points"] > 0]
    return [
        (
            str(name),
            [f"{row['front_points']:,.0f}", f"{row['front_share']:.0%}", shown("hypervolume", row["contribution"])],
        )
        for name, row in zip(table.index[:10], table.head(10).to_dict("records"), strict=True)
    ]


def _trained_table(retrained: pd.DataFrame, measured: pd.DataFrame) -> dict[str, Any]:
    """Return the networks that were trained from scratch, the best first: heads and rows of words."""
    networks = with_intervals(retrained_networks(retrained)).sort_values(
        ["protocol", "dataset", "images", "test_error", "macs"], kind="stable"
    )
    alike = networks.groupby(["protocol", "dataset", "images"], sort=False)
    against = pd.concat([against_smaller(part) for _, part in alike]) if len(networks) else pd.Series(dtype="str")
    networks = networks.assign(against=against)
    kinds = networks["origin"].where(networks["origin"] != "torchvision", networks["model"])
    head = [metric("test_error").label, "95 % interval", "Than the next smaller", "Deviation over seeds", "Seeds"]
    head += ["Measured on", "MACs", "Parameters"]
    timed = _latencies(networks, measured)
    rows = [
        {
            "name": row["digest"],
            "origin": "front" if kind == "search" else kind,
            "cells": [
                shown("test_error", row["test_error"]),
                f"{shown('test_error', row['error_low'])} to {shown('test_error', row['error_high'])}",
                row["against"],
                shown("test_error", row["accuracy_std"]),
                str(row["num_seeds"]),
                f"{row['num_images']:,} {row['split']} images",
                shown("macs", row["macs"]),
                shown("params", row["params"]),
                *(shown("latency_p50", times.get(_size_of(row))) for times in timed.values()),
            ],
            "protocol": f"{row['recipe']}, {row['epochs']} epochs on {row['dataset']} {row['images'][:6]}".rstrip(),
        }
        for kind, row in zip(kinds, networks.to_dict("records"), strict=True)
    ]
    return {"head": [*head, *timed], "rows": rows[:_MOST_ROWS], "num_rows": len(rows)}


def _latencies(networks: pd.DataFrame, measured: pd.DataFrame) -> dict[str, dict[tuple[Any, ...], float]]:
    """Return the median latencies of networks: machine in words -> network and size -> milliseconds."""
    known = {_size_of(row) for row in networks.to_dict("records")}
    found: dict[str, dict[tuple[Any, ...], float]] = {}
    for row in measured.to_dict("records"):
        if _size_of(row) in known:
            threads = counted(row["threads"], "thread")
            machine = f"Latency, ms (batch {row['batch_size']}, {row['device_name']}, {threads})"
            found.setdefault(machine, {})[_size_of(row)] = row["latency_p50"]
    return found


def _size_of(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("digest", "init_channels", "width", "image_size"))


def _verdicts(retrained: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the comparison of retrained networks with baselines, for each protocol."""
    verdicts = []
    for _, part in retrained.groupby(["protocol", "dataset", "images"], sort=True):
        records = [{str(name): value for name, value in row.items()} for row in part.to_dict("records")]
        lines = compare_network(records)
        if lines:
            first = records[0]
            data = f"{first['dataset']} {first['images'][:6]}".rstrip()
            words = f"{first['recipe']}, {first['epochs']} epochs on {data} (protocol {first['protocol']})"
            verdicts.append({"protocol": words, "summary": compare_front(records), "lines": lines})
    return verdicts


def _pick_cards(picks: Sequence[Pick], frame: pd.DataFrame, error: str) -> list[dict[str, Any]]:
    rows = {pick.label: frame.loc[pick.label] for pick in picks}
    return [
        {
            "title": pick.title,
            "why": pick.why,
            "row": pick.label,
            "digest": rows[pick.label]["digest"],
            "folder": shlex.quote(str(rows[pick.label]["run_path"])),
            "trial": rows[pick.label]["trial"],
            "numbers": [
                (metric(name).label, shown(name, rows[pick.label][name])) for name in (error, "macs", "params")
            ],
        }
        for pick in picks
    ]


def _table(front: pd.DataFrame) -> dict[str, Any]:
    return {
        "head": [(_WORDS.get(name) or metric(name).label, metric(name).unit, name in METRICS) for name in _TABLE],
        "rows": [
            {
                "row": label,
                "digest": row["digest"],
                "cells": [(words_of(row, name), name in METRICS) for name in _TABLE],
            }
            for label, row in zip(front.index, front.to_dict("records"), strict=True)
        ],
    }
