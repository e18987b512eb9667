"""Exported networks: formats, prediction, latency and model cards."""

from __future__ import annotations

__all__: list[str] = []
