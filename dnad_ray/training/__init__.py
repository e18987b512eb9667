"""What all training shares."""

from __future__ import annotations

__all__: list[str] = []
