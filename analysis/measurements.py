"""Several measurements of one architecture: of searches, of training from scratch, of latency. They are never mixed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.frame import Paths, RunWarning, read_runs, series_of, snapshot_frame
from analysis.objectives import OBJECTIVES
from dnad_ray.errors import UserError
from dnad_ray.run_folder.fields import kinds_of
from dnad_ray.run_folder.jobs import read_measurements, read_retrained
from dnad_ray.run_folder.reading import RunContents
from dnad_ray.run_folder.records import BASELINE_ORIGINS, RETRAINED_COLUMNS, Measurement, Retrained
from dnad_ray.storage.places import Place, address

__all__ = [
    "MEASURED",
    "NETWORK",
    "TRAINED",
    "architectures",
    "load_for_front",
    "load_measurements",
    "load_results",
    "load_retrained",
    "measurement_frame",
    "retrained_frame",
    "retrained_networks",
    "with_measurements",
    "with_retrained",
]

NETWORK = ("digest", "dataset", "image_size", "num_classes", "init_channels", "counter")
"""What makes two snapshots the same network with the same costs: the architecture, and all that costs follow from."""

MEASURED = ("latency_p50", "latency_p90", "latency_p99", "peak_memory")
"""Metrics that `dnad-ray measure` records."""

TRAINED = ("accuracy", "test_error")
"""Metrics that `dnad-ray retrain` records."""

_PROTOCOL = ("digest", "protocol", "dataset", "images", "image_size", "num_classes", "init_channels", "width", "split")
_COMPARABLE = ["protocol", "dataset", "images", "split"]


def architectures(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per network: duplicates of a genotype are one architecture with several measurements.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them.

    Returns:
        The row of the snapshot with the lowest error of each network (of equal ones, that found with least compute),
        with its index label and all columns of ``frame``, and: ``num_measurements``, ``error_mean``, ``error_std``
        (sample standard deviation; NaN for one measurement), ``error_worst``, ``num_runs`` and ``num_trials``. The
        lowest of many errors is too optimistic: use ``error_mean`` if numbers of measurements differ. Ordered as
        the frame.

    Raises:
        UserError: If a column of :data:`NETWORK`, or error, run or trial, is missing.
    """
    keys = _columns(frame, (*NETWORK, "error", "run", "trial"))[: len(NETWORK)]
    labels, frame = frame.index, frame.reset_index(drop=True)  # a label can be there twice in frames that were joined
    order = [name for name in ("error", "device_seconds", "run", "trial", "step") if name in frame]
    first = frame.sort_values(order, kind="stable").drop_duplicates(keys)
    trials = frame["run"].astype(str) + "\n" + frame["trial"].astype(str)
    grouped = frame.assign(_trial=trials).groupby(keys, dropna=False, sort=False)
    numbers = grouped.agg(
        num_measurements=("error", "size"),
        error_mean=("error", "mean"),
        error_std=("error", "std"),
        error_worst=("error", "max"),
        num_runs=("run", "nunique"),
        num_trials=("_trial", "nunique"),
    )
    joined = first.join(numbers, on=keys).sort_index()
    table: pd.DataFrame = joined.set_axis(labels[joined.index], axis=0)
    return table


def load_retrained(paths: Paths) -> pd.DataFrame:
    """Read the networks that run folders hold trained from scratch: a row per job, that is per network and seed.

    Args:
        paths: A run folder or several, as for :func:`analysis.frame.load_runs`.

    Returns:
        Columns :data:`dnad_ray.run_folder.records.RETRAINED_COLUMNS`, ``test_error`` (1 - ``accuracy``) and
        ``run_path``; without rows where nothing was retrained.

    Raises:
        RunFolderError: As :func:`analysis.frame.load_runs`.

    Warns:
        RunWarning: For each record that cannot be read.
    """
    return retrained_frame(read_runs(paths))


def retrained_frame(runs: Sequence[RunContents]) -> pd.DataFrame:
    """Return the frame that :func:`load_retrained` describes."""
    frame = _frame(runs, read_retrained, Retrained)
    frame.insert(len(RETRAINED_COLUMNS), "test_error", 1.0 - frame["accuracy"])
    return frame


def load_measurements(paths: Paths) -> pd.DataFrame:
    """Read latency and memory of networks, a row per network and machine; as :func:`load_retrained` otherwise."""
    return measurement_frame(read_runs(paths))


def measurement_frame(runs: Sequence[RunContents]) -> pd.DataFrame:
    """Return the frame that :func:`load_measurements` describes."""
    return _frame(runs, read_measurements, Measurement)


