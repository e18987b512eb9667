"""Which searches a run consists of. No torch."""

from __future__ import annotations

__all__: list[str] = []
