"""Conversion of snapshots to Optuna studies and back."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import pandas as pd

from analysis.interop.tables import from_frame, is_plain, rows_of_numbers
from analysis.objectives import OBJECTIVES, Objective, resolve
from dnad_ray.errors import ResourceError, UserError
from dnad_ray.run_folder.metrics import metric
from dnad_ray.text import install_command

__all__ = ["from_optuna", "to_optuna"]


class _Study(Protocol):
    """What is asked of an Optuna study."""

    @property
    def directions(self) -> Sequence[Any]: ...
    @property
    def trials(self) -> Sequence[Any]: ...


def from_optuna(study: _Study, objectives: Sequence[Objective], origin: str = "study") -> pd.DataFrame:
    """Take over the finished trials of an Optuna study.

    Args:
        study: An :class:`optuna.study.Study`.
        objectives: What its values are, in order; a ``Metric`` for what the table of metrics does not know.
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
            row |= {f"user.{name}": value for name, value in trial.user_attrs.items() if is_plain(value)}
            rows.append(row)
    return from_frame(pd.DataFrame(rows), origin=origin)


def to_optuna(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES, **options: Any) -> Any:
    """Return rows as an Optuna study, for its plots, its dashboard, or its samplers to go on from.

    Args:
        frame: Rows with a column per objective; those that are not finite are left out.
        objectives: Become the study's values, in order, with their directions.
        **options: For :func:`optuna.create_study`, for example ``storage="sqlite:///front.db"``.

    Returns:
        An :class:`optuna.study.Study`; run, trial, digest and settings are user attributes of its trials.

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
    for row in kept.to_dict("records"):
        attributes = {str(name): plain_value(row[name]) for name in about}
        values = [float(row[entry.name]) for entry in entries]
        study.add_trial(optuna.trial.create_trial(values=values, user_attrs=attributes))
    return study


_ABOUT = (
    *("run", "trial", "seed", "step", "epoch", "kind", "digest", "shrink_rate", "kd_kind", "kd_temperature"),
    *("kd_weight", "device_seconds"),
)


def plain_value(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
