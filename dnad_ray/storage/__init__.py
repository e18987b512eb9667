"""Bytes in and out, safely: places, files, and one reader per format."""

from __future__ import annotations

__all__: list[str] = []
