"""The run folder: its layout, records, readers and writers."""

from __future__ import annotations

__all__: list[str] = []
