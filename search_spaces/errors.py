"""The base class of all errors that the toolkit raises on purpose."""

from __future__ import annotations

__all__ = ["DnadRayError", "GenotypeError", "SpaceError", "UserError"]


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
        super().__init__(f"{argument}: got {given!r}; allowed: {allowed}")

    def __reduce__(self) -> tuple[type[UserError], tuple[str, object, str]]:
        # Exceptions are pickled by their args; ours has three and a message, and crosses processes under Ray.
        return type(self), (self.argument, self.given, self.allowed)


class GenotypeError(UserError):
    """A genotype, or its file, does not describe a network that can be built."""


class SpaceError(UserError):
    """A search space, or an operation in it, is unknown or impossible."""
