"""To and from what others use: tables in files, frames of any origin, Optuna studies, results of Ray Tune.

Foreign numbers come in under the names and units of :data:`dnad_ray.records.METRICS`, so that every function and chart
of this package takes them, alone or beside our own snapshots. Neither Optuna nor Ray is imported before it is needed:
a study and a result grid are asked for what they hold, and Optuna makes its own trials.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.objectives import OBJECTIVES, Objective, minimised, resolve
from analysis.whole_file import write_whole
from dnad_ray.errors import ResourceError, UserError
from dnad_ray.files import read_file
from dnad_ray.parquet_reader import MAX_BYTES, parse_parquet_table
from dnad_ray.places import Place, address, place
from dnad_ray.records import METRICS, metric

__all__ = [
    "UNITS",
    "from_frame",
    "from_optuna",
    "from_result_grid",
    "read_points",
    "to_optuna",
    "to_tune_points",
    "write_points",
]

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


class _Study(Protocol):
    """What is asked of an Optuna study."""

    @property
    def directions(self) -> Sequence[Any]: ...
    @property
    def trials(self) -> Sequence[Any]: ...


class _Result(Protocol):
    """What is asked of a result of Ray Tune."""

    @property
    def metrics(self) -> dict[str, Any] | None: ...


class _ResultGrid(Protocol):
    """What is asked of a result grid of Ray Tune."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> _Result: ...


def from_frame(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    origin: str = "points",
) -> pd.DataFrame:
    """Take over a table of points: names, units and what charts ask for.

    Args:
        frame: A row per point.
        columns: New names by old ones; those of :data:`dnad_ray.records.METRICS` have units, labels and directions.
        units: By new name, the unit of a column that is not that of the table, see :data:`UNITS`.
        origin: What the points are called in ``run``, where they do not say so themselves.

    Returns:
        A copy with a new index from 0. Accuracies get their errors and errors their accuracies; ``run``, ``trial``
        and ``digest`` (the position) are added where they are missing. Rows with missing numbers stay: fronts pass
        over them.

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
    for name in taken.columns.intersection(list(METRICS)):
        if METRICS[name].minimise is not None:
            taken[name] = _numbers(taken[name], name)
    for name, unit in (units or {}).items():
        if name not in taken:
            raise UserError("units", name, f"one of {', '.join(map(str, taken.columns))}")
        taken[name] = (taken[name] * _factor(name, unit)).round(12)
    for name in _SHARES:
        if name in taken and not taken[name].dropna().between(0, 1).all():
            raise UserError(f"column {name}", float(taken[name].max()), f"0 to 1, or units={{{name!r}: '%'}}")
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
        file: A path or URL that ends in ``.csv`` or ``.parquet``.
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
        UserError: If the suffix is another, or the folder does not exist.
    """
    path = place(file, "points")
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise UserError("points", address(path), "a file that ends in .csv or .parquet")
    plain = frame.astype(dict.fromkeys(frame.select_dtypes("category").columns, "str"))
    if kind == ".csv":
        content = plain.to_csv(index=False).encode()
    else:
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(plain, preserve_index=False), buffer)
        content = buffer.getvalue().to_pybytes()
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError("points", address(path), f"a file in an existing folder ({error.strerror})") from error
    return path


def from_optuna(study: _Study, objectives: Sequence[Objective], origin: str = "study") -> pd.DataFrame:
    """Take over the finished trials of an Optuna study.

    Args:
        study: An :class:`optuna.study.Study`.
        objectives: What its values are, in order; a :class:`dnad_ray.records.Metric` for what the table does not know.
        origin: As for :func:`from_frame`.

    Returns:
        A row per complete trial: the objectives, ``trial`` (its number), ``config.*`` from its parameters and
        ``user.*`` from its user attributes.

    Raises:
        UserError: If numbers or directions of objectives do not fit, or no trial is complete.
    """
    entries = [given if not isinstance(given, str) else metric(given) for given in objectives]
    if len(entries) != len(study.directions):
        raise UserError("objectives", [entry.name for entry in entries], f"{len(study.directions)}, as the study has")
    for entry, direction in zip(entries, study.directions, strict=True):
        if entry.minimise is None or entry.minimise != (direction.name == "MINIMIZE"):
            raise UserError("objective", entry.name, f"one that is better where the study's is: {direction.name}")
    rows = []
    for trial in study.trials:
        if trial.state.name == "COMPLETE":
            row: dict[str, Any] = {entry.name: value for entry, value in zip(entries, trial.values, strict=True)}
            row |= {"trial": str(trial.number)}
            row |= {f"config.{name}": value for name, value in trial.params.items()}
            row |= {f"user.{name}": value for name, value in trial.user_attrs.items() if _is_plain(value)}
            rows.append(row)
    return from_frame(pd.DataFrame(rows), origin=origin)


