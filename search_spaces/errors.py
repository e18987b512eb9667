"""The base class of all errors that the toolkit raises on purpose."""

from __future__ import annotations

import math

__all__ = ["DnadRayError", "GenotypeError", "SpaceError", "UserError"]


_LARGEST_SHOWN = 10**40
"""Python itself refuses to write integers of more than 4,300 digits."""


class DnadRayError(Exception):
    """Base class of all errors of the toolkit."""


class UserError(DnadRayError, ValueError):
    """A value given by the user cannot be used; the command line exits with code 2.

    Args:
        argument: Name of the option, key or file, as the user knows it.
        given: The value as it was given.
        allowed: The accepted values, as text.
    """

    def __init__(self, argument: str, given: object, allowed: str) -> None:
        self.argument, self.given, self.allowed = argument, given, allowed
        super().__init__(f"{argument}: got {_shown(given)}; allowed: {allowed}")

    def __reduce__(self) -> tuple[type[UserError], tuple[str, object, str]]:
        # Exceptions are pickled by their args; ours has three and a message, and crosses processes under Ray.
        return type(self), (self.argument, self.given, self.allowed)


def _shown(given: object) -> str:
    """Return a value as Python writes it, and of a huge integer the number of its digits.

    >>> _shown("demo"), _shown(10**400)
    ("'demo'", 'an integer of 401 digits')
    """
    if isinstance(given, int) and abs(given) >= _LARGEST_SHOWN:
        return f"an integer of {int(math.log10(abs(given))) + 1} digits"
    return repr(given)


class GenotypeError(UserError):
    """A genotype, or its file, does not describe a network that can be built."""


class SpaceError(UserError):
    """A search space, or an operation in it, is unknown or impossible."""
