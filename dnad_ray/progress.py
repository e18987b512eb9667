"""What people see while they wait: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dnad_ray.printable import printable

__all__ = ["Board", "duration_in_words", "progress_board"]

_LINE_SECONDS = 5.0
_ENDED = float("inf")


class Board:
    """Named lines, each with a share done and a text.

    Args:
        console: Where to write.
        bars: The bars of a terminal; None writes a plain line per name every few seconds.
    """

    def __init__(self, console: Console, bars: Progress | None) -> None:
        self._console, self._bars = console, bars
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._began = time.monotonic()

    def update(self, name: str, done: float, total: float, text: str = "") -> None:
        """Show that ``done`` of ``total`` of the line ``name`` is done."""
        text = printable(text)
        if self._bars is not None:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, text=text)
            self._bars.update(self._tasks[name], completed=done, total=total, text=text)
            return
        now = time.monotonic()
        if self._printed.get(name, 0.0) == _ENDED:
            return
        if done >= total or now - self._printed.get(name, 0.0) >= _LINE_SECONDS:
            self._printed[name] = now if done < total else _ENDED
            self._console.print(
                f"[{now - self._began:5.0f} s] {name}: {done / max(total, 1):4.0%}  {text}",
                markup=False,
                soft_wrap=True,
            )

    def say(self, text: str) -> None:
        """Write one lasting line."""
        (self._bars.console if self._bars is not None else self._console).print(
            printable(text), markup=False, soft_wrap=True
        )


@contextmanager
def progress_board(console: Console) -> Iterator[Board]:
    """Open a board; bars where ``console`` is a terminal, else plain lines."""
    if not console.is_terminal:
        yield Board(console, None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=console) as bars:
        yield Board(console, bars)


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
