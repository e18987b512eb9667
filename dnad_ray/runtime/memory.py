"""Limits of memory that the system sets for this process."""

from __future__ import annotations

import resource

__all__ = ["address_space_limit"]


def address_space_limit() -> int | None:
    """Return the most bytes that this process may map (`ulimit -v`), None where there is no limit."""
    if not hasattr(resource, "RLIMIT_AS"):
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit
