"""The data inside a report: columns of text, numbers for budgets, and networks, packed to stay small.

The data are compressed (deflate) and encoded in base64, because text repeats from row to row. The browser decompresses
them with its own ``DecompressionStream``. In base64 no text from a file can be markup.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.charts.words import KINDS, kd_in_words, shown
from dnad_ray.run_folder.metrics import metric
from dnad_ray.text import duration_in_words

__all__ = ["column_of", "numbers_of", "packed", "words_of"]

_NEEDED = {"kd": ("kd_kind", "kd_temperature", "kd_weight"), "counter": ("counter", "costs_traced")}
"""Columns that the words of a column are made of, where it is not itself alone."""

_FEW = 0.5  # share of distinct words up to which a column is stored by numbers


def packed(data: Any) -> str:
    """Return plain data as deflated JSON in base64.

    >>> packed({"a": 1}) == packed({"a": 1}), "<" in packed("<script>")
    (True, False)
    """
    text = data if isinstance(data, str) else json.dumps(data, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def words_of(row: Mapping[Any, Any], name: str) -> str:
    """Return the text of a column of a snapshot in a table."""
    if name == "kd":
        return kd_in_words(row)
    if name == "retrain":
        seconds = row[name]
        return "" if pd.isna(seconds) else f"about {duration_in_words(seconds)}"
    if name == "counter" and row["costs_traced"]:
        return f"{row[name]}, confirmed by a trace of the network"
    if name == "kind" and row[name] in KINDS:
        return f"{row[name]} ({KINDS[row[name]]})"
    return shown(name, row[name])


def column_of(frame: pd.DataFrame, name: str) -> dict[str, Any]:
    """Return a column of words: each one once with a number per row, or all of them where most differ."""
    part = frame[[*_NEEDED.get(name, (name,))]]
    # Most values recur, and words take longer than a look.
    values = part.groupby([*part], sort=False, dropna=False).ngroup().to_numpy()
    words = [words_of(row, name) for row in part.drop_duplicates().to_dict("records")]
    distinct = {word: index for index, word in enumerate(dict.fromkeys(words))}
    if len(distinct) <= _FEW * len(frame):
        codes = np.array([distinct[word] for word in words], dtype=int)
        return {"words": [*distinct], "codes": codes[values].tolist()}
    return {"words": [words[value] for value in values]}


def numbers_of(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, list[float | None]]:
    """Return columns of numbers for budgets; missing numbers are None."""
    known = [name for name in names if name in frame and metric(name).minimise is not None]
    return {name: [_plain(float(value)) for value in frame[name]] for name in known}


def _plain(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else value
