"""The one reader of parquet, with limits on rows, columns and text.

The format compresses by repetition: a megabyte of text in one dictionary entry, named by a million rows, is a file
of a few kilobytes and a terabyte in memory. Text therefore stays a dictionary until its entries are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dnad_ray.errors import UserError, one_line
from dnad_ray.storage.checksums import CHECKSUM, check

__all__ = ["MAX_BYTES", "MAX_ROWS", "MAX_TEXT", "ParquetError", "parse_parquet_table"]

MAX_BYTES = 256 * 2**20
MAX_ROWS = 2_000_000
MAX_TEXT = 1_000
"""Most characters of one text."""

_MAX_COLUMNS = 200
_BATCH_ROWS = 10_000
_THRIFT_LIMIT = 2**20  # bytes of a text, and entries of a list, in the metadata


class ParquetError(UserError):
    """A file is not a parquet table of records, or is too large."""


def parse_parquet_table(content: bytes, origin: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Parse a table of numbers, booleans and short texts, and leave it in columns: a million rows take a second.

    Args:
        content: The file.
        origin: Where it came from, for error messages.
        columns: Those to read, None for all that hold numbers, booleans or text; others, and those that are missing,
            are passed over.

    Returns:
        The columns in the requested order; repeated text is dictionary-encoded. Decimals are floating-point numbers,
        and dictionaries of anything but text are the values that they stand for.

    Raises:
        ParquetError: If it is no such table, is damaged, or has more than :data:`MAX_BYTES`, :data:`MAX_ROWS` or a
            text of more than :data:`MAX_TEXT`; if a checksum of a page is another; or if a column of ``columns`` holds
            anything else.
        ChecksumError: If its metadata have a checksum (:mod:`dnad_ray.storage.checksums`) of another file.
    """
    if len(content) > MAX_BYTES:
        raise ParquetError(origin, f"{len(content):,} bytes", f"at most {MAX_BYTES:,}")
    try:
        return _table(content, origin, columns)
    # Arrow checks the file, but does not document the errors that it raises for wrong ones.
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise ParquetError(origin, one_line(error)[:300], "a parquet file that can be read") from None


def _table(content: bytes, origin: str, columns: Sequence[str] | None) -> pa.Table:
    limits = {"thrift_string_size_limit": _THRIFT_LIMIT, "thrift_container_size_limit": _THRIFT_LIMIT}
    with pq.ParquetFile(pa.BufferReader(content), **limits) as plain:
        checksum = (plain.metadata.metadata or {}).get(CHECKSUM.encode())
        if checksum is not None:
            check(content, checksum.decode(errors="replace"), origin)
        schema = plain.schema_arrow
        if len(schema) > _MAX_COLUMNS or len(set(schema.names)) != len(schema):
            raise ParquetError(origin, f"{len(schema)} columns", f"at most {_MAX_COLUMNS}, each once")
        if plain.metadata.num_rows > MAX_ROWS:
            raise ParquetError(origin, f"{plain.metadata.num_rows:,} rows", f"at most {MAX_ROWS:,}")
        if columns is None:
            wanted = [field.name for field in schema if _is_plain(field.type)]
        else:
            names = {*schema.names}
            wanted = [name for name in columns if name in names]
        for name in wanted:
            if not _is_plain(schema.field(name).type):
                raise ParquetError(f"{origin} column {name}", str(schema.field(name).type), "numbers, booleans or text")
        texts = [name for name in wanted if _is_text(schema.field(name).type)]
    is_checked = checksum is not None
    options = {**limits, "read_dictionary": texts, "page_checksum_verification": not is_checked}
    num_rows, batches = 0, []
    with pq.ParquetFile(pa.BufferReader(content), metadata=plain.metadata, **options) as table:
        for batch in table.iter_batches(_BATCH_ROWS, columns=wanted, use_threads=False):
            num_rows += batch.num_rows
            if num_rows > MAX_ROWS:  # the metadata can be wrong
                raise ParquetError(origin, f"over {MAX_ROWS:,} rows", f"at most {MAX_ROWS:,}")
            for name in texts:
                column = batch.column(name)
                values = column.dictionary if pa.types.is_dictionary(column.type) else column
                # Of texts that are short together, none is long.
                longest = pc.max(pc.binary_length(values)).as_py() or 0 if values.nbytes > MAX_TEXT else 0
                if longest > MAX_TEXT:
                    raise ParquetError(f"{origin} column {name}", f"a text of {longest:,} bytes", f"at most {MAX_TEXT}")
            batches.append(batch)
    if not batches:  # without a row there is no batch, and the columns are there all the same
        return pa.schema([schema.field(name) for name in wanted]).empty_table()
    result = pa.Table.from_batches(batches)
    result.validate(full=not is_checked)  # text that is UTF-8, entries that its dictionary has
    return pa.table({name: _compact(result.column(name)) for name in wanted})


def _compact(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text as one dictionary where it repeats, and plain where many rows have their own; numbers as numbers."""
    kind = _value_type(column.type)
    if pa.types.is_decimal(kind):
        return column.cast(kind).cast(pa.float64())
    if not pa.types.is_dictionary(column.type):
        return column
    if not _is_text(kind):
        return column.cast(kind)
    if 4 * sum(len(chunk.dictionary) for chunk in column.chunks) > len(column):
        return column.cast(pa.string())
    return column.unify_dictionaries()


# A thousand small tables have forty thousand columns, of five types.
@lru_cache(maxsize=256)
def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@lru_cache(maxsize=256)
def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(_value_type(kind)) or pa.types.is_large_string(_value_type(kind)))


@lru_cache(maxsize=256)
def _is_plain(kind: pa.DataType) -> bool:
    tests = ("is_boolean", "is_integer", "is_floating", "is_null", "is_decimal")
    return _is_text(kind) or any(getattr(pa.types, test)(_value_type(kind)) for test in tests)
