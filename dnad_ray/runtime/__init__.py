"""The machine: devices, processes, random streams, stopping and time budgets."""

from __future__ import annotations

__all__: list[str] = []
