"""How the command line speaks: places in, warnings and errors out."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from dnad_ray.storage.places import place
from dnad_ray.text import printable

__all__ = ["fail", "show_warning", "to_place"]


def to_place(_context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Turn what an option or argument says into places: a click callback."""
    # Not a parameter type: click would replace what our errors say by "invalid value".
    name = "--out" if parameter.name == "out" else "run folder"
    if isinstance(value, tuple):
        return tuple(place(text, name) for text in value)
    return None if value is None else place(value, name)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning on one line of standard error."""
    click.echo(f"dnad-ray: warning: {printable(' '.join(str(message).split()))}", err=True)


def fail(message: str, code: int) -> NoReturn:
    """Print an error on one line of standard error, and exit."""
    click.echo(f"dnad-ray: error: {printable(' '.join(message.split()))}", err=True)
    sys.exit(code)
