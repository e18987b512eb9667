"""Fronts to and from other tools."""

from __future__ import annotations

__all__: list[str] = []
