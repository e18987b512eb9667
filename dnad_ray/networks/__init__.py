"""One network: what it is, how it is built, and its file."""

from __future__ import annotations

__all__: list[str] = []
