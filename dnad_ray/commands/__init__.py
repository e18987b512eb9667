"""The verbs as functions: each takes values and returns an outcome."""

from __future__ import annotations

__all__: list[str] = []
