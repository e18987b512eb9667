"""Text of others on a terminal: control characters shown, not obeyed (standard library only)."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]

# Control characters, those that turn the direction of writing or show nothing, halves of pairs, line separators.
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Return text without characters that a terminal obeys: they are written as Python writes them.

    A name in somebody's run folder could else move the cursor, change the title or the colours, or hide a line.

    >>> print(printable("run \x1b[2J\u202e one"))
    run \x1b[2J\u202e one
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in _CATEGORIES else char
        for char in text
    )
