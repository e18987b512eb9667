"""The displays of a run: live table, plain lines, JSON lines or none, and the loggers of the configuration."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Literal, TextIO

from rich.console import Console

from dnad_ray.config.run import WatchConfig
from dnad_ray.watch.board import Board
from dnad_ray.watch.json_lines import JsonLines
from dnad_ray.watch.live_table import LiveTable
from dnad_ray.watch.logbook import Logbook, TrialLog
from dnad_ray.watch.mlflow_log import MlflowLog
from dnad_ray.watch.moments import Display
from dnad_ray.watch.plain_lines import PlainLines
from dnad_ray.watch.tensorboard import EventFiles
from dnad_ray.watch.wandb_log import WandbLog

__all__ = ["Mode", "logs_of", "open_board"]

Mode = Literal["people", "quiet", "json"]
_LOGGERS: dict[str, type[TrialLog]] = {"mlflow": MlflowLog, "wandb": WandbLog}


@contextlib.contextmanager
def open_board(mode: Mode, console: Console, others: Sequence[Display] = ()) -> Iterator[Board]:
    """Open a board for a command.

    Args:
        mode: ``people`` shows a live table on a terminal or in a notebook, and plain lines elsewhere,
            ``quiet`` nothing, ``json`` only JSON objects on standard output, and text on standard error.
        console: For people.
        others: Further displays.
    """
    if mode == "quiet":
        yield Board(others)
    elif mode == "json":
        with _standard_output() as out:
            yield Board([JsonLines(out, sys.stderr), *others])
    elif console.is_terminal or _is_notebook(console):
        with LiveTable(console) as table:
            yield Board([table, *others])
    else:
        yield Board([PlainLines(console), *others])


def logs_of(config: WatchConfig) -> list[Display]:
    """Return the displays that write logs; each opens its log when the run begins."""
    logs = [EventFiles()] if config.tensorboard else []
    return [Logbook(log) for log in [*logs, *(_LOGGERS[name]() for name in config.loggers)]]


def _is_notebook(console: Console) -> bool:
    """Whether this is a notebook with the widgets that a live table needs."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


@contextlib.contextmanager
def _standard_output() -> Iterator[TextIO]:
    """Hand out standard output, and send what others print to standard error."""
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield out
