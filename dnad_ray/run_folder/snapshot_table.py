"""Snapshots in columns, with the checks of single records, but a million of them in a second (no torch, no Ray)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dnad_ray.errors import RunFolderError, one_line
from dnad_ray.run_folder.fields import checked, kinds_of, limits_of
from dnad_ray.run_folder.layout import SAFE_NAME, checked_name
from dnad_ray.run_folder.records import SNAPSHOT_COLUMNS, Snapshot
from dnad_ray.storage.parquet_reader import parse_parquet_table

__all__ = ["ARROW_SCHEMA", "checked_record", "merge", "parse_snapshots", "table_of"]

_KEY = ("trial", "step", "rung")
_LONGEST_TEXT = 1_000
_FEW_ROWS = 64
"""Up to so many rows are checked and ordered one by one: for columns Arrow is called a hundred times."""

_KINDS = kinds_of(Snapshot)
ARROW_SCHEMA = pa.schema([(name, pa.type_for_alias(kind.arrow)) for name, kind in _KINDS.items()])
"""Columns and types of ``snapshots.parquet``; text may be dictionary-encoded in memory."""


def checked_record(row: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot as plain data, after a check of names of files and of texts that are shown.

    Raises:
        KeyError: If a field is missing.
        TypeError: If a field is of another type, or a number out of bounds.
        RunFolderError: If a name is unsafe or a text too long.
    """
    data = checked(Snapshot, row)
    for name in ("trial", "digest"):
        checked_name(data[name], name)
    for name, value in data.items():
        if isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise RunFolderError(name, value[:60] + "...", f"at most {_LONGEST_TEXT} characters")
    return data


def parse_snapshots(content: bytes, origin: str) -> pa.Table:
    """Parse ``snapshots.parquet`` into a table of :data:`ARROW_SCHEMA`, held to the rules of :func:`checked_record`.

    Raises:
        ParquetError: If it is no table of records.
        KeyError: If a column is missing that has no default.
        TypeError: If a column is of another type or lacks values, or a number of few rows is out of bounds.
        RunFolderError: If a name is unsafe, or a number out of bounds or not finite.
    """
    table = parse_parquet_table(content, origin, SNAPSHOT_COLUMNS)
    if table.num_rows <= _FEW_ROWS:
        rows = [checked_record(row) for row in table.to_pylist()]
        return table if _is_complete(table.schema) else table_of(rows)
    columns = []
    for field in ARROW_SCHEMA:
        if field.name not in table.column_names:
            if field.name not in Snapshot.__dict__:  # no default: every version has had it
                raise KeyError(field.name)
            columns.append(pa.array([getattr(Snapshot, field.name)] * table.num_rows, field.type))
            continue
        try:
            columns.append(_checked_column(table.column(field.name), field.name))
        except pa.ArrowInvalid as error:  # of a number that the column's type cannot hold
            raise TypeError(f"{field.name}: {one_line(error)}") from None
    result = pa.table(columns, schema=pa.schema(zip(SNAPSHOT_COLUMNS, (c.type for c in columns), strict=True)))
    for name in ("trial", "digest"):
        _check_names(pc.unique(result.column(name)), name)
    return result


def table_of(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return checked records as a table of :data:`ARROW_SCHEMA`, in their order."""
    return pa.Table.from_pylist([{name: row[name] for name in SNAPSHOT_COLUMNS} for row in rows], schema=ARROW_SCHEMA)


def merge(stored: pa.Table, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Add records to a table; the result is ordered by trial, step and rung, and has one row for each.

    Args:
        stored: A table of :data:`ARROW_SCHEMA`; of several rows for one key the last one counts.
        rows: Records that the table does not hold.
    """
    rows = list(rows)
    if stored.num_rows + len(rows) <= _FEW_ROWS:
        keys = [*zip(*(stored.column(name).to_pylist() for name in _KEY), strict=True)]
        if not rows and keys == sorted(set(keys)):
            return stored
        known = dict(zip(keys, stored.to_pylist(), strict=True)) | {tuple(row[n] for n in _KEY): row for row in rows}
        return table_of(known[key] for key in sorted(known))
    added = table_of(rows)
    if added.num_rows and stored.num_rows:
        # Text must be of one type only if both tables have the column.
        stored = pa.concat_tables([stored.cast(ARROW_SCHEMA), added])
    elif added.num_rows:
        stored = added
    keys = pa.table(
        {
            "trial": _plain(stored.column("trial")),
            "step": stored.column("step"),
            "rung": stored.column("rung"),
            "row": pa.array(range(len(stored)), pa.int64()),
        }
    ).sort_by([(name, "ascending") for name in (*_KEY, "row")])
    order = keys.column("row")
    if len(keys) > 1:
        columns = [keys.column(name) for name in _KEY]
        is_same = [pc.equal(column.slice(0, len(keys) - 1), column.slice(1)) for column in columns]
        is_repeated = pc.and_(pc.and_(is_same[0], is_same[1]), is_same[2])
        is_last = pa.chunked_array([*pc.invert(is_repeated).chunks, pa.array([True])])
        order = order.filter(is_last)
    return stored.take(order)


def _is_complete(schema: pa.Schema) -> bool:
    """Whether these are all columns of a snapshot in their types, text as a dictionary or plain."""
    types = (kind.value_type if pa.types.is_dictionary(kind) else kind for kind in schema.types)
    return bool(schema.names == ARROW_SCHEMA.names and [*types] == ARROW_SCHEMA.types)


def _plain(column: Any) -> Any:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def _checked_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    kind, target = _KINDS[name], ARROW_SCHEMA.field(name).type
    fits = any(getattr(pa.types, test)(column.type) for test in kind.fits)
    if not len(column):
        return column.cast(target) if fits else pa.chunked_array([], target)
    if not fits:
        raise TypeError(f"{name} is of type {column.type}, not {kind.name}")
    if column.null_count and not kind.may_miss:
        raise TypeError(f"{name} is None, not of type {kind.name}")
    if target == pa.string():
        return column  # it may stay a dictionary
    if target != pa.bool_():
        # Not by the least and largest value: these leave NaN out.
        low, high = limits_of(name)
        is_good = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high)).drop_null()
        if not pc.all(is_good, min_count=0).as_py():
            raise RunFolderError(name, "NaN, or a number out of bounds", f"{low:g} to {high:g}")
    return column.cast(target)


def _check_names(names: pa.Array, what: str) -> None:
    # In Arrow's expressions "$" is the end of the text; in Python's a line break may follow.
    is_safe = pc.match_substring_regex(_plain(names), f"^{SAFE_NAME.pattern}$")
    is_bad = pc.or_(pc.invert(is_safe), pc.match_substring(_plain(names), ".."))
    for name in names.filter(is_bad).to_pylist()[:1]:
        checked_name(name, what)
