"""Numbers and provenance in words, the same in hovers, tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.charts.template import text_of
from dnad_ray.records import metric

__all__ = ["KINDS", "hover_of", "kd_in_words", "shown"]

KINDS = {"pruned": "operations were deleted", "pareto": "shrinking stalled", "final": "the search ended"}
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
    temperature = shown("kd_temperature", row["kd_temperature"])
    parts = [row["kd_kind"], *([f"T {temperature}"] if temperature != "-" else [])]
    return ", ".join([*parts, f"weight {shown('kd_weight', row['kd_weight'])}"])


def hover_of(row: Mapping[Any, Any]) -> str:
    """Return what a chart says about the snapshot under the pointer: its numbers first, then where it is from."""

    def line(*names: str) -> str:
        return " | ".join(f"{metric(name).label} {shown(name, row[name])}" for name in names)

    lines = [
        f"<b>{text_of(line('error', 'macs'))}</b>",
        text_of(line("params", "num_operations")),
        text_of(f"{row['run']} / {row['trial']}"),
        text_of(line("seed", "epoch", "step") + f" | {row['kind']}"),
        text_of(f"{line('shrink_rate')} | KD {kd_in_words(row)}"),
        text_of(row["digest"]),
    ]
    return "<br>".join(lines)