def to_optuna(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES, **options: Any) -> Any:
    """Return rows as an Optuna study, for its plots, its dashboard, or its samplers to go on from.

    Args:
        frame: Rows with a column per objective; those that are not finite are left out.
        objectives: Become the study's values, in order, with their directions.
        **options: For :func:`optuna.create_study`, for example ``storage="sqlite:///front.db"``.

    Returns:
        An :class:`optuna.study.Study`; run, trial, digest and settings stand in the user attributes of its trials.

    Raises:
        UserError: If an objective is refused.
        ResourceError: If Optuna is not installed.
    """
    entries = resolve(frame, objectives)
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise ResourceError("an Optuna study", "no package optuna", "pip install 'dnad-ray[optuna]'") from error
    study = optuna.create_study(directions=["minimize" if e.minimise else "maximize" for e in entries], **options)
    study.set_user_attr("objectives", [entry.name for entry in entries])
    kept = frame[_finite(frame, objectives)]
    about = [name for name in kept if name in _ABOUT or str(name).startswith("config.")]
    for row in kept.to_dict("records"):
        attributes = {str(name): _attribute(row[name]) for name in about}
        values = [float(row[entry.name]) for entry in entries]
        study.add_trial(optuna.trial.create_trial(values=values, user_attrs=attributes))
    return study


_ABOUT = (
    *("run", "trial", "seed", "step", "epoch", "kind", "digest", "shrink_rate", "kd_kind", "kd_temperature"),
    *("kd_weight", "device_seconds"),
)


def from_result_grid(
    grid: _ResultGrid, columns: Mapping[str, str] | None = None, units: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Take over the last results of the trials of a Ray Tune run.

    Args:
        grid: A :class:`ray.tune.ResultGrid`, ours or that of another program.
        columns: As for :func:`from_frame`.
        units: Likewise.

    Returns:
        A row per trial: its metrics, ``config.*`` and ``trial``.

    Raises:
        UserError: As :func:`from_frame`.
    """
    # Not the grid's own table: it reads what Tune's loggers wrote, and there may have been none.
    results = [grid[index].metrics for index in range(len(grid))]
    frame = pd.json_normalize([metrics for metrics in results if metrics], sep="/")
    renamed = {name: "config." + str(name).removeprefix("config/") for name in frame if str(name).startswith("config/")}
    if "trial_id" in frame and "trial" not in frame:
        renamed["trial_id"] = "trial"
    return from_frame(frame.rename(columns=renamed), columns, units, "tune")


def to_tune_points(frame: pd.DataFrame, settings: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return settings of rows as starting points for a search algorithm of Ray Tune (``points_to_evaluate``).

    Args:
        frame: Rows, for example a front; settings that are there several times count once.
        settings: Columns by the name that the search space of the other program has for them.

    Raises:
        UserError: If a column is missing.

    Examples:
        >>> to_tune_points(pd.DataFrame({"kd_temperature": [4.0, 4.0, 2.0]}), {"temperature": "kd_temperature"})
        [{'temperature': 4.0}, {'temperature': 2.0}]
    """
    for column in settings.values():
        if column not in frame:
            raise UserError("settings", column, f"one of {', '.join(map(str, frame.columns))}")
    points: list[dict[str, Any]] = []
    for row in frame.to_dict("records"):
        point = {name: _attribute(row[column]) for name, column in settings.items()}
        if point not in points:
            points.append(point)
    return points


def _numbers(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    if pd.api.types.is_bool_dtype(column.dtype) or not pd.api.types.is_numeric_dtype(column.dtype):
        if column.isna().all():
            return column.astype(float)
        example = next(value for value in column if not pd.isna(value))
        raise UserError(f"column {name}", example, "numbers")
    return column


def _factor(name: str, unit: str) -> float:
    allowed = _UNIT_OF.get(name, frozenset())
    if unit not in allowed:
        raise UserError(f"unit of {name}", unit, ", ".join(sorted(allowed)) or "none: the table knows no unit of it")
    if unit == "s":
        return 1.0 if name == "device_seconds" else 1e3
    return UNITS[unit]


def _finite(frame: pd.DataFrame, objectives: Sequence[Objective]) -> list[bool]:
    return [bool(row) for row in pd.DataFrame(minimised(frame, objectives)).abs().lt(float("inf")).all(axis=1)]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _attribute(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
