"""Training found networks, and the baselines they are compared with, from scratch."""

from __future__ import annotations

__all__: list[str] = []
