"""One network: its description, its construction, and its file."""

from __future__ import annotations

__all__: list[str] = []
