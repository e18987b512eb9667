"""Limits of memory that the system sets for this process."""

from __future__ import annotations

__all__ = ["address_space_limit"]


def address_space_limit() -> int | None:
    """Return the most bytes that this process may map (`ulimit -v`), None where there is no limit."""
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return None
    if not hasattr(resource, "RLIMIT_AS"):
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit
