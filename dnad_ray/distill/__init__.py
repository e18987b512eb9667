"""Search by imitating: teachers and the losses of knowledge distillation."""

from __future__ import annotations

__all__: list[str] = []
