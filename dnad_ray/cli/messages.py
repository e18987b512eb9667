"""Arguments and messages of the command line: conversion of locations, warnings and errors."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from dnad_ray.errors import one_line
from dnad_ray.storage.places import place
from dnad_ray.text import printable

__all__ = ["Program", "fail", "resume_line", "said", "show_warning", "to_place"]

_SAID = "dnad_ray.said"


class Program(click.Group):
    """The program. It keeps its arguments, which :func:`said` returns."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments, and keep a copy of them."""
        words = list(args)  # parsing changes the list
        context = super().make_context(info_name, args, parent, **extra)
        context.meta[_SAID] = words
        return context


def said() -> list[str]:
    """Return the arguments of the running command, beginning with its name."""
    context = click.get_current_context()
    words: list[str] = context.meta.get(_SAID, [str(context.info_name)])
    return words


def resume_line(words: Sequence[str]) -> str:
    """Return the command that continues a run.

    Args:
        words: The arguments that started the run.

    >>> resume_line(["sweep", "demo", "--resume", "--more-seeds", "2"])
    'dnad-ray sweep demo --resume'
    """
    arguments = [word for word in words if word != "--resume"]
    while (at := next((i for i, text in enumerate(arguments) if text.startswith("--more-seeds")), None)) is not None:
        # The added trials are in the run folder by now; with the option again, the command would add more.
        del arguments[at : at + (1 if "=" in arguments[at] else 2)]
    return shlex.join(["dnad-ray", *arguments, "--resume"])


def to_place(_context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Convert the value of an option or argument to a place, or several; a click callback."""
    # This is no parameter type, because click would replace the text of our errors by "invalid value".
    name = "--out" if parameter.name == "out" else "run folder"
    if isinstance(value, tuple):
        return tuple(place(text, name) for text in value)
    return None if value is None else place(value, name)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning on one line of standard error."""
    click.echo(f"dnad-ray: warning: {printable(one_line(str(message)))}", err=True)


def fail(message: str, code: int) -> NoReturn:
    """Print an error on one line of standard error, and exit."""
    click.echo(f"dnad-ray: error: {printable(one_line(message))}", err=True)
    sys.exit(code)
