"""Conversion of snapshots to Optuna studies and back."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Sequence
from typing import Any, Protocol

import pandas as pd

from analysis.importance import SETTINGS
from analysis.interop.tables import from_frame, is_plain, rows_of_numbers
from analysis.objectives import OBJECTIVES, Objective, resolve
from dnad_ray.errors import ResourceError, UserError
from dnad_ray.run_folder.metrics import metric
from dnad_ray.storage.checksums import parse_record
from dnad_ray.text import install_command

__all__ = ["from_optuna", "to_optuna"]


class _Study(Protocol):
    """What is asked of an Optuna study."""

    @property
    def directions(self) -> Sequence[Any]: ...
    @property
    def trials(self) -> Sequence[Any]: ...


def from_optuna(study: _Study, objectives: Sequence[Objective], origin: str = "study") -> pd.DataFrame:
    """Take over the finished, feasible trials of an Optuna study.

    Args:
        study: An :class:`optuna.study.Study`.
        objectives: What its values are, in order; a ``Metric`` for what the table of metrics does not know.
        origin: As for :func:`from_frame`.

    Returns:
        A row per complete trial that keeps the study's constraints: the objectives, ``trial`` (its number),
        ``config.*`` from its parameters and ``user.*`` from its user attributes. Infinite values stay; they are on no
        front.

    Raises:
        UserError: If numbers or directions of objectives do not fit, or no trial is complete and feasible.
    """
    entries = [given if not isinstance(given, str) else metric(given) for given in objectives]
    if len(entries) != len(study.directions):
        raise UserError("objectives", [entry.name for entry in entries], f"{len(study.directions)}, as the study has")
    for entry, direction in zip(entries, study.directions, strict=True):
        if entry.minimise is None or entry.minimise != (direction.name == "MINIMIZE"):
            raise UserError("objective", entry.name, f"one that is better where the study's is: {direction.name}")
    rows = []
    for trial in study.trials:
        if trial.state.name == "COMPLETE" and _is_feasible(trial):
            row: dict[str, Any] = {entry.name: value for entry, value in zip(entries, trial.values, strict=True)}
            row |= {"trial": str(trial.number)}
            row |= {f"config.{name}": value for name, value in trial.params.items()}
            row |= {f"user.{name}": value for name, value in trial.user_attrs.items() if is_plain(value)}
            rows.append(row)
    if study.trials and not rows:
        raise UserError("study", "no trial that is complete and feasible", "at least one")
    return from_frame(pd.DataFrame(rows), origin=origin)


def _is_feasible(trial: Any) -> bool:
    """Whether a trial keeps all constraints; Optuna 4 has them as an attribute of the system, 5 as one of its own."""
    constraints = getattr(trial, "constraints", None)
    if constraints is None:
        constraints = dict(enumerate(trial.system_attrs.get("constraints") or ()))
    return all(value <= 0 for value in constraints.values())


def to_optuna(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES, **options: Any) -> Any:
    """Return rows as an Optuna study, for its plots, its dashboard, or its samplers to go on from.

    The settings that vary become parameters, named as in the configuration (``shrink.rate``). Their distributions are
    the sweep's own ranges where the rows have such columns (``config.sweep.ranges.*``), else they span the values that
    are there. A setting that a row lacks, as the KD temperature without imitation, is no parameter of its trial.

    Args:
        frame: Rows with a column per objective; those that are not finite are left out.
        objectives: Become the study's values, in order, with their directions.
        **options: For :func:`optuna.create_study`, for example ``storage="sqlite:///front.db"``.

    Returns:
        An :class:`optuna.study.Study`; run, trial, digest and the whole configuration are user attributes of its
        trials.

    Raises:
        UserError: If an objective is refused.
        ResourceError: If Optuna is not installed.
    """
    entries = resolve(frame, objectives)
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise ResourceError("an Optuna study", "no package optuna", install_command("optuna")) from error
    study = optuna.create_study(directions=["minimize" if e.minimise else "maximize" for e in entries], **options)
    study.set_user_attr("objectives", [entry.name for entry in entries])
    kept = frame[rows_of_numbers(frame, objectives)]
    about = [name for name in kept if name in _ABOUT or str(name).startswith("config.")]
    columns = _parameters(kept)
    distributions = {
        name: _distribution(optuna.distributions, kept[column], _range(kept, name)) for name, column in columns.items()
    }
    for row in kept.to_dict("records"):
        given = {name: _choice(plain_value(row[column])) for name, column in columns.items()}
        known = {name: value for name, value in given.items() if value is not None}
        trial = optuna.trial.create_trial(
            values=[float(row[entry.name]) for entry in entries],
            params=known,
            distributions={name: distributions[name] for name in known},
            user_attrs={str(name): plain_value(row[name]) for name in about},
        )
        study.add_trial(trial)
    return study


def _parameters(frame: pd.DataFrame) -> dict[str, str]:
    """Return the column of each setting that varies, by its name: that of the configuration where it is known."""
    config = [str(name) for name in frame if str(name).startswith("config.") and str(name) != "config.seed"]
    columns = {name.removeprefix("config."): name for name in config if not name.startswith("config.sweep.")}
    if not columns:
        columns = {name: name for name in SETTINGS if name in frame}
    return {name: column for name, column in columns.items() if frame[column].nunique() > 1}


def _range(frame: pd.DataFrame, name: str) -> tuple[str, list[Any]] | None:
    """Return the kind and the values of the range that a sweep had for a setting, if all rows have the same one."""
    for kind in ("uniform", "loguniform", "integer", "choice"):
        column = f"config.sweep.ranges.{name}.{kind}"
        if column in frame and frame[column].notna().all() and frame[column].nunique() == 1:
            try:
                values = parse_record(str(frame[column].iloc[0]), column)
            except UserError:  # a table of others, which may have such a column by chance
                return None
            fits = isinstance(values, list) and (
                kind == "choice" or all(type(value) in (int, float) for value in values)
            )
            return (kind, values) if fits else None
    return None


def _distribution(kinds: Any, column: pd.Series[Any], limits: tuple[str, list[Any]] | None) -> Any:
    found = (_choice(plain_value(value)) for value in column.unique())
    values = [value for value in found if value is not None]
    kind, ends = limits or ("", [])
    if kind == "choice" or not all(type(value) in (int, float) for value in values):
        # Text and numbers of one setting cannot be compared; their JSON can.
        choices = [_choice(value) for value in ends] if kind == "choice" else sorted(values, key=json.dumps)
        return kinds.CategoricalDistribution([*choices, *(value for value in values if value not in choices)])
    low, high = min([*values, *ends]), max([*values, *ends])
    if kind == "integer" or (not kind and all(type(value) is int for value in values)):
        return kinds.IntDistribution(int(low), int(high))
    return kinds.FloatDistribution(low, high, log=kind == "loguniform" and low > 0)


def _choice(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    # Optuna takes plain values only, so a list such as train.betas is JSON text, as it is in a frame.
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, default=str)


_ABOUT = (
    *("run", "trial", "seed", "step", "epoch", "kind", "digest", "shrink_rate", "kd_kind", "kd_temperature"),
    *("kd_weight", "device_seconds"),
)


def plain_value(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
