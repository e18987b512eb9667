"""Showing a run while it goes on: tables, lines, pages and loggers."""

from __future__ import annotations

__all__: list[str] = []
