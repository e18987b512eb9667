"""Runs on Ray: the only room that imports it."""

from __future__ import annotations

__all__: list[str] = []
