"""The only reader of JSON, with limits, because files can be untrusted (standard library only).

Python's JSON reader accepts too much: the last of two equal keys wins, NaN and Infinity are numbers, ``1e999`` is
infinite, an integer may have thousands of digits, and deep nesting ends in a RecursionError. All of this is refused
here.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from search_spaces.errors import UserError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "JsonError", "parse_json"]

MAX_BYTES = 64 * 2**20
"""A history of 100,000 epochs has half of it."""

MAX_DEPTH = 32
"""Levels of lists and objects; a genotype has 6."""

_MOST_CONTAINERS = 3_000_000  # an empty one has 3 bytes in the file and 80 in memory
_MOST_VALUES = 10_000_000

_INTEGERS = range(-(2**63), 2**63)  # of 64 bits, as in the columns of a table
_MOST_DIGITS = 20


class JsonError(UserError):
    """A text is not JSON, or breaks a limit of :func:`parse_json`."""


def parse_json(content: str | bytes, origin: str, max_bytes: int = MAX_BYTES) -> Any:
    """Parse a JSON document.

    Args:
        content: The document; bytes are UTF-8.
        origin: Where it came from, for error messages.
        max_bytes: Most bytes (of a string: characters) that it may have.

    Returns:
        Plain data: dictionaries without equal keys, lists, text, finite numbers of at most 64 bits, booleans, None.

    Raises:
        JsonError: If it is larger, no JSON, nested deeper than :data:`MAX_DEPTH` or of millions of lists, objects or
            values; or if it has equal keys in an object, NaN, an infinite number, an integer that does not fit 64 bits
            or a lone surrogate.

    >>> parse_json('{"a": [1, 2.5, null]}', "example")
    {'a': [1, 2.5, None]}
    >>> parse_json('{"a": 1, "a": 2}', "example")
    Traceback (most recent call last):
    search_spaces.json_reader.JsonError: example: got "the key 'a' twice"; allowed: each key of an object once
    """

    def refuse(given: str, allowed: str) -> NoReturn:
        raise JsonError(origin, given, allowed) from None

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            refuse(f"the key {_short(twice)!r} twice", "each key of an object once")
        return result

    def integer(digits: str) -> int:
        if len(digits) > _MOST_DIGITS or int(digits) not in _INTEGERS:
            refuse(_short(digits), "integers of at most 64 bits")
        return int(digits)

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(_short(digits), "finite numbers")

    def constant(name: str) -> NoReturn:
        refuse(name, "finite numbers")

    if len(content) > max_bytes:
        refuse(f"{len(content):,} bytes", f"at most {max_bytes:,}")
    try:
        text = content.decode() if isinstance(content, bytes) else content
        for what, most, found in (
            ("lists and objects", _MOST_CONTAINERS, text.count("{") + text.count("[")),
            ("values", _MOST_VALUES, text.count(",")),
        ):
            if found > most:
                refuse(f"{found:,} {what}", f"at most {most:,}")
        data = json.loads(text, object_pairs_hook=unique, parse_int=integer, parse_float=real, parse_constant=constant)
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        refuse(f"bytes that are no text ({error.reason} at byte {error.start})", "JSON in UTF-8")
    except (ValueError, RecursionError) as error:
        refuse(f"text that does not parse: {_short(str(error))}", "a JSON document")
    if "\\ud" in text.lower():  # half of a surrogate pair can only be an escape
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError):
            refuse("half a character", "text that UTF-8 can hold")
    if _is_deeper(data, MAX_DEPTH):
        refuse(f"more than {MAX_DEPTH} levels", f"lists and objects of at most {MAX_DEPTH} levels")
    return data


def _is_deeper(data: Any, levels: int) -> bool:
    """Whether plain data has more levels of containers; level by level, so that it needs no stack."""
    layer = [data]
    for _ in range(levels + 1):
        layer = [node for node in layer if isinstance(node, dict | list)]
        if not layer:
            return False
        layer = [value for node in layer for value in (node.values() if isinstance(node, dict) else node)]
    return True


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
