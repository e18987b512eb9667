"""Search by deleting: one supernet shrinks and leaves a record of every smaller network.

``search(state)`` is a generator of records, so a for-loop, a test, a notebook and Ray drive the same code.
"""

from __future__ import annotations

from dnad_ray.search.loop import search
from dnad_ray.search.state import SearchState

__all__ = ["SearchState", "search"]
