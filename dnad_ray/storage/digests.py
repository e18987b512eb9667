"""Digests of plain data (standard library only)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["digest_of_data"]


def digest_of_data(data: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of plain data.

    >>> digest_of_data({"b": 1, "a": 2}) == digest_of_data({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
