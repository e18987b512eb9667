"""Conversion of snapshots to tables of other programs and back (CSV, parquet, data frames).

Foreign numbers come in under the names and units of ``dnad_ray.run_folder.metrics.METRICS``, so that every function and
chart of this package takes them, alone or beside our own snapshots.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.objectives import Objective, minimised
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import METRICS
from dnad_ray.run_folder.outputs import output_file
from dnad_ray.storage.files import read_file, write_bytes
from dnad_ray.storage.parquet_reader import MAX_BYTES, parse_parquet_table
from dnad_ray.storage.places import Place, address, place

__all__ = ["UNITS", "from_frame", "read_points", "write_points"]

UNITS = {
    "share": 1.0,
    "%": 0.01,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "FLOPs": 0.5,  # two operations are one multiply-add
    "MFLOPs": 0.5e6,
    "GFLOPs": 0.5e9,
    "us": 1e-3,  # times are milliseconds here
    "ms": 1.0,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
"""Units that foreign columns may come in, as factors to the unit of the table; ``s`` depends on the column."""

_SHARES = ("error", "proxy_accuracy", "test_error", "accuracy")
_TWINS = {"proxy_accuracy": "error", "error": "proxy_accuracy", "accuracy": "test_error", "test_error": "accuracy"}
_COUNTS, _OPERATIONS = frozenset({"k", "M", "G"}), frozenset({"FLOPs", "MFLOPs", "GFLOPs"})
_UNIT_OF: dict[str, frozenset[str]] = {
    **dict.fromkeys(_SHARES, frozenset({"share", "%"})),
    **dict.fromkeys(("macs", "macs_conv_linear"), _COUNTS | _OPERATIONS),
    **dict.fromkeys(("params", "num_operations"), _COUNTS),
    **dict.fromkeys(("latency_p50", "latency_p90", "latency_p99"), frozenset({"us", "ms", "s"})),
    "device_seconds": frozenset({"s"}),
    "peak_memory": frozenset({"KiB", "MiB", "GiB"}),
}


def from_frame(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    origin: str = "points",
) -> pd.DataFrame:
    """Convert a table of points to a frame for the charts: names, units and columns.

    Args:
        frame: A row per point.
        columns: New names by old ones; those of ``METRICS`` have units, labels and directions.
        units: By new name, the unit of a column that is not that of the table, see :data:`UNITS`.
        origin: Value of ``run`` for points without one.

    Returns:
        A copy with a new index from 0. Accuracies get their errors and errors their accuracies; ``run``, ``trial``
        and ``digest`` (the position) are added where they are missing. Rows with missing and infinite numbers stay:
        fronts pass over them. In a metric of text, ``-`` is a missing number. Lists and dictionaries become text, as
        :func:`analysis.frame.load_runs` has them.

    Raises:
        UserError: If there is no row, a column is missing or there twice, a metric holds text, a unit is none of its
            column, or a share is not between 0 and 1 (a percentage, most likely: say so by ``units``).

    Examples:
        >>> given = pd.DataFrame({"top1": [75.5], "GFLOPs": [1.2]})
        >>> taken = from_frame(given, {"top1": "accuracy", "GFLOPs": "macs"}, {"accuracy": "%", "macs": "GFLOPs"})
        >>> taken[["accuracy", "test_error", "macs"]].to_dict("records")
        [{'accuracy': 0.755, 'test_error': 0.245, 'macs': 600000000.0}]
    """
    if not len(frame):
        raise UserError("points", "a table without rows", "at least one row")
    for name in columns or {}:
        if name not in frame:
            raise UserError("columns", name, f"one of {', '.join(map(str, frame.columns))}")
    taken: pd.DataFrame = frame.rename(columns=dict(columns or {})).reset_index(drop=True)
    repeated = sorted({str(name) for name in taken.columns[taken.columns.duplicated()]})
    if repeated:
        raise UserError("columns", ", ".join(repeated), "each name once")
    for label in [label for label in taken if pd.api.types.is_object_dtype(taken[label].dtype)]:
        taken[label] = taken[label].map(_without_lists)
    for name in taken.columns.intersection(list(METRICS)):
        if METRICS[name].minimise is not None:
            taken[name] = _numbers(taken[name], name)
    for name, unit in (units or {}).items():
        if name not in taken:
            raise UserError("units", name, f"one of {', '.join(map(str, taken.columns))}")
        taken[name] = (taken[name] * _factor(name, unit)).round(12)
    for name in _SHARES:
        if name in taken and len(wrong := _no_shares(taken[name])):
            raise UserError(f"column {name}", float(wrong[0]), f"0 to 1, or units={{{name!r}: '%'}}")
        if name in taken and _TWINS[name] not in taken:
            taken[_TWINS[name]] = (1.0 - taken[name]).round(12)
    count = range(len(taken))
    for name, value in (("run", origin), ("trial", "-"), ("digest", [f"{origin} {i}" for i in count])):
        if name not in taken:
            taken[name] = value
    return taken


def read_points(
    file: str | Place,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    origin: str | None = None,
) -> pd.DataFrame:
    """Read a table of points from CSV or parquet, ours or anybody's.

    Args:
        file: A path or URL that ends in ``.csv`` or ``.parquet``. Of parquet, columns of other types than numbers,
            booleans and text (times, lists) are left out.
        columns: As for :func:`from_frame`.
        units: Likewise.
        origin: Likewise; the file's name if None.

    Raises:
        UserError: If the file cannot be read, is too large, is no such table, or :func:`from_frame` refuses it.
    """
    path = place(file, "points")
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise UserError("points", address(path), "a file that ends in .csv or .parquet")
    try:
        content = read_file(path, MAX_BYTES)
    except OSError as error:
        raise UserError("points", address(path), f"a file that can be read ({error.strerror or error})") from error
    if kind == ".parquet":
        frame = parse_parquet_table(content, path.name).to_pandas()
        texts = frame.select_dtypes("category").columns
        frame = frame.astype(dict.fromkeys(texts, "str"))
    else:
        try:
            frame = pd.read_csv(io.BytesIO(content))
        except (ValueError, UnicodeDecodeError) as error:
            raise UserError("points", address(path), f"a table of comma-separated values ({error})") from error
    return from_frame(frame, columns, units, path.stem if origin is None else origin)


def write_points(frame: pd.DataFrame, file: str | Place) -> Place:
    """Write rows as CSV or parquet; :func:`read_points` and other programs read them back.

    Args:
        frame: Snapshots, a front, or any rows.
        file: A path or URL that ends in ``.csv`` or ``.parquet``; replaced.

    Returns:
        The file.

    Raises:
        UserError: If the suffix is another, the folder does not exist, the file is none that may be replaced (see
            :func:`dnad_ray.run_folder.outputs.output_file`), or it cannot be written.
    """
    path = place(file, "points")
    kind = path.suffix.lower()
    target = output_file(path, (".csv", ".parquet"), argument="points", what="a table")
    plain = frame.astype(dict.fromkeys(frame.select_dtypes("category").columns, "str"))
    if kind == ".csv":
        content = plain.to_csv(index=False).encode()
    else:
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(plain, preserve_index=False), buffer)
        content = buffer.getvalue().to_pybytes()
    try:
        write_bytes(target, content)
    except OSError as error:
        raise UserError("points", address(path), f"a file that can be written ({error.strerror})") from error
    return path


def _without_lists(value: Any) -> Any:
    # Settings are grouped and sorted, which lists and dictionaries cannot be.
    if isinstance(value, list | tuple):
        return json.dumps(value, default=str)
    return str(value) if isinstance(value, dict | set | np.ndarray) else value


def _numbers(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return column
    numbers: pd.Series[Any] = pd.Series([_number(value, name) for value in column], column.index, dtype=float)
    return numbers


def _number(value: Any, name: str) -> float:
    if pd.isna(value) or (isinstance(value, str) and value.strip() in ("", "-")):  # tables for people, ours too
        return math.nan
    if isinstance(value, str | int | float | Decimal) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    raise UserError(f"column {name}", value, "numbers")


def _no_shares(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """Return the numbers that are finite and not from 0 to 1."""
    values: npt.NDArray[np.float64] = column.to_numpy(dtype=float, na_value=math.nan)
    return values[np.isfinite(values) & ((values < 0) | (values > 1))]


def _factor(name: str, unit: str) -> float:
    allowed = _UNIT_OF.get(name, frozenset())
    if unit not in allowed:
        raise UserError(f"unit of {name}", unit, ", ".join(sorted(allowed)) or "none: the table knows no unit of it")
    if unit == "s":
        return 1.0 if name == "device_seconds" else 1e3
    return UNITS[unit]


def rows_of_numbers(frame: pd.DataFrame, objectives: Sequence[Objective]) -> list[bool]:
    return [bool(row) for row in pd.DataFrame(minimised(frame, objectives)).abs().lt(float("inf")).all(axis=1)]


def is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
