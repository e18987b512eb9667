"""Text of numbers and origins, the same in hovers, tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.charts.template import text_of
from dnad_ray.run_folder.metrics import metric

__all__ = ["HOVER", "KINDS", "UNLABELLED", "hover_of", "hovers_of", "kd_in_words", "shown"]

HOVER = (
    ("error", "test_error", "macs"),
    ("params", "num_operations", "latency_p50"),
    ("run", "trial"),
    ("seed", "epoch", "step", "kind"),
    ("shrink_rate", "kd"),
    ("digest",),
)
"""The lines of the hover text of a snapshot; missing values are left out."""

UNLABELLED = frozenset({"run", "trial", "kind", "digest", "name"})
"""Columns that need no label, because they hold names."""

KINDS = {
    "pruned": "operations were deleted",
    "pareto": "shrinking stalled",
    "final": "the search ended",
    "ladder": "the weights imply it at that size",
}
"""Why a snapshot of each kind was taken, in the order of legends."""


def shown(name: str, value: Any) -> str:
    """Write a value as tables and hovers show it.

    >>> shown("error", 0.0375), shown("macs", 1234567), shown("kd_temperature", float("nan"))
    ('3.75%', '1,234,567', '-')
    """
    if pd.isna(value):
        return "-"
    return value if isinstance(value, str) else format(value, metric(name).format)


def kd_in_words(row: Mapping[Any, Any]) -> str:
    """Describe the imitation of a snapshot.

    >>> kd_in_words({"kd_kind": "logits", "kd_temperature": 4.0, "kd_weight": 0.5})
    'logits, T 4, weight 0.5'
    >>> kd_in_words({"kd_kind": "none", "kd_temperature": None, "kd_weight": 1.0})
    'none'
    """
    if row["kd_kind"] == "none":
        return "none"
    temperature, weight = (shown(name, row.get(name)) for name in ("kd_temperature", "kd_weight"))
    told = [(row["kd_kind"], row["kd_kind"]), (temperature, f"T {temperature}"), (weight, f"weight {weight}")]
    return ", ".join(words for value, words in told if value != "-")


def hover_of(row: Mapping[Any, Any]) -> str:
    """Return the hover text of a snapshot: its numbers, then its origin."""
    lines = []
    for names in HOVER:
        words = [_named(row, name) for name in names if _is_there(row, name)]
        if words:
            lines.append(text_of((" / " if names == ("run", "trial") else " | ").join(words)))
    return "<br>".join([f"<b>{lines[0]}</b>", *lines[1:]]) if lines else ""


def hovers_of(frame: pd.DataFrame) -> list[str]:
    """Return the hover text of each row; of a hundred columns only those that it names are looked at."""
    named = {*(name for names in HOVER for name in names), "kd_kind", "kd_temperature", "kd_weight"}
    return [hover_of(row) for row in frame[[name for name in frame if name in named]].to_dict("records")]


def _is_there(row: Mapping[Any, Any], name: str) -> bool:
    column = "kd_kind" if name == "kd" else name
    return column in row and not pd.isna(row[column])


def _named(row: Mapping[Any, Any], name: str) -> str:
    if name in UNLABELLED:
        return str(row[name])
    return f"KD {kd_in_words(row)}" if name == "kd" else f"{metric(name).label} {shown(name, row[name])}"
