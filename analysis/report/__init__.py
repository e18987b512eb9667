"""The report: one self-contained HTML page about any number of runs."""

from __future__ import annotations

__all__: list[str] = []
