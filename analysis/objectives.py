"""Objectives: from names or metrics to a table of numbers to be minimised. Signs are flipped here only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import METRICS, Metric, metric

__all__ = [
    "OBJECTIVES",
    "Budgets",
    "Objective",
    "best_under",
    "best_values",
    "describe",
    "minimised",
    "parse_amount",
    "parse_budget",
    "resolve",
    "within",
]

Objective: TypeAlias = str | Metric
"""A column of the table of metrics by name, or a metric that says how a foreign column is compared."""

Budgets: TypeAlias = Mapping[str, float] | Mapping[Metric, float] | Mapping[Objective, float]
"""Limits by objective."""

OBJECTIVES = ("error", "macs", "params")
"""What is weighed against each other where nothing else is said: error against both costs."""

# Proxy accuracy and accuracy after training from scratch are different quantities.
_PROXY, _RETRAINED = frozenset({"error", "proxy_accuracy"}), frozenset({"test_error", "accuracy"})
_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "%": 1e-2}
_TIMES = {"ms": 1.0, "s": 1e3}
"""Units of times -> milliseconds."""
# report.js has the same form. A comma stands between thousands only: in "1,5M" it would be read as 15M by one, 1.5M by
# another.
_AMOUNT = re.compile(r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?\s*([kmg%]?)", re.I)


def resolve(frame: pd.DataFrame, objectives: Sequence[Objective]) -> tuple[Metric, ...]:
    """Return the metrics of objectives; each is a column of numbers with a direction.

    Args:
        frame: Rows with one column per objective.
        objectives: Names or metrics.

    Raises:
        UserError: If there is none, one is given twice, is not a column of ``frame``, has no direction or holds text,
            or if proxy and retrained accuracy would meet in one front.
    """
    if isinstance(objectives, str):
        raise UserError("objectives", objectives, f"a list of names, for example [{objectives!r}]")
    allowed = [name for name, entry in METRICS.items() if entry.minimise is not None and name in frame]
    if not len(objectives):
        raise UserError("objectives", list(objectives), f"at least one of {', '.join(allowed)}")
    found = []
    for given in objectives:
        entry = given if isinstance(given, Metric) else metric(given)
        if entry.minimise is None or entry.name not in frame:
            raise UserError("objective", entry.name, f"one of {', '.join(allowed)}")
        kind = frame[entry.name].dtype
        if not (pd.api.types.is_numeric_dtype(kind) or frame[entry.name].isna().all()):
            raise UserError(f"objective {entry.name}", f"a column of {kind}", "a column of numbers")
        found.append(entry)
    names = [entry.name for entry in found]
    if len(set(names)) < len(names):
        raise UserError("objectives", names, "each of them once")
    if _PROXY & set(names) and _RETRAINED & set(names):
        raise UserError("objectives", names, "proxy accuracy or that of retrained networks, never both in one front")
    return tuple(found)


def minimised(frame: pd.DataFrame, objectives: Sequence[Objective]) -> npt.NDArray[np.float64]:
    """Return the objectives as a table to be minimised.

    Returns:
        Shape (n, m); missing values are NaN.

    Raises:
        UserError: As :func:`resolve`.
    """
    entries = resolve(frame, objectives)
    columns = [frame[entry.name].to_numpy(dtype=float, na_value=math.nan) for entry in entries]
    signs = [1.0 if entry.minimise else -1.0 for entry in entries]
    return np.column_stack([column * sign for column, sign in zip(columns, signs, strict=True)])


def describe(objectives: Sequence[Objective], values: Sequence[float]) -> tuple[str, ...]:
    """Return values with their labels, for example of a reference point.

    >>> describe(["error", "macs"], [0.25, 1e6])
    ('Proxy error 25.00%', 'MACs 1,000,000')
    """
    entries = [given if isinstance(given, Metric) else metric(given) for given in objectives]
    return tuple(f"{entry.label} {format(value, entry.format)}" for entry, value in zip(entries, values, strict=True))


def within(frame: pd.DataFrame, budgets: Budgets) -> pd.DataFrame:
    """Return the rows within every budget: at most the limit if less is better, at least the limit if more is better.

    A row that lacks the number keeps no budget of it.

    Args:
        frame: Rows with a column per budget.
        budgets: Limits by objective, inclusive; none at all keeps every row.

    Raises:
        UserError: If an objective is refused by :func:`resolve`, or a budget is NaN.

    Examples:
        >>> frame = pd.DataFrame({"macs": [10, 20, 30], "proxy_accuracy": [0.5, 0.7, 0.9]})
        >>> within(frame, {"macs": 20, "proxy_accuracy": 0.6}).index.tolist()
        [1]
    """
    mask = np.ones(len(frame), dtype=bool)
    for given, limit in budgets.items():
        (entry,) = resolve(frame, [given])
        if math.isnan(limit):
            raise UserError(f"budget of {entry.name}", limit, "a number")
        mask &= minimised(frame, [given])[:, 0] <= (limit if entry.minimise else -limit)
    kept: pd.DataFrame = frame[mask]
    return kept


def best_under(frame: pd.DataFrame, budgets: Budgets, objective: Objective = "error") -> Any:
    """Return the label of the best row that keeps every budget, None where no row does.

    Of equal ones the one that is lowest in the budgeted objectives wins, in the order given, then the first.

    Args:
        frame: Rows with a column per objective.
        budgets: As for :func:`within`.
        objective: The objective to be optimised.

    Raises:
        UserError: As :func:`within`.

    Examples:
        >>> frame = pd.DataFrame({"error": [0.3, 0.1, 0.1, 0.05], "macs": [10, 25, 20, 90]})
        >>> best_under(frame, {"macs": 30})
        2
        >>> best_under(frame, {"macs": 5}) is None
        True
    """
    kept = within(frame, budgets)
    (best,) = resolve(frame, [objective])
    limited = [entry for given in budgets for entry in resolve(frame, [given])]
    values = minimised(kept, [best, *(entry for entry in limited if entry != best)])
    kept, values = kept[np.isfinite(values[:, 0])], values[np.isfinite(values[:, 0])]
    # lexsort takes the last key first, and is stable.
    return kept.index[np.lexsort(values.T[::-1])[0]] if len(kept) else None


def best_values(frame: pd.DataFrame, budgets: Budgets) -> str:
    """Return the best value of each budget's metric in words, for a message that nothing is within the budgets.

    Examples:
        >>> best_values(pd.DataFrame({"macs": [1000, 20], "error": [0.1, 0.5]}), {"macs": 5, "error": 0.01})
        'macs 20, error 10.00%'
    """
    entries = resolve(frame, list(budgets))
    values = [frame[entry.name].min() if entry.minimise else frame[entry.name].max() for entry in entries]
    return ", ".join(f"{entry.name} {value:{entry.format}}" for entry, value in zip(entries, values, strict=True))


def parse_amount(text: str) -> float:
    """Parse a number with k, M, G or % behind it, in small or capital letters; raises ValueError if it is none.

    >>> parse_amount("1.5M"), parse_amount("5%"), parse_amount("700"), parse_amount("1,000k")
    (1500000.0, 0.05, 700.0, 1000000.0)
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"no amount: {text!r}")
    digits, power, suffix = match.groups()
    return float(digits.replace(",", "") + (power or "")) * _SUFFIXES[suffix.lower()]


def parse_budget(text: str) -> tuple[str, float]:
    """Parse a budget as people type it: ``macs=30M``, ``macs<=30M``, ``error<5%``, ``proxy_accuracy>=0.9``.

    Returns:
        Name and limit; the direction is the metric's own, so a wrong one is refused.

    Raises:
        UserError: If it is no such thing.

    Examples:
        >>> parse_budget("macs <= 1.5M"), parse_budget("error=5%"), parse_budget("params=700k")
        (('macs', 1500000.0), ('error', 0.05), ('params', 700000.0))
        >>> parse_budget("latency=20ms"), parse_budget("latency_p90 < 0.5s")  # in milliseconds
        (('latency_p50', 20.0), ('latency_p90', 500.0))
    """
    allowed = "NAME=NUMBER with k, M, G, % or ms behind it, commas between thousands only, for example macs=30M"
    sign = next((sign for sign in ("<=", ">=", "<", ">", "=") if sign in text), None)
    name, _, number = (part.strip() for part in text.partition(sign or "="))
    name = "latency_p50" if name == "latency" else name
    entry = METRICS.get(name)
    if sign is None or "=" in name:  # "macs=<few>"
        raise UserError("budget", text, allowed)
    if entry is None or entry.minimise is None:
        known = ", ".join(name for name, metric in METRICS.items() if metric.minimise is not None)
        raise UserError("metric of a budget", name, known)
    if sign in ("<=", "<", ">=", ">") and (sign[0] == "<") != entry.minimise:
        raise UserError("budget", text, f"{name}{'<=' if entry.minimise else '>='}NUMBER, its better side")
    unit = next((unit for unit in _TIMES if number.endswith(unit)), "") if entry.unit.startswith("milli") else ""
    number = number.removesuffix(unit).rstrip()
    try:
        limit = parse_amount(number) * _TIMES.get(unit, 1.0)
    except ValueError:
        raise UserError("budget", text, allowed) from None
    if not math.isfinite(limit) or limit < 0:
        raise UserError("budget", text, "a finite number that is not negative")
    is_share, suffix = entry.unit.startswith("share"), number[-1]
    if suffix == "%" and not is_share:
        raise UserError("budget", text, f"a number without %, which is for shares: {name}={number.rstrip('% ')}")
    if is_share and suffix.isalpha():
        raise UserError("budget", text, f"a share, for example {name}=5% or {name}=0.05")
    if is_share and limit > 1:
        example = "at most 100%" if suffix == "%" else f"{name}={number}%"
        raise UserError("budget", text, f"a share of at most 1, or a percentage: {example}")
    return name, limit
