"""Images: where they come from, how they are held and made into batches."""

from __future__ import annotations

__all__: list[str] = []
