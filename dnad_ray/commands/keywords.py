"""Keyword arguments of the Python functions: their types are checked, and errors name them as Python does.

The command line parses its options. In Python a value arrives as it is, so that a wrong type would fail somewhere deep.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from upath import UPath

from dnad_ray.commands.packages import check_packages
from dnad_ray.config.run import RunConfig
from dnad_ray.errors import ConfigError, UserError

__all__ = ["in_keywords", "spelled_as_keywords"]

P = ParamSpec("P")
T = TypeVar("T")

_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
_ARGUMENTS = {"CONFIG": "config", "IMAGES": "images", "MODEL": "model", "RUN": "run", "SOURCE": "source"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)  # True is an int in Python


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike | UPath)


def _are_texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Sequence) and all(isinstance(item, str) for item in value))


def _are_limits(value: Any) -> bool:
    return all(isinstance(limit, str) or _is_number(limit) for limit in value.values())


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "int": (lambda value: _is_number(value) and isinstance(value, int), "a whole number"),
    "int | str": (
        lambda value: isinstance(value, str) or (_is_number(value) and isinstance(value, int)),
        "a whole number, or a text such as '30M'",
    ),
    "float": (_is_number, "a number"),
    "str": (lambda value: isinstance(value, str), "a text"),
    "str | float": (lambda value: isinstance(value, str) or _is_number(value), "a number, or a text such as '30M'"),
    "str | Sequence[str]": (_are_texts, "a text, or several in a list"),
    "str | PathLike[str]": (_is_path, "a path"),
    "AnyPath": (_is_path, "a path or URL"),
    "Config": (
        lambda value: _is_path(value) or isinstance(value, Mapping | RunConfig),
        "the name of a recipe, the path of a YAML file, a dictionary or a RunConfig",
    ),
    "Settings": (
        lambda value: _are_texts(list(value) if isinstance(value, Mapping) else value),
        "a dictionary such as {'train.epochs': 3}, or texts such as 'train.epochs=3'",
    ),
    "TimeBudget": (
        lambda value: value is None or isinstance(value, str) or _is_number(value),
        "seconds, a text such as '10m', or None",
    ),
    "Mapping[str, str | float]": (
        lambda value: isinstance(value, Mapping) and _are_limits(value),
        "a dictionary such as {'threads': 1}",
    ),
    "Under": (
        lambda value: _are_limits(value) if isinstance(value, Mapping) else _are_texts(value),
        "a dictionary such as {'macs': '30M'}, or texts such as 'macs=30M'",
    ),
}
"""By annotation: whether a value is of that type, and the type in words. ``| None`` may follow an annotation."""


def _check_kinds(arguments: inspect.BoundArguments) -> None:
    """Check the types of all arguments.

    Raises:
        ConfigError: If one is of another type than its annotation says.
    """
    for name, value in arguments.arguments.items():
        parameter = arguments.signature.parameters[name]
        annotation = str(parameter.annotation)
        is_of_kind, allowed = _KINDS.get(annotation.removesuffix(" | None"), (lambda _: True, ""))
        if annotation.endswith(" | None"):
            if value is None:
                continue
            allowed += ", or None"
        given = value if parameter.kind is parameter.VAR_KEYWORD else {name: value}
        for key, item in given.items():
            if not is_of_kind(item):
                raise ConfigError(key, item, allowed)


def in_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """Check the types of arguments; spell options as keywords in errors: ``max_macs`` for ``--max-macs``."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        check_packages()  # a script imports what lies beside it first
        try:
            _check_kinds(signature.bind(*args, **kwargs))
            return function(*args, **kwargs)
        except UserError as error:
            first, colon, rest = error.argument.partition(":")  # "CONFIG: train.epochs"
            name = spelled_as_keywords(_ARGUMENTS.get(first, first) + colon + rest)
            raise type(error)(name, error.given, spelled_as_keywords(error.allowed)) from None

    return call


def spelled_as_keywords(text: str) -> str:
    """Spell options as keywords.

    >>> spelled_as_keywords("at least 1, together with --more-seeds")
    'at least 1, together with more_seeds'
    """
    return _OPTION.sub(lambda match: match[1].replace("-", "_"), text)
