"""Checksums inside the files that they belong to: JSON records, YAML and parquet.

A checksum is the SHA-256 of the file in which its own 64 digits are zeros. It finds damage and changes by mistake; who
writes a file on purpose can write its checksum too. Files of versions that wrote none are read as they are.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from dnad_ray.errors import UserError
from search_spaces.json_reader import MAX_BYTES, parse_json

__all__ = ["BLANK", "CHECKSUM", "ChecksumError", "check", "check_yaml", "marked", "parse_record", "with_checksum"]

CHECKSUM = "checksum"
"""The key of a JSON record, and of the metadata of a parquet file, whose value is the checksum."""

BLANK = "0" * 64
"""Stands for the checksum while it is calculated."""

_IN_YAML = re.compile(rb"checksum: (\S*)\s*\Z")  # without the "#" too, which may be what was damaged


class ChecksumError(UserError):
    """A file is not the one that was written."""


def marked(data: Any) -> Any:
    """Return plain data with a blank for the checksum: a key of an object, or of the last object of a list.

    >>> marked({"a": 1}) == {"a": 1, "checksum": BLANK}, marked([])
    (True, [])
    """
    if isinstance(data, list) and data and isinstance(data[-1], dict):
        return [*data[:-1], marked(data[-1])]
    return {**data, CHECKSUM: BLANK} if isinstance(data, dict) else data


def with_checksum(content: bytes) -> bytes:
    """Return the content of a file with its checksum in place of the last :data:`BLANK`, if there is one."""
    before, blank, after = content.rpartition(BLANK.encode())
    return before + hashlib.sha256(content).hexdigest().encode() + after if blank else content


def check(content: bytes, checksum: object, origin: str) -> None:
    """Check the content of a file.

    Args:
        content: The file.
        checksum: What the file gives as its checksum.
        origin: Where it came from, for the error.

    Raises:
        ChecksumError: If the content has another checksum.
    """
    digits = checksum.encode() if isinstance(checksum, str) and len(checksum) == len(BLANK) else b""
    at = content.rfind(digits) if digits else -1
    view, digest = memoryview(content), hashlib.sha256()  # a table is large: no copies
    for part in (view[: max(0, at)], BLANK.encode(), view[at + len(digits) :]):
        digest.update(part)
    if at < 0 or digest.hexdigest().encode() != digits:
        allowed = "the file as it was written (without its checksum where the change is meant)"
        raise ChecksumError(origin, "content that does not fit its checksum", allowed)


def check_yaml(content: bytes, origin: str) -> None:
    """Check a YAML file whose last line is a comment with the checksum; raises as :func:`check` does."""
    if (found := _IN_YAML.search(content)) is not None:
        check(content, found[1].decode(errors="replace"), origin)


def parse_record(content: bytes | str, origin: str, max_bytes: int = MAX_BYTES) -> Any:
    """Parse JSON that :func:`dnad_ray.storage.files.write_json` wrote, and take its checksum off.

    Raises:
        JsonError: As :func:`search_spaces.json_reader.parse_json`.
        ChecksumError: If the content has another checksum.

    >>> parse_record('{"a": 1}', "a file of an earlier version")
    {'a': 1}
    """
    data = parse_json(content, origin, max_bytes)
    record = data[-1] if isinstance(data, list) and data else data
    if isinstance(record, dict) and CHECKSUM in record:
        check(content.encode() if isinstance(content, str) else content, record.pop(CHECKSUM), origin)
    return data