def load_for_front(
    paths: Paths,
    objectives: Sequence[str] | None,
    budgets: Collection[str] = (),
    where: Mapping[str, str | float] | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read the networks that a front is made of, and the objectives of it.

    Args:
        paths: A run folder or several, as for :func:`analysis.frame.load_runs`.
        objectives: Names of metrics; None for :data:`analysis.OBJECTIVES`, with ``test_error`` instead of ``error``
            where no search recorded a network.
        budgets: Further metrics.
        where: As for :func:`load_results`.

    Raises:
        UserError: As :func:`load_results`.
    """
    names = tuple(OBJECTIVES if objectives is None else objectives)
    found = load_results(paths, [*names, *budgets], where)
    if objectives is None and found.empty:
        names = tuple("test_error" if name == "error" else name for name in names)
        found = load_results(paths, [*names, *budgets], where)
    return found, names


def load_results(
    paths: Paths, metrics: Collection[str], where: Mapping[str, str | float] | None = None
) -> pd.DataFrame:
    """Read the snapshots of run folders, with what was measured of their networks as far as it is asked for.

    Args:
        paths: A run folder or several, as for :func:`analysis.frame.load_runs`.
        metrics: Those of :data:`MEASURED` add latency and memory, see :func:`with_measurements`; those of
            :data:`TRAINED` add the accuracy after training from scratch, see :func:`with_retrained`, and rows of
            kind ``retrained`` for trained networks that no search recorded, except baselines.
        where: Values of columns that tell one measurement or training of a network from others, for example
            ``{"threads": 1, "device_name": "..."}``; text is compared with the text of a value.

    Raises:
        RunFolderError: As :func:`analysis.frame.load_runs`.
        UserError: If ``where`` names no column or value of what was measured, or several measurements or protocols of
            one network remain.
    """
    runs = read_runs(paths)
    frame = snapshot_frame(runs)
    wanted = [name for name, known in (("measured", MEASURED), ("trained", TRAINED)) if set(known) & set(metrics)]
    tables = {name: (measurement_frame if name == "measured" else retrained_frame)(runs) for name in wanted}
    for column, value in ((column, str(value)) for column, value in (where or {}).items()):
        having = [name for name, table in tables.items() if column in table]
        if not having:
            columns = dict.fromkeys(str(column) for table in tables.values() for column in table)
            raise UserError("--where", column, ", ".join(columns) or "nothing without an objective that is measured")
        for name in having:
            texts = tables[name][column].astype(str)
            if value not in set(texts):
                known = ", ".join(sorted(set(texts))) or "none: nothing was recorded"
                raise UserError(f"--where {column}", value, known)
            tables[name] = tables[name][texts == value]
    if "trained" in tables:
        frame = _with_trained(frame, tables["trained"])
    return with_measurements(frame, tables["measured"]) if "measured" in tables else frame


def _with_trained(frame: pd.DataFrame, retrained: pd.DataFrame) -> pd.DataFrame:
    """Return snapshots with the results of training, and the trained networks of no snapshot as rows of their own."""
    found = with_retrained(frame, retrained)
    networks = retrained_networks(retrained)
    is_recorded = networks["digest"].isin(frame["digest"])
    others = networks[~is_recorded & ~networks["origin"].isin(BASELINE_ORIGINS)]
    if others.empty:
        return found
    _check_alike({*others["protocol"], *networks[is_recorded]["protocol"]})
    columns = others.columns if found.empty else found.columns
    rows: pd.DataFrame = pd.concat([found, others], ignore_index=True)[[*columns]]
    return rows


def retrained_networks(retrained: pd.DataFrame) -> pd.DataFrame:
    """Return one row per retrained network and protocol: the mean over its seeds.

    A front of them is drawn and compared like one of snapshots, over ``("test_error", "macs", "params")``.

    Args:
        retrained: As :func:`load_retrained` returns it. Networks that began with inherited weights are left out: they
            were not trained from scratch.

    Returns:
        The columns of ``retrained`` with ``accuracy``, ``test_error``, ``train_loss`` and ``train_accuracy`` as means,
        ``device_seconds`` as the sum and ``seed`` as the first one, and: ``num_seeds``, ``accuracy_std`` (NaN for one
        seed), ``trial`` (the first job), ``kind`` and ``step``, so that charts of snapshots take it.
    """
    scratch = retrained[~retrained["inherited"].astype(bool)]
    keys = _columns(scratch, _PROTOCOL)
    grouped = scratch.groupby(keys, dropna=False, sort=False)
    means = ("accuracy", "test_error", "train_loss", "train_accuracy")
    rules: dict[str, Any] = {name: "first" for name in scratch.columns if name not in keys}
    rules |= dict.fromkeys(means, "mean") | {"device_seconds": "sum"}
    table = grouped.agg(rules).reset_index()
    table["num_seeds"] = grouped["seed"].nunique().to_numpy()
    table["accuracy_std"] = grouped["accuracy"].std().to_numpy()
    names = [*retrained.columns, "num_seeds", "accuracy_std"]
    result: pd.DataFrame = table[names].assign(trial=table["job"], kind="retrained", step=0)
    return result


def sets_of_images(retrained: pd.DataFrame) -> int:
    """Return on how many sets of images networks were trained; the errors of two sets cannot be compared."""
    return len(retrained[["dataset", "images"]].drop_duplicates())


def comparable(networks: pd.DataFrame) -> pd.DataFrame:
    """Return the largest group of trained networks whose errors can be compared: of one protocol and one set of images.

    Args:
        networks: As :func:`retrained_networks` returns them, at least one.
    """
    groups = networks.groupby(_COMPARABLE, sort=False)
    largest: pd.DataFrame = groups.get_group(groups.size().idxmax()).reset_index(drop=True)
    return largest


def with_retrained(frame: pd.DataFrame, retrained: pd.DataFrame, protocol: str | None = None) -> pd.DataFrame:
    """Add the results of training from scratch to the snapshots of the same architectures.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them; its rows and index stay.
        retrained: As :func:`load_retrained` returns it.
        protocol: The protocol of training; needed if there are several, because their results cannot be compared.

    Returns:
        A copy of ``frame`` with ``accuracy`` (mean over seeds), ``accuracy_std``, ``num_seeds`` and ``test_error``;
        missing for architectures that were not retrained. They are joined by digest: costs stay those of the
        snapshot, whatever the width that was trained.

    Raises:
        UserError: If there are several protocols, widths or test splits and none was chosen, or the chosen one is
            unknown.
    """
    _columns(frame, ["digest"])
    networks = retrained_networks(retrained)
    networks = networks[networks["digest"].isin(frame["digest"])]
    known = sorted(networks["protocol"].unique())
    if protocol is not None:
        if protocol not in known:
            raise UserError("protocol", protocol, ", ".join(known) or "none: nothing was retrained")
        networks = networks[networks["protocol"] == protocol]
    else:
        _check_alike(known)
    if networks["digest"].duplicated().any():
        differing = [name for name in _PROTOCOL if name != "digest" and networks[name].nunique() > 1]
        raise UserError("retrained", f"several {', '.join(differing)} of one architecture", "records of one of them")
    return _joined(frame, networks, ["digest"], ["accuracy", "accuracy_std", "num_seeds", "test_error"])


def _check_alike(protocols: Collection[str]) -> None:
    if len(protocols) > 1:
        raise UserError("protocol", None, f"one of {', '.join(sorted(protocols))}: networks that were trained alike")


def with_measurements(frame: pd.DataFrame, measurements: pd.DataFrame, **chosen: Any) -> pd.DataFrame:
    """Add latency and memory that were measured on one machine to networks of the same width and image size.

    Args:
        frame: Snapshots, or retrained networks.
        measurements: As :func:`load_measurements` returns it.
        **chosen: Values that tell one measurement of a network from another, for example ``device_name="..."``,
            ``batch_size=1`` or ``threads=1``.

    Returns:
        A copy of ``frame`` with ``latency_p50``, ``latency_p90``, ``latency_p99`` and ``peak_memory``.

    Raises:
        UserError: If a column is unknown, or several measurements of one network remain.
    """
    for name, value in chosen.items():
        if name not in measurements:
            raise UserError("measurements", name, f"one of {', '.join(map(str, measurements.columns))}")
        measurements = measurements[measurements[name] == value]
    keys = _columns(frame, ["digest", "init_channels", "image_size"])
    if measurements.duplicated(keys).any():
        differing = [
            name
            for name in ("device", "device_name", "threads", "batch_size", "model", "width", "run")
            if measurements[name].nunique() > 1
        ]
        choices = [f"{name}={value}" for name in differing[:1] for value in sorted(measurements[name].unique())]
        allowed = f"one choice of them by name, {' or '.join(choices)}"
        raise UserError("measurements", f"several {', '.join(differing)} of one network", allowed)
    return _joined(frame, measurements, keys, MEASURED)


def _joined(frame: pd.DataFrame, other: pd.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    plain = frame.drop(columns=[name for name in columns if name in frame])
    table: pd.DataFrame = plain.join(other.set_index(list(keys))[list(columns)].astype(float), on=list(keys))
    return table


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in frame:
            raise UserError("frame", f"no column {name}", f"the columns {', '.join(names)}")
    return list(names)


def _frame(
    runs: Sequence[RunContents],
    read: Callable[[Place], tuple[list[dict[str, Any]], list[str]]],
    record: type,
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for run in runs:
        records, problems = read(run.path)
        rows += [entry | {"run": run.name, "run_path": address(run.path)} for entry in records]
        for problem in problems:
            warnings.warn(f"run {run.name}: {problem}", RunWarning, stacklevel=4)
    kinds = kinds_of(record)
    table: pd.DataFrame = pd.DataFrame({name: series_of([row[name] for row in rows], kinds[name]) for name in kinds})
    table["run_path"] = pd.Series([row["run_path"] for row in rows], dtype="str")
    return table
