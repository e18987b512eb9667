"""Text for people: durations, dotted keys, and text of others made safe (standard library only)."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dnad_ray.errors import ConfigError

__all__ = ["counted", "dotted", "duration_in_words", "install_command", "is_text", "parse_duration", "printable"]

_ROOT = Path(__file__).resolve().parent.parent
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_SECONDS = 3650 * 86400.0
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([smhd]?)")


def parse_duration(text: str, option: str = "--time-budget") -> float:
    """Return the seconds that people mean by a duration.

    Raises:
        ConfigError: If it is none, not above 0, or more than ten years.

    >>> [parse_duration(text) for text in ("90", "90s", "10m", "1.5h", "2 h", "1d")]
    [90.0, 90.0, 600.0, 5400.0, 7200.0, 86400.0]
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= _MOST_SECONDS:
        allowed = "seconds above 0, or a number with s, m, h or d: 90, 90s, 10m, 2h; at most 3650d"
        raise ConfigError(option, text, allowed)
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


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which forms its plural by an s.

    >>> counted(1, "network"), counted(1200, "image")
    ('1 network', '1,200 images')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def is_text(value: object) -> bool:
    r"""Whether the text of a value can be written as UTF-8; the name of a file need not be such text.

    >>> is_text("photos"), is_text("\udcff"), is_text(1)
    (True, False, True)
    """
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def install_command(extra: str, root: Path = _ROOT) -> str:
    """Return the command that installs an extra, for those who cloned the repository too.

    Args:
        extra: Name of the extra.
        root: The folder that holds the package.

    >>> install_command("export", Path("/nowhere"))
    "pip install 'dnad-ray[export]'"
    """
    is_checkout = (root / "pyproject.toml").is_file()
    return f"pip install -e {shlex.quote(f'{root}[{extra}]')}" if is_checkout else f"pip install 'dnad-ray[{extra}]'"


def dotted(data: Mapping[str, Any], whole: Collection[str] = ()) -> dict[str, Any]:
    """Return nested dictionaries as one, whose keys are the names on the way, with dots between.

    Args:
        data: The outer dictionary. An empty one within it is a value.
        whole: Dotted keys whose dictionaries are values too.

    >>> dotted({"seed": 0, "shrink": {"floor": {"macs": None}, "rate": 0.1}, "grid": {}})
    {'seed': 0, 'shrink.floor.macs': None, 'shrink.rate': 0.1, 'grid': {}}
    """
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict) and value and name not in whole:
            within = [key.removeprefix(f"{name}.") for key in whole if key.startswith(f"{name}.")]
            flat |= {f"{name}.{key}": part for key, part in dotted(value, within).items()}
        else:
            flat[name] = value
    return flat


# Control characters, those that turn the direction of writing or show nothing, halves of pairs, line separators.
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Return text without characters that a terminal obeys: they are written as Python writes them.

    Without this, a name in a run folder could move the cursor, change the title or the colours, or hide a line.

    >>> print(printable("run \x1b[2J\u202e one"))
    run \x1b[2J\u202e one
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in _CATEGORIES else char
        for char in text
    )
