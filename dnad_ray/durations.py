"""Durations as people write and say them."""

from __future__ import annotations

import re

from dnad_ray.errors import ConfigError

__all__ = ["duration_in_words", "parse_duration"]

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([smhd]?)")


def parse_duration(text: str, option: str = "--time-budget") -> float:
    """Return the seconds that people mean by a duration.

    Raises:
        ConfigError: If it is none, or not above 0.

    >>> [parse_duration(text) for text in ("90", "90s", "10m", "1.5h", "2 h", "1d")]
    [90.0, 90.0, 600.0, 5400.0, 7200.0, 86400.0]
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(option, text, "seconds above 0, or a number with s, m, h or d: 90, 90s, 10m, 2h")
    return seconds


def duration_in_words(seconds: float) -> str:
    """Return a duration as people say it.

    >>> [duration_in_words(s) for s in (8, 95, 5400, 200000)]
    ['8 s', '2 min', '1.5 h', '2.3 days']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
