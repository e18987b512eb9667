"""The fields of records: how their values are stored, and the checks that every reader makes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import Any

__all__ = ["FieldKind", "checked", "kinds_of", "limits_of"]


@dataclass(frozen=True)
class FieldKind:
    """How the values of a field are stored: one table for all readers, so that they agree.

    Attributes:
        name: The annotation of the field; ``text`` for text of any kind.
        python: Types in plain data.
        arrow: Type of a column in parquet.
        fits: Accepted types of columns, by the names of their tests in :mod:`pyarrow.types`.
        pandas: Type of a column in a frame; None among numbers becomes NaN there.
    """

    name: str
    python: tuple[type, ...]
    arrow: str = ""
    fits: tuple[str, ...] = ()
    pandas: str = "object"

    @property
    def may_miss(self) -> bool:
        """Whether None is a value."""
        return type(None) in self.python


_NUMBERS = ("is_integer", "is_floating")
_TEXT = FieldKind("text", (str,), "string", ("is_string", "is_dictionary"), "str")
_KINDS = {
    kind.name: kind
    for kind in (
        FieldKind("bool", (bool,), "bool", ("is_boolean",), "bool"),
        FieldKind("int", (int,), "int64", ("is_integer",), "int64"),
        FieldKind("float", (int, float), "float64", _NUMBERS, "float64"),
        FieldKind("float | None", (int, float, type(None)), "float64", (*_NUMBERS, "is_null"), "float64"),
        FieldKind("dict[str, list[float]] | None", (dict, type(None))),
    )
}


_MOST = 1e39
"""Largest size of a number without limits of its own: beyond all 32-bit numbers, with which searches calculate."""

_LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("proxy_accuracy", "accuracy", "train_accuracy", "free_share"), (0, 1)),
    **dict.fromkeys(("macs", "macs_conv_linear", "params", "peak_memory"), (0, 10**15)),
    **dict.fromkeys(("step", "num_images"), (0, 10**12)),
    **dict.fromkeys(("epoch", "epochs", "num_operations", "num_classes", "batch_size", "repeats"), (0, 10**7)),
    **dict.fromkeys(("image_size", "init_channels", "in_channels", "num_cells", "rung", "threads"), (0, 10**5)),
    **dict.fromkeys(("device_seconds", "latency_p50", "latency_p90", "latency_p99"), (0, 10**12)),
}
"""Least and largest value of numbers by field: far beyond what a search can record, within what charts can show."""


@cache
def kinds_of(record: type) -> Mapping[str, FieldKind]:
    """Return the kind of each field of a record, in order.

    >>> from dnad_ray.run_folder.records import Snapshot
    >>> kinds_of(Snapshot)["macs"].arrow, kinds_of(Snapshot)["kind"].name
    ('int64', 'text')
    """
    return MappingProxyType({field.name: _KINDS.get(str(field.type), _TEXT) for field in fields(record)})


@cache
def _defaults_of(record: type) -> Mapping[str, Any]:
    """Return the fields that were added later, which older records lack, with their defaults."""
    return MappingProxyType({field.name: field.default for field in fields(record) if field.default is not MISSING})


def checked(record: type, data: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record among plain data; unknown ones are left out.

    Raises:
        KeyError: If a field is missing that has no default.
        TypeError: If a field is of another type, or a number is out of bounds or NaN.
    """
    given = {**_defaults_of(record), **data}
    values = {}
    for name, kind, low, high, least, most in _rules_of(record):
        value = values[name] = given[name]
        # What almost every value is; the rest takes three times as long.
        if type(value) is float:
            if low <= value <= high:
                continue
        elif type(value) is int:
            if least <= value <= most:
                continue
        elif type(value) is str and kind is _TEXT:
            continue
        fits = isinstance(value, kind.python)
        if isinstance(value, bool):  # an int in Python, but no number here
            fits = bool in kind.python
        if isinstance(value, dict):
            fits = fits and _are_shares(value)
        if not fits or (isinstance(value, int) and abs(value) >= 2**63):  # columns have 64 bits
            raise TypeError(f"{name} is {value!r}, not of type {kind.name}")
        if float in kind.python and value is not None:
            values[name] = float(value)  # of an integer beyond 2^53, a column of floats would refuse the digits
        lowest, highest = limits_of(name)
        if isinstance(value, int | float) and not lowest <= value <= highest:
            raise TypeError(f"{name} is {value!r}, not from {lowest:g} to {highest:g}")
    return values


@cache
def _rules_of(record: type) -> tuple[tuple[str, FieldKind, float, float, float, float], ...]:
    """Return name and kind of each field, and the ends of the floats and integers that are kept as they are."""
    rules = []
    for name, kind in kinds_of(record).items():
        low, high = limits_of(name)
        floats = (low, high) if float in kind.python else (math.inf, -math.inf)
        # An integer in a column of floats becomes one.
        integers = (max(low, 1 - 2**63), min(high, 2**63 - 1)) if kind.python == (int,) else (math.inf, -math.inf)
        rules.append((name, kind, *floats, *integers))
    return tuple(rules)


def limits_of(field: str) -> tuple[float, float]:
    """Return the least and the largest value of a field that holds numbers.

    >>> limits_of("proxy_accuracy"), limits_of("gamma")
    ((0, 1), (-1e+39, 1e+39))
    """
    return _LIMITS.get(field, (-_MOST, _MOST))


def _are_shares(weights: dict[Any, Any]) -> bool:
    """Whether this maps texts to lists of numbers from 0 to 1, with at most the size of a supernet."""
    return len(weights) <= 100 and all(
        isinstance(name, str)
        and len(name) <= 100
        and isinstance(values, list)
        and len(values) <= 200
        and all(type(value) in (int, float) and 0 <= value <= 1.001 for value in values)
        for name, values in weights.items()
    )
